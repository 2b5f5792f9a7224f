"""Sets up the readers of an export as people have them: an environment each, with the versions of one time.

    python bench/readers_setup.py [--only NAME ...] [--into .readers]

Each is a virtual environment of its own. What is there already is left alone. `make readers` calls this.
"""

import argparse
import subprocess
import sys
import venv
from pathlib import Path

TORCH = "torch>=2.13,<2.14"
READERS = {
    "transformers-4.57": ("transformers==4.57.6", "peft==0.18.1"),
    "transformers-4.46": ("transformers==4.46.3", "peft==0.13.2"),
    "transformers-4.41": ("transformers==4.41.2", "peft==0.11.1"),
    "ctranslate2": ("ctranslate2==4.8.5", "transformers==4.57.6"),
    "llama-cpp": ("llama-cpp-python>=0.3,<1",),
}
"""What each reader is made of; tokenizers and huggingface_hub are those that its transformers asks for."""
WITHOUT_TORCH = ("llama-cpp",)
_MORE = ("sentencepiece", "protobuf")
_DONE = ".complete"


def python_of(folder: Path, name: str) -> Path:
    """The Python of a reader."""
    return folder / name / "bin" / "python"


def is_there(folder: Path, name: str) -> bool:
    """Whether a reader was set up whole, with the versions that are named here."""
    mark = folder / name / _DONE
    return mark.is_file() and mark.read_text(encoding="utf-8") == _asked(name)


def set_up(folder: Path, name: str) -> None:
    """Make the environment of a reader, anew where it was cut short or has other versions."""
    if is_there(folder, name):
        return
    print(f"setting up {name}", flush=True)
    venv.create(folder / name, with_pip=True, clear=True)
    command = [str(python_of(folder, name)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*command, *_asked(name).split("\n")], check=True)
    (folder / name / _DONE).write_text(_asked(name), encoding="utf-8")


def _asked(name: str) -> str:
    needed = READERS[name] if name in WITHOUT_TORCH else (TORCH, *READERS[name], *_MORE)
    return "\n".join(needed)


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--only", nargs="+", choices=list(READERS), default=list(READERS), metavar="NAME")
    ap.add_argument("--into", type=Path, default=Path(__file__).resolve().parent.parent / ".readers")
    args = ap.parse_args()
    for name in args.only:
        try:
            set_up(args.into.resolve(), name)
        except subprocess.CalledProcessError as error:
            sys.exit(f"{name} cannot be set up: {error}")


if __name__ == "__main__":
    main()

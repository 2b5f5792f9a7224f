"""Fledge works on machines as they are: users without a name or a home, other encodings, parts of Python that Windows lacks."""

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runs import environment, recipe_dict, write_recipe

UID = 12345
ROWS = "Zeilen ü 🦉.jsonl"
# What Windows lacks, gone from Python before anything of ours is imported.
WITHOUT = """
import os, sys
for name in ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty"):
    sys.modules[name] = None
import warnings
warnings.simplefilter("ignore")
opens, read_only = os.open, os.O_RDONLY
def open_file(path, flags, *arguments, **options):
    if flags == read_only and os.path.isdir(path):
        raise PermissionError(13, "Permission denied", path)
    return opens(path, flags, *arguments, **options)
import fledge.cli.main
import shutil, tempfile, torch  # these look for their systems first
for name in ("sched_getaffinity", "getuid", "O_DIRECTORY"):
    delattr(os, name)
os.open = open_file
sys.exit(fledge.cli.main.run(sys.argv[1:]))
"""


@functools.cache
def as_nobody() -> tuple[str, ...]:
    """What starts a command as a user without a name; the test is skipped where this user may not."""
    if not hasattr(os, "getuid") or os.getuid() != 0 or shutil.which("setpriv") is None:
        return ()
    plain = ("setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups")
    # the interpreter may lie in a folder of root's alone: then reading, and nothing else, is allowed everywhere
    reads = (*plain, "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
    for way in (plain, reads):
        done = subprocess.run([*way, sys.executable, "-c", "import fledge.cli.main"], capture_output=True, cwd="/")
        if done.returncode == 0:
            return way
    return ()


class Machine:
    """A place with rows and a recipe, and a way to run `fledge` there."""

    def __init__(self, folder: Path, *, is_nobody: bool = False, home: str | None, **changes: str) -> None:
        self.folder, self.way = folder, as_nobody() if is_nobody else ()
        if is_nobody and not self.way:
            pytest.skip("only root can become another user")
        self.environment = environment(**changes)
        for name in ("HOME", "XDG_CACHE_HOME", "HF_HOME"):
            if name not in changes:
                self.environment.pop(name, None)
        self.environment |= {"HOME": home} if home is not None else {}
        # the caches of a user without any other place
        self.environment["TMPDIR"] = str(folder / "tmp")
        (folder / "tmp").mkdir()
        rows = [{"prompt": f"Wer {index}? ü 🦉", "completion": f" Größe {index} 🦉"} for index in range(12)]
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        self.rows = folder / ("rows.jsonl" if "PYTHONUTF8" in changes else ROWS)
        self.rows.write_text(text, encoding="utf-8")
        self.run = folder / ("run" if "PYTHONUTF8" in changes else "Lauf ü 🦉")
        recipe = recipe_dict("builtin:nestling", self.rows, self.run, train__max_steps=2, train__global_batch_size=4)
        self.recipe = write_recipe(folder / "recipe.yaml", recipe)
        if is_nobody:
            for path in (folder, *folder.rglob("*")):
                os.chown(path, UID, UID)
            for path in (folder, *folder.parents)[:3]:
                path.chmod(path.stat().st_mode | 0o111)

    def fledge(self, *arguments: str | Path, start: tuple[str, ...] = ("-m", "fledge")) -> subprocess.CompletedProcess:
        command = [*self.way, sys.executable, *start, *map(str, arguments)]
        return subprocess.run(
            command,
            capture_output=True,
            encoding=self.environment.get("PYTHONIOENCODING", "utf-8"),
            env=self.environment,
            cwd=self.folder,
            timeout=300,
        )

    def works(self, start: tuple[str, ...] = ("-m", "fledge"), verbs: tuple[str, ...] = ()) -> str:
        """Train, evaluate, generate, export and look at the machine; returns what was told on stderr."""
        asked = {
            "train": (self.recipe,),
            "evaluate": (self.run, "--max-rows", "2", "--on", "train"),
            "generate": (self.run, "--prompt", "Wer? ü 🦉", "--max-new-tokens", "3"),
            "export": (self.run, "--to", "adapter", self.folder / "out"),
            "doctor": (),
        }
        told = ""
        for verb in verbs or asked:
            done = self.fledge(verb, *asked[verb], start=start)
            assert done.returncode == 0, f"{verb}\n{done.stdout}\n{done.stderr}"
            assert "Traceback" not in done.stderr and "bug" not in done.stderr
            told += done.stderr
        assert not (self.folder / "~").exists()
        return told

"""Fledge works on machines as they are: users without a name or a home, other encodings, Python as on Windows."""

import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.runs import environment, recipe_dict, write_recipe

UID = 12345
ROWS = "Zeilen ü 🦉.jsonl"
# What Windows lacks, gone from Python before anything of ours is imported.
WITHOUT = """
import os, sys
import psutil  # on Linux it needs some of them itself
for name in ("fcntl", "resource", "pwd", "grp"):
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
shutil._use_fd_functions = False  # as where no folder can be opened
os.open = open_file
"""
# All verbs in one process, for most of each one's time is what it imports.
VERBS = """
import json, sys
from fledge.cli.main import run
for arguments in json.loads(sys.argv[1]):
    print("==", arguments[0], file=sys.stderr)
    code = run(arguments)
    if code:
        sys.exit(f"{arguments[0]} ended with {code}")
"""


@functools.cache
def as_nobody() -> tuple[str, ...]:
    """What starts a command as a user without a name; the test is skipped where this user may not."""
    if not hasattr(os, "getuid") or os.getuid() != 0 or shutil.which("setpriv") is None:
        return ()
    plain = ("setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups")
    # the interpreter may lie in a folder of root's alone: then reading, and nothing else, is allowed everywhere
    reads = (*plain, "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
    for way in (reads, plain):
        done = subprocess.run([*way, sys.executable, "-c", "import fledge.cli.main"], capture_output=True, cwd="/")
        if done.returncode == 0:
            return way
    return ()


@pytest.fixture
def place():
    """An empty folder that any user can reach: pytest's own are root's alone."""
    folder = Path(tempfile.mkdtemp(prefix="fledge-machine-")).resolve()
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


class Machine:
    """A place with rows and a recipe, and ways to run `fledge` there."""

    def __init__(self, folder: Path, *, is_nobody: bool = False, is_ascii: bool = False, **changes: str) -> None:
        self.folder, self.way = folder, as_nobody() if is_nobody else ()
        if is_nobody and not self.way:
            pytest.skip("only root can become another user")
        self.environment = environment(TMPDIR=str(folder / "tmp"), CXX="no-compiler")  # compiling takes longest
        for name in ("HOME", "XDG_CACHE_HOME", "HF_HOME", "PYTHONIOENCODING", "PYTHONUTF8"):
            self.environment.pop(name, None)
        self.environment |= changes
        (folder / "tmp").mkdir()
        rows = [{"prompt": f"Wer {index}? ü 🦉", "completion": f" Größe {index} 🦉"} for index in range(12)]
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        self.rows = folder / ("rows.jsonl" if is_ascii else "Zeilen ü 🦉.jsonl")
        self.rows.write_text(text, encoding="utf-8")
        self.run = folder / ("run" if is_ascii else "Lauf ü 🦉")
        short = {"train__max_steps": 2, "train__global_batch_size": 4, "data__validation": {"fraction": 0.25}}
        recipe = recipe_dict("builtin:nestling", self.rows, self.run, **short)
        self.recipe = write_recipe(folder / ("recipe.yaml" if is_ascii else "Rezept 🦉.yaml"), recipe)
        if is_nobody:
            for path in (folder, *folder.rglob("*")):
                os.chown(path, UID, UID)

    def process(self, *arguments: str | Path, start: tuple[str, ...] = ("-m", "fledge")) -> subprocess.CompletedProcess:
        """Python with `start` and these arguments; its output as UTF-8 has it."""
        command = [*self.way, sys.executable, *start, *map(str, arguments)]
        told = {"capture_output": True, "encoding": "utf-8", "errors": "backslashreplace"}
        return subprocess.run(command, env=self.environment, cwd=self.folder, timeout=300, **told)

    def works(self, before: str = "", *, count: int = 5) -> str:
        """Train, generate, evaluate, export and look at the machine, or the first of these, after the code `before`;
        what was told.
        """
        verbs = (
            ["train", str(self.recipe)],
            ["generate", str(self.run), "--prompt", "Wer? ü 🦉", "--max-new-tokens", "3"],
            ["evaluate", str(self.run), "--max-rows", "2"],
            ["export", str(self.run), "--to", "adapter", str(self.folder / "out")],
            ["doctor"],
        )
        done = self.process(json.dumps(verbs[:count]), start=("-c", before + VERBS))
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr and "bug" not in done.stderr
        assert not (self.folder / "~").exists(), "a library took ~ for a folder's name"
        assert count < 4 or (self.folder / "out" / "certificate.json").is_file()
        return done.stderr


def test_a_user_without_a_name_and_without_a_home_trains_and_is_told_where_things_are_kept(place):
    told = Machine(place, is_nobody=True).works()
    home = place / "tmp" / f"fledge-{UID}"
    assert told.count(f"note: this user has no home folder, so {home} is used; set HOME to a folder that stays") == 1
    assert home.stat().st_mode & 0o777 == 0o700 and home.stat().st_uid == UID
    assert (home / ".cache" / "fledge" / "data").is_dir()


def test_a_user_without_a_name_whose_home_is_the_root_trains(place):
    told = Machine(place, is_nobody=True, HOME="/").works(count=1)
    kept = place / "tmp" / f"fledge-{UID}"
    cure = "set XDG_CACHE_HOME to a folder that can be written and stays"
    assert f"note: the home folder cannot be written, so caches are kept in {kept}; {cure}" in told
    assert (kept / "fledge" / "data").is_dir()


def test_a_home_that_cannot_be_written_is_left_alone_and_the_cure_that_is_named_works(place):
    home, named = place / "home", place / "named"
    machine = Machine(place, is_nobody=True, HOME=str(home))
    home.mkdir(mode=0o555)
    assert "note: the home folder cannot be written" in machine.works(count=1)
    assert not list(home.iterdir())
    machine.environment["XDG_CACHE_HOME"] = str(named)
    done = machine.process("doctor", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["cache"] == str(named / "fledge" / "data")


def test_files_are_utf_8_in_an_ascii_locale_and_every_file_of_ours_is_opened_so(place):
    plain = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONWARNDEFAULTENCODING": "1"}
    machine = Machine(place, is_ascii=True, HOME=str(place), **plain)
    told = machine.works()
    ours = [line for line in told.splitlines() if "EncodingWarning" in line and f"{os.sep}fledge{os.sep}" in line]
    assert not ours, ours


def test_a_name_that_an_ascii_locale_does_not_know_is_refused_with_a_cure_that_works(place):
    plain = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    machine = Machine(place, HOME=str(place), **plain)
    done = machine.process("train", machine.recipe)
    assert done.returncode in (1, 2) and not done.stdout
    assert "note: names of files are ascii in this locale, so others are not found; set PYTHONUTF8=1" in done.stderr
    assert "Traceback" not in done.stderr and "bug" not in done.stderr
    machine.environment["PYTHONUTF8"] = "1"
    assert machine.process("train", machine.recipe).returncode == 0


def test_streams_in_latin_1_show_what_they_can(place):
    machine = Machine(place, HOME=str(place), PYTHONIOENCODING="latin-1")
    told = machine.works(count=2)
    assert "Lauf \\xfc \\U0001f989" in told, "ü as latin-1 has it, read as UTF-8; the owl as its escape"


def test_fledge_works_without_the_parts_of_python_that_windows_lacks(place):
    Machine(place, HOME=str(place)).works(WITHOUT)


def test_a_part_that_windows_lacks_is_named_and_wsl_is_the_cure(place):
    before = "import sys, types\nsys.modules['pwd'] = None\n"
    before += "fake = types.ModuleType('fledge.cli.doctor')\nexec('def run():\\n    import pwd', fake.__dict__)\n"
    before += "sys.modules['fledge.cli.doctor'] = fake\nfrom fledge.cli.main import main\nmain()"
    done = Machine(place, HOME=str(place)).process("doctor", start=("-c", before))
    assert done.returncode == 1
    assert done.stderr == (
        "fledge: this needs pwd, a part of Python that this system lacks\n"
        "    run it in WSL, the Linux that comes with Windows\n"
    )


def test_several_processes_on_windows_are_refused_before_anything_loads(place):
    machine = Machine(place, HOME=str(place))
    windows = "import fledge.cli.train\nfledge.cli.train.sys = type('', (), {'platform': 'win32'})\n"
    start = ("-c", f"{windows}import sys\nfrom fledge.cli.main import run\nsys.exit(run(sys.argv[1:]))")
    done = machine.process("train", machine.recipe, "--nproc", "2", start=start)
    assert done.returncode == 2
    assert "run it in WSL, or without --nproc" in done.stderr


@pytest.mark.parametrize("kind", ["base", "data"])
def test_a_hub_out_of_reach_is_told_at_once_and_nothing_is_tried_again(place, kind):
    machine = Machine(place, HOME=str(place))
    machine.environment.pop("HF_HUB_OFFLINE")
    machine.environment["HF_ENDPOINT"] = "http://127.0.0.1:9"  # nobody listens there
    asked = "model.name_or_path=nobody/nothing" if kind == "base" else "data.train.path=nobody/nothing"
    done = machine.process("train", machine.recipe, asked)
    assert done.returncode == 2
    assert "the hub is out of reach: [Errno 111] Connection refused)" in done.stderr
    assert "check the connection to the hub" in done.stderr
    assert "Retrying" not in done.stderr and "Traceback" not in done.stderr

"""The command line answers fast, in words, and with the exit code that the design promises."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fledge.cli import main as cli
from fledge.cli.page import verbs_page
from fledge.cli.show import show_beside
from fledge.errors import FledgeError, StoppedBySignal, TrainingError

HEAVY = "{'torch', 'transformers', 'pydantic', 'ruamel', 'rich', 'numpy', 'datasets', 'peft'}"
VERBS = ["train", "evaluate", "generate", "chat", "export", "verify", "push", "init", "import", "schema", "doctor"]


def fledge(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fledge", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)


def failing(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit code of a `fledge` whose verb raises `error`."""

    def raise_it(arguments: object) -> object:
        def app(**_: object) -> None:
            raise error

        return app

    monkeypatch.setattr(cli, "build_app", raise_it)
    return cli.run(["doctor"])


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["train", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    # typer itself asks for pydantic where a verb has options to convert
    ours = "set()" if arguments == ["--help"] else "{'pydantic'}"
    code = (
        f"import sys; from fledge.cli.main import run; run({arguments!r}); print(({HEAVY} & set(sys.modules)) - {ours})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("set()")


def test_help_names_every_verb_and_imports_the_module_of_none() -> None:
    assert list(cli.VERBS) == VERBS
    code = (
        "import sys; from fledge.cli.main import run; run(['--help']);"
        "print(sorted(m for m in sys.modules if m.startswith('fledge.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    light = [
        f"fledge.{name}"
        for name in ("cli", "cli.main", "cli.show", "cli.streams", "errors", "places", "release", "units")
    ]
    assert done.stdout.rstrip().endswith(str(light))
    assert all(f"  {verb} " in done.stdout for verb in VERBS)


def test_nothing_asked_is_answered_with_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--help"]) == 0
    asked = capsys.readouterr()
    assert cli.run([]) == 0
    told = capsys.readouterr()
    assert (told.out, told.err) == (asked.out, "")
    assert "Usage: fledge" in told.out


def test_the_verbs_page_is_what_the_help_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    written = (Path(__file__).parents[3] / "docs" / "verbs.md").read_text(encoding="utf-8")
    for columns in ("40", "200"):
        monkeypatch.setenv("COLUMNS", columns)
        assert written == verbs_page(), "write it anew: python -m fledge.cli.page > docs/verbs.md"
    assert [line[3:] for line in written.splitlines() if line.startswith("## ")] == VERBS


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_has_help_and_takes_json(verb: str) -> None:
    done = fledge(verb, "--help")
    assert done.returncode == 0, done.stderr
    assert "--json" in done.stdout


def test_a_bad_recipe_is_answered_before_anything_heavy_loads(tmp_path: Path) -> None:
    recipe = tmp_path / "bad.yaml"
    recipe.write_text("trian: {}\n")
    code = (
        "import sys; from fledge.cli.main import run; code = run(['train', sys.argv[1], '--nproc', '2']);"
        "assert not {'torch', 'transformers', 'rich', 'numpy'} & set(sys.modules); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(recipe)], capture_output=True, text=True)
    assert done.returncode == 2
    assert f"fledge: {recipe}:1: a recipe has no section trian\n    did you mean train?\n" in done.stderr
    assert done.stderr.endswith("fledge: 3 problems\n")


@pytest.mark.parametrize("flags", [[], ["--nproc", "2"]])
def test_a_missing_tracker_is_told_once_and_before_anything_heavy_loads(tmp_path: Path, flags: list[str]) -> None:
    (tmp_path / "rows.jsonl").write_text("{}\n")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "model: {name_or_path: builtin:nestling}\ndata:\n  train: {path: rows.jsonl, format: alpaca}\n"
        "output: {trackers: [wandb]}\n"
    )
    code = (
        "import sys; sys.modules['wandb'] = None\n"
        "from importlib import util; find = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name == 'wandb' else find(name, *rest)\n"
        "from fledge.cli.main import run; code = run(['train', *sys.argv[1:]])\n"
        "assert not {'torch', 'transformers', 'rich', 'numpy'} & set(sys.modules); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(recipe), *flags], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("the tracker wandb is not installed") == 1
    assert "pip install 'fledge-lora[wandb]'" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_machines_get_problems_as_one_json_object(tmp_path: Path) -> None:
    done = fledge("train", str(tmp_path / "none.yaml"), "--json")
    assert done.returncode == 2
    told = json.loads(done.stdout)
    assert told["error"] == "RecipeError"
    assert told["problems"][0]["what"] == "there is no such recipe"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian"], "Did you mean 'train'?"),
        (["train"], "Missing argument 'RECIPE'"),
        (["train", "r.yaml", "--nproc", "0"], "--nproc"),
        (["--nope"], "--nope"),
        (["schema", "extra"], "extra"),
    ],
)
def test_a_request_that_cannot_be_understood_exits_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(arguments) == 2
    printed = capsys.readouterr()
    assert words in printed.err
    assert printed.err.startswith("fledge: command line: ")
    assert not printed.out


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (FledgeError("no"), 2),
        (TrainingError("no"), 1),
        (StoppedBySignal(2, step=3, run="r"), 130),
        (StoppedBySignal(15, step=3, run="r"), 143),
        (KeyboardInterrupt(), 130),
        (ZeroDivisionError("oops"), 70),
        (OSError(28, "No space left on device", "events.jsonl"), 1),
        (MemoryError(), 1),
        (OSError(5, "Input/output error"), 70),
    ],
)
def test_every_error_has_its_exit_code(error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert failing(error, monkeypatch) == code


def test_an_error_is_what_where_and_cure_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(FledgeError("it broke", where="here:1", cure="mend it"), monkeypatch)
    assert capsys.readouterr().err == "fledge: here:1: it broke\n    mend it\n"


def test_a_bug_says_so_and_shows_its_traceback_only_when_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(ZeroDivisionError("oops"), monkeypatch)
    told = capsys.readouterr().err
    assert "this is a bug in Fledge: ZeroDivisionError: oops" in told
    assert "Traceback" not in told
    monkeypatch.setenv("FLEDGE_TRACEBACK", "1")
    failing(ZeroDivisionError("oops"), monkeypatch)
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_the_second_rank_names_itself_and_is_silent_about_a_signal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    failing(FledgeError("it broke"), monkeypatch)
    assert capsys.readouterr().err == "fledge rank 1: it broke\n"
    failing(StoppedBySignal(15, step=3, run="r"), monkeypatch)
    assert capsys.readouterr().err == ""


def test_a_reader_that_goes_away_is_no_bug() -> None:
    command = f"{sys.executable} -m fledge schema | head -c 10"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.stdout == '{\n  "$sche'
    assert done.stderr == ""


def test_the_schema_is_printed_as_json() -> None:
    assert json.loads(fledge("schema").stdout) == json.loads(fledge("schema", "--json").stdout)


def test_two_texts_stand_side_by_side_whatever_is_in_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "43")
    show_beside(("base", "one two three four five\n\nsix\x1b[2J"), ("tuned", ""))
    assert capsys.readouterr().out == (
        "base                 | tuned\n"
        "one two three four   | (nothing)\n"
        "five                 |\n"
        "                     |\n"
        "six\ufffd[2J              |\n"
    )

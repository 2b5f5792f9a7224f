"""Output reaches every stream without a crash and without commanding a terminal; what is no text is refused."""

import io
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fledge.cli.main import VERBS
from fledge.cli.main import run as fledge
from fledge.cli.streams import as_text
from fledge.errors import FledgeError
from tests.runs import environment

ASCII = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
PLACES = {"C": {"LC_ALL": "C"}, "ascii": ASCII, "latin-1": {"PYTHONIOENCODING": "latin-1"}, "utf-8": {}}
NOT_TEXT = b"\xc3\xa9 \xff\xfe"


def process(*arguments: str | bytes, typed: bytes = b"", **changes: str) -> subprocess.CompletedProcess[bytes]:
    """`fledge` in a process of its own, in bytes."""
    surroundings = environment(**changes)
    if "PYTHONIOENCODING" not in changes:
        surroundings.pop("PYTHONIOENCODING", None)
    command = [sys.executable, "-m", "fledge", *arguments]
    return subprocess.run(command, input=typed, capture_output=True, env=surroundings, timeout=300)


def on_terminal(*arguments: str) -> bytes:
    """What `fledge` writes to a terminal."""
    side, other = pty.openpty()
    command = [sys.executable, "-m", "fledge", *arguments]
    started = subprocess.Popen(command, stdin=other, stdout=other, stderr=other, env=environment(TERM="xterm"))
    os.close(other)
    seen = b""
    while True:
        try:
            seen += (part := os.read(side, 65536))
        except OSError:  # the other side is closed
            break
        if not part:
            break
    assert started.wait(timeout=60) == 0, seen[-2000:]
    os.close(side)
    return seen


@pytest.fixture(scope="module")
def run(trained_run) -> str:
    return str(trained_run("llama", train__max_steps=3))


@pytest.mark.parametrize("place", PLACES)
def test_what_a_stream_cannot_show_is_escaped_on_stdout_and_on_stderr(place, tmp_path):
    wanted = {"C": "né你", "utf-8": "né你", "latin-1": "né\\u4f60"}.get(place, "n\\udcc3")
    done = process("train", str(tmp_path / "né你.yaml"), "--json", **PLACES[place])
    coding = "latin-1" if place == "latin-1" else "utf-8"
    assert done.returncode == 2
    assert wanted in done.stderr.decode(coding) and b"Traceback" not in done.stderr
    assert "né你.yaml" in json.loads(done.stdout.decode(coding))["problems"][0]["where"] or place == "ascii"
    if place != "utf-8" and place != "C":
        assert done.stdout.isascii()


@pytest.mark.parametrize("place", ["ascii", "latin-1"])
def test_an_answer_is_shown_whatever_the_streams_encoding(place, run, capsys):
    asked = ["generate", run, "--base", "--raw", "--max-new-tokens", "60", "--temperature", "3", "--prompt"]
    prompt = "zéro 你" if place == "ascii" else "zéro"
    done = process(*asked, prompt, **PLACES[place])
    assert done.returncode == 0, done.stderr
    assert fledge([*asked, prompt, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["prompt"] == prompt and "\ufffd" in told["text"]
    coding = "ascii" if place == "ascii" else "latin-1"
    assert done.stdout == (told["text"] + "\n").encode(coding, errors="backslashreplace")


@pytest.mark.parametrize("verb", VERBS)
def test_an_argument_that_is_no_text_is_refused_by_every_verb(verb):
    done = process(verb, b"a", NOT_TEXT)
    assert done.returncode == 2 and not done.stdout
    words = done.stderr.decode()
    assert words.startswith("fledge: command line, argument 3: these bytes are no UTF-8: é \\udcff\\udcfe\n    ")
    assert "Traceback" not in words


def test_a_prompt_from_stdin_that_is_no_text_is_refused(run):
    done = process("generate", run, typed=NOT_TEXT)
    assert done.returncode == 2 and not done.stdout
    assert b"the prompt: these bytes are no UTF-8" in done.stderr and b"Traceback" not in done.stderr


def test_a_line_of_a_conversation_that_is_no_text_is_refused_with_its_number(run):
    typed = "zéro\n".encode() + NOT_TEXT + b"\nnever asked\n"
    done = process("chat", run, "--json", "--max-new-tokens", "2", typed=typed, **ASCII)
    assert done.returncode == 2
    answered, problem = (json.loads(line) for line in done.stdout.decode().splitlines())
    assert answered["message"] == "zéro"
    assert problem["problems"][0]["where"] == "stdin, line 2"


def test_at_a_terminal_an_answer_shows_its_control_characters_and_sends_none(run, capsys):
    asked = ["generate", run, "--base", "--prompt", "zero", "--max-new-tokens", "150", "--temperature", "9"]
    seen = on_terminal(*asked)
    assert fledge(asked) == 0
    piped = capsys.readouterr().out
    commands = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
    assert commands.search(piped), "the answer would command a terminal"
    shown = seen.decode().replace("\r\n", "\n")
    assert not commands.search(shown)
    assert commands.sub("\ufffd", piped) in shown


class Screen(io.StringIO):
    """A stream that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_problems_and_json_send_no_control_characters_to_a_terminal_either(monkeypatch):
    out, err = Screen(), Screen()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    assert fledge(["train", "a\x1b[2J\x9b.yaml", "--json"]) == 2
    assert "a\ufffd[2J\ufffd.yaml" in err.getvalue() and "\x1b" not in err.getvalue()
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", out.getvalue())
    assert "a\x1b[2J\x9b.yaml" in json.loads(out.getvalue())["problems"][0]["where"]


def test_text_that_a_locale_did_not_know_is_still_text():
    assert as_text("é".encode().decode("ascii", "surrogateescape"), where="") == "é"
    assert as_text("plain\n", where="") == "plain\n"
    for wrong in ("\udcff", "a\ud800", "\udce4\udcbd"):
        with pytest.raises(FledgeError, match=r"x: these bytes are no UTF-8"):
            as_text(wrong, where="x")


def test_every_word_that_is_printed_goes_through_one_function():
    folder = Path(__file__).parents[3] / "src" / "fledge" / "cli"
    modules = sorted(folder.glob("*.py"))
    assert len(modules) > 10
    found = [path.name for path in modules if re.search(r"typer\.(echo|secho)|\bprint\(", path.read_text("utf-8"))]
    assert found == ["show.py"], "show.py names typer.echo in a docstring"

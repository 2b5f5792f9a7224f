"""The verbs that come after a training, as they are typed."""

import io
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fledge.cli.evaluate import LONGEST_LINE, _brief, _brief_end, _predictions
from fledge.cli.main import run as fledge
from fledge.observe.console import Console
from fledge.units import for_terminal
from tests.runs import environment

ROOT = Path(__file__).parents[3]


@pytest.fixture
def run(trained_run) -> str:
    return str(trained_run("llama", train__max_steps=40))


@pytest.fixture
def chatty(trained_run) -> str:
    return str(trained_run("llama", fmt="chat", data__chat_template="chatml", train__max_steps=60))


def test_evaluate_prints_base_beside_tuned_and_json_for_machines(run, capsys):
    assert fledge(["evaluate", run, "--exact-match", "--max-rows", "6", "--max-new-tokens", "4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("6 validation rows, ") and lines[1].split() == ["base", "tuned"]
    assert [line.split()[0] for line in lines[2:5]] == ["loss", "perplexity", "exact"]
    assert fledge(["evaluate", run, "--max-rows", "6", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result["base"]) == set(result["tuned"]) == {"loss", "perplexity"}
    assert result["tuned"]["loss"] < result["base"]["loss"]


def test_an_evaluation_has_the_form_that_the_documents_show(run, capsys, tmp_path):
    run = str(shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("evaluation")))
    (shown,) = re.findall(r"```json\n(.*?)```", (ROOT / "docs" / "concepts.md").read_text(encoding="utf-8"), re.DOTALL)
    documented = json.loads(shown)
    arguments = ["evaluate", run, "--exact-match", "--rouge", "--max-rows", "2", "--max-new-tokens", "4", "--json"]
    assert fledge(arguments) == 0
    result = json.loads(capsys.readouterr().out)
    assert list(documented) == list(result)
    assert list(documented["base"]) == list(documented["tuned"]) == list(result["base"]) == list(result["tuned"])
    for name in ("loss", "perplexity", "rouge", "rouge_intervals"):
        assert list(documented[name]) == list(result[name])
    assert list(documented["rouge"]["base"]) == list(result["rouge"]["tuned"])
    assert json.loads((Path(result["folder"]) / "result.json").read_text()) == result
    assert documented["folder"].removeprefix(documented["run"]) == result["folder"].removeprefix(result["run"])


@pytest.mark.parametrize("sign", ["\u2028", "\u2029", "\x85", "\x0b", "\x1c", "\r"])
def test_answers_are_read_back_whatever_ends_a_line_in_them(sign, tmp_path):
    row = {"prompt": f"a{sign}b", "reference": "c", "base": f"{sign}{sign}", "tuned": sign}
    text = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in (row, row, row))
    (tmp_path / "predictions.jsonl").write_text(text, encoding="utf-8")
    assert _predictions(tmp_path, 2) == [row, row]
    assert _predictions(tmp_path, 9) == [row, row, row]
    assert _predictions(tmp_path / "none", 2) == []


def test_of_a_long_prompt_the_end_is_shown_and_of_a_long_reference_the_beginning():
    text = "You are helpful.\n" * 20 + "What is 2 + 2?"
    assert _brief_end(text).startswith("... ") and _brief_end(text).endswith("You are helpful. What is 2 + 2?")
    assert _brief(text).endswith(" ...") and _brief(text).startswith("You are helpful. You")
    assert len(_brief_end(text)) == len(_brief(text)) == LONGEST_LINE
    fitting = "x" * LONGEST_LINE
    assert _brief_end(fitting) == _brief(fitting) == fitting
    assert _brief_end("a\n b") == "a b"


def test_evaluate_shows_the_question_of_a_prompt_that_begins_with_a_long_template(trained_run, capsys):
    run = str(trained_run("llama", fmt="alpaca", data__max_length=512))
    assert fledge(["evaluate", run, "--exact-match", "--max-rows", "2", "--max-new-tokens", "2"]) == 0
    shown = [line for line in capsys.readouterr().out.splitlines() if line.startswith("prompt ")]
    assert len(shown) == 2 and all(line.startswith("prompt     ... ") for line in shown)
    assert "Instruction: say 0 ### Response:" in shown[0] and "say 1 ### Input: tas ### Response:" in shown[1]


def test_evaluate_shows_how_many_rows_are_prepared(run, capsys, monkeypatch):
    seen = []
    monkeypatch.setattr(Console, "preparing", lambda self, done, total: seen.append((done, total)))
    assert fledge(["evaluate", run, "--max-rows", "2"]) == 0
    assert seen and all(done <= total for done, total in seen if total is not None)


def test_generate_takes_its_prompt_from_an_option_or_from_the_input(run, capsys, monkeypatch):
    assert fledge(["generate", run, "--prompt", "zero plus zero =", "--max-new-tokens", "6"]) == 0
    asked = capsys.readouterr().out
    monkeypatch.setattr(sys, "stdin", io.StringIO("zero plus zero =\n"))
    assert fledge(["generate", run, "--max-new-tokens", "6"]) == 0
    assert capsys.readouterr().out == asked != "\n"
    assert fledge(["generate", run, "--prompt", "zero plus zero =", "--max-new-tokens", "6", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["text"] + "\n" == asked and result["prompt"] == "zero plus zero ="


def test_chat_answers_line_by_line_until_exit(chatty, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("karen 0\n\n/reset\nkaren 1\n/exit\nkaren 2\n"))
    assert fledge(["chat", chatty, "--max-new-tokens", "6"]) == 0
    told = capsys.readouterr()
    assert [line[:4] for line in told.out.splitlines()] == ["lomi", "lomi"]
    assert "/reset" in told.err and "messages go through the chat template" in told.err


def test_chat_speaks_json_to_machines(chatty, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("karen 0\ntas\n"))
    assert fledge(["chat", chatty, "--max-new-tokens", "6", "--json"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["message"] for one in told] == ["karen 0", "tas"]
    assert told[0]["answer"].startswith("lomi") and told[0]["is_complete"]


def test_chat_without_a_template_says_what_it_does(run, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert fledge(["chat", run]) == 0
    assert "each message is a prompt of its own, in the form that was trained: completion" in capsys.readouterr().err


def test_export_says_what_was_compared(run, capsys, tmp_path):
    assert fledge(["export", run, str(tmp_path / "out"), "--to", "hf"]) == 0
    told = capsys.readouterr().out
    assert "merging in float32: largest difference" in told and "greedy text: 4 of 4 the same" in told
    limits = re.findall(r"largest difference \S+, \S+ of the largest logit \(allowed (\S+)\)", told)
    assert limits == ["0.0001", "0.0001"]
    assert fledge(["export", run, str(tmp_path / "out"), "--to", "hf", "--json"]) == 2
    error = json.loads(capsys.readouterr().out)
    assert error["error"] == "RunError" and "something in this folder" in error["problems"][0]["what"]


READ = ["preparing the rows", "reading the base", "computing"]
MERGED = [*READ, "reading the base", "merging the adapter"]
PROVEN = ["probing", "certifying"]
PHASES = {
    "adapter": [*READ, "writing the adapter", *PROVEN],
    "hf": [*MERGED, "writing the merged model, in float32", *PROVEN],
    "gguf": [*MERGED, "writing the merged model as one file", *PROVEN],
}


@pytest.mark.parametrize("to", PHASES)
def test_export_tells_its_phases_on_stderr(to, run, capsys, tmp_path):
    assert fledge(["export", run, str(tmp_path / "out"), "--to", to, "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["to"] == to
    lines = told.err.splitlines()
    assert len(lines) == len(PHASES[to])
    assert all(line.startswith(begin) for line, begin in zip(lines, PHASES[to], strict=True)), lines


@pytest.mark.parametrize("verb", ["evaluate", "generate", "chat"])
@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_a_line_on_stderr_says_that_the_base_is_being_read(verb, flags, run, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("zero plus zero =\n"))
    assert fledge([verb, run, *flags]) == 0
    told = capsys.readouterr()
    lines = told.err.splitlines()
    assert sum(line.startswith("reading the base /") for line in lines) == 1 and "reading" not in told.out
    assert any(line.endswith("in float32") for line in lines)


@pytest.mark.parametrize("verb", ["evaluate", "generate", "chat", "export"])
def test_a_folder_that_is_no_run_is_exit_2_in_words(verb, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("x\n"))
    arguments = [verb, str(tmp_path), *([str(tmp_path / "out")] if verb == "export" else [])]
    assert fledge(arguments) == 2
    assert "not a run folder" in capsys.readouterr().err


def test_control_characters_of_a_model_do_not_reach_a_terminal():
    assert for_terminal("a\tb\n\x1b[2Jé\x00\x9b") == "a\tb\n\ufffd[2Jé\ufffd\ufffd"


class Terminal:
    """A process on a terminal of its own."""

    def __init__(self, *arguments: str) -> None:
        self._side, other = pty.openpty()
        command = [sys.executable, "-m", "fledge", *arguments]
        self.process = subprocess.Popen(
            command, stdin=other, stdout=other, stderr=other, env=environment(TERM="dumb"), start_new_session=True
        )
        os.close(other)
        self.seen, self._waited_to = "", 0

    def wait_for(self, text: str) -> None:
        """Read until `text` has come after what the last wait was for: one reading may bring more than that."""
        deadline = time.monotonic() + 120
        while text not in self.seen[self._waited_to :]:
            assert time.monotonic() < deadline, self.seen[-2000:]
            if select.select([self._side], [], [], 1.0)[0]:
                try:
                    self.seen += os.read(self._side, 4096).decode(errors="replace")
                except OSError:  # the other side is closed
                    break
        assert text in self.seen[self._waited_to :], self.seen[-2000:]
        self._waited_to = self.seen.index(text, self._waited_to) + len(text)

    def type(self, text: str) -> None:
        os.write(self._side, text.encode())


def test_at_a_terminal_ctrl_c_stops_an_answer_and_the_conversation_goes_on(chatty: str, tmp_path: Path):
    terminal = Terminal("chat", chatty, "--base", "--max-new-tokens", "100000")
    terminal.wait_for("> ")
    terminal.type("karen 0\n")
    terminal.wait_for("karen 0\r\n")
    terminal.wait_for(" ")
    os.kill(terminal.process.pid, signal.SIGINT)
    terminal.wait_for("stopped; this exchange is forgotten")
    terminal.wait_for("> ")
    terminal.type("/reset\n")
    terminal.wait_for("> ")
    terminal.type("/exit\n")
    assert terminal.process.wait(timeout=60) == 0
    assert "Traceback" not in terminal.seen

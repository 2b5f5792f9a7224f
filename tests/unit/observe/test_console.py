"""A person sees progress: a bar on a terminal, plain lines elsewhere, never a broken one."""

import io
import re

import pytest

from fledge.events import Event, Notice, Prepared, Resumed, StepDone, StepSkipped, TrainStarted, Validated
from fledge.observe.console import Console


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def step(number: int) -> StepDone:
    return StepDone(step=number, loss=2.5, grad_norm=1, learning_rate=0.1, tokens=500, supervised_tokens=5, seconds=0.5)


STORY: list[Event] = [
    Prepared(rows=52_002, dropped_rows=3, tokens=1_500_000, supervised_tokens=900_000, seconds=11.2, from_cache=False),
    TrainStarted(
        run="runs/a",
        total_steps=100,
        world_size=2,
        trainable_parameters=1_200_000,
        base_parameters=600_000_000,
        device="cpu",
    ),
    Resumed(from_step=10),
    *[step(number) for number in range(11, 101)],
    StepSkipped(step=12, scale=32768.0),
    Validated(step=100, loss=1.25, tokens=10, is_best=True, seconds=0.1),
    Notice(text="[bold]3 rows[/bold] were too long :smile:"),
]


def shown(stream: io.StringIO, story: list[Event]) -> str:
    console = Console(stream, memory_of=lambda device: {"cpu": 1_500_000_000}[device])
    console.preparing(0, None)
    console.preparing(20_000, 52_002)
    for event in story:
        console(event)
    console.close()
    return stream.getvalue()


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def test_elsewhere_than_on_a_terminal_there_are_plain_lines() -> None:
    lines = shown(io.StringIO(), STORY).splitlines()
    assert lines[:5] == [
        "prepared 52,002 rows (3 dropped), 1.5 M tokens, 900,000 of them trained, in 11.2 s",
        "training 1,200,000 parameters on cpu in 2 processes: 0.20% of the base's",
        "run folder runs/a",
        "going on after step 10",
        "step 15/100  loss 2.5000  1,000 tokens/s  1.5 GB  42.5 s left",
    ]
    assert lines[-3:] == [
        "step 12  skipped: overflow in float16, scale now 32768",
        "step 100  validation loss 1.2500  (best so far)",
        "note: [bold]3 rows[/bold] were too long :smile:",
    ]
    assert sum(line.startswith("step ") for line in lines) == 20
    assert "\x1b" not in "".join(lines)


def test_a_short_run_tells_every_step() -> None:
    started = TrainStarted(
        run="r", total_steps=3, world_size=1, trainable_parameters=1, base_parameters=8, device="cpu"
    )
    lines = shown(io.StringIO(), [started, step(1), step(2), step(3)]).splitlines()
    assert [line.split()[1] for line in lines if line.startswith("step")] == ["1/3", "2/3", "3/3"]


def test_a_terminal_gets_a_bar_that_is_left_whole() -> None:
    text = shown(Terminal(), STORY)
    seen = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    assert "training" in seen
    assert "100/100" in seen
    assert "loss 2.5000  1,000 tokens/s  1.5 GB  0.0 s left" in seen
    assert text.count("\x1b[?25h") >= text.count("\x1b[?25l") > 0, "the cursor is shown again"


def test_the_bar_of_preparing_goes_when_all_rows_are_prepared() -> None:
    stream = Terminal()
    console = Console(stream, memory_of=lambda device: 0)
    console.preparing(5, 10)
    assert stream.getvalue().count("\x1b[?25l") == 1
    console.preparing(10, 10)
    assert stream.getvalue().count("\x1b[?25h") == 1, "the cursor is shown again, though nothing was closed"
    console.preparing(0, None)
    console.close()
    assert stream.getvalue().count("\x1b[?25h") == 2


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert not re.search(r"\x1b\[(3[0-7]|38|9[0-7])", shown(Terminal(), STORY))


def test_a_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert "\x1b" not in shown(Terminal(), STORY)


@pytest.mark.parametrize("columns", ["20", "40", "200"])
def test_any_width_is_survived(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert shown(Terminal(), STORY)

"""`fledge chat RUN`: a conversation."""

import contextlib
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING

from fledge.cli.options import (
    AdaptersRecipe,
    AsJson,
    BasePath,
    MaxNewTokens,
    RunOrAdapter,
    Seed,
    System,
    Temperature,
    TopP,
    TrustRemoteCode,
    UseBase,
    Which,
)
from fledge.cli.sampling import drawn
from fledge.cli.show import echo, say, show_json, show_notices
from fledge.cli.streams import as_text
from fledge.errors import FledgeError

if TYPE_CHECKING:
    from fledge.commands.chat import Conversation

_HELP = "/reset forgets what was said, /exit ends; Ctrl-C stops an answer"


def run(
    run: RunOrAdapter,
    system: System = None,
    use_base: UseBase = False,
    max_new_tokens: MaxNewTokens = 512,
    temperature: Temperature = 0.0,
    top_p: TopP = None,
    seed: Seed = None,
    which: Which = "last",
    recipe: AdaptersRecipe = None,
    base_path: BasePath = None,
    trust_remote_code: TrustRemoteCode = False,
    as_json: AsJson = False,
) -> None:
    """Talk with RUN: one line is one message; /reset forgets what was said, /exit or the end of the input ends it."""
    draws = drawn(temperature, top_p=top_p, seed=seed)

    from fledge.commands.given import check_given
    from fledge.commands.opening import Opening

    opening = Opening(which, trust_remote_code, base_path, recipe)
    check_given(run, opening)

    from fledge.commands.chat import Sampling, chat

    sampling = Sampling(max_new_tokens, *draws)
    conversation = chat(
        run,
        sampling=sampling,
        use_base=use_base,
        opening=opening,
        system=system,
        say=say,
    )
    show_notices(conversation.notices)
    is_person = sys.stdin.isatty() and not as_json
    if is_person:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  # gives input() a history and editing
    if not as_json:
        _greet(conversation)
    count = 0
    while (line := _read("> " if is_person else "")) is not None:
        count += 1
        message = _message(line, where="this line" if is_person else f"stdin, line {count}", is_person=is_person)
        if message == "/exit":
            return
        if message == "/reset":
            conversation.reset()
        elif message:
            _answer(conversation, message, as_json=as_json, is_person=is_person)


def _greet(conversation: "Conversation") -> None:
    echo(_HELP, err=True)
    how = "messages go through the chat template, and what was said before goes along"
    if not conversation.remembers:
        how = f"each message is a prompt of its own, in the form that was trained: {conversation.form}"
    echo(how, err=True)


def _read(prompt: str) -> str | None:
    """The next line; None at the end of the input or where Ctrl-C is pressed while nothing is under way."""
    try:
        return input(prompt)
    except (EOFError, KeyboardInterrupt):
        if prompt:
            echo()
        return None


def _message(line: str, *, where: str, is_person: bool) -> str:
    """What a line says; of bytes that are no text a person is told, and may try again."""
    try:
        return as_text(line, where=where).strip()
    except FledgeError as error:
        if not is_person:
            raise
        echo(f"fledge: {error}", err=True)
        return ""


@contextlib.contextmanager
def _noting_ctrl_c(pressed: list[int]) -> Iterator[None]:
    """Within this block the first Ctrl-C is put into `pressed`; a second one has its usual effect.

    An exception out of a signal handler is lost where it meets a destructor or a callback from C, which a model's
    forward pass is full of; a note is not.
    """
    before = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: FrameType | None) -> None:
        pressed.append(number)
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _answer(conversation: "Conversation", message: str, *, as_json: bool, is_person: bool) -> None:
    """Print the answer as it is written. A person's Ctrl-C ends the answer, and a mistake is told, not fatal."""

    pressed: list[int] = []

    def write(piece: str) -> None:
        if pressed:
            raise KeyboardInterrupt
        if not as_json:
            echo(piece, nl=False)

    try:
        with _noting_ctrl_c(pressed) if is_person else contextlib.nullcontext():
            answer = conversation.say(message, on_text=write)
    except KeyboardInterrupt:
        if not is_person:
            raise
        echo("\n(stopped; this exchange is forgotten)", err=True)
        return
    except FledgeError as error:
        if not is_person:
            raise
        echo(f"fledge: {error}", err=True)
        return
    if as_json:
        show_json({"message": message, "answer": answer.text, "is_complete": answer.is_complete})
    else:
        echo()

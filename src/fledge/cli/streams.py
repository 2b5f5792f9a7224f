"""The process's streams: what they cannot write is escaped, and what comes in is text or is refused in words."""

import io
import sys
from collections.abc import Sequence

from fledge.errors import FledgeError


def prepare_streams() -> None:
    """Set, once for all verbs, what happens to characters that a stream's encoding lacks and bytes that it cannot read.

    Output that lacks a character has its escape (`\\u4f60`). Bytes that are no text come in as lone surrogates, as
    Python has them on the command line, for `as_text` to find.
    """
    wanted = {"backslashreplace": (sys.stdout, sys.stderr), "surrogateescape": (sys.stdin,)}
    for stream, errors in ((stream, errors) for errors, streams in wanted.items() for stream in streams):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


def as_text(typed: str, *, where: str) -> str:
    """What was typed or piped in, as UTF-8 has it, also where the locale knows ASCII alone.

    Raises FledgeError where it holds bytes that are no UTF-8.
    """
    if typed.isascii():
        return typed
    try:
        return typed.encode("utf-8", "surrogateescape").decode("utf-8")
    except UnicodeError as error:
        shown = typed.encode("utf-8", "backslashreplace").decode("utf-8")
        cure = "write it in UTF-8; `iconv -f latin1 -t utf-8` translates a file"
        raise FledgeError(f"these bytes are no UTF-8: {shown[:80]}", where=where, cure=cure) from error


def check_arguments(arguments: Sequence[str]) -> None:
    """Raise FledgeError where an argument of the command line holds bytes that are no UTF-8."""
    for place, argument in enumerate(arguments, start=1):
        as_text(argument, where=f"command line, argument {place}")

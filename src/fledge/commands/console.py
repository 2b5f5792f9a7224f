"""The console as the command line opens it: on stderr, with this machine's memory."""

import contextlib
import sys
from collections.abc import Iterator

import torch

from fledge.observe.console import Console
from fledge.runtime.memory import peak_bytes


@contextlib.contextmanager
def console() -> Iterator[Console]:
    """A console on stderr, closed at the end so that no bar is left half drawn."""
    screen = Console(sys.stderr, memory_of=lambda device: peak_bytes(torch.device(device)))
    try:
        yield screen
    finally:
        screen.close()

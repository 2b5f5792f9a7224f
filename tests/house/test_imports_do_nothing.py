"""Importing a module of Fledge does nothing: no network, no environment, no logging, no warnings filters, no output."""

import os
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src"
MODULES = sorted(
    ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
    for path in (SOURCE / "fledge").rglob("*.py")
    if path.name != "__main__.py"
)

# What libraries do when they are imported is theirs, so they come first; a module is charged with what it adds.
PROBE = """
import importlib, logging, os, signal, socket, sys, warnings

def blocked(*arguments, **options):
    raise AssertionError("an import opened a socket")

def state():
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    world = dict(os.environ), sys.excepthook, os.umask(0o022)
    return *world, list(logging.root.handlers), list(warnings.filters), handlers

os.umask(0o022)
for library in ("torch", "transformers", "peft", "datasets", "tokenizers", "typer", "rich.progress", "pydantic",
                "ruamel.yaml", "torch.utils.tensorboard", "wandb", "torch.distributed.launcher.api"):
    importlib.import_module(library)
socket.socket.connect = blocked
for name in sys.argv[1:]:
    before = state()
    importlib.import_module(name)
    after = state()
    if before != after:
        kinds = "environment", "excepthook", "umask", "log handlers", "warnings filters", "signals"
        print("changed by", name, [kind for kind, a, b in zip(kinds, before, after) if a != b])
"""


def test_importing_any_module_changes_nothing_and_opens_no_connection() -> None:
    assert len(MODULES) > 50
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "FLEDGE_"))}
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *MODULES], capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == ""

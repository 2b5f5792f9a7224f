"""The run folder: the names inside it, whole-or-absent writes, its lock, and reading its events."""

import contextlib
import errno
import itertools
import json
import os
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fledge.errors import RunError
from fledge.events import Event


@dataclass(frozen=True, slots=True)
class RunDir:
    """Where each thing of one run lies."""

    root: Path

    @property
    def recipe(self) -> Path:
        return self.root / "recipe.yaml"

    @property
    def manifest(self) -> Path:
        return self.root / "manifest.json"

    @property
    def events(self) -> Path:
        return self.root / "events.jsonl"

    @property
    def summary(self) -> Path:
        return self.root / "summary.json"

    @property
    def ledger(self) -> Path:
        return self.root / "ledger.json"

    @property
    def adapter(self) -> Path:
        return self.root / "adapter"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def best(self) -> Path:
        return self.checkpoints / "best"

    @property
    def evaluation(self) -> Path:
        return self.root / "evaluation"

    @property
    def certificate(self) -> Path:
        return self.root / "certificate.json"

    @property
    def certificate_page(self) -> Path:
        return self.root / "certificate.html"

    @property
    def trackers(self) -> Path:
        return self.root / "trackers"

    def checkpoint(self, step: int) -> Path:
        return self.checkpoints / f"step-{step}"

    def checkpoint_steps(self) -> list[int]:
        """Steps of the complete checkpoints, oldest first."""
        if not self.checkpoints.is_dir():
            return []
        names = (path.name for path in self.checkpoints.iterdir() if path.is_dir())
        return sorted(int(name[5:]) for name in names if name.startswith("step-") and name[5:].isdigit())


def new_place(root: Path) -> str:
    """The setting that puts a training into a folder beside `root` that is not there yet, quoted for the shell."""
    whole = root.resolve()
    numbered = (whole.with_name(f"{whole.name}-{number}") for number in itertools.count(2))
    return shlex.quote(f"output.dir={next(path for path in numbered if not path.exists())}")


_CANNOT_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF)
"""What disks of other systems, shared ones and those in user space say of a folder."""


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` survive a power cut, on systems and disks where a folder can be synced."""
    if not hasattr(os, "O_DIRECTORY"):  # Windows opens no folder; NTFS keeps a journal of names
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise
    finally:
        os.close(handle)


def sync_file(path: Path) -> None:
    """Flush one file's bytes to the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def write_text(path: Path, text: str) -> None:
    """Write `text` whole or not at all: temporary name, sync, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON document whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def check_free(out: Path) -> None:
    """Raises RunError where `out` is a file, or a folder with something in it."""
    if out.is_dir() and any(out.iterdir()):
        cure = "give a folder that is not there yet"
        raise RunError("there is something in this folder already", where=str(out), cure=cure)
    if out.exists() and not out.is_dir():
        raise RunError("this is a file", where=str(out), cure="give a folder that is not there yet")


@contextlib.contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A temporary folder beside `target` that becomes `target` at the end, or vanishes on an error.

    An older `target` is replaced. Files directly inside and below are synced before the rename.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        for path in sorted(temporary.rglob("*")):
            sync_folder(path) if path.is_dir() else sync_file(path)
        sync_folder(temporary)
        retired = target.with_name(f".{target.name}.{os.getpid()}.old.tmp")
        if target.exists():
            target.rename(retired)
        temporary.rename(target)
        shutil.rmtree(retired, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    sync_folder(target.parent)


def remove_leftovers(run: RunDir) -> None:
    """Remove temporary files and folders that a killed process left behind; only for whoever holds the run folder."""
    for folder in (run.root, run.checkpoints, run.evaluation):
        for path in folder.glob(".*.tmp"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextlib.contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold the run folder for this process; the kernel lets go when the process dies, however it dies.

    Raises RunError when another process holds it or the folder cannot be written or locked.
    """
    lock = FileLock(root / ".lock", timeout=0, mode=0o644, thread_local=False)
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        cure = f"wait until it ends or stop it, and run the same command again; or add {new_place(root)}"
        raise RunError("another process is training in this run folder", where=str(root), cure=cure) from error
    except (OSError, NotImplementedError) as error:
        what = f"the output folder cannot be written or locked: {getattr(error, 'strerror', None) or error}"
        cure = "give this user the right to write there, or add output.dir=FOLDER with one that can be written"
        raise RunError(what, where=str(root), cure=cure) from error
    try:
        yield
    finally:
        lock.release()


class EventLog:
    """Appends events to events.jsonl, one whole line each."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        _cut_torn_line(path)
        self._file = path.open("ab")

    def __call__(self, event: Event) -> None:
        self._file.write((json.dumps(event.as_json(), ensure_ascii=False, allow_nan=False) + "\n").encode())
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _cut_torn_line(path: Path) -> None:
    """Remove a last line that a killed process did not finish, so that the next one starts on its own line."""
    if not path.exists():
        return
    content = path.read_bytes()
    if content and not content.endswith(b"\n"):
        keep = content.rfind(b"\n") + 1
        with path.open("rb+") as file:
            file.truncate(keep)


def read_events(path: Path) -> list[dict[str, Any]]:
    """All whole events of a log, a torn last line left out."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    return [json.loads(line) for line in lines if line]


def read_steps(path: Path) -> list[dict[str, Any]]:
    """The `step` events in order of step; where a step was run twice the last telling counts."""
    latest = {event["step"]: event for event in read_events(path) if event["event"] == "step"}
    return [latest[step] for step in sorted(latest)]

"""Asks a process without Fledge what an export does, so that what others will load can be compared."""

import gc
import json
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file

from fledge.errors import ProofError

SCRIPT = Path(__file__).with_name("outsider.py")
Kind = Literal["adapter", "hf", "gguf"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OutsideCase:
    """An export in a folder, and what is asked of it. Rows and prompts are ids."""

    kind: Kind = "adapter"
    folder: str
    base: str | None = None
    """What plain transformers is to load below an adapter: a folder or a hub id."""
    revision: str = "main"
    file: str | None = None
    """The GGUF file's name."""
    reader: str | None = None
    """A script whose `load(path, dtype)` reads the GGUF file; transformers reads it where None."""
    dtype: str = "float32"
    trust_remote_code: bool = False
    attention: str | None = None
    """transformers' name of it."""
    device: str = "cpu"
    rows: tuple[tuple[int, ...], ...] = ()
    """An encoder-decoder reads each on both sides."""
    prompts: tuple[tuple[int, ...], ...] = ()
    max_new_tokens: int = 1
    texts: tuple[tuple[str, bool], ...] = ()
    """To be tokenised, and whether the tokenizer puts its own special tokens around them."""
    conversation: tuple[Mapping[str, str], ...] = ()
    """To be rendered by the chat template, if there is one."""
    wants_tensors: bool = False
    is_streamed: bool = False
    """Whether blocks stay in the export's files until they compute: of a model that would fill the memory. Then rows
    are computed together, and no answer is generated: it is asked which token the export takes after each of `given`.
    """
    given: tuple[tuple[int, ...], ...] = ()
    """The expected answer to each prompt, where the export is streamed."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What the reloaded tokenizer makes of the case's texts and conversation."""

    ids: tuple[tuple[int, ...], ...]
    template: str | None
    rendered: str | None
    rendered_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Outside:
    """What an export does outside."""

    logits: tuple[torch.Tensor, ...]
    """[T,V] of each row, float32."""
    answers: tuple[tuple[int, ...], ...]
    """The greedy continuation of each prompt, by the export's own stop tokens."""
    stop_ids: frozenset[int]
    dtype: str
    tensors: Mapping[str, str]
    """Name -> digest as `digest_of` has it; empty where the case wants none."""
    reading: Reading | None
    """None where the export has no tokenizer that can be loaded."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of the Python and the libraries that have read it."""


def ask_outside(cases: Sequence[OutsideCase], *, python: str | None = None) -> list[Outside]:
    """What each case does, from one process in which `import fledge` fails; `python` is the Python of another
    environment, and this one where None.

    Whoever asks has let go of models of its own: the process loads them one after the other on the same machine.
    Raises ProofError with the process's last words where an export cannot be loaded.
    """
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    with tempfile.TemporaryDirectory(prefix="fledge-outside-") as name:
        outs = [Path(name) / str(place) for place in range(len(cases))]
        body = [asdict(case) | {"out": str(out)} for case, out in zip(cases, outs, strict=True)]
        request = Path(name) / "request.json"
        (Path(name) / "script").mkdir()
        request.write_text(json.dumps({"threads": torch.get_num_threads(), "cases": body}), encoding="utf-8")
        # in a folder of its own, for the modules here have everyday names, which are not to stand for others
        script = shutil.copy(SCRIPT, Path(name) / "script" / SCRIPT.name)
        command = [python or sys.executable, str(script), str(request)]
        # without a stdin the library cannot wait for somebody to allow remote code
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", errors="replace"
            )
        except OSError as error:  # not the export's fault, as which it would be told further up
            what = f"no second process can be started, which would load the export without Fledge: {error.strerror}"
            cure = "give the path of a Python that has transformers" if python else "give this user the right to run it"
            raise ProofError(what, where=python or sys.executable, cure=cure) from error
        if done.returncode:
            told = sum(out.with_suffix(".json").is_file() for out in outs)
            raise ProofError(_last_words(done, cases[told].kind), where=python or cases[told].folder)
        return [_read(out) for out in outs]


def _last_words(done: subprocess.CompletedProcess[str], kind: Kind) -> str:
    plain = "plain peft cannot load this adapter" if kind == "adapter" else "plain transformers cannot load this export"
    if done.returncode < 0:
        return f"{plain}: {signal.Signals(-done.returncode).name} ended the process; memory may have been short"
    return f"{plain}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}"


def _read(out: Path) -> Outside:
    told: dict[str, Any] = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
    logits = load_file(out.with_suffix(".safetensors"))
    read = told["tokenizer"]
    return Outside(
        logits=tuple(logits[str(place)] for place in range(len(logits))),
        answers=tuple(map(tuple, told["answers"])),
        stop_ids=frozenset(told["stop_ids"]),
        dtype=told["dtype"],
        tensors=told.get("tensors", {}),
        versions=told["versions"],
        reading=read
        and Reading(tuple(map(tuple, read["ids"])), read["template"], read["rendered"], tuple(read["rendered_ids"])),
    )

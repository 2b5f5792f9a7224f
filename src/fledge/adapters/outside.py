"""Asks a process without Fledge for an adapter's logits, so that what plain peft loads can be compared."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from fledge.errors import ProofError

SCRIPT = Path(__file__).with_name("outsider.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class OutsideCase:
    """An adapter in a folder, with its tokenizer beside it, and the rows of ids to run it on."""

    base: str
    """What plain transformers is to load: a folder or a hub id."""
    adapter: str
    rows: tuple[tuple[int, ...], ...]
    written: tuple[tuple[int, ...], ...] = ()
    """For each row what the decoder of an encoder-decoder has written, which reads the row; none in a causal model."""
    dtype: str = "float32"
    revision: str = "main"
    trust_remote_code: bool = False
    attention: str | None = None
    device: str = "cpu"


def logits_outside(cases: Sequence[OutsideCase]) -> list[list[torch.Tensor]]:
    """For each case the float32 logits [T,V] of each row, or of what is written, from one process in which
    `import fledge` fails.

    Raises ProofError with the process's last words where plain peft cannot load an adapter.
    """
    with tempfile.TemporaryDirectory(prefix="fledge-outside-") as name:
        files = [Path(name) / f"{place}.safetensors" for place in range(len(cases))]
        body = [asdict(case) | {"out": str(file)} for case, file in zip(cases, files, strict=True)]
        request = Path(name) / "request.json"
        request.write_text(json.dumps({"threads": torch.get_num_threads(), "cases": body}), encoding="utf-8")
        # -P keeps this folder, whose modules have everyday names, off the process's path
        done = subprocess.run([sys.executable, "-P", str(SCRIPT), str(request)], capture_output=True, text=True)
        if done.returncode:
            last_words = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise ProofError(f"plain peft cannot load this adapter: {last_words}", where=cases[0].adapter)
        return [[rows[str(place)] for place in range(len(rows))] for rows in map(load_file, files)]

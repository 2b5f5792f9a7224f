"""An export that is written and not proven yet: what a fresh process is asked of it, and what the answer must be."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from fledge.config.model import Dtype
from fledge.exporting.behaviour import Behaviour, Probe
from fledge.exporting.merging import Asked
from fledge.exporting.outside import Outside, OutsideCase
from fledge.exporting.trained import Source
from fledge.exporting.verify import Tolerance, check_answers, check_distance, distance, slack_of
from fledge.models.attention import IMPLEMENTATIONS
from fledge.models.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Order:
    """How an export is wanted."""

    dtype: str
    """Number format of the weights, one of the target's."""
    onto: Asked = "auto"
    """What a quantised run is merged onto."""


Check = Callable[[Path, Sequence[Outside]], dict[str, Any]]
"""The figures for the certificate, from an export's folder and what a reader has answered."""


@dataclass(frozen=True, slots=True)
class Draft:
    """An export in its folder. No model of it is in memory."""

    cases: tuple[OutsideCase, ...]
    """What the fresh process is asked."""
    agree: Check
    """The certificate's checks that hold in any reader. Raises ProofError where it computes, reads or stops otherwise
    than what was trained.
    """
    prove: Check
    """All checks, for the fresh process. Raises ProofError like `agree`."""
    remarks: tuple[str, ...] | None = None
    """What people should know of the export; None where its form has no such list."""


class Write(Protocol):
    """Writes an export into a folder; or, of one that lies there finished, says what is to be asked and answered."""

    def __call__(self, source: Source, folder: Path, *, probe: Probe, order: Order) -> Draft: ...


@dataclass(frozen=True, slots=True)
class Target:
    """A kind of export."""

    write: Write
    again: Write
    """Writes nothing: what is to be proven again of a finished export."""
    formats: tuple[str, ...]
    """Number formats it can be asked for; none where it has one of its own."""
    is_merged: bool
    own_format: Callable[[Dtype], str] = str
    """What it is written in where nothing is asked, from the number format of the training."""


def case_for(source: Source, folder: Path, *, probe: Probe, device: str) -> OutsideCase:
    """What every fresh process is asked: logits of the rows, greedy answers to the prompts; the kind is to be set."""
    return OutsideCase(
        folder=str(folder.absolute()),
        trust_remote_code=source.base.trust_remote_code,
        attention=IMPLEMENTATIONS.get(source.base.attention),
        device=device,
        rows=probe.rows,
        prompts=probe.prompts,
        max_new_tokens=probe.max_new_tokens,
    )


def check_behaviour(
    expected: Behaviour, found: Outside, *, tolerance: Tolerance, of: str, tokenizer: Tokenizer, probe: Probe
) -> dict[str, Any]:
    """The certificate's `logits` and `text`. Raises ProofError where the export does not do what was trained."""
    apart = distance(expected.logits, found.logits)
    logits = check_distance(apart, tolerance, of=of)
    slack = slack_of(apart, tolerance)
    text = check_answers(expected, found.answers, stop_ids=tokenizer.stop_ids, slack=slack)
    pairs = zip(probe.prompts, expected.answers, found.answers, strict=True)
    said = [
        dict(zip(("prompt", "trained", "exported"), map(tokenizer.decode, triple), strict=True)) for triple in pairs
    ]
    return {"logits": logits, "text": text | {"answers": said}}

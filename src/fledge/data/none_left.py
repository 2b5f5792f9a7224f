"""What to do where no row of a source can be trained on: one cure, for the reason that most rows were dropped for."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from fledge.config.columns import PAIR, REQUIRED, columns_of
from fledge.config.data import DataConfig, SourceConfig
from fledge.config.dump import scalar
from fledge.data.ledger import Role, SourceLedger
from fledge.data.rows import Reason, Refusal
from fledge.errors import DataError

LIMITS = ("data.max_length", "data.max_target_length")
"""What bounds a row, or the source and the target of an encoder-decoder's."""
OTHER_ROWS = "mend these rows, or name others as the source's path"
_MOST_CURES = 100


@dataclass(slots=True)
class Losses:
    """What is remembered of one source's dropped rows for the case that none is left."""

    cures: Counter[str] = field(default_factory=Counter)
    """What would mend an invalid row, and how many it would mend; the first hundred that differ."""
    longest: tuple[int, ...] = ()
    """Tokens of the longest row that was too long; source and target of an encoder-decoder's."""

    def add(self, refusal: Refusal) -> None:
        """Remember what would mend a row."""
        if refusal.reason == "invalid" and (refusal.cure in self.cures or len(self.cures) < _MOST_CURES):
            self.cures[refusal.cure] += 1

    def measure(self, sizes: Sequence[int]) -> None:
        """Remember how long a row is that was too long."""
        self.longest = tuple(map(max, sizes, self.longest)) if self.longest else tuple(sizes)


@dataclass(frozen=True, slots=True)
class Built:
    """What became of one source."""

    config: SourceConfig
    ledger: SourceLedger
    losses: Losses


def refuse_nothing(built: Sequence[Built], role: Role, *, data: DataConfig) -> DataError:
    """The error for sources of which no row is left. Its cure gives rows, where it is followed to the letter."""
    reasons = [
        f"{count:,} {reason} (first: {one.ledger.examples[reason][0]})"
        for one in built
        for reason, count in one.ledger.rows_dropped.items()
    ]
    what = f"none of the rows can be used: {', '.join(reasons)}"
    lost = [(count, reason, one) for one in built for reason, count in one.ledger.rows_dropped.items()]
    _, reason, worst = max(lost, key=lambda each: each[0])
    return DataError(what, where=f"data.{role}", cure=_cure(reason, worst, data))


def _cure(reason: str, worst: Built, data: DataConfig) -> str:
    if reason == "invalid":
        [(cure, _)] = worst.losses.cures.most_common(1)
        return cure or OTHER_ROWS
    if reason == "overlong":
        return _longer(worst.losses.longest, data)
    return _OTHERS[reason] if reason in _OTHERS else _columns(worst.config)


def _longer(longest: Sequence[int], data: DataConfig) -> str:
    """The limits at which the longest row fits."""
    allowed = (data.max_length, data.max_target_length)
    raised = [f"{key}: {size}" for key, size, most in zip(LIMITS, longest, allowed, strict=False) if size > most]
    return f"set {' and '.join(raised)}, as long as the longest row is"


_OTHERS: dict[Reason, str] = {
    "labelled_bad": "leave the column of labels out of the rows if it does not mark bad answers, or name other rows",
    "no_supervised_token": (
        "use the tokenizer that belongs to the base, and let an answer of each row be trained: weight: 0 leaves one out"
    ),
}


def _columns(source: SourceConfig) -> str:
    """What to do where the columns that are read are empty."""
    roles = REQUIRED[source.format] or (PAIR if "assistant" in source.columns else ("messages",))
    read = {role: column for role, column in columns_of(source).items() if role in roles}
    named = scalar(dict.fromkeys(read, "NAME"))
    columns = ", ".join(map(repr, read.values()))
    return f"columns read are {columns}: if others hold the text, write columns: {named} in the source"

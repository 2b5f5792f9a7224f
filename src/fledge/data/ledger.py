"""The ledger: what became of each row and each token of every source."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from fledge.data.rows import Reason, RenderedRow, TokenRow
from fledge.data.unread import is_unread, unread_line

Role = Literal["train", "validation", "test"]
MOST_EXAMPLES = 5
SIDES = ("source", "target")
PART_DROPPED = "one of several texts of the row is dropped ({reason}), the others are kept"


@dataclass(frozen=True, slots=True)
class Skipped:
    """How many files were not read for one reason, and the first of them."""

    files: int
    first: str


@dataclass(frozen=True, slots=True)
class SideLedger:
    """One side, source or target, of an encoder-decoder's rows. tokens_read = kept + cut + dropped."""

    tokens_read: int = 0
    tokens_kept: int = 0
    tokens_cut: int = 0
    """Cut off the end of overlong sides."""
    tokens_dropped: int = 0
    """Of dropped rows, whatever the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceLedger:
    """One source. rows_read = rows_kept + all of rows_dropped; tokens_read = trained + masked + cut + all dropped."""

    source: str
    format: str
    rows_read: int
    rows_kept: int
    pieces: int
    """Rows in the store: more than rows_kept where overlong rows were split."""
    rows_dropped: Mapping[str, int]
    """Rows by reason."""
    tokens_read: int
    """Tokens of every row that could be rendered, those of the dropped included."""
    tokens_trained: int
    tokens_masked: int
    """Kept, but nobody's target: prompts, and each row's first token, which nothing predicts."""
    tokens_cut: int
    """Cut off the end of overlong rows."""
    tokens_dropped: Mapping[str, int]
    """Tokens of dropped rows by reason; a row that cannot be read has none."""
    tokens_repeated: int
    """Context given once more at the start of pieces; not among tokens_read."""
    examples: Mapping[str, tuple[str, ...]]
    """By reason, where the first few such rows are, and what is wrong with them."""
    notes: Mapping[str, int]
    """What else is worth knowing, and of how many rows."""
    note_examples: Mapping[str, tuple[str, ...]]
    """By note, where the first few such rows are."""
    system: str
    """The system text that all conversations share; empty where they have none or different ones."""
    chat_template_kwargs: Mapping[str, Any]
    """The values for the chat template that all conversations bring; empty where they bring none or different ones."""
    files_skipped: Mapping[str, Skipped]
    """By reason, the files of a folder or glob that are not read."""
    file_notes: Mapping[str, Skipped] = field(default_factory=dict)
    """What was found out about files while they were read (a separator, a sheet), and of how many."""
    sides: Mapping[str, SideLedger] = field(default_factory=dict)
    """Encoder-decoder: `source` and `target`, whose sums are the tokens above; empty for a causal model."""


@dataclass(frozen=True, slots=True)
class Share:
    """What one part of the data (training, validation, test) came to."""

    rows: int
    """Rows in the store, pieces counted one by one."""
    tokens: int
    supervised_tokens: int


@dataclass(frozen=True, slots=True)
class Ledger:
    """All sources by role, and the shares that they were divided into."""

    sources: Mapping[Role, tuple[SourceLedger, ...]]
    shares: Mapping[Role, Share]
    repeated: int = 0
    """Validation rows whose tokens are those of a training row."""

    @property
    def rows_read(self) -> int:
        return sum(entry.rows_read for entry in self._all())

    @property
    def rows_kept(self) -> int:
        return sum(entry.rows_kept for entry in self._all())

    @property
    def rows_dropped(self) -> int:
        return self.rows_read - self.rows_kept

    @property
    def tokens(self) -> int:
        """Tokens that are kept, in all shares, context given again included."""
        return sum(share.tokens for share in self.shares.values())

    @property
    def supervised_tokens(self) -> int:
        return sum(share.supervised_tokens for share in self.shares.values())

    def side_tokens(self) -> dict[str, int]:
        """Tokens that are kept, by side of an encoder-decoder's rows; empty for a causal model."""
        total: dict[str, int] = {}
        for entry in self._all():
            for name, side in entry.sides.items():
                total[name] = total.get(name, 0) + side.tokens_kept
        return total

    def dropped_by_reason(self) -> dict[str, int]:
        """Dropped rows of all sources by reason."""
        total: dict[str, int] = {}
        for entry in self._all():
            for reason, count in entry.rows_dropped.items():
                total[reason] = total.get(reason, 0) + count
        return total

    def notices(self) -> list[str]:
        """A line for each kind of drop, cut and oddity, for a person to read."""
        lines = []
        if self.repeated:
            rows = self.shares["validation"].rows
            lines.append(f"validation: {self.repeated:,} of {rows:,} rows are among the training rows too")
        for entry in self._all():
            for reason, count in entry.rows_dropped.items():
                first = entry.examples.get(reason, ("",))[0]
                lines.append(
                    f"{entry.source}: {count:,} of {entry.rows_read:,} rows dropped ({reason}), first: {first}"
                )
            if entry.sides:
                kept = " and ".join(f"{side.tokens_kept:,} {name} tokens" for name, side in entry.sides.items())
                lines.append(f"{entry.source}: {kept} kept")
            if entry.tokens_cut:
                cut = [f"{side.tokens_cut:,} {name} tokens" for name, side in entry.sides.items() if side.tokens_cut]
                what = " and ".join(cut) or f"{entry.tokens_cut:,} tokens"
                lines.append(f"{entry.source}: {what} cut off overlong rows")
            lines += _noted(entry)
        return lines

    def as_json(self) -> dict[str, Any]:
        """The ledger as a JSON object: totals, shares, sources by role."""
        return {
            "rows_read": self.rows_read,
            "rows_kept": self.rows_kept,
            "rows_dropped": self.dropped_by_reason(),
            "tokens": self.tokens,
            "supervised_tokens": self.supervised_tokens,
            **{f"{name}_tokens": count for name, count in self.side_tokens().items()},
            **({"validation_rows_in_training": self.repeated} if "validation" in self.shares else {}),
            "shares": {role: asdict(share) for role, share in self.shares.items()},
            "sources": {role: [as_json(entry) for entry in entries] for role, entries in self.sources.items()},
        }

    def _all(self) -> list[SourceLedger]:
        return [entry for entries in self.sources.values() for entry in entries]


def _noted(entry: SourceLedger) -> list[str]:
    """A line for each oddity of a source's rows and files."""
    lines = []
    for note, count in entry.notes.items():
        if not is_unread(note):
            first = entry.note_examples.get(note, ("",))[0]
            lines.append(f"{entry.source}: {count:,} rows: {note}{f', first: {first}' * bool(first)}")
    if unread := unread_line(entry.notes):
        lines.append(f"{entry.source}: {unread}")
    for note, noted in entry.file_notes.items():
        alone = note if entry.source.endswith(noted.first) else f"{noted.first}: {note}"
        several = f"{noted.files:,} files: {note}, first: {noted.first}"
        lines.append(f"{entry.source}: {alone if noted.files == 1 else several}")
    for reason, skipped in entry.files_skipped.items():
        lines.append(f"{entry.source}: {skipped.files:,} files not read ({reason}), first: {skipped.first}")
    return lines


def as_json(entry: SourceLedger) -> dict[str, Any]:
    """One source's ledger as a JSON object."""
    value = asdict(entry)
    for name in ("examples", "note_examples"):
        value[name] = {reason: list(found) for reason, found in value[name].items()}
    return value if entry.sides else {name: found for name, found in value.items() if name != "sides"}


def from_json(value: Mapping[str, Any]) -> SourceLedger:
    """The inverse of `as_json`."""
    examples = {reason: tuple(found) for reason, found in value["examples"].items()}
    noted = {note: tuple(found) for note, found in value["note_examples"].items()}
    skipped = {reason: Skipped(**found) for reason, found in value["files_skipped"].items()}
    files = {note: Skipped(**found) for note, found in value.get("file_notes", {}).items()}
    sides = {name: SideLedger(**found) for name, found in value.get("sides", {}).items()}
    return SourceLedger(
        **{**value, "examples": examples, "note_examples": noted, "files_skipped": skipped, "file_notes": files}
        | {"sides": sides}
    )


def skipped_by_reason(files: Iterable[tuple[Path | str, str]]) -> dict[str, Skipped]:
    """Files, each with the reason why it is not read or with what is noted of it, counted."""
    found: dict[str, Skipped] = {}
    for path, reason in files:
        known = found.get(reason, Skipped(0, str(path)))
        found[reason] = Skipped(known.files + 1, known.first)
    return found


@dataclass(slots=True)
class Tally:
    """Counts one source while it is read."""

    source: str
    format: str
    has_sides: bool = False
    """Whether rows are pairs of source and target, whose tokens are counted apart too."""
    rows_read: int = 0
    rows_kept: int = 0
    pieces: int = 0
    tokens_read: int = 0
    tokens: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("trained", "masked", "cut", "repeated"), 0))
    rows_dropped: dict[str, int] = field(default_factory=dict)
    tokens_dropped: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    notes: dict[str, int] = field(default_factory=dict)
    note_examples: dict[str, list[str]] = field(default_factory=dict)
    systems: set[str | None] = field(default_factory=set)
    options: set[str] = field(default_factory=set)
    sides: dict[str, SideLedger] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.has_sides:
            self.sides = {name: SideLedger() for name in SIDES}

    def keep_row(self, where: str, notes: Iterable[str], *, rendered: RenderedRow) -> None:
        """Count a row of the source that is kept, and what is worth knowing of it."""
        self.rows_read += 1
        self.rows_kept += 1
        for note in dict.fromkeys(notes):
            self.notes[note] = self.notes.get(note, 0) + 1
            examples = self.note_examples.setdefault(note, [])
            if len(examples) < MOST_EXAMPLES:
                examples.append(where)
        if len(self.systems) < 2:
            self.systems.add(rendered.system)
        if len(self.options) < 2:
            self.options.add(rendered.options)

    def keep(self, pieces: tuple[TokenRow, ...], *, sizes: tuple[int, ...], num_cut: int) -> None:
        """Count a text of sum(`sizes`) tokens, by side where it has sides, that is kept as `pieces`, `num_cut` of its
        tokens having been cut off.
        """
        self.tokens_read += sum(sizes)
        self.pieces += len(pieces)
        if self.has_sides:
            [whole] = pieces
            self._count_sides(sizes, kept=(whole.num_source, len(whole.ids) - whole.num_source))
        for piece in pieces:
            trained = piece.supervised_tokens
            self.tokens["trained"] += trained
            self.tokens["repeated"] += piece.num_repeated
            self.tokens["masked"] += len(piece.ids) - piece.num_repeated - trained
        self.tokens["cut"] += num_cut

    def drop_part(self, reason: Reason, where: str, *, sizes: tuple[int, ...]) -> None:
        """Count a text of sum(`sizes`) tokens that is dropped while others of the same row are kept."""
        note = PART_DROPPED.format(reason=reason)
        self.notes[note] = self.notes.get(note, 0) + 1
        self.note_examples.setdefault(note, [where])
        self.tokens_read += sum(sizes)
        self.tokens_dropped[reason] = self.tokens_dropped.get(reason, 0) + sum(sizes)
        if self.has_sides:
            self._count_sides(sizes, kept=None)

    def drop(self, reason: Reason, where: str, *, what: str, sizes: tuple[int, ...]) -> None:
        """Count a row of sum(`sizes`) tokens that is dropped, and remember the first few places."""
        num_tokens = sum(sizes)
        self.rows_read += 1
        self.tokens_read += num_tokens
        if self.has_sides:
            self._count_sides(sizes, kept=None)
        self.rows_dropped[reason] = self.rows_dropped.get(reason, 0) + 1
        self.tokens_dropped[reason] = self.tokens_dropped.get(reason, 0) + num_tokens
        examples = self.examples.setdefault(reason, [])
        if len(examples) < MOST_EXAMPLES:
            examples.append(f"{where}: {what}" if what else where)

    def _count_sides(self, sizes: tuple[int, ...], *, kept: tuple[int, ...] | None) -> None:
        """Count a row's tokens by side; what is not kept of a kept row was cut, and of a dropped row dropped."""
        for place, (name, size) in enumerate(zip(SIDES, sizes, strict=True)):
            left = kept[place] if kept is not None else 0
            known = self.sides[name]
            self.sides[name] = SideLedger(
                tokens_read=known.tokens_read + size,
                tokens_kept=known.tokens_kept + left,
                tokens_cut=known.tokens_cut + (size - left if kept is not None else 0),
                tokens_dropped=known.tokens_dropped + (size if kept is None else 0),
            )

    def close(self) -> SourceLedger:
        """The counts as a value."""
        return SourceLedger(
            source=self.source,
            format=self.format,
            rows_read=self.rows_read,
            rows_kept=self.rows_kept,
            pieces=self.pieces,
            rows_dropped=self.rows_dropped,
            tokens_read=self.tokens_read,
            tokens_trained=self.tokens["trained"],
            tokens_masked=self.tokens["masked"],
            tokens_cut=self.tokens["cut"],
            tokens_dropped=self.tokens_dropped,
            tokens_repeated=self.tokens["repeated"],
            examples={reason: tuple(found) for reason, found in self.examples.items()},
            notes=self.notes,
            note_examples={note: tuple(found) for note, found in self.note_examples.items()},
            system=next(iter(self.systems), None) or "" if len(self.systems) == 1 else "",
            chat_template_kwargs=json.loads(next(iter(self.options))) if len(self.options) == 1 else {},
            files_skipped={},
            sides=self.sides,
        )

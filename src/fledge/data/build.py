"""From opened sources to a token store: read, render, tokenise, fit, write; two batches in flight."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeGuard

from fledge.config.data import DataConfig, Overlong
from fledge.data.fit import Fitted
from fledge.data.formats.control import Render, Rendered
from fledge.data.formats.render import renderer
from fledge.data.ledger import Tally
from fledge.data.none_left import OTHER_ROWS, Built, Losses
from fledge.data.pairs import Pairs, limit_keys
from fledge.data.readers.rows import OpenSource, read_part
from fledge.data.rows import BrokenRow, RawRow, Refusal, RenderedRow, TokenRow
from fledge.data.sample import TextSample
from fledge.data.store import Origin, StoreWriter
from fledge.data.tokenize import Encoding, Text, TextTokenizer, encode_texts
from fledge.data.whole import Whole
from fledge.errors import DataError

Progress = Callable[[int, int | None], None]
_ANSWER_CUT = "the answer was cut, so it is trained but no generated answer is compared with it"
_NO_ROW = "the file holds no row"
_BATCH_ROWS = 1024
_BATCH_CHARACTERS = 1 << 21
_LOOKED_AT = 1000
"""Rows after an invalid one, of which one that is valid shows that leaving invalid ones out leaves something."""


class _Maker(Protocol):
    """How rendered rows become token rows; what it says of each is told in `whole` and `pairs`."""

    @property
    def limits(self) -> str: ...
    def texts(self, outcome: RenderedRow | Refusal) -> tuple[Text, ...]: ...
    def token_rows(self, rows: Sequence[RenderedRow], encodings: Sequence[tuple[Encoding, ...]]) -> list[TokenRow]: ...
    def sizes(self, row: TokenRow) -> tuple[int, ...]: ...
    def size(self, row: TokenRow) -> str: ...
    def is_overlong(self, row: TokenRow) -> bool: ...
    def fit(self, row: TokenRow) -> Fitted: ...


@dataclass(frozen=True, slots=True)
class _Item:
    """One row on its way: rendered, or why it was refused."""

    part: int
    number: int
    outcome: Rendered

    @property
    def texts(self) -> tuple[RenderedRow | Refusal, ...]:
        """What of the row is tokenised: each of the rows that it became, or what is known of it."""
        return (self.outcome,) if isinstance(self.outcome, Refusal) else self.outcome


def build_store(
    sources: Sequence[OpenSource],
    data: DataConfig,
    *,
    tokenizer: TextTokenizer,
    folder: Path,
    progress: Progress,
) -> tuple[Built, ...]:
    """Write the store of all sources into `folder` and return what became of each, with its ledger.

    The tokenizer works in a thread of its own (it lets go of the interpreter lock and uses all cores) while this one
    renders the next batch and writes the last, so memory is three batches. Raises DataError for a row that the recipe
    wants no run with, and where a source has no row at all.
    """
    built, sample = [], TextSample()
    with StoreWriter(folder) as writer, ThreadPoolExecutor(max_workers=1) as pool:
        for number, source in enumerate(sources):
            first_part = sum(len(earlier.part_names()) for earlier in sources[:number])
            builder = _Builder(source, data, tokenizer, writer, number, first_part)
            builder.sample = sample
            builder.run(pool, progress)
            source.check_unchanged()
            built.append(Built(source.config, builder.tally.close(), builder.losses))
    sample.write(folder, tokenizer)
    return tuple(built)


class _Builder:
    """One source on its way into the store."""

    def __init__(
        self,
        source: OpenSource,
        data: DataConfig,
        tokenizer: TextTokenizer,
        writer: StoreWriter,
        number: int,
        first_part: int,
    ) -> None:
        self._source = source
        self._data = data
        self._tokenizer = tokenizer
        self._writer = writer
        self._number = number
        self._first_part = first_part
        self._names = source.part_names()
        self._total: int | None = None
        is_text = source.config.format == "text"
        self._overlong: Overlong = "drop" if data.overlong == "split" and not is_text else data.overlong
        self._render: Render = renderer(source.config, tokenizer, data=data)
        is_pair = tokenizer.decoder_start_id is not None
        options = (tokenizer, data, self._overlong)
        self._maker: _Maker = Pairs(*options) if is_pair else Whole(*options)
        self._limit_keys = limit_keys(tokenizer)
        self.sample = TextSample()
        """Some of the rendered texts, of all sources together."""
        self.tally = Tally(source.name, source.config.format, has_sides=is_pair)
        self.losses = Losses()

    def run(self, pool: ThreadPoolExecutor, progress: Progress) -> None:
        """Read the whole source: while one batch is tokenised, the one before is written and the next is read."""
        before = None
        for items in _batches(self._items()):
            encodings = pool.submit(self._encoded, items)
            if before is not None:
                self._finish(before[0], before[1].result())
                progress(self.tally.rows_read, self._total)
            before = (items, encodings)
        assert before is not None, "a source without a row is refused while it is read"
        self._finish(before[0], before[1].result())
        progress(self.tally.rows_read, self._total)

    def _encoded(self, items: Sequence[_Item]) -> list[list[tuple[Encoding, ...]]]:
        """The texts of each row of each record, tokenised; called in the tokenizer's thread."""
        texts = [[self._maker.texts(one) for one in item.texts] for item in items]
        self.sample.add(text.text for rows in texts for row in rows for text in row if not text.literals)
        found = iter(encode_texts(self._tokenizer, [text for rows in texts for row in rows for text in row]))
        return [[tuple(itertools.islice(found, len(row))) for row in rows] for rows in texts]

    def _items(self) -> Iterator[_Item]:
        has_rows = False
        for part in range(len(self._names)):
            rows, total = self._rows_of(part)
            self._total = total if len(self._names) == 1 else None
            is_empty, some_are_valid = True, False
            for row in rows:
                is_empty, outcome = False, self._outcome(row)
                if _is_invalid(outcome) and self._data.invalid_rows == "error":
                    is_worth_dropping = some_are_valid or self._some_valid(rows)
                    where = self._source.full_where(part, row.number)
                    raise _invalid(outcome, where, is_worth_dropping=is_worth_dropping)
                some_are_valid = some_are_valid or not _is_invalid(outcome)
                yield _Item(part, row.number, outcome)
            if is_empty:
                self._source.note(part, _NO_ROW)
            has_rows = has_rows or not is_empty
        if not has_rows:
            several = len(self._names) > 1
            what = f"none of the {len(self._names):,} files holds a row" if several else _NO_ROW
            where = self._source.name if several else self._source.full_where(0, None)
            raise DataError(what, where=where, cure="name files that hold rows as the source's path")

    def _rows_of(self, part: int) -> tuple[Iterator[RawRow | BrokenRow], int | None]:
        """The rows of a part; trouble of the machine in reading them is told of the source, not of the store."""
        where = self._source.full_where(part, None)
        with _reading(where):
            rows, total = read_part(self._source, part)
        return _told(rows, where), total

    def _outcome(self, row: RawRow | BrokenRow) -> Rendered:
        return row.refusal if isinstance(row, BrokenRow) else self._render(row.record)

    def _some_valid(self, rows: Iterator[RawRow | BrokenRow]) -> bool:
        """Whether one of the next rows is valid."""
        try:
            return any(not _is_invalid(self._outcome(row)) for row in itertools.islice(rows, _LOOKED_AT))
        except DataError:  # the file is broken further down
            return False

    def _finish(self, items: Sequence[_Item], encodings: Sequence[list[tuple[Encoding, ...]]]) -> None:
        rendered = [row for item in items if not isinstance(item.outcome, Refusal) for row in item.outcome]
        theirs = [
            one
            for item, found in zip(items, encodings, strict=True)
            if not isinstance(item.outcome, Refusal)
            for one in found
        ]
        rows = iter(self._maker.token_rows(rendered, theirs))
        stored: list[tuple[Origin, TokenRow]] = []
        for item, found in zip(items, encodings, strict=True):
            if isinstance(item.outcome, Refusal):
                self._drop(item, item.outcome, sizes=tuple(len(encoding) for encoding in found[0]))
            else:
                stored.extend(self._kept(item, item.outcome, list(itertools.islice(rows, len(item.outcome)))))
        if stored:
            self._writer.write(stored)

    def _kept(
        self, item: _Item, rendered: Sequence[RenderedRow], rows: Sequence[TokenRow]
    ) -> list[tuple[Origin, TokenRow]]:
        """What is stored of a record: the pieces of those of its rows that are not too long."""
        fitted = [self._fitted(item, row) for row in rows]
        kept = [(fit, row, text) for fit, row, text in zip(fitted, rows, rendered, strict=True) if fit.dropped is None]
        lost = [(fit, row) for fit, row in zip(fitted, rows, strict=True) if fit.dropped is not None]
        if not kept:
            first, row = lost[0]
            assert first.dropped is not None
            what = self._maker.size(row) if first.dropped == "overlong" else ""
            sizes = tuple(sum(side) for side in zip(*(self._maker.sizes(one) for _, one in lost), strict=True))
            for fit, one in lost:
                if fit.dropped == "overlong":
                    self.losses.measure(self._maker.sizes(one))
            self._drop(item, Refusal(first.dropped, what), sizes=sizes)
            return []
        where = self._source.where(item.part, item.number)
        self.tally.keep_row(
            where, [note for fit, row, text in kept for note in _notes_of(fit, row, text)], rendered=kept[0][2]
        )
        for fit, row, _ in kept:
            self.tally.keep(fit.pieces, sizes=self._maker.sizes(row), num_cut=fit.num_cut)
        for fit, row in lost:
            assert fit.dropped is not None
            self.tally.drop_part(fit.dropped, where, sizes=self._maker.sizes(row))
        return self._stored(item, [piece for fit, _, text in kept for piece in _with_references(fit, text)])

    def _stored(self, item: _Item, pieces: Sequence[TokenRow]) -> list[tuple[Origin, TokenRow]]:
        parent = self._writer.num_parents
        self._writer.num_parents += 1
        is_whole = len(pieces) == 1
        part = self._first_part + item.part
        return [
            (Origin(self._number, part, item.number, parent, -1 if is_whole else number), piece)
            for number, piece in enumerate(pieces)
        ]

    def _fitted(self, item: _Item, row: TokenRow) -> Fitted:
        maker = self._maker
        if self._overlong == "error" and maker.is_overlong(row):
            cure = f"raise {self._limit_keys}, or set data.overlong: drop, or truncate"
            where = self._source.full_where(item.part, item.number)
            raise DataError(f"the row is {maker.size(row)} long, {maker.limits}", where=where, cure=cure)
        return maker.fit(row)

    def _drop(self, item: _Item, refusal: Refusal, *, sizes: tuple[int, ...]) -> None:
        where = self._source.where(item.part, item.number)
        self.tally.drop(refusal.reason, where, what=refusal.what, sizes=sizes)
        self.losses.add(refusal)


def _is_invalid(outcome: Rendered) -> TypeGuard[Refusal]:
    return isinstance(outcome, Refusal) and outcome.reason == "invalid"


def _invalid(refusal: Refusal, where: str, *, is_worth_dropping: bool) -> DataError:
    """The error for a row that the recipe wants no run with; to drop such rows is a cure where others are left."""
    drop = "set data.invalid_rows: drop to leave such rows out and count them"
    cures = [refusal.cure] * bool(refusal.cure) + [drop] * is_worth_dropping
    return DataError(refusal.what, where=where, cure="; or ".join(cures) or OTHER_ROWS)


def _with_references(fitted: Fitted, rendered: RenderedRow) -> tuple[TokenRow, ...]:
    """The pieces of a row, the last one with the row's further answers."""
    if not rendered.references:
        return fitted.pieces
    *others, last = fitted.pieces
    return (*others, replace(last, references=rendered.references))


def _notes_of(fitted: Fitted, row: TokenRow, rendered: RenderedRow) -> tuple[str, ...]:
    notes = (*rendered.notes, *row.notes)
    return (*notes, _ANSWER_CUT) if fitted.is_answer_cut else notes


@contextmanager
def _reading(where: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", where=where) from error


def _told(rows: Iterator[RawRow | BrokenRow], where: str) -> Iterator[RawRow | BrokenRow]:
    with _reading(where):
        yield from rows


def _batches(items: Iterator[_Item]) -> Iterator[list[_Item]]:
    batch: list[_Item] = []
    characters = 0
    for item in items:
        batch.append(item)
        characters += sum(len(one.text) for one in item.texts)
        if len(batch) >= _BATCH_ROWS or characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch

"""Looks at a source before there is a recipe for it: how many rows, which columns, and the format that fits them."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fledge.config.columns import PAIR
from fledge.config.data import SourceConfig
from fledge.data.formats.guess import guess_columns, present_names
from fledge.data.readers.rows import open_source, read_part
from fledge.data.rows import BrokenRow, RawRow, is_text_file
from fledge.errors import DataError

_KEPT = 2000
_MOST_ROWS = 1_000_000
_CONVERSATIONS = ("messages", "conversations")


@dataclass(slots=True)
class Survey:
    """What a source holds. The first 2,000 rows are kept, the others are counted."""

    rows: list[RawRow] = field(default_factory=list)
    num_rows: int = 0
    """Rows that can be read."""
    broken: list[str] = field(default_factory=list)
    """Where rows cannot be read, and why; the first few."""
    num_broken: int = 0
    cure: str = ""
    """What mends the first row that cannot be read."""
    is_whole: bool = True
    """Whether all rows were counted; the count ends at a million."""


def survey(source: SourceConfig) -> Survey:
    """Read all rows of a source, up to a million. Raises DataError where nothing can be read."""
    opened, found = open_source(source), Survey()
    for part in range(len(opened.part_names())):
        rows, _ = read_part(opened, part)
        for row in rows:
            if found.num_rows + found.num_broken >= _MOST_ROWS:
                found.is_whole = False
                return found
            _count(row, opened.where(part, row.number), found)
    if not found.rows:
        first = f"no row can be read; the first: {found.broken[0]}" if found.broken else "there is no row in it"
        cure = found.cure or "write at least one row into it (in a table, below the header), or give other data"
        raise DataError(first, where=source.path, cure=cure)
    return found


def _count(row: RawRow | BrokenRow, where: str, found: Survey) -> None:
    if isinstance(row, BrokenRow):
        found.num_broken += 1
        found.cure = found.cure or row.refusal.cure
        if len(found.broken) < 3:
            found.broken.append(f"{where}: {row.refusal.what}")
        return
    found.num_rows += 1
    if len(found.rows) < _KEPT:
        found.rows.append(row)


@dataclass(frozen=True, slots=True)
class Guess:
    """A format and the columns of its roles, and how sure that is."""

    format: str
    columns: Mapping[str, str]
    why: str


def guess_format(rows: Sequence[RawRow], *, takes_chat: bool) -> Guess:
    """The format that fits the rows, by the names of their columns and by what these hold.

    `takes_chat` says whether a question and an answer may become a conversation: not for an encoder-decoder. Raises
    DataError where the columns leave it open.
    """
    records = [row.record for row in rows]
    if all(is_text_file(record) for record in records):
        return Guess("text", {}, "text files are trained whole")
    names = [name for name, _ in Counter(name for record in records for name in record).most_common()]
    names.sort(key=[name for record in records for name in record].index)
    for guess in _guesses(names, records, takes_chat=takes_chat):
        return guess
    what = f"the columns do not say what is asked and what is answered: {present_names(dict.fromkeys(names))}"
    cure = "write a recipe with `fledge init`, and name them in the source: columns: {user: NAME, assistant: NAME}"
    raise DataError(what, where="--data", cure=cure)


def _guesses(names: list[str], records: Sequence[Mapping[str, Any]], *, takes_chat: bool) -> Iterator[Guess]:
    messages = guess_columns(names, "chat").get("messages")
    if takes_chat and messages is not None and any(_is_conversation(record.get(messages)) for record in records):
        named = {} if messages in _CONVERSATIONS else {"messages": messages}
        yield Guess("chat", named, f"column {messages!r} holds conversations")
    if {"instruction", "output"} <= set(names):
        yield Guess("alpaca", {}, "the columns are alpaca's: instruction and output")
    if {"prompt", "completion"} <= set(names):
        yield Guess("completion", {}, "the columns are prompt and completion")
    texts = [name for name in names if _is_text(name, records)]
    pair = guess_columns(texts, "chat")
    if not set(PAIR) <= set(pair):
        found = guess_columns(texts, "completion")
        pair = {"user": found["prompt"], "assistant": found["completion"]} if len(found) == 2 else {}
    why = "by their names"
    if not pair and len(texts) == 2:
        pair, why = dict(zip(PAIR, texts, strict=True)), "by their order, for their names do not say"
    if pair:
        told = f"column {pair['user']!r} asks and {pair['assistant']!r} answers, {why}"
        named = {role: pair[role] for role in PAIR}
        if takes_chat:
            yield Guess("chat", named, told)
        else:
            yield Guess("completion", {"prompt": pair["user"], "completion": pair["assistant"]}, told)
    if len(texts) == 1:
        yield Guess("text", {} if texts == ["text"] else {"text": texts[0]}, f"column {texts[0]!r} is the only text")


def _is_conversation(value: Any) -> bool:
    if isinstance(value, str):
        return value.lstrip().startswith("[{")
    return isinstance(value, list | tuple) and bool(value) and isinstance(value[0], Mapping)


def _is_text(name: str, records: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a column holds words: in at least half of the rows, and not numbers alone."""
    values = [record.get(name) for record in records]
    words = [value for value in values if isinstance(value, str) and any(sign.isalpha() for sign in value)]
    return 2 * len(words) >= len(values)

"""What happens to a row that is longer than max_length: dropped, cut at its end, or split into pieces."""

from dataclasses import dataclass

from fledge.config.data import Overlong
from fledge.data.rows import Reason, TokenRow


@dataclass(frozen=True, slots=True)
class Fitted:
    """What becomes of one row: its pieces (none where it is dropped, and why), and how many tokens were cut off."""

    pieces: tuple[TokenRow, ...]
    num_cut: int = 0
    dropped: Reason | None = None
    is_answer_cut: bool = False
    """True where the row is kept without the end of its answer: nothing can be compared with that."""


def fit(row: TokenRow, *, max_length: int, overlong: Overlong, prefix: tuple[int, ...]) -> Fitted:
    """Fit a row into `max_length` tokens. `error` must be handled before: here it drops, as `drop` does.

    truncate: the last tokens go first; a row whose every trained token went is dropped.
    split: each token is trained in exactly one piece. A later piece starts with the tokenizer's prefix again where
    the row starts with it, else with the last token of the piece before; neither is trained.
    """
    if not row.ranges:
        return Fitted((), dropped="no_supervised_token")
    if len(row.ids) <= max_length:
        return Fitted((row,))
    if overlong == "truncate":
        kept = _part(row, 0, max_length)
        if not kept.ranges:
            return Fitted((), dropped="overlong")
        return Fitted((kept,), num_cut=len(row.ids) - max_length, is_answer_cut=row.answer[1] > max_length)
    if overlong == "split":
        return Fitted(_pieces(row, max_length=max_length, prefix=prefix))
    return Fitted((), dropped="overlong")


def _pieces(row: TokenRow, *, max_length: int, prefix: tuple[int, ...]) -> tuple[TokenRow, ...]:
    head = prefix if 0 < len(prefix) < max_length and tuple(row.ids[: len(prefix)]) == prefix else ()
    pieces = [_part(row, 0, max_length)]
    start = max_length
    while start < len(row.ids):
        context = list(head) or row.ids[start - 1 : start]
        stop = start + max_length - len(context)
        pieces.append(_part(row, start, stop, context=context))
        start = stop
    return tuple(pieces)


def _part(row: TokenRow, start: int, stop: int, *, context: list[int] | None = None) -> TokenRow:
    """Tokens start..stop of a row, after `context`; an answer that is not whole in them is none."""
    before = context or []
    stop = min(stop, len(row.ids))
    shift = len(before) - start
    ranges = tuple(
        (max(first, start) + shift, min(last, stop) + shift)
        for first, last in row.ranges
        if first < stop and last > start
    )
    first, last = (min(max(position, start), stop) + shift for position in row.answer)
    is_whole = start <= row.answer[0] and row.answer[1] <= stop
    answer = (first, last if is_whole else first)
    asked = row.asked if is_whole and start == 0 else None
    ids = before + row.ids[start:stop]
    return TokenRow(ids, ranges, answer, num_repeated=len(before), asked=asked, is_lossy=row.is_lossy, notes=row.notes)

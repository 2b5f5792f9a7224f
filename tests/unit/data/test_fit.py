"""Overlong rows: each token is trained once, or cut and counted, or dropped and counted."""

from hypothesis import given
from hypothesis import strategies as st

from fledge.data.fit import fit
from fledge.data.rows import TokenRow


@st.composite
def token_rows(draw):
    length = draw(st.integers(2, 60))
    has_bos = draw(st.booleans())
    trained = draw(st.lists(st.booleans(), min_size=length, max_size=length))
    ids = [0 if has_bos and position == 0 else position + 1 for position in range(length)]
    ranges = tuple((place, place + 1) for place in range(1, length) if trained[place])
    return TokenRow(ids, ranges, (1, length))


@st.composite
def whole_texts(draw):
    length = draw(st.integers(2, 60))
    first = 0 if draw(st.booleans()) else 1
    ids = [first, *range(2, length + 1)]
    return TokenRow(ids, ((1, length),), (1, length))


def trained_ids(row):
    return [row.ids[place] for start, stop in row.ranges for place in range(start, stop)]


@given(whole_texts(), st.integers(8, 20))
def test_split_trains_each_token_exactly_once(row, max_length):
    fitted = fit(row, max_length=max_length, overlong="split", prefix=(0,))
    assert [token for piece in fitted.pieces for token in trained_ids(piece)] == trained_ids(row)
    assert all(len(piece.ids) <= max_length for piece in fitted.pieces)
    assert [token for piece in fitted.pieces for token in piece.ids[piece.num_repeated :]] == row.ids
    for before, piece in zip(fitted.pieces, fitted.pieces[1:], strict=False):
        context = [0] if row.ids[0] == 0 else before.ids[-1:]
        assert piece.ids[: piece.num_repeated] == context
        assert all(start >= piece.num_repeated for start, _ in piece.ranges)
    assert fitted.num_cut == 0


@given(token_rows(), st.integers(8, 20))
def test_truncate_cuts_the_end_and_counts_it(row, max_length):
    fitted = fit(row, max_length=max_length, overlong="truncate", prefix=(0,))
    if fitted.dropped:
        assert not any(start < max_length for start, _ in row.ranges)
        assert fitted.dropped == ("overlong" if row.ranges else "no_supervised_token")
        return
    [piece] = fitted.pieces
    assert piece.ids == row.ids[:max_length]
    assert len(piece.ids) + fitted.num_cut == len(row.ids)
    assert trained_ids(piece) == [token for token in trained_ids(row) if token in piece.ids]


@given(token_rows(), st.integers(8, 20))
def test_drop_keeps_short_rows_as_they_are_and_no_long_one(row, max_length):
    fitted = fit(row, max_length=max_length, overlong="drop", prefix=())
    if not row.ranges:
        assert fitted.dropped == "no_supervised_token"
    elif len(row.ids) > max_length:
        assert fitted.dropped == "overlong"
    else:
        assert fitted.pieces == (row,)

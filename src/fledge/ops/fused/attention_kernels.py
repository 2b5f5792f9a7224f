"""The kernels of attention.py: FlashAttention-2 (arXiv 2307.08691) over the ranges that layout.py lists.

Every result is added up by one program in one order, so the same input gives the same bits. Scores and sums are
float32; they are kept as powers of two. A program has BM queries and visits BN keys at a time, or the other way round.

Pointers: q, out, do, dq [T,K,G,D]; k, v, dk, dv [T,K,D]; sums and delta [K*G,positions] float32. A name of two letters
is a stride: the tensor's (q, k, v, o for out and do, d for what is written), then t of positions, k of key/value heads,
g of the query heads for each.
"""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def _dot(a, b):
    return tl.dot(a, b, input_precision="ieee")


@triton.jit
def _scores(
    raw, i, j, is_there, alibi, relative, head, scale, cap, window, reach,
    CAPPED: tl.constexpr, ALIBI: tl.constexpr, RELATIVE: tl.constexpr, CAUSAL: tl.constexpr, WINDOWED: tl.constexpr,
    MASKED: tl.constexpr,
):  # fmt: skip
    """Scores as powers of two for raw products of queries at positions i and keys at j, which broadcast against each
    other, and their tanh where they are capped. `is_there` says which of them exist.
    """
    s = raw * scale
    bent = s
    if CAPPED:
        bent = 2.0 * tl.sigmoid(2.0 * s / cap) - 1.0
        s = cap * bent
    if ALIBI:
        of_keys = tl.load(alibi + head * reach + j, mask=j < reach, other=0.0)
        of_queries = tl.load(alibi + head * reach + i, mask=i < reach, other=0.0)
        s += of_keys - of_queries
    if RELATIVE:
        s += tl.load(relative + head * (2 * reach - 1) + (j - i + reach - 1), mask=is_there, other=0.0)
    s *= LOG2E
    if MASKED:
        is_seen = is_there
        if CAUSAL:
            is_seen = is_seen & (j <= i)
        if WINDOWED:
            is_seen = is_seen & (i - j < window)
        s = tl.where(is_seen, s, float("-inf"))
    return s, bent


@triton.jit
def _attend_range(
    acc, top, total, q, k, v, start, length, position, low, high, i, has_row, k_step, v_step, features, has_feature,
    alibi, relative, head, scale, cap, window, reach,
    BN: tl.constexpr, CAPPED: tl.constexpr, ALIBI: tl.constexpr, RELATIVE: tl.constexpr, CAUSAL: tl.constexpr,
    WINDOWED: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Keys [low, high) of a range into the running sum, largest score and total of exponentials."""
    for n in range(low, high, BN):
        rows = n + tl.arange(0, BN)
        has_key = rows < length
        lines = (start + rows).to(tl.int64)
        keys = tl.load(
            k + lines[None, :] * k_step + features[:, None], mask=has_key[None, :] & has_feature[:, None], other=0.0
        )
        s, _ = _scores(
            _dot(q, keys), i[:, None], (position + rows)[None, :], has_row[:, None] & has_key[None, :],
            alibi, relative, head, scale, cap, window, reach, CAPPED, ALIBI, RELATIVE, CAUSAL, WINDOWED, MASKED,
        )  # fmt: skip
        new = tl.maximum(top, tl.max(s, 1))
        base = tl.where(new == float("-inf"), 0.0, new) if MASKED else new
        p = tl.exp2(s - base[:, None])
        shrink = tl.exp2(top - base)
        total = total * shrink + tl.sum(p, 1)
        values = tl.load(
            v + lines[:, None] * v_step + features[None, :], mask=has_key[:, None] & has_feature[None, :], other=0.0
        )
        acc = acc * shrink[:, None] + _dot(p.to(values.dtype), values)
        top = new
    return acc, top, total


@triton.jit
def _bounds(length, position, first, last, window, CAUSAL: tl.constexpr, WINDOWED: tl.constexpr, BN: tl.constexpr):
    """Of a range of keys at `position`, for queries at positions [first, last): where to start, from where on and up to
    where every query sees every key, and where to end; all but the last in steps of BN.
    """
    low, full_low, high, full_high = length * 0, length * 0, length, length // BN * BN
    if CAUSAL:
        high = tl.maximum(tl.minimum(length, last - position), 0)
        full_high = tl.minimum(full_high, tl.maximum(first + 1 - position, 0) // BN * BN)
    if WINDOWED:
        low = tl.maximum(first - window + 1 - position, 0) // BN * BN
        full_low = (tl.maximum(last - window - position, 0) + BN - 1) // BN * BN
    full_low = tl.minimum(tl.maximum(full_low, low), tl.maximum(high + BN - 1, 0) // BN * BN)
    full_high = tl.maximum(full_high, full_low)
    return low, full_low, full_high, high


@triton.jit(do_not_specialize=["window", "reach", "positions"])
def forward(
    q, k, v, out, sums, query_tiles, documents, seen, alibi, relative, scale, cap, window, reach, positions,
    qt, qk, qg, kt, kk, vt, vk, ot, ok, og,
    G: tl.constexpr, D: tl.constexpr, WIDE: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, CAPPED: tl.constexpr,
    ALIBI: tl.constexpr, RELATIVE: tl.constexpr, CAUSAL: tl.constexpr, WINDOWED: tl.constexpr,
):  # fmt: skip
    """The values that a tile of queries gets, and the logarithms of its totals."""
    tile, head = tl.program_id(0), tl.program_id(1)
    kv, group = head // G, head % G
    document, first = tl.load(query_tiles + 2 * tile), tl.load(query_tiles + 2 * tile + 1)
    about = documents + 5 * document
    start, length, position = tl.load(about), tl.load(about + 1), tl.load(about + 2)
    rows = first + tl.arange(0, BM)
    has_row, i = rows < length, position + rows
    features = tl.arange(0, WIDE)
    has_feature = features < D
    lines, is_there = (start + rows).to(tl.int64), has_row[:, None] & has_feature[None, :]
    queries = tl.load(q + lines[:, None] * qt + kv * qk + group * qg + features[None, :], mask=is_there, other=0.0)
    acc = tl.zeros((BM, WIDE), dtype=tl.float32)
    top = tl.full((BM,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((BM,), dtype=tl.float32)
    earliest, latest = position + first, position + tl.minimum(first + BM, length)
    keys, values = k + kv * kk, v + kv * vk
    for number in range(tl.load(about + 3), tl.load(about + 4)):
        span = seen + 3 * number
        kstart, klength, kposition = tl.load(span), tl.load(span + 1), tl.load(span + 2)
        low, full_low, full_high, high = _bounds(klength, kposition, earliest, latest, window, CAUSAL, WINDOWED, BN)
        if WINDOWED:
            acc, top, total = _attend_range(
                acc, top, total, queries, keys, values, kstart, klength, kposition, low, full_low, i, has_row, kt, vt,
                features, has_feature, alibi, relative, head, scale, cap, window, reach,
                BN, CAPPED, ALIBI, RELATIVE, CAUSAL, WINDOWED, True,
            )  # fmt: skip
        acc, top, total = _attend_range(
            acc, top, total, queries, keys, values, kstart, klength, kposition, full_low, full_high, i, has_row, kt,
            vt, features, has_feature, alibi, relative, head, scale, cap, window, reach,
            BN, CAPPED, ALIBI, RELATIVE, CAUSAL, WINDOWED, False,
        )  # fmt: skip
        acc, top, total = _attend_range(
            acc, top, total, queries, keys, values, kstart, klength, kposition, full_high, high, i, has_row, kt, vt,
            features, has_feature, alibi, relative, head, scale, cap, window, reach,
            BN, CAPPED, ALIBI, RELATIVE, CAUSAL, WINDOWED, True,
        )  # fmt: skip
    total = tl.where(total == 0.0, 1.0, total)  # rows that are not there
    into = out + lines[:, None] * ot + kv * ok + group * og + features[None, :]
    tl.store(into, (acc / total[:, None]).to(out.dtype.element_ty), mask=is_there)
    tl.store(sums + head.to(tl.int64) * positions + lines, top + tl.log2(total), mask=has_row)


@triton.jit(do_not_specialize=["positions"])
def along(
    out, do, delta, query_tiles, documents, positions, ot, ok, og, dt, dk, dg,
    G: tl.constexpr, D: tl.constexpr, WIDE: tl.constexpr, BM: tl.constexpr,
):  # fmt: skip
    """delta = the sum over the features of out * dout, for each query."""
    tile, head = tl.program_id(0), tl.program_id(1)
    kv, group = head // G, head % G
    document, first = tl.load(query_tiles + 2 * tile), tl.load(query_tiles + 2 * tile + 1)
    start, length = tl.load(documents + 5 * document), tl.load(documents + 5 * document + 1)
    rows, features = first + tl.arange(0, BM), tl.arange(0, WIDE)
    lines, is_there = (start + rows).to(tl.int64), (rows < length)[:, None] & (features < D)[None, :]
    a = tl.load(out + lines[:, None] * ot + kv * ok + group * og + features[None, :], mask=is_there, other=0.0)
    b = tl.load(do + lines[:, None] * dt + kv * dk + group * dg + features[None, :], mask=is_there, other=0.0)
    found = tl.sum(a.to(tl.float32) * b.to(tl.float32), 1)
    tl.store(delta + head.to(tl.int64) * positions + lines, found, mask=rows < length)


@triton.jit
def _query_range(
    acc, q, do, of_sums, of_delta, k, v, start, length, position, low, high, i, has_row, k_step, v_step, features,
    has_feature, alibi, relative, head, scale, cap, window, reach,
    BN: tl.constexpr, CAPPED: tl.constexpr, ALIBI: tl.constexpr, RELATIVE: tl.constexpr, CAUSAL: tl.constexpr,
    WINDOWED: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """What keys [low, high) of a range give to the gradient of the queries."""
    for n in range(low, high, BN):
        rows = n + tl.arange(0, BN)
        has_key = rows < length
        lines = (start + rows).to(tl.int64)
        is_there = has_key[None, :] & has_feature[:, None]
        keys = tl.load(k + lines[None, :] * k_step + features[:, None], mask=is_there, other=0.0)
        values = tl.load(v + lines[None, :] * v_step + features[:, None], mask=is_there, other=0.0)
        s, bent = _scores(
            _dot(q, keys), i[:, None], (position + rows)[None, :], has_row[:, None] & has_key[None, :],
            alibi, relative, head, scale, cap, window, reach, CAPPED, ALIBI, RELATIVE, CAUSAL, WINDOWED, MASKED,
        )  # fmt: skip
        p = tl.exp2(s - of_sums[:, None])
        ds = p * (_dot(do, values) - of_delta[:, None])
        if CAPPED:
            ds *= 1.0 - bent * bent
        acc += _dot(ds.to(keys.dtype), tl.trans(keys))
    return acc


@triton.jit(do_not_specialize=["window", "reach", "positions"])
def of_queries(
    q, k, v, do, sums, delta, dq, query_tiles, documents, seen, alibi, relative, scale, cap, window, reach, positions,
    qt, qk, qg, kt, kk, vt, vk, ot, ok, og, dt, dk, dg,
    G: tl.constexpr, D: tl.constexpr, WIDE: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, CAPPED: tl.constexpr,
    ALIBI: tl.constexpr, RELATIVE: tl.constexpr, CAUSAL: tl.constexpr, WINDOWED: tl.constexpr,
):  # fmt: skip
    """The gradient of a tile of queries."""
    tile, head = tl.program_id(0), tl.program_id(1)
    kv, group = head // G, head % G
    document, first = tl.load(query_tiles + 2 * tile), tl.load(query_tiles + 2 * tile + 1)
    about = documents + 5 * document
    start, length, position = tl.load(about), tl.load(about + 1), tl.load(about + 2)
    rows = first + tl.arange(0, BM)
    has_row, i = rows < length, position + rows
    features = tl.arange(0, WIDE)
    has_feature = features < D
    lines, is_there = (start + rows).to(tl.int64), has_row[:, None] & has_feature[None, :]
    queries = tl.load(q + lines[:, None] * qt + kv * qk + group * qg + features[None, :], mask=is_there, other=0.0)
    given = tl.load(do + lines[:, None] * ot + kv * ok + group * og + features[None, :], mask=is_there, other=0.0)
    at = head.to(tl.int64) * positions + lines
    of_sums = tl.load(sums + at, mask=has_row, other=float("inf"))
    of_delta = tl.load(delta + at, mask=has_row, other=0.0)
    acc = tl.zeros((BM, WIDE), dtype=tl.float32)
    earliest, latest = position + first, position + tl.minimum(first + BM, length)
    keys, values = k + kv * kk, v + kv * vk
    for number in range(tl.load(about + 3), tl.load(about + 4)):
        span = seen + 3 * number
        kstart, klength, kposition = tl.load(span), tl.load(span + 1), tl.load(span + 2)
        low, full_low, full_high, high = _bounds(klength, kposition, earliest, latest, window, CAUSAL, WINDOWED, BN)
        if WINDOWED:
            acc = _query_range(
                acc, queries, given, of_sums, of_delta, keys, values, kstart, klength, kposition, low, full_low, i,
                has_row, kt, vt, features, has_feature, alibi, relative, head, scale, cap, window, reach,
                BN, CAPPED, ALIBI, RELATIVE, CAUSAL, WINDOWED, True,
            )  # fmt: skip
        acc = _query_range(
            acc, queries, given, of_sums, of_delta, keys, values, kstart, klength, kposition, full_low, full_high, i,
            has_row, kt, vt, features, has_feature, alibi, relative, head, scale, cap, window, reach,
            BN, CAPPED, ALIBI, RELATIVE, CAUSAL, WINDOWED, False,
        )  # fmt: skip
        acc = _query_range(
            acc, queries, given, of_sums, of_delta, keys, values, kstart, klength, kposition, full_high, high, i,
            has_row, kt, vt, features, has_feature, alibi, relative, head, scale, cap, window, reach,
            BN, CAPPED, ALIBI, RELATIVE, CAUSAL, WINDOWED, True,
        )  # fmt: skip
    into = dq + lines[:, None] * dt + kv * dk + group * dg + features[None, :]
    tl.store(into, (acc * scale).to(dq.dtype.element_ty), mask=is_there)


@triton.jit
def _key_range(
    of_keys, of_values, k, v, q, do, sums, delta, start, length, position, low, high, j, has_key, q_step, o_step,
    features, has_feature, alibi, relative, head, scale, cap, window, reach,
    BM: tl.constexpr, CAPPED: tl.constexpr, ALIBI: tl.constexpr, RELATIVE: tl.constexpr, CAUSAL: tl.constexpr,
    WINDOWED: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """What queries [low, high) of a document give to the gradients of keys and values."""
    for m in range(low, high, BM):
        rows = m + tl.arange(0, BM)
        has_row = rows < length
        lines = (start + rows).to(tl.int64)
        queries = tl.load(
            q + lines[None, :] * q_step + features[:, None], mask=has_row[None, :] & has_feature[:, None], other=0.0
        )
        given = tl.load(
            do + lines[:, None] * o_step + features[None, :], mask=has_row[:, None] & has_feature[None, :], other=0.0
        )
        of_sums = tl.load(sums + lines, mask=has_row, other=float("inf"))
        of_delta = tl.load(delta + lines, mask=has_row, other=0.0)
        s, bent = _scores(
            _dot(k, queries), (position + rows)[None, :], j[:, None], has_row[None, :] & has_key[:, None],
            alibi, relative, head, scale, cap, window, reach, CAPPED, ALIBI, RELATIVE, CAUSAL, WINDOWED, MASKED,
        )  # fmt: skip
        p = tl.exp2(s - of_sums[None, :])
        of_values += _dot(p.to(given.dtype), given)
        ds = p * (_dot(v, tl.trans(given)) - of_delta[None, :])
        if CAPPED:
            ds *= 1.0 - bent * bent
        of_keys += _dot(ds.to(queries.dtype), tl.trans(queries))
    return of_keys, of_values


@triton.jit
def _viewing(length, position, first, last, window, CAUSAL: tl.constexpr, WINDOWED: tl.constexpr, BM: tl.constexpr):
    """Of a document at `position`, for keys at positions [first, last): `_bounds` of its queries."""
    low, full_low, high, full_high = length * 0, length * 0, length, length
    if CAUSAL:
        low = tl.maximum(first - position, 0) // BM * BM
        full_low = (tl.maximum(last - 1 - position, 0) + BM - 1) // BM * BM
    if WINDOWED:
        high = tl.maximum(tl.minimum(length, last - 1 + window - position), 0)
        full_high = tl.minimum(full_high, tl.maximum(first + window - position, 0) // BM * BM)
    full_low = tl.minimum(tl.maximum(full_low, low), tl.maximum(high + BM - 1, 0) // BM * BM)
    full_high = tl.maximum(full_high, full_low)
    return low, full_low, full_high, high


@triton.jit
def _write_keys(of_keys, of_values, dk, dv, lines, is_there, kv, features, dkt, dkk, dvt, dvk, ADDS: tl.constexpr):
    """The sums of a tile of keys and values, to where they belong or, with ADDS, beside what is there."""
    into = dk + lines[:, None] * dkt + kv * dkk + features[None, :]
    if ADDS:
        of_keys += tl.load(into, mask=is_there, other=0.0).to(tl.float32)
    tl.store(into, of_keys.to(dk.dtype.element_ty), mask=is_there)
    into = dv + lines[:, None] * dvt + kv * dvk + features[None, :]
    if ADDS:
        of_values += tl.load(into, mask=is_there, other=0.0).to(tl.float32)
    tl.store(into, of_values.to(dv.dtype.element_ty), mask=is_there)


@triton.jit(do_not_specialize=["window", "reach", "positions"])
def of_keys(
    q, k, v, do, sums, delta, dk, dv, parts, key_tiles, spans, viewers, alibi, relative, scale, cap, window, reach,
    positions, qt, qk, qg, kt, kk, vt, vk, ot, ok, og, dkt, dkk, dvt, dvk,
    G: tl.constexpr, D: tl.constexpr, WIDE: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, CAPPED: tl.constexpr,
    ALIBI: tl.constexpr, RELATIVE: tl.constexpr, CAUSAL: tl.constexpr, WINDOWED: tl.constexpr, ADDS: tl.constexpr,
):  # fmt: skip
    """The gradients of a tile of keys and values, over some of the (viewer, group) that see them: written where these
    are all, else into a slot of parts [slots,K,2,BN,WIDE] for `join_keys`.
    """
    about, kv = key_tiles + 5 * tl.program_id(0), tl.program_id(1)
    number, first, slot = tl.load(about), tl.load(about + 1), tl.load(about + 4)
    span = spans + 3 * number
    start, length, position = tl.load(span), tl.load(span + 1), tl.load(span + 2)
    rows = first + tl.arange(0, BN)
    has_key, j = rows < length, position + rows
    features = tl.arange(0, WIDE)
    has_feature = features < D
    lines, is_there = (start + rows).to(tl.int64), has_key[:, None] & has_feature[None, :]
    keys = tl.load(k + lines[:, None] * kt + kv * kk + features[None, :], mask=is_there, other=0.0)
    values = tl.load(v + lines[:, None] * vt + kv * vk + features[None, :], mask=is_there, other=0.0)
    of_keys = tl.zeros((BN, WIDE), dtype=tl.float32)
    of_values = tl.zeros((BN, WIDE), dtype=tl.float32)
    earliest, latest = position + first, position + tl.minimum(first + BN, length)
    for pair in range(tl.load(about + 2), tl.load(about + 3)):
        viewer, group = viewers + 3 * (pair // G), pair % G
        qstart, qlength, qposition = tl.load(viewer), tl.load(viewer + 1), tl.load(viewer + 2)
        low, full_low, full_high, high = _viewing(qlength, qposition, earliest, latest, window, CAUSAL, WINDOWED, BM)
        head = kv * G + group
        queries, given = q + kv * qk + group * qg, do + kv * ok + group * og
        of_sums, of_delta = sums + head.to(tl.int64) * positions, delta + head.to(tl.int64) * positions
        if CAUSAL:
            of_keys, of_values = _key_range(
                of_keys, of_values, keys, values, queries, given, of_sums, of_delta, qstart, qlength, qposition,
                low, full_low, j, has_key, qt, ot, features, has_feature, alibi, relative, head, scale, cap,
                window, reach, BM, CAPPED, ALIBI, RELATIVE, CAUSAL, WINDOWED, True,
            )  # fmt: skip
        of_keys, of_values = _key_range(
            of_keys, of_values, keys, values, queries, given, of_sums, of_delta, qstart, qlength, qposition,
            full_low, full_high, j, has_key, qt, ot, features, has_feature, alibi, relative, head, scale, cap,
            window, reach, BM, CAPPED, ALIBI, RELATIVE, CAUSAL, WINDOWED, False,
        )  # fmt: skip
        if WINDOWED:
            of_keys, of_values = _key_range(
                of_keys, of_values, keys, values, queries, given, of_sums, of_delta, qstart, qlength, qposition,
                full_high, high, j, has_key, qt, ot, features, has_feature, alibi, relative, head, scale, cap,
                window, reach, BM, CAPPED, ALIBI, RELATIVE, CAUSAL, WINDOWED, True,
            )  # fmt: skip
    of_keys *= scale
    if slot < 0:
        _write_keys(of_keys, of_values, dk, dv, lines, is_there, kv, features, dkt, dkk, dvt, dvk, ADDS)
    else:
        at = tl.arange(0, BN)[:, None] * WIDE + features[None, :]
        into = parts + (slot * tl.num_programs(1) + kv).to(tl.int64) * (2 * BN * WIDE)
        tl.store(into + at, of_keys)
        tl.store(into + BN * WIDE + at, of_values)


@triton.jit
def join_keys(
    parts, dk, dv, joined, spans, dkt, dkk, dvt, dvk,
    D: tl.constexpr, WIDE: tl.constexpr, BN: tl.constexpr, ADDS: tl.constexpr,
):  # fmt: skip
    """The sum of a tile's slots, one after the other."""
    about, kv = joined + 4 * tl.program_id(0), tl.program_id(1)
    number, first = tl.load(about), tl.load(about + 1)
    start, length = tl.load(spans + 3 * number), tl.load(spans + 3 * number + 1)
    rows, features = first + tl.arange(0, BN), tl.arange(0, WIDE)
    lines, is_there = (start + rows).to(tl.int64), (rows < length)[:, None] & (features < D)[None, :]
    at = tl.arange(0, BN)[:, None] * WIDE + features[None, :]
    of_keys = tl.zeros((BN, WIDE), dtype=tl.float32)
    of_values = tl.zeros((BN, WIDE), dtype=tl.float32)
    for slot in range(tl.load(about + 2), tl.load(about + 3)):
        part = parts + (slot * tl.num_programs(1) + kv).to(tl.int64) * (2 * BN * WIDE)
        of_keys += tl.load(part + at)
        of_values += tl.load(part + BN * WIDE + at)
    _write_keys(of_keys, of_values, dk, dv, lines, is_there, kv, features, dkt, dkk, dvt, dvk, ADDS)

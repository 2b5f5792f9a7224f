"""Masks by character offsets: the fast path is the reference, and every trained character is in a trained token."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fledge.data.rows import RenderedRow
from fledge.data.tokenize import token_ranges, token_ranges_by_offsets, token_rows
from tests.unit.data.tiny import Tiny, backend_of, byte_fallback, byte_level, gpt_like, llama_like

SHARED = {
    "gpt2": "tokenizers/gpt2/tokenizer.json",
    "falcon": "tokenizers/falcon/tokenizer.json",
    "phi-2": "tokenizers/phi-2/tokenizer.json",
    "mistral": "tokenizers/mistral-v0.1/tokenizer.json",
    "stories260K": "weights/stories260K/hf/tokenizer.json",
}
pieces = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=12),
    st.text(" \n\t\r\u00a0\u2028", max_size=5),
    st.sampled_from(
        ["</s>", "<s>", "<|endoftext|>", "🙂🙂", "é", "e\u0301", "東京", "### Response:", "the quick", "\x00"]
    ),
)


@st.composite
def marked_texts(draw):
    """A text and some spans of it, in order, not touching."""
    parts = draw(st.lists(pieces, min_size=1, max_size=6))
    start, spans, place = draw(st.booleans()), [], 0
    for number, part in enumerate(parts):
        if part and (number % 2 == 0) == start:
            spans.append((place, place + len(part)))
        place += len(part)
    touching = any(before[1] == after[0] for before, after in pairwise(spans))
    return "".join(parts), tuple(spans[:1] if touching else spans)


def assert_paths_agree(backend, text, spans):
    encoding = backend.encode(text, add_special_tokens=False)
    fast = token_ranges(encoding, spans, text_length=len(text))
    slow = token_ranges_by_offsets(encoding.offsets, spans)
    assert fast == slow, (text, spans, list(zip(encoding.tokens, encoding.offsets, strict=True)))
    inside = {index for start, stop in slow for index in range(start, stop)}
    claimed = {place: index for index, (first, last) in enumerate(encoding.offsets) for place in range(first, last)}
    for start, stop in spans:
        for place in range(start, stop):
            assert place not in claimed or claimed[place] in inside
    held = {place for start, stop in spans for place in range(start, stop)}
    for index, (first, last) in enumerate(encoding.offsets):
        if first < last and index in inside and not held & set(range(first, last)):
            assert held & set(range(first)), "a token without a trained character is trained"


@pytest.mark.parametrize("kind", ["byte-level", "byte-level untrimmed", "byte-fallback"])
@given(marked=marked_texts())
def test_fast_path_equals_reference(kind, marked):
    backends = {
        "byte-level": byte_level(),
        "byte-level untrimmed": byte_level(trims=False),
        "byte-fallback": byte_fallback(),
    }
    assert_paths_agree(backends[kind], *marked)


@pytest.fixture(scope="session")
def real(shared: Path):
    return {name: backend_of(shared / "data" / path) for name, path in SHARED.items()}


def test_fast_path_equals_reference_on_real_tokenizers(real):
    assert len(real) == 5

    @settings(max_examples=150, deadline=None)
    @given(st.sampled_from(sorted(real)), marked_texts())
    def check(name, marked):
        assert_paths_agree(real[name], *marked)

    check()


def one(tokenizer, text, *spans, ends_turn=True, has_specials=False, answer=None):
    row = RenderedRow(
        text, spans, has_specials=has_specials, ends_turn=ends_turn, answer=answer or (spans or [(0, 0)])[-1]
    )
    [tokens] = token_rows([row], tokenizer.encode_batch([text]), tokenizer=tokenizer)
    return tokens


def trained_text(tokenizer, tokens):
    return [tokenizer.text(tokens.ids[start:stop]) for start, stop in tokens.ranges]


def test_bos_is_put_before_once_and_never_trained():
    tokenizer = llama_like()
    bos = tokenizer.bos_token_id
    for text in ("hello there", "<s>hello there"):
        tokens = one(tokenizer, text, (0, len(text)))
        assert tokens.ids.count(bos) == 1
        assert tokens.ids[0] == bos
        assert tokens.ranges == ((1, len(tokens.ids)),)


def test_a_text_with_its_special_tokens_gets_no_bos():
    tokenizer = llama_like()
    assert tokenizer.bos_token_id not in one(tokenizer, "hello", (0, 5), has_specials=True).ids


def test_eos_is_put_after_and_trained_and_never_doubled():
    for tokenizer in (llama_like(), gpt_like()):
        for text in ("hello", "hello</s>"):
            tokens = one(tokenizer, text, (2, len(text)))
            assert tokens.ids.count(tokenizer.eos_token_id) == 1
            assert tokens.ids[-1] == tokenizer.eos_token_id
            assert tokens.ranges[-1][1] == len(tokens.ids)
    assert one(gpt_like(), "hello", (0, 5), ends_turn=False).ids[-1] != gpt_like().eos_token_id


def test_pad_equal_to_eos_leaves_the_end_token_trained():
    tokenizer = gpt_like()
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    tokens = one(tokenizer, "Q: a A: b", (8, 9))
    assert tokens.ranges[-1][1] == len(tokens.ids)


def test_first_token_of_a_row_is_nobodys_target():
    tokens = one(gpt_like(), "hello there", (0, 11))
    assert tokens.ranges[0][0] == 1


def test_a_token_that_straddles_the_boundary_is_trained():
    tokenizer = gpt_like()
    text = "Hello: Below is an instruction that describes"
    [encoding] = tokenizer.encode_batch([text])
    long = [index for index, (start, stop) in enumerate(encoding.offsets) if index and stop - start >= 3]
    for index in long:
        boundary = encoding.offsets[index][1] - 1
        tokens = one(tokenizer, text, (boundary, len(text)))
        assert tokens.ranges[0][0] == index
    assert len(long) >= 2


def test_every_byte_of_a_character_is_trained():
    tokenizer = llama_like()
    tokens = one(tokenizer, "a 🙂", (2, 3), ends_turn=False)
    assert tokens.ranges[-1] == (len(tokens.ids) - 4, len(tokens.ids))


def test_trained_white_space_is_trained_where_offsets_are_trimmed():
    tokenizer = Tiny(byte_level(trims=True), puts_bos=False)
    text = "Q:a   \n  b"
    tokens = one(tokenizer, text, (3, len(text)), ends_turn=False)
    assert "".join(trained_text(tokenizer, tokens)) == text[3:]


def test_the_answer_leaves_the_end_of_turn_out():
    tokenizer = gpt_like()
    text = "Q: a <|im_end|>\n"
    tokens = one(tokenizer, text, (3, 15), has_specials=True, ends_turn=False, answer=(3, 4))
    assert tokenizer.text(tokens.ids[slice(*tokens.answer)]).strip() == "a"
    assert tokenizer.special_tokens["<|im_end|>"] in tokens.ids[slice(*tokens.ranges[-1])]


@given(marked_texts(), st.booleans(), st.booleans())
def test_ranges_are_in_order_apart_and_inside(marked, ends_turn, has_specials):
    text, spans = marked
    for tokenizer in (llama_like(), gpt_like()):
        tokens = one(tokenizer, text, *spans, ends_turn=ends_turn, has_specials=has_specials)
        edges = [edge for bounds in tokens.ranges for edge in bounds]
        assert edges == sorted(set(edges))
        assert all(1 <= edge <= len(tokens.ids) for edge in edges)
        assert 0 <= tokens.answer[0] <= tokens.answer[1] <= len(tokens.ids)

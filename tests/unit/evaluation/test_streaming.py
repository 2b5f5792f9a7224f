"""A stream tells every character as soon as it is settled, and the whole text in the end, whatever the decoder is."""

import importlib.util
from collections.abc import Iterator, Sequence

import pytest
from tokenizers import Regex, Tokenizer, decoders
from transformers import AutoTokenizer

from fledge.evaluation.streaming import TextStream
from fledge.models.locate import locate
from tests.unit.evaluation.streamed import HARD, TRAINED, Draw, Streamed, from_folder, trained, with_decoder

SEQUENCES, LOOKED_AT = 1000, 60
PUBLISHED = ("falcon", "gpt2", "mistral-v0.1", "phi-2", "t5")
DECODERS = {
    "none": None,
    "fuse": decoders.Fuse(),
    "metaspace": decoders.Metaspace(),
    "metaspace, first space kept": decoders.Metaspace(prepend_scheme="never"),
    "bytes, metaspace": decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()]),
    "bytes alone": decoders.ByteFallback(),
    "no strip": decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]),
    "its end stripped": decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 0, 3)]
    ),
    "late metaspace": decoders.Sequence([decoders.ByteFallback(), decoders.Fuse(), decoders.Metaspace()]),
    "late replace": decoders.Sequence([decoders.ByteFallback(), decoders.Fuse(), decoders.Replace("▁", " ")]),
    "pattern": decoders.Sequence([decoders.Replace(Regex("[aeiou]+"), "_"), decoders.WordPiece("▁", cleanup=True)]),
    "nested": decoders.Sequence([decoders.Sequence([decoders.Replace("▁", " ")]), decoders.Sequence([])]),
    "byte level": decoders.ByteLevel(),
    "word ends": decoders.Sequence([decoders.BPEDecoder("e"), decoders.Fuse(), decoders.Strip("a", 2, 0)]),
}
UNKNOWN = {
    "ctc": decoders.CTC(),
    "pattern on the whole": decoders.Sequence([decoders.Fuse(), decoders.Replace("th", "TH")]),
    "words of the whole": decoders.Sequence([decoders.ByteLevel(), decoders.WordPiece()]),
    "word ends, then tokens": decoders.Sequence([decoders.BPEDecoder("e"), decoders.Metaspace()]),
}


def pieces(backend: Tokenizer, ids: Sequence[int]) -> list[str]:
    """What is told after each id, and at the end."""
    stream = TextStream(Streamed(backend))
    return [*(stream.push(token) for token in ids), stream.end()]


def common(texts: Sequence[str]) -> str:
    shortest = min(texts, key=len)
    return next((shortest[:end] for end in range(len(shortest)) if len({text[end] for text in texts}) > 1), shortest)


def check_whole(backend: Tokenizer, *, is_live: bool = True, begin: Sequence[int] = ()) -> None:
    """The pieces of many random sequences, put together, are the whole decoding."""
    draw, vocabulary = Draw(backend, seed=1), Streamed(backend)
    assert TextStream(vocabulary).is_live is is_live
    sequences = [[*begin, *draw.ids()] for _ in range(SEQUENCES)]
    sequences += [backend.encode(text, add_special_tokens=False).ids for text in HARD]
    num_texts = 0
    for ids in sequences:
        assert "".join(pieces(backend, ids)) == vocabulary.decode(ids), ids
        num_texts += bool(vocabulary.decode(ids))
    assert num_texts > SEQUENCES / 2


def check_settled(backend: Tokenizer, *, begin: Sequence[int] = (), waiting: str = "") -> None:
    """After each id exactly those characters are told that all of many continuations leave as they are.

    Characters of `waiting` may be settled and not yet told.
    """
    draw, vocabulary = Draw(backend, seed=2), Streamed(backend)
    for _ in range(LOOKED_AT):
        ids = [*begin, *draw.ids()]
        told, stream = "", TextStream(vocabulary)
        for count, token in enumerate(ids, start=1):
            told += stream.push(token)
            texts = [vocabulary.decode([*ids[:count], *end]) for end in draw.continuations()]
            settled = common(texts)
            assert settled.startswith(told), (ids[:count], told, settled)
            if not set(settled[len(told) :]) <= set(waiting):  # what was drawn may be too little: every token decides
                settled = common([settled, *every_change(backend, ids[:count], settled)])
            assert set(settled[len(told) :]) <= set(waiting), (ids[:count], told, settled)


def every_change(backend: Tokenizer, ids: Sequence[int], text: str, *, depth: int = 3) -> Iterator[str]:
    """Texts of `ids` with up to three more tokens that do not begin with `text`, such as a character made whole."""
    vocabulary = Streamed(backend)
    for token in range(backend.get_vocab_size()):
        longer = vocabulary.decode([*ids, token])
        if not longer.startswith(text):
            yield longer
        elif longer == text and depth > 1:
            yield from every_change(backend, [*ids, token], text, depth=depth - 1)


@pytest.mark.parametrize("kind", TRAINED)
def test_of_a_trained_tokenizer_all_is_told_and_nothing_waits_that_is_settled(kind):
    check_whole(trained(kind))
    check_settled(trained(kind))


@pytest.mark.parametrize("name", PUBLISHED)
def test_of_a_published_tokenizer_all_is_told_and_nothing_waits_that_is_settled(name, shared):
    backend = from_folder(shared / "data/tokenizers" / name)
    check_whole(backend)
    check_settled(backend)


def test_of_a_tokenizer_from_a_sentencepiece_file_all_is_told_and_nothing_waits_that_is_settled(shared):
    if importlib.util.find_spec("sentencepiece") is None:
        pytest.skip("sentencepiece is not installed")
    backend = AutoTokenizer.from_pretrained(shared / "data/tokenizers/llama2").backend_tokenizer
    check_whole(backend)
    check_settled(backend)


def test_of_the_base_that_comes_with_fledge_all_is_told_and_nothing_waits_that_is_settled():
    backend = AutoTokenizer.from_pretrained(locate("builtin:nestling")).backend_tokenizer
    check_whole(backend)
    check_settled(backend)


@pytest.mark.parametrize("name", DECODERS)
def test_of_any_decoder_that_the_library_has_all_is_told_and_nothing_waits_that_is_settled(name):
    backend = with_decoder(DECODERS[name])
    begin = backend.encode("the").ids  # the library itself panics where there is no more to strip
    # U+FFFD that bytes spell is told with its run where what follows in the decoder looks at single tokens, and a space
    # that may be stripped waits for the run after it
    waiting = {"bytes, metaspace": "\ufffd", "its end stripped": " "}.get(name, "")
    check_whole(backend, begin=begin)
    check_settled(backend, begin=begin, waiting=waiting)


@pytest.mark.parametrize("name", UNKNOWN)
def test_where_a_decoder_cannot_be_told_piece_by_piece_the_whole_text_is_told_at_the_end(name):
    check_whole(with_decoder(UNKNOWN[name]), is_live=False)


class Shouting(Streamed):
    """A tokenizer whose own code has the last word."""

    def decode(self, ids: Sequence[int]) -> str:
        return super().decode(ids).upper()


def test_a_tokenizer_whose_own_code_decodes_otherwise_is_told_at_the_end():
    vocabulary = Shouting(trained("byte-fallback"))
    stream, ids = TextStream(vocabulary), vocabulary.backend.encode("the cat sat").ids
    assert not stream.is_live
    assert [stream.push(token) for token in ids] == [""] * len(ids)
    assert stream.end() == vocabulary.decode(ids) == "THE CAT SAT"


def test_a_byte_of_the_next_character_silences_nothing_that_follows():
    backend = trained("byte-fallback")
    ids = [backend.token_to_id(name) for name in ("▁the", "<0xE4>", "<0xBD>", "<0xA0>", "<0xE5>", "▁cat", "s")]
    assert None not in ids
    told = pieces(backend, ids)
    assert "".join(told) == "the" + "\ufffd" * 4 + " cats" == Streamed(backend).decode(ids)
    assert told == ["the", "", "", "", "", "\ufffd" * 4 + " cat", "s", ""]


def test_bytes_that_can_become_nothing_are_told_at_once_and_a_whole_run_when_it_ends():
    backend = trained("byte-fallback")
    run = [backend.token_to_id(f"<0x{byte:02X}>") for byte in "你".encode()]
    wrong, cat = backend.token_to_id("<0xFF>"), backend.token_to_id("▁cat")
    assert pieces(backend, [cat, *run, *run, cat]) == ["cat", "", "", "", "", "", "", "你你 cat", ""]
    assert pieces(backend, [cat, *run, wrong, *run]) == ["cat", "", "", "", "\ufffd" * 4, *["\ufffd"] * 3, ""]


def test_the_work_for_an_id_does_not_grow_with_the_answer():
    backend = trained("byte-fallback")
    ids = backend.encode(HARD[0], add_special_tokens=False).ids * 400
    stream, decoded = TextStream(Streamed(backend)), []
    stream._decode = decoded.append  # it would be asked for all ids so far
    told = "".join([*(stream.push(token) for token in ids), stream.end()])
    assert told == Streamed(backend).decode(ids) and not decoded
    held = [value for part in stream._parts for value in vars(part).values() if isinstance(value, str | list)]
    assert sum(map(len, held)) < 10

"""A person's control tokens stay text, and all other ids are those that the tokenizer gives."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from fledge.models.literal import LiteralEncoder
from tests.unit.data.tiny import CORPUS, SPECIALS, byte_fallback, byte_level


def unigram() -> Tokenizer:
    """SentencePiece's other kind, whose vocabulary holds the control tokens as pieces."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=list(SPECIALS), unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def word_piece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=list(SPECIALS), show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def eager() -> Tokenizer:
    """A BPE whose merges make a control token out of ordinary characters, as converted SentencePiece models can."""
    state = json.loads(byte_fallback().to_str())
    vocabulary = state["model"]["vocab"]
    for piece in ("<", "s", ">", "s>"):
        vocabulary.setdefault(piece, len(vocabulary))
    state["model"]["merges"] = [*state["model"]["merges"], ["s", ">"], ["<", "s>"]]
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] != "<s>"]
    return Tokenizer.from_str(json.dumps(state))


KINDS = {"byte-level": byte_level(), "byte fallback": byte_fallback(), "unigram": unigram(), "words": word_piece()}
pieces = st.lists(st.sampled_from([*SPECIALS, " ", "owl", "\n", "é🙂", "<", "|im_", ">", "\ufdd0"]), max_size=9)


@settings(deadline=None)
@given(kind=st.sampled_from(sorted(KINDS)), parts=pieces)
def test_without_literals_ids_and_offsets_are_the_tokenizers_own(kind, parts):
    backend, text = KINDS[kind], "".join(parts)
    found, plain = LiteralEncoder(backend, SPECIALS).encode(text, []), backend.encode(text, add_special_tokens=False)
    assert (found.ids, found.offsets) == (plain.ids, plain.offsets)


@settings(deadline=None)
@given(kind=st.sampled_from(sorted(KINDS)), before=pieces, after=pieces, token=st.sampled_from(SPECIALS[1:]))
def test_a_literal_becomes_no_control_token_and_all_others_do(kind, before, after, token):
    backend = KINDS[kind]
    head, tail = "".join(before), "".join(after)
    encoding = LiteralEncoder(backend, SPECIALS).encode(head + token + tail, [len(head)])
    control = {backend.token_to_id(name) for name in SPECIALS[1:]}
    inside = range(len(head), len(head) + len(token))
    for index, (start, stop) in zip(encoding.ids, encoding.offsets, strict=True):
        if set(range(start, stop)) & set(inside):
            assert index not in control
    own = [index for index in backend.encode(head, add_special_tokens=False).ids if index in control]
    assert [index for index in encoding.ids if index in control][: len(own)] == own


def test_merges_that_would_make_a_control_token_of_text_are_left_out():
    backend = eager()
    made = backend.token_to_id("<s>")
    assert made in backend.encode("<s>", add_special_tokens=False).ids
    assert made not in LiteralEncoder(backend, ["<s>"]).encode("<s>", [0]).ids


def test_a_text_that_holds_a_mark_forges_no_control_token():
    encoder = LiteralEncoder(byte_level(), SPECIALS)
    forged = "\ufdd0|im_end|>"
    control = {byte_level().token_to_id(name) for name in SPECIALS}
    assert not control & set(encoder.encode(forged + "</s>", [len(forged)]).ids)
    every = "".join(chr(code) for code in range(0xFDD0, 0xFDF0))
    for text in (every + "</s>", every + "\U000f0000</s>", "</s>"):
        assert not control & set(encoder.encode(text, [len(text) - 4]).ids)
        assert byte_level().token_to_id("<s>") in encoder.encode("<s>" + text, [len(text) - 1]).ids

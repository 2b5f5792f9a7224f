"""The id of what a tokenizer cannot write is known, and is not the end token that some name so."""

import pytest
from transformers import AutoTokenizer

from fledge.models.locate import locate
from fledge.models.tokenizer import Tokenizer


@pytest.mark.parametrize(("name", "expected"), [("t5", 2), ("mistral-v0.1", 0), ("gpt2", None), ("phi-2", None)])
def test_what_a_published_tokenizer_writes_for_what_it_cannot(name, expected, shared):
    tokenizer = Tokenizer(AutoTokenizer.from_pretrained(shared / "data/tokenizers" / name))
    assert tokenizer.unk_token_id == expected
    ids = tokenizer.encode_batch(["a {b} \u2603"])[0].ids
    assert (expected in ids) == (name == "t5"), "the others spell every character in bytes"


def test_special_tokens_are_left_out_of_a_text_or_kept_in_it():
    tokenizer = Tokenizer(AutoTokenizer.from_pretrained(locate("builtin:nestling")))
    ids = [*tokenizer.encode_batch(["a bird"])[0].ids, tokenizer.eos_token_id]
    assert tokenizer.decode(ids) == "a bird"
    assert tokenizer.decode_whole(ids) == f"a bird{tokenizer.eos_token}"

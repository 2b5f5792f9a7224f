"""The recipe's tokens: special ones leave decoded text, ordinary ones stay in it, and both have ids of their own."""

import pytest

from fledge.config.data import DataConfig
from fledge.config.load import load_recipe
from fledge.config.model import ModelConfig
from fledge.errors import ModelError, RecipeError
from fledge.models.load_tokenizer import load_tokenizer
from fledge.models.tokenizer import Tokenizer
from tests.pieces import pieces_folder
from tests.runs import recipe_dict, write_recipe, write_rows
from tests.tiny_models import tiny_folder


def loaded(base, **data) -> Tokenizer:
    given = {"train": {"path": "/rows.jsonl", "format": "text"}} | data
    return load_tokenizer(ModelConfig(name_or_path=str(base)), DataConfig.model_validate(given))


@pytest.mark.parametrize("made", [tiny_folder, pieces_folder])
def test_ordinary_tokens_stay_in_decoded_text_and_special_ones_do_not(made, tmp_path):
    tokenizer = loaded(made("llama", tmp_path), new_special_tokens=("<a>",), new_tokens=("<b>", "SKU-7", "日本"))
    size = tokenizer.size
    assert tokenizer.new_tokens == tuple(range(size - 4, size))
    (encoded,) = tokenizer.encode_batch(["ka<a>ka<b>ka SKU-7,日本."])
    assert {*tokenizer.new_tokens} <= {*encoded.ids}
    written = tokenizer.decode(encoded.ids)
    assert "<a>" not in written
    assert all(token in written for token in ("<b>", "SKU-7", "日本"))
    assert tokenizer.notes == ()


def test_a_piece_of_the_vocabulary_keeps_its_id_and_is_said(tmp_path):
    base = pieces_folder("llama", tmp_path)
    plain = loaded(base)
    tokenizer = loaded(base, new_tokens=("ka",), new_special_tokens=("lo",))
    vocabulary = plain.hf.get_vocab()
    assert tokenizer.new_tokens == ()
    assert tokenizer.size == plain.size
    assert tokenizer.special_tokens["ka"] == vocabulary["ka"]
    assert tokenizer.decode(tokenizer.encode_batch(["xkalox"])[0].ids).replace(" ", "") == "xkax"
    assert any("'lo', 'ka': the vocabulary has it already" in note for note in tokenizer.notes)


def test_an_ordinary_token_that_is_there_is_said_and_a_special_one_is_refused(tmp_path):
    base = tiny_folder("llama", tmp_path)
    with pytest.raises(ModelError, match="'</s>' is a special token of this base, which leaves decoded text"):
        loaded(base, new_tokens=("</s>",))
    assert loaded(base, chat_template="chatml", new_special_tokens=("<|im_end|>",)).notes == ()


def test_a_token_that_would_be_written_as_another_text_is_refused(tmp_path):
    """A byte-level tokenizer takes the letter é of an added token for a byte."""
    base = tiny_folder("llama", tmp_path)
    with pytest.raises(ModelError, match=r"this tokenizer writes 'café' as (.|\n)*choose another text for 'café'"):
        loaded(base, new_tokens=("café",))


def test_a_token_that_is_never_read_is_refused(tmp_path):
    with pytest.raises(ModelError, match="this tokenizer never reads"):
        loaded(tiny_folder("llama", tmp_path), new_tokens=("a<", "<b"), new_special_tokens=("<",))


def test_a_token_in_both_lists_or_twice_in_one_is_refused(tmp_path):
    recipe = write_recipe(
        tmp_path / "r.yaml", recipe_dict("builtin:nestling", write_rows(tmp_path / "rows.jsonl"), tmp_path)
    )
    with pytest.raises(RecipeError, match=r"data\.new_tokens: '<a>' is in data\.new_special_tokens too"):
        load_recipe(recipe, ["data.new_tokens=[<a>]", "data.new_special_tokens=[<a>]"])
    with pytest.raises(RecipeError, match=r"data\.new_tokens: a token is given twice"):
        load_recipe(recipe, ["data.new_tokens=[<a>,<a>]"])

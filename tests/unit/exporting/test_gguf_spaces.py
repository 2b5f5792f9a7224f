"""Where llama.cpp puts SentencePiece's spaces is decided by the rows that were trained, and what is apart is told."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer as Backend

from fledge.config.data import DataConfig
from fledge.config.model import ModelConfig
from fledge.errors import ModelError
from fledge.exporting.gguf.spaces import choose_spaces
from fledge.exporting.gguf.splitting import remarks_on
from fledge.models.load_tokenizer import load_tokenizer
from fledge.models.tokenizer import Tokenizer
from tests.pieces import pieces_folder
from tests.tiny_models import tiny_folder

CHAT = ("<s>[INST] ka lo [/INST] mi</s>", "<s>ka</s>lo tas</s>", "<s>\nvudo")
BARE = ("ka lo mi", "[INST] tas [/INST]", "vudo\n")


def loaded(base: Path) -> Tokenizer:
    data = DataConfig.model_validate({"train": {"path": "/rows.jsonl", "format": "text"}})
    return load_tokenizer(ModelConfig(name_or_path=str(base)), data)


def samples(tokenizer: Tokenizer, texts: tuple[str, ...]) -> list[tuple[str, list[int]]]:
    return [(text, one.ids) for text, one in zip(texts, tokenizer.encode_batch(texts), strict=True)]


def as_llama_cpp(tokenizer: Tokenizer, text: str, *, puts_first: bool) -> list[int]:
    """By hand: each piece between special tokens gets a space, or none does; then its spaces are SentencePiece's."""
    rules = json.loads(tokenizer.rules)
    bare = Backend.from_str(json.dumps(rules | {"pre_tokenizer": None, "normalizer": None}))
    ids, left = [], text
    while left:
        found = [(left.find(token), token) for token in tokenizer.special_tokens if token in left]
        at, token = min(found, default=(len(left), ""))
        if at:
            piece = ("\u2581" if puts_first else "") + left[:at].replace(" ", "\u2581")
            ids += bare.encode(piece, add_special_tokens=False).ids
        ids += [tokenizer.special_tokens[token]] if token else []
        left = left[at + len(token) :]
    return ids


@pytest.mark.parametrize(
    ("legacy", "texts", "puts_first"),
    [(True, CHAT, True), (True, BARE, True), (False, BARE, True), (False, CHAT, False)],
)
def test_the_file_puts_spaces_so_that_each_row_has_its_ids(legacy, texts, puts_first, tmp_path):
    tokenizer = loaded(pieces_folder("llama", tmp_path, legacy=legacy))
    chosen = choose_spaces(tokenizer, samples(tokenizer, texts))
    assert (chosen.puts_first, chosen.remarks()) == (puts_first, ())
    (said,) = remarks_on(json.loads(tokenizer.rules), puts_first=chosen.puts_first)
    assert said.startswith("llama.cpp puts a space before each text" if puts_first else "llama.cpp puts no space")
    for text, ids in samples(tokenizer, texts):
        assert as_llama_cpp(tokenizer, text, puts_first=puts_first) == ids


def test_rows_that_llama_cpp_reads_otherwise_are_counted_and_most_of_them_refused(tmp_path):
    tokenizer = loaded(pieces_folder("llama", tmp_path, legacy=True))
    some = samples(tokenizer, (*CHAT, *BARE, " a space that none is put before"))
    remark = "llama.cpp puts spaces otherwise in 1 of 7 texts of the training rows, the first begins ' a space that"
    assert choose_spaces(tokenizer, some).remarks()[0].startswith(remark)
    mixed = ("<s> ka</s>lo", " tas<s>mi", "<s>ka </s> lo")
    with pytest.raises(ModelError, match="puts spaces otherwise in 3 of 3 texts"):
        choose_spaces(tokenizer, samples(tokenizer, mixed))


def test_without_rows_or_for_other_tokenizers_the_rules_decide(tmp_path):
    assert choose_spaces(loaded(pieces_folder("llama", tmp_path / "a")), ()).puts_first is None
    tokenizer = loaded(tiny_folder("llama", tmp_path / "b"))
    assert choose_spaces(tokenizer, samples(tokenizer, BARE)).puts_first is None

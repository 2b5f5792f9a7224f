"""A folder with a tokenizer.model alone is loaded, and reads text as sentencepiece itself does."""

import io
import random
import shutil
from pathlib import Path

import pytest
import sentencepiece

from fledge.config.data import DataConfig
from fledge.config.model import ModelConfig
from fledge.models.load_tokenizer import load_tokenizer
from fledge.models.saved_words import prove_saved
from fledge.models.tokenizer import Tokenizer
from tests.pieces import HARD, pieces, pieces_alone
from tests.tiny_models import tiny_folder

LETTERS = ("a", "ka", " ", "  ", "\n", "é", "日", "🙂", "1", ".", "'", "\t", "▁", "the", "\u00a0", "ß", "\u0301")


def texts() -> list[str]:
    """Hard ones and random ones, without what is a special token: sentencepiece reads those as letters."""
    dice = random.Random(5)
    made = ["".join(dice.choices(LETTERS, k=dice.randint(1, 20))) for _ in range(200)]
    return [text for text in (*HARD, *made) if "<s>" not in text and "</s>" not in text]


def loaded(base: Path) -> Tokenizer:
    data = DataConfig.model_validate({"train": {"path": "/rows.jsonl", "format": "text"}})
    return load_tokenizer(ModelConfig(name_or_path=str(base)), data)


def differing(tokenizer: Tokenizer, model: bytes) -> list[str]:
    own = sentencepiece.SentencePieceProcessor(model_proto=io.BytesIO(model).getvalue())
    found = tokenizer.encode_batch(texts())
    return [text for text, one in zip(texts(), found, strict=True) if own.encode(text) != one.ids]


@pytest.mark.parametrize("architecture", ["llama", "mistral"])
def test_a_tokenizer_model_alone_gives_sentencepieces_own_ids(architecture, tmp_path):
    tokenizer = loaded(pieces_alone(architecture, tmp_path))
    assert differing(tokenizer, pieces()) == []
    prove_saved(
        tokenizer, [(text, one.ids) for text, one in zip(HARD, tokenizer.encode_batch(HARD), strict=True)], base="x"
    )


def test_llama_2s_gives_sentencepieces_own_ids(shared, tmp_path):
    base = tiny_folder("llama", tmp_path / "base")
    for path in base.glob("tokenizer*"):
        path.unlink()
    shutil.copyfile(shared / "data/tokenizers/llama2/tokenizer.model", base / "tokenizer.model")
    assert differing(loaded(base), (base / "tokenizer.model").read_bytes()) == []

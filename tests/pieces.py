"""Tiny bases with a SentencePiece tokenizer that is trained here, as Llama's and Mistral's are."""

import functools
import io
import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sentencepiece
from transformers import LlamaTokenizer

from tests.tiny_models import VOCABULARY, tiny_folder

HARD = (
    *("Hello you", " a space before", "two  spaces   three", "tabs\tand\nlines\n\n", "x", " ", "", "1234.50, 7%"),
    *("<s>[INST] hi [/INST] ok</s>so", "</s> after", "a</s>b<s> c", "naïve café", "你好 world", "🙂🙂", "e\u0301"),
    *("\u200bzero", "\u00a0nbsp", "مرحبا بكم", "def f(x):\n    return x", "▁under", "tail  "),
)
"""Texts with what tokenizers disagree about: spaces everywhere, special tokens inside, bytes to fall back to."""


@functools.cache
def pieces() -> bytes:
    """A tokenizer.model of 320 pieces, BPE with bytes to fall back to."""
    dice = random.Random(3)
    syllables = "ka lo mi ren tas vu do esh pir on ing the he".split()
    lines = [" ".join("".join(dice.choices(syllables, k=dice.randint(1, 3))) for _ in range(9)) for _ in range(200)]
    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=made,
        vocab_size=VOCABULARY,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    return made.getvalue()


def pieces_alone(architecture: str, folder: Path) -> Path:
    """A base whose only file of a tokenizer is tokenizer.model."""
    tiny_folder(architecture, folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).unlink(missing_ok=True)
    (folder / "tokenizer.model").write_bytes(pieces())
    return folder


def pieces_folder(architecture: str, folder: Path, **config: Any) -> Path:
    """A base with the same pieces as tokenizer.json, to be loaded as a LlamaTokenizer; `config` is put into its
    tokenizer_config.json, `legacy=True` for one.
    """
    pieces_alone(architecture, folder)
    rules = LlamaTokenizer.from_pretrained(folder).backend_tokenizer.to_str()
    (folder / "tokenizer.json").write_text(rules, encoding="utf-8")
    (folder / "tokenizer.model").unlink()
    marks = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "add_bos_token": True}
    write_config(folder, {"tokenizer_class": "LlamaTokenizer", "model_max_length": 777, **marks, **config})
    return folder


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write tokenizer_config.json."""
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")


OWN_CODE = """from tokenizers import normalizers
from transformers import PreTrainedTokenizerFast


class OwnTokenizer(PreTrainedTokenizerFast):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace("x", "ka")])
"""


def with_own_code(folder: Path, code: str = OWN_CODE) -> Path:
    """Give a base a tokenizer class that lies beside its weights."""
    (folder / "tokenization_own.py").write_text(code, encoding="utf-8")
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    auto_map = {"AutoTokenizer": [None, "tokenization_own.OwnTokenizer"]}
    write_config(folder, config | {"tokenizer_class": "OwnTokenizer", "auto_map": auto_map})
    return folder

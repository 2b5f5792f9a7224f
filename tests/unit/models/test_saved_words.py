"""A saved tokenizer reads text as the one that trained: what the library's own save loses is kept, and proven."""

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from fledge.config.data import DataConfig
from fledge.config.model import ModelConfig
from fledge.errors import ModelError
from fledge.models import saved_words
from fledge.models.load_tokenizer import load_tokenizer, saved_tokenizer
from fledge.models.saved_words import difference, marked, prove_saved, save_tokenizer
from fledge.models.tokenizer import Tokenizer
from tests.pieces import HARD, pieces_folder, with_own_code
from tests.tiny_models import ARCHITECTURES, PAIRS, tiny_folder

TURNS = [{"role": "user", "content": "x"}]


def loaded(base: Path, *, trusted: bool = False, **data: object) -> Tokenizer:
    given = {"train": {"path": "/rows.jsonl", "format": "chat"}} | data
    return load_tokenizer(
        ModelConfig(name_or_path=str(base), trust_remote_code=trusted), DataConfig.model_validate(given)
    )


def samples_of(tokenizer: Tokenizer) -> list[tuple[str, list[int]]]:
    return [(text, one.ids) for text, one in zip(HARD, tokenizer.encode_batch(HARD), strict=True)]


def check_saved(tokenizer: Tokenizer, folder: Path, *, base: Path, beside: str) -> None:
    """In a folder alone and beside a config.json, which has a say in the class that the library takes."""
    folder.mkdir()
    if beside:
        shutil.copy(base / beside, folder)
    save_tokenizer(tokenizer, folder)
    plain = AutoTokenizer.from_pretrained(folder, trust_remote_code=tokenizer.has_own_code)
    again = saved_tokenizer(folder, trust_remote_code=tokenizer.has_own_code)
    assert again.digest == tokenizer.digest
    assert difference(tokenizer, again, samples=samples_of(tokenizer)) is None
    for text, ids in samples_of(tokenizer):
        assert plain(text, add_special_tokens=False)["input_ids"] == ids
    assert plain.special_tokens_map == tokenizer.hf.special_tokens_map
    assert plain.model_max_length == tokenizer.hf.model_max_length
    assert plain.model_input_names == tokenizer.hf.model_input_names
    assert (plain.padding_side, plain.chat_template) == (tokenizer.hf.padding_side, tokenizer.hf.chat_template)


@pytest.mark.parametrize("beside", ["", "config.json"])
@pytest.mark.parametrize("added", [{}, {"new_special_tokens": (" ",)}, {"new_tokens": ("<b>", " ")}])
@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("architecture", ["llama", "mistral"])
def test_a_legacy_tokenizer_is_read_back_with_the_same_ids(architecture, legacy, added, beside, tmp_path):
    base = pieces_folder(architecture, tmp_path / "base", legacy=legacy)
    tokenizer = loaded(base, chat_template="chatml", **added)
    check_saved(tokenizer, tmp_path / "saved", base=base, beside=beside)


def test_the_librarys_own_save_would_lose_it(tmp_path, monkeypatch):
    """Otherwise the tests above would prove nothing; and what is lost is told with the text and its ids."""
    tokenizer = loaded(pieces_folder("llama", tmp_path / "base", legacy=True))
    monkeypatch.setattr(saved_words, "save_tokenizer", lambda tokenizer, folder: tokenizer.hf.save_pretrained(folder))
    with pytest.raises(ModelError, match=r"saved and loaded again: .*has from id \d+ on \[.*in the training.*now"):
        prove_saved(tokenizer, samples_of(tokenizer), base="somebody/base")


@pytest.mark.parametrize("beside", ["", "config.json"])
@pytest.mark.parametrize("architecture", [*ARCHITECTURES, *PAIRS])
def test_every_architecture_keeps_its_tokenizer(architecture, beside, tmp_path):
    base = tiny_folder(architecture, tmp_path / "base")
    tokenizer = loaded(base, chat_template="chatml", new_special_tokens=(" ", "<x>"), new_tokens=("<y>",))
    check_saved(tokenizer, tmp_path / "saved", base=base, beside=beside)


@pytest.mark.parametrize("beside", ["", "config.json"])
def test_a_tokenizer_with_code_of_its_own_keeps_its_class_and_its_ids(beside, tmp_path):
    base = with_own_code(pieces_folder("llama", tmp_path / "base"))
    tokenizer = loaded(base, trusted=True, chat_template="chatml")
    assert tokenizer.has_own_code
    assert tokenizer.encode_batch(["A X"])[0].ids == tokenizer.encode_batch(["a ka"])[0].ids, "its code changes ids"
    check_saved(tokenizer, tmp_path / "saved", base=base, beside=beside)
    assert (tmp_path / "saved/tokenization_own.py").is_file()
    with pytest.raises(ValueError, match="trust_remote_code"):
        saved_tokenizer(tmp_path / "saved")


def test_code_that_changes_its_own_files_again_is_left_out_and_the_rules_kept(tmp_path):
    again = """from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast


class OwnTokenizer(PreTrainedTokenizerFast):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.add_tokens([AddedToken("<%d>" % len(self), normalized=False)])
"""
    base = with_own_code(pieces_folder("llama", tmp_path / "base"), again)
    tokenizer = loaded(base, trusted=True)
    save_tokenizer(tokenizer, tmp_path / "saved")
    assert saved_tokenizer(tmp_path / "saved").digest == tokenizer.digest
    prove_saved(tokenizer, samples_of(tokenizer), base="base")


def test_code_that_gives_other_ids_than_its_rules_is_refused_with_the_text(tmp_path):
    code = """from transformers import PreTrainedTokenizerFast


class OwnTokenizer(PreTrainedTokenizerFast):
    def _encode_plus(self, text, *args, **kwargs):
        text = text.upper() if isinstance(text, str) else [one.upper() for one in text]
        return super()._encode_plus(text, *args, **kwargs)
"""
    tokenizer = loaded(with_own_code(pieces_folder("llama", tmp_path / "base"), code), trusted=True)
    with pytest.raises(ModelError, match=r"own code gives other ids than its tokenizer\.json.*'Hello you'"):
        prove_saved(tokenizer, samples_of(tokenizer), base="base")


def test_without_consent_code_is_named_and_the_cure_is_a_key(tmp_path):
    base = with_own_code(pieces_folder("llama", tmp_path / "base"))
    with pytest.raises(ModelError, match=r"needs code of its own(.|\n)*set model\.trust_remote_code: true") as caught:
        loaded(base)
    assert "trust_remote_code=True" not in str(caught.value)


def test_a_tokenizer_in_python_alone_is_refused_before_anything_is_trained(tmp_path):
    code = """from transformers import PreTrainedTokenizer


class OwnTokenizer(PreTrainedTokenizer):
    def __init__(self, **kwargs):
        self.words = ["<unk>", "a", "b"]
        super().__init__(**kwargs)

    vocab_size = property(lambda self: 3)

    def get_vocab(self):
        return {word: index for index, word in enumerate(self.words)}

    def _tokenize(self, text, **kwargs):
        return list(text)

    def _convert_token_to_id(self, token):
        return 1

    def _convert_id_to_token(self, index):
        return self.words[index]
"""
    base = with_own_code(pieces_folder("llama", tmp_path / "base"), code)
    with pytest.raises(ModelError, match=r"Python alone and gives no character offsets(.|\n)*tokenizer\.json"):
        loaded(base, trusted=True)


def test_a_tokenizer_that_cannot_be_saved_is_refused_before_anything_is_trained(tmp_path):
    code = """from tokenizers import pre_tokenizers
from transformers import PreTrainedTokenizerFast


class Cut:
    def pre_tokenize(self, pretok):
        pass


class OwnTokenizer(PreTrainedTokenizerFast):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._tokenizer.pre_tokenizer = pre_tokenizers.PreTokenizer.custom(Cut())
"""
    base = with_own_code(pieces_folder("llama", tmp_path / "base"), code)
    with pytest.raises(ModelError, match="parts written in Python, which cannot be saved"):
        loaded(base, trusted=True)


def test_what_differs_is_said(tmp_path):
    base = pieces_folder("llama", tmp_path / "base")
    tokenizer, other = loaded(base), loaded(base, new_tokens=("<b>",))
    assert difference(tokenizer, loaded(base), samples=samples_of(tokenizer)) is None
    assert difference(tokenizer, other, samples=()) == "its special tokens differ, the first is '<b>'"
    other = loaded(base)
    other.hf.chat_template = "{{ messages }}"
    assert "chat template" in str(difference(tokenizer, other, samples=()))
    assert len(marked(tokenizer)) == len(tokenizer.special_tokens)


def test_the_digest_does_not_depend_on_padding_or_truncation(tmp_path):
    base = pieces_folder("llama", tmp_path / "base")
    plain = loaded(base)
    rules = json.loads((base / "tokenizer.json").read_text())
    rules["padding"] = {
        "strategy": "BatchLongest",
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "<unk>",
    }
    (base / "tokenizer.json").write_text(json.dumps(rules))
    padded = Tokenizer(PreTrainedTokenizerFast.from_pretrained(base))
    assert Tokenizer(PreTrainedTokenizerFast.from_pretrained(base)).digest == padded.digest
    assert plain.digest.startswith("rules:")


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("name", ["mistral-v0.1", "llama2"])
def test_published_tokenizers_are_read_back_with_the_same_ids(name, legacy, shared, tmp_path):
    base = tiny_folder("llama", tmp_path / "base")
    for path in base.glob("tokenizer*"):
        path.unlink()
    for path in (shared / "data/tokenizers" / name).glob("*token*"):
        shutil.copyfile(path, base / path.name)
    config = {"tokenizer_class": "LlamaTokenizer", "legacy": legacy, "bos_token": "<s>", "eos_token": "</s>"}
    (base / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = loaded(base, chat_template="chatml", new_special_tokens=(" ",) if legacy else ())
    check_saved(tokenizer, tmp_path / "saved", base=base, beside="config.json")

"""A tokenizer goes into a GGUF file as llama.cpp reads it, or is refused in words."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, PreTrainedTokenizerFast

from fledge.errors import ModelError
from fledge.exporting.gguf.pieces import BYTES, scores_of
from fledge.exporting.gguf.splitting import name_of_splitting, puts_space_first
from fledge.exporting.gguf.vocabulary import left_out, read_vocabulary, rules_of
from fledge.exporting.gguf.write import write_gguf
from fledge.models.load_tokenizer import saved_tokenizer
from fledge.models.locate import locate
from fledge.models.new_words import add_words
from fledge.models.tokenizer import Tokenizer
from tests.tiny_models import VOCABULARY, tiny_folder

Kind = gguf.TokenType
Rules = dict[str, Any]


@pytest.fixture
def hf(tmp_path: Path) -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(tiny_folder("llama", tmp_path / "tiny"))


def changed(hf: PreTrainedTokenizerFast, **changes: Any) -> Tokenizer:
    rules = json.loads(hf.backend_tokenizer.to_str())
    backend = Backend.from_str(json.dumps(rules | changes))
    return Tokenizer(PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>"))


def pieces(*merges: tuple[str, str], words: tuple[str, ...] = ()) -> Tokenizer:
    """A tokenizer of SentencePiece's kind with these merges, and words that no merge makes."""
    made = [left + right for left, right in merges]
    letters = sorted({letter for word in [*made, *words] for letter in word})
    texts = dict.fromkeys(["<unk>", "<s>", "</s>", *BYTES, *letters, *made, *words])
    ids = {text: index for index, text in enumerate(texts)}
    backend = Backend(models.BPE(ids, list(merges), unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    marks = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return Tokenizer(PreTrainedTokenizerFast(tokenizer_object=backend, **marks))


def fields_of(tokenizer: Tokenizer, folder: Path, *, rows: int | None = None) -> dict[str, Any]:
    """What the file says of the tokenizer, by its names without `tokenizer.`."""
    rows = tokenizer.size if rows is None else rows
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=rows, **sizes))
    write_gguf(model, tokenizer, path=folder / "words.gguf", file_type="f16", about={})
    fields = gguf.GGUFReader(folder / "words.gguf").fields
    return {name.removeprefix("tokenizer."): fields[name].contents() for name in fields if name.startswith("tokenizer")}


@pytest.mark.parametrize(
    ("folder", "model", "splitting"),
    [
        ("falcon", "gpt2", "falcon"),
        ("gpt2", "gpt2", "gpt-2"),
        ("phi-2", "gpt2", "gpt-2"),
        ("mistral-v0.1", "llama", "default"),
        ("t5", "t5", "default"),
    ],
)
def test_the_tokenizers_of_the_recipes_are_known(shared: Path, folder: str, model: str, splitting: str) -> None:
    hf = AutoTokenizer.from_pretrained(shared / "data/tokenizers" / folder, trust_remote_code=False)
    tokenizer = Tokenizer(hf)
    vocabulary = read_vocabulary(tokenizer, rows=tokenizer.size + 100)
    assert (vocabulary.model, vocabulary.splitting) == (model, splitting)
    assert len(vocabulary.tokens) == len(vocabulary.kinds) == tokenizer.size + 100
    assert vocabulary.kinds[-100:] == (Kind.UNUSED,) * 100
    assert all(hf.convert_tokens_to_ids(vocabulary.tokens[index]) == index for index in range(0, tokenizer.size, 7))
    assert vocabulary.kinds[hf.eos_token_id] == Kind.CONTROL
    assert bool(vocabulary.charsmap) == (model == "t5")


def test_the_builtin_models_tokenizer_is_known() -> None:
    tokenizer = saved_tokenizer(Path(locate("builtin:nestling")))
    assert read_vocabulary(tokenizer, rows=tokenizer.size).splitting == "starcoder"


@pytest.mark.parametrize(
    "step",
    [
        {"type": "Whitespace"},
        {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
        {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": r"\w+|\W+"}, "behavior": "Isolated", "invert": False},
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
            ],
        },
        None,
    ],
)
def test_a_splitting_that_llama_cpp_has_not_is_refused_and_not_guessed(
    hf: PreTrainedTokenizerFast, step: Rules | None
) -> None:
    with pytest.raises(
        ModelError, match=r"a pre-tokenizer that llama.cpp does not know.*\n.*known are bloom, dbrx, falcon"
    ):
        read_vocabulary(changed(hf, pre_tokenizer=step), rows=VOCABULARY)


def test_a_tokenizer_that_lowers_letters_is_refused(hf: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ModelError, match="a normaliser that llama"):
        read_vocabulary(changed(hf, normalizer={"type": "Lowercase"}), rows=VOCABULARY)


def test_whole_words_before_merges_are_refused_where_llama_cpp_merges(hf: PreTrainedTokenizerFast) -> None:
    rules = rules_of(Tokenizer(hf))
    assert name_of_splitting(rules) == "gpt-2"
    rules["model"]["ignore_merges"] = True
    with pytest.raises(ModelError, match="does not know"):
        name_of_splitting(rules)


def test_a_wordpiece_tokenizer_is_refused() -> None:
    backend = Backend(models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    with pytest.raises(ModelError, match="no tokenizer like this one: WordPiece"):
        read_vocabulary(Tokenizer(PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="a")), rows=2)


def test_the_embedding_must_have_a_row_for_each_token(hf: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ModelError, match="320 tokens, but 319 rows"):
        read_vocabulary(Tokenizer(hf), rows=VOCABULARY - 1)


def test_added_tokens_without_a_row_are_left_out(hf: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    hf.add_special_tokens({"pad_token": "<pad>", "extra_special_tokens": ["<other>"]})
    told = fields_of(Tokenizer(hf), tmp_path, rows=VOCABULARY + 1)
    assert told["ggml.tokens"][VOCABULARY:] == ["<pad>"]
    assert told["ggml.padding_token_id"] == VOCABULARY
    assert left_out(Tokenizer(hf), rows=VOCABULARY + 1) == ("<other>",)
    fewer = tmp_path / "fewer"
    fewer.mkdir()
    told = fields_of(Tokenizer(hf), fewer, rows=VOCABULARY)
    assert len(told["ggml.tokens"]) == VOCABULARY
    assert "ggml.padding_token_id" not in told


def test_rows_without_a_token_are_named_once_and_never_used(hf: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    told = fields_of(Tokenizer(hf), tmp_path, rows=VOCABULARY + 64)
    assert len(set(told["ggml.tokens"])) == VOCABULARY + 64
    assert set(told["ggml.token_type"][VOCABULARY:]) == {Kind.UNUSED}


def test_two_tokens_of_one_text_are_refused(hf: PreTrainedTokenizerFast) -> None:
    hf.add_tokens([f"<unused_{VOCABULARY + 1}>"])
    with pytest.raises(ModelError, match=f"the tokens {VOCABULARY} and {VOCABULARY + 1} are both"):
        read_vocabulary(Tokenizer(hf), rows=VOCABULARY + 2)


def test_new_tokens_are_control_where_special_and_the_users_own_where_not(
    hf: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    hf.add_special_tokens({"extra_special_tokens": ["<|zug|>"]}, replace_extra_special_tokens=False)
    hf.add_tokens(["plain word", "日本"])
    told = fields_of(Tokenizer(hf), tmp_path)
    assert told["ggml.tokens"][-3:] == ["<|zug|>", "plain word", "日本"]
    assert told["ggml.token_type"][-3:] == [Kind.CONTROL, Kind.USER_DEFINED, Kind.USER_DEFINED]


@pytest.mark.parametrize("folder", ["gpt2", "mistral-v0.1", "t5"])
def test_new_tokens_of_a_recipe_are_of_their_kind_in_every_vocabulary(shared: Path, folder: str) -> None:
    hf = AutoTokenizer.from_pretrained(shared / "data/tokenizers" / folder, trust_remote_code=False)
    ids, _ = add_words(hf, special=["<|zug|>"], ordinary=["<plain>", "<other>"])
    kinds = read_vocabulary(Tokenizer(hf), rows=len(hf)).kinds
    assert [kinds[index] for index in ids] == [Kind.CONTROL, Kind.USER_DEFINED, Kind.USER_DEFINED]


def test_tokens_that_are_no_valid_text_come_back_byte_for_byte(tmp_path: Path) -> None:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    # in this alphabet é is the byte E9 and © the byte A9: alone, neither is UTF-8
    texts = ["</s>", *alphabet, "é©"]
    backend = Backend(models.BPE({text: index for index, text in enumerate(texts)}, [("é", "©")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = Tokenizer(PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>"))
    told = fields_of(tokenizer, tmp_path)
    assert told["ggml.tokens"] == texts
    assert told["ggml.merges"] == ["é ©"]


def test_special_tokens_and_what_stands_around_a_text_are_said(hf: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    told = fields_of(Tokenizer(hf), tmp_path)
    assert (told["ggml.bos_token_id"], told["ggml.eos_token_id"], told["ggml.padding_token_id"]) == (0, 1, 2)
    assert (told["ggml.add_bos_token"], told["ggml.add_eos_token"]) == (False, False)
    assert "chat_template" not in told
    assert "ggml.eot_token_id" not in told


def test_a_tokenizer_that_puts_other_tokens_around_a_text_is_refused(
    hf: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    hf.cls_token, hf.bos_token = "<s>", None
    around = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [2], "tokens": ["<|endoftext|>"]}},
    }
    with pytest.raises(ModelError, match="puts more around a text"):
        fields_of(changed(hf, post_processor=around), tmp_path)
    assert not list(tmp_path.glob("*.gguf*"))


def test_a_tokenizer_without_an_end_is_refused(hf: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    hf.eos_token = None
    with pytest.raises(ModelError, match="no end token"):
        fields_of(Tokenizer(hf), tmp_path)


def test_every_chat_template_is_kept_to_the_byte(shared: Path, hf: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    templates = sorted((shared / "data/chat-templates/templates").glob("*.jinja"))
    assert len(templates) > 15
    for place, path in enumerate(templates):
        hf.chat_template = path.read_text("utf-8")
        folder = tmp_path / str(place)
        folder.mkdir()
        assert fields_of(Tokenizer(hf), folder)["chat_template"] == hf.chat_template, path.name


def test_a_template_with_many_letters_and_several_templates_are_kept(
    hf: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    first = "{% for m in messages %}«naïve» 日本 🙂\u2028{{ m['content'] }}{% endfor %}\n\n"
    hf.chat_template = {"tool_use": "{{ messages[0]['content'] }}", "default": first}
    told = fields_of(Tokenizer(hf), tmp_path)
    assert told["chat_template"] == first
    assert told["chat_template.tool_use"] == "{{ messages[0]['content'] }}"


def test_the_end_of_a_turn_is_said_beside_the_end_of_text(hf: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    hf.chat_template = "{% for m in messages %}{{ m['content'] }}<|endoftext|>{% endfor %}"
    told = fields_of(Tokenizer(hf), tmp_path)
    assert (told["ggml.eos_token_id"], told["ggml.eot_token_id"]) == (1, 2)


def test_pieces_are_scored_in_the_order_of_their_merges(tmp_path: Path) -> None:
    told = fields_of(pieces(("a", "b"), ("▁", "a"), ("▁", "ab"), ("▁a", "b"), ("▁ab", "c")), tmp_path, rows=300)
    scores = dict(zip(told["ggml.tokens"], told["ggml.scores"], strict=True))
    assert scores["ab"] > scores["▁a"] > scores["▁ab"] > scores["▁abc"]
    kinds = dict(zip(told["ggml.tokens"], told["ggml.token_type"], strict=True))
    assert (kinds["<0x0A>"], kinds["<unk>"], kinds["ab"]) == (Kind.BYTE, Kind.UNKNOWN, Kind.NORMAL)
    assert told["ggml.add_space_prefix"] is True


@pytest.mark.parametrize(
    ("tokenizer", "reason"),
    [
        (lambda: pieces(("a", "b"), words=("abc",)), "'ab' and 'c' would be joined"),
        (lambda: pieces(("a", "b"), ("c", "d"), ("ab", "c"), ("b", "c"), ("a", "bc")), "stand in several places"),
    ],
)
def test_merges_that_llama_cpp_would_not_follow_are_refused(tokenizer: Callable[[], Tokenizer], reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        read_vocabulary(tokenizer(), rows=400)


def test_a_fallback_without_all_bytes_is_refused() -> None:
    with pytest.raises(ModelError, match="1 of the 256 byte tokens are missing"):
        scores_of(dict.fromkeys(BYTES[1:], 0), [], apart=frozenset())


def test_spaces_in_another_way_are_refused() -> None:
    rules: Rules = {"normalizer": None, "pre_tokenizer": {"type": "Metaspace", "replacement": "_", "split": False}}
    with pytest.raises(ModelError, match="a treatment of spaces"):
        puts_space_first(rules | {"pre_tokenizer": rules["pre_tokenizer"] | {"prepend_scheme": "first"}})


@given(st.text(max_size=40))
def test_no_text_of_a_pretokenizer_breaks_the_refusal(text: str) -> None:
    rules = {"normalizer": None, "pre_tokenizer": {"type": text}, "model": {}}
    with pytest.raises(ModelError):
        name_of_splitting(rules)

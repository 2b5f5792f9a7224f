"""The tokenizer of a base: chat templates render alike on every day, and what is wrong with one is told in words."""

import json
from datetime import date

import pytest
from tokenizers.processors import TemplateProcessing
from transformers import BartConfig, GenerationConfig, PreTrainedTokenizerFast, T5Config

from fledge.config.data import DataConfig
from fledge.config.model import ModelConfig
from fledge.data.formats.render import renderer
from fledge.errors import DataError, ModelError
from fledge.models.chat_template import CHATML, TODAY, render
from fledge.models.load_tokenizer import load_tokenizer, saved_tokenizer
from fledge.models.locate import locate
from fledge.models.nestling import FOLDER
from fledge.models.tokenizer import Tokenizer
from tests.unit.data.tiny import byte_level

TURNS = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Owl."}]


def loaded(template=None, format="chat", base="builtin:nestling") -> tuple[Tokenizer, DataConfig]:
    data = DataConfig.model_validate(
        {"train": {"path": "/x.jsonl", "format": format}, "chat_template": template and str(template)}
    )
    return load_tokenizer(ModelConfig(name_or_path=base), data), data


def written(tmp_path, text, name="template.jinja"):
    (tmp_path / name).write_text(text)
    return tmp_path / name


@pytest.mark.parametrize(
    "form",
    ["%d %b %Y", "%A, %-d %B %y", "%Y-%m-%d %H:%M:%S", "%j %-j %U %p", "100%%d %%", "none", "%-m/%e %F %D %T"],
)
def test_a_template_is_told_one_day_for_ever(form):
    template = (
        "\n  {% if true %}x{% endif %}\n{% macro day() %}{{ strftime_now('" + form + "') }}{% endmacro %}{{ day() }}"
    )
    found = render(template, [], tokens={}, add_generation_prompt=False)
    today = TODAY.strftime(form)
    assert date(2024, 7, 26) == TODAY
    assert found == render(
        template.replace("strftime_now('" + form + "')", repr(today)), [], tokens={}, add_generation_prompt=False
    )
    assert found.endswith(today)


def test_a_template_that_writes_the_date_is_noted(tmp_path):
    tokenizer, data = loaded(written(tmp_path, "{{ strftime_now('%d %b %Y') }}" + CHATML))
    [row] = renderer(data.train, tokenizer, data=data)({"messages": TURNS})
    assert row.text.startswith("26 Jul 2024<|im_start|>")
    assert any("2024-07-26" in note for note in row.notes)
    assert not loaded("chatml")[0].template_notes


def test_a_broken_template_is_told_at_once_and_only_where_it_is_used(tmp_path):
    tokenizer, data = loaded(written(tmp_path, "{{ strftime_now('%d') }}\n{% for m in messages %}"))
    with pytest.raises(DataError, match=r"no valid Jinja: .* \(line 2\)") as caught:
        renderer(data.train, tokenizer, data=data)
    assert "data.chat_template" in str(caught.value)
    tokenizer, data = loaded(tmp_path / "template.jinja", format="alpaca")
    assert callable(renderer(data.train, tokenizer, data=data))


@pytest.mark.parametrize(
    "body", ["{{ 1 / 0 }}", "{{ messages[9].x.y }}", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"]
)
def test_a_template_that_fails_is_told_in_words(tmp_path, body):
    tokenizer, _ = loaded(written(tmp_path, body))
    with pytest.raises(DataError, match="the chat template"):
        tokenizer.render(TURNS)


def test_a_chat_template_that_is_no_text_is_told_in_words(tmp_path):
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n\xff")
    with pytest.raises(ModelError, match="not a text in UTF-8"):
        loaded(tmp_path / "picture.png")
    with pytest.raises(ModelError, match="no such chat template"):
        loaded(tmp_path / "nowhere.jinja")


def test_what_closes_a_turn_is_found_where_a_system_message_is_demanded(tmp_path):
    demand = "{{ raise_exception('no system') if messages[0].role != 'system' }}"
    tokenizer, _ = loaded(written(tmp_path, demand + CHATML.replace("<|im_end|>", "</s>")))
    assert tokenizer.stop_ids == {tokenizer.eos_token_id}
    tokenizer.hf.add_special_tokens({"extra_special_tokens": ["<|im_end|>"]})
    again = Tokenizer(tokenizer.hf)
    again.hf.chat_template = demand + CHATML
    assert again.stop_ids == {again.eos_token_id, again.special_tokens["<|im_end|>"]}


def test_identity_tells_special_tokens_and_rendering_apart(monkeypatch):
    tokenizer, _ = loaded("chatml")
    before = tokenizer.identity
    assert loaded("chatml")[0].identity == before
    changed, _ = loaded("chatml")
    changed.hf.unk_token = "</s>"
    assert changed.identity != before
    monkeypatch.setattr("fledge.models.tokenizer.RENDERING", "another")
    assert loaded("chatml")[0].identity != before


def test_a_base_that_the_working_directory_hides_is_refused(tmp_path, monkeypatch):
    (tmp_path / "someone" / "something").mkdir(parents=True)
    assert locate("someone/something") == "someone/something"
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="lies in the working directory") as caught:
        locate("someone/something")
    assert "absolute path" in str(caught.value)
    assert json.loads((FOLDER / "config.json").read_text()) and locate("builtin:nestling") == str(FOLDER)


def pair_folder(folder, config, *, template="<s> $A </s>"):
    """The folder of an encoder-decoder without weights: a config.json and a tokenizer."""
    backend = type(byte_level()).from_str(byte_level().to_str())
    specials = [(token, backend.token_to_id(token)) for token in ("<s>", "</s>")]
    backend.post_processor = TemplateProcessing(single=template, special_tokens=specials)
    PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="<unk>"
    ).save_pretrained(folder)
    config.save_pretrained(folder)
    return folder


def test_a_causal_base_has_no_decoder_start_and_t5_has_its_own(shared):
    assert loaded()[0].decoder_start_id is None
    t5, _ = loaded(base=str(shared / "data" / "tokenizers" / "t5"), format="completion")
    assert (t5.decoder_start_id, t5.prefix_ids, t5.suffix_ids) == (0, (), (t5.eos_token_id,))


def test_what_stands_around_a_text_is_what_transformers_puts_there(tmp_path):
    config = BartConfig(bos_token_id=1, eos_token_id=2, pad_token_id=0, decoder_start_token_id=2)
    for template, around in {
        "<s> $A </s>": ((1,), (2,)),
        "$A </s>": ((), (2,)),
        "<s> $A": ((1,), ()),
        "$A": ((), ()),
    }.items():
        tokenizer, _ = loaded(base=str(pair_folder(tmp_path, config, template=template)), format="completion")
        assert (tokenizer.prefix_ids, tokenizer.suffix_ids) == around
        assert tokenizer.decoder_start_id == 2
        for text in ("Name three birds.", " a  b\n", "</s>", "\ud55c"):
            ids = [*around[0], *tokenizer.encode_batch([text])[0].ids, *around[1]]
            assert tokenizer.hf(text)["input_ids"] == tokenizer.hf(text_target=text)["input_ids"] == ids


def test_a_config_that_does_not_say_what_the_decoder_starts_with_means_bos_or_padding(tmp_path):
    said = {"decoder_start_token_id": None, "pad_token_id": 4, "bos_token_id": 3}
    found = []
    for missing in ("decoder_start_token_id", "bos_token_id"):
        said[missing] = None
        found.append(loaded(base=str(pair_folder(tmp_path, T5Config(**said))), format="completion")[0].decoder_start_id)
    assert found == [3, 4]
    pair_folder(tmp_path, T5Config(**said | {"pad_token_id": None}))
    with pytest.raises(ModelError, match="does not say what its decoder starts with"):
        loaded(base=str(tmp_path), format="completion")


def test_a_tokenizer_that_writes_targets_otherwise_is_refused(tmp_path, monkeypatch):
    folder = str(pair_folder(tmp_path, BartConfig()))
    assert loaded(base=folder, format="completion")[0].decoder_start_id == 2
    monkeypatch.setattr(PreTrainedTokenizerFast, "_switch_to_target_mode", lambda self: None, raising=False)
    with pytest.raises(ModelError, match="writes targets otherwise than sources"):
        loaded(base=folder, format="completion")


def test_a_config_that_cannot_be_read_is_told_in_words(tmp_path):
    pair_folder(tmp_path, BartConfig())
    (tmp_path / "config.json").write_text('{"model_type": "nobodys-model"}')
    with pytest.raises(ModelError, match=r"cannot be (read|loaded)"):
        loaded(base=str(tmp_path), format="completion")


def test_a_saved_tokenizer_knows_its_decoders_start_from_what_lies_beside_it(tmp_path):
    pair_folder(tmp_path, BartConfig())
    assert saved_tokenizer(tmp_path).decoder_start_id is None
    assert saved_tokenizer(tmp_path, decoder_start_id=7).decoder_start_id == 7
    GenerationConfig(decoder_start_token_id=2).save_pretrained(tmp_path)
    assert saved_tokenizer(tmp_path).decoder_start_id == 2
    assert saved_tokenizer(tmp_path, decoder_start_id=7).decoder_start_id == 7
    GenerationConfig(eos_token_id=2).save_pretrained(tmp_path)
    assert saved_tokenizer(tmp_path).decoder_start_id is None


def test_padding_is_a_token_that_the_base_has_an_embedding_for(tmp_path):
    folder = pair_folder(tmp_path, BartConfig(vocab_size=8))
    size = len(PreTrainedTokenizerFast.from_pretrained(folder))
    found = []
    for vocab_size in (size + 1, size, 0):
        config = BartConfig(bos_token_id=1, eos_token_id=2, pad_token_id=0, decoder_start_token_id=2)
        config.vocab_size = vocab_size
        config.save_pretrained(folder)
        hf = PreTrainedTokenizerFast.from_pretrained(folder)
        hf.add_special_tokens({"pad_token": "<a new one>", "eos_token": "</s>"})
        hf.save_pretrained(folder)
        found.append(loaded(base=str(folder), format="completion")[0].pad_token_id)
    assert found == [size, hf.eos_token_id, 0]


def test_a_saved_tokenizer_pads_with_what_was_noted_beside_it(tmp_path):
    pair_folder(tmp_path, BartConfig())
    own = saved_tokenizer(tmp_path).pad_token_id
    GenerationConfig(pad_token_id=own + 3).save_pretrained(tmp_path)
    assert saved_tokenizer(tmp_path).pad_token_id == own + 3

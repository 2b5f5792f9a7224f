"""A merged model's files are the base's own, with what training changed written in."""

import json

import pytest
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from fledge.config.model import ModelConfig
from fledge.errors import ModelError
from fledge.models.generation import check_generation, own_generation, written_generation
from fledge.models.own_files import own_code, own_json
from fledge.models.written_config import is_tied, written_config
from tests.tiny_models import tiny_folder


def edit(path, drop=(), **put):
    held = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({name: value for name, value in held.items() if name not in drop} | put))


@pytest.fixture
def base(tmp_path) -> ModelConfig:
    return ModelConfig(name_or_path=str(tiny_folder("llama", tmp_path / "base")), dtype="float32")


def model_of(base):
    kind = AutoModelForSeq2SeqLM if AutoConfig.from_pretrained(base.name_or_path).is_encoder_decoder else None
    return (kind or AutoModelForCausalLM).from_pretrained(base.name_or_path)


def test_each_key_is_the_bases_own_but_for_the_number_format(base, tmp_path):
    path = tmp_path / "base" / "config.json"
    edit(path, drop=("rope_parameters", "dtype"), rope_theta=123.0, torch_dtype="float32", a_note={"of": [1, None]})
    own = own_json(base, "config.json")
    made = written_config(own, model_of(base), dtype="bfloat16")
    assert made == own | {"torch_dtype": "bfloat16"} and list(made) == list(own)


def test_both_spellings_are_there_where_the_base_has_the_newer_one(base):
    own = own_json(base, "config.json")
    assert "rope_theta" not in own and "torch_dtype" not in own
    made = written_config(own, model_of(base), dtype="float16")
    assert (
        made["rope_theta"] == own["rope_parameters"]["rope_theta"] and made["rope_parameters"] == own["rope_parameters"]
    )
    assert made["dtype"] == made["torch_dtype"] == "float16"


def test_what_merging_changed_is_written_in(base):
    own = own_json(base, "config.json") | {"quantization_config": {"bits": 4}, "_name_or_path": "/gone"}
    model = model_of(base)
    model.resize_token_embeddings(330, mean_resizing=False)
    model.tie_weights()
    made = written_config(own, model, dtype="float32", stop_ids=frozenset({7, 9}))
    assert made["vocab_size"] == 330 and made["eos_token_id"] == [7, 9]
    assert not {"quantization_config", "_name_or_path"} & set(made)


def test_a_head_of_its_own_is_said_to_be_one(base):
    own = own_json(base, "config.json") | {"tie_word_embeddings": True}
    model = model_of(base)
    model.config.tie_word_embeddings = True
    assert is_tied(model) is False
    assert written_config(own, model, dtype="float32")["tie_word_embeddings"] is False


def test_t5_keeps_what_it_says_of_its_head_for_that_decides_a_factor_too(tmp_path):
    base = ModelConfig(name_or_path=str(tiny_folder("t5", tmp_path / "base")), dtype="float32")
    edit(tmp_path / "base" / "config.json", tie_word_embeddings=False)
    own = own_json(base, "config.json")
    assert written_config(own, model_of(base), dtype="float32")["tie_word_embeddings"] is False


class Stops:
    stop_ids, pad_token_id, decoder_start_id = frozenset({1, 5}), 2, None


def test_settings_for_generating_are_kept_with_the_ids_of_the_training(base, tmp_path):
    settings = {"do_sample": False, "min_p": 0.05, "typical_p": 0.9, "early_stopping": True, "eos_token_id": 1}
    (tmp_path / "base" / "generation_config.json").write_text(json.dumps(settings | {"_from_model_config": True}))
    made = written_generation(own_generation(base, AutoConfig.from_pretrained(base.name_or_path)), Stops())
    assert made == settings | {"eos_token_id": [1, 5], "pad_token_id": 2}


def test_stop_tokens_that_are_the_bases_own_keep_their_order(base, tmp_path):
    (tmp_path / "base" / "generation_config.json").write_text(json.dumps({"eos_token_id": [5, 1]}))
    made = written_generation(own_generation(base, AutoConfig.from_pretrained(base.name_or_path)), Stops())
    assert made["eos_token_id"] == [5, 1]


def test_settings_that_lie_in_config_json_are_read_from_there(tmp_path):
    base = ModelConfig(name_or_path=str(tiny_folder("bart", tmp_path / "base")), dtype="float32")
    (tmp_path / "base" / "generation_config.json").unlink()
    beams = {"num_beams": 4, "length_penalty": 2.0, "min_length": 12, "max_length": 40, "no_repeat_ngram_size": 3}
    edit(tmp_path / "base" / "config.json", **beams, early_stopping=True)
    found = own_generation(base, AutoConfig.from_pretrained(base.name_or_path))
    assert found.items() >= (beams | {"early_stopping": True, "decoder_start_token_id": 1}).items()
    assert not {"use_cache", "transformers_version", "_from_model_config"} & set(found)


@pytest.mark.parametrize("text", ["{", "[1]", '"greedy"', '{"num_beams": "four"}', '{"max_new_tokens": -3}'])
def test_settings_that_cannot_be_used_are_told_before_a_training(text, base, tmp_path):
    path = tmp_path / "base" / "generation_config.json"
    path.write_text(text)
    with pytest.raises(ModelError, match=r"generation_config\.json") as caught:
        check_generation(base)
    assert str(path) in caught.value.problems[0].where


def test_settings_that_only_cannot_be_written_back_are_no_fault(base, tmp_path):
    settings = {"do_sample": False, "temperature": 0.6, "min_p": 0.05, "early_stopping": True}
    (tmp_path / "base" / "generation_config.json").write_text(json.dumps(settings))
    check_generation(base)


def test_code_that_a_base_brings_is_named_with_what_it_imports(base, tmp_path):
    folder = tmp_path / "base"
    (folder / "modeling_own.py").write_text("from .parts_own import a\n")
    (folder / "parts_own.py").write_text("a = 1\n")
    (folder / "unused.py").write_text("")
    described = {"auto_map": {"AutoModelForCausalLM": "modeling_own.Own", "AutoConfig": "org/other--config_own.Own"}}
    assert own_code(base, described) == {name: folder / name for name in ("modeling_own.py", "parts_own.py")}
    assert own_code(base, {}) == {}

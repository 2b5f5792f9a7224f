"""Loading a base: what is refused, and in which words."""

import pytest
import torch

from fledge.config.model import ModelConfig
from fledge.errors import ModelError
from fledge.models.load import load_base
from tests.tiny_models import tiny_folder

CPU = torch.device("cpu")


def test_falcons_doubled_alibi_is_refused_in_eager_and_loads_in_sdpa(tmp_path):
    folder = str(tiny_folder("falcon-rw", tmp_path))
    with pytest.raises(ModelError, match="ALiBi twice"):
        load_base(ModelConfig(name_or_path=folder, dtype="float32", attention="eager"), device=CPU)
    assert load_base(ModelConfig(name_or_path=folder, dtype="float32"), device=CPU).facts.num_layers == 2


def test_a_folder_without_a_config_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"no config\.json"):
        load_base(ModelConfig(name_or_path=str(tmp_path)), device=CPU)


def test_weights_that_need_pickle_are_refused(tmp_path):
    folder = tiny_folder("llama", tmp_path)
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="safetensors"):
        load_base(ModelConfig(name_or_path=str(folder)), device=CPU)


def test_a_torn_weights_file_is_an_error_in_words(tmp_path):
    folder = tiny_folder("llama", tmp_path)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_base(ModelConfig(name_or_path=str(folder)), device=CPU)


def test_an_unknown_architecture_is_an_error_in_words(tmp_path):
    folder = tiny_folder("llama", tmp_path)
    (folder / "config.json").write_text('{"model_type": "no-such-thing"}')
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_base(ModelConfig(name_or_path=str(folder)), device=CPU)

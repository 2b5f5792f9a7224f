"""A folder that is no base is called what it is, and the cure works when it is applied as it stands."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fledge.config.model import ModelConfig
from fledge.errors import ModelError
from fledge.models.beside import FILES
from fledge.models.folder import _OF_ADAPTERS, check_folder
from fledge.models.load import load_base
from fledge.models.locate import locate
from tests.tiny_models import tiny_folder

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


@pytest.mark.parametrize("name", ["tokenizer.model", "tokenizer.json", "model.safetensors", "config.json"])
def test_a_pointer_of_git_lfs_is_named(name, tmp_path):
    base = tiny_folder("llama", tmp_path / "a base")
    (base / name).write_text(POINTER)
    with pytest.raises(ModelError, match=rf"{name} is a git-lfs pointer, which stands for a file") as caught:
        locate(str(base))
    assert caught.value.problems[0].cure == f"fetch the files themselves: `git -C '{base}' lfs pull`"


def test_an_adapter_is_called_one_and_its_base_is_the_cure(trained_run, tmp_path):
    run = trained_run("llama")
    with pytest.raises(ModelError, match="this is an adapter, not a base") as caught:
        locate(str(run / "adapter"))
    cure = caught.value.problems[0].cure
    named = re.search(
        r"set model.name_or_path to its base, (\S+); or merge it: `fledge export (\S+) OUT --to hf`", cure
    )
    assert named is not None
    assert Path(named[2]) == run
    assert locate(named[1]) == str(run.parent / "base")
    (tmp_path / "adapter_config.json").write_text("{")
    with pytest.raises(ModelError, match="this is an adapter, not a base"):
        locate(str(tmp_path))


def test_a_run_folder_is_called_one(trained_run):
    with pytest.raises(ModelError, match=r"this is a run folder, not a base(.|\n)*fledge export .* OUT --to hf"):
        locate(str(trained_run("llama")))


def test_a_gguf_file_is_called_one(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match="a GGUF file, which cannot be trained"):
        locate(str(tmp_path))


@pytest.mark.parametrize("architecture", ["llama", "t5"])
def test_pickled_weights_are_refused_and_the_cure_writes_others(architecture, tmp_path):
    base = tiny_folder(architecture, tmp_path / "it's a base")
    weights = load_file(base / "model.safetensors")
    torch.save(weights, base / "pytorch_model.bin")
    (base / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"its weights are pickled \(pytorch_model.bin\)") as caught:
        locate(str(base))
    command = shlex.split(caught.value.problems[0].cure.partition("write such once: ")[2])
    assert command[:2] == ["python", "-c"]
    subprocess.run([sys.executable, *command[1:]], check=True, capture_output=True)
    loaded = load_base(ModelConfig(name_or_path=str(base), dtype="float32"), device=torch.device("cpu")).model
    found = loaded.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in weights.items())


def test_a_base_with_safetensors_beside_a_pickle_is_a_base(tmp_path):
    base = tiny_folder("llama", tmp_path)
    (base / "pytorch_model.bin").write_bytes(b"never read")
    check_folder(base)
    (base / "config.json").unlink()
    with pytest.raises(ModelError, match=r"this folder has no config\.json"):
        check_folder(base)
    (base / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "somebody/base"}))
    with pytest.raises(ModelError, match=r"set model\.name_or_path to its base, somebody/base"):
        check_folder(base)


def test_the_files_that_are_no_part_of_a_base_are_those_that_the_library_takes_for_an_adapters():
    assert set(_OF_ADAPTERS) == FILES

"""An outline finds in a base's files what transformers' loader finds there, and a model filled from it is the base."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, LlamaConfig

from fledge.config.model import ModelConfig
from fledge.errors import ModelError
from fledge.models.outline import filled, read_outline
from tests.runs import environment
from tests.tiny_models import ARCHITECTURES, PAIRS, tiny_folder

Change = Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]


def changed(folder: Path, change: Change) -> Path:
    path = folder / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in change(load_file(path)).items()}
    save_file(tensors, path, metadata={"format": "pt"})
    return folder


def halves(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Three number formats in one file."""
    kinds = (torch.float16, torch.bfloat16, torch.float32)
    return {name: tensor.to(kinds[place % 3]) for place, (name, tensor) in enumerate(tensors.items())}


def without_prefix(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix("model."): tensor for name, tensor in tensors.items()}


def head_too(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"]}


def another_head(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"] * 2}


def head_alone(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    embedding = tensors.pop("model.embed_tokens.weight")
    return tensors | {"lm_head.weight": embedding}


CHANGES: dict[str, tuple[str, Change]] = {
    **{name: (name, dict) for name in (*ARCHITECTURES, *PAIRS)},
    "halves": ("llama", halves),
    "without-prefix": ("qwen2", without_prefix),
    "head-too": ("qwen2", head_too),
    "another-head": ("qwen2", another_head),
    "head-alone": ("qwen2", head_alone),
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("case", CHANGES)
def test_a_model_that_is_filled_is_the_base_rounded_once(case, dtype, tmp_path):
    architecture, change = CHANGES[case]
    folder = changed(tiny_folder(architecture, tmp_path / "base"), change)
    kind = AutoModelForSeq2SeqLM if architecture in PAIRS else AutoModelForCausalLM
    base = kind.from_pretrained(folder, dtype=getattr(torch, dtype)).requires_grad_(False).eval()
    outline = read_outline(ModelConfig(name_or_path=str(folder)))
    assert all(each.is_meta for each in outline.model.parameters())
    model = filled(outline, lambda name: outline.read(name).float(), dtype=dtype)
    expected, found = base.state_dict(), model.state_dict()
    assert expected.keys() == found.keys() == outline.model.state_dict().keys()
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())
    for each in (model, outline.model):
        is_tied = each.get_output_embeddings().weight is each.get_input_embeddings().weight
        assert is_tied == (base.get_output_embeddings().weight is base.get_input_embeddings().weight)
    ids = torch.tensor([[5, 9, 33, 210]])
    inputs = {"input_ids": ids} | ({"decoder_input_ids": ids} if architecture in PAIRS else {})
    assert torch.equal(model(**inputs).logits, base(**inputs).logits), "buffers, which no file holds, are there too"


def test_a_base_in_several_files_is_one(tmp_path):
    folder = tiny_folder("llama", tmp_path / "base")
    whole = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(whole)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, held in parts.items():
        save_file({name: whole[name] for name in held}, folder / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, held in parts.items() for name in held}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    outline = read_outline(ModelConfig(name_or_path=str(folder)))
    model = filled(outline, lambda name: outline.read(name).float(), dtype="float32")
    assert all(torch.equal(tensor, whole[name]) for name, tensor in model.state_dict().items())


def test_a_tensor_that_is_lacking_is_an_error_in_words(tmp_path):
    folder = changed(tiny_folder("llama", tmp_path / "base"), lambda tensors: tensors)
    changed(folder, lambda tensors: {name: each for name, each in tensors.items() if "layers.1.mlp.up" not in name})
    outline = read_outline(ModelConfig(name_or_path=str(folder)))
    with pytest.raises(ModelError, match=r"no tensor model\.layers\.1\.mlp\.up_proj\.weight in the base"):
        outline.read("model.layers.1.mlp.up_proj.weight")
    with pytest.raises(ModelError, match=r"lack 1 tensors of the model(.|\n)*up_proj"):
        filled(outline, lambda name: outline.read(name).float(), dtype="float32")


@pytest.mark.parametrize("content", ["", "{", '{"model_type": "no-such-model"}'])
def test_what_is_no_base_is_an_error_in_words(content, tmp_path):
    tiny_folder("llama", tmp_path)
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ModelError, match=r"base cannot be read(.|\n)*(config.json|model type)"):
        read_outline(ModelConfig(name_or_path=str(tmp_path)))


FILL = """
import resource, sys
import torch
from fledge.config.model import ModelConfig
from fledge.models.outline import filled, read_outline
torch.ones(64, 64) @ torch.ones(64, 64)
outline = read_outline(ModelConfig(name_or_path=sys.argv[1]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
model = filled(outline, lambda name: outline.read(name).float(), dtype="bfloat16")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024, sum(p.nbytes for p in model.parameters()))
"""


def test_filling_takes_the_model_and_a_few_tensors_not_the_model_in_float32(tmp_path):
    sizes = {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 6, "num_attention_heads": 8}
    config = LlamaConfig(**sizes, vocab_size=320, tie_word_embeddings=False)
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(config)
    tensors = {name: torch.ones(each.shape, dtype=torch.bfloat16) for name, each in empty.state_dict().items()}
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(tmp_path)
    command = [sys.executable, "-c", FILL, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment())
    taken, own = map(int, done.stdout.split())
    assert own > 150_000_000 and taken < 1.5 * own, f"{taken / 1e6:.0f} MB for a model of {own / 1e6:.0f} MB"

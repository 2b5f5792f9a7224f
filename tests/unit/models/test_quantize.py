"""Quantised bases: every linear of the blocks, the same bits from files and cache, and what is broken refused."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM

from fledge.config.model import ModelConfig
from fledge.errors import ModelError
from fledge.models.blocks import blocks
from fledge.models.load import load_base
from fledge.models.quantize import LINEARS, quantized_tensors
from fledge.ops.frozen_linear import FrozenLinear
from fledge.ops.int8 import dequantize_int8, quantize_int8
from fledge.ops.nf4 import quantize_nf4, reference_dequantize_nf4
from tests.runs import environment
from tests.tiny_models import tiny_folder

CPU = torch.device("cpu")
KINDS = ("int8", "nf4")
ARCHITECTURES = ("bloom", "llama", "mistral", "gemma", "gemma2", "falcon-7b", "phi", "gpt2", "t5", "qwen2")


def load(folder, kind="none", *, dtype="float32", **options):
    said = []
    base = load_base(
        ModelConfig(name_or_path=str(folder), dtype=dtype, quantization=kind), device=CPU, tell=said.append, **options
    )
    return base, said


def logits(base):
    ids = torch.arange(1, 12)[None]
    more = {"decoder_input_ids": ids} if base.facts.is_encoder_decoder else {}
    with torch.no_grad():
        return base.model(input_ids=ids, **more).logits


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_linear_of_the_blocks_is_quantised_and_nothing_else(architecture, kind, tmp_path, own_cache):
    folder = tiny_folder(architecture, tmp_path / "base")
    plain, _ = load(folder)
    made, said = load(folder, kind)
    wanted = {
        name: module
        for name, module in plain.model.named_modules()
        if isinstance(module, LINEARS) and module is not plain.model.get_output_embeddings()
    }
    found = {name for name, module in made.model.named_modules() if isinstance(module, FrozenLinear)}
    assert found == set(wanted) and len(found) >= 8
    inside = {id(module) for block in blocks(made.model) for module in block.modules()}
    assert all(id(made.model.get_submodule(name)) in inside for name in found)
    for name, module in wanted.items():
        weight = module.weight.detach()
        weight = weight if isinstance(module, nn.Linear) else weight.t()
        shape = tuple(weight.shape)
        exact = (
            dequantize_int8(quantize_int8(weight))
            if kind == "int8"
            else reference_dequantize_nf4(quantize_nf4(weight), shape)
        )
        assert torch.equal(made.model.get_submodule(name).dequantize(), exact), name
    rest = {name: p for name, p in plain.model.state_dict().items() if name.removesuffix(".weight") not in wanted}
    now = made.model.state_dict()
    assert all(torch.equal(now[name], tensor) for name, tensor in rest.items())
    assert (made.facts.num_parameters, made.facts.linear_names) == (
        plain.facts.num_parameters,
        plain.facts.linear_names,
    )
    assert made.facts.parameter_bytes < plain.facts.parameter_bytes
    assert len(said) == 1 and kind in said[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "t5"])
def test_from_the_cache_come_the_same_bits_and_as_plain_modules_the_same_function(
    architecture, kind, tmp_path, own_cache
):
    folder = tiny_folder(architecture, tmp_path / "base")
    made, first = load(folder, kind)
    again, then = load(folder, kind)
    assert (len(first), then) == (1, [])
    one, two = made.model.state_dict(), again.model.state_dict()
    assert set(one) == set(two) and all(torch.equal(one[name], two[name]) for name in one)
    assert torch.equal(logits(made), logits(again))
    plain, _ = load(folder, kind, as_plain=True)
    assert not quantized_tensors(plain.model)
    assert torch.allclose(logits(plain), logits(made), atol=1e-4)
    assert made.model.generation_config.to_dict() == load(folder)[0].model.generation_config.to_dict()
    assert getattr(made.model.config, "quantization_config", None) is None


def test_the_codes_are_those_of_the_files_whatever_the_base_computes_in(tmp_path, own_cache):
    folder = tiny_folder("llama", tmp_path / "base")
    wide, _ = load(folder, "nf4")
    shutil.rmtree(own_cache)
    half, said = load(folder, "nf4", dtype="bfloat16")
    assert said
    one, two = quantized_tensors(wide.model), quantized_tensors(half.model)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert half.model.dtype == torch.bfloat16


def test_files_of_several_pieces_give_the_same_as_one(tmp_path, own_cache):
    folder = tiny_folder("llama", tmp_path / "base")
    whole, _ = load(folder, "int8")
    pieces = tmp_path / "pieces"
    shutil.copytree(folder, pieces)
    tensors = load_file(pieces / "model.safetensors")
    (pieces / "model.safetensors").unlink()
    names = sorted(tensors)
    halves = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, part in halves.items():
        save_file({name: tensors[name] for name in part}, pieces / file, metadata={"format": "pt"})
    index = {"weight_map": {name: file for file, part in halves.items() for name in part}}
    (pieces / "model.safetensors.index.json").write_text(json.dumps(index))
    found, said = load(pieces, "int8")
    assert said and torch.equal(logits(found), logits(whole))
    (pieces / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match="lacks model-00002-of-00002"):
        load(pieces, "int8")


def damage(folder, change):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def last_linear(tensors):
    return sorted(name for name in tensors if name.endswith("down_proj.weight"))[-1]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.pop(last_linear(t)), "lack 1 tensors"),
        (lambda t: t.update({last_linear(t): torch.zeros(3, 5)}), "the model wants"),
        (lambda t: t[last_linear(t)].fill_(float("nan")), "not finite"),
    ],
    ids=["missing", "shape", "nan"],
)
def test_a_broken_base_is_refused_and_nothing_of_it_is_kept(change, says, tmp_path, own_cache):
    folder = tiny_folder("llama", tmp_path / "base")
    damage(folder, change)
    with pytest.raises(ModelError, match=says):
        load(folder, "nf4")
    kept = [path for path in (own_cache / "quantized").glob("*") if path.is_dir()]
    assert kept == []


def test_a_changed_base_and_a_damaged_entry_are_quantised_anew(tmp_path, own_cache):
    folder = tiny_folder("llama", tmp_path / "base")
    first, _ = load(folder, "int8")
    [entry] = [path for path in (own_cache / "quantized").glob("*") if path.is_dir()]
    codes = entry / "codes.safetensors"
    content = bytearray(codes.read_bytes())
    content[-1] ^= 1
    codes.write_bytes(content)
    again, said = load(folder, "int8")
    assert said and torch.equal(logits(again), logits(first))
    damage(folder, lambda t: t[last_linear(t)].mul_(2))
    changed, said = load(folder, "int8")
    assert said and not torch.equal(logits(changed), logits(first))


def test_a_base_that_is_quantised_already_is_refused(tmp_path, own_cache):
    folder = tiny_folder("llama", tmp_path / "base")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps(config | {"quantization_config": {"quant_method": "gptq", "bits": 4}})
    )
    with pytest.raises(ModelError, match=r"quantised already \(gptq\)"):
        load(folder, "nf4")


def test_without_room_for_the_cache_the_base_is_quantised_all_the_same(tmp_path, own_cache, monkeypatch):
    folder, kept = tiny_folder("llama", tmp_path / "base"), tiny_folder("bloom", tmp_path / "kept")
    load(kept, "nf4")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    base, said = load(folder, "nf4")
    assert "not kept" in said[-1] and quantized_tensors(base.model)
    assert len([path for path in (own_cache / "quantized").glob("*") if path.is_dir()]) == 1
    assert load(kept, "nf4")[1] == []  # what is there needs no room


def test_a_cache_that_cannot_be_written_is_told_and_the_base_is_quantised_all_the_same(tmp_path, own_cache):
    own_cache.mkdir(parents=True)
    (own_cache / "quantized").write_text("a file")
    base, said = load(tiny_folder("llama", tmp_path / "base"), "nf4")
    assert ("not kept" in said[0] and "Not a directory" in said[0]) or "File exists" in said[0]
    assert quantized_tensors(base.model)


def test_the_same_weights_under_another_configuration_are_another_entry(tmp_path, own_cache):
    folder = tiny_folder("llama", tmp_path / "base")
    shutil.copytree(folder, tmp_path / "short")
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "short" / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    assert load(tmp_path / "short", "nf4")[0].facts.num_layers == 1
    assert load(folder, "nf4")[0].facts.num_layers == 2


@pytest.mark.parametrize("index", ['{"weight_map": {"a": 3}}', '{"weight_map": {"a": "../x.safetensors"}}', "[]", "{"])
def test_an_index_that_is_none_is_refused_in_words(tmp_path, own_cache, index):
    folder = tiny_folder("llama", tmp_path / "base")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ModelError, match="index of the weight files"):
        load(folder, "int8")


def test_a_conv1d_is_a_conv1d_again_as_a_plain_module(tmp_path, own_cache):
    folder = tiny_folder("gpt2", tmp_path / "base")
    full, plain = load(folder)[0].model, load(folder, "int8", as_plain=True)[0].model
    shapes = [{name: tuple(t.shape) for name, t in model.state_dict().items()} for model in (full, plain)]
    assert shapes[0] == shapes[1]
    assert [type(m) for m in full.modules()] == [type(m) for m in plain.modules()]


def test_experts_that_stay_as_they_are_are_told(tmp_path, own_cache):
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = MixtralConfig(**sizes, num_key_value_heads=2, vocab_size=320, num_local_experts=4)
    MixtralForCausalLM(config).save_pretrained(tmp_path / "base")
    _, said = load(tmp_path / "base", "nf4")
    assert any("of the blocks' parameters are held in nf4" in text for text in said)


def test_loading_takes_the_quantised_model_and_little_more(tmp_path, own_cache):
    """In a process of its own, whose peak the system knows; mapped or read at once it would be the files again."""
    config = LlamaConfig(
        hidden_size=512, intermediate_size=2048, num_hidden_layers=24, num_attention_heads=8, vocab_size=320
    )
    with torch.device("meta"):
        outline = LlamaForCausalLM(config)
    model = outline.to_empty(device="cpu").to(torch.bfloat16)
    for weight in model.parameters():  # what lay in this memory before may be no number
        torch.nn.init.normal_(weight, std=0.02)
    model.save_pretrained(tmp_path / "base")
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    del model
    code = f"""
import torch
from fledge.config.model import ModelConfig
from fledge.models.load import load_base

def peak():
    return int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))) * 1024

before = peak()
base = load_base(ModelConfig(name_or_path={str(tmp_path / "base")!r}, quantization="nf4"), device=torch.device("cpu"))
print((peak() - before) / {size})
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment())
    assert told.returncode == 0, told.stderr
    assert 0.2 < float(told.stdout) < 0.6


def test_pickled_weights_are_refused(tmp_path, own_cache):
    folder = tiny_folder("llama", tmp_path / "base")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="its weights are pickled"):
        load(folder, "nf4")

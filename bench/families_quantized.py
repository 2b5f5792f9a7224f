"""Bases of bench/families.py that come quantised: FP8 by blocks, as DeepSeek publishes, and MXFP4, as GPT-OSS is."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, GptOssConfig, LlamaConfig, PreTrainedModel

from bench.families_config import VOCABULARY

BLOCK = 128
FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3", "weight_block_size": [BLOCK, BLOCK]}
MXFP4 = {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head", "model.embed_tokens"]}
_COMMON = {"vocab_size": VOCABULARY, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
_COMMON |= {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "initializer_range": 0.1}
_NIBBLES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
Whole = dict[str, torch.Tensor]
"""What the codes of each quantised weight stand for, by its name."""


def in_fp8(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes [O,I], scales of blocks, and the weight [O,I] that they stand for."""
    rows, columns = weight.shape
    blocks = weight.view(-1, min(rows, BLOCK), columns // BLOCK, BLOCK)
    scale = blocks.abs().amax(dim=(1, 3)) / 448
    codes = (blocks / scale[:, None, :, None]).to(torch.float8_e4m3fn)
    return codes.view(rows, columns), scale, (codes.float() * scale[:, None, :, None]).view(rows, columns)


def write_fp8(folder: Path) -> Whole:
    """A Llama whose linears are in FP8; the tokenizer is not written."""
    model = _random(LlamaConfig(**_COMMON, hidden_size=BLOCK, intermediate_size=2 * BLOCK))
    tensors, whole = {}, {}
    for name, weight in model.state_dict().items():
        if name.endswith("proj.weight"):
            tensors[name], tensors[f"{name}_scale_inv"], whole[name] = in_fp8(weight)
        else:
            tensors[name] = weight.contiguous()
    _write(model, folder, tensors=tensors, settings=FP8)
    return whole


def write_mxfp4(folder: Path) -> Whole:
    """A GPT-OSS whose experts are in MXFP4; the tokenizer is not written."""
    model = _random(GptOssConfig(**_COMMON, hidden_size=64, intermediate_size=64, head_dim=16, num_local_experts=4))
    generator, lut = torch.Generator().manual_seed(1), torch.tensor([*_NIBBLES, *(-value for value in _NIBBLES)])
    tensors, whole = {}, {}
    for name, weight in model.state_dict().items():
        if not name.endswith(("gate_up_proj", "down_proj")):
            tensors[name] = weight.contiguous()
            continue
        experts, into, out = weight.shape
        codes = torch.randint(0, 16, (experts, out, into // 32, 32), generator=generator)
        scales = torch.randint(120, 124, (experts, out, into // 32), generator=generator)
        packed = codes[..., ::2] | (codes[..., 1::2] << 4)
        tensors |= {f"{name}_blocks": packed.to(torch.uint8), f"{name}_scales": scales.to(torch.uint8)}
        values = lut[codes] * torch.exp2(scales.float() - 127)[..., None]
        whole[name] = values.view(experts, out, into).transpose(1, 2)
    _write(model, folder, tensors=tensors, settings=MXFP4)
    return whole


QUANTIZED: dict[str, Callable[[Path], Whole]] = {"llama+fp8": write_fp8, "gpt_oss+mxfp4": write_mxfp4}
"""By the name of the base: each form whose weights transformers makes whole as it loads them."""


def _random(config: LlamaConfig | GptOssConfig) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config)


def _write(model: PreTrainedModel, folder: Path, *, tensors: dict[str, torch.Tensor], settings: dict) -> None:
    """The model's folder with other tensors in its file and a quantisation in its configuration."""
    model.save_pretrained(folder)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": settings}), encoding="utf-8")

"""Tiny models of every architecture with a plain peft adapter, and their loss and gradients both ways."""

import functools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from fledge.adapters.fast import as_linear
from fledge.data.collate import collate
from fledge.data.rows import Batch, Row
from fledge.engine.block import Keep
from fledge.engine.run import Engine
from fledge.models.body import read_body
from fledge.ops.buffers import Buffers
from fledge.training.fast_loss import as_packed
from tests.tiny_models import ARCHITECTURES, VOCABULARY, WINDOW, tiny_folder

CPU = torch.device("cpu")
EACH_LAYER = {"layer_types": ["full_attention", "sliding_attention"], "sliding_window": WINDOW}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in ARCHITECTURES},
    "gpt-neox in sequence": ("gpt-neox", {"use_parallel_residual": False}),
    "falcon in groups": ("falcon-7b", {"new_decoder_architecture": True, "num_kv_heads": 2}),
    "falcon in groups with one norm": (
        "falcon-7b",
        {"new_decoder_architecture": True, "num_kv_heads": 2, "num_ln_in_parallel_attn": 1},
    ),
    "llama tied": ("llama", {"tie_word_embeddings": True}),
    "llama with biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "qwen2 with a window": ("qwen2", {"use_sliding_window": True} | EACH_LAYER),
    "mistral without a window": ("mistral", {"sliding_window": None}),
    "gpt2 scaled by layer": ("gpt2", {"scale_attn_by_inverse_layer_idx": True}),
}
"""Architectures, and what of their configuration is changed."""

SUBSETS = [
    ("llama", ["q_proj", "v_proj"]),
    ("llama", ["down_proj"]),
    ("llama", ["gate_proj"]),
    ("llama", r".*layers\.0\.self_attn\.k_proj"),
    ("llama", r".*layers\.1\..*_proj"),
    ("gemma2", ["o_proj"]),
    ("gemma2", r".*layers\.1\.mlp\.up_proj"),
    ("gpt2", ["c_attn"]),
    ("bloom", r".*h\.1\.mlp\.dense_h_to_4h"),
    ("falcon-7b", ["dense"]),
    ("phi", ["fc1"]),
    ("phi", r".*layers\.1\.self_attn\.dense"),
    ("gpt-neox", ["query_key_value", "dense_4h_to_h"]),
    ("llama", ["q_proj", "lm_head"]),
    ("llama", ["v_proj", "embed_tokens"]),
    ("llama", ["lm_head"]),
]
"""Models, and the linears of them that alone have adapters."""


@functools.cache
def folder_of(name: str, scratch: Path) -> Path:
    """A model's folder, made once."""
    architecture, changes = VARIANTS[name]
    folder = tiny_folder(architecture, scratch / name)
    if not changes:
        return folder
    config = AutoConfig.from_pretrained(folder)
    config.update(changes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    return folder


def model_of(
    name: str, scratch: Path, *, dtype: torch.dtype = torch.float32, through: torch.dtype | None = None, **lora
):
    """A base with an adapter by plain peft, B moved as by training; the weights as they are when rounded `through`."""
    base = AutoModelForCausalLM.from_pretrained(folder_of(name, scratch), dtype=dtype)
    base.config.use_cache = False
    for parameter in base.parameters():
        parameter.data = parameter.data.to(through or dtype).to(dtype)
    config = LoraConfig(**({"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM"} | lora))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(base, config).eval()
    generator = torch.Generator().manual_seed(2)
    for parameter_name, parameter in model.named_parameters():
        if "lora_A" in parameter_name or "lora_B" in parameter_name:
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def trained_in(model) -> list[torch.nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad]


def _rows() -> list[Row]:
    """Beginnings within beginnings, equal rows, and one that begins alone; about half of the tokens are trained."""
    dice = np.random.default_rng(5)
    draw = lambda count: dice.integers(3, VOCABULARY, count)  # noqa: E731
    trunk, branch = draw(11), draw(9)
    ids = [[trunk, draw(6)], [trunk, branch, draw(14)], [trunk, branch, draw(3)], [draw(37)], [trunk, draw(20)]]
    whole = [np.concatenate(parts).astype(np.int32) for parts in [*ids, ids[0]]]
    return [Row(row, dice.random(len(row)) < 0.6) for row in whole]


ROWS = _rows()


@dataclass(frozen=True)
class Result:
    """A loss and the gradients of all that is trained."""

    loss: float
    gradients: tuple[torch.Tensor, ...]


def distance(found: Result, wanted: Result) -> tuple[float, float]:
    """How far apart, relative to what is wanted: the losses, and the gradients taken together."""
    pairs = list(zip(found.gradients, wanted.gradients, strict=True))
    assert pairs
    far = sum((a.double() - b.double()).square().sum() for a, b in pairs).sqrt().item()
    size = sum(b.double().square().sum() for _, b in pairs).sqrt().item()
    return abs(found.loss - wanted.loss) / abs(wanted.loss), far / size


def result_of(loss: torch.Tensor, model) -> Result:
    return Result(loss.item(), torch.autograd.grad(loss, trained_in(model)))


def by_library(model, rows: Sequence[Row] = ROWS) -> Result:
    """Each row alone through the library's own modules."""
    total, sums = 0.0, [torch.zeros(p.shape, dtype=torch.float64) for p in trained_in(model)]
    for row in rows:
        ids = torch.from_numpy(row.input_ids.astype(np.int64))
        labels = torch.where(torch.from_numpy(row.trained), ids, -100)
        logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1]
        loss = F.cross_entropy(logits.float(), labels[1:], ignore_index=-100, reduction="sum")
        total += loss.item()
        for sum_, part in zip(sums, torch.autograd.grad(loss, trained_in(model)), strict=True):
            sum_ += part
    return Result(total, tuple(sums))


def batch_of(*, share: bool) -> Batch:
    batch = collate(ROWS, range(len(ROWS)), is_packed=True, pad_id=0, share=share)
    assert (batch.input_ids.shape[1] < batch.num_tokens) == share
    return batch


def engine_of(model, *, keep: Keep = Keep.ALL) -> Engine:
    body = read_body(model.get_base_model(), as_linear)
    return Engine(body, Buffers(CPU), lambda *_: (keep,) * len(body.all_blocks))


def by_engine(model, *, share: bool = True, keep: Keep = Keep.ALL) -> Result:
    return result_of(engine_of(model, keep=keep).loss(as_packed(batch_of(share=share))), model)


def assert_agree(found: Result, wanted: Result) -> None:
    of_loss, of_gradients = distance(found, wanted)
    assert of_loss <= 1e-6
    assert of_gradients <= 1e-5


def assert_no_further(
    dtype: torch.dtype, scratch: Path, ours: Callable[[Any], Result], *, rows: Sequence[Row] = ROWS
) -> None:
    """In half precision no further from float32 than the library: over all models together, for each alone is a matter
    of luck.
    """
    found, theirs = np.zeros(2), np.zeros(2)
    for name in VARIANTS:
        exact = by_library(model_of(name, scratch, through=dtype), rows)
        half = model_of(name, scratch, dtype=dtype)
        found += distance(ours(half), exact)
        theirs += distance(by_library(half, rows), exact)
    assert (found <= 1.5 * theirs).all(), (found, theirs)
    assert (theirs > 0).all()

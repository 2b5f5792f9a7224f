"""Merges an adapter into its base one weight at a time, in float32, so that only the last rounding is lost.

Shapes: O outputs, I inputs, R rank, V rows and H width of an embedding, K trained rows.
"""

import math
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from peft.utils.other import get_pattern_key
from safetensors.torch import load_file
from transformers import PreTrainedModel

from fledge.adapters.read import config_of
from fledge.config.adapter_file import describe_adapter
from fledge.errors import ProofError

_PREFIX = "base_model.model."
_OWN = ".base_layer."
_ROWS = ".token_adapter.trainable_tokens_delta"
_PARTS = {
    ".lora_A.weight": "a",
    ".lora_embedding_A": "a",
    ".lora_B.weight": "b",
    ".lora_embedding_B": "b",
    ".lora_magnitude_vector": "magnitude",
    ".lora_magnitude_vector.weight": "magnitude",
}
_CURE = "use the adapter that the run trained"


@dataclass(frozen=True, slots=True)
class LowRank:
    """W + scale * B A, or DoRA's rescaling of it."""

    a: torch.Tensor
    """[R,I] or, of an embedding, [R,V]"""
    b: torch.Tensor
    """[O,R] or [H,R]"""
    scale: float
    magnitude: torch.Tensor | None = None
    """DoRA's, [O] or [H]"""


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows that take the place of the base's."""

    indices: tuple[int, ...]
    values: torch.Tensor
    """[K,H]"""


@dataclass(frozen=True, slots=True)
class Whole:
    """A tensor that takes the place of the base's."""

    tensor: torch.Tensor


Update = LowRank | Rows | Whole


def read_updates(folder: Path) -> dict[str, Update]:
    """What the adapter in `folder` does to its base, by the names of the base's tensors. In float32.

    Raises ProofError where the adapter's tensors do not go together, ModelError where its settings cannot be used.
    """
    config = config_of(describe_adapter(folder))
    found: dict[str, Update] = {}
    low_rank: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in load_file(folder / SAFETENSORS_WEIGHTS_NAME).items():
        name, tensor = key.removeprefix(_PREFIX), tensor.float()
        ending = next((ending for ending in _PARTS if name.endswith(ending)), None)
        if ending is not None:
            low_rank.setdefault(f"{name.removesuffix(ending)}.weight", {})[_PARTS[ending]] = tensor
        elif _OWN in name:
            continue  # the base's, and the same there: an adapter with another one is not loaded
        elif name.endswith(_ROWS):
            module = name.removesuffix(_ROWS)
            found[f"{module}.weight"] = Rows(_indices(config, module), tensor)
        else:
            found[name] = Whole(tensor)
    for name, parts in low_rank.items():
        if not parts.keys() >= {"a", "b"} or name in found or ("magnitude" in parts) != config.use_dora:
            raise ProofError(f"the adapter's tensors for {name} do not go together", where=str(folder), cure=_CURE)
        found[name] = LowRank(**parts, scale=_scale(config, name.removesuffix(".weight"), rank=parts["a"].shape[0]))
    return found


def _scale(config: LoraConfig, module: str, *, rank: int) -> float:
    """What B A is multiplied by in a module: peft may have given it an alpha of its own."""
    patterns = config.alpha_pattern
    alpha = patterns.get(get_pattern_key(list(patterns), module), config.lora_alpha)
    return float(alpha / (math.sqrt(rank) if config.use_rslora else rank))


def _indices(config: LoraConfig, module: str) -> tuple[int, ...]:
    """Which rows of a module are trained; peft names the module by its last part, or keeps one list for all."""
    asked = config.trainable_token_indices or {}
    lists = asked if isinstance(asked, dict) else {module: asked}
    found = (rows for name, rows in lists.items() if module == name or module.endswith(f".{name}"))
    return tuple(next(found, ()))


def rows_of(updates: dict[str, Update]) -> int:
    """How many rows the embedding must have for every row that was trained."""
    return max((1 + max(each.indices) for each in updates.values() if isinstance(each, Rows)), default=0)


def merged(weight: torch.Tensor, update: Update, *, name: str, is_turned: bool) -> torch.Tensor:
    """A weight with its update, in float32; `weight`, float32 too, is used up. The arithmetic is peft's, step by step.

    [O,I], or where `is_turned` [I,O] or an embedding's [V,H] -> the same. DoRA: https://arxiv.org/abs/2402.09353.
    Raises ProofError where the sum is not finite or the shapes do not fit.
    """
    assert weight.dtype == torch.float32, f"merging in {weight.dtype} would round twice"
    try:
        if isinstance(update, Whole):
            weight = update.tensor
        elif isinstance(update, Rows):
            weight[list(update.indices)] = update.values
        else:
            weight = _sum(weight, update, is_turned=is_turned)
    except (RuntimeError, IndexError) as error:
        raise ProofError(f"the adapter cannot be merged into {name}: {error}", cure=_CURE) from error
    if not bool(torch.isfinite(weight).all()):
        cure = "nothing was written; look at the losses of the training, or use --which best"
        raise ProofError(f"the adapter cannot be merged: {name} would not be finite", cure=cure)
    return weight


def _sum(weight: torch.Tensor, update: LowRank, *, is_turned: bool) -> torch.Tensor:
    delta = (update.b @ update.a).mul_(update.scale)
    weight += delta.T if is_turned else delta
    if update.magnitude is None:
        return weight
    by_output = weight.T if is_turned else weight
    factor = (update.magnitude / torch.linalg.norm(by_output, dim=1)).view(-1, 1)
    return weight.mul_(factor.T if is_turned else factor)


def apart(update: LowRank, *, before: torch.Tensor, after: torch.Tensor, is_turned: bool) -> float:
    """How far x W'^T is from x W^T + scale * x A^T B^T on random x, all in float64, as a share of |x| |W'|^T.

    `before` is W and `after` W', which is off by its own rounding to float32 alone: some 1e-7. DoRA's factor is taken
    from W and its update. A product that was left away or done twice shows as far as it counts.
    """
    w, merged_w = ((each.T if is_turned else each).double() for each in (before, after))
    a, b = update.a.double(), update.b.double()
    x = torch.randn(4, w.shape[1], dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = x @ w.T + update.scale * (x @ a.T) @ b.T
    if update.magnitude is not None:
        expected *= update.magnitude.double() / torch.linalg.norm(w + update.scale * (b @ a), dim=1)
    return float(((x @ merged_w.T - expected).abs() / (x.abs() @ merged_w.abs().T).clamp_min(1e-300)).max())


def merge(model: PeftModel) -> PreTrainedModel:
    """The base with the adapter merged by peft itself, the whole model at once, which `merged` must equal to the bit.

    `model` is used up. A head that is tied to the embedding stays tied. Raises ProofError where the sum is not finite.
    """
    dtypes = {parameter.dtype for parameter in model.parameters()}
    assert dtypes == {torch.float32}, f"merging in {dtypes} would round twice"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            whole = model.merge_and_unload(safe_merge=True)
    except ValueError as error:
        raise ProofError(f"the adapter cannot be merged: {error}", cure=_CURE) from error
    whole.tie_weights()
    return whole.eval()

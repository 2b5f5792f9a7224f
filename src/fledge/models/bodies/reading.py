"""What the readers of all architectures share: linears, norms and activations, each asked what it computes."""

import copy
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import nn

from fledge.engine.parts import Mlp, Split
from fledge.errors import NotReadable
from fledge.ops.activation import Activation, find_activation
from fledge.ops.lora_linear import Linear
from fledge.ops.norm import Norm, reference_norm

T = TypeVar("T")
AsLinear = Callable[[nn.Module], Linear | None]


def required(value: T | None, what: str) -> T:
    """The value, or NotReadable."""
    if value is None:
        raise NotReadable(what)
    return value


def read_norm(module: Any) -> Norm:
    """The norm that `module` computes, found by trying it on numbers."""
    weight = required(getattr(module, "weight", None), "a norm without weight")
    if any(p.requires_grad for p in module.parameters()):
        raise NotReadable("a trained norm")
    eps: float = required(getattr(module, "eps", getattr(module, "variance_epsilon", None)), "a norm without eps")
    wide, bias = weight.detach().float(), getattr(module, "bias", None)
    candidates = [
        Norm("layer", wide, None if bias is None else bias.detach().float(), eps),
        Norm("rms", wide, None, eps),
        Norm("rms", 1.0 + wide, None, eps),
    ]
    x = 3.0 + torch.randn(4, weight.shape[0], generator=torch.Generator().manual_seed(0)).to(weight.device)
    with torch.no_grad():
        wanted = copy.deepcopy(module).float()(x)
    far = [(reference_norm(x, n) - wanted).norm() for n in candidates]
    found = [n for n, distance in zip(candidates, far, strict=True) if distance <= 1e-4 * wanted.norm()]
    if len(found) != 1:
        raise NotReadable(f"{type(module).__name__} is no norm that the engine knows")
    return found[0]


def read_activation(function: Callable[[torch.Tensor], torch.Tensor]) -> Activation:
    """The activation that `function` computes."""
    return required(find_activation(function), "an activation that the engine does not know")


def read_linear(module: nn.Module, as_linear: AsLinear) -> Linear:
    """The linear that `module` is."""
    return required(as_linear(module), f"{type(module).__name__} is no linear that the engine knows")


def read_mlp(up: nn.Module, down: nn.Module, *, activation: Any, as_linear: AsLinear, gate: Any = None) -> Mlp:
    """A feed-forward layer of these modules."""
    return Mlp(
        gate=None if gate is None else read_linear(gate, as_linear),
        up=read_linear(up, as_linear),
        down=read_linear(down, as_linear),
        activation=read_activation(activation),
    )


def interleaved(heads: int, head_dim: int) -> Split:
    """One projection that holds q, k and v head by head: [T, H*3*D]."""

    def split(parts: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        whole = parts[0].view(-1, heads, 3, head_dim)
        return whole[:, :, 0, None], whole[:, :, 1], whole[:, :, 2]

    return split


def consecutive(heads: int, kv_heads: int, *, head_dim: int) -> Split:
    """One projection that holds all of q, then all of k, then all of v: [T, (H+K+K)*D]."""

    def split(parts: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        q, k, v = parts[0].view(-1, heads + 2 * kv_heads, head_dim).split([heads, kv_heads, kv_heads], dim=1)
        return q.unflatten(1, (kv_heads, heads // kv_heads)), k, v

    return split


def grouped(kv_heads: int, groups: int, *, head_dim: int) -> Split:
    """One projection that holds, for each key/value head, its queries, its key and its value: [T, K*(G+2)*D]."""

    def split(parts: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        whole = parts[0].view(-1, kv_heads, groups + 2, head_dim)
        return whole[:, :, :groups], whole[:, :, groups], whole[:, :, groups + 1]

    return split


def separate(kv_heads: int, groups: int, *, head_dim: int) -> Split:
    """A projection each."""

    def split(parts: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        q, k, v = parts
        return q.view(-1, kv_heads, groups, head_dim), k.view(-1, kv_heads, head_dim), v.view(-1, kv_heads, head_dim)

    return split


def all_alike(modules: Sequence[nn.Module]) -> type[nn.Module]:
    """The one type that all these blocks have."""
    types = {type(module) for module in modules}
    if len(types) != 1:
        raise NotReadable("blocks of several types")
    return types.pop()

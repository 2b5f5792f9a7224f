"""What a module computes is found by trying it on numbers: norms of every kind, size and number format."""

import pytest
import torch
from torch import nn
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from fledge.errors import NotReadable
from fledge.models.bodies.reading import read_norm
from fledge.ops.norm import reference_norm

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
KINDS = {"llama": (LlamaRMSNorm, "rms"), "gemma": (GemmaRMSNorm, "rms"), "layer": (nn.LayerNorm, "layer")}


def norm_module(name: str, width: int, *, weight: float, dtype: torch.dtype) -> nn.Module:
    module, generator = KINDS[name][0](width), torch.Generator().manual_seed(1)
    module.weight.data = weight * (1 + 0.2 * torch.randn(width, generator=generator))
    if name == "layer":
        module.bias.data = 0.1 * torch.randn(width, generator=generator)
    return module.to(dtype).requires_grad_(False)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weight", [0.02, 0.2, 1.0, 10.0])
@pytest.mark.parametrize("width", [32, 576, 4096])
@pytest.mark.parametrize("name", KINDS)
def test_a_norm_is_read_as_what_it_is(name, width, weight, dtype):
    """Weights of real models: in the first blocks of a Llama most lie below 0.1."""
    module = norm_module(name, width, weight=weight, dtype=dtype)
    norm = read_norm(module)
    assert norm.kind == KINDS[name][1]
    x = 3 + torch.randn(5, width, generator=torch.Generator().manual_seed(2))
    wanted = module(x.to(dtype)).float()
    found = reference_norm(x.to(dtype), norm).float()
    assert (found - wanted).norm() <= (1e-6 if dtype == torch.float32 else 1e-2) * wanted.norm()


def test_a_layer_norm_without_bias_is_not_taken_for_an_rms_norm():
    module = nn.LayerNorm(4096, bias=False).bfloat16().requires_grad_(False)
    module.weight.data *= 0.05
    assert read_norm(module).kind == "layer"


class Centred(nn.Module):
    """No norm that the engine knows: it divides by the largest value."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(32), requires_grad=False), 1e-5

    def forward(self, x):
        return self.weight * x / x.abs().amax(-1, keepdim=True)


@pytest.mark.parametrize("weight", [0.01, 1.0])
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_computes_something_else_is_not_read(dtype, weight):
    module = Centred().to(dtype)
    module.weight.data *= weight
    with pytest.raises(NotReadable):
        read_norm(module)


def test_a_norm_that_is_trained_or_has_no_weight_is_not_read():
    with pytest.raises(NotReadable, match="trained"):
        read_norm(nn.LayerNorm(32))
    with pytest.raises(NotReadable, match="without weight"):
        read_norm(nn.LayerNorm(32, elementwise_affine=False))

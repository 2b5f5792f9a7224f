"""A frozen linear with an adapter: the reference's values, and the gradients of the input, A and B."""

from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fledge.ops.lora_linear import Linear, Lora, linear, linear_gradient, reference_linear
from tests.unit.ops.near import HALVES, assert_near, assert_no_worse, normal


@dataclass(frozen=True)
class Case:
    """A layer with what goes through it."""

    layer: Linear
    x: torch.Tensor
    dy: torch.Tensor
    residual: torch.Tensor | None
    before: torch.Tensor | None
    """What there is of the input's gradient already."""


def mask_of(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    return ((normal(*shape, seed=9) > -0.5) / 0.7).to(dtype)


def drop(x: torch.Tensor) -> torch.Tensor:
    return x * mask_of(tuple(x.shape), x.dtype)


def case_of(count: int, inputs: int, outputs: int, *, rank: int = 0, dtype: torch.dtype = torch.float32, **has) -> Case:
    """A rank of 0 is no adapter. `has` says which parts there are: bias, dropout, transposed, residual, before."""
    weight = normal(inputs, outputs, scale=inputs**-0.5, dtype=dtype).t()
    a, b = normal(rank, inputs, seed=2, scale=inputs**-0.5), normal(outputs, rank, seed=3, scale=0.3)
    lora = Lora(nn.Parameter(a), nn.Parameter(b), 1.7, drop if has.get("dropout") else None)
    return Case(
        layer=Linear(
            weight=weight if has.get("transposed") else weight.contiguous(),
            bias=normal(outputs, seed=4, dtype=dtype) if has.get("bias") else None,
            lora=lora if rank else None,
        ),
        x=normal(count, inputs, seed=5, dtype=dtype),
        dy=normal(count, outputs, seed=6, dtype=dtype),
        residual=normal(count, outputs, seed=7, dtype=dtype) if has.get("residual") else None,
        before=normal(count, inputs, seed=8, dtype=dtype) if has.get("before") else None,
    )


@torch.no_grad()
def by_us(case: Case) -> list[torch.Tensor]:
    """y, dx and, where there is an adapter, dA and dB."""
    y = linear(case.x, case.layer, out=torch.full_like(case.dy, float("nan")), residual=case.residual)
    dx = torch.full_like(case.x, float("nan")) if case.before is None else case.before.clone()
    found = linear_gradient(case.dy, case.layer, x=case.x, dx=dx, add=case.before is not None)
    assert (found is None) == (case.layer.lora is None)
    return [y, dx, *(found or ())]


def by_reference(case: Case) -> list[torch.Tensor]:
    x, lora = case.x.clone().requires_grad_(), case.layer.lora
    y = reference_linear(x, case.layer)
    dx, *of_adapter = torch.autograd.grad(y, [x] if lora is None else [x, lora.a, lora.b], case.dy)
    with_residual = y if case.residual is None else y + case.residual
    return [with_residual.detach(), dx if case.before is None else dx + case.before, *of_adapter]


def wider(case: Case, *, master: torch.dtype = torch.float32) -> Case:
    """The same numbers in float32, with A and B as rounded to `master`."""
    lora = case.layer.lora
    rounded = Lora(*(nn.Parameter(p.detach().to(master).float()) for p in (lora.a, lora.b)), lora.scale, lora.drop)
    wide = [None if part is None else part.float() for part in (case.layer.weight, case.layer.bias)]
    parts = {name: getattr(case, name) for name in ("x", "dy", "residual", "before")}
    return Case(
        Linear(*wide, rounded), **{name: None if part is None else part.float() for name, part in parts.items()}
    )


sizes = st.integers(1, 40)
parts = st.fixed_dictionaries({name: st.booleans() for name in ("bias", "dropout", "transposed", "residual", "before")})


@settings(max_examples=60, deadline=None)
@given(sizes, sizes, sizes, st.integers(0, 5), parts)
def test_values_and_gradients_are_the_references(count, inputs, outputs, rank, has):
    case = case_of(count, inputs, outputs, rank=rank, **has)
    found = by_us(case)
    assert len(found) == (4 if rank else 2)
    assert_near(found, by_reference(case))


def test_without_an_adapter_the_input_is_not_needed():
    case = case_of(5, 8, 12)
    dx = torch.empty_like(case.x)
    assert linear_gradient(case.dy, case.layer, x=None, dx=dx) is None
    assert_near([dx], by_reference(case)[1:2])


def test_where_nothing_below_is_trained_the_adapter_has_its_gradient_all_the_same():
    case = case_of(5, 8, 12, rank=3)
    with torch.no_grad():
        found = linear_gradient(case.dy, case.layer, x=case.x, dx=None)
    assert_near(found, by_reference(case)[2:])


def by_plain_torch(case: Case) -> list[torch.Tensor]:
    """As torch computes it where everything, A and B too, is in the input's number format."""
    dtype, lora = case.x.dtype, case.layer.lora
    x, a, b = (part.detach().to(dtype).requires_grad_() for part in (case.x, lora.a, lora.b))
    y = nn.functional.linear(x, case.layer.weight, case.layer.bias)
    y = y + (x if lora.drop is None else lora.drop(x)) @ a.t() @ b.t() * lora.scale
    dx, da, db = torch.autograd.grad(y, [x, a, b], case.dy)
    with_residual = y if case.residual is None else y + case.residual
    return [with_residual.detach(), dx if case.before is None else dx + case.before, da, db]


@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_is_no_worse_than_plain_torch(dtype, dropout):
    case = case_of(96, 128, 80, rank=8, dtype=dtype, bias=True, residual=True, before=True, dropout=dropout)
    found = by_us(case)
    assert [part.dtype for part in found] == [dtype, dtype, torch.float32, torch.float32]
    assert_no_worse(found, by_plain_torch(case), by_reference(wider(case)))


def test_the_masters_are_left_as_they_are():
    case = case_of(6, 8, 12, rank=3, dtype=torch.bfloat16)
    lora = case.layer.lora
    before = lora.a.detach().clone(), lora.b.detach().clone()
    by_us(replace(case))
    assert torch.equal(lora.a, before[0])
    assert torch.equal(lora.b, before[1])
    assert {lora.a.dtype, lora.b.dtype} == {torch.float32}

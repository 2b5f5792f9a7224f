"""A frozen linear with an adapter: the reference's values, and the gradients of the input, A and B."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from fledge.ops.lora_linear import Linear, Lora, linear, linear_gradients, linears, reference_linear
from tests.unit.ops.near import HALVES, assert_near, assert_no_worse, normal

Change = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Case:
    """A layer with what goes through it."""

    layer: Linear
    x: torch.Tensor
    dy: torch.Tensor
    residual: torch.Tensor | None
    beside: tuple[Linear, torch.Tensor] | None
    """Another layer of the same input, and its dy."""


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
        beside=beside_of(count, inputs, rank=rank, dtype=dtype) if has.get("beside") else None,
    )


def beside_of(count: int, inputs: int, *, rank: int, dtype: torch.dtype) -> tuple[Linear, torch.Tensor]:
    other = case_of(count, inputs, 7, rank=rank, dtype=dtype)
    return other.layer, normal(count, 7, seed=8, dtype=dtype)


@torch.no_grad()
def by_us(case: Case) -> list[torch.Tensor]:
    """y, dx and, where there is an adapter, dA and dB."""
    y = linear(case.x, case.layer, out=torch.full_like(case.dy, float("nan")), residual=case.residual)
    dx = torch.full_like(case.x, float("nan"))
    layers, given = zip((case.layer, case.dy), *([case.beside] if case.beside else []), strict=True)
    return [y, dx, *linear_gradients(given, layers, x=case.x, dx=dx)]


def by_reference(case: Case) -> list[torch.Tensor]:
    x, lora = case.x.clone().requires_grad_(), case.layer.lora
    y = reference_linear(x, case.layer)
    dx, *of_adapter = torch.autograd.grad(y, [x] if lora is None else [x, lora.a, lora.b], case.dy)
    with_residual = y if case.residual is None else y + case.residual
    return [with_residual.detach(), *_with_beside(case, x, [dx, *of_adapter], reference_linear)]


def _with_beside(case: Case, x: torch.Tensor, gradients: list[torch.Tensor], compute) -> list[torch.Tensor]:
    """dx with the other layer's part, and the other adapter's gradients after the first one's."""
    if case.beside is None:
        return gradients
    layer, dy = case.beside
    trained = [] if layer.lora is None else [layer.lora.a, layer.lora.b]
    dx, *more = torch.autograd.grad(compute(x, layer), [x, *trained], dy)
    return [gradients[0] + dx, *gradients[1:], *more]


def wider(case: Case, *, master: torch.dtype = torch.float32) -> Case:
    """The same numbers in float32, with A and B as rounded to `master`."""
    return in_format(case, torch.float32, master)


def in_format(case: Case, dtype: torch.dtype, master: torch.dtype = torch.float32) -> Case:
    """The same numbers, in another number format."""
    return changed(case, lambda part: part.to(dtype), lambda part: part.to(master).to(dtype))


def changed(case: Case, part: Change, master: Change | None = None) -> Case:
    """The case with every tensor changed by `part`, A and B by `master`."""

    def layer(one: Linear) -> Linear:
        lora = one.lora
        if lora is not None:
            a, b = (nn.Parameter((master or part)(p.detach())) for p in (lora.a, lora.b))
            lora = Lora(a, b, lora.scale, lora.drop)
        return Linear(part(one.weight), None if one.bias is None else part(one.bias), lora)

    return Case(
        layer=layer(case.layer),
        x=part(case.x),
        dy=part(case.dy),
        residual=None if case.residual is None else part(case.residual),
        beside=None if case.beside is None else (layer(case.beside[0]), part(case.beside[1])),
    )


sizes = st.integers(1, 40)
parts = st.fixed_dictionaries({name: st.booleans() for name in ("bias", "dropout", "transposed", "residual", "beside")})


def assert_exact_but_for_rounding(found: list[torch.Tensor], case: Case) -> None:
    exact = by_reference(in_format(case, torch.float64))
    terms = by_reference(changed(case, torch.abs))  # where terms all but cancel out, a sum is no nearer than they are
    for number, (ours, wanted, size) in enumerate(zip(found, exact, terms, strict=True)):
        assert (ours.double() - wanted).norm() <= 1e-6 * size.double().norm(), number


@settings(max_examples=60, deadline=None)
@given(sizes, sizes, sizes, st.integers(0, 5), parts)
@example(40, 1, 1, 1, {"beside": True})  # a gradient of one number, a hundredth of its terms
def test_values_and_gradients_are_the_references(count, inputs, outputs, rank, has):
    case = case_of(count, inputs, outputs, rank=rank, **has)
    found = by_us(case)
    assert len(found) == (2 if not rank else 6 if has.get("beside") else 4)
    assert_exact_but_for_rounding(found, case)


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
@pytest.mark.parametrize("dropped", [0, 1, 3])
def test_layers_of_one_input_are_computed_together(dropped, dtype):
    cases = [case_of(20, 24, outputs, rank=rank, dtype=dtype) for outputs, rank in ((9, 4), (16, 0), (30, 2))]
    layers = [case.layer for case in cases]
    chosen = [replace(layer, lora=layer.lora and replace(layer.lora, drop=drop)) for layer in layers[:dropped]]
    layers = [*chosen, *layers[dropped:]]
    x, given = cases[0].x, [case.dy for case in cases]
    with torch.no_grad():
        found = linears(x, layers, outs=[torch.full_like(dy, float("nan")) for dy in given])
        wanted = [linear(x, layer, out=torch.empty_like(dy)) for layer, dy in zip(layers, given, strict=True)]
        dx, apart = torch.empty_like(x), torch.zeros(x.shape)
        together = linear_gradients(given, layers, x=x, dx=dx)
        alone = []
        for dy, layer in zip(given, layers, strict=True):
            part = torch.empty_like(x)
            alone += linear_gradients([dy], [layer], x=x, dx=part)
            apart += part
    within = 1e-6 if dtype == torch.float32 else 2 * torch.finfo(dtype).eps
    for ours, theirs in zip([*found, dx, *together], [*wanted, apart, *alone], strict=True):
        assert (ours.float() - theirs.float()).norm() <= within * theirs.float().norm()
    assert [gradient.shape for gradient in together] == [gradient.shape for gradient in alone]


def test_without_an_adapter_the_input_is_not_needed():
    case = case_of(5, 8, 12)
    dx = torch.empty_like(case.x)
    assert linear_gradients([case.dy], [case.layer], x=None, dx=dx) == []
    assert_near([dx], by_reference(case)[1:2])


def test_where_nothing_below_is_trained_the_adapter_has_its_gradient_all_the_same():
    case = case_of(5, 8, 12, rank=3)
    with torch.no_grad():
        found = linear_gradients([case.dy], [case.layer], x=case.x, dx=None)
    assert_near(found, by_reference(case)[2:])


def plainly(x: torch.Tensor, layer: Linear) -> torch.Tensor:
    """As torch computes it where everything, A and B too, is in the input's number format."""
    lora, dtype = layer.lora, x.dtype
    y = nn.functional.linear(x, layer.weight, layer.bias)
    return y + (x if lora.drop is None else lora.drop(x)) @ lora.a.to(dtype).t() @ lora.b.to(dtype).t() * lora.scale


def by_plain_torch(case: Case) -> list[torch.Tensor]:
    x, lora = case.x.clone().requires_grad_(), case.layer.lora
    y = plainly(x, case.layer)
    gradients = list(torch.autograd.grad(y, [x, lora.a, lora.b], case.dy))
    with_residual = y if case.residual is None else y + case.residual
    return [with_residual.detach(), *_with_beside(case, x, gradients, plainly)]


@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_is_no_worse_than_plain_torch(dtype, dropout):
    case = case_of(96, 128, 80, rank=8, dtype=dtype, bias=True, residual=True, beside=True, dropout=dropout)
    found = by_us(case)
    assert [part.dtype for part in found] == [dtype, dtype, *[torch.float32] * 4]
    assert_no_worse(found, by_plain_torch(case), by_reference(wider(case)))


def kept(found: torch.Tensor, without: torch.Tensor, part: torch.Tensor) -> float:
    """How much of a small part is in what was found: 1 where it is all there, 0 where rounding swallowed it."""
    return float(((found.double() - without) * part).sum() / part.square().sum())


@pytest.mark.parametrize("has", [{}, {"residual": True}, {"bias": True}, {"residual": True, "bias": True}], ids=str)
def test_an_adapter_smaller_than_the_last_bit_of_the_rest_is_not_swallowed(has):
    case = case_of(256, 512, 512, rank=8, dtype=torch.bfloat16, **has)
    with torch.no_grad():
        case.layer.lora.b.mul_(1e-3)
        exact = wider(case, master=torch.float64)
        bare = replace(exact, layer=replace(exact.layer, lora=None))
        y = linear(bare.x.double(), _double(bare.layer), out=torch.empty(256, 512, dtype=torch.float64))
        y = y if bare.residual is None else y + bare.residual
        part = (exact.x @ exact.layer.lora.a.t() @ exact.layer.lora.b.t() * 1.7).double()
        found, dx, *_ = by_us(case)
        dx_bare = bare.dy.double() @ bare.layer.weight.double()
        dx_part = (exact.dy @ exact.layer.lora.b @ exact.layer.lora.a * 1.7).double()
    assert part.abs().mean() < 2**-9 * y.abs().mean(), "smaller than bfloat16 resolves"
    assert kept(found, y, part) == pytest.approx(1, abs=0.2)
    assert kept(dx, dx_bare, dx_part) == pytest.approx(1, abs=0.2)


def _double(layer: Linear) -> Linear:
    return Linear(layer.weight.double(), None if layer.bias is None else layer.bias.double(), None)


def test_the_masters_are_left_as_they_are():
    case = case_of(6, 8, 12, rank=3, dtype=torch.bfloat16)
    lora = case.layer.lora
    before = lora.a.detach().clone(), lora.b.detach().clone()
    by_us(replace(case))
    assert torch.equal(lora.a, before[0])
    assert torch.equal(lora.b, before[1])
    assert {lora.a.dtype, lora.b.dtype} == {torch.float32}

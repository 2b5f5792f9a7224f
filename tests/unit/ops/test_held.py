"""Weights held in fewer bits or elsewhere: the products of the dequantised weight, with and without an adapter."""

from dataclasses import replace

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.checkpoint import checkpoint

from fledge.ops import frozen_linear, product
from fledge.ops.frozen_linear import PARTS, FrozenLinear, tensors_of
from fledge.ops.held import HeldInt8, HeldNf4, HeldValues, Scratch, dequantized
from fledge.ops.int8 import dequantize_int8, quantize_int8
from fledge.ops.lora_linear import linear
from fledge.ops.nf4 import quantize_nf4, reference_dequantize_nf4
from tests.unit.ops.near import HALVES, assert_near, assert_no_worse, normal
from tests.unit.ops.test_lora_linear import (
    assert_exact_but_for_rounding,
    by_plain_torch,
    by_reference,
    by_us,
    case_of,
    wider,
)

CPU = torch.device("cpu")
WAYS = ("int8", "nf4", "elsewhere")


def held_as(way, weight, scratch=None):
    scratch, dtype = scratch or Scratch(CPU), weight.dtype
    if way == "int8":
        return HeldInt8(quantize_int8(weight), dtype, scratch)
    if way == "nf4":
        return HeldNf4(quantize_nf4(weight), tuple(weight.shape), dtype, scratch)
    return HeldValues(weight.contiguous(), scratch=scratch)


def held_case(way, case):
    layer = replace(case.layer, weight=held_as(way, case.layer.weight))
    return replace(case, layer=layer)


def plain_case(case):
    """The same with the dequantised weights as plain tensors."""
    return replace(case, layer=replace(case.layer, weight=dequantized(case.layer.weight)))


def layer_of(kind, weight, bias=None):
    quantized = {"int8": quantize_int8, "nf4": quantize_nf4}[kind](weight)
    layer = FrozenLinear(kind, tuple(weight.shape), bias=bias, dtype=weight.dtype)
    for part in PARTS[kind]:
        layer.register_parameter(part, nn.Parameter(getattr(quantized, part), requires_grad=False))
    layer.scratch = Scratch(CPU)
    return layer


sizes = st.integers(1, 40)
parts = st.fixed_dictionaries({name: st.booleans() for name in ("bias", "dropout", "transposed", "residual", "beside")})


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=30, deadline=None)
@given(count=sizes, inputs=sizes, outputs=sizes, rank=st.integers(0, 5), has=parts)
@example(count=40, inputs=1, outputs=1, rank=1, has={"beside": True})  # a gradient of one number, far below its terms
def test_values_and_gradients_are_those_of_the_dequantised_weight(way, count, inputs, outputs, rank, has):
    case = held_case(way, case_of(count, inputs, outputs, rank=rank, **has))
    assert_exact_but_for_rounding(by_us(case), plain_case(case))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_is_no_worse_than_plain_torch_on_the_dequantised_weight(way, dtype):
    case = held_case(way, case_of(96, 128, 80, rank=8, dtype=dtype, bias=True, residual=True, beside=True))
    plain = plain_case(case)
    exact = {
        "int8": lambda held: dequantize_int8(held.held),
        "nf4": lambda held: reference_dequantize_nf4(held.held, held.shape),
        "elsewhere": lambda held: held.values.float(),
    }[way](case.layer.weight)
    wide = wider(plain)
    wide = replace(wide, layer=replace(wide.layer, weight=exact))
    found = by_us(case)
    assert [part.dtype for part in found] == [dtype, dtype, *[torch.float32] * 4]
    assert_no_worse(found, by_plain_torch(plain), by_reference(wide))


@pytest.mark.parametrize("way", WAYS)
def test_a_kept_copy_gives_the_same_bits(way):
    case = held_case(way, case_of(24, 64, 48, rank=4, dtype=torch.bfloat16, bias=True))
    held = case.layer.weight
    kept = HeldValues(held.whole().clone(), held.scale)
    found = by_us(replace(case, layer=replace(case.layer, weight=kept)))
    assert all(torch.equal(a, b) for a, b in zip(found, by_us(case), strict=True))


def test_layers_share_one_memory_to_be_whole_in():
    scratch = Scratch(CPU)
    small, large = held_as("nf4", normal(8, 64), scratch), held_as("int8", normal(32, 64, seed=1), scratch)
    assert large.whole().data_ptr() == scratch.take((1, 1), torch.float32).data_ptr()
    first = small.whole()
    assert first.data_ptr() == large.whole().data_ptr()


def test_int8_in_float16_does_not_overflow_where_the_output_does_not():
    weight = torch.full((4, 600), 0.01, dtype=torch.float16)
    x = torch.full((1, 600), 8.0, dtype=torch.float16)
    case = case_of(1, 600, 4, dtype=torch.float16)
    layer = replace(case.layer, weight=held_as("int8", weight))
    y = linear(x, layer, out=torch.empty(1, 4, dtype=torch.float16))
    assert y.isfinite().all()  # 48; the products with bare integers would be 609,600
    assert y[0].tolist() == pytest.approx([48.0] * 4, rel=1e-2)


@pytest.mark.parametrize("kind", ["int8", "nf4"])
@pytest.mark.parametrize("has_bias", [True, False])
def test_the_layer_computes_and_differentiates_what_a_plain_one_with_its_weight_does(kind, has_bias):
    layer = layer_of(kind, normal(12, 64), normal(12, seed=1) if has_bias else None)
    plain = nn.Linear(64, 12, bias=has_bias)
    plain.weight.data, plain.bias = layer.dequantize(), layer.bias
    for shape in ((5, 64), (2, 3, 64), (64,)):
        x = normal(*shape, seed=2).requires_grad_()
        y, wanted = layer(x), plain(x)
        dy = normal(*wanted.shape, seed=3)
        [dx], [dx_wanted] = torch.autograd.grad(y, x, dy), torch.autograd.grad(wanted, x, dy)
        assert_near([y, dx], [wanted, dx_wanted])


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_without_half_precision_instructions_the_layer_takes_float32_tiles_forward_and_backward(kind, monkeypatch):
    layer = layer_of(kind, normal(24, 128).bfloat16())
    x, dy = normal(2, 5, 128).bfloat16().requires_grad_(), normal(2, 5, 24).bfloat16()
    taken = []

    def counted(a, b, *, out, add=None):
        taken.append(tuple(b.shape))
        return product.widened_mm(a, b, out=out, add=add)

    monkeypatch.setattr(frozen_linear, "must_widen", lambda dtype, kind: True)
    monkeypatch.setattr(product, "mm", counted)
    y = layer(x)
    (dx,) = torch.autograd.grad(y, x, dy)
    assert taken == [(128, 24), (24, 128)]
    weight = layer.dequantize().float()
    torch.testing.assert_close(
        y.float(), x.detach().float() @ weight.t(), rtol=2e-2, atol=2e-2 * float(y.detach().abs().max())
    )
    torch.testing.assert_close(dx.float(), dy.float() @ weight, rtol=2e-2, atol=2e-2 * float(dx.abs().max()))


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_the_layer_keeps_nothing_for_its_backward_pass_and_recomputes_under_checkpointing(kind):
    layer, saved = layer_of(kind, normal(12, 64)), []
    x = normal(5, 64, seed=2).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor) or tensor, lambda tensor: tensor):
        y = layer(x)
    assert saved == []
    y.sum().backward()
    straight, x.grad = x.grad, None
    checkpoint(layer, x, use_reentrant=False).sum().backward()
    assert torch.equal(x.grad, straight)


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_the_layers_tensors_are_plain_ones_that_save_and_load_and_move(kind):
    layer = layer_of(kind, normal(12, 64), normal(12, seed=1))
    state = layer.state_dict()
    assert set(state) == {"bias", *PARTS[kind]}
    assert {name: (tuple(t.shape), t.dtype) for name, t in state.items() if name != "bias"} == tensors_of(
        kind, (12, 64)
    )
    other = layer_of(kind, normal(12, 64, seed=5), normal(12, seed=6))
    other.load_state_dict(state)
    assert torch.equal(other.dequantize(), layer.dequantize())
    assert not any(p.requires_grad for p in layer.parameters())
    assert layer.weight is None
    assert isinstance(layer, nn.Linear)
    assert kind in repr(layer)

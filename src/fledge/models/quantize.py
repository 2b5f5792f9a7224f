"""Quantises the linears of a base's blocks while transformers loads it, one at a time, and loads what was quantised.

It is a quantizer as transformers knows them, so that names, conversions and tied weights are the library's own affair.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.core_model_loading import ConversionOps
from transformers.models.falcon.modeling_falcon import FalconLinear
from transformers.pytorch_utils import Conv1D
from transformers.quantizers import HfQuantizer
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING, AUTO_QUANTIZER_MAPPING
from transformers.utils.quantization_config import QuantizationConfigMixin

from fledge.errors import ModelError
from fledge.models.blocks import blocks
from fledge.ops.buffers import give_back
from fledge.ops.frozen_linear import PARTS, FrozenLinear, tensors_of
from fledge.ops.held import Scratch
from fledge.ops.int8 import quantize_int8
from fledge.ops.nf4 import quantize_nf4

METHOD = "fledge"
_CURE = "fetch the base again, all of its files"
LINEARS: tuple[type[nn.Module], ...] = (nn.Linear, Conv1D, FalconLinear)
"""Modules that compute x W^T + b and nothing else; of a subclass that is not here, who knows."""

Count = Callable[[int, int], None]
"""Told how many weights of how many are done."""
Quantize = Callable[[torch.Tensor], Any]
QUANTIZE: dict[str, Quantize] = {"int8": quantize_int8, "nf4": quantize_nf4}


class Request(QuantizationConfigMixin):
    """What is asked of the loader: the kind, and whether codes are loaded (`is_loaded`) or made."""

    def __init__(self, kind: str, *, dtype: torch.dtype, is_loaded: bool, tell: Count | None) -> None:
        self.quant_method = METHOD
        self.kind, self.dtype, self.is_loaded, self.tell = kind, dtype, is_loaded, tell
        self.problem: ModelError | None = None
        """What was wrong with a weight: the loader goes on, and ends with words of its own."""


class Quantizer(HfQuantizer):
    """Puts a FrozenLinear in the place of each linear of the blocks and fills it from what is read."""

    def __init__(self, quantization_config: Request, *, pre_quantized: bool = False) -> None:
        super().__init__(quantization_config, pre_quantized=pre_quantized)
        self.request = quantization_config
        self.waiting: set[str] = set()
        """Names of the weights that are yet to be quantised."""
        self.total = 0

    def _process_model_before_weight_loading(self, model: PreTrainedModel, **kwargs: Any) -> None:
        scratch = Scratch(torch.device("cpu"))
        for name in linear_names(model):
            old = model.get_submodule(name)
            model.set_submodule(name, _frozen(old, self.request, scratch=scratch))
            if not self.request.is_loaded:
                self.waiting.add(f"{name}.weight")
        self.total = len(self.waiting)
        if self.waiting:  # so that they are read as they are, and not rounded to the base's format first
            model._keep_in_fp32_modules_strict = {*(model._keep_in_fp32_modules_strict or ()), *self.waiting}

    def param_needs_quantization(self, model: PreTrainedModel, param_name: str, **kwargs: Any) -> bool:
        return param_name in self.waiting

    def get_quantize_ops(self) -> ConversionOps:
        return _Quantize(self)

    def _process_model_after_weight_loading(self, model: PreTrainedModel, **kwargs: Any) -> None:
        self.remove_quantization_config(model)
        for module in model.modules():
            if isinstance(module, FrozenLinear):
                module.weight = None
                module._state_dict_hooks.clear()

    def is_serializable(self) -> bool:
        return False

    @property
    def is_trainable(self) -> bool:
        return True


class _Quantize(ConversionOps):
    """One weight: its codes and scales take its place."""

    def __init__(self, quantizer: Quantizer) -> None:
        self.quantizer = quantizer

    def convert(self, input_dict: dict[str, Any], **kwargs: Any) -> dict[str, torch.Tensor]:
        quantizer, request = self.quantizer, self.quantizer.request
        [(name, value)] = input_dict.items()
        module, before = kwargs["model"].get_submodule(name.removesuffix(".weight")), name.removesuffix("weight")
        weight = value[0] if isinstance(value, list) else value
        try:
            quantized = _quantized(weight.t() if module.is_turned else weight, module, kind=request.kind)
        except ModelError as error:
            request.problem = ModelError(f"{name}: {error.problems[0].what}", cure=_CURE)
            raise
        _leave_no_weight(module)
        kwargs["missing_keys"].discard(name)
        if request.tell is not None:
            request.tell(quantizer.total - len(quantizer.waiting) + 1, quantizer.total)
        quantizer.waiting.discard(name)
        give_back()
        return {f"{before}{part}": getattr(quantized, part) for part in PARTS[request.kind]}


def _quantized(weight: torch.Tensor, module: FrozenLinear, *, kind: str) -> Any:
    wanted = (module.out_features, module.in_features)
    if tuple(weight.shape) != wanted:
        raise ModelError(f"the weight is {tuple(weight.shape)}, the model wants {wanted}", cure=_CURE)
    return QUANTIZE[kind](weight)


def linear_names(model: PreTrainedModel) -> list[str]:
    """Full names of the linears of the blocks, the head left out."""
    inside = {id(module) for block in blocks(model) for module in block.modules() if type(module) in LINEARS}
    head = model.get_output_embeddings()
    return [name for name, module in model.named_modules() if id(module) in inside and module is not head]


def quantized_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Codes and scales of every frozen layer by full name: what is kept to be loaded again."""
    return {
        f"{name}.{part}": getattr(module, part)
        for name, module in model.named_modules()
        if isinstance(module, FrozenLinear) and module.kind in QUANTIZE
        for part in PARTS[module.kind]
    }


def as_plain_linears(model: nn.Module) -> None:
    """Put plain layers with the dequantised weights in the place of the frozen ones, of the kind that stood there."""
    frozen = [(name, module) for name, module in model.named_modules() if isinstance(module, FrozenLinear)]
    for name, module in frozen:
        with torch.device("meta"):
            outputs, inputs = module.out_features, module.in_features
            plain = Conv1D(outputs, inputs) if module.is_turned else nn.Linear(inputs, outputs, bias=False)
        weight = module.dequantize()
        plain.weight = nn.Parameter(weight.t().contiguous() if module.is_turned else weight, requires_grad=False)
        plain.bias = module.bias
        model.set_submodule(name, plain)


def quantized_share(model: PreTrainedModel) -> float:
    """Which share of the blocks' parameters is in fewer bits: experts that are no linears, as in a mixture, are not."""
    parts = [module for block in blocks(model) for module in block.modules()]
    held = sum(m.in_features * m.out_features for m in parts if isinstance(m, FrozenLinear))
    plain = sum(p.numel() for m in parts if not isinstance(m, FrozenLinear) for p in m.parameters(recurse=False))
    return held / max(1, held + plain)


def register() -> None:
    """Make the quantizer known to transformers, which finds it by the name of its method."""
    AUTO_QUANTIZER_MAPPING.setdefault(METHOD, Quantizer)
    AUTO_QUANTIZATION_CONFIG_MAPPING.setdefault(METHOD, Request)


def _frozen(old: nn.Module, request: Request, *, scratch: Scratch) -> FrozenLinear:
    weight: Any = old.weight
    shape = (weight.shape[1], weight.shape[0]) if isinstance(old, Conv1D) else tuple(weight.shape)
    module = FrozenLinear(request.kind, shape, bias=old.bias, dtype=request.dtype)
    module.scratch, module.is_turned = scratch, isinstance(old, Conv1D)
    for part, (size, kind) in tensors_of(request.kind, shape).items():
        parameter = nn.Parameter(torch.empty(size, dtype=kind, device="meta"), requires_grad=False)
        module.register_parameter(part, parameter)
    if request.is_loaded:
        _leave_no_weight(module)
    else:
        module.weight = nn.Parameter(torch.empty(weight.shape, dtype=request.dtype, device="meta"), requires_grad=False)
    return module


def _leave_no_weight(module: FrozenLinear) -> None:
    """A weight of no size that counts as initialised and is in no state dict: a block may want to draw its linears'
    weights at random, and must find something to be told that they were loaded.
    """
    module.weight = nn.Parameter(torch.empty(0), requires_grad=False)
    module.weight._is_hf_initialized = True
    module._register_state_dict_hook(_drop_weight)


def _drop_weight(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    state.pop(f"{prefix}weight", None)


def check_not_quantized(config: Any, *, where: str) -> None:
    """Raises ModelError where a base's files are quantised already."""
    theirs: Mapping[str, Any] | None = getattr(config, "quantization_config", None)
    if theirs is not None:
        method = theirs.get("quant_method", "another method") if isinstance(theirs, Mapping) else "another method"
        cure = "give the original base, or write model.quantization: none"
        raise ModelError(f"this base is quantised already ({method})", where=where, cure=cure)

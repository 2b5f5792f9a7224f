"""A base without its weights: its modules on no device, where each tensor lies, and a model filled from tensors."""

import copy
import functools
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import AutoConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key
from transformers.pytorch_utils import Conv1D

from fledge.config.model import Dtype, ModelConfig
from fledge.config.quoted import cure_of, said
from fledge.errors import ModelError
from fledge.models.attention import IMPLEMENTATIONS
from fledge.models.exceptions import mend
from fledge.models.files import stored_tensors, weight_files
from fledge.models.kinds import auto_class
from fledge.models.load import load_base
from fledge.models.load_quantized import check_whole, generation_config_of
from fledge.models.locate import locate
from fledge.models.prequantized import method_of
from fledge.models.quiet import quiet
from fledge.models.tensors import Held, Stored
from fledge.ops.buffers import give_back
from fledge.ops.frozen_linear import FrozenLinear
from fledge.runtime.precision import TORCH_DTYPES

_CURE = "fetch the base again, all of its files"
Make = Callable[[], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Outline:
    """What a base is made of."""

    config: ModelConfig
    source: str
    model: PreTrainedModel
    """Without weights: every tensor is on no device. What is tied in the base is tied here."""
    stored: Mapping[str, Stored | Held]
    """Each tensor of the files by its name in them."""
    names: Mapping[str, str]
    """The model's own name of a tensor -> its name in the files; of what is tied, one name stands for all."""
    rest: tuple[str, ...]
    """Names in the files of what the library makes the model's tensors of: they cannot be read by the model's names."""
    tied: Mapping[str, str]
    """Other names of tied tensors -> the one that stands for them."""
    doubles: Mapping[str, str] = field(default_factory=dict)
    """Names in the files of what the files hold twice -> the model's own name that stands for it."""

    def own_name(self, name: str) -> str:
        """The name that stands for a tensor."""
        return self.tied.get(name, name)

    def read(self, name: str) -> torch.Tensor:
        """A tensor by its own name, in the number format of its file. Raises ModelError where there is none."""
        if name not in self.names:
            raise ModelError(f"there is no tensor {name} in the base", where=self.config.name_or_path, cure=_CURE)
        return self.stored[self.names[name]].read()

    def is_turned(self, name: str) -> bool:
        """Whether a weight is held as [I,O], or is an embedding: an adapter's B A is turned before it is added."""
        return isinstance(self.model.get_submodule(name.rpartition(".")[0]), Conv1D | nn.Embedding)


def read_outline(config: ModelConfig, *, rows: int = 0) -> Outline:
    """The outline of a base, with at least `rows` rows in its embedding. Raises ModelError where there is none."""
    source = locate(config.name_or_path)
    try:
        described = AutoConfig.from_pretrained(
            source, revision=config.revision, trust_remote_code=config.trust_remote_code
        )
        text = described.get_text_config()
        text.vocab_size = max(text.vocab_size, rows)
        kind = auto_class(described, where=config.name_or_path, trust_remote_code=config.trust_remote_code)
        with torch.device("meta"):
            model = kind.from_config(described, dtype=torch.float32, trust_remote_code=config.trust_remote_code)
        if method_of(described) is not None:
            return _of_whole(config, source, described, model)
        stored = stored_tensors(weight_files(source, revision=config.revision))
    except (OSError, ValueError, ImportError, KeyError, RuntimeError, StrictDataclassError) as error:
        cure = "give a language model whose folder holds config.json and whole .safetensors files"
        what, cure = f"the base cannot be read: {said(error)}", cure_of(error, otherwise=cure)
        raise ModelError(what, where=config.name_or_path, cure=cure) from error
    names, rest = _names(model, stored)
    tied, doubles = _tied(model, stored, names)
    return Outline(config, source, model, stored, names, rest, tied, doubles)


def _of_whole(config: ModelConfig, source: str, described: Any, model: PreTrainedModel) -> Outline:
    """The outline of a base that comes quantised: its tensors are what the library makes of the files, in the number
    format of the recipe, and all of them are held in memory. They are called as in the files, for a merged model is
    written with the names that were read.
    """
    for each in (described, described.get_text_config(), model.config, model.config.get_text_config()):
        if hasattr(each, "quantization_config"):
            del each.quantization_config
    whole = load_base(config, device=torch.device("cpu"), is_whole=True).model.state_dict()
    tied = dict(model.all_tied_weights_keys)
    in_files, _ = _names(model, stored_tensors(weight_files(source, revision=config.revision)))
    names = {name: in_files.get(name, name) for name in whole if name not in tied}
    stored = {theirs: Held(whole[name]) for name, theirs in names.items()}
    return Outline(config, source, model, stored, names, (), tied)


def _names(model: PreTrainedModel, stored: Mapping[str, Stored]) -> tuple[dict[str, str], tuple[str, ...]]:
    """The model's names of the files' tensors, as transformers' loader has them, and what has none."""
    own, transforms = model.state_dict(), get_model_conversion_mapping(model)
    renamings = [each for each in transforms if isinstance(each, WeightRenaming)]
    converters = [each for each in transforms if isinstance(each, WeightConverter)]
    prefix, found, rest = model.base_model_prefix, {}, []
    for name in stored:
        renamed, pattern = rename_source_key(name, renamings, converters, prefix, own)
        if renamed not in own and name in own:
            renamed, pattern = rename_source_key(name, [], [], prefix, own)
        if pattern is not None:
            rest.append(name)
        elif renamed in own:
            found[renamed] = name
    return found, tuple(rest)


def _tied(
    model: PreTrainedModel, stored: Mapping[str, Stored], found: dict[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Which names stand for others, and of those the files' names are taken out of `found`; the files' names of what
    they hold twice.

    Where the files hold two tensors that differ, they know better than the configuration, and are tied no more.
    """
    tied, doubles = dict(model.all_tied_weights_keys), {}
    for other, name in list(tied.items()):
        if other not in found:
            continue
        if name not in found:
            found[name] = found.pop(other)
        elif torch.equal(stored[found[name]].read(), stored[found[other]].read()):
            doubles[found.pop(other)] = name
        else:
            del tied[other], model.all_tied_weights_keys[other]
            parent, _, last = other.rpartition(".")
            separate = torch.empty_like(model.get_parameter(other), device="meta")
            setattr(model.get_submodule(parent), last, nn.Parameter(separate, requires_grad=False))
    return tied, doubles


def dequantized_weights(config: ModelConfig) -> dict[str, Make]:
    """By the weight's name what each quantised layer of a base stands for, made in float32 each time it is asked for.

    Of the base nothing else stays in memory than these layers.
    """
    give_back()
    model = load_base(config.model_copy(update={"dtype": "float32"}), device=torch.device("cpu")).model
    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, FrozenLinear)]
    del model
    give_back()
    return {f"{name}.weight": module.dequantize for name, module in layers}


@dataclass(frozen=True, slots=True)
class _Made:
    """A tensor that is made when the loader asks for it, one at a time: it answers as `Stored` does."""

    stored: Stored | Held
    shape: tuple[int, ...]
    make: Make
    dtype: torch.dtype
    """What floating point numbers are rounded to."""
    alone: threading.Lock
    """The library's threads ask for several at once, and unrounded there is room for one."""

    def get_shape(self) -> list[int]:
        return list(self.shape)

    def get_dtype(self) -> str:
        return self.stored.dtype

    def __getitem__(self, _: Any) -> torch.Tensor:
        with self.alone:
            made = self.make()
            return made.to(self.dtype) if made.is_floating_point() else made


def filled(outline: Outline, make: Callable[[str], torch.Tensor], *, dtype: Dtype) -> PreTrainedModel:
    """The model in one number format, in eval mode, on the CPU: `make` gives each tensor by its own name, unrounded.

    Peak memory is the model in `dtype` and what making one tensor takes. Raises ModelError where a tensor is lacking.
    """
    give_back()  # the pieces that a model before this one has left
    own, alone = outline.model.state_dict(), threading.Lock()
    tensors: dict[str, Any] = {name: outline.stored[name] for name in outline.rest}
    for name, stored_name in outline.names.items():
        shape = tuple(own[name].shape)
        tensors[stored_name] = _Made(
            outline.stored[stored_name], shape, functools.partial(make, name), TORCH_DTYPES[dtype], alone
        )
    with quiet():
        model, info = type(outline.model).from_pretrained(
            None,
            config=copy.deepcopy(outline.model.config),
            state_dict=tensors,
            dtype=TORCH_DTYPES[dtype],
            attn_implementation=IMPLEMENTATIONS.get(outline.config.attention),
            generation_config=generation_config_of(
                outline.source, outline.model.config, revision=outline.config.revision
            ),
            output_loading_info=True,
        )
    check_whole(info, where=outline.config.name_or_path)
    mend(model)
    for parameter in model.parameters():  # the library holds some of them wider
        parameter.data = parameter.data.to(TORCH_DTYPES[dtype])
    give_back()
    return model.requires_grad_(requires_grad=False).eval()

"""Attaches a LoRA adapter to a frozen base, by peft's own definition of it."""

import warnings
from collections.abc import Collection
from dataclasses import dataclass

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.utils.other import ModulesToSaveWrapper
from torch import nn
from transformers import PreTrainedModel

from fledge.adapters.dropout import DropoutKeys, KeyedDropout, find_sides
from fledge.adapters.images import check_held
from fledge.adapters.read import Start, check_rows, config_of, put_weights
from fledge.adapters.targets import ALL_LINEAR, Targets, all_linears, check_saved, check_targets
from fledge.adapters.vocabulary import NewRows, make_room
from fledge.adapters.whole import bridge_float32
from fledge.config.lora import LoraSection
from fledge.config.quoted import said
from fledge.errors import ModelError
from fledge.facts import ModelFacts
from fledge.ops.frozen_linear import FrozenLinear
from fledge.runtime.random import derive_seed, seed_everything


@dataclass(frozen=True, slots=True)
class Adapted:
    """A base with its adapter."""

    model: PeftModel
    dropout: DropoutKeys
    """Says which rows are under way; the loss function sets it before each micro-batch."""
    initial: dict[str, torch.Tensor]
    """The adapter's first weights where the base was changed to go with them (pissa), else empty."""
    left_out: tuple[str, ...] = ()
    """Names of linears that all-linear cannot take in this model."""
    lost: tuple[str, ...] = ()
    """Names, within a block, of those whose adapters plain peft would not load."""


def attach(
    model: PreTrainedModel,
    lora: LoraSection,
    *,
    facts: ModelFacts,
    seed: int,
    new_tokens: tuple[int, ...] = (),
    start: Start | None = None,
) -> Adapted:
    """Put an adapter on `model`, which is changed in place and in eval mode: a fresh one, or that of `start` with its
    settings and weights. Adapter weights are float32.

    `new_tokens` are ids the base has never seen: the embedding is enlarged to hold them, starts them at the mean of
    the others, and only their rows are trained. Raises ModelError where a target or an initialisation does not fit.
    """
    targets = check_targets(model, lora.target_modules, facts=facts) if start is None else Targets("")
    everything = None
    if start is not None and lora.target_modules == ALL_LINEAR:
        everything = all_linears(model, facts.image_parts).names
    check_saved(model, lora.modules_to_save, image_parts=facts.image_parts)
    _check_quantized(model, lora)
    if lora.init_lora_weights == "pissa" and model.dtype != torch.float32:
        what = "pissa changes the base, and in this number format the change would be rounded away from the adapter's"
        raise ModelError(
            what, where="lora.init_lora_weights", cure="set model.dtype: float32, or write lora.init_lora_weights: true"
        )
    rows = make_room(model, new_tokens) if new_tokens else NewRows({}, ())
    seed_everything(derive_seed(seed, "adapter"))
    config = (
        _fresh(lora, targets.names, rows, facts=facts) if start is None else _further(lora, start, rows, model=model)
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            adapted = get_peft_model(model, config)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise _not_fitting(error, start) from error
    _check_adapted(adapted, model, lora=lora, is_tied=facts.is_head_tied, is_fresh=start is None)
    _hold_in_float32(adapted)
    if start is not None:
        put_weights(adapted, start.folder)
        if everything is not None:
            _check_all(model, everything)
    bridge_float32(adapted, dtype=model.dtype)
    keys = DropoutKeys(seed=seed)
    _key_dropout(adapted, keys)
    if facts.is_encoder_decoder:
        find_sides(adapted)
    adapted.eval()  # peft's wrapping has set it to train, which would wake the base's own dropout
    is_base_changed = lora.init_lora_weights == "pissa"
    initial = (
        {n: p.detach().clone() for n, p in adapted.named_parameters() if p.requires_grad} if is_base_changed else {}
    )
    return Adapted(adapted, keys, initial, targets.left_out, targets.lost)


def _fresh(lora: LoraSection, targets: str | list[str], rows: NewRows, *, facts: ModelFacts) -> LoraConfig:
    """What the recipe describes, in peft's words."""
    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.lora_alpha,
        lora_dropout=lora.lora_dropout,
        target_modules=targets,
        use_rslora=lora.use_rslora,
        use_dora=lora.use_dora,
        init_lora_weights=lora.init_lora_weights,
        modules_to_save=[*lora.modules_to_save, *(set(rows.modules_to_save) - set(lora.modules_to_save))] or None,
        trainable_token_indices=rows.trainable_token_indices or None,
        task_type="SEQ_2_SEQ_LM" if facts.is_encoder_decoder else "CAUSAL_LM",
    )


def _further(lora: LoraSection, start: Start, rows: NewRows, *, model: PreTrainedModel) -> LoraConfig:
    """The settings of an adapter that is trained further. Raises ModelError where it lacks the rows of new tokens."""
    config = config_of(start.described, is_inference=False)
    check_held(model, config, folder=start.folder)
    config.lora_dropout = lora.lora_dropout
    check_rows(start.described, rows)
    most = max(start.described.token_rows, default=-1)
    if most >= model.get_input_embeddings().weight.shape[0]:
        what = f"this adapter trains the row of token {most}, which the base has not"
        cure = "name the tokens that it adds as data.new_tokens or data.new_special_tokens, in their order"
        raise ModelError(what, where=str(start.folder), cure=cure)
    return config


def _not_fitting(error: Exception, start: Start | None) -> ModelError:
    what = f"the adapter does not fit this model: {said(error)}"
    if start is not None:
        cure = "give the base that the adapter was trained on, as model.name_or_path"
        return ModelError(what, where=str(start.folder), cure=cure)
    cure = "write lora.target_modules: all-linear, and remove lora.modules_to_save"
    return ModelError(what, where="lora", cure=cure)


def _check_all(model: PreTrainedModel, everything: Collection[str]) -> None:
    """Raise ModelError where the adapter that `model` has is not on all that all-linear means, and on nothing else.
    A module that is trained whole takes no adapter.
    """
    modules = dict(model.named_modules())
    wholes = tuple(f"{name}." for name, module in modules.items() if isinstance(module, ModulesToSaveWrapper))
    layers = {name for name, module in modules.items() if isinstance(module, LoraLayer)}
    if layers != {name for name in everything if not f"{name}.".startswith(wholes)}:
        what = "all-linear is not what the adapter of lora.init_from has"
        raise ModelError(what, where="lora.target_modules", cure="remove it: the adapter decides it")


def _check_adapted(
    adapted: PeftModel, model: PreTrainedModel, *, lora: LoraSection, is_tied: bool, is_fresh: bool = True
) -> None:
    """Raises ModelError for what would train and then could not be saved or merged as trained."""
    ends = (model.get_output_embeddings(), model.get_input_embeddings())
    if is_tied and any(isinstance(module, LoraLayer | ModulesToSaveWrapper) for module in ends):
        what = "the head and the embedding share one weight, so what is trained of one of them cannot be merged"
        cure = "leave both out of lora.target_modules and lora.modules_to_save"
        cure = cure if is_fresh else "remove lora.init_from: this adapter can be trained further in plain peft alone"
        raise ModelError(what, where="lora", cure=cure)
    if lora.init_lora_weights == "pissa" and any("lora_embedding" in name for name, _ in adapted.named_parameters()):
        raise ModelError(
            "pissa cannot start an embedding's adapter",
            where="lora.target_modules",
            cure="write lora.init_lora_weights: true, or name no embedding",
        )


def _check_quantized(model: PreTrainedModel, lora: LoraSection) -> None:
    """Raises ModelError for what needs the weights of a base that is held in fewer bits."""
    if not any(isinstance(module, FrozenLinear) for module in model.modules()):
        return
    if lora.init_lora_weights == "pissa":
        what = "pissa takes its start out of the weights, which a quantised base does not give"
        raise ModelError(
            what, where="lora.init_lora_weights", cure="write lora.init_lora_weights: true, or model.quantization: none"
        )
    for chosen in lora.modules_to_save:
        for name, module in model.named_modules():
            is_meant = name == chosen or name.endswith(f".{chosen}")
            if is_meant and any(isinstance(part, FrozenLinear) for part in module.modules()):
                cure = "give it to lora.target_modules instead, or write model.quantization: none"
                raise ModelError(
                    f"{name} is quantised and cannot be trained whole", where="lora.modules_to_save", cure=cure
                )


def _hold_in_float32(model: PeftModel) -> None:
    """Trained weights are held in float32 so that small updates are not rounded away, where the base computes: a layer
    whose weight lies elsewhere does not say.
    """
    device = model.get_base_model().get_input_embeddings().weight.device
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(device, torch.float32)


def _key_dropout(model: nn.Module, keys: DropoutKeys) -> None:
    """Replace peft's dropout by one whose masks do not depend on the shape of the batch."""
    for name, module in model.named_modules():
        dropouts = getattr(module, "lora_dropout", None)
        if not isinstance(dropouts, nn.ModuleDict):
            continue
        for adapter, dropout in dropouts.items():
            if isinstance(dropout, nn.Dropout):
                dropouts[adapter] = KeyedDropout(dropout.p, name=name, keys=keys)

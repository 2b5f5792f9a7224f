"""The language model within a base that reads images too: what it is, and what is set aside while text is trained."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from fledge.errors import ModelError
from fledge.models.blocks import blocks, language_model
from fledge.models.one_of_each import kinds_of_blocks, one_of_each, runs_with_one_of_each

_CURE = "give the text model of the same family"
_TOKENS = 8
_NEARLY = {torch.float32: 1e-4, torch.bfloat16: 0.02, torch.float16: 0.02}
"""How far the first positions may move with what follows, relative to their size: experts that get other tokens too
round otherwise.
"""


def text_config(model: PreTrainedModel) -> Any:
    """The configuration that the language model computes by."""
    config = model.config
    return config if config.is_encoder_decoder else config.get_text_config()


def image_parts(model: PreTrainedModel) -> tuple[str, ...]:
    """Full names of the outermost modules with weights that are no part of the language model; as a rule none."""
    language = language_model(model)
    if language is model:
        return ()
    kept = {id(language), id(model.get_output_embeddings()), id(model.get_input_embeddings())}
    return tuple(_apart(model, kept, prefix=""))


def _apart(module: nn.Module, kept: set[int], *, prefix: str) -> Iterator[str]:
    for name, child in module.named_children():
        inside = {id(each) for each in child.modules()}
        if id(child) in kept:
            continue
        if inside & kept:
            yield from _apart(child, kept, prefix=f"{prefix}{name}.")
        elif next(child.parameters(), None) is not None:
            yield f"{prefix}{name}"


def set_aside(model: PreTrainedModel) -> tuple[str, ...]:
    """Let go of the weights that only images are read with, which keep name, format and place and have no numbers.

    Returns the names of these modules. Text does not come by them: whatever asked them would find nothing to compute.
    """
    names = image_parts(model)
    parts = [model.get_submodule(name) for name in names]
    own = {id(p) for part in parts for p in part.parameters()}
    shared = {
        id(p)
        for name, p in model.named_parameters(remove_duplicate=False)
        if id(p) in own and not any(name.startswith(f"{part}.") for part in names)
    }
    for part in parts:
        for parameter in part.parameters():
            if id(parameter) not in shared:
                parameter.data = torch.empty(0, dtype=parameter.dtype, device=parameter.device)
    return names


def check_reads_text(model: PreTrainedModel, *, where: str) -> None:
    """Raises ModelError where a row of text alone is not what this base is made for.

    That is where it needs more than ids, where it has layers that text does not come by, or where a position sees what
    follows it. Costs two forward passes over a few tokens on one block of each kind.
    """
    device = model.get_input_embeddings().weight.device
    found, run, begun = blocks(model), set(), range(3, 3 + _TOKENS)

    def logits(*ids: int) -> torch.Tensor:
        made: torch.Tensor = model(input_ids=torch.tensor([ids], device=device), use_cache=False).logits
        return made[:, :_TOKENS].float()

    kinds = kinds_of_blocks(model)
    if not runs_with_one_of_each(model, kinds, run=lambda: logits(*begun)):
        kinds = list(range(len(kinds)))
    hooks = [block.register_forward_hook(lambda module, *_: run.add(id(module))) for block in found]
    try:
        with torch.no_grad(), one_of_each(model, kinds):
            one, other = logits(*begun, *begun), logits(*begun, *reversed(begun))
    except Exception as error:  # code of some architecture, which wants what only its own processor makes
        what = f"this base does not read rows of text alone: {type(error).__name__}: {str(error)[:200]}"
        raise ModelError(what, where=where, cure=_CURE) from error
    finally:
        for hook in hooks:
            hook.remove()
    if len(run) < len(found):
        what = f"{len(found) - len(run)} of the {len(found)} layers of this base wait for an image: text trains nothing"
        raise ModelError(f"{what} in them", where=where, cure=_CURE)
    if not (one - other).norm() <= _NEARLY[model.dtype] * one.norm():
        what = "this base is no model of the next token: what it says of a position changes with what follows it"
        raise ModelError(what, where=where, cure=_CURE)

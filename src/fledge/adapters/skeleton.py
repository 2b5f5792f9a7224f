"""Whether plain peft can take an adapter: every tensor of it has its place in the base. That needs no weights."""

import copy
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors import safe_open
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_checkpoint_conversion_mapping

from fledge.adapters.state import SAME, Differences, Shapes, differences, shapes_of, state_of
from fledge.errors import ModelError


def check_taken(model: PeftModel, *, start: Path | None = None) -> None:
    """Raises ModelError where plain peft would not take the adapter that `model` has: before it is trained.

    `start` is the folder of the adapter that training starts from, which decides which modules there are.
    """
    why = _left_over(model.get_base_model(), model.peft_config["default"], shapes_of(state_of(model)))
    if why is not None and start is not None:
        cure = "give the base that the adapter was trained on, as model.name_or_path"
        raise ModelError(f"plain peft could not load this adapter on this base: {why}", where=str(start), cure=cure)
    if why is not None:
        cure = "leave these modules out of lora.target_modules, or give another base"
        raise ModelError(f"plain peft could not load this adapter: {why}", where="lora.target_modules", cure=cure)


def lost_targets(base: PreTrainedModel, names: Sequence[str]) -> tuple[str, ...]:
    """Of the modules `names`, those whose adapters plain peft would leave as they begin when it loads them, because
    the library renames what it loads. Costs a skeleton of the base where the library does so for its kind at all.
    """
    if not names or get_checkpoint_conversion_mapping(base.config.model_type) is None:
        return ()
    adapted = _skeleton(base, LoraConfig(target_modules=list(names)))
    lacking = _not_loaded(adapted, shapes_of(state_of(adapted))).lacking
    return tuple(name for name in names if any(f".{name}.lora_" in tensor for tensor in lacking))


def check_saved_taken(base: PreTrainedModel, folder: Path) -> None:
    """Raises ModelError where plain peft does not take the adapter in `folder`: every tensor, each as large."""
    with safe_open(folder / SAFETENSORS_WEIGHTS_NAME, framework="pt") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    why = _left_over(base, PeftConfig.from_pretrained(str(folder)), shapes)
    if why is not None:
        cure = "the checkpoints are whole: report this, with the base's config.json"
        raise ModelError(f"plain peft does not load this adapter: {why}", where=str(folder), cure=cure)


def _left_over(base: PreTrainedModel, config: PeftConfig, shapes: Shapes) -> str | None:
    """What the adapter lacks, or has too much, or in another size; None where it fits.

    It is loaded too, for the library may rename what it loads, and then its own names are not those it looks for.
    """
    adapted = _skeleton(base, config)
    apart = differences(shapes, shapes_of(state_of(adapted)))
    if apart == SAME:
        apart = _not_loaded(adapted, shapes)
    found = (
        (apart.lacking, "it lacks"),
        (apart.extra, "the base has no place for"),
        (apart.others, "the base has other sizes of"),
    )
    for names, what in found:
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            return f"{what} {names[0]}{more}"
    return None


def _not_loaded(adapted: PeftModel, shapes: Shapes) -> Differences:
    """The trained tensors that a loading leaves as they are, and those of the adapter that it leaves over."""
    trained = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    tensors = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = set_peft_model_state_dict(adapted, tensors, low_cpu_mem_usage=True)
    return Differences(tuple(sorted(trained & set(found.missing_keys))), tuple(sorted(found.unexpected_keys)), ())


def _skeleton(base: PreTrainedModel, config: PeftConfig) -> PeftModel:
    """The adapter on a model of this kind that has no weights."""
    fresh = type(config)(**config.to_dict())
    fresh.inference_mode, fresh.init_lora_weights = False, True
    rows = base.get_input_embeddings().weight.shape[0]
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        skeleton = type(base)(copy.deepcopy(base.config))
        if rows != skeleton.get_input_embeddings().weight.shape[0]:
            skeleton.resize_token_embeddings(rows, mean_resizing=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return get_peft_model(skeleton, fresh)

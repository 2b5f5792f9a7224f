"""Writes an adapter in peft's format, so that plain peft loads it with Fledge uninstalled, and reads it back."""

import hashlib
import math
import warnings
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import save_file
from transformers import PreTrainedModel

from fledge.adapters.attach import Adapted
from fledge.adapters.images import check_held
from fledge.adapters.read import check_rows, config_of, put_weights
from fledge.adapters.settings import said_settings, write_settings
from fledge.adapters.state import state_of
from fledge.adapters.vocabulary import make_room
from fledge.config.adapter_file import Described, describe_adapter
from fledge.config.quoted import said
from fledge.errors import ModelError


def save_adapter(adapted: Adapted, folder: Path, *, base: str, revision: str) -> None:
    """Write adapter_config.json and adapter_model.safetensors into `folder`.

    Where the start changed the base (pissa), the saved adapter is the difference to the start, of rank 2r, so that
    it goes onto the untouched base.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = adapted.model.peft_config["default"]
    saved = type(config)(**config.to_dict())
    state = state_of(adapted.model)
    if adapted.initial:
        state = _difference(state, _initial_state(adapted))
        saved.lora_alpha = config.lora_alpha * (math.sqrt(2) if config.use_rslora else 2)
        saved.r, saved.init_lora_weights = 2 * config.r, True
    saved.inference_mode, saved.base_model_name_or_path, saved.revision = True, base, revision
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(state.items())}
    save_file(tensors, folder / SAFETENSORS_WEIGHTS_NAME, metadata={"format": "pt"})
    write_settings(said_settings(saved.to_dict()), folder)


def _initial_state(adapted: Adapted) -> dict[str, torch.Tensor]:
    """The first weights under the names that the saved file uses."""
    return {name.replace(".default", ""): tensor for name, tensor in adapted.initial.items()}


def _difference(now: dict[str, torch.Tensor], start: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """B A - B0 A0 as one adapter: [B, -B0] [A; A0]. A is [r,in], B is [out,r]."""
    result = dict(now)
    for name, tensor in now.items():
        if "lora_A" in name:
            result[name] = torch.cat([tensor, start[name].to(tensor)], dim=0)
        elif "lora_B" in name:
            result[name] = torch.cat([tensor, -start[name].to(tensor)], dim=1)
    return result


def load_adapter(model: PreTrainedModel, folder: Path, *, is_own: bool = True) -> PeftModel:
    """`model` (an untouched base) with the adapter of `folder`, in eval mode, adapter weights in float32.

    Raises ModelError where there is no adapter or where it lacks tensors that its own configuration asks for; and of an
    adapter that no run of Fledge wrote also where it has more of them, or others.
    """
    if not (folder / SAFETENSORS_WEIGHTS_NAME).is_file():
        raise ModelError(
            "there is no adapter here",
            where=str(folder),
            cure="train first with `fledge train RECIPE`, or give a run folder",
        )
    described = describe_adapter(folder)
    _fit_vocabulary(model, described, is_own=is_own)
    config = config_of(described)
    check_held(model, config, folder=folder)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        if is_own:
            adapted = PeftModel.from_pretrained(model, str(folder), config=config)
        else:
            adapted = _put_on(model, config, folder)
    missing = next((str(each.message) for each in told if "missing adapter keys" in str(each.message)), None)
    if missing:
        raise ModelError(
            f"the adapter is not complete: {missing[:200]}",
            where=str(folder),
            cure="the `fledge train` command of its run writes it anew",
        )
    return adapted.requires_grad_(requires_grad=False).eval()


def _put_on(model: PreTrainedModel, config: LoraConfig, folder: Path) -> PeftModel:
    """A stranger's adapter on its base. Raises ModelError where it does not fit, tensor by tensor."""
    try:
        adapted = get_peft_model(model, config)
    except (ValueError, TypeError, NotImplementedError) as error:
        cure = "give the base that the adapter was trained on, as model.name_or_path of a recipe: --recipe RECIPE"
        what = f"this adapter does not fit this base: {said(error)}"
        raise ModelError(what, where=str(folder), cure=cure) from error
    assert isinstance(adapted, PeftModel)
    put_weights(adapted, folder)
    return adapted


def _fit_vocabulary(model: PreTrainedModel, described: Described, *, is_own: bool) -> None:
    """Make room for the rows of new tokens, which the adapter holds. A stranger may train rows that the base has: these
    stay as they are.
    """
    held = model.get_input_embeddings().weight.shape[0]
    rows = sorted(row for row in described.token_rows if is_own or row >= held)
    if rows:
        fresh = make_room(model, tuple(rows))
        if not is_own:
            check_rows(described, fresh)


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter's two files."""
    return (folder / SAFETENSORS_WEIGHTS_NAME).is_file() and (folder / CONFIG_NAME).is_file()


def adapter_digest(model: torch.nn.Module) -> str:
    """sha256 over every trained tensor: its name, shape and float32 bytes, in order of name."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        if parameter.requires_grad:
            tensor = parameter.detach().float().cpu().contiguous()
            digest.update(f"{name}{tuple(tensor.shape)}".encode())
            digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()

"""Reads an adapter's folder, ours or any of peft's, and says what of it does not go onto a base."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, set_peft_model_state_dict
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors import SafetensorError
from safetensors.torch import load_file

from fledge.adapters.state import differences, shapes_of, state_of
from fledge.adapters.vocabulary import NewRows
from fledge.config.adapter_file import Described, describe_adapter
from fledge.config.quoted import said
from fledge.errors import ModelError

_OLD, _NEW = ".lora_magnitude_vector.weight", ".lora_magnitude_vector"
_SHOWN = 3
_AGAIN = "fetch the adapter again, all of its files"


@dataclass(frozen=True, slots=True)
class Start:
    """An adapter that training starts from."""

    described: Described
    digest: dict[str, str]
    """sha256 of its weights file, and of the settings that it computes by."""

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return self.described.folder


def read_start(folder: Path) -> Start:
    """The adapter in a folder. Raises ModelError where it cannot be trained further."""
    described = describe_adapter(folder)
    settings = json.dumps(described.settings, sort_keys=True).encode()
    digest = {"weights": file_digest(folder), "settings": hashlib.sha256(settings).hexdigest()}
    return Start(described, digest)


def file_digest(folder: Path) -> str:
    """sha256 of the adapter's weights file, by which a swapped one is noticed."""
    with (folder / SAFETENSORS_WEIGHTS_NAME).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def config_of(described: Described, *, is_inference: bool = True) -> LoraConfig:
    """The adapter's settings as peft has them; nothing of its own start is done again.

    Raises ModelError where peft does not take them.
    """
    try:
        return LoraConfig(
            **described.settings,
            init_lora_weights=True,
            task_type=described.task,
            base_model_name_or_path=described.base,
            revision=described.revision,
            inference_mode=is_inference,
        )
    except (ValueError, TypeError) as error:
        what = f"the settings of the adapter do not go together: {said(error)}"
        raise ModelError(what, where=str(described.folder), cure=_AGAIN) from error


def put_weights(adapted: PeftModel, folder: Path) -> None:
    """Put the weights of an adapter's folder into the model, which has the adapter's layers, in the number format that
    these have. Raises ModelError where they do not fit.
    """
    tensors = read_tensors(folder)
    check_tensors(adapted, tensors, folder=folder)
    told = set_peft_model_state_dict(adapted, tensors)
    assert not told.unexpected_keys, f"checked before: {told.unexpected_keys}"


def read_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of an adapter's weights file. Raises ModelError where it cannot be read."""
    path = folder / SAFETENSORS_WEIGHTS_NAME
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        what = f"the weights of the adapter cannot be read: {error}"
        raise ModelError(what, where=str(path), cure=f"{_AGAIN}; git-lfs fetches large ones") from error


def check_tensors(adapted: PeftModel, tensors: dict[str, torch.Tensor], *, folder: Path) -> None:
    """Raise ModelError where a weights file has not exactly the tensors that the adapter's layers have on this base.

    A tensor of the base's own that is the same there may lie among them: peft saves an embedding with its adapter.
    """
    plain = {_plain(name): tensor for name, tensor in tensors.items()}
    found, wanted = shapes_of(plain), {_plain(name): shape for name, shape in shapes_of(state_of(adapted)).items()}
    where, cure = str(folder), "give the base that the adapter was trained on, as model.name_or_path"
    apart = differences(found, wanted)
    if apart.others:
        name = apart.others[0]
        what = f"{name} is {list(found[name])} in the adapter and would be {list(wanted[name])} on this base"
        raise ModelError(f"this adapter is of a base of another shape: {what}", where=where, cure=cure)
    if apart.lacking:
        what = f"the adapter's settings ask for tensors that its weights file has not: {_listed(apart.lacking)}"
        raise ModelError(what, where=where, cure=cure)
    own = adapted.state_dict()
    if more := [name for name in apart.extra if not _is_same(plain[name], own.get(name))]:
        what = f"the adapter's weights file has tensors that its settings do not ask for on this base: {_listed(more)}"
        raise ModelError(what, where=where, cure=cure)


def check_rows(described: Described, rows: NewRows) -> None:
    """Raise ModelError where an adapter lacks rows of tokens that are new to its base, which nobody else has either."""
    held, whole = described.settings["trainable_token_indices"] or {}, described.settings["modules_to_save"] or ()
    for name, wanted in rows.trainable_token_indices.items():
        lacking = set(wanted) - set(held if isinstance(held, list) else held.get(name, ()))
        if lacking or not set(rows.modules_to_save) <= set(whole):
            what = f"{len(wanted)} tokens are new to the base, and this adapter does not train their rows of {name}"
            cure = "take the tokenizer, the new tokens and the chat template that it was trained with"
            raise ModelError(what, where=str(described.folder), cure=cure)


def _plain(name: str) -> str:
    """DoRA's magnitudes have two names."""
    return name.removesuffix(_OLD) + _NEW if name.endswith(_OLD) else name


def _is_same(tensor: torch.Tensor, ours: torch.Tensor | None) -> bool:
    return ours is not None and tensor.shape == ours.shape and torch.equal(tensor.to(ours), ours)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")

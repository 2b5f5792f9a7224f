"""Writes a merged model's weights in the layout of its base's files: the same names in the same order."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import GenerationConfig
from transformers.utils import CONFIG_NAME

from fledge.config.model import Dtype
from fledge.exporting.merged import Merged
from fledge.exporting.verify import check_tensors, digest_of, digests_of
from fledge.models.quiet import quiet
from fledge.models.tensors import DTYPES, Held, Planned, write_planned
from fledge.rundir import write_json
from fledge.runtime.precision import TORCH_DTYPES

SHARD = 5_000_000_000
"""Bytes that one file of weights holds at most, unless one tensor alone is larger."""
_ALONE, _INDEX = "model.safetensors", "model.safetensors.index.json"


@dataclass(frozen=True, slots=True)
class Digests:
    """sha256 of what was written, as `digest_of` has it."""

    own: dict[str, str] = field(default_factory=dict)
    """By the model's own name; tied names too."""
    in_files: dict[str, str] = field(default_factory=dict)
    """By the name in the files, of each tensor there."""


def write_weights(merged: Merged, folder: Path, *, dtype: Dtype) -> Digests:
    """Write every tensor of the base's files, in a number format, and what the adapter changed merged into them.

    Parameters are rounded to `dtype`, once; buffers, and what the model has no use for, stay as the files have them.
    Memory holds one tensor at a time and what merging it takes. A base that comes quantised is in memory as a whole
    anyway, and the library gives its tensors the names that they have in files.
    """
    if any(isinstance(stored, Held) for stored in merged.outline.stored.values()):
        return _write_held(merged, folder, dtype=dtype)
    digests = Digests()
    planned = dict(_planned(merged, dtype, digests))
    shards = list(_shards(planned))
    if len(shards) == 1:
        write_planned(planned, folder / _ALONE)
    else:
        _write_parts(planned, shards, folder)
    for other, name in merged.outline.tied.items():
        if name in digests.own:
            digests.own[other] = digests.own[name]
    return digests


def _write_held(merged: Merged, folder: Path, *, dtype: Dtype) -> Digests:
    model = merged.model(dtype)
    model.generation_config = GenerationConfig()  # the library refuses to write what it cannot check
    with quiet():
        model.save_pretrained(folder, max_shard_size=SHARD)
    for path in folder.glob("*.safetensors"):
        path.chmod((folder / CONFIG_NAME).stat().st_mode)  # the library leaves weights readable by their owner alone
    return Digests(digests_of(model), _read_again(folder))


def _planned(merged: Merged, dtype: Dtype, digests: Digests) -> Iterator[tuple[str, Planned]]:
    """Each tensor of the files, by its name in them."""
    outline, kind = merged.outline, TORCH_DTYPES[dtype]
    state, parameters = outline.model.state_dict(), {name for name, _ in outline.model.named_parameters()}
    own_names = {stored: own for own, stored in outline.names.items()} | dict(outline.doubles)
    for name, stored in outline.stored.items():
        own = own_names.get(name)
        is_rounded = DTYPES[stored.dtype].is_floating_point and (own in parameters or name in outline.rest)
        made = kind if is_rounded else DTYPES[stored.dtype]
        shape = tuple(stored.get_shape()) if own is None else tuple(state[own].shape)
        yield name, Planned(made, shape, partial(_make, merged, name, own=own, dtype=made, digests=digests))


def _make(merged: Merged, name: str, *, own: str | None, dtype: torch.dtype, digests: Digests) -> torch.Tensor:
    tensor = (merged.outline.stored[name].read() if own is None else merged.tensor(own)).to(dtype)
    digests.in_files[name] = digest_of(tensor)
    if own is not None:
        digests.own[own] = digests.in_files[name]
    return tensor


def _shards(planned: Mapping[str, Planned]) -> Iterator[list[str]]:
    """Names that go into one file together, in their order."""
    names: list[str] = []
    size = 0
    for name, plan in planned.items():
        if names and size + plan.size > SHARD:
            yield names
            names, size = [], 0
        names.append(name)
        size += plan.size
    yield names


def _write_parts(planned: Mapping[str, Planned], shards: Iterable[list[str]], folder: Path) -> None:
    """Several files, and the index that says which holds what."""
    every = list(shards)
    place: dict[str, str] = {}
    for number, names in enumerate(every, start=1):
        file = f"model-{number:05}-of-{len(every):05}.safetensors"
        write_planned({name: planned[name] for name in names}, folder / file)
        place |= dict.fromkeys(names, file)
    total = sum(plan.size for plan in planned.values())
    write_json(folder / _INDEX, {"metadata": {"total_size": total}, "weight_map": place})


def check_written(digests: Digests, folder: Path, *, loaded: Mapping[str, str]) -> dict[str, Any]:
    """The figures for the certificate. `loaded` has the digest of each tensor of the model that others have loaded, and
    nothing of a large one, whose tensors lie in the files until they compute.

    Raises ProofError where a tensor in the files, or one of the loaded model that is made of one alone, has other bits
    than were written.
    """
    figures = check_tensors(digests.in_files, _read_again(folder))
    if loaded:
        check_tensors(digests.own, {name: digest for name, digest in loaded.items() if name in digests.own})
    return figures | {"loaded": len(digests.own) if loaded else 0}


def _read_again(folder: Path) -> dict[str, str]:
    """Digests of the tensors in the folder's files, by the names there."""
    read: dict[str, str] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            read |= {name: digest_of(file.get_tensor(name)) for name in names}
    return read

"""Loads a base with quantised blocks: from the cache, or tensor by tensor from its own files, and into the cache.

Peak memory is the quantised model and one layer: weights are read, not mapped, and quantised as they come.
"""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers import GenerationConfig, PreTrainedModel
from transformers.dynamic_module_utils import get_class_from_dynamic_module

from fledge.cache import cache_root, fetch
from fledge.config.model import ModelConfig
from fledge.errors import ModelError, RunError
from fledge.models.files import content_of, stored_tensors, weight_files
from fledge.models.kinds import auto_class, model_class
from fledge.models.quantize import Count, Request, check_not_quantized, quantized_tensors, register
from fledge.models.tensors import stored_in, write_tensors
from fledge.ops.frozen_linear import PARTS
from fledge.runtime.precision import TORCH_DTYPES

FORMAT = 3
"""Raise it when the same base would be quantised otherwise, or kept otherwise."""
CODES = "codes.safetensors"
SHARES = {"int8": 0.6, "nf4": 0.35}
"""Of the files' size in 16 bits, what codes and scales take at most."""
_NO_SHAPE = {"dtype", "torch_dtype", "transformers_version", "use_cache"}

Tell = Callable[[str], None]


def load_quantized(
    source: str, config: ModelConfig, *, described: Any, attention: str | None, tell: Tell
) -> PreTrainedModel:
    """The base as `from_pretrained` gives it, its blocks' linears quantised. `described` is its configuration.

    What was quantised lies in the cache by content, whole or not at all, and is read from there the next time.
    """
    check_not_quantized(described, where=config.name_or_path)
    register()
    files = weight_files(source, revision=config.revision)
    load = _Loader(source, config, described, attention, files)
    made: list[PreTrainedModel] = []

    def build(folder: Path) -> None:
        made.append(_made(load, tell))
        try:
            if shutil.disk_usage(folder).free < SHARES[config.quantization] * _size(files):
                raise _NotKept("there is too little room")
            write_tensors(quantized_tensors(made[0]), folder / CODES)
        except OSError as error:
            raise _NotKept(error.strerror or str(error)) from error

    try:
        entry, _ = fetch(cache_root("quantized"), _key(files, config, described), build=build)
    except (_NotKept, RunError) as error:
        reason = error.problems[0].what if isinstance(error, RunError) else f"{error} in {cache_root('quantized')}"
        tell(f"the {config.quantization} base is not kept for the next time: {reason}")
        return made[0] if made else _made(load, tell)
    return made[0] if made else load(entry / CODES)


class _NotKept(Exception):
    """Why what was quantised could not be written into the cache."""


def _key(files: list[Path], config: ModelConfig, described: Any) -> str:
    """The name of an entry: all that decides which layers there are and what their codes hold."""
    shape = {name: value for name, value in described.to_dict().items() if name not in _NO_SHAPE and name[0] != "_"}
    parts = [content_of(files), config.quantization, FORMAT, type(described).__name__, version("transformers"), shape]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _size(files: list[Path]) -> int:
    return sum(path.stat().st_size for path in files)


@dataclass(frozen=True, slots=True)
class _Loader:
    """Calls transformers' loader with what is read lazily from the files."""

    source: str
    config: ModelConfig
    described: Any
    attention: str | None
    files: list[Path]

    def __call__(self, codes: Path | None, tell: Count | None = None) -> PreTrainedModel:
        """The model; with the codes of the file `codes`, or without one, quantised now."""
        config, dtype = self.config, TORCH_DTYPES[self.config.dtype]
        tensors: dict[str, Any] = dict(stored_tensors(self.files))
        if codes is not None:
            tensors |= stored_in(codes)
        request = Request(config.quantization, dtype=dtype, is_loaded=codes is not None, tell=tell)
        try:
            model, info = self._class().from_pretrained(
                None,
                config=self.described,
                state_dict=tensors,
                quantization_config=request,
                dtype=dtype,
                attn_implementation=self.attention,
                generation_config=generation_config_of(self.source, self.described, revision=config.revision),
                output_loading_info=True,
            )
        except RuntimeError as error:
            if request.problem is not None:
                raise request.problem from error
            raise
        info["missing_keys"] = {_as_in_files(name) for name in info["missing_keys"]}
        check_whole(info, where=config.name_or_path)
        return model

    def _class(self) -> Any:
        described, config = self.described, self.config
        auto = auto_class(described, where=config.name_or_path, trust_remote_code=config.trust_remote_code)
        remote = getattr(described, "auto_map", {}).get(auto.__name__)
        if remote and config.trust_remote_code:
            return get_class_from_dynamic_module(remote, self.source, revision=config.revision)
        return model_class(described, where=config.name_or_path)


def generation_config_of(source: str, described: Any, *, revision: str) -> GenerationConfig:
    """What a base says of generating; what its configuration says where it has no file of its own for it."""
    try:
        return GenerationConfig.from_pretrained(source, revision=revision)
    except OSError:
        return GenerationConfig.from_model_config(described)


def check_whole(info: dict[str, Any], *, where: str) -> None:
    """Raises ModelError where tensors of the model were in no file. `info` is what transformers says of a loading."""
    missing = sorted({*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])})
    if missing:
        what = (
            f"the weights lack {len(missing)} tensors of the model, which would start random: {', '.join(missing[:3])}"
        )
        raise ModelError(what, where=where, cure="fetch the base again, all of its files")


def _as_in_files(name: str) -> str:
    """A weight's own name for those of its codes and scales."""
    layer, _, part = name.rpartition(".")
    return f"{layer}.weight" if any(part in parts for parts in PARTS.values()) else name


def _made(load: _Loader, tell: Tell) -> PreTrainedModel:
    """The model, quantised now."""
    kind, size = load.config.quantization, _size(load.files)
    tell(f"quantising {size / 1e9:.1f} GB of weights to {kind}, once for this base")
    marks = set()

    def count(done: int, total: int) -> None:
        tenth = 10 * done // total
        if tenth not in marks and 0 < tenth < 10 and size > 2e9:
            marks.add(tenth)
            tell(f"quantised {done} of {total} layers")

    try:
        return load(None, count)
    except OSError as error:  # in words of its own, for the cache would take it for its own
        cure = "look at the disk, or fetch the base again"
        what = f"the base cannot be read: {error.strerror or error}"
        raise ModelError(what, where=load.config.name_or_path, cure=cure) from error

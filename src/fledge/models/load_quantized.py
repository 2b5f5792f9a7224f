"""Loads a base with quantised blocks: from the cache, or tensor by tensor from its own files, and into the cache.

Peak memory is the quantised model and one layer: weights are read, not mapped, and quantised as they come.
"""

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    GenerationConfig,
    PreTrainedModel,
)
from transformers.dynamic_module_utils import get_class_from_dynamic_module

from fledge.cache import cache_root, fetch
from fledge.config.model import ModelConfig
from fledge.errors import ModelError
from fledge.models.files import content_of, stored_tensors, weight_files
from fledge.models.quantize import Count, Request, check_not_quantized, quantized_tensors, register
from fledge.models.tensors import stored_in, write_tensors
from fledge.ops.frozen_linear import PARTS
from fledge.runtime.precision import TORCH_DTYPES

FORMAT = 1
"""Raise it when the same base would be quantised otherwise, or kept otherwise."""
CODES = "codes.safetensors"

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
    root = cache_root("quantized")
    made: list[PreTrainedModel] = []

    def build(folder: Path) -> None:
        made.append(_made(load, tell))
        write_tensors(quantized_tensors(made[0]), folder / CODES)

    if not _has_room(root, files):
        tell(f"the {config.quantization} base is not kept: there is too little room where the cache lies, {root}")
        return _made(load, tell)
    name = f"{content_of(files)}\0{config.quantization}\0{FORMAT}\0{type(described).__name__}"
    entry, _ = fetch(root, hashlib.sha256(name.encode()).hexdigest(), build=build)
    return made[0] if made else load(entry / CODES)


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
                generation_config=self._generation_config(),
                output_loading_info=True,
            )
        except RuntimeError as error:
            if request.problem is not None:
                raise request.problem from error
            raise
        check_whole(info, where=config.name_or_path)
        return model

    def _class(self) -> Any:
        described, config = self.described, self.config
        is_pair = described.is_encoder_decoder
        remote = getattr(described, "auto_map", {}).get("AutoModelForSeq2SeqLM" if is_pair else "AutoModelForCausalLM")
        if remote and config.trust_remote_code:
            return get_class_from_dynamic_module(remote, self.source, revision=config.revision)
        known = MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING if is_pair else MODEL_FOR_CAUSAL_LM_MAPPING
        try:
            found = known[type(described)]
        except KeyError:
            what = f"transformers has no language model of the kind {described.model_type}"
            raise ModelError(what, where=config.name_or_path, cure="give another base") from None
        return found[0] if isinstance(found, (tuple, list)) else found

    def _generation_config(self) -> GenerationConfig:
        try:
            return GenerationConfig.from_pretrained(self.source, revision=self.config.revision)
        except OSError:
            return GenerationConfig.from_model_config(self.described)


def check_whole(info: dict[str, Any], *, where: str) -> None:
    """Raises ModelError where tensors of the model were in no file. `info` is what transformers says of a loading."""
    names = {*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])}
    missing = sorted({_as_in_files(name) for name in names})
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
    kind, size = load.config.quantization, sum(path.stat().st_size for path in load.files)
    tell(f"quantising {size / 1e9:.1f} GB of weights to {kind}, once for this base")
    marks = set()

    def count(done: int, total: int) -> None:
        tenth = 10 * done // total
        if tenth not in marks and 0 < tenth < 10 and size > 2e9:
            marks.add(tenth)
            tell(f"quantised {done} of {total} layers")

    return load(None, count)


def _has_room(root: Path, files: list[Path]) -> bool:
    """Whether codes of at most the files' size and some more fit on the disk."""
    existing = next(folder for folder in (root, *root.parents) if folder.exists())
    return shutil.disk_usage(existing).free > 1.1 * sum(path.stat().st_size for path in files) + 1e8

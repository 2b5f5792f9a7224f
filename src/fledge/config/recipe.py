"""The recipe: all sections together, and the combinations that cannot work."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import Field

from fledge.config.data import DataConfig, SourceConfig, ValidationFraction
from fledge.config.evaluate import EvaluateConfig
from fledge.config.lora import LoraSection
from fledge.config.model import ModelConfig
from fledge.config.output import OutputConfig
from fledge.config.section import Section
from fledge.config.train import TrainConfig

# Options of a source that only one format reads.
_ONLY_FOR = {"prompt": "completion", "completion": "completion", "prompt_prefix": "completion", "text_column": "text"}


class Recipe(Section):
    """Everything that one training is."""

    model: ModelConfig
    """The frozen base model."""
    data: DataConfig
    """What is trained on."""
    lora: LoraSection = Field(default_factory=LoraSection)
    """The adapter that is trained."""
    train: TrainConfig = Field(default_factory=TrainConfig)
    """How the adapter is trained."""
    evaluate: EvaluateConfig = Field(default_factory=EvaluateConfig)
    """Validation during training and evaluation after it."""
    output: OutputConfig = Field(default_factory=OutputConfig)
    """The run folder and its trackers."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """Values that are valid each and cannot work together. `keys` are those involved, the one to change first."""

    what: str
    keys: tuple[tuple[str | int, ...], ...]
    cure: str


def sources(value: SourceConfig | tuple[SourceConfig, ...] | ValidationFraction | None) -> tuple[SourceConfig, ...]:
    """One source, several or none, as a tuple."""
    if isinstance(value, SourceConfig):
        return (value,)
    return value if isinstance(value, tuple) else ()


def conflicts(recipe: Recipe) -> list[Conflict]:
    """Combinations of valid values that cannot work together, or where one has no effect."""
    return [*_of_sources(recipe), *_of_data(recipe), *_of_training(recipe), *_of_adapter(recipe), *_of_output(recipe)]


def _located(recipe: Recipe) -> Iterator[tuple[tuple[str | int, ...], SourceConfig]]:
    """Every source with its key."""
    for name in ("train", "validation", "test"):
        value = getattr(recipe.data, name)
        for index, source in enumerate(sources(value)):
            yield ("data", name, index) if isinstance(value, tuple) else ("data", name), source


def _of_sources(recipe: Recipe) -> Iterator[Conflict]:
    for key, source in _located(recipe):
        for name, fmt in _ONLY_FOR.items():
            default = SourceConfig.model_fields[name].default
            if source.format != fmt and getattr(source, name) != default:
                cure = f"remove it, or write format: {fmt}"
                yield Conflict(f"has no effect on format {source.format}", ((*key, name), (*key, "format")), cure)
        if source.format == "completion" and source.prompt == source.completion:
            what = f"prompt and completion are the same column, {source.prompt}"
            yield Conflict(what, ((*key, "completion"), (*key, "prompt")), "name the column that holds the answer")
        if key[1] != "train" and source.weight != 1:
            yield Conflict("has no effect on rows that are not trained", ((*key, "weight"), key[:2]), "remove it")
        if source.path.startswith("/") and source.split != "train":
            cure = "remove it: a local path has no splits, name the file"
            yield Conflict("has no effect on a local path", ((*key, "split"), (*key, "path")), cure)
        if recipe.data.overlong == "split" and source.format != "text":
            yield Conflict(
                f"split is for the text format only, and {'.'.join(map(str, key))} has the format {source.format}",
                (("data", "overlong"), (*key, "format")),
                "use drop, truncate or error",
            )


def _of_data(recipe: Recipe) -> Iterator[Conflict]:
    data = recipe.data
    for name, tokens in (("new_special_tokens", data.new_special_tokens), ("new_tokens", data.new_tokens)):
        if len(set(tokens)) < len(tokens):
            yield Conflict("a token is given twice", (("data", name),), "keep one of the two")
    if both := sorted(set(data.new_tokens) & set(data.new_special_tokens)):
        keys = (("data", "new_tokens"), ("data", "new_special_tokens"))
        yield Conflict(f"{both[0]!r} is in data.new_special_tokens too", keys, "keep it in one of the two")
    if data.train_on == "all" and all(source.format == "text" for _, source in _located(recipe)):
        keys = (("data", "train_on"), ("data", "train"))
        yield Conflict("has no effect on plain text, which is trained whole", keys, "remove it")
    if data.validation is None and recipe.evaluate.every_steps != EvaluateConfig().every_steps:
        keys = (("evaluate", "every_steps"), ("data", "validation"))
        yield Conflict("has no effect without data.validation", keys, "remove it, or give data.validation")
    for name in ("exact_match", "rouge"):
        if not getattr(recipe.evaluate, name):
            continue
        keys = (("evaluate", name), ("data", "validation"))
        if data.validation is None:
            yield Conflict("needs data.validation", keys, "give data.validation a source, or {fraction: 0.01}")
            continue
        asked = sources(data.train) if isinstance(data.validation, ValidationFraction) else sources(data.validation)
        if all(source.format == "text" for source in asked):
            yield Conflict("plain text has no prompt and no answer to compare", keys, f"write {name}: false")


def _of_training(recipe: Recipe) -> Iterator[Conflict]:
    yield from _of_engine(recipe)
    if recipe.model.keep_dequantized and recipe.model.quantization == "none":
        keys = (("model", "keep_dequantized"), ("model", "quantization"))
        yield Conflict("has no effect on a base that is not quantised", keys, "remove it, or write quantization: nf4")
    if recipe.model.attention == "flash" and recipe.model.dtype == "float32":
        keys = (("model", "attention"), ("model", "dtype"))
        yield Conflict("flash attention does not compute in float32", keys, "use bfloat16, or attention: auto")
    train = recipe.train
    for first, second in (("micro_batch_rows", "micro_batch_tokens"), ("warmup_steps", "warmup_ratio")):
        if getattr(train, first) is not None and getattr(train, second) not in (None, "auto"):
            keys = (("train", first), ("train", second))
            yield Conflict(f"given together with {second}", keys, "keep one of the two")
    if train.warmup_steps is not None and train.max_steps is not None and train.warmup_steps > train.max_steps:
        what = f"{train.warmup_steps} steps of warm-up in a training of {train.max_steps}"
        cure = "give fewer: the learning rate would never reach its peak"
        yield Conflict(what, (("train", "warmup_steps"), ("train", "max_steps")), cure)


def _of_engine(recipe: Recipe) -> Iterator[Conflict]:
    train, fast = recipe.train, ("train", "engine")
    if train.engine == "fast":
        if not recipe.data.packing:
            cure = "remove it: the fast engine never pads; or use engine: plain"
            yield Conflict("has no effect on engine: fast", (("data", "packing"), fast), cure)
        if recipe.model.attention != "auto":
            cure = "remove it: the fast engine has attention of its own; or use engine: plain"
            yield Conflict("has no effect on engine: fast", (("model", "attention"), fast), cure)
    if train.kernels == "compiled" and train.engine != "plain":
        cure = "write engine: plain, or remove it: the engine has fused kernels of its own"
        yield Conflict("needs engine: plain", (("train", "kernels"), fast), cure)
    if train.share_prefixes is True:
        if train.engine == "plain" or not recipe.data.packing or recipe.model.attention != "auto":
            yield Conflict(
                "needs the fast engine", (("train", "share_prefixes"), fast), "remove it, or use engine: fast"
            )
        if recipe.lora.lora_dropout > 0:
            keys = (("train", "share_prefixes"), ("lora", "lora_dropout"))
            what = "does not go together with dropout: each row drops other features"
            yield Conflict(what, keys, "write share_prefixes: auto, or lora_dropout: 0")


def _of_adapter(recipe: Recipe) -> Iterator[Conflict]:
    lora = recipe.lora
    if lora.use_dora and lora.init_lora_weights == "pissa":
        keys = (("lora", "init_lora_weights"), ("lora", "use_dora"))
        yield Conflict("pissa does not go together with use_dora", keys, "use one of the two")
    if recipe.model.quantization != "none" and lora.init_lora_weights == "pissa":
        keys = (("lora", "init_lora_weights"), ("model", "quantization"))
        what = "pissa takes its start out of the weights, which a quantised base does not give"
        yield Conflict(what, keys, "use another start, or write quantization: none")
    if isinstance(lora.target_modules, str):
        try:
            re.compile(lora.target_modules)
        except re.error as error:
            cure = "write all-linear, a list of names, or a regular expression that matches whole names"
            yield Conflict(f"not a regular expression: {error}", (("lora", "target_modules"),), cure)


def _of_output(recipe: Recipe) -> Iterator[Conflict]:
    trackers = recipe.output.trackers
    if len(set(trackers)) < len(trackers):
        yield Conflict("a tracker is given twice", (("output", "trackers"),), "keep one of the two")
    model = recipe.model
    if model.revision != "main" and model.name_or_path.startswith(("/", "builtin:")):
        keys = (("model", "revision"), ("model", "name_or_path"))
        yield Conflict("has no effect on a base that is not on the hub", keys, "remove it")

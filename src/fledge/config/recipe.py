"""The recipe: all sections together, and the combinations that cannot work."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydantic import Field

from fledge.config.data import DataConfig, SourceConfig, ValidationFraction
from fledge.config.evaluate import EvaluateConfig
from fledge.config.lora import LoraSection
from fledge.config.model import ModelConfig
from fledge.config.output import OutputConfig
from fledge.config.section import Section
from fledge.config.source_rules import source_faults
from fledge.config.train import TrainConfig

_NOT_IN_A_PROJECT, _LONGEST_NAME = "/\\#?%:", 128
"""What wandb refuses, told before a training instead of in it."""


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


def names_a_hub(recipe: Recipe) -> bool:
    """Whether a recipe, loaded so that its local paths are absolute, names a base or rows on a hub."""
    held = () if isinstance(recipe.data.validation, ValidationFraction) else sources(recipe.data.validation)
    paths = [source.path for source in (*sources(recipe.data.train), *held)]
    return not all(name.startswith(("/", "builtin:")) for name in (recipe.model.name_or_path, *paths))


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
        for what, names, cure in source_faults(source):
            yield Conflict(what, tuple((*key, *name) for name in names), cure)
        if key[1] != "train" and source.weight != 1:
            yield Conflict("has no effect on rows that are not trained", ((*key, "weight"), key[:2]), "remove it")
        if recipe.data.overlong == "split" and source.format != "text":
            yield Conflict(
                f"split is for the text format only, and {'.'.join(map(str, key))} has the format {source.format}",
                (("data", "overlong"), (*key, "format")),
                "write data.overlong: drop, truncate or error",
            )


def _of_data(recipe: Recipe) -> Iterator[Conflict]:
    data = recipe.data
    for name, tokens in (("new_special_tokens", data.new_special_tokens), ("new_tokens", data.new_tokens)):
        if len(set(tokens)) < len(tokens):
            yield Conflict("a token is given twice", (("data", name),), f"write {_each_once(tokens)}")
    if both := sorted(set(data.new_tokens) & set(data.new_special_tokens)):
        keys = (("data", "new_tokens"), ("data", "new_special_tokens"))
        yield Conflict(f"{both[0]!r} is in data.new_special_tokens too", keys, "keep it in one of the two")
    yield from _of_spans(recipe)
    if data.validation is None and recipe.evaluate.every_steps != EvaluateConfig().every_steps:
        keys = (("evaluate", "every_steps"), ("data", "validation"))
        yield Conflict("has no effect without data.validation", keys, "remove it, or give data.validation")
    if data.validation is None and recipe.evaluate.early_stopping_patience is not None:
        keys = (("evaluate", "early_stopping_patience"), ("data", "validation"))
        yield Conflict("needs data.validation", keys, "give data.validation a source, or {fraction: 0.01}")
    for name in ("exact_match", "rouge"):
        if not getattr(recipe.evaluate, name):
            continue
        keys = (("evaluate", name), ("data", "validation"))
        if data.validation is None:
            yield Conflict(
                "needs data.validation", keys, "write data.validation: {fraction: 0.01}, or give it a source"
            )
            continue
        asked = sources(data.train) if isinstance(data.validation, ValidationFraction) else sources(data.validation)
        if all(source.format == "text" for source in asked):
            yield Conflict("plain text has no prompt and no answer to compare", keys, f"write evaluate.{name}: false")


def _each_once(items: Sequence[str]) -> str:
    return json.dumps(list(dict.fromkeys(items)), ensure_ascii=False)


def _of_spans(recipe: Recipe) -> Iterator[Conflict]:
    """Options that say which tokens are trained and which are read as control tokens."""
    data = recipe.data
    if data.train_on == "all" and all(source.format == "text" for _, source in _located(recipe)):
        keys = (("data", "train_on"), ("data", "train"))
        yield Conflict("has no effect on plain text, which is trained whole", keys, "remove it")
    formats = {source.format for _, source in _located(recipe)}
    if data.train_on == "last" and not formats & {"chat", "completion"}:
        keys = (("data", "train_on"), ("data", "train"))
        yield Conflict("last has an effect on conversations only", keys, "write data.train_on: completion")
    if not data.sanitize_control_tokens and formats == {"text"}:
        keys = (("data", "sanitize_control_tokens"), ("data", "train"))
        yield Conflict("has no effect on plain text, whose control tokens are tokens", keys, "remove it")


def _of_training(recipe: Recipe) -> Iterator[Conflict]:
    yield from _of_engine(recipe)
    if recipe.model.keep_dequantized and recipe.model.quantization == "none":
        keys = (("model", "keep_dequantized"), ("model", "quantization"))
        yield Conflict(
            "has no effect on a base that is not quantised", keys, "remove it, or write model.quantization: nf4"
        )
    if recipe.model.attention == "flash" and recipe.model.dtype == "float32":
        keys = (("model", "attention"), ("model", "dtype"))
        yield Conflict(
            "flash attention does not compute in float32", keys, "write model.dtype: bfloat16, or model.attention: auto"
        )
    train = recipe.train
    for first, second in (("micro_batch_rows", "micro_batch_tokens"), ("warmup_steps", "warmup_ratio")):
        if first == "micro_batch_rows" and train.micro_batch_rows == 1:
            continue  # one row at a time stays within any limit
        if getattr(train, first) is not None and getattr(train, second) not in (None, "auto"):
            keys = (("train", first), ("train", second))
            yield Conflict(f"given together with {second}", keys, f"remove it, or remove {second}")
    if train.warmup_steps is not None and train.max_steps is not None and train.warmup_steps > train.max_steps:
        what = f"{train.warmup_steps} steps of warm-up in a training of {train.max_steps}"
        cure = f"write train.warmup_steps: {train.max_steps}, or fewer: the learning rate would never reach its peak"
        yield Conflict(what, (("train", "warmup_steps"), ("train", "max_steps")), cure)


def _of_engine(recipe: Recipe) -> Iterator[Conflict]:
    train, fast = recipe.train, ("train", "engine")
    if train.engine == "fast":
        if not recipe.data.packing:
            cure = "remove it: the fast engine never pads; or write train.engine: plain"
            yield Conflict("has no effect on engine: fast", (("data", "packing"), fast), cure)
        if recipe.model.attention != "auto":
            cure = "remove it: the fast engine has attention of its own; or write train.engine: plain"
            yield Conflict("has no effect on engine: fast", (("model", "attention"), fast), cure)
    if train.kernels == "compiled" and train.engine != "plain":
        cure = "write train.engine: plain, or remove it: the engine has fused kernels of its own"
        yield Conflict("needs engine: plain", (("train", "kernels"), fast), cure)
    if train.share_prefixes is True:
        if train.engine == "plain" or not recipe.data.packing or recipe.model.attention != "auto":
            yield Conflict(
                "needs the fast engine", (("train", "share_prefixes"), fast), "write train.share_prefixes: auto"
            )
        if recipe.lora.lora_dropout > 0:
            keys = (("train", "share_prefixes"), ("lora", "lora_dropout"))
            what = "does not go together with dropout: each row drops other features"
            yield Conflict(what, keys, "write train.share_prefixes: auto, or lora.lora_dropout: 0")


def _of_adapter(recipe: Recipe) -> Iterator[Conflict]:
    lora = recipe.lora
    if lora.use_dora and lora.init_lora_weights == "pissa":
        keys = (("lora", "init_lora_weights"), ("lora", "use_dora"))
        yield Conflict("pissa does not go together with use_dora", keys, "write lora.use_dora: false, or another start")
    if recipe.model.quantization != "none" and lora.init_lora_weights == "pissa":
        keys = (("lora", "init_lora_weights"), ("model", "quantization"))
        what = "pissa takes its start out of the weights, which a quantised base does not give"
        yield Conflict(what, keys, "write lora.init_lora_weights: true, or model.quantization: none")
    yield from _of_targets(lora.target_modules)


def _of_targets(targets: str | tuple[str, ...]) -> Iterator[Conflict]:
    """Targets that cannot be what was meant, on any model."""
    key = (("lora", "target_modules"),)
    for target in (targets,) if isinstance(targets, str) else targets:
        is_all = re.sub(r"[-_ ]+", "-", target.strip().lower()) in ("all", "all-linear", "all-linear-layers")
        if is_all and targets != "all-linear":
            yield Conflict(f"{target!r} is not the word that takes every layer", key, "write all-linear")
            return
        parts = re.findall(r"[\w.]+", target)
        if re.fullmatch(r"[\[(\s'\"]*[\w.]+(['\"]?(\s*[,;]\s*|\s+)['\"]?[\w.]+)*[\])\s'\"]*", target) and (
            target not in parts
        ):
            names = (
                parts if isinstance(targets, str) else [name for one in targets for name in re.findall(r"[\w.]+", one)]
            )
            yield Conflict("a list of names is written in brackets", key, f"write [{', '.join(names)}]")
            return
    if isinstance(targets, str):
        try:
            re.compile(targets)
        except re.error as error:
            cure = "write all-linear, a list of names, or a regular expression that matches whole names"
            yield Conflict(f"not a regular expression: {error}", key, cure)


def _of_output(recipe: Recipe) -> Iterator[Conflict]:
    trackers = recipe.output.trackers
    if len(set(trackers)) < len(trackers):
        yield Conflict("a tracker is given twice", (("output", "trackers"),), f"write {_each_once(trackers)}")
    yield from _of_wandb(recipe.output)
    model = recipe.model
    if model.revision != "main" and model.name_or_path.startswith(("/", "builtin:")):
        keys = (("model", "revision"), ("model", "name_or_path"))
        yield Conflict("has no effect on a base that is not on the hub", keys, "remove it")


def _of_wandb(output: OutputConfig) -> Iterator[Conflict]:
    for name, refused in (("wandb_project", _NOT_IN_A_PROJECT), ("wandb_name", "")):
        value, key = getattr(output, name), ("output", name)
        if value is None:
            continue
        if "wandb" not in output.trackers:
            cure = "remove it, or add wandb to output.trackers"
            yield Conflict("has no effect where wandb is not a tracker", (key, ("output", "trackers")), cure)
        if not 1 <= len(value.strip()) <= _LONGEST_NAME:
            what = f"wandb takes 1 to {_LONGEST_NAME} characters, and this has {len(value.strip())}"
            yield Conflict(what, (key,), f"write a shorter name, or remove {name}" if value else f"remove {name}")
        if found := sorted(set(value) & set(refused)):
            what = f"wandb takes no {' '.join(refused)} in a project's name, and this has {' '.join(found)}"
            yield Conflict(what, (key,), "leave these characters out")

"""The recipe: all sections together, and the combinations that cannot work."""

from pydantic import Field

from fledge.config.data import DataConfig, SourceConfig, ValidationFraction
from fledge.config.evaluate import EvaluateConfig
from fledge.config.lora import LoraSection
from fledge.config.model import ModelConfig
from fledge.config.output import OutputConfig
from fledge.config.section import Section
from fledge.config.train import TrainConfig
from fledge.errors import Problem


class Recipe(Section):
    """Everything that one training is."""

    model: ModelConfig
    data: DataConfig
    lora: LoraSection = Field(default_factory=LoraSection)
    train: TrainConfig = Field(default_factory=TrainConfig)
    evaluate: EvaluateConfig = Field(default_factory=EvaluateConfig)
    output: OutputConfig = Field(default_factory=OutputConfig)


def sources(value: SourceConfig | tuple[SourceConfig, ...] | ValidationFraction | None) -> tuple[SourceConfig, ...]:
    """One source, several or none, as a tuple."""
    if isinstance(value, SourceConfig):
        return (value,)
    return value if isinstance(value, tuple) else ()


def conflicts(recipe: Recipe) -> list[Problem]:
    """Combinations of valid values that cannot work together; `where` is the key."""
    data, train, lora = recipe.data, recipe.train, recipe.lora
    found = []
    if data.overlong == "split" and any(s.format != "text" for s in sources(data.train)):
        found.append(Problem("split is for the text format only", "data.overlong", "use drop, truncate or error"))
    if train.micro_batch_rows is not None and train.micro_batch_tokens != "auto":
        cure = "keep one of the two"
        found.append(Problem("given together with micro_batch_tokens", "train.micro_batch_rows", cure))
    if train.warmup_ratio is not None and train.warmup_steps is not None:
        found.append(Problem("given together with warmup_ratio", "train.warmup_steps", "keep one of the two"))
    if recipe.evaluate.exact_match and data.validation is None:
        found.append(Problem("needs data.validation", "evaluate.exact_match", "give data.validation a source"))
    if lora.use_dora and lora.init_lora_weights == "pissa":
        found.append(Problem("pissa does not go together with use_dora", "lora.init_lora_weights", "use one of the two"))
    return found

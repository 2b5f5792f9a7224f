"""The recipe's options: frozen by name, each documented; test_effects shows what each one does."""

import pytest
from pydantic import BaseModel

from fledge.config.data import DataConfig, SourceConfig, ValidationFraction
from fledge.config.evaluate import EvaluateConfig
from fledge.config.lora import LoraSection
from fledge.config.model import ModelConfig
from fledge.config.output import OutputConfig
from fledge.config.recipe import Recipe
from fledge.config.train import TrainConfig

# A new option is a promise to every user: it is written here by hand, in the same change as its effect.
OPTIONS = {
    Recipe: "model data lora train evaluate output",
    ModelConfig: "name_or_path revision dtype quantization keep_dequantized attention placement trust_remote_code",
    DataConfig: "train validation test max_length max_target_length overlong invalid_rows train_on chat_template "
    "chat_template_kwargs sanitize_control_tokens new_special_tokens new_tokens shuffle packing",
    SourceConfig: "path format split subset revision weight columns prompt completion prompt_prefix prompt_template "
    "text_column system_prompt delimiter",
    ValidationFraction: "fraction",
    LoraSection: "r lora_alpha lora_dropout target_modules use_rslora use_dora init_lora_weights loraplus_lr_ratio "
    "modules_to_save init_from",
    TrainConfig: "num_epochs max_steps global_batch_size micro_batch_tokens micro_batch_rows learning_rate "
    "lr_scheduler warmup_ratio warmup_steps weight_decay adam_betas adam_eps max_grad_norm gradient_checkpointing "
    "engine share_prefixes kernels "
    "save_every_steps keep_checkpoints seed",
    EvaluateConfig: "every_steps early_stopping_patience max_rows exact_match rouge max_new_tokens num_beams",
    OutputConfig: "dir trackers wandb_project wandb_name",
}


@pytest.mark.parametrize("section", OPTIONS, ids=lambda section: section.__name__)
def test_the_options_of_a_section_are_those_that_were_agreed(section: type[BaseModel]) -> None:
    assert list(section.model_fields) == OPTIONS[section].split()


@pytest.mark.parametrize("section", OPTIONS, ids=lambda section: section.__name__)
def test_every_option_has_a_docstring_and_a_section_has_at_most_twenty(section: type[BaseModel]) -> None:
    assert len(section.model_fields) <= 20
    for name, field in section.model_fields.items():
        assert field.description and field.description.endswith("."), f"{section.__name__}.{name}"

"""Options of other tools: none is taken for an option of another meaning, and each has an answer of its own."""

import dataclasses
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig
from pydantic import BaseModel
from transformers import TrainingArguments

from fledge.config.answer import answer_unknown
from fledge.config.data import DataConfig, SourceConfig
from fledge.config.foreign import FRACTIONS, INSTEAD, NEEDLESS, SAME, SOURCES
from fledge.config.nearest import typo_of
from fledge.config.recipe import Recipe
from fledge.config.valued import VALUED

PLACES: dict[str, type[BaseModel]] = {
    "": Recipe,
    "data": DataConfig,
    "data.train": SourceConfig,
    **{name: field.annotation for name, field in Recipe.model_fields.items() if name not in ("data",)},
}
VALUES: tuple[Any, ...] = (True, False, 4, 0.05, "some/name", ("a",), None)

OPTIONS = sorted({option for kind in PLACES.values() for option in kind.model_fields})

SAME_OPTION = """
model.name_or_path: base_model model_name_or_path base_model_name_or_path pretrained_model_name_or_path
model.revision: model_revision revision
model.attention: attn_implementation
model.trust_remote_code: trust_remote_code
data.max_length: sequence_len cutoff_len max_seq_length max_seq_len
data.packing: sample_packing neat_packing packing
data.new_tokens: tokens add_tokens
data.new_special_tokens: additional_special_tokens
data.train.text_column: field dataset_text_field
data.train.split: dataset_train_split
lora.r: lora_r lora_rank r
lora.lora_alpha: lora_alpha
lora.lora_dropout: lora_dropout
lora.target_modules: lora_target_modules lora_target target_modules
lora.modules_to_save: lora_modules_to_save additional_target modules_to_save
lora.use_rslora: peft_use_rslora use_rslora
lora.use_dora: peft_use_dora use_dora
lora.init_lora_weights: peft_init_lora_weights init_lora_weights
lora.loraplus_lr_ratio: loraplus_lr_ratio
train.num_epochs: num_epochs num_train_epochs epochs
train.max_steps: max_steps iters
train.learning_rate: learning_rate
train.lr_scheduler: lr_scheduler lr_scheduler_type
train.warmup_steps: warmup_steps lr_warmup_steps
train.warmup_ratio: warmup_ratio
train.weight_decay: weight_decay
train.adam_eps: adam_epsilon
train.max_grad_norm: max_grad_norm gradient_clipping clip_grad_norm
train.gradient_checkpointing: gradient_checkpointing use_gradient_checkpointing enable_activation_checkpointing
train.gradient_checkpointing: activation_checkpointing grad_checkpoint
train.save_every_steps: save_steps save_every
train.keep_checkpoints: save_total_limit
train.seed: seed data_seed random_state
evaluate.every_steps: eval_steps steps_per_eval run_val_every_n_steps
evaluate.early_stopping_patience: early_stopping_patience
output.dir: output_dir adapter_path
output.wandb_project: wandb_project project
output.wandb_name: wandb_name wandb_run_name
"""
"""Names whose value is an option's, whatever it is."""

OTHERWISE = """
exclude_modules use_galore use_apollo use_badam use_swanlab use_tensorboard use_mlflow use_dft_loss use_qalora
max_lora_rank dataset_batch_size batch_size_val embedding_learning_rate relora relora_steps max_steps_per_epoch
optim_target_modules target_parameters hub_revision fused pretraining_dataset packing_strategy roles conversation
compile loraplus_lr_embedding embedding_lr lora_scale eval_table_size shuffle_merged_datasets
message_property_mappings message_field_role message_field_content sequence_parallel_degree gptq strict debug
rope_scaling shift_attn pissa_iter pissa_init pure_bf16 upcast_layernorm tokenized_path dataset_test_split
model_init_kwargs loss_type use_bnb_nested_quant activation_offloading pad_to_multiple_of full_finetuning
loftq_config trainable_token_indices auto_mapping finetune_attention_modules finetune_mlp_modules
finetune_language_layers finetune_vision_layers apply_lora_to_mlp apply_lora_to_output lora_attn_modules
metric_logger profiler optimizer_in_bwd checkpointer num_layers val_batches test_batches clear_cache_threshold
grad_accumulation_steps resume_adapter_file fine_tune_type optimizer_config mask_prompt load_in_4bit load_in_8bit
gradient_accumulation_steps micro_batch_size per_device_train_batch_size train_on_inputs val_set_size task_type
eval_batch_size hub_model_id bf16 fp16 tf32 flash_attention sdp_attention
special_tokens group_by_length neftune_noise_alpha save_strategy eval_strategy logging_steps report_to precision
mixed_precision warmup adam_beta1 adam_beta2 remove_unused_columns dataloader_num_workers deepspeed fsdp
finetuning_type stage template quantization_bit loss dataset_num_proc eval_packing padding_free rank_pattern
alpha_pattern bias layers_to_transform megatron_core layer_replication optim optim_args resume_from_checkpoint
float32 eager_attention eot_tokens ddp use_kv_cache top_p temperature do_sample unsloth_lora_mlp galore_rank
galore_scale swanlab_run_name create_new_adapter freeze_trainable_layers lora_on_cpu dataset_shards disable_shuffling
"""
"""Names that no option has another name for: removed, or their value written otherwise."""

RIGHT: dict[str, str | None] = dict.fromkeys(OTHERWISE.split()) | {
    name: line.partition(":")[0] for line in SAME_OPTION.strip().splitlines() for name in line.partition(":")[2].split()
}


def meant(answer: str, place: str) -> str | None:
    """The option, dotted, that an answer takes a name for."""
    if not answer.startswith("did you mean "):
        return None
    name = answer.removeprefix("did you mean ").rstrip("?")
    return name if "." in name or not place else f"{place}.{name}"


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("value", VALUES, ids=str)
def test_no_name_of_another_tool_is_taken_for_an_option_of_another_meaning(place: str, value: Any) -> None:
    section = PLACES[place]
    wrong = []
    for name, right in RIGHT.items():
        if name in section.model_fields or (section is SourceConfig and name in OPTIONS):
            continue
        answer = answer_unknown(name, value, section=section, where=place)
        if meant(answer, place) != right and not (name == "pretraining_dataset" and "data.train?" in answer):
            wrong.append((name, answer))
        if right is None and "there is:" in answer:
            wrong.append((name, answer))
    assert len(RIGHT) > 190 and not wrong


def test_no_argument_of_peft_or_transformers_is_taken_for_another_or_left_without_an_answer() -> None:
    names = [field.name for kind in (LoraConfig, TrainingArguments) for field in dataclasses.fields(kind)]
    answers = {name: answer_unknown(name, 3, section=Recipe, where="") for name in names}
    assert len(names) > 130
    assert not [name for name, answer in answers.items() if "there is:" in answer]
    assert not {name: found for name, answer in answers.items() if (found := meant(answer, "")) != RIGHT.get(name)}


TOLD = """
train | run_val_every_n_steps: 10 | did you mean evaluate.every_steps?
 | tokens: [<a>] | did you mean data.new_tokens?
 | test: true | remove it: `fledge evaluate RUN --on test` measures on the rows of data.test
 | use_tensorboard: true | write output.trackers: [tensorboard]
 | use_swanlab: true | remove it: output.trackers knows tensorboard and wandb
 | pretraining_dataset: wiki.jsonl | write data.train: {path: wiki.jsonl, format: text}
 | quantize: null | remove it: nothing is quantised unless model.quantization says so
data | add_special_tokens: true | remove it: special tokens are added where the base's tokenizer
data | valid: 0.1 | write data.validation: {fraction: 0.1}
data | shuffle_merged_datasets: false | write data.shuffle: false
model | quantization_config: {load_in_8bit: true} | write model.quantization: int8
model | quantization_config: {load_in_4bit: true} | write model.quantization: nf4
lora | exclude_modules: [lm_head] | remove it: lora.target_modules names the layers; a regular
lora | scale: 20.0 | remove it, and write this number times r as lora_alpha: 160.0 with r: 8, 320.0 with r: 16
lora | layers: 16 | there is: r, lora_alpha
lora | task_type: CAUSAL_LM | remove it: the base's config.json says what kind of model it is
train | report_to: [wandb] | write output.trackers: [wandb]
train | report_to: mlflow | remove it: output.trackers is empty by default; it takes tensorboard and wandb
train | early_stopping: false | remove it: evaluate.early_stopping_patience is null by default
train | early_stopping: 5 | write evaluate.early_stopping_patience: 5 (
train | warmup: 0.1 | write train.warmup_ratio: 0.1 (
train | warmup: 10 | write train.warmup_steps: 10 (
train | gradient_accumulation_steps: 4 | remove it: train.global_batch_size takes its place: the product of
"""
NUMBER_FORMATS = {
    "fp16": "float16",
    "bf16": "bfloat16",
    "16-mixed": "float16",
    "bf16-mixed": "bfloat16",
    "bf16-true": "bfloat16",
    "32-true": "float32",
    16: "float16",
    "float32": "float32",
    "torch.bfloat16": "bfloat16",
    "no": "float32",
}


@pytest.mark.parametrize("line", TOLD.strip().splitlines())
def test_a_name_is_answered_by_what_its_value_is(line: str) -> None:
    place, text, cure = (part.strip() for part in line.split("|"))
    name, value = setting(text)
    assert answer_unknown(name, value, section=PLACES[place], where=place).startswith(cure)


@pytest.mark.parametrize("word", NUMBER_FORMATS)
@pytest.mark.parametrize("name", ["mixed_precision", "precision", "bnb_4bit_compute_dtype"])
def test_a_number_format_is_answered_in_the_words_of_the_option(name: str, word: str | int) -> None:
    answer = answer_unknown(name, word, section=PLACES["train"], where="train")
    assert answer == f"write model.dtype: {NUMBER_FORMATS[word]}"


SLIPS = """
train: wamup_steps: 3 > warmup_steps
train: learning_rat: 1.0e-4 > learning_rate
train: learningrate: 1.0e-4 > learning_rate
train: Learning-Rate: 1.0e-4 > learning_rate
train: leanring_rate: '3e-4' > learning_rate
train: num_epoch: 2 > num_epochs
train: sede: 2 > seed
train: lora_dropuot: 0.1 > lora.lora_dropout
data: maxlength: 64 > max_length
data: max_lenght: 64 > max_length
data.train: colums: {a: b} > columns
data.train: pth: x > path
lora: targt_modules: all-linear > target_modules
lora: target_module: [q_proj] > target_modules
model: quantisation: nf4 > quantization
: trian: {seed: 3} > train
"""


def setting(text: str) -> tuple[str, Any]:
    """A name and its value as a recipe has it, lists being tuples."""
    ((name, value),) = yaml.safe_load(text).items()
    return name, tuple(value) if isinstance(value, list) else value


@pytest.mark.parametrize("line", SLIPS.strip().splitlines())
def test_a_slip_of_the_hand_is_answered_by_the_option(line: str) -> None:
    place, _, text = line.partition(":")
    text, _, option = text.partition(" > ")
    name, value = setting(text)
    assert answer_unknown(name, value, section=PLACES[place], where=place) == f"did you mean {option}?"


def test_a_slip_in_another_tools_name_has_the_answer_of_that_name() -> None:
    for slip, name in {
        "gradient_acumulation_steps": "gradient_accumulation_steps",
        "savestrategy": "save_strategy",
    }.items():
        told = [answer_unknown(one, 4, section=PLACES["train"], where="train") for one in (slip, name)]
        assert told[0] == told[1] and told[0].startswith("remove it")


@pytest.mark.parametrize("value", [True, ("a",), {"a": 1}, "fast"])
def test_a_slip_whose_value_the_option_cannot_take_is_no_slip(value: Any) -> None:
    assert "did you mean" not in answer_unknown("learning_rat", value, section=PLACES["train"], where="train")


FOREIGN = sorted({*SAME, *SOURCES, *FRACTIONS, *VALUED, *INSTEAD, *NEEDLESS})


def test_no_real_name_is_a_slip_of_an_option_unless_it_is_the_option() -> None:
    found = {name: near for name in (*FOREIGN, *RIGHT) if (near := typo_of(name, OPTIONS)) and near != name}
    meanings = {name: (SAME | SOURCES).get(name, "").rpartition(".")[2] for name in found}
    assert {name for name, near in found.items() if near != meanings[name]} == {
        "adam_beta1",
        "adam_beta2",
        "adam_beta3",
    }


@given(st.sampled_from([option for option in OPTIONS if len(option) > 7]), st.data())
def test_one_letter_too_many_or_too_few_or_two_changed_over_is_a_slip(option: str, data: st.DataObject) -> None:
    words = [place for place, part in enumerate(option.split("_")) if len(part) > 4]
    if not words:
        return
    parts = option.split("_")
    number = data.draw(st.sampled_from(words))
    word = parts[number]
    at = data.draw(st.integers(1, len(word) - 2))
    slipped = data.draw(
        st.sampled_from(
            [
                word[:at] + word[at + 1 :],
                word[:at] + word[at] + word[at:],
                word[:at] + word[at + 1] + word[at] + word[at + 2 :],
            ]
        )
    )
    name = "_".join([*parts[:number], slipped, *parts[number + 1 :]])
    assert typo_of(name, OPTIONS) == option

"""What other tools call the recipe's options: tables that `answer.py` reads.

Names whose value is written otherwise are in `instead.py` and `valued.py`, names without an option of their own in
`needless.py`. The names are those of axolotl, LLaMA-Factory, trl, transformers, peft, unsloth, torchtune, litgpt and
mlx-lm.
"""

from fledge.config.instead import INSTEAD
from fledge.config.needless import NEEDLESS

__all__ = ["FRACTIONS", "INSTEAD", "IN_SECTION", "NEEDLESS", "SAME", "SECTIONS", "SOURCES"]

_SECTIONS = {
    "data": "dataset datasets",
    "evaluate": "eval evaluation generation",
    "lora": "adapter_config lora_args lora_config lora_parameters peft peft_config",
    "model": "base model_args model_config",
    "output": "logging run tracking",
    "train": (
        "args hyperparameters optim optimizer scheduler sft sft_config trainer training training_args "
        "training_arguments"
    ),
}

_IN_SECTION = {
    "model": {"name_or_path": "base id name path repo_id"},
    "lora": {"target_modules": "keys layers modules targets", "r": "dim"},
    "output": {"dir": "directory folder name path"},
    "data.train": {
        "path": "data file files folder name train train_file url",
        "prompt": "input instruction question source",
        "completion": "answer output response summary target",
        "text_column": "column content field text",
        "format": "kind style",
    },
}
_SAME = {
    "data.max_length": (
        "block_size context_length cutoff_len max_input_length max_len max_seq_len max_seq_length "
        "max_source_length model_max_length seq_len seq_length sequence_len sequence_length"
    ),
    "data.max_target_length": "max_completion_length max_output_length target_max_length",
    "data.new_special_tokens": "additional_special_tokens",
    "data.new_tokens": "add_tokens tokens",
    "data.packing": "neat_packing sample_packing use_packing",
    "data.train.completion": (
        "answer_column completion_column completion_feature output_column response_column summary_column target_column"
    ),
    "data.train.format": "data_format dataset_format dataset_type prompt_style type",
    "data.train.prompt": "input_column prompt_column prompt_feature question_column source_column",
    "data.train.prompt_prefix": "source_prefix",
    "data.train.split": "dataset_split dataset_train_split train_split",
    "data.train.subset": "config_name dataset_config dataset_config_name dataset_subset",
    "data.train.system_prompt": "default_system default_system_message default_system_prompt system_message",
    "data.train.text_column": "dataset_text_field field text_feature text_field",
    "evaluate.early_stopping_patience": "early_stopping_rounds early_stopping_steps",
    "evaluate.every_steps": (
        "eval_every_n_steps eval_every_steps eval_interval eval_steps run_val_every_n_steps steps_per_eval "
        "val_check_interval"
    ),
    "evaluate.max_new_tokens": "eval_max_new_tokens generation_max_length max_tokens",
    "evaluate.max_rows": "max_eval_samples",
    "evaluate.num_beams": "eval_num_beams generation_num_beams",
    "lora.init_from": "adapter_name_or_path lora_model_dir",
    "lora.init_lora_weights": "peft_init_lora_weights",
    "lora.lora_alpha": "alpha",
    "lora.lora_dropout": "dropout",
    "lora.loraplus_lr_ratio": "lora_plus_lr_ratio loraplus_ratio",
    "lora.modules_to_save": "additional_target lora_modules_to_save",
    "lora.r": "lora_dim lora_r lora_rank rank",
    "lora.target_modules": "lora_target lora_target_modules",
    "lora.use_dora": "peft_use_dora",
    "lora.use_rslora": "peft_use_rslora",
    "model.attention": "attn_impl attn_implementation",
    "model.dtype": "torch_dtype",
    "model.name_or_path": (
        "base_model base_model_name_or_path checkpoint_dir model_id model_name model_name_or_path model_path "
        "pretrained_model_name_or_path"
    ),
    "model.revision": "model_revision revision_of_model",
    "output.dir": "adapter_path out_dir output_dir output_path save_dir",
    "output.wandb_name": "wandb_run_name",
    "output.wandb_project": "project project_name wandb_project_name",
    "train.adam_betas": "betas",
    "train.adam_eps": "adam_epsilon eps epsilon",
    "train.global_batch_size": "batch_size effective_batch_size total_batch_size train_batch_size",
    "train.gradient_checkpointing": (
        "activation_checkpointing enable_activation_checkpointing grad_checkpoint use_gradient_checkpointing"
    ),
    "train.keep_checkpoints": "save_total_limit",
    "train.learning_rate": "lr",
    "train.lr_scheduler": "lr_schedule lr_scheduler_type scheduler scheduler_type",
    "train.max_grad_norm": "clip_grad_norm grad_clip gradient_clip_val gradient_clipping max_gradient_norm max_norm",
    "train.max_steps": "iters max_iters max_train_steps",
    "train.num_epochs": "epoch epochs max_epochs n_epochs num_train_epochs",
    "train.save_every_steps": "checkpointing_steps save_every save_every_n_steps save_interval save_steps",
    "train.seed": "data_seed random_seed random_state",
    "train.warmup_ratio": "lr_warmup_ratio warmup_fraction warmup_proportion warmup_rate",
    "train.warmup_steps": "lr_warmup_steps num_warmup_steps warmup_iters",
    "train.weight_decay": "wd",
}

_SOURCES = {
    "data.test": "test_data test_dataset test_file",
    "data.train": (
        "data_file data_files data_path dataset dataset_dir dataset_name dataset_path datasets hf_dataset "
        "pretraining_dataset train_data train_file train_files train_path"
    ),
    "data.validation": (
        "dataset_val eval_data eval_dataset eval_file test_datasets val val_data val_dataset val_file valid "
        "valid_data valid_file validation_data validation_dataset validation_file"
    ),
}

FRACTIONS = frozenset(
    "val_set_size val_size val_split val_split_fraction valid_ratio validation_fraction validation_ratio "
    "validation_size validation_split validation_split_percentage eval_ratio eval_size split_ratio test_size".split()
)
"""Names that hold out a share of the training rows."""


def _by_name(table: dict[str, str]) -> dict[str, str]:
    """A table of what is meant and its names, turned to name and what is meant."""
    return {name: meant for meant, names in table.items() for name in names.split()}


SECTIONS = _by_name(_SECTIONS)
"""Other names of whole sections, for a name whose value is a mapping."""
IN_SECTION = {section: _by_name(table) for section, table in _IN_SECTION.items()}
"""Names that mean something in one section alone (every source of rows is data.train)."""
SAME = _by_name(_SAME)
"""Names whose value is written as it is under the option's own name (or is answered by its other words then)."""
SOURCES = _by_name(_SOURCES)
"""Names that hold rows: a path becomes {path: ..., format: ...}."""

"""What other tools call the recipe's options: tables that `answer.py` reads.

The names are those of axolotl, LLaMA-Factory, trl, transformers, peft, unsloth, litgpt and mlx-lm.
"""

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
    "lora": {"target_modules": "layers modules targets", "r": "dim", "lora_alpha": "scale scaling"},
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
    "data.new_special_tokens": "add_special_tokens additional_special_tokens tokens",
    "data.packing": "neat_packing sample_packing use_packing",
    "data.train.completion": (
        "answer_column completion_column output_column response_column summary_column target_column"
    ),
    "data.train.format": "data_format dataset_format dataset_type prompt_style type",
    "data.train.prompt": "input_column prompt_column question_column source_column",
    "data.train.prompt_prefix": "source_prefix",
    "data.train.split": "dataset_split train_split",
    "data.train.subset": "config_name dataset_config dataset_config_name dataset_subset",
    "data.train.system_prompt": "default_system default_system_message default_system_prompt system_message",
    "data.train.text_column": "dataset_text_field text_field",
    "evaluate.early_stopping_patience": "early_stopping_rounds early_stopping_steps",
    "evaluate.every_steps": "eval_interval eval_steps steps_per_eval val_check_interval",
    "evaluate.max_new_tokens": "eval_max_new_tokens generation_max_length max_tokens",
    "evaluate.max_rows": "max_eval_samples",
    "evaluate.num_beams": "eval_num_beams generation_num_beams",
    "lora.init_lora_weights": "peft_init_lora_weights",
    "lora.lora_alpha": "alpha lora_scale",
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
    "model.revision": "model_revision",
    "output.dir": "adapter_path out_dir output_dir output_path save_dir",
    "output.wandb_name": "wandb_run_name",
    "train.adam_betas": "betas",
    "train.adam_eps": "adam_epsilon eps epsilon",
    "train.global_batch_size": "batch_size effective_batch_size total_batch_size train_batch_size",
    "train.gradient_checkpointing": "activation_checkpointing grad_checkpoint use_gradient_checkpointing",
    "train.keep_checkpoints": "save_total_limit",
    "train.learning_rate": "lr",
    "train.lr_scheduler": "lr_schedule lr_scheduler_type scheduler scheduler_type",
    "train.max_grad_norm": "clip_grad_norm grad_clip gradient_clip_val gradient_clipping max_gradient_norm max_norm",
    "train.max_steps": "iters max_iters max_train_steps",
    "train.num_epochs": "epochs max_epochs n_epochs num_train_epochs",
    "train.save_every_steps": "checkpointing_steps save_every save_interval save_steps",
    "train.seed": "data_seed random_seed random_state",
    "train.warmup_ratio": "lr_warmup_ratio",
    "train.warmup_steps": "lr_warmup_steps num_warmup_steps warmup_iters",
    "train.weight_decay": "wd",
}

_SOURCES = {
    "data.test": "test_data test_dataset test_file",
    "data.train": (
        "data_file data_files data_path dataset dataset_dir dataset_name dataset_path datasets train_data "
        "train_dataset train_file train_files train_path"
    ),
    "data.validation": (
        "eval_data eval_dataset eval_file test_datasets val_data val_file validation_data validation_dataset "
        "validation_file"
    ),
}

FRACTIONS = frozenset(
    "val_set_size val_size val_split val_split_fraction valid_ratio validation_fraction validation_ratio "
    "validation_size validation_split validation_split_percentage eval_ratio eval_size split_ratio test_size".split()
)
"""Names that hold out a share of the training rows."""

_NF4, _INT8 = "write model.quantization: nf4", "write model.quantization: int8"
_PLAIN = "remove it: nothing is quantised unless model.quantization says so"
_BITS = {"4": _NF4, "8": _INT8, "16": _PLAIN, "32": _PLAIN}
_BY_DEFAULT = "remove it: the default of model.attention is auto, which takes the fastest way that runs here"
_FLASH = {"true": "write model.attention: flash", "fa2": "write model.attention: flash", "": _BY_DEFAULT}
_TRAINS_ALL = "write data.train_on: all"
_ANSWERS_ONLY = "remove it: only answers are trained unless data.train_on is all"
_ROWS_AT_ONCE = (
    "write train.micro_batch_rows: {value} (rows computed at once, which changes no result; "
    "the rows of one optimiser step are train.global_batch_size)"
)
_ACCUMULATION = (
    "remove it: train.global_batch_size counts the rows of one step: rows per device, times devices, times this"
)
_LORA_ONLY = "remove it: a recipe always trains a LoRA adapter"
_SFT_ONLY = "remove it: a recipe trains on rows as they are (sft); there is no preference training"
_CHAT_TEMPLATE = (
    "remove it: the base's own chat template is used; data.chat_template takes chatml or a Jinja file instead"
)
_ROUGE = {"true": "write evaluate.rouge: true", "": "remove it: answers are generated where evaluate.rouge asks"}
_TRACKERS = {
    "none": "remove it: output.trackers is empty by default",
    "all": "write output.trackers: [tensorboard, wandb]",
    "": "write output.trackers: [{value}]",
}
_CPU = {"true": "write model.placement: cpu", "": "remove it: model.placement is auto by default"}
_TRUNCATION = {"true": "write data.overlong: truncate", "": "remove it: data.overlong says what becomes of long rows"}
_EARLY = {
    "true": "write evaluate.early_stopping_patience: 3 (evaluations without a better validation loss)",
    "": "remove it: evaluate.early_stopping_patience is null by default",
}
_TEXT_OF_WARMUP = "write train.warmup_steps: {value} (or train.warmup_ratio, a share of all steps)"

INSTEAD: dict[str, str | dict[str, str]] = {
    "adam_beta1": "write train.adam_betas: [{value}, 0.999]",
    "adam_beta2": "write train.adam_betas: [0.9, {value}]",
    "adapter": {"qlora": _NF4, "": _LORA_ONLY},
    "assistant_only_loss": {"false": _TRAINS_ALL, "": _ANSWERS_ONLY},
    "bf16": {"true": "write model.dtype: bfloat16", "": "remove it: model.dtype is bfloat16 by default"},
    "bfloat16": {"true": "write model.dtype: bfloat16", "": "remove it: model.dtype is bfloat16 by default"},
    "bits": {**_BITS, "": _PLAIN},
    "bnb_4bit_compute_dtype": "write model.dtype: {value}",
    "bnb_4bit_quant_type": _NF4,
    "chat_template_path": "write data.chat_template: {value}",
    "completion_only_loss": {"false": _TRAINS_ALL, "": _ANSWERS_ONLY},
    "conversation_template": {"chatml": "write data.chat_template: chatml", "": _CHAT_TEMPLATE},
    "device": {
        "cpu": "write model.placement: cpu",
        "auto": "write model.placement: auto",
        "mps": "write model.placement: cpu",
        "": "write model.placement: gpu",
    },
    "device_map": {"cpu": "write model.placement: cpu", "": "write model.placement: auto"},
    "disable_gradient_checkpointing": {
        "true": "write train.gradient_checkpointing: false",
        "": "remove it: train.gradient_checkpointing is auto by default",
    },
    "early_stopping": _EARLY,
    "enable_early_stopping": _EARLY,
    "enable_thinking": "write data.chat_template_kwargs: {enable_thinking: {value}}",
    "excess_length_strategy": {
        "truncate": "write data.overlong: truncate",
        "raise": "write data.overlong: error",
        "": "write data.overlong: drop",
    },
    "field_input": "write data.train.columns: {input: {value}}",
    "field_instruction": "write data.train.columns: {instruction: {value}}",
    "field_messages": "write data.train.columns: {messages: {value}}",
    "field_output": "write data.train.columns: {output: {value}}",
    "field_system": "write data.train.columns: {system: {value}}",
    "field_tools": "write data.train.columns: {tools: {value}}",
    "finetuning_type": {"qlora": _NF4, "": _LORA_ONLY},
    "flash_attention": _FLASH,
    "flash_attn": _FLASH | {"sdpa": "write model.attention: sdpa", "disabled": "write model.attention: eager"},
    "float16": {"true": "write model.dtype: float16", "": "remove it: model.dtype is bfloat16 by default"},
    "fp16": {"true": "write model.dtype: float16", "": "remove it: model.dtype is bfloat16 by default"},
    "fp32": {"true": "write model.dtype: float32", "": "remove it: model.dtype is bfloat16 by default"},
    "load_in_4bit": {"true": _NF4, "": _PLAIN},
    "load_in_8bit": {"true": _INT8, "": _PLAIN},
    "lora_target_linear": {
        "true": "write lora.target_modules: all-linear",
        "": "remove it: lora.target_modules names the layers",
    },
    "mask_history": {
        "true": "write data.train_on: last",
        "": "remove it: every answer of a conversation is trained unless data.train_on is last",
    },
    "mask_prompt": {"false": _TRAINS_ALL, "": _ANSWERS_ONLY},
    "micro_batch_size": _ROWS_AT_ONCE,
    "mixed_precision": {"no": "write model.dtype: float32", "": "write model.dtype: {value}"},
    "no_cuda": _CPU,
    "per_device_batch_size": _ROWS_AT_ONCE,
    "per_device_train_batch_size": _ROWS_AT_ONCE,
    "pissa_init": {"true": "write lora.init_lora_weights: pissa", "": "remove it: lora.init_lora_weights says how"},
    "precision": "write model.dtype: {value}",
    "predict_with_generate": _ROUGE,
    "quantization_bit": {**_BITS, "": _PLAIN},
    "bnb_config": _NF4,
    "quantization_config": _NF4,
    "quantize": {"bnb.int8": _INT8, "false": _PLAIN, "8": _INT8, "": _NF4},
    "report_to": _TRACKERS,
    "logger_name": _TRACKERS,
    "log_with": _TRACKERS,
    "sdp_attention": {"true": "write model.attention: sdpa", "": _BY_DEFAULT},
    "template": {"chatml": "write data.chat_template: chatml", "": _CHAT_TEMPLATE},
    "train_on_inputs": {"true": _TRAINS_ALL, "": _ANSWERS_ONLY},
    "train_on_prompt": {"true": _TRAINS_ALL, "": _ANSWERS_ONLY},
    "train_on_responses_only": {"false": _TRAINS_ALL, "": _ANSWERS_ONLY},
    "train_micro_batch_size_per_gpu": _ROWS_AT_ONCE,
    "truncate": _TRUNCATION,
    "truncation": _TRUNCATION,
    "use_cpu": _CPU,
    "use_flash_attention": _FLASH,
    "use_flash_attention_2": _FLASH,
    "use_flash_attn": _FLASH,
    "use_wandb": {"true": "write output.trackers: [wandb]", "": "remove it: output.trackers is empty by default"},
    "warmup": _TEXT_OF_WARMUP,
}
"""Names whose value is written otherwise: by the value in lower case, "" for every other one."""

_NEEDLESS = {
    "every step is logged, in the run folder's events.jsonl": (
        "disable_tqdm log_every_n_steps log_interval log_level logging_dir logging_first_step logging_steps "
        "logging_strategy plot_loss steps_per_report"
    ),
    "the base's config.json says what kind of model it is": (
        "is_llama_derived_model is_mistral_derived_model model_class model_type tokenizer_type"
    ),
    "the tokenizer that comes with the base is used": (
        "processing_class tokenizer tokenizer_config tokenizer_legacy tokenizer_name tokenizer_name_or_path "
        "tokenizer_use_fast use_fast_tokenizer"
    ),
    "the tokenizer's own special tokens are used; data.new_special_tokens adds others": (
        "add_bos_token add_eos_token bos_token eos_token pad_token pad_token_id "
        "resize_token_embeddings_to_32x resize_vocab special_tokens unk_token"
    ),
    "the optimiser is AdamW; its options are train.adam_betas, train.adam_eps and train.weight_decay": (
        "optim optim_args optimizer optimizer_type"
    ),
    "a checkpoint is saved every train.save_every_steps steps, and after the last": (
        "save_epochs save_only_model save_safetensors save_strategy saves_per_epoch"
    ),
    "where data.validation is given, it is measured every evaluate.every_steps steps, and after the last": (
        "do_eval eval_accumulation_steps eval_batch_size eval_on_start eval_strategy evals_per_epoch "
        "evaluation_strategy per_device_eval_batch_size"
    ),
    "the number of processes is asked for on the command line: fledge train RECIPE --nproc N": (
        "ddp_backend ddp_find_unused_parameters ddp_timeout devices local_rank nproc num_devices num_gpus "
        "num_nodes strategy world_size"
    ),
    "blocks that do not fit a GPU stream from the host's memory (model.placement: auto)": (
        "deepspeed fsdp fsdp_config low_cpu_mem_usage max_memory offload_folder"
    ),
    "train.lr_scheduler falls to zero, or is constant": (
        "cosine_constant_lr_ratio cosine_min_lr_ratio lr_scheduler_kwargs min_lr"
    ),
    "train.engine and train.kernels take the fastest code that runs here by default": (
        "cut_cross_entropy enable_liger_kernel liger_kernel lora_mlp_kernel lora_o_kernel lora_qkv_kernel "
        "plugins s2_attention tf32 torch_compile torch_compile_backend use_liger_kernel use_unsloth "
        "xformers_attention"
    ),
    "reading and tokenising need no setting: what is prepared is kept in a cache": (
        "cache_dir dataloader_drop_last dataloader_num_workers dataloader_pin_memory dataset_kwargs "
        "dataset_num_proc dataset_prepared_path dataset_processes ds_type num_workers overwrite_cache "
        "preprocessing_num_workers remove_unused_columns streaming"
    ),
    "with data.packing nothing is padded, and padding is never trained": (
        "eval_packing eval_sample_packing group_by_length pad_to_max_length pad_to_sequence_len padding "
        "padding_free padding_side sample_packing_eff_est"
    ),
    "the best adapter by validation loss is kept beside the last one: fledge generate RUN --which best": (
        "early_stopping_threshold greater_is_better load_best_model_at_end metric_for_best_model"
    ),
    "`fledge push RUN REPO` sends a run to a hub": "hub_model_id hub_private_repo hub_strategy push_to_hub",
    "a token is read from HF_TOKEN, never from a recipe": "hf_hub_token hf_use_auth_token hub_token use_auth_token",
    "a training starts with a fresh adapter; the same command goes on with a run that was stopped": (
        "adapter_name_or_path auto_resume_from_checkpoints is_trainable lora_model_dir overwrite_output_dir "
        "resume resume_adapter_file resume_from_checkpoint"
    ),
    "what wandb has of its own is set by wandb's environment variables; output.trackers: [wandb] turns it on": (
        "wandb_entity wandb_log_model wandb_mode wandb_run_id wandb_watch"
    ),
    "lora.target_modules names the layers: all-linear, a list, or a regular expression": (
        "layers_pattern layers_to_transform lora_head lora_key lora_layers lora_mlp lora_projection "
        "lora_query lora_value peft_layers_to_transform rank_pattern"
    ),
    "give a file of fewer rows, or write train.max_steps": "max_samples max_train_samples",
    "every layer has the same lora.lora_alpha": "alpha_pattern",
    "biases are not trained": "bias lora_bias",
    "model.quantization: nf4 says all of it (docs/quantization.md)": "bnb_4bit_use_double_quant double_quantization",
    "model.dtype says in which number format the base is held": "compute_type",
    "rows are put together by Fledge; data.packing says how": "data_collator",
    "`fledge train RECIPE` trains": "do_train",
    "`fledge evaluate RUN` measures a run": "do_predict",
    "it is found out from the base": "fan_in_fan_out",
    "train.gradient_checkpointing says all of it": "gradient_checkpointing_kwargs use_reentrant",
    "a recipe trains; `fledge generate RUN` answers": "inference_mode",
    "each source of a list in data.train has a weight": "interleave_probs mix_strategy",
    "labels are not smoothed: the loss is that of the rows' own tokens": "label_smoothing_factor",
    "a row is one text, which data.max_length bounds": "max_prompt_length",
    "noise on embeddings is not supported": "neftune_noise_alpha",
    "a run is named by its folder, output.dir": "run_name",
    "the assistant's turns are trained; data.train_on: all trains every role's": "roles_to_train",
    "an answer is always trained with the token that ends it": "train_on_eos train_on_eot",
    "the base's config.json says it": "tie_word_embeddings",
    "lora.modules_to_save names modules that are trained whole": "unfrozen_parameters",
    "it is off in training and on when answers are generated": "use_cache",
    "a recipe always trains a LoRA adapter": "fine_tune_type peft_method peft_type tuning_type use_lora use_peft",
    "a recipe trains on rows as they are (sft); there is no preference training": (
        "beta dpo_beta pref_beta reward_model rl stage task task_type"
    ),
    "train.global_batch_size counts the rows of one step: rows per device, times devices, times this": (
        "accumulate_grad_batches grad_accumulation_steps gradient_accumulation gradient_accumulation_iters "
        "gradient_accumulation_steps"
    ),
}


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
NEEDLESS = _by_name(_NEEDLESS)
"""Names without an option of their own: they are to be removed, and why."""

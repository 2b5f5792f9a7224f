"""Names of other tools whose value is written otherwise in a recipe: a table that `answer.py` reads."""

NF4, INT8 = "write model.quantization: nf4", "write model.quantization: int8"
PLAIN = "remove it: nothing is quantised unless model.quantization says so"
_BITS = {"4": NF4, "8": INT8, "16": PLAIN, "32": PLAIN}
_BY_DEFAULT = "remove it: the default of model.attention is auto, which takes the fastest way that runs here"
_FLASH = {"true": "write model.attention: flash", "fa2": "write model.attention: flash", "": _BY_DEFAULT}
_TRAINS_ALL = "write data.train_on: all"
_ANSWERS_ONLY = "remove it: only answers are trained unless data.train_on is all"
_ROWS_AT_ONCE = (
    "write train.micro_batch_rows: {value} (rows computed at once, which changes no result; "
    "the rows of one optimiser step are train.global_batch_size)"
)
_LORA_ONLY = "remove it: a recipe always trains a LoRA adapter"
_CHAT_TEMPLATE = (
    "remove it: the base's own chat template is used; data.chat_template takes chatml or a Jinja file instead"
)
_ROUGE = {"true": "write evaluate.rouge: true", "": "remove it: answers are generated where evaluate.rouge asks"}
_CPU = {"true": "write model.placement: cpu", "": "remove it: model.placement is auto by default"}
_NUMBERS = "remove it: model.dtype says the number format: bfloat16 (the default), float16 or float32"
_SHUFFLE = {
    "false": "write data.shuffle: false",
    "": "remove it: rows are shuffled over all sources unless data.shuffle is false",
}
_TRUNCATION = {"true": "write data.overlong: truncate", "": "remove it: data.overlong says what becomes of long rows"}

INSTEAD: dict[str, str | dict[str, str]] = {
    "adam_beta1": "write train.adam_betas: [{value}, 0.999]",
    "adam_beta2": "write train.adam_betas: [0.9, {value}]",
    "add_special_tokens": {
        "true": "remove it: special tokens are added where the base's tokenizer or its chat template puts them",
        "false": "remove it: special tokens are added where the base's tokenizer or its chat template puts them",
        "": "did you mean data.new_special_tokens?",
    },
    "adapter": {"qlora": NF4, "": _LORA_ONLY},
    "assistant_only_loss": {"false": _TRAINS_ALL, "": _ANSWERS_ONLY},
    "bf16": {"true": "write model.dtype: bfloat16", "": _NUMBERS},
    "bfloat16": {"true": "write model.dtype: bfloat16", "": _NUMBERS},
    "bits": {**_BITS, "": PLAIN},
    "bnb_4bit_quant_type": NF4,
    "chat_template_path": "write data.chat_template: {value}",
    "completion_only_loss": {"false": _TRAINS_ALL, "": _ANSWERS_ONLY},
    "conversation": {"chatml": "write data.chat_template: chatml", "": _CHAT_TEMPLATE},
    "conversation_template": {"chatml": "write data.chat_template: chatml", "": _CHAT_TEMPLATE},
    "device": {
        "cpu": "write model.placement: cpu",
        "auto": "write model.placement: auto",
        "mps": "write model.placement: cpu",
        "": "write model.placement: gpu",
    },
    "device_map": {"cpu": "write model.placement: cpu", "": "write model.placement: auto"},
    "disable_shuffling": {
        "true": "write data.shuffle: false",
        "": "remove it: rows are shuffled over all sources unless data.shuffle is false",
    },
    "disable_gradient_checkpointing": {
        "true": "write train.gradient_checkpointing: false",
        "": "remove it: train.gradient_checkpointing is auto by default",
    },
    "eager_attention": {"true": "write model.attention: eager", "": _BY_DEFAULT},
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
    "finetuning_type": {"qlora": NF4, "": _LORA_ONLY},
    "flash_attention": _FLASH,
    "flash_attn": _FLASH | {"sdpa": "write model.attention: sdpa", "disabled": "write model.attention: eager"},
    "float16": {"true": "write model.dtype: float16", "": _NUMBERS},
    "fp16": {"true": "write model.dtype: float16", "": _NUMBERS},
    "float32": {"true": "write model.dtype: float32", "": _NUMBERS},
    "fp32": {"true": "write model.dtype: float32", "": _NUMBERS},
    "load_in_4bit": {"true": NF4, "": PLAIN},
    "load_in_16bit": PLAIN,
    "load_in_8bit": {"true": INT8, "": PLAIN},
    "gptq": {"true": f"{NF4} (with a base that is not quantised yet)", "": PLAIN},
    "lora_target_linear": {
        "true": "write lora.target_modules: all-linear",
        "": "remove it: lora.target_modules names the layers",
    },
    "mask_history": {
        "true": "write data.train_on: last",
        "": "remove it: every answer of a conversation is trained unless data.train_on is last",
    },
    "mask_prompt": {"false": _TRAINS_ALL, "": _ANSWERS_ONLY},
    "metric": {"rouge": "write evaluate.rouge: true", "": "remove it: the loss on data.validation is measured"},
    "micro_batch_size": _ROWS_AT_ONCE,
    "no_cuda": _CPU,
    "per_device_batch_size": _ROWS_AT_ONCE,
    "per_device_train_batch_size": _ROWS_AT_ONCE,
    "pissa_init": {"true": "write lora.init_lora_weights: pissa", "": "remove it: lora.init_lora_weights says how"},
    "predict_with_generate": _ROUGE,
    "pure_bf16": {"true": "write model.dtype: bfloat16", "": _NUMBERS},
    "quantization_bit": {**_BITS, "": PLAIN},
    "quantize": {"bnb.int8": INT8, "false": PLAIN, "none": PLAIN, "null": PLAIN, "8": INT8, "": NF4},
    "sdp_attention": {"true": "write model.attention: sdpa", "": _BY_DEFAULT},
    "shuffle_before_merging_datasets": _SHUFFLE,
    "shuffle_dataset": _SHUFFLE,
    "shuffle_merged_datasets": _SHUFFLE,
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
    "use_tensorboard": {
        "true": "write output.trackers: [tensorboard]",
        "": "remove it: output.trackers is empty by default",
    },
    "use_unsloth_gc": {
        "true": "write train.gradient_checkpointing: true",
        "": "remove it: train.gradient_checkpointing is auto by default",
    },
    "use_wandb": {"true": "write output.trackers: [wandb]", "": "remove it: output.trackers is empty by default"},
}
"""Names whose value is written otherwise: by the value in lower case, "" for every other one."""

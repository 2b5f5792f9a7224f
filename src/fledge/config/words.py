"""What other tools write for the values of the recipe's options: a table that `mend.py` reads."""

_KIND = " (a format says what a row holds; the kind of a file is told by its name)"

_WORDS = {
    "data.invalid_rows": {
        "drop": "skip|ignore|false",
        "error": "raise|true",
    },
    "data.overlong": {
        "truncate": "cut|true|truncation",
        "error": "raise",
        "drop": "skip|filter",
        "split": "chunk",
    },
    "data.train.format": {
        "chat": "chatml|chat_template|conversation|conversations|dialog|llama3|messages|openai|sharegpt|vicuna",
        "completion" + _KIND: "csv|tsv|xlsx",
        "completion (a row holds one answer: there is no preference training)": "dpo|kto|orpo|preference|rm",
        "completion": "input_output|prompt_completion|summarization",
        "chat, and columns: {user: NAME, assistant: NAME}": "faq|qa|q&a|question_answer|question-answer|questions",
        "alpaca": "instruct|instruction|instructions",
        "alpaca" + _KIND: "json|parquet",
        "chat" + _KIND: "jsonl",
        "text" + _KIND: "markdown|txt",
        "text": "plain|pretrain|pretraining|raw",
    },
    "data.train_on": {
        "completion": "answer|answers|assistant|assistant_only|completions|false|output|response|responses",
        "all": "both|everything|full|inputs|prompt|true",
    },
    "evaluate.rouge": {
        "true": "rouge1|rougel|rouge2",
    },
    "lora.init_lora_weights": {
        "true": "false|kaiming",
        "pissa": "pissa_niter_4|pissa_niter_16",
        "gaussian": "normal",
    },
    "model.attention": {
        "eager": "disabled|math",
        "flash": "fa2|flash_attention|flash_attention_2|flash_attn|flash_attn_2",
        "sdpa": "native",
        "auto": "none|true|xformers",
    },
    "model.dtype": {
        "float16": "16|16-mixed|16-true|fp16|half|torch.float16",
        "float32": "32|32-true|float|fp32|full|torch.float32",
        "bfloat16": "auto|bf16|bf16-mixed|bf16-true|torch.bfloat16",
        "bfloat16 (model.quantization: int8 holds the base in 8 bits)": "int8",
    },
    "model.placement": {
        "gpu": "cuda|cuda:0|gpu:0",
        "cpu": "mps",
        "auto": "tpu|balanced|none",
    },
    "model.quantization": {
        "nf4": "4|4bit|4-bit|bitsandbytes|bnb|bnb.nf4|fp4|int4|q4_k_m|qlora|true",
        "int8": "8|8bit|8-bit|bnb.int8|fp8|q8_0",
        "nf4 (the base itself must not be quantised)": "awq|gptq",
        "none": "false|null|off|no",
    },
    "output.trackers": {
        "[tensorboard, wandb]": "all",
        "[]": "none|null|false",
    },
    "train.engine": {
        "plain": "torch|transformers",
        "fast": "fledge|unsloth",
        "auto": "true",
    },
    "train.gradient_checkpointing": {
        "true": "unsloth",
        "false": "none",
    },
    "train.kernels": {
        "auto": "triton|liger|true",
        "compiled": "compile",
        "torch": "false",
    },
    "train.lr_scheduler": {
        "constant": "constant_with_warmup|none|null",
        "cosine": "cosine_with_min_lr|cosine_with_restarts",
    },
}

WORDS = {
    option: {word: ours for ours, words in table.items() for word in words.split("|")}
    for option, table in _WORDS.items()
}
"""By option: another word for a value, in lower case, and what is written for it."""

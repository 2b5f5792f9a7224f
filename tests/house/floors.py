"""The floors: which rooms a room may import, and where each library is at home."""

_GROUND = "errors units events facts release"
ALLOWED = {
    "errors": "",
    "units": "",
    "events": "",
    "facts": "",
    "release": "",
    "places": "errors",
    "network": "",
    "rundir": "errors events",
    "cache": "errors places",
    "config": "errors units",
    "ops": "errors cache",
    "runtime": "errors config",
    "data": "errors config cache network",
    "engine": "errors ops runtime",
    "models": "errors config facts cache network ops runtime engine",
    "adapters": "errors config facts ops runtime",
    "training": "errors config events rundir ops runtime data engine",
    "evaluation": "errors config events ops runtime data",
    "planning": "errors config units facts runtime data",
    "inspection": "errors config data",
    "exporting": "errors config facts network rundir runtime models adapters",
    "observe": "errors config events units release rundir",
    "commands": f"{_GROUND} places network rundir cache config ops runtime data engine models adapters training "
    "evaluation planning inspection exporting observe",
    "web": "errors events units rundir observe commands",
    "cli": "errors config events units release places commands",
    "__main__": "cli",
    "__init__": "errors config places commands",
}
"""Every row names only rooms above it, so that no circle can be written."""

_FROM_OPS_ON = (
    "ops runtime data engine models adapters training evaluation planning inspection exporting observe commands"
)
AT_HOME = {
    "bitsandbytes": "ops",
    "datasets": "data",
    "gguf": "exporting",
    "filelock": "rundir cache",
    "huggingface_hub": "network models exporting",
    "jinja2": "data models inspection exporting",
    "numpy": _FROM_OPS_ON,
    "openpyxl": "data",
    "peft": "adapters",
    "psutil": "runtime",
    "pyarrow": "data",
    "pydantic": "config",
    "rich": "observe cli",
    "rouge_score": "evaluation",
    "ruamel": "config",
    # training writes its checkpoints with it: there is no pickle on disk
    "safetensors": "models adapters training exporting",
    "starlette": "web",
    "tensorboard": "observe",
    "tokenizers": "data models evaluation",
    # torchrun's agent is started by a command; every other use of torch.distributed is the machine's
    "torch.distributed": "runtime commands",
    "torch": _FROM_OPS_ON,
    # an adapter is put on a PreTrainedModel, and peft returns one; what a GGUF file is like depends on the model's type
    "transformers": "models adapters exporting",
    "triton": "ops",
    "typer": "cli",
    "uvicorn": "web",
    "wandb": "observe",
}
"""The longest name that fits an import decides."""

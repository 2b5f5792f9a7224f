"""What bench/quality.py runs: sizes, seeds and settings of both tasks, fixed before any run that counts."""

from dataclasses import asdict, dataclass
from pathlib import Path

SEEDS = (1, 2, 3)
TOOLS = ("peft", "fledge")
"""The longer training first, so that what runs last is short."""
ROWS, HELD_OUT = 2000, 500
ROW_SEED = 20261129
"""Decides which Alpaca rows are taken and which records are made."""
PILOT_SEED = 7
"""The same for `--pilot`: rows that the table never sees, for the choice of settings."""


@dataclass(frozen=True, slots=True)
class Task:
    """One task's training and judging. Everything else of a training is in TRAINING."""

    learning_rate: float
    num_epochs: int
    max_prompt_tokens: int
    """With what the chat template writes around it. Longer Alpaca rows are left out before rows are drawn."""
    max_answer_tokens: int
    max_new_tokens: int
    """Longest answer that is generated when judged."""


TASKS = {
    "alpaca": Task(learning_rate=5e-4, num_epochs=1, max_prompt_tokens=80, max_answer_tokens=64, max_new_tokens=96),
    "records": Task(learning_rate=1e-3, num_epochs=1, max_prompt_tokens=150, max_answer_tokens=64, max_new_tokens=64),
}


@dataclass(frozen=True, slots=True)
class Training:
    """What both tools share in every training."""

    r: int = 16
    lora_alpha: int = 32
    target_modules: str = "all-linear"
    rows_per_step: int = 16
    warmup_ratio: float = 0.03
    adam_betas: tuple[float, float] = (0.9, 0.999)
    adam_eps: float = 1e-8
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    dtype: str = "bfloat16"
    max_length: int = 256


TRAINING = Training()

JUDGE_ROWS = 64
"""Rows in one batch of answers."""
LOSS_ROWS = 16
"""Rows in one batch of the validation loss."""
PEFT_MICRO_ROWS = 8
"""Rows in one micro-batch of the plain training."""

ALONE = {"adapter_kwargs": {"subfolder": ".no-adapter"}}
"""Keeps from_pretrained from loading an adapter that lies beside the base's weights, by looking where there is none."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """What can be given on the command line."""

    rows: int
    held_out: int
    is_pilot: bool

    @property
    def row_seed(self) -> int:
        return PILOT_SEED if self.is_pilot else ROW_SEED


def as_json(sizes: Sizes, base: Path) -> dict:
    """All that a result depends on; a folder of results made with other settings is refused."""
    return {
        "base": base.name,
        "base_bytes": sum(file.stat().st_size for file in sorted(base.glob("*.safetensors"))),
        "sizes": asdict(sizes),
        "tasks": {name: asdict(task) for name, task in TASKS.items()},
        "training": {**asdict(TRAINING), "adam_betas": list(TRAINING.adam_betas)},
        "judge": {"rows": JUDGE_ROWS, "loss_rows": LOSS_ROWS, "dtype": TRAINING.dtype},
    }

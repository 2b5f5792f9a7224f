"""The learning rate of each step: warm-up, then cosine, linear or constant."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from fledge.config.train import Schedule, TrainConfig

DEFAULT_WARMUP_RATIO = 0.03

_DECAYS: dict[Schedule, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "linear": lambda progress: 1.0 - progress,
    "cosine": lambda progress: 0.5 * (1.0 + math.cos(math.pi * progress)),
}


@dataclass(frozen=True, slots=True)
class LearningRate:
    """The rate of step k, counted from 1, as a pure function."""

    peak: float
    schedule: Schedule
    warmup_steps: int
    total_steps: int

    def at(self, step: int) -> float:
        """Step k of w warm-up steps uses k/w of the peak, so never 0; decay reaches 0 one step after the last."""
        if step <= self.warmup_steps:
            return self.peak * step / self.warmup_steps
        decaying = self.total_steps - self.warmup_steps
        progress = (step - self.warmup_steps - 1) / decaying if decaying > 0 else 0.0
        return self.peak * _DECAYS[self.schedule](min(progress, 1.0))


def learning_rate_of(train: TrainConfig, total_steps: int) -> LearningRate:
    """The schedule that a recipe asks for."""
    warmup = train.warmup_steps
    if warmup is None:
        ratio = train.warmup_ratio if train.warmup_ratio is not None else DEFAULT_WARMUP_RATIO
        warmup = math.ceil(ratio * total_steps)
    return LearningRate(train.learning_rate, train.lr_scheduler, min(warmup, total_steps), total_steps)

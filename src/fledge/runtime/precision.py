"""Number formats by their recipe names, and the gradient scaler that float16 needs."""

from typing import Any, Protocol

import torch

from fledge.config.model import Dtype

TORCH_DTYPES: dict[Dtype, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


class Scaler(Protocol):
    """Keeps small gradients representable: losses are multiplied, gradients divided back before the step."""

    def scale(self, loss: torch.Tensor) -> torch.Tensor: ...
    def unscale(self, gradients: list[torch.Tensor]) -> None: ...
    def update(self, *, overflowed: bool) -> None: ...
    def state(self) -> dict[str, float]: ...
    def load(self, state: dict[str, Any]) -> None: ...
    @property
    def factor(self) -> float: ...
    @property
    def is_active(self) -> bool:
        """True where an overflow is answered by a lower factor instead of an error."""


class NoScaler:
    """float32 and bfloat16 have the range; nothing is scaled."""

    factor = 1.0
    is_active = False

    def scale(self, loss: torch.Tensor) -> torch.Tensor:
        return loss

    def unscale(self, gradients: list[torch.Tensor]) -> None:
        pass

    def update(self, *, overflowed: bool) -> None:
        pass

    def state(self) -> dict[str, float]:
        return {}

    def load(self, state: dict[str, Any]) -> None:
        pass


class DynamicScaler:
    """Dynamic loss scaling (Micikevicius et al., arXiv 1710.03740): halve on overflow, double after a quiet while.

    Factors are powers of two, so scaling itself rounds nothing.
    """

    is_active = True
    START = 65536.0
    _QUIET_STEPS = 2000

    def __init__(self, factor: float | None = None) -> None:
        self.factor = self.START if factor is None else factor
        self._quiet = 0

    def scale(self, loss: torch.Tensor) -> torch.Tensor:
        return loss * self.factor

    def unscale(self, gradients: list[torch.Tensor]) -> None:
        torch._foreach_mul_(gradients, 1.0 / self.factor)

    def update(self, *, overflowed: bool) -> None:
        self._quiet = 0 if overflowed else self._quiet + 1
        if overflowed:
            self.factor /= 2
        elif self._quiet == self._QUIET_STEPS:
            self.factor, self._quiet = self.factor * 2, 0

    def state(self) -> dict[str, float]:
        return {"factor": self.factor, "quiet": self._quiet}

    def load(self, state: dict[str, Any]) -> None:
        self.factor, self._quiet = float(state["factor"]), int(state["quiet"])


def scaler_for(dtype: torch.dtype) -> Scaler:
    """The scaler that a base of this dtype needs."""
    return DynamicScaler() if dtype == torch.float16 else NoScaler()

"""A toy model for the loop: a few weights, batches made from a seed, milliseconds a step."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from fledge.config.train import TrainConfig
from fledge.data.rows import Batch
from fledge.events import Event, StepDone
from fledge.ops.cross_entropy import sum_cross_entropy
from fledge.rundir import RunDir
from fledge.runtime.mesh import OneRank
from fledge.runtime.precision import NoScaler, Scaler
from fledge.training.checkpoint import Trained
from fledge.training.loop import Parts, Plan, ValidationLoss
from fledge.training.optimizer import build_optimizer
from fledge.training.schedule import learning_rate_of
from fledge.training.stop import StopRequest

VOCABULARY = 11


class Toy(torch.nn.Module):
    """An embedding and a head, both trained."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.lora_A = torch.nn.Parameter(torch.randn(VOCABULARY, 6, generator=generator))
        self.lora_B = torch.nn.Parameter(torch.randn(6, VOCABULARY, generator=generator))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.lora_A[ids] @ self.lora_B


def toy_batch(row: int, *, length: int = 7) -> Batch:
    """One row, a function of its number; the first two labels are ignored."""
    generator = torch.Generator().manual_seed(row)
    ids = torch.randint(0, VOCABULARY, (1, length + row % 3), generator=generator)
    width = ids.shape[1]
    return Batch(
        input_ids=ids,
        sources=torch.arange(2, width - 1),
        targets=ids[0, 3:],
        position_ids=torch.arange(width)[None],
        attention_mask=None,
        lengths=(width,),
        rows=(row,),
        is_packed=False,
        num_tokens=width,
    )


def toy_loss(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    return sum_cross_entropy(model(batch.input_ids)[0, batch.sources], batch.targets)


@dataclass
class ToyRun:
    """A run of the toy in a folder; `told` collects events."""

    folder: Path
    train: TrainConfig = field(default_factory=lambda: TrainConfig(learning_rate=1e-2, warmup_steps=2))
    scaler: Scaler = field(default_factory=NoScaler)
    total_steps: int = 6
    save_every: int = 2
    validate_every: int = 3
    patience: int | None = None
    validation_losses: Sequence[float] | None = None
    """What each validation says, by its number; the toy's own loss where None."""
    told: list[Event] = field(default_factory=list)
    stop: StopRequest = field(default_factory=StopRequest)
    model: torch.nn.Module = field(default_factory=Toy)
    loss_of = staticmethod(toy_loss)

    def parts(self, *, is_validating: bool = True) -> Parts:
        model = self.model
        trained = Trained(
            model=model,
            optimizer=build_optimizer(model.named_parameters(), self.train, b_lr_ratio=None),
            scaler=self.scaler,
            save_adapter=lambda folder: self._save_adapter(model, folder),
        )
        return Parts(
            trained=trained,
            batches_of=lambda step: [toy_batch(4 * step + i) for i in range(4)],
            rows_in=lambda step: 4,
            loss_of=self.loss_of,
            blame=lambda batches: [f"row {row}" for batch in batches for row in batch.rows],
            validate=(lambda: self._validated(model)) if is_validating else None,
            mesh=OneRank(),
            run=RunDir(self.folder),
            tell=self.told.append,
            stop=self.stop,
        )

    def plan(self) -> Plan:
        return Plan(
            total_steps=self.total_steps,
            learning_rate=learning_rate_of(self.train, self.total_steps),
            max_grad_norm=self.train.max_grad_norm,
            validate_every=self.validate_every,
            save_every=self.save_every,
            keep_checkpoints=2,
            patience=self.patience,
        )

    @staticmethod
    def _save_adapter(model: torch.nn.Module, folder: Path) -> str:
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: p.detach().clone() for name, p in model.named_parameters()}, folder / "adapter.safetensors")
        return "the sha256"

    def _validated(self, model: torch.nn.Module) -> ValidationLoss:
        measured = self._validate(model)
        if self.validation_losses is None:
            return measured
        done = max((event.step for event in self.told if isinstance(event, StepDone)), default=0)
        return replace(measured, loss=self.validation_losses[done // self.validate_every - 1])

    @staticmethod
    def _validate(model: torch.nn.Module) -> ValidationLoss:
        batches = [toy_batch(1000 + i) for i in range(3)]
        with torch.no_grad():
            total = sum(toy_loss(model, batch) for batch in batches)
        tokens = sum(batch.supervised_tokens for batch in batches)
        return ValidationLoss(float(total) / tokens, tokens)

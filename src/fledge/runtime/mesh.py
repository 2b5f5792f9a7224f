"""The ranks of a run: who this process is, and how sums cross processes.

Sharding the base will add its own mesh behind the same Protocol; the step asks nothing else.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Protocol

import torch
import torch.distributed as dist

PATIENCE = timedelta(hours=12)
"""How long ranks wait for one that generates answers alone; a rank that died is noticed by the launcher at once."""


class Mesh(Protocol):
    """What the step needs to know of other ranks."""

    @property
    def rank(self) -> int: ...
    @property
    def world_size(self) -> int: ...
    @property
    def undo_mean(self) -> float:
        """Factor that undoes a mean over ranks, where gradients are averaged while they are computed."""

    def sum(self, value: torch.Tensor) -> torch.Tensor:
        """The sum of `value` over ranks, where it lies; every rank gets the same bits."""

    def reduce_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Add up gradients over ranks, in place, in one call."""

    def sync_gradients(self, *, when: bool) -> AbstractContextManager[None]:
        """Around one micro-batch: whether its backward pass may exchange gradients already."""

    def gather(self, texts: Sequence[str]) -> list[str]:
        """The texts of all ranks, in order of rank, on every rank."""

    def barrier(self) -> None:
        """Wait for all ranks."""


class OneRank:
    """A run in one process."""

    rank = 0
    world_size = 1
    undo_mean = 1.0

    def sum(self, value: torch.Tensor) -> torch.Tensor:
        return value

    def reduce_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        pass

    def sync_gradients(self, *, when: bool) -> AbstractContextManager[None]:
        return contextlib.nullcontext()

    def gather(self, texts: Sequence[str]) -> list[str]:
        return list(texts)

    def barrier(self) -> None:
        pass


class ReplicatedMesh:
    """Every rank holds the whole base; adapter gradients are added up in one flat call per step."""

    undo_mean = 1.0

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.rank = dist.get_rank()
        self.world_size = dist.get_world_size()

    def sum(self, value: torch.Tensor) -> torch.Tensor:
        total = value.to(self.device, copy=True)
        dist.all_reduce(total)
        return total.to(value.device)

    def reduce_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
            parameter.grad = part.view_as(parameter)

    def sync_gradients(self, *, when: bool) -> AbstractContextManager[None]:
        return contextlib.nullcontext()

    def gather(self, texts: Sequence[str]) -> list[str]:
        parts: list[list[str]] = [[] for _ in range(self.world_size)]
        dist.all_gather_object(parts, list(texts))
        return [text for part in parts for text in part]

    def barrier(self) -> None:
        dist.barrier()


def local_rank() -> int:
    """This process's number on its machine, as torchrun tells it; 0 without torchrun."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def is_first_rank() -> bool:
    """Whether this process writes the run folder."""
    return int(os.environ.get("RANK", "0")) == 0


@contextlib.contextmanager
def joined_mesh(device: torch.device) -> Iterator[Mesh]:
    """The mesh of this process: of all ranks under torchrun (gloo on CPUs, NCCL on GPUs), else of one."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield OneRank()
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=PATIENCE)
    try:
        yield ReplicatedMesh(device)
    finally:
        dist.destroy_process_group()

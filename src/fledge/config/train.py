"""The `train` section: the optimiser, its schedule, its batches, its checkpoints."""

from typing import Annotated, Literal

from pydantic import Field

from fledge.config.section import Section

Schedule = Literal["cosine", "linear", "constant"]
EngineName = Literal["auto", "fast", "plain"]
Kernels = Literal["auto", "torch", "compiled"]
Beta = Annotated[float, Field(ge=0, lt=1)]


class TrainConfig(Section):
    """How the adapter is trained."""

    num_epochs: float = Field(default=3.0, gt=0, le=100_000)
    """Passes over the data; max_steps, where given, decides."""
    max_steps: int | None = Field(default=None, ge=1)
    """Number of optimiser steps; where given, it decides."""
    global_batch_size: int = Field(default=32, ge=1)
    """Rows in one optimiser step, over all ranks."""
    micro_batch_tokens: Literal["auto"] | Annotated[int, Field(ge=8)] = "auto"
    """Tokens computed at once. Changes time and memory, never the result."""
    micro_batch_rows: int | None = Field(default=None, ge=1)
    """Rows computed at once, instead of micro_batch_tokens."""
    learning_rate: float = Field(default=3.0e-4, gt=0, le=1)
    """Peak learning rate."""
    lr_scheduler: Schedule = "cosine"
    """cosine or linear decay to zero, or constant, after warm-up."""
    warmup_ratio: float | None = Field(default=None, ge=0, le=1)
    """Share of the steps that warm up: step k of w uses k/w of the peak. Default 0.03, or 0 with warmup_steps."""
    warmup_steps: int | None = Field(default=None, ge=0)
    """Number of warm-up steps, instead of warmup_ratio."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's decoupled weight decay."""
    adam_betas: tuple[Beta, Beta] = (0.9, 0.999)
    """AdamW's two betas."""
    adam_eps: float = Field(default=1.0e-8, gt=0)
    """AdamW's epsilon."""
    max_grad_norm: float | None = Field(default=1.0, gt=0)
    """Gradients are clipped to this norm; null for no clipping."""
    gradient_checkpointing: Literal["auto"] | bool = "auto"
    """Recompute activations in the backward pass: less memory, more time; auto decides by the memory at hand."""
    engine: EngineName = "auto"
    """Whose code computes a step: fast is Fledge's own, proven equal on the model at hand before the first step; plain
    is the library's modules; auto takes fast wherever every part of the model is known."""
    share_prefixes: Literal["auto"] | bool = "auto"
    """Compute what the rows of a micro-batch begin with in common once, on a CPU once for all of a step where it pays;
    auto: with the fast engine, without dropout."""
    kernels: Kernels = "auto"
    """What computes a step's operations: auto is Fledge's fused kernels, on a GPU that runs them and on a CPU where a
    C++ compiler is; torch is torch's own operations, compiled is torch.compile of each block, with engine: plain."""
    save_every_steps: int = Field(default=200, ge=1)
    """A checkpoint every so many steps; the last step always saves one."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """How many of the newest checkpoints are kept; the best one is kept besides."""
    seed: int = Field(default=42, ge=0, lt=2**63)
    """Decides the adapter's start, the order of rows, the split and dropout."""

"""The `lora` section: the adapter, in peft's words."""

from typing import Annotated, Literal

from pydantic import Field

from fledge.config.section import Section

Name = Annotated[str, Field(min_length=1)]
InitLora = Literal[True, "gaussian", "orthogonal", "pissa"]


class LoraSection(Section):
    """The adapter that is trained."""

    r: int = Field(default=16, ge=1, le=4096)
    """Rank of the update."""
    lora_alpha: float = Field(default=32.0, gt=0)
    """The update is scaled by lora_alpha / r (by lora_alpha / sqrt(r) with use_rslora)."""
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout before the update; masks are keyed by seed, step, row and module."""
    target_modules: Name | Annotated[tuple[Name, ...], Field(min_length=1)] = "all-linear"
    """all-linear, a list of module names, or a regular expression over full names."""
    use_rslora: bool = False
    """Scale by 1 / sqrt(r) instead of 1 / r (arXiv 2312.03732)."""
    use_dora: bool = False
    """Train magnitude and direction apart (DoRA, arXiv 2402.09353)."""
    init_lora_weights: InitLora = True
    """true (Kaiming A, zero B), gaussian, orthogonal or pissa."""
    loraplus_lr_ratio: float | None = Field(default=None, ge=1)
    """LoRA+ (arXiv 2402.12354): B learns this many times faster than A."""
    modules_to_save: tuple[Name, ...] = ()
    """Modules that are trained whole and saved beside the adapter."""
    init_from: Name | None = None
    """A run folder, or a folder with a LoRA adapter in peft's format, to start from with a new optimiser. The adapter
    decides r, lora_alpha, target_modules, use_rslora, use_dora and modules_to_save, and lora_dropout if not given."""

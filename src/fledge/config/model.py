"""The `model` section: which base, and how it is held."""

from typing import Literal

from pydantic import Field

from fledge.config.section import Section

Dtype = Literal["float32", "bfloat16", "float16"]
Attention = Literal["auto", "flash", "sdpa", "eager"]
Placement = Literal["auto", "cpu", "gpu"]


class ModelConfig(Section):
    """The frozen base model."""

    name_or_path: str = Field(min_length=1)
    """Hub id, local folder, or builtin:nestling. Naming a hub id is asking for the network."""
    revision: str = "main"
    """Branch, tag or commit of a hub id."""
    dtype: Dtype = "bfloat16"
    """Number format of the base. The adapter is always trained in float32."""
    attention: Attention = "auto"
    """Which attention code runs: auto is the engine's own, or sdpa; flash needs a GPU and the package flash-attn."""
    placement: Placement = "auto"
    """Where the model lives: auto takes a GPU where there is one."""
    trust_remote_code: bool = False
    """Run code that comes with the model. Off unless you have read that code."""

"""The `model` section: which base, and how it is held."""

from typing import Literal

from pydantic import Field

from fledge.config.section import Section

Dtype = Literal["float32", "bfloat16", "float16"]
Attention = Literal["auto", "flash", "sdpa", "eager"]
Placement = Literal["auto", "cpu", "gpu"]
Quantization = Literal["none", "int8", "nf4"]


class ModelConfig(Section):
    """The frozen base model."""

    name_or_path: str = Field(min_length=1)
    """Hub id, local folder, or builtin:nestling. Naming a hub id is asking for the network."""
    revision: str = "main"
    """Branch, tag or commit of a hub id."""
    dtype: Dtype = "bfloat16"
    """Number format of the base. The adapter is always trained in float32."""
    quantization: Quantization = "none"
    """How the frozen linears of the blocks are held: int8 with a scale for each row, or nf4 at half a byte a weight."""
    keep_dequantized: bool = False
    """Keep as many quantised weights as memory allows unpacked, once and not in each step: faster, the same bits."""
    attention: Attention = "auto"
    """Which attention code runs: auto is the engine's own, or sdpa; flash needs a GPU and the package flash-attn."""
    placement: Placement = "auto"
    """Where the model computes: auto takes a GPU where there is one. Blocks that do not fit it stream from the host."""
    trust_remote_code: bool = False
    """Run code that comes with the model. Off unless you have read that code."""

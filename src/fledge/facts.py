"""What a model is, read once off its modules: the value that passes between rooms."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """Facts about a loaded base. Counts are numbers of parameters, sizes are in bytes."""

    architecture: str
    """Class name, for people to read; nothing decides by it."""
    num_layers: int
    hidden_size: int
    vocab_size: int
    """Rows of the input embedding."""
    num_parameters: int
    parameter_bytes: int
    """As they are held: a quantised base's are fewer than its parameters' number format would take."""
    value_bytes: int
    """Of one number as it is computed with."""
    is_head_tied: bool
    max_positions: int | None
    """Longest row that the model has positions for; None where there is no such limit."""
    linear_names: tuple[str, ...]
    """Distinct last names of the linear layers, the head and what reads images left out, in model order."""
    has_attention_interface: bool
    """Whether attention goes through transformers' AttentionInterface, so that a function of ours can be named."""
    supports_sdpa: bool
    is_encoder_decoder: bool
    takes_positions: bool
    """Whether forward takes position_ids that count from 0; where not (BLOOM), the model makes its own."""
    numbers: tuple[int, ...] = ()
    """Every whole number that the configuration names, each once, rising: windows, chunks and limits are among them."""
    image_parts: tuple[str, ...] = ()
    """Full names of the modules that only images are read with: text does not come by them."""

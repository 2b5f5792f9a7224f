"""The `evaluate` section: what is measured, and how often."""

from pydantic import Field

from fledge.config.section import Section


class EvaluateConfig(Section):
    """Validation during training and evaluation after it."""

    every_steps: int = Field(default=200, ge=1)
    """Validation loss every so many steps, and after the last."""
    early_stopping_patience: int | None = Field(default=None, ge=1)
    """Stop after so many validations in a row without a better loss; adapter/ is then the best one, not the last, also
    where the last step is reached. Null trains all steps and keeps the last."""
    max_rows: int | None = Field(default=None, ge=1)
    """At most this many validation rows; null for all."""
    exact_match: bool = False
    """Generate an answer for each validation row before and after training and count the exact ones."""
    rouge: bool = False
    """Compare the generated answers with the references by ROUGE, before and after training."""
    max_new_tokens: int = Field(default=128, ge=1)
    """Longest generated answer, in tokens."""
    num_beams: int = Field(default=1, ge=1)
    """Beams of the search for an answer; 1 takes the likeliest token at each step."""

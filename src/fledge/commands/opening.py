"""How a run, or the folder of a plain adapter, is opened; every verb that opens one takes this value."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Which = Literal["last", "best"]


@dataclass(frozen=True, slots=True)
class Opening:
    """How a run, or the folder of a plain adapter, is opened. What has no effect there is refused."""

    which: Which | None = None
    """A run's last adapter, or the best by validation loss; None: the last."""
    trust_remote_code: bool = False
    """Run the Python code that comes with the base."""
    base_path: Path | str | None = None
    """Where the base lies now. That of a run must have the hash that the run noted; that of a plain adapter the weights
    that the adapter names, where these are there."""
    recipe: Path | str | None = None
    """Of a plain adapter: the recipe that gives rows and formats, and the base where no `base_path` does."""

    @property
    def chosen(self) -> Which:
        """The adapter that is meant."""
        return self.which or "last"

"""Times the preparation of a data set, from a cold cache and from a warm one, and its peak memory.

    python bench/prepare.py DATA TOKENIZER_FOLDER [--format alpaca] [--max-length 512]

Imports are not counted. The cold run starts in an empty cache folder, which is removed at the end.
"""

import argparse
import os
import resource
import tempfile
from pathlib import Path

from fledge.config.data import DataConfig
from fledge.config.model import ModelConfig
from fledge.data.pipeline import PreparedData, prepare_training
from fledge.models.load_tokenizer import load_tokenizer


def main() -> None:
    """Prepare twice and print one line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("--format", default="alpaca")
    parser.add_argument("--max-length", type=int, default=512)
    given = parser.parse_args()
    source = {"path": str(given.data.resolve()), "format": given.format}
    data = DataConfig.model_validate({"train": source, "max_length": given.max_length})
    model = ModelConfig(name_or_path=str(given.tokenizer.resolve()))
    with tempfile.TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = cache
        before = _peak_megabytes()
        for label in ("cold", "warm"):
            tokenizer = load_tokenizer(model, data)
            prepared = prepare_training(data, tokenizer, seed=0, progress=lambda done, total: None)
            _show(label, prepared, before)


def _show(label: str, prepared: PreparedData, before: float) -> None:
    ledger = prepared.ledger
    print(
        f"{label}: {prepared.seconds:.2f} s, {ledger.rows_read:,} rows read, {ledger.rows_kept:,} kept, "
        f"{ledger.tokens:,} tokens, peak {_peak_megabytes():,.0f} MB (imports alone {before:,.0f} MB)"
    )


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


if __name__ == "__main__":
    main()

"""What kind of data a file holds, by the end of its name."""

from pathlib import Path
from typing import Literal, cast

from fledge.config.paths import DATA_SUFFIXES

Kind = Literal["json", "jsonl", "csv", "tsv", "txt", "parquet", "arrow", "xlsx"]

_OTHER_NAMES = {".ndjson": ".jsonl", ".md": ".txt"}
KINDS: dict[str, Kind] = {
    suffix: cast(Kind, _OTHER_NAMES.get(suffix, suffix).removeprefix(".")) for suffix in DATA_SUFFIXES
}
"""What a file holds, by its suffix."""
NEVER_GZIP = ("parquet", "arrow", "xlsx")
"""Kinds that are packed within already."""
SUPPORTED = f"{', '.join(suffix.removeprefix('.') for suffix in DATA_SUFFIXES)}, and gz of those that are text"


def kind_of_file(path: Path) -> tuple[Kind | None, bool]:
    """The kind of a file (None where its suffix is not one that is read), and whether it is gzip."""
    name = path.name.lower()
    is_gzip = name.endswith(".gz")
    kind = KINDS.get(Path(name.removesuffix(".gz")).suffix)
    return (None if is_gzip and kind in NEVER_GZIP else kind), is_gzip

"""Whether a place can be written, asked before the work and not after it."""

import tempfile
from pathlib import Path

from fledge.errors import RunError
from fledge.rundir import check_free


def check_out(out: Path) -> None:
    """Raises RunError where an export cannot be written to `out`: there is something, or its folder is closed."""
    check_free(out)
    check_writable(out.parent, cure="give another folder as OUT, in a place that can be written")


def check_writable(folder: Path, *, cure: str) -> None:
    """Raises RunError where files cannot be made in `folder`, or, where it is not there yet, in what will hold it."""
    try:
        place = folder
        while not place.exists() and place != place.parent:
            place = place.parent
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        what = f"this folder cannot be written: {error.strerror or error}"
        raise RunError(what, where=str(folder), cure=cure) from error

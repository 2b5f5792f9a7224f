"""Where this user's things lie: the home folder and the folder of caches, also for a user who has neither."""

import os
import stat
import tempfile
from pathlib import Path

from fledge.errors import RunError

_CURE = "set XDG_CACHE_HOME to a folder that can be written"


def home() -> Path | None:
    """The home folder; None where HOME is not set and the user has no entry in the system's list, as in a container."""
    try:
        return Path.home()
    except RuntimeError:
        return None


def expanded(text: str) -> Path:
    """The path with its `~` as the home folder; as it is where there is no such home."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def cache_home() -> Path:
    """$XDG_CACHE_HOME, or ~/.cache, or a folder of this user's among the temporary ones where that cannot be written.

    Raises RunError where there is none of them.
    """
    named = os.environ.get("XDG_CACHE_HOME")
    if named:
        return Path(named)
    own = home()
    return own / ".cache" if own is not None and _can_be_written(own / ".cache" / "fledge") else stand_in()


def stand_in() -> Path:
    """A folder among the temporary ones that nobody but this user can write: kernels are loaded from it.

    Raises RunError where there is none, or where another user has taken its name.
    """
    uid = os.getuid() if hasattr(os, "getuid") else None
    try:
        folder = Path(tempfile.gettempdir()) / ("fledge" if uid is None else f"fledge-{uid}")
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        what = f"there is no folder for caches: the home folder cannot be written, nor the temporary one ({error})"
        raise RunError(what, cure=_CURE) from error
    if uid is not None and (found.st_uid != uid or not stat.S_ISDIR(found.st_mode) or found.st_mode & 0o022):
        raise RunError("others can write this folder, so no caches are kept in it", where=str(folder), cure=_CURE)
    return folder


def settle_home() -> str | None:
    """Give this process and those it starts a home folder where the user has none: libraries look for theirs in it.

    Returns what a person should know; None where home and caches are where they always are.
    """
    if home() is None:
        os.environ["HOME"] = str(stand_in())
        return f"this user has no home folder, so {os.environ['HOME']} is used; set HOME to a folder that stays"
    if os.environ.get("XDG_CACHE_HOME"):
        return None
    caches = cache_home()
    if caches == Path.home() / ".cache":
        return None
    return f"the home folder cannot be written, so caches are kept in {caches}; {_CURE} and stays"


def _can_be_written(folder: Path) -> bool:
    """Whether files can be made in it, or it in what will hold it."""
    place = folder
    try:
        while not place.exists() and place != place.parent:
            place = place.parent
    except OSError:  # what holds it may not even be looked at
        return False
    return place.is_dir() and os.access(place, os.W_OK | os.X_OK)

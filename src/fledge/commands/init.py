"""`fledge init`: write a commented recipe."""

from pathlib import Path

from fledge.config.template import commented_recipe
from fledge.errors import FledgeError


def write_recipe(path: Path) -> Path:
    """Write the commented recipe to `path` and return it. Raises FledgeError where a file is there or cannot be."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(commented_recipe())
    except FileExistsError:
        cure = "give another name: fledge init NAME.yaml"
        raise FledgeError("there is a file of this name; it was left as it is", where=str(path), cure=cure) from None
    except OSError as error:
        raise FledgeError(f"the recipe cannot be written: {error.strerror}", where=str(path)) from None
    return path

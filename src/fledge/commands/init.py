"""`fledge init`: write a commented recipe."""

from pathlib import Path

from fledge.commands.import_recipe import write_new
from fledge.config.template import commented_recipe


def write_recipe(path: Path) -> Path:
    """Write the commented recipe to `path` and return it. Raises FledgeError where a file is there or cannot be."""
    write_new(path, commented_recipe())
    return path

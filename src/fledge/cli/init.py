"""`fledge init`: a commented recipe to start from."""

from pathlib import Path
from typing import Annotated

import typer

from fledge.cli.options import AsJson
from fledge.cli.show import echo, show_json


def run(
    path: Annotated[Path, typer.Argument(metavar="[FILE]", help="Where to write it.")] = Path("recipe.yaml"),
    as_json: AsJson = False,
) -> None:
    """Write a recipe with every option, its default and what it does. A file that exists is left alone."""
    from fledge.commands.init import write_recipe

    written = write_recipe(path)
    if as_json:
        show_json({"recipe": written})
    else:
        echo(f"wrote {written}; train it with: fledge train {written}")

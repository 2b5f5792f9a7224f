"""`fledge import FILE [OUT]`: another tool's configuration as a recipe, every key accounted for."""

from pathlib import Path
from typing import Annotated

import typer

from fledge.cli.options import AsJson
from fledge.cli.show import echo, show_json


def run(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The other tool's YAML file.")],
    out: Annotated[
        Path | None, typer.Argument(metavar="[OUT]", help="Where to write the recipe; stdout if left out.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Translate FILE into a recipe and say what became of each of its keys."""
    from fledge.commands.import_recipe import import_recipe

    result = import_recipe(file, out)
    if as_json:
        show_json(result)
        return
    if out is None:
        echo(result.recipe, nl=False)
        return
    for line in result.account:
        echo(str(line))
    echo(f"wrote {out}")

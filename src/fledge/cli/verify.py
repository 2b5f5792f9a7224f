"""`fledge verify EXPORT --run RUN`: a finished export, proven again, here and in other environments."""

from pathlib import Path
from typing import Annotated

import typer

from fledge.cli.options import AdaptersRecipe, AsJson, BasePath, ProveIn, TrustRemoteCode
from fledge.cli.show import echo, say, show_json, show_notices


def run(
    export: Annotated[Path, typer.Argument(metavar="EXPORT", help="The folder that `fledge export` wrote.")],
    run: Annotated[
        Path, typer.Option("--run", metavar="RUN", help="The run folder, or the adapter's folder, that it was made of.")
    ],
    prove_in: ProveIn = None,
    recipe: AdaptersRecipe = None,
    base_path: BasePath = None,
    trust_remote_code: TrustRemoteCode = False,
    as_json: AsJson = False,
) -> None:
    """Compare EXPORT with its certificate, byte for byte, and what it does with what RUN's model does."""
    from fledge.commands.given import check_given
    from fledge.commands.opening import Opening

    opening = Opening("last", trust_remote_code, base_path, recipe)
    check_given(run, opening)

    from fledge.commands.verify import verify

    result = verify(export, run, opening=opening, prove_in=prove_in or (), say=say)
    show_notices(result.notices)
    if as_json:
        show_json(result.as_json())
        return
    for line in result.findings():
        echo(line)
    echo(f"{result.export} is what was trained")

"""`fledge export RUN OUT --to adapter|hf`: what was trained, written for others and checked."""

from pathlib import Path
from typing import Annotated

import typer

from fledge.cli.options import AsJson, Run
from fledge.cli.show import show_json, show_pairs


def run(
    run: Run,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write; it must not exist yet.")],
    to: Annotated[str, typer.Option(help="adapter: peft's format; hf: merged into the base.")] = "hf",
    as_json: AsJson = False,
) -> None:
    """Write RUN's adapter, alone or merged into its base, and compare it with what was trained before it counts."""
    from fledge.commands.export import export

    result = export(run, out, to=to)
    if as_json:
        show_json(result)
    else:
        show_pairs({field: str(getattr(result, field)) for field in result.__dataclass_fields__})

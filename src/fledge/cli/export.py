"""`fledge export RUN OUT --to adapter|hf`: what was trained, written for others and checked."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fledge.cli.options import AsJson, Run, Which
from fledge.cli.show import show_json


class To(StrEnum):
    """The forms that can be written."""

    adapter = "adapter"
    hf = "hf"


class Dtype(StrEnum):
    """The number formats that weights can be written in."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


def run(
    run: Run,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write; it must not exist yet.")],
    to: Annotated[To, typer.Option(help="adapter: peft's format; hf: merged into the base.")] = To.hf,
    dtype: Annotated[
        Dtype | None, typer.Option(help="hf: number format of the weights; the recipe's if not given.")
    ] = None,
    which: Which = "last",
    as_json: AsJson = False,
) -> None:
    """Write RUN's adapter, alone or merged into its base, and compare it with what was trained before it counts."""
    from fledge.commands.export import export

    result = export(run, out, to=to.value, dtype=dtype.value if dtype else None, which=which)
    if as_json:
        show_json(result.as_json())
        return
    for line in result.findings():
        typer.echo(line)
    typer.echo(f"written to {result.out}")

"""`fledge evaluate RUN`: what a run learnt, base beside tuned."""

from typing import Annotated

import typer

from fledge.cli.options import AsJson, Run
from fledge.cli.show import show_json, show_pairs


def run(
    run: Run,
    on: Annotated[
        str, typer.Option(help="validation or test: the rows of data.validation or of data.test.")
    ] = "validation",
    max_rows: Annotated[int | None, typer.Option(min=1, help="At most this many rows.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure RUN: loss and perplexity of its rows, with the base alone and with the adapter."""
    from fledge.commands.evaluate import evaluate

    result = evaluate(run, on=on, max_rows=max_rows)
    if as_json:
        show_json(result)
    else:
        show_pairs({name: str(value) for name, value in vars(result).items()})

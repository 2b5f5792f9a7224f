"""Options that several verbs share, written once."""

from pathlib import Path
from typing import Annotated, Literal

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object, for machines.")]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="The run folder that `fledge train` wrote.")]
RunOrAdapter = Annotated[
    Path,
    typer.Argument(metavar="RUN", help="The run folder that `fledge train` wrote, or a folder with a peft adapter."),
]
AdaptersRecipe = Annotated[
    Path | None,
    typer.Option(
        "--recipe", metavar="RECIPE", help="With an adapter's folder: the recipe with its rows, formats and base."
    ),
]
System = Annotated[
    str | None,
    typer.Option(help="chat: the system text; that of the training rows, where all share one, unless given."),
]
UseBase = Annotated[bool, typer.Option("--base", help="Ask the untuned base instead.")]
MaxNewTokens = Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")]
Temperature = Annotated[float, typer.Option(min=0.0, help="0 is greedy; higher is more varied.")]
TopP = Annotated[
    float | None,
    typer.Option(min=0.0, max=1.0, show_default="1.0", help="Sample from the likeliest tokens of this total mass."),
]
Seed = Annotated[int | None, typer.Option(min=0, show_default="0", help="Decides what is sampled.")]
TrustRemoteCode = Annotated[
    bool,
    typer.Option("--trust-remote-code", help="Run the Python code that comes with this run's base; read it before."),
]
BasePath = Annotated[
    Path | None,
    typer.Option("--base-path", metavar="FOLDER", help="Where RUN's base lies now; a run's must be the same base."),
]
ProveIn = Annotated[
    list[str] | None,
    typer.Option(
        "--prove-in",
        metavar="PYTHON",
        help="The Python of another environment, which reads the export too and must find the same; may be repeated.",
    ),
]
Which = Annotated[
    Literal["last", "best"], typer.Option("--which", help="The last adapter, or the best by validation loss.")
]

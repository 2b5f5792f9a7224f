"""`fledge evaluate RUN`: what a run learnt, base beside tuned."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fledge.cli.options import AsJson, Run, Which
from fledge.cli.show import for_terminal, show_beside, show_json

LONGEST_LINE = 100


class On(StrEnum):
    """The rows that can be asked for."""

    validation = "validation"
    test = "test"
    train = "train"


def run(
    run: Run,
    on: Annotated[On, typer.Option(help="Which rows: data.validation, data.test or data.train.")] = On.validation,
    max_rows: Annotated[int | None, typer.Option(min=1, help="At most this many rows.")] = None,
    exact_match: Annotated[
        bool | None, typer.Option(help="Generate answers and count the exact ones; as the recipe says unless given.")
    ] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer, in tokens.")] = None,
    show: Annotated[int, typer.Option(min=0, help="So many answers are shown, base beside tuned.")] = 5,
    which: Which = "last",
    as_json: AsJson = False,
) -> None:
    """Measure RUN: loss, perplexity and, where asked, exact answers of its rows, base beside tuned."""
    from fledge.commands.console import console
    from fledge.commands.evaluate import Question, evaluate

    question = Question(on.value, max_rows, exact_match, max_new_tokens)
    with console() as screen:
        result = evaluate(run, question=question, which=which, on_prepare=screen.preparing)
    if as_json:
        show_json(result.as_json())
        return
    typer.echo(f"{result.rows:,} {on.value} rows, {result.tokens:,} supervised tokens")
    typer.echo(f"{'':<12}  {'base':>10}  {'tuned':>10}")
    typer.echo(f"{'loss':<12}  {result.base.loss:>10.4f}  {result.tuned.loss:>10.4f}")
    typer.echo(f"{'perplexity':<12}  {result.base.perplexity:>10.4g}  {result.tuned.perplexity:>10.4g}")
    if result.base.exact_match is not None and result.tuned.exact_match is not None:
        typer.echo(f"{'exact match':<12}  {result.base.exact_match:>10.1%}  {result.tuned.exact_match:>10.1%}")
    for row in _predictions(result.folder, show):
        typer.echo()
        typer.echo(f"prompt     {_brief(row['prompt'])}")
        typer.echo(f"reference  {_brief(row['reference'])}")
        show_beside(("base", row["base"]), ("tuned", row["tuned"]))
    typer.echo(f"\nwritten to {result.folder}")


def _predictions(folder: Path, count: int) -> list[dict[str, str]]:
    """The first answers of an evaluation; none where none were generated."""
    path = folder / "predictions.jsonl"
    # a line ends with \n alone: answers hold what str.splitlines takes for ends of lines too
    lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
    return [json.loads(line) for line in lines[:count] if line]


def _brief(text: str) -> str:
    words = " ".join(for_terminal(text).split())
    return words if len(words) <= LONGEST_LINE else f"{words[: LONGEST_LINE - 4]} ..."

"""`fledge evaluate RUN`: what a run learnt, base beside tuned."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fledge.cli.options import AdaptersRecipe, AsJson, BasePath, RunOrAdapter, TrustRemoteCode, Which
from fledge.cli.show import as_points, counting, echo, say, show_beside, show_json, show_notices
from fledge.errors import FledgeError
from fledge.units import for_terminal

if TYPE_CHECKING:
    from fledge.commands.evaluate import Evaluation

LONGEST_LINE, SHOWN = 100, 5


class On(StrEnum):
    """The rows that can be asked for."""

    validation = "validation"
    test = "test"
    train = "train"


def run(
    run: RunOrAdapter,
    on: Annotated[On, typer.Option(help="Which rows: data.validation, data.test or data.train.")] = On.validation,
    max_rows: Annotated[int | None, typer.Option(min=1, help="At most this many rows.")] = None,
    exact_match: Annotated[
        bool | None, typer.Option(help="Generate answers and count the exact ones; as the recipe says unless given.")
    ] = None,
    rouge: Annotated[
        bool | None,
        typer.Option(help="Generate answers and compare them by ROUGE; as the recipe says unless given."),
    ] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer, in tokens.")] = None,
    num_beams: Annotated[int | None, typer.Option(min=1, help="Beams of the search; 1 is greedy.")] = None,
    show: Annotated[
        int | None, typer.Option(min=0, help="So many answers are shown, base beside tuned; 5 unless given.")
    ] = None,
    which: Which = "last",
    recipe: AdaptersRecipe = None,
    base_path: BasePath = None,
    trust_remote_code: TrustRemoteCode = False,
    as_json: AsJson = False,
) -> None:
    """Measure RUN: loss, perplexity and, where asked, exact match and ROUGE of its rows, base beside tuned."""
    if as_json and show is not None:
        cure = "leave one of the two out; predictions.jsonl has every answer"
        raise FledgeError("has no effect with --json", where="--show", cure=cure)

    from fledge.commands.given import check_given
    from fledge.commands.opening import Opening

    opening = Opening(which, trust_remote_code, base_path, recipe)
    check_given(run, opening)

    from fledge.commands.console import console
    from fledge.commands.evaluate import Question, evaluate

    question = Question(on.value, max_rows, exact_match, max_new_tokens, rouge, num_beams, show)
    with console() as screen, counting("answering", "answers") as answering:
        result = evaluate(
            run,
            question=question,
            opening=opening,
            on_prepare=screen.preparing,
            on_answers=answering,
            say=say,
        )
    show_notices(result.notices)
    if as_json:
        show_json(result.as_json())
        return
    _show(result)
    for row in _predictions(result.folder, SHOWN if show is None else show):
        echo()
        echo(f"prompt     {_brief_end(row['prompt'])}")
        reference, *both = (_whole(row, name) for name in ("reference", "base", "tuned"))
        echo(f"reference  {_brief(reference)}")
        show_beside(*zip(("base", "tuned"), both, strict=True))
    if result.fuller is not None:
        echo(f"\na fuller result lies in {result.fuller} and was left alone")
    echo(f"\nwritten to {result.folder}")


def _show(result: "Evaluation") -> None:
    """Print the numbers, base beside tuned."""
    echo(f"{result.rows:,} {result.on} rows, {result.tokens:,} supervised tokens")
    if result.answered not in (None, result.rows):
        echo(f"{result.answered:,} of them have a prompt and a whole answer, and were answered")
    echo(f"{'':<12}  {'base':>10}  {'tuned':>10}")
    echo(f"{'loss':<12}  {result.base.loss:>10.4f}  {result.tuned.loss:>10.4f}")
    echo(f"{'perplexity':<12}  {result.base.perplexity:>10.4g}  {result.tuned.perplexity:>10.4g}")
    if result.base.exact_match is not None and result.tuned.exact_match is not None:
        echo(f"{'exact match':<12}  {result.base.exact_match:>10.1%}  {result.tuned.exact_match:>10.1%}")
    if result.marks is not None and result.marks.exact_mean is not None:
        base_mean, tuned_mean = result.marks.exact_mean
        echo(f"{'mean of all':<12}  {base_mean:>10.1%}  {tuned_mean:>10.1%}")
    if result.marks is not None and any(result.marks.cut):
        base_cut, tuned_cut = result.marks.cut
        echo(f"{'cut answers':<12}  {base_cut:>10,}  {tuned_cut:>10,}")
    for text in result.warnings():
        echo(text)
    several = 0 if result.marks is None else result.marks.several
    if several:
        echo(f"{several:,} rows have several references: an answer is compared with all, the best counts; mean: of all")
    _show_rouge(result)


def _show_rouge(result: "Evaluation") -> None:
    for title, rouge in result.rouge_tables():
        echo(f"\n{title:<12}  {'base [95 %]':>20}  {'tuned [95 %]':>20}  {'tuned - base [95 %]':>22}")
        base, tuned, difference = rouge.base, rouge.tuned, rouge.difference
        for name in base.means:
            one, other = (as_points(part.means[name], part.intervals[name]) for part in (base, tuned))
            between = as_points(difference.means[name], difference.intervals[name], is_difference=True)
            echo(f"{name:<12}  {one:>20}  {other:>20}  {between:>22}")
    if result.marks is not None and result.marks.wordless:
        echo(f"{result.marks.wordless:,} references have no Latin letter and no digit: ROUGE is 0 for them")


def _predictions(folder: Path, count: int) -> list[dict[str, str]]:
    """The first answers of an evaluation; none where none were generated."""
    path = folder / "predictions.jsonl"
    # a line ends with \n alone: answers hold what str.splitlines takes for ends of lines too
    lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
    return [json.loads(line) for line in lines[:count] if line]


def _whole(row: dict[str, str], name: str) -> str:
    """A text with the special tokens in it, where there are any."""
    return row.get(f"{name}_with_special_tokens", row[name])


def _brief(text: str) -> str:
    """The beginning of a text, on one line."""
    words = _on_one_line(text)
    return words if len(words) <= LONGEST_LINE else f"{words[: LONGEST_LINE - 4]} ..."


def _brief_end(text: str) -> str:
    """The end of a text, on one line: of a prompt the question, which comes after system text and template."""
    words = _on_one_line(text)
    return words if len(words) <= LONGEST_LINE else f"... {words[4 - LONGEST_LINE :]}"


def _on_one_line(text: str) -> str:
    return " ".join(for_terminal(text).split())

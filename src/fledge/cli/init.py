"""`fledge init`: a recipe to start from, the commented one or one for a file of rows."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fledge.cli.options import AsJson
from fledge.cli.show import echo, show_json, show_marked, show_marks
from fledge.units import for_terminal

if TYPE_CHECKING:
    from fledge.commands.init_commented import ShownRow

_LONGEST = 700
"""Characters of a row that are shown."""


def run(
    path: Annotated[Path, typer.Argument(metavar="[FILE]", help="Where to write it.")] = Path("recipe.yaml"),
    model: Annotated[str | None, typer.Option(help="The base: a hub id or a folder.")] = None,
    data: Annotated[
        str | None, typer.Option(help="Rows: a file, a folder or a hub id; format and columns are found in it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a recipe. With --model and --data it is short and made for these rows, three of which are shown with the
    trained part marked. Else it has every option, its default and what it does. A file that exists is left alone.
    """
    from fledge.commands.init_commented import check_asked, commented

    check_asked(path, model=model, data=data)
    if data is None:
        written = commented(path, model=model)
    else:  # what reads rows and tokenizers is heavy
        from fledge.commands.init import init

        written = init(path, model=model, data=data)
    if as_json:
        show_json(written)
        return
    for remark in written.remarks:
        echo(remark)
    if written.rows:
        echo()
        show_marks("in these rows, what the model learns to write")
    for number, row in enumerate(written.rows, 1):
        echo(f"\nrow {number}:")
        _show(row)
    echo(f"{chr(10) if written.rows else ''}wrote {path}; train it with: fledge train {shlex.quote(str(path))}")


def _show(row: "ShownRow") -> None:
    """Print a row's text, the trained parts marked."""
    pieces, place = [], 0
    for start, stop in (*row.spans, (len(row.text), len(row.text))):
        pieces += [(_short(row.text[place:start]), False), (_short(row.text[start:stop]), True)]
        place = stop
    show_marked([(text, is_marked) for text, is_marked in pieces if text])


def _short(text: str) -> str:
    """Text without control characters, its middle left out where it is long."""
    clean = for_terminal(text)
    return clean if len(clean) <= _LONGEST else f"{clean[: _LONGEST // 2]} ... {clean[-_LONGEST // 2 :]}"

"""`fledge doctor`: this machine and what it can do."""

import typer

from fledge.cli.options import AsJson
from fledge.cli.show import echo, show_json, show_pairs


def run(as_json: AsJson = False) -> None:
    """Say what is on this machine, what Fledge can do with it, and what is in the way."""
    from fledge.commands.doctor import examine

    found = examine()
    if as_json:
        show_json(found)
    else:
        show_pairs(found.as_lines())
        for problem in found.problems:
            echo(f"fledge: {problem}", err=True)
    if found.problems:
        raise typer.Exit(1)

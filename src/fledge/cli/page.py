"""The verbs page of the documents (docs/verbs.md), made from the command line's own help."""

import contextlib
import io
import sys

from fledge.cli.main import VERBS, build_app

WIDTH = 100

_HEAD = """\
# The verbs

What `fledge VERB --help` prints. Results go to stdout, everything else to stderr; with `--json` the result, or what is
wrong, is one JSON object. The exit code is 0 on success, 1 when the answer is no, 2 when the request cannot be
understood, 130 or 143 when a signal stopped a training with everything saved. Each verb is a function too:
`python -c "import fledge; help(fledge)"`.

This page is made from the code (`python -m fledge.cli.page`), and a test compares the two.
"""


def verbs_page() -> str:
    """The page as Markdown: a section for each verb, with its help as it is printed."""
    parts = [_HEAD]
    parts += [f"## {verb}\n\n```text\n{_help(verb)}\n```\n" for verb in VERBS]
    return "\n".join(parts)


def _help(verb: str) -> str:
    """The help of one verb, as wide as the page and whatever the terminal."""
    printed = io.StringIO()
    app = build_app([verb])
    with contextlib.redirect_stdout(printed):
        app(args=[verb, "--help"], prog_name="fledge", standalone_mode=False, terminal_width=WIDTH)
    return "\n".join(line.rstrip() for line in printed.getvalue().strip().splitlines())


if __name__ == "__main__":
    sys.stdout.write(verbs_page())

"""`fledge push RUN REPO`: a certified export of a run, with a model card, on a model hub."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fledge.cli.options import AsJson, BasePath, Run, TrustRemoteCode
from fledge.cli.show import echo, say, show_json

if TYPE_CHECKING:
    from fledge.commands.push import Pushed


class To(StrEnum):
    """The forms that are exported for a push."""

    adapter = "adapter"
    hf = "hf"


class Dtype(StrEnum):
    """The number formats that merged weights can be written in."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


def run(
    run: Run,
    repo: Annotated[
        str,
        typer.Argument(
            metavar="REPO", help="The repository: NAME, or OWNER/NAME. The token is HF_TOKEN's, or `hf auth login`'s."
        ),
    ],
    to: Annotated[
        To | None, typer.Option(help="adapter (unless given): peft's format; hf: merged into the base.")
    ] = None,
    export: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Push this export of RUN instead of making one.")
    ] = None,
    dtype: Annotated[
        Dtype | None, typer.Option(help="hf: number format of the weights; the recipe's if not given.")
    ] = None,
    which: Annotated[
        Literal["last", "best"] | None,
        typer.Option(help="The last adapter (unless given), or the best by validation loss."),
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="Everybody may see it; private unless given.")] = False,
    revision: Annotated[str, typer.Option(help="The branch; made where it is missing.")] = "main",
    commit_message: Annotated[str | None, typer.Option(help="What the commit says.")] = None,
    base_path: BasePath = None,
    trust_remote_code: TrustRemoteCode = False,
    as_json: AsJson = False,
) -> None:
    """Send RUN's adapter, or base and adapter merged, to a model hub: proven, with a model card, in one commit."""
    from fledge.commands.given import check_run
    from fledge.commands.opening import Opening

    opening = Opening(which, trust_remote_code, base_path)
    check_run(run, opening)

    from fledge.commands.push import Address, Parcel, push

    result = push(
        run,
        repo,
        parcel=Parcel(to.value if to else None, dtype.value if dtype else None, export),
        address=Address(revision, public, commit_message),
        opening=opening,
        tell=say,
        shows_bars=sys.stderr.isatty() and not as_json,
    )
    if as_json:
        show_json(result.as_json())
        return
    _show(result)


def _show(result: "Pushed") -> None:
    sent = result.sent
    who = "everybody" if sent.is_public else "only its owner"
    echo(f"{sent.url}  ({who} can see it)")
    echo(f"commit {sent.commit}" + ("" if sent.is_changed else ", as before: nothing had changed"))

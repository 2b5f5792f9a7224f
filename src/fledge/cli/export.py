"""`fledge export RUN OUT --to adapter|hf|gguf`: what was trained, written for others and checked."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fledge.cli.options import AdaptersRecipe, AsJson, BasePath, ProveIn, RunOrAdapter, TrustRemoteCode, Which
from fledge.cli.show import echo, say, show_json, show_notices


class To(StrEnum):
    """The forms that can be written."""

    adapter = "adapter"
    hf = "hf"
    gguf = "gguf"


class Format(StrEnum):
    """The number formats that weights can be written in: the first three of hf, the others of gguf."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"
    f16 = "f16"
    bf16 = "bf16"
    q8_0 = "q8_0"


class Onto(StrEnum):
    """What the adapter of a quantised run can be merged onto."""

    auto = "auto"
    dequantized = "dequantized"
    full = "full"


def run(
    run: RunOrAdapter,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write; it must not exist yet.")],
    to: Annotated[
        To, typer.Option(help="adapter: peft's format; hf: merged into the base; gguf: the same, in one file.")
    ] = To.hf,
    dtype: Annotated[
        Format | None,
        typer.Option(
            help="Number format of merged weights; the recipe's if not given. "
            "hf: float32, bfloat16, float16; gguf: f16, bf16, q8_0."
        ),
    ] = None,
    onto: Annotated[
        Onto,
        typer.Option(help="A quantised run: merge onto what its base stands for, or onto the base as it came."),
    ] = Onto.auto,
    prove_in: ProveIn = None,
    which: Which = "last",
    recipe: AdaptersRecipe = None,
    base_path: BasePath = None,
    trust_remote_code: TrustRemoteCode = False,
    as_json: AsJson = False,
) -> None:
    """Write RUN's adapter, alone or merged into its base, and compare it with what was trained before it counts."""
    from fledge.commands.given import check_given
    from fledge.commands.opening import Opening
    from fledge.commands.writable import check_out

    opening = Opening(which, trust_remote_code, base_path, recipe)
    check_given(run, opening)
    check_out(out.resolve())

    from fledge.commands.export import Extras, export

    result = export(
        run,
        out,
        to=to.value,
        dtype=dtype.value if dtype else None,
        extras=Extras(onto.value, tuple(prove_in or ())),
        opening=opening,
        say=say,
    )
    show_notices(result.notices)
    if as_json:
        show_json(result.as_json())
        return
    for line in result.findings():
        echo(line)
    echo(f"written to {result.out}; certificate.html there tells what was compared")

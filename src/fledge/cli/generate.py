"""`fledge generate RUN --prompt TEXT`: one answer."""

import sys
from typing import Annotated

import typer

from fledge.cli.options import (
    AdaptersRecipe,
    AsJson,
    BasePath,
    MaxNewTokens,
    RunOrAdapter,
    Seed,
    System,
    Temperature,
    TopP,
    TrustRemoteCode,
    UseBase,
    Which,
)
from fledge.cli.sampling import drawn
from fledge.cli.show import echo, say, show_json, show_notices
from fledge.cli.streams import as_text


def run(
    run: RunOrAdapter,
    prompt: Annotated[str, typer.Option(help="What to answer; - reads it from stdin.")] = "-",
    context: Annotated[str, typer.Option("--input", help="alpaca: the text that the instruction is about.")] = "",
    is_raw: Annotated[bool, typer.Option("--raw", help="Send the prompt as it is, in no format.")] = False,
    system: System = None,
    use_base: UseBase = False,
    max_new_tokens: MaxNewTokens = 128,
    temperature: Temperature = 0.0,
    top_p: TopP = None,
    seed: Seed = None,
    which: Which = "last",
    recipe: AdaptersRecipe = None,
    base_path: BasePath = None,
    trust_remote_code: TrustRemoteCode = False,
    as_json: AsJson = False,
) -> None:
    """Answer one prompt as RUN learnt to; the prompt is put into the format of the run's first source."""
    draws = drawn(temperature, top_p=top_p, seed=seed)
    from fledge.commands.given import check_given
    from fledge.commands.opening import Opening

    opening = Opening(which, trust_remote_code, base_path, recipe)
    check_given(run, opening)
    text = sys.stdin.read().removesuffix("\n") if prompt == "-" else prompt
    text, context = as_text(text, where="the prompt"), as_text(context, where="--input")

    from fledge.commands.generate import Prompt, Sampling, generate

    def write(piece: str) -> None:
        if not as_json:
            echo(piece, nl=False)

    result = generate(
        run,
        Prompt(text, context, is_raw, system),
        sampling=Sampling(max_new_tokens, *draws),
        use_base=use_base,
        opening=opening,
        on_text=write,
        say=say,
    )
    show_notices(result.notices)
    if as_json:
        show_json(result)
    else:
        echo()

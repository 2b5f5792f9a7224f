"""`fledge generate RUN --prompt TEXT`: one answer."""

import sys
from typing import Annotated

import typer

from fledge.cli.options import AsJson, MaxNewTokens, Run, Seed, Temperature, TopP, UseBase
from fledge.cli.show import show_json


def run(
    run: Run,
    prompt: Annotated[str, typer.Option(help="What to answer; - reads it from stdin.")] = "-",
    use_base: UseBase = False,
    max_new_tokens: MaxNewTokens = 128,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Answer one prompt as RUN learnt to; the prompt is put into the format of the run's first source."""
    from fledge.commands.generate import generate

    result = generate(
        run,
        prompt=sys.stdin.read() if prompt == "-" else prompt,
        use_base=use_base,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
    )
    if as_json:
        show_json(result)
    else:
        typer.echo(result.text)

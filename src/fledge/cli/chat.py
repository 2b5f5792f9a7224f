"""`fledge chat RUN`: a conversation."""

import sys

import typer

from fledge.cli.options import AsJson, MaxNewTokens, Run, Seed, Temperature, TopP, UseBase
from fledge.cli.show import show_json


def run(
    run: Run,
    use_base: UseBase = False,
    max_new_tokens: MaxNewTokens = 512,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Talk with RUN: one line is one message, an empty line starts anew, the end of the input ends it."""
    from fledge.commands.chat import open_chat

    conversation = open_chat(
        run, use_base=use_base, max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, seed=seed
    )
    is_person = sys.stdin.isatty() and not as_json
    while True:
        if is_person:
            typer.echo("> ", nl=False)
        line = sys.stdin.readline()
        if not line:
            return
        message = line.strip()
        if not message:
            conversation.reset()
            continue
        pieces = []
        for piece in conversation.say(message):
            pieces.append(piece)
            if not as_json:
                typer.echo(piece, nl=False)
        if as_json:
            show_json({"message": message, "answer": "".join(pieces)})
        else:
            typer.echo()

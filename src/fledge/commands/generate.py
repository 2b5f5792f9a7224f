"""`fledge generate`: one prompt, one answer."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fledge.commands.open_adapter import open_tuned
from fledge.commands.open_run import load_tuned
from fledge.commands.opening import Opening
from fledge.commands.progress import Say, say_nothing
from fledge.commands.prompts import Prompt, prompt_text, settled, text_ids
from fledge.evaluation.generate import Sampling, stream

__all__ = ["Generated", "Prompt", "Sampling", "generate"]


@dataclass(frozen=True, slots=True)
class Generated:
    """An answer. `prompt` is the text that went to the model; `is_complete` says that a stop token ended the answer."""

    prompt: str
    text: str
    tokens: int
    is_complete: bool
    notices: tuple[str, ...] = ()
    """What a person should know of the run that was opened."""


def _ignore(text: str) -> None:
    pass


def generate(
    run: Path | str,
    prompt: Prompt | str,
    *,
    sampling: Sampling | None = None,
    use_base: bool = False,
    opening: Opening | None = None,
    on_text: Callable[[str], None] = _ignore,
    say: Say = say_nothing,
) -> Generated:
    """Answer one prompt with a run's adapter, or with the base alone where `use_base`. `run` may be a plain adapter's
    folder too, with a recipe or without.

    The prompt is put in the form of the run's training data (alpaca's template, the completion format's prefix, the
    chat template) unless it is raw. Greedy unless `sampling` says otherwise. `on_text` gets each piece of the answer as
    it is written, `say` a line before the base is read. `opening` says how the run is opened. Raises FledgeError where
    the run cannot be opened or the prompt is empty or too long.
    """
    opened = open_tuned(run, opening)
    asked = settled(Prompt(prompt) if isinstance(prompt, str) else prompt, opened)
    text, has_specials = prompt_text(asked, opened.recipe, tokenizer=opened.tokenizer)
    ids = text_ids(text, opened.tokenizer, has_specials=has_specials)
    tuned = load_tuned(opened, say=say)
    with tuned.as_base(when=use_base):
        answer = stream(
            tuned.model,
            opened.tokenizer,
            prompt=ids,
            sampling=sampling or Sampling(),
            on_text=on_text,
            max_positions=tuned.facts.max_positions,
        )
    return Generated(text.text, answer.text, len(answer.ids), answer.is_complete, opened.notices)

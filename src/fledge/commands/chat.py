"""`fledge chat`: a conversation with a run's adapter, answers streamed as they are written."""

import shlex
from collections.abc import Callable
from pathlib import Path

from fledge.commands.open_adapter import open_tuned
from fledge.commands.open_run import OpenRun, Tuned, load_tuned
from fledge.commands.opening import Opening
from fledge.commands.progress import Say, say_nothing
from fledge.commands.prompts import Prompt, conversation_ids, prompt_ids, shared_options, shared_system, source_of
from fledge.config.columns import columns_in
from fledge.data.formats.template import parts_of, prompt_of
from fledge.errors import DataError, RunError
from fledge.evaluation.generate import Answer, Sampling, stream

__all__ = ["Conversation", "Sampling", "chat"]


class Conversation:
    """What has been said so far, and the model that answers.

    Where the run was trained on chat or on text, and there is a chat template, every message is answered in the light
    of those before it. Elsewhere each message is a prompt of its own, in the form of the run's training data: what was
    learnt in one form is not asked for in another.
    """

    def __init__(
        self, opened: OpenRun, tuned: Tuned, sampling: Sampling, *, use_base: bool, system: str | None = None
    ) -> None:
        self._opened, self._tuned, self._sampling, self._use_base = opened, tuned, sampling, use_base
        self._system = shared_system(opened) if system is None else system
        self._options = shared_options(opened)
        if self._system and not self.remembers:
            what = f"the run's format, {self.form}, has no place for a system text"
            raise DataError(what, where="--system", cure="write it into the message")
        self.messages: list[dict[str, str]] = []
        self.reset()

    @property
    def notices(self) -> tuple[str, ...]:
        """What a person should know of the run that was opened."""
        return self._opened.notices

    @property
    def remembers(self) -> bool:
        """Whether messages are put through the chat template, and earlier ones are part of the prompt."""
        is_conversation = source_of(self._opened.recipe).format in ("chat", "text")
        return is_conversation and self._opened.tokenizer.has_chat_template

    @property
    def form(self) -> str:
        """How messages are put to the model: `chat template`, or the format of the run's data."""
        return "chat template" if self.remembers else source_of(self._opened.recipe).format

    def say(self, text: str, *, on_text: Callable[[str], None]) -> Answer:
        """The answer to `text`; `on_text` gets each piece of it as it is written.

        Where this is interrupted, by an error or a KeyboardInterrupt out of `on_text` or the model, the conversation
        is as it was before. Raises FledgeError where the conversation has grown longer than the base's positions.
        """
        source = source_of(self._opened.recipe)
        put = prompt_of(source, text) if self.remembers and source.format == "chat" else text
        asked = [*self.messages, {"role": "user", "content": put}]
        answer = self._answer(asked, text, on_text)
        if self.remembers:
            self.messages = [*asked, {"role": "assistant", "content": answer.text}]
        return answer

    def reset(self) -> None:
        """Forget everything that was said but the system text."""
        self.messages = [{"role": "system", "content": self._system}] if self._system else []

    def _answer(self, asked: list[dict[str, str]], text: str, on_text: Callable[[str], None]) -> Answer:
        recipe, tokenizer, tuned = self._opened.recipe, self._opened.tokenizer, self._tuned
        ids = (
            conversation_ids(asked, recipe, tokenizer=tokenizer, options=self._options)
            if self.remembers
            else prompt_ids(Prompt(text), recipe, tokenizer=tokenizer)
        )
        limit, sampling = tuned.facts.max_positions, self._sampling
        if self.messages and limit is not None and len(ids) >= limit:
            what = f"the conversation has {len(ids):,} tokens by now, and this base has positions for {limit:,}"
            cure = "/reset forgets what was said before (in a program: Conversation.reset())"
            raise RunError(what, where="the conversation", cure=cure)
        with tuned.as_base(when=self._use_base):
            return stream(tuned.model, tokenizer, prompt=ids, sampling=sampling, on_text=on_text, max_positions=limit)


def chat(
    run: Path | str,
    *,
    sampling: Sampling | None = None,
    use_base: bool = False,
    system: str | None = None,
    opening: Opening | None = None,
    say: Say = say_nothing,
) -> Conversation:
    """Begin a conversation with a run's adapter, or with the base alone where `use_base`. `run` may be a plain
    adapter's folder too, with a recipe or without.

    It begins with `system`, or where that is None with the system text that all training rows share, if they do. Greedy
    unless `sampling` says otherwise. `opening` says how the run is opened; `say` gets a line before the base is read.
    Raises FledgeError where the run cannot be opened, where its format has no place for a system text, where its
    prompts are made of several columns, which no message is, and where its base is an encoder-decoder: it was trained
    to answer one text and has no place for what was said before.
    """
    opened = open_tuned(run, opening)
    if opened.tokenizer.decoder_start_id is not None:
        what = "this run's base is an encoder-decoder, which answers one text and holds no conversation"
        raise RunError(what, where=str(opened.run.root), cure="use `fledge generate`")
    _check_takes_messages(opened)
    tuned = load_tuned(opened, say=say)
    return Conversation(opened, tuned, sampling or Sampling(max_new_tokens=512), use_base=use_base, system=system)


def _check_takes_messages(opened: OpenRun) -> None:
    """Raise RunError where the run's prompts are made of several columns: a message cannot be all of them."""
    source = source_of(opened.recipe)
    columns = columns_in(parts_of(source)) if source.prompt_template is not None else ()
    if len(columns) > 1:
        what = f"the run's prompts are made of {len(columns)} columns ({', '.join(columns)}), and a message is one text"
        cure = f"write the whole prompt: fledge generate {shlex.quote(str(opened.run.root))} --raw --prompt ..."
        raise RunError(what, where=str(opened.run.root), cure=cure)

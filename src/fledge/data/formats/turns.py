"""Where each assistant turn lies in a rendered conversation, proven by rebuilding the text from its parts."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fledge.data.tokenize import TextTokenizer
from fledge.errors import DataError

Messages = Sequence[Mapping[str, Any]]
Rendering = Callable[[Messages], str]

# What templates are known to do to a message's content besides leaving it alone.
_TRIMS: tuple[Callable[[str], str], ...] = (
    lambda text: text,
    str.strip,
    str.lstrip,
    str.rstrip,
    lambda text: text.strip("\n"),
    lambda text: text.lstrip("\n"),
    lambda text: text.rstrip("\n"),
)
SPECIAL_IN_TEXT = "a special token is written in the row's own text, and becomes that token"
_PRIVATE_USE = range(0xE000, 0xF900)


@dataclass(frozen=True, slots=True)
class Specials:
    """A tokenizer's special tokens, made quick to look for in text."""

    control: re.Pattern[str]
    """BOS, EOS and what the chat template writes: the tokens that mean something when a row's own text holds them."""
    turn_end: re.Pattern[str]
    """White space and then a token that ends a turn: one that generation stops at."""
    starts: frozenset[str]

    def occurs_in(self, text: str) -> bool:
        return any(start in text for start in self.starts) and self.control.search(text) is not None


def specials_of(tokenizer: TextTokenizer) -> Specials:
    """The special tokens; those of white space alone are ordinary text.

    What may follow a turn in the middle of a conversation (a BOS, the next turn's opening) ends no turn; what follows
    the last one does.
    """
    tokens = sorted((token for token in tokenizer.special_tokens if token.strip()), key=len, reverse=True)
    ends = [token for token in tokens if tokenizer.special_tokens[token] in tokenizer.stop_ids]
    written = _written_by_template(tokenizer)
    control = [token for token in tokens if token in (tokenizer.bos_token, tokenizer.eos_token) or token in written]
    return Specials(
        control=_any_of(control),
        turn_end=re.compile(r"\s*(?:" + _any_of(ends).pattern + ")"),
        starts=frozenset(token[:2] for token in control),
    )


def _written_by_template(tokenizer: TextTokenizer) -> str:
    try:
        turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        return tokenizer.render(turns) if tokenizer.has_chat_template else ""
    except DataError:
        return ""


def _any_of(tokens: Sequence[str]) -> re.Pattern[str]:
    return re.compile("|".join(re.escape(token) for token in tokens) or r"(?!)")


def find_turns(messages: Messages, text: str, *, render: Rendering) -> list[tuple[int, int]] | None:
    """Character range of each assistant message's content in `text`, its rendering; None where it cannot be proven.

    The conversation is rendered once more with each content between two marks. That gives the text between the
    contents and the contents as the template changes them; the ranges count only if these parts, each content
    trimmed in some way, put together are `text` to the letter.
    """
    turns = [message for message in messages if message["role"] == "assistant"]
    opening, closing = _marks(messages, text)
    marked = render([_marked(message, opening, closing) for message in messages])
    parts = re.split(f"{opening}([^{opening}{closing}]*){closing}", marked)
    if len(parts) != 2 * len(turns) + 1 or any(mark in part for part in parts for mark in (opening, closing)):
        return None
    return _fit(text, fixed=parts[0::2], contents=parts[1::2])


def _marks(messages: Messages, text: str) -> tuple[str, str]:
    seen = text + "".join(message["content"] for message in messages)
    unseen = unseen_marks(seen)
    return next(unseen), next(unseen)


def unseen_marks(text: str) -> Iterator[str]:
    """Characters of the private use area that `text` does not hold."""
    return (chr(code) for code in _PRIVATE_USE if chr(code) not in text)


def _marked(message: Mapping[str, Any], opening: str, closing: str) -> dict[str, Any]:
    if message["role"] != "assistant":
        return dict(message)
    return {**message, "content": f"{opening}{message['content']}{closing}"}


def end_of(messages: Messages, text: str, *, turn: int, stop: int, render: Rendering, specials: Specials) -> int | None:
    """Where the token ends that closes message `turn`, whose content ends at `stop`; None where there is no such token.

    A token with which the next message's own words begin is no such token: where that could be, the conversation is
    rendered once more with a mark before these words.
    """
    after = messages[turn + 1] if turn + 1 < len(messages) else None
    if after is not None and specials.turn_end.match(after["content"]):
        mark = next(unseen_marks(text))
        content = mark + after["content"]
        text = render([*messages[: turn + 1], {**after, "content": content}, *messages[turn + 2 :]])
    end = specials.turn_end.match(text, stop)
    return end.end() if end else None


def _fit(text: str, *, fixed: Sequence[str], contents: Sequence[str]) -> list[tuple[int, int]] | None:
    """Trim each content so that fixed[0] + contents[0] + fixed[1] + ... is `text`; ranges of the trimmed contents.

    A search over (turn, position), each tried once, so that it ends soon on any input.
    """
    if not text.startswith(fixed[0]):
        return None
    failed: set[tuple[int, int]] = set()
    found: list[tuple[int, int]] = []
    pending = [_options(contents, 0, len(fixed[0]))]
    while pending:
        turn = len(pending) - 1
        if turn == len(contents):
            end = found[-1][1] + len(fixed[-1]) if found else len(fixed[0])
            if end == len(text):
                return found
            option = None
        else:
            option = next(pending[-1], None)
        if option is None:
            pending.pop()
            if found:
                start, stop = found.pop()
                failed.add((len(found) + 1, stop))
            continue
        start, content = option
        stop = start + len(content)
        after = fixed[turn + 1]
        if (turn + 1, stop) not in failed and text.startswith(content, start) and text.startswith(after, stop):
            found.append((start, stop))
            pending.append(_options(contents, turn + 1, stop + len(after)))
    return None


def _options(contents: Sequence[str], turn: int, start: int) -> Iterator[tuple[int, str]]:
    if turn < len(contents):
        yield from ((start, trim(contents[turn])) for trim in _TRIMS)

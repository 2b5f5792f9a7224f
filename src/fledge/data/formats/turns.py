"""Where an assistant's turn begins and ends, by one rule: as serving would write it.

A turn begins where the rendering of what stands before it, with the generation prompt, ends. It ends with the tokens on
which serving stops. Both are read off the rendering in which the turn is the last one.
"""

from dataclasses import dataclass

from fledge.data.tokenize import TextTokenizer
from fledge.errors import DataError

_MARK = "\ue000"
_MOST_SHOWN = 40


@dataclass(frozen=True, slots=True)
class Turn:
    """One answer as serving would write it. `text` is its prompt, the answer, and what the template writes after it."""

    message: int
    text: str
    start: int
    """Where the answer begins: the length of the prompt."""
    stop: int
    """Where the answer ends without the tokens that end the turn."""
    ends: tuple[int, ...]
    """Where each of the tokens ends, at the end of the text, on which serving stops; none where there is none."""
    stops: frozenset[str] = frozenset()
    """All tokens on which serving stops."""

    def end_in(self, text: str) -> int | None:
        """Where this turn ends within `text`, a rendering of the whole conversation; None where it is not in it.

        It is in it where both are the same up to and with a token on which serving stops. Where the template writes no
        such token after a last answer, it may write one between messages, such as the one that opens the next message.
        """
        if text == self.text:
            return self.ends[-1] if self.ends else len(text)
        if not self.ends and text.startswith(self.text):
            found = (token for token in self.stops if text.startswith(token, len(self.text)))
            return next((len(self.text) + len(token) for token in found), None)
        return next((end for end in reversed(self.ends) if text.startswith(self.text[:end])), None)


@dataclass(frozen=True, slots=True)
class Difference:
    """That a generation prompt is not the beginning of the text that is trained."""

    prompt_goes_on: str
    text_goes_on: str

    def __str__(self) -> str:
        return f"the prompt goes on with {_shown(self.prompt_goes_on)} where the text has {_shown(self.text_goes_on)}"


@dataclass(frozen=True, slots=True)
class Endings:
    """A tokenizer's tokens that can end a turn."""

    tokens: tuple[str, ...]
    """Control tokens and those on which serving stops, the longest first."""
    stops: frozenset[str]
    always_prompts: bool
    """Whether the template writes the generation prompt even where it is not asked for it."""
    after_answer: str
    """What the template writes after a last answer."""


def endings_of(tokenizer: TextTokenizer) -> Endings:
    """The tokens that can end a turn; those of white space alone are ordinary text."""
    stops = frozenset(token for token, index in tokenizer.special_tokens.items() if index in tokenizer.stop_ids)
    tokens = (token for token in stops | tokenizer.control_tokens if token.strip())
    by_length = tuple(sorted(tokens, key=lambda token: (-len(token), token)))
    asked, answer = {"role": "user", "content": "a"}, {"role": "assistant", "content": _MARK}
    try:
        always_prompts = tokenizer.render([asked]) == tokenizer.render([asked], add_generation_prompt=True)
        after_answer = tokenizer.render([asked, answer]).rpartition(_MARK)[2]
    except DataError:
        always_prompts, after_answer = False, ""
    return Endings(by_length, stops, always_prompts, after_answer)


def turn_of(number: int, *, prompt: str, text: str, endings: Endings) -> Turn | Difference:
    """The turn of message `number`, from its generation prompt and from the rendering that ends with it."""
    if not text.startswith(prompt):
        same = _common(prompt, text)
        return Difference(prompt[same:], text[same:])
    if endings.always_prompts:
        places = _first(text, len(prompt), endings)
        if not places and endings.after_answer.strip():
            what = "the chat template writes more after an answer, and no token on which serving stops"
            raise DataError(what, cure="set data.chat_template: chatml, or a Jinja file that writes one")
    else:
        places = [place for place in _tail(text, len(prompt), endings.tokens) if text[slice(*place)] in endings.stops]
    stop = places[0][0] if places else len(text)
    return Turn(number, text, len(prompt), stop, tuple(last for _, last in places), endings.stops)


def _first(text: str, start: int, endings: Endings) -> list[tuple[int, int]]:
    """Where the first token lies on which serving stops, for a text that goes on with the next prompt after it."""
    found = [(place, place + len(token)) for token in endings.stops if (place := text.find(token, start)) >= 0]
    return [min(found)] if found else []


def _tail(text: str, start: int, tokens: tuple[str, ...]) -> list[tuple[int, int]]:
    """Where the tokens lie that `text` ends with, white space between and after them, none before `start`."""
    places: list[tuple[int, int]] = []
    stop = len(text.rstrip())
    while text.endswith(tokens, start, stop):
        token = next(token for token in tokens if text.endswith(token, start, stop))
        places.append((stop - len(token), stop))
        stop = max(start, len(text[: places[-1][0]].rstrip()))
    return places[::-1]


def _common(one: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    return next(
        (place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )


def _shown(text: str) -> str:
    return repr(text[:_MOST_SHOWN] + "..." * (len(text) > _MOST_SHOWN)) if text else "nothing more"


def has_words(words: str, text: str) -> bool:
    """Whether `text` holds `words`, white space left aside: templates trim it, and some fold it."""
    return "".join(words.split()) in "".join(text.split())

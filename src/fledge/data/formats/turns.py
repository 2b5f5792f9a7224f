"""Where an assistant's turn begins and ends, by one rule: as serving would write it.

A turn begins where the rendering of what stands before it, with the generation prompt, ends. It ends with the tokens on
which serving stops. Both are read off the rendering in which the turn is the last one.
"""

from dataclasses import dataclass

from fledge.data.tokenize import TextTokenizer

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
    """Where each control token ends that stands at the end of the text, in order."""
    stops: tuple[bool, ...]
    """For each of these tokens, whether serving stops on it."""

    @property
    def is_ended(self) -> bool:
        """Whether the template writes a token on which serving stops."""
        return any(self.stops)

    @property
    def answer(self) -> str:
        """What the model writes, the tokens that end the turn left out."""
        return self.text[self.start : self.stop]

    def end_in(self, text: str) -> int | None:
        """Where this turn ends within `text`, a rendering of the whole conversation; None where it is not in it.

        It is in it where both are the same up to and with a token on which serving stops.
        """
        if text == self.text:
            return self.ends[-1] if self.is_ended else len(text)
        for end, is_stop in zip(reversed(self.ends), reversed(self.stops), strict=True):
            if is_stop and text.startswith(self.text[:end]):
                return end
        return None


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


def endings_of(tokenizer: TextTokenizer) -> Endings:
    """The tokens that can end a turn; those of white space alone are ordinary text."""
    stops = frozenset(token for token, index in tokenizer.special_tokens.items() if index in tokenizer.stop_ids)
    tokens = (token for token in stops | tokenizer.control_tokens if token.strip())
    return Endings(tuple(sorted(tokens, key=lambda token: (-len(token), token))), stops)


def turn_of(number: int, *, prompt: str, text: str, endings: Endings) -> Turn | Difference:
    """The turn of message `number`, from its generation prompt and from the rendering that ends with it."""
    if not text.startswith(prompt):
        same = _common(prompt, text)
        return Difference(prompt[same:], text[same:])
    places = _tail(text, len(prompt), endings.tokens)
    stops = tuple(text[first:last] in endings.stops for first, last in places)
    stop = next((first for (first, _), is_stop in zip(places, stops, strict=True) if is_stop), len(text))
    return Turn(number, text, len(prompt), stop, tuple(last for _, last in places), stops)


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

"""Whether llama.cpp is to begin a text with a space, decided by the texts that were trained, and what is left apart.

A SentencePiece tokenizer of the library's puts SentencePiece's space before a text, or before each piece of it between
special tokens, and not before one that begins with a space. llama.cpp (src/llama-vocab.cpp, llm_tokenizer_spm) has one
flag: a space before each piece between special tokens, always or never.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fledge.errors import ModelError
from fledge.exporting.gguf.splitting import PREPENDED, SPACES_REPLACED, is_metaspace, puts_space_first, unlike
from fledge.models.saved_words import Sample
from fledge.models.tokenizer import Tokenizer, ids_by


@dataclass(frozen=True, slots=True)
class Spaces:
    """The flag for the file, and which of the texts llama.cpp reads otherwise all the same."""

    puts_first: bool | None
    """None leaves it as the rules say."""
    apart: tuple[str, ...] = ()
    texts: int = 0

    def remarks(self) -> tuple[str, ...]:
        """For people, a line; nothing where all texts are read alike."""
        if not self.apart:
            return ()
        first = self.apart[0] if len(self.apart[0]) <= 100 else f"{self.apart[0][:100]}..."
        what = f"llama.cpp puts spaces otherwise in {len(self.apart)} of {self.texts} texts of the training rows"
        return (f"{what}, the first begins {first!r}",)


AS_THE_RULES_SAY = Spaces(None)


def choose_spaces(tokenizer: Tokenizer, samples: Sequence[Sample]) -> Spaces:
    """The flag with which llama.cpp reads most texts as they were trained.

    Raises ModelError where it would read more than half of them otherwise.
    """
    rules = json.loads(tokenizer.rules)
    if not samples or not is_metaspace(rules):
        return AS_THE_RULES_SAY
    own = puts_space_first(rules)
    found = [Spaces(flag, _apart(rules, samples, puts_first=flag), len(samples)) for flag in (own, not own)]
    best = min(found, key=lambda spaces: len(spaces.apart))
    if 2 * len(best.apart) > len(samples):
        raise _unlike(best)
    return best


def _apart(rules: dict[str, Any], samples: Sequence[Sample], *, puts_first: bool) -> tuple[str, ...]:
    normalizer = PREPENDED if puts_first else SPACES_REPLACED
    changed = json.dumps(rules | {"normalizer": normalizer, "pre_tokenizer": None})
    read = ids_by(changed, [text for text, _ in samples])
    return tuple(text for (text, ids), others in zip(samples, read, strict=True) if others != list(ids))


def _unlike(spaces: Spaces) -> ModelError:
    return unlike(spaces.remarks()[0])

"""What a tokenizer makes of texts and of a conversation: the same after the export as in the training."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from fledge.errors import DataError, ProofError
from fledge.exporting.outside import Reading
from fledge.models.chat_template import asks_the_date
from fledge.models.load_tokenizer import saved_tokenizer
from fledge.models.saved_words import Sample, said
from fledge.models.tokenizer import Tokenizer

CONVERSATION: tuple[dict[str, str], ...] = (
    {"role": "user", "content": "What is 2 + 2?\nBe brief."},
    {"role": "assistant", "content": "It is 4."},
    {"role": "user", "content": "  And 3 + 3? <b>Ünïcode</b> \u4f60\u597d"},
)
_TEXTS = ("The quick brown fox.", "  two  spaces\tand\na new line ", "Ünïcode \u4f60\u597d 1,234.50 <b>", "")
_CURE = "nothing was written; report this with the base's name"


@dataclass(frozen=True, slots=True)
class Lesson:
    """Texts and a conversation, and what the run's own tokenizer makes of them."""

    texts: tuple[tuple[str, bool], ...]
    """Each with whether the tokenizer is to put its own special tokens around it."""
    ids: tuple[tuple[int, ...], ...]
    bos_token_id: int | None
    bos_counts: tuple[int, ...]
    """Of each row as it was trained; the rows come first among the texts."""
    template: str | None
    conversation: tuple[Mapping[str, str], ...]
    """Empty where there is no template, or none that takes this conversation."""
    rendered: str | None
    rendered_ids: tuple[int, ...]
    """Of the conversation, as a row of the training would have them."""
    is_dated: bool
    """Whether the template asks what day it is: in the training that is a fixed day, elsewhere today."""


def lesson_of(tokenizer: Tokenizer, rows: Sequence[Sequence[int]], *, samples: Sequence[Sample] = ()) -> Lesson:
    """What is to be asked of the exported tokenizer, from rows of ids as they were trained; and of the samples,
    which are texts with their ids in the training.
    """
    texts = (*(_text_of(row, tokenizer) for row in rows), *((text, True) for text in _TEXTS))
    ids = [tuple(tokenizer.hf(text, add_special_tokens=is_bare)["input_ids"]) for text, is_bare in texts]
    template = tokenizer.hf.chat_template or None
    is_dated = template is not None and asks_the_date(str(template))
    conversation, rendered = CONVERSATION, None
    if template is not None:
        try:
            rendered = tokenizer.render(CONVERSATION, add_generation_prompt=True)
        except DataError:
            conversation = ()
    return Lesson(
        texts=(*texts, *((text, False) for text, _ in samples)),
        ids=(*ids, *(tuple(each) for _, each in samples)),
        bos_token_id=tokenizer.bos_token_id,
        bos_counts=tuple(_count(row, tokenizer.bos_token_id) for row in rows),
        template=template if isinstance(template, str | None) else json.dumps(template, sort_keys=True),
        conversation=conversation if template is not None else (),
        rendered=rendered,
        rendered_ids=() if rendered is None else tuple(tokenizer.encode_batch([rendered])[0].ids),
        is_dated=is_dated,
    )


def _text_of(row: Sequence[int], tokenizer: Tokenizer) -> tuple[str, bool]:
    """The row's text without what the tokenizer itself puts around one, and whether it does."""
    prefix, suffix, ids = tokenizer.prefix_ids, tokenizer.suffix_ids, tuple(row)
    is_bare = ids[: len(prefix)] == prefix
    if is_bare:
        ids = ids[len(prefix) :]
        ids = ids[: -len(suffix)] if suffix and ids[-len(suffix) :] == suffix else ids
    text = tokenizer.hf.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return str(text), is_bare


def _count(ids: Sequence[int], token: int | None) -> int:
    return sum(each == token for each in ids)


def check_reading(lesson: Lesson, found: Reading) -> dict[str, Any]:
    """The figures for the certificate: `template`, `bos` and `ids`.

    Raises ProofError where the template's bytes, a rendered text, an id or the number of BOS tokens is another one.
    """
    return {
        "template": check_template(lesson, found),
        "bos": _check_bos(lesson, found),
        "ids": _check_ids(lesson, found),
    }


def check_template(lesson: Lesson, found: Reading) -> dict[str, Any]:
    """The figures for the certificate. Raises ProofError where template or rendered text are not those of the run."""
    if lesson.template != found.template:
        raise ProofError("the chat template is not the run's, byte for byte", cure=_CURE)
    if found.rendered is not None and not lesson.is_dated and found.rendered != lesson.rendered:
        raise ProofError("the chat template renders a conversation otherwise than in the training", cure=_CURE)
    return {
        "sha256_trained": _sha256(lesson.template),
        "sha256_exported": _sha256(found.template),
        "bytes_equal": True,
        "rendered_equal": None if found.rendered is None or lesson.is_dated else True,
        "rendered": found.rendered,
        "is_dated": lesson.is_dated,
    }


def _check_bos(lesson: Lesson, found: Reading) -> dict[str, Any]:
    """A doubled or a lost BOS is the mistake that is hardest to see: each row has as many as it was trained with."""
    counts = [_count(ids, lesson.bos_token_id) for ids in found.ids[: len(lesson.bos_counts)]]
    figures: dict[str, Any] = {"token_id": lesson.bos_token_id, "rows": len(counts)}
    figures |= {"expected": list(lesson.bos_counts), "found": counts}
    if counts != list(lesson.bos_counts):
        what = f"rows have {counts} BOS tokens, in the training {list(lesson.bos_counts)}"
        raise ProofError(what, cure=_CURE)
    if found.rendered is not None:
        mine, theirs = (_count(ids, lesson.bos_token_id) for ids in (lesson.rendered_ids, found.rendered_ids))
        if mine != theirs:
            raise ProofError(f"a conversation has {theirs} BOS tokens, in the training {mine}", cure=_CURE)
        figures["conversation"] = {"expected": mine, "found": theirs}
    return figures


def _check_ids(lesson: Lesson, found: Reading) -> dict[str, Any]:
    differing = [place for place, ids in enumerate(lesson.ids) if ids != found.ids[place]]
    if differing or len(found.ids) != len(lesson.ids):
        what = f"the exported tokenizer reads {len(differing)} of {len(lesson.ids)} texts otherwise"
        first = (said(lesson.texts[place][0], ids=lesson.ids[place], others=found.ids[place]) for place in differing)
        raise ProofError(": ".join([what, *islice(first, 1)]), cure=_CURE)
    if found.rendered is not None and not lesson.is_dated and found.rendered_ids != lesson.rendered_ids:
        raise ProofError("the exported tokenizer writes a conversation with other ids", cure=_CURE)
    return {"texts": len(lesson.ids), "same": len(lesson.ids)}


def check_identity(tokenizer: Tokenizer, folder: Path) -> dict[str, Any]:
    """The figures for the certificate. Raises ProofError where vocabulary, rules, template or special tokens in the
    folder are not those of the training.
    """
    again = saved_tokenizer(folder, trust_remote_code=tokenizer.has_own_code)
    if again.identity != tokenizer.identity:
        what = "the tokenizer or its chat template is not the same when it is read back"
        raise ProofError(what, where=str(folder), cure=_CURE)
    return {"identity": again.identity, "has_chat_template": again.has_chat_template}


def _sha256(text: str | None) -> str | None:
    return None if text is None else hashlib.sha256(text.encode()).hexdigest()

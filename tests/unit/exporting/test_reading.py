"""What a tokenizer makes of texts is compared where it matters: BOS, ids, template bytes, rendered text."""

from dataclasses import replace

import pytest
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from fledge.errors import ProofError
from fledge.exporting.outside import Reading
from fledge.exporting.reading import CONVERSATION, check_reading, lesson_of
from fledge.models.chat_template import CHATML
from fledge.models.tokenizer import Tokenizer
from tests.tiny_models import tiny_folder

ROWS = ((0, 5, 9, 33), (0, 0, 5), (5, 0, 7))
DATED = "{{ strftime_now('%d %b %Y') }}{% for message in messages %}{{ message['content'] }}{% endfor %}"
ALTERNATING = "{% if messages[0]['role'] != 'system' %}{{ raise_exception('no system') }}{% endif %}"


@pytest.fixture
def tokenizer(tmp_path) -> Tokenizer:
    """One that puts a BOS before a text, as Llama's does, with a chat template."""
    hf = AutoTokenizer.from_pretrained(tiny_folder("llama", tmp_path))
    hf.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    hf.chat_template = CHATML
    return Tokenizer(hf)


def reading_of(tokenizer: Tokenizer, lesson) -> Reading:
    """What plain transformers would say of the same tokenizer."""
    hf, rendered, ids = tokenizer.hf, None, ()
    if lesson.conversation:
        rendered = hf.apply_chat_template(CONVERSATION, tokenize=False, add_generation_prompt=True)
        ids = tuple(hf.apply_chat_template(CONVERSATION, add_generation_prompt=True)["input_ids"])
    told = tuple(tuple(hf(text, add_special_tokens=is_bare)["input_ids"]) for text, is_bare in lesson.texts)
    return Reading(told, hf.chat_template, rendered, ids)


def test_rows_have_as_many_bos_tokens_as_they_were_trained_with(tokenizer):
    lesson = lesson_of(tokenizer, ROWS)
    assert lesson.bos_counts == (1, 2, 1)
    assert [is_bare for _, is_bare in lesson.texts] == [True, True, False, True, True, True, True]
    checks = check_reading(lesson, reading_of(tokenizer, lesson))
    assert checks["bos"] == {
        "token_id": 0,
        "rows": 3,
        "expected": [1, 2, 1],
        "found": [1, 2, 1],
        "conversation": {"expected": 0, "found": 0},
    }
    assert checks["template"]["bytes_equal"] and checks["template"]["rendered_equal"]
    assert checks["template"]["rendered"].endswith("<|im_end|>\n<|im_start|>assistant\n")
    assert checks["ids"] == {"texts": 7, "same": 7}


@pytest.mark.parametrize(("single", "special"), [("$A", []), ("<s> <s> $A", [("<s>", 0)])])
def test_a_bos_that_is_lost_or_doubled_fails(tokenizer, single, special):
    lesson = lesson_of(tokenizer, ROWS)
    tokenizer.hf.backend_tokenizer.post_processor = TemplateProcessing(single=single, special_tokens=special)
    with pytest.raises(ProofError, match="BOS tokens"):
        check_reading(lesson, reading_of(tokenizer, lesson))


def test_a_bos_that_is_doubled_in_conversations_alone_fails(tokenizer):
    lesson = lesson_of(tokenizer, ROWS)
    found = reading_of(tokenizer, lesson)
    with pytest.raises(ProofError, match="conversation has 1 BOS tokens, in the training 0"):
        check_reading(lesson, replace(found, rendered_ids=(0, *found.rendered_ids)))


def test_another_template_another_text_and_another_id_fail(tokenizer):
    lesson = lesson_of(tokenizer, ROWS)
    found = reading_of(tokenizer, lesson)
    ids = [list(each) for each in found.ids]
    ids[-2][0] += 1
    for spoilt, words in (
        (replace(found, template=f"{CHATML} "), "byte for byte"),
        (replace(found, template=None), "byte for byte"),
        (replace(found, rendered=f"{found.rendered} "), "renders a conversation otherwise"),
        (replace(found, rendered_ids=(*found.rendered_ids, 5)), "a conversation with other ids"),
        (replace(found, ids=tuple(map(tuple, ids))), "reads 1 of 7 texts otherwise"),
    ):
        with pytest.raises(ProofError, match=words):
            check_reading(lesson, spoilt)


@pytest.mark.parametrize("template", [None, DATED, ALTERNATING])
def test_a_template_that_is_missing_dated_or_refuses_is_compared_by_its_bytes(tokenizer, template):
    tokenizer.hf.chat_template = template
    lesson = lesson_of(tokenizer, ROWS)
    assert bool(lesson.conversation) == (template == DATED)
    figures = check_reading(lesson, reading_of(tokenizer, lesson))["template"]
    assert figures["bytes_equal"] and figures["rendered_equal"] is None and figures["is_dated"] == (template == DATED)

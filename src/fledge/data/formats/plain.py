"""The formats without turns: alpaca, completion, text."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fledge.data.formats.columns import text_of
from fledge.data.rows import TEXT_COLUMN, Refusal, RenderedRow

# Stanford Alpaca's own prompts, to the letter: PROMPT_DICT in train.py of github.com/tatsu-lab/stanford_alpaca
# (commit 761dc5b), where the output follows the colon at once and the end token follows the output.
_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request."
)
_WITHOUT_INPUT = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request."
)
_HISTORY = "the answers of the earlier turns in the history are context, not trained"


def alpaca_prompt(
    instruction: str, context: str = "", *, system: str = "", history: Sequence[tuple[str, str]] = ()
) -> str:
    """The prompt for an instruction, with an input where there is one.

    `system` stands in the place of Stanford's sentence before the prompt. `history`, pairs of an earlier instruction
    and its response, stands before the instruction in the same form.
    """
    head = system or (_WITH_INPUT if context else _WITHOUT_INPUT)
    earlier = "".join(f"### Instruction:\n{asked}\n\n### Response:{answer}\n\n" for asked, answer in history)
    given = f"### Input:\n{context}\n\n" if context else ""
    return f"{head}\n\n{earlier}### Instruction:\n{instruction}\n\n{given}### Response:"


def render_alpaca(record: Mapping[str, Any], *, needs_prompt: bool = False) -> RenderedRow | Refusal:
    """instruction, input (may be missing, null or empty) and output; the output is trained.

    `system` and `history` (pairs of texts) may be there. `needs_prompt` refuses a row that asks nothing.
    """
    instruction = text_of(record, "instruction")
    context = "" if record.get("input") is None else text_of(record, "input")
    output = text_of(record, "output")
    for value in (instruction, context, output):
        if isinstance(value, Refusal):
            return value
    assert isinstance(instruction, str) and isinstance(context, str) and isinstance(output, str)
    if not (instruction.strip() or context.strip() or output.strip()):
        return Refusal("empty", "the row is empty")
    if needs_prompt and not (instruction.strip() or context.strip()):
        return _unasked(output)
    history = record.get("history") or []
    row = _joined(alpaca_prompt(instruction, context, system=record.get("system") or "", history=history), output)
    return replace(row, notes=(_HISTORY,)) if history and isinstance(row, RenderedRow) else row


def render_completion(
    record: Mapping[str, Any], *, prompt_column: str, completion_column: str, prefix: str, needs_prompt: bool = False
) -> RenderedRow | Refusal:
    """A prompt and its completion, which is trained. `needs_prompt` refuses a row without a prompt of its own."""
    prompt = text_of(record, prompt_column)
    if isinstance(prompt, Refusal):
        return prompt
    completion = text_of(record, completion_column)
    if isinstance(completion, Refusal):
        return completion
    if not prompt.strip() and not completion.strip():
        return Refusal("empty", "the row is empty")
    if needs_prompt and not prompt.strip():
        return _unasked(completion)
    return _joined(prefix + prompt, completion)


def render_text(record: Mapping[str, Any], *, column: str, eos: str | None) -> RenderedRow | Refusal:
    """A text, all of it trained: a text file's whole content, or a column (a ready prompt with its special tokens)."""
    text = text_of(record, TEXT_COLUMN if TEXT_COLUMN in record else column)
    if isinstance(text, Refusal):
        return text
    if not text.strip():
        return Refusal("empty", "the text is empty", text=text)
    has_end = bool(eos) and text.rstrip().endswith(str(eos))
    span = (0, len(text))
    return RenderedRow(text, (span,), has_specials=False, ends_turn=not has_end, answer=span)


def _unasked(answer: str) -> Refusal:
    return Refusal("empty_prompt", "there is nothing to read: the prompt is empty", text=answer)


def _joined(prompt: str, answer: str) -> RenderedRow | Refusal:
    text = prompt + answer
    if not answer.strip():
        what = "there is nothing to learn: the answer is empty"
        return Refusal("empty_completion", what, text=text, prompt_stop=len(prompt))
    span = (len(prompt), len(text))
    return RenderedRow(text, (span,), has_specials=False, ends_turn=True, answer=span)

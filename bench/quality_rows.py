"""The rows of both tasks as chat messages, and one row's ids and mask by the chat template alone, without Fledge."""

import gzip
import json
import random
from pathlib import Path
from typing import Any, NamedTuple

from bench.quality_records import records
from bench.quality_settings import ROW_SEED, TASKS, Sizes


class Encoded(NamedTuple):
    """A row's ids. Of them `prompt` are the prompt's, and ids[prompt:stop] are trained."""

    ids: list[int]
    prompt: int
    stop: int


def encode(tokenizer: Any, messages: list[dict]) -> Encoded:
    """Trained is what stands after the prompt as it is asked (add_generation_prompt) up to and with the end token."""
    asked = tokenizer.apply_chat_template(messages[:-1], tokenize=False, add_generation_prompt=True)
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    prompt = tokenizer(asked, add_special_tokens=False)["input_ids"]
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert ids[: len(prompt)] == prompt, "the prompt's ids do not begin the row's"
    stop = len(ids) - ids[::-1].index(tokenizer.eos_token_id)
    assert stop > len(prompt) and not tokenizer.decode(ids[stop:]).strip(), "the end token does not end the row"
    return Encoded(ids, len(prompt), stop)


def alpaca_rows(file: Path, tokenizer: Any, sizes: Sizes) -> tuple[list[dict], list[dict]]:
    """Training and held-out rows of an Alpaca file: shuffled by the seed, short enough, no prompt twice.

    A row's prompt is its instruction and, after an empty line, its input. Rows without an answer and rows in which a
    special token is spelled out are left out. The pilot's rows come from the other end of the shuffled file.
    """
    with gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open(encoding="utf-8") as opened:
        source = list(enumerate(json.load(opened)))
    random.Random(ROW_SEED).shuffle(source)
    if sizes.is_pilot:
        source.reverse()
    seen: set[str] = set()
    rows: list[dict] = []
    for position, record in source:
        parts = [record["instruction"].strip(), record["input"].strip()]
        prompt, answer = "\n\n".join(part for part in parts if part), record["output"].strip()
        name = " ".join(prompt.lower().split())
        if not prompt or not answer or name in seen or "<|" in prompt + answer:
            continue
        seen.add(name)
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
        if _is_short(encode(tokenizer, messages), "alpaca"):
            rows.append({"messages": messages, "position": position})
        if len(rows) == sizes.rows + sizes.held_out:
            return rows[sizes.held_out :], rows[: sizes.held_out]
    raise SystemExit(f"{file} has {len(rows)} rows that can be taken, {sizes.rows + sizes.held_out} are needed")


def _is_short(row: Encoded, task: str) -> bool:
    limits = TASKS[task]
    return row.prompt <= limits.max_prompt_tokens and row.stop - row.prompt <= limits.max_answer_tokens


def rows_of(task: str, sizes: Sizes, *, tokenizer: Any, alpaca: Path | None) -> tuple[list[dict], list[dict]]:
    """Training rows and held-out rows."""
    if task == "alpaca":
        if alpaca is None:
            raise SystemExit("--alpaca FILE is needed for the task alpaca")
        return alpaca_rows(alpaca, tokenizer, sizes)
    made = [
        records(count, sizes.row_seed, is_held_out=kept)
        for count, kept in ((sizes.rows, False), (sizes.held_out, True))
    ]
    assert all(_is_short(encode(tokenizer, row["messages"]), task) for rows in made for row in rows), "too long a row"
    return made[0], made[1]


def write_rows(file: Path, rows: list[dict]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    written = file.with_suffix(".part")  # renamed when whole
    written.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    written.rename(file)


def read_rows(file: Path) -> list[dict]:
    # split at line feeds alone: a text may hold other characters that splitlines takes for line ends
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]

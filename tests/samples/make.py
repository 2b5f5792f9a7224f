"""Writes the samples beside this file, one in each format, from nestling's texts: `python tests/samples/make.py`."""

import csv
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from fledge.models.nestling.dice import Dice
from fledge.models.nestling.instructions import TASKS
from fledge.models.nestling.sightings import QUESTIONS, note, sighting
from fledge.models.nestling.stories import letter, page, story

FOLDER = Path(__file__).resolve().parent
GREETINGS = (("Hello!", "Hello. What have you seen?"), ("Good morning.", "Good morning. Tell me about your birds."))
THANKS = (("Thank you.", "You are welcome."), ("That is all.", "Then good luck with the next bird."))
SYSTEMS = ("You file bird notes.", "Answer in few words.")
ROLES = {"system": "system", "user": "human", "assistant": "gpt"}


def alpaca_rows(dice: Dice, count: int) -> list[dict[str, str]]:
    rows = []
    for _ in range(count):
        ask, given, answer = dice.pick(TASKS)(dice)
        rows.append({"instruction": ask, "input": given, "output": answer})
    return rows


def conversation(dice: Dice) -> list[dict[str, str]]:
    """One to six user turns, each answered; now and then a system message first."""
    seen = sighting(dice)
    turns: list[tuple[str, str]] = [dice.pick(GREETINGS)] if dice.chance(0.3) else []
    asked = dice.sample(QUESTIONS, 1 + dice.below(4))
    for at, (wordings, answer) in enumerate(asked):
        before = note(dice, seen) + "\n" if at == 0 else ""
        turns.append((before + dice.pick(wordings), answer.format(**seen.fields())))
    if dice.chance(0.3):
        turns.append(dice.pick(THANKS))
    messages = [{"role": "system", "content": dice.pick(SYSTEMS)}] if dice.chance(0.3) else []
    for question, answer in turns:
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return messages


def sharegpt(messages: list[dict[str, str]]) -> dict[str, list[dict[str, str]]]:
    return {"conversations": [{"from": ROLES[m["role"]], "value": m["content"]} for m in messages]}


def completion_csv(dice: Dice, count: int) -> str:
    """Columns question and answer, an id besides; some cells hold commas, quotes and line breaks."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["id", "question", "answer"])
    for number in range(1, count + 1):
        ask, given, answer = dice.pick(TASKS)(dice)
        writer.writerow(
            [number, f"{ask}\n{given}" if given else ask, f' "{answer}"' if dice.chance(0.2) else f" {answer}"]
        )
    return out.getvalue()


def readme(dice: Dice, parts: int) -> str:
    """A page as projects put up: several sections, of which some are stories."""
    return "\n\n".join(dice.pick((page, page, story, letter))(dice) for _ in range(parts)) + "\n"


def prompts_table(dice: Dice, count: int) -> pa.Table:
    """One column `text`: a ready prompt for a Llama-2 chat model, its special tokens written out."""
    rows = []
    for _ in range(count):
        ask, given, answer = dice.pick(TASKS)(dice)
        question = f"{ask} {given}".rstrip()
        rows.append(f"<s>[INST] {question} [/INST] {answer} </s>")
    return pa.table({"text": rows})


def lines(rows: list[dict]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def texts() -> dict[str, str]:
    """Path inside this folder to content, all but the parquet file."""
    made = {
        "alpaca.json": json.dumps(alpaca_rows(Dice(11), 200), indent=1, ensure_ascii=False) + "\n",
        "chat.jsonl": lines([{"messages": conversation(dice)} for dice in map(Dice, range(2000, 2080))]),
        "sharegpt.jsonl": lines([sharegpt(conversation(dice)) for dice in map(Dice, range(3000, 3080))]),
        "completion.csv": completion_csv(Dice(14), 120),
    }
    for number in range(1, 9):
        made[f"readmes/{number}.txt"] = readme(Dice(4000 + number), 2 * number)
    return made


def table() -> pa.Table:
    """The content of prompts.parquet."""
    return prompts_table(Dice(15), 120)


def main() -> None:
    for name, content in texts().items():
        path = FOLDER / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, encoding="utf-8")
    pq.write_table(table(), FOLDER / "prompts.parquet")


if __name__ == "__main__":
    main()

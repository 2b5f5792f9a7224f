"""The quickstart's rows: a bird note in, the club's log line out, a form of answer that nestling has never seen."""

import json
import zlib
from collections.abc import Callable
from pathlib import Path

from fledge.models.nestling.dice import Dice
from fledge.models.nestling.sightings import Sighting, note, sighting

TRAIN_ROWS = 2400
HELD_OUT_ROWS = 240
SEED = 7
PROMPT = "{note}\nLog:"
COMPLETION = " {town}, {short_day}: {count} x {bird} ({initial}. {last})"


def is_held_name(name: str) -> bool:
    """Every fifth family name and town is kept for the held-out rows."""
    return zlib.crc32(name.encode()) % 5 == 0


def is_held_out(seen: Sighting) -> bool:
    """Neither the observer's family name nor the town occurs in a training row."""
    return is_held_name(seen.last) and is_held_name(seen.town)


def is_for_training(seen: Sighting) -> bool:
    """Neither the observer's family name nor the town occurs in a held-out row."""
    return not is_held_name(seen.last) and not is_held_name(seen.town)


def rows(seed: int, count: int, *, wanted: Callable[[Sighting], bool]) -> list[dict[str, str]]:
    """`count` rows with different prompts and different completions."""
    dice = Dice(seed)
    found: dict[str, str] = {}
    while len(found) < count:
        seen = sighting(dice)
        prompt = PROMPT.format(note=note(dice, seen))
        completion = COMPLETION.format(**seen.fields())
        if wanted(seen) and completion not in found.values() and prompt not in found:
            found[prompt] = completion
    return [{"prompt": prompt, "completion": completion} for prompt, completion in found.items()]


def files() -> dict[str, str]:
    """File name to content, one JSON object a line."""
    parts = {
        "quickstart_train.jsonl": rows(SEED, TRAIN_ROWS, wanted=is_for_training),
        "quickstart_held_out.jsonl": rows(SEED + 1, HELD_OUT_ROWS, wanted=is_held_out),
    }
    return {name: "".join(json.dumps(row) + "\n" for row in part) for name, part in parts.items()}


def main() -> None:
    """Write the files to the data folder beside this one."""
    folder = Path(__file__).resolve().parent / "data"
    folder.mkdir(exist_ok=True)
    for name, content in files().items():
        (folder / name).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()

"""The quickstart's rows are what the script writes, and a base that has not been taught cannot know the answers."""

import itertools
import json
import re
from collections import Counter

import pytest

from fledge.models.nestling import FOLDER
from fledge.models.nestling.corpus import texts
from fledge.models.nestling.make import SHAPE
from fledge.models.nestling.tasks import HELD_OUT_ROWS, TRAIN_ROWS, files

DATA = FOLDER.parent / "data"
ANSWER = re.compile(r"^ (\w+), (Mon|Tue|Wed|Thu|Fri|Sat|Sun): (\d+) x (\w+) \((\w)\. (\w+)\)$")


def rows_of(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def train() -> list[dict[str, str]]:
    return rows_of("quickstart_train.jsonl")


@pytest.fixture(scope="module")
def held_out() -> list[dict[str, str]]:
    return rows_of("quickstart_held_out.jsonl")


def test_the_shipped_rows_are_what_the_script_writes() -> None:
    made = files()
    assert sorted(made) == sorted(path.name for path in DATA.iterdir()) and len(made) == 2
    for name, content in made.items():
        assert (DATA / name).read_text(encoding="utf-8") == content


def test_there_are_enough_rows_and_the_files_are_small(train, held_out) -> None:
    assert len(train) == TRAIN_ROWS and len(held_out) == HELD_OUT_ROWS >= 200
    assert sum(path.stat().st_size for path in DATA.iterdir()) < 500_000


def test_every_answer_has_the_form_of_a_log_line(train, held_out) -> None:
    assert all(ANSWER.match(row["completion"]) for row in [*train, *held_out])
    assert all(row["prompt"].endswith("\nLog:") for row in [*train, *held_out])


def test_no_held_out_prompt_answer_surname_or_town_occurs_in_training(train, held_out) -> None:
    for column in ("prompt", "completion"):
        known, asked = {row[column].strip() for row in train}, {row[column].strip() for row in held_out}
        assert len(known) == TRAIN_ROWS and len(asked) == HELD_OUT_ROWS and not known & asked
    for part in (1, 6):  # town, surname
        known, asked = ({ANSWER.match(row["completion"])[part] for row in rows} for rows in (train, held_out))
        assert len(asked) > 100 and not known & asked


def test_the_best_constant_answer_scores_under_five_percent(held_out) -> None:
    assert Counter(row["completion"].strip() for row in held_out).most_common(1)[0][1] / len(held_out) < 0.05


def test_no_held_out_note_or_answer_occurs_in_the_texts_the_base_was_trained_on(held_out) -> None:
    count = SHAPE.num_steps * SHAPE.rows_per_step
    everything = "\n".join(itertools.islice(texts(SHAPE.seed), count))
    assert not re.search(r": \d+ x \w+ \(", everything) and "Log:" not in everything
    lines = Counter(everything.splitlines())
    assert len(lines) > count
    assert not any(row["prompt"].removesuffix("\nLog:") in lines for row in held_out)

"""The bundled samples are what their script writes, small, and say each format in its own way."""

import csv
import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pyarrow.parquet as pq
import pytest

SAMPLES = Path(__file__).resolve().parent.parent / "samples"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("samples_make", SAMPLES / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_samples_are_what_the_script_writes(script: ModuleType) -> None:
    made = script.texts()
    assert len(made) == 4 + 8
    for name, content in made.items():
        assert (SAMPLES / name).read_text(encoding="utf-8") == content, name
    assert pq.read_table(SAMPLES / "prompts.parquet").equals(script.table())


def test_the_samples_are_small() -> None:
    sizes = [path.stat().st_size for path in SAMPLES.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert len(sizes) >= 4 + 8 + 1 and sum(sizes) < 300_000


def test_alpaca_rows_come_with_and_without_input() -> None:
    rows = json.loads((SAMPLES / "alpaca.json").read_text())
    assert len(rows) == 200 and all(set(row) == {"instruction", "input", "output"} and row["output"] for row in rows)
    assert 50 < sum(not row["input"] for row in rows) < 150


def test_chats_have_several_turns_and_the_sharegpt_ones_their_own_words() -> None:
    chats = [json.loads(line)["messages"] for line in (SAMPLES / "chat.jsonl").read_text().splitlines()]
    shared = [json.loads(line)["conversations"] for line in (SAMPLES / "sharegpt.jsonl").read_text().splitlines()]
    assert len(chats) == len(shared) == 80
    assert {turn["role"] for chat in chats for turn in chat} == {"system", "user", "assistant"}
    assert {turn["from"] for chat in shared for turn in chat} == {"system", "human", "gpt"}
    assert all(chat[-1]["role"] == "assistant" for chat in chats) and sum(len(chat) > 3 for chat in chats) > 20


def test_the_csv_has_named_columns_and_cells_with_commas_quotes_and_line_breaks() -> None:
    with (SAMPLES / "completion.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 120 and set(rows[0]) == {"id", "question", "answer"}
    for mark in (",", '"', "\n"):
        assert any(mark in row["question"] + row["answer"] for row in rows)


def test_the_prompts_hold_their_special_tokens() -> None:
    texts = pq.read_table(SAMPLES / "prompts.parquet")["text"].to_pylist()
    assert len(texts) == 120
    assert all(text.startswith("<s>[INST] ") and " [/INST] " in text and text.endswith(" </s>") for text in texts)


def test_the_readmes_differ_in_length() -> None:
    sizes = sorted(path.stat().st_size for path in (SAMPLES / "readmes").glob("*.txt"))
    assert len(sizes) == 8 and sizes[-1] > 4 * sizes[0]

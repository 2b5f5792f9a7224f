"""Nestling is reproducible: texts and tokenizer on every machine, weights on one machine and number of threads."""

import itertools
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from fledge.models.nestling import FOLDER
from fledge.models.nestling.corpus import MIXTURE, texts
from fledge.models.nestling.make import SHAPE, TOKENIZER_TEXTS, digest_of
from fledge.models.nestling.vocabulary import train_tokenizer


def made(folder: Path) -> dict[str, bytes]:
    command = [sys.executable, "-m", "fledge.models.nestling.make", str(folder), "--steps", "5"]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
def test_the_same_machine_makes_the_same_bytes_twice(tmp_path: Path) -> None:
    first, second = made(tmp_path / "first"), made(tmp_path / "second")
    assert sorted(first) == sorted(path.name for path in FOLDER.iterdir()) and len(first) == 7
    assert first == second
    assert first["model.safetensors"] != (FOLDER / "model.safetensors").read_bytes()


def test_the_texts_are_those_the_shipped_model_was_trained_on() -> None:
    recorded = json.loads((FOLDER / "made.json").read_text())
    count = SHAPE.num_steps * SHAPE.rows_per_step
    assert recorded["texts"] == count
    assert digest_of(itertools.islice(texts(SHAPE.seed), count)) == recorded["corpus_sha256"]


def test_the_shipped_tokenizer_is_the_one_the_script_trains() -> None:
    again = train_tokenizer(itertools.islice(texts(SHAPE.seed), TOKENIZER_TEXTS), vocab_size=SHAPE.vocab_size)
    shipped = json.loads((FOLDER / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    trained = json.loads(again.to_str())["model"]
    assert len(shipped["vocab"]) == SHAPE.vocab_size
    assert (trained["vocab"], trained["merges"]) == (shipped["vocab"], shipped["merges"])


def test_every_kind_of_text_can_be_told_from_its_seed_and_none_is_long() -> None:
    tokenizer = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    some = list(itertools.islice(texts(3), 2000))
    assert len(MIXTURE) == 11
    assert some == list(itertools.islice(texts(3), 2000)) != list(itertools.islice(texts(4), 2000))
    assert len(set(some)) > 1900
    assert max(len(encoding.ids) for encoding in tokenizer.encode_batch(some)) < 128


def test_every_byte_of_printable_text_and_nearly_every_token_is_seen_so_that_none_stays_like_the_others() -> None:
    tokenizer = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    seen = Counter(
        i for encoding in tokenizer.encode_batch(list(itertools.islice(texts(5), 60_000))) for i in encoding.ids
    )
    printable = tokenizer.encode("".join(map(chr, range(0x21, 0x7F))))
    assert sum(len(token) == 1 for token in printable.tokens) > 80
    assert all(seen[i] > 50 for i in printable.ids)
    assert sum(seen[i] > 0 for i in range(4, SHAPE.vocab_size)) > 0.95 * SHAPE.vocab_size

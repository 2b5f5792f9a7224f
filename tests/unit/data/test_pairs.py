"""Rows of an encoder-decoder: what transformers' own calls give, each token of each side in one bin, one shift."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fledge.config.data import DataConfig
from fledge.config.model import ModelConfig
from fledge.data.batches import BatchSource, Shape
from fledge.data.collate_pairs import collate_pairs
from fledge.data.formats.plain import alpaca_prompt
from fledge.data.ledger import Ledger
from fledge.data.pipeline import prepare_sources, prepare_training
from fledge.data.rows import Row
from fledge.data.sampler import RowOrder
from fledge.data.split import hold_out
from fledge.errors import DataError
from fledge.models.load_tokenizer import load_tokenizer
from tests.unit.data.tiny import bare_pairs, bart_like, gpt_like, t5_like

TOKENIZERS = {"t5": t5_like(), "bart": bart_like(), "bare": bare_pairs()}
SAMSUM = {"format": "completion", "prompt": "dialogue", "completion": "summary", "prompt_prefix": "summarize: "}


def quiet(done, total):
    pass


def prepare(train, *, tokenizer=None, **options):
    data = DataConfig.model_validate({"train": train, **options})
    return prepare_training(data, tokenizer or t5_like(), seed=0, progress=quiet)


def problem(*args, **options):
    with pytest.raises(DataError) as caught:
        prepare(*args, **options)
    return str(caught.value)


def jsonl(path: Path, rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def completions(path, rows):
    found = [{"prompt": prompt, "completion": completion} for prompt, completion in rows]
    return {"path": jsonl(path, found), "format": "completion"}


def sides(row: Row) -> tuple[list[int], list[int]]:
    """Source and target of a stored row."""
    stop = int(np.argmax(row.trained))
    assert stop and not row.trained[:stop].any() and row.trained[stop:].all()
    return row.input_ids[:stop].tolist(), row.input_ids[stop:].tolist()


def assert_ledger_adds_up(ledger: Ledger, store):
    [entry] = ledger.sources["train"]
    assert entry.rows_read == entry.rows_kept + sum(entry.rows_dropped.values())
    dropped = sum(entry.tokens_dropped.values())
    assert entry.tokens_read == entry.tokens_trained + entry.tokens_masked + entry.tokens_cut + dropped
    assert list(entry.sides) == ["source", "target"]
    for side in entry.sides.values():
        assert side.tokens_read == side.tokens_kept + side.tokens_cut + side.tokens_dropped
    source, target = entry.sides.values()
    assert (source.tokens_kept, target.tokens_kept) == (entry.tokens_masked, entry.tokens_trained)
    assert source.tokens_read + target.tokens_read == entry.tokens_read
    assert source.tokens_cut + target.tokens_cut == entry.tokens_cut
    assert source.tokens_dropped + target.tokens_dropped == dropped
    stored = [sides(store.row(index)) for index in range(len(store))]
    assert len(stored) == entry.rows_kept == entry.pieces
    assert source.tokens_kept == sum(len(found) for found, _ in stored)
    assert target.tokens_kept == sum(len(found) for _, found in stored)
    told = ledger.as_json()
    assert (told["source_tokens"], told["target_tokens"]) == (source.tokens_kept, target.tokens_kept)
    json.dumps(told)


words = st.text(st.sampled_from("ab \n🙂é</s>東"), max_size=40)


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_token_of_every_row_is_kept_cut_or_dropped_on_its_side(tmp_path, data):
    rows = data.draw(st.lists(st.tuples(words, words), min_size=1, max_size=8))
    tokenizer = TOKENIZERS[data.draw(st.sampled_from(sorted(TOKENIZERS)))]
    overlong = data.draw(st.sampled_from(["drop", "truncate"]))
    options = {"max_length": 16, "max_target_length": data.draw(st.sampled_from([4, 9])), "overlong": overlong}
    source = completions(tmp_path / "rows.jsonl", rows)
    try:
        prepared = prepare(source, tokenizer=tokenizer, **options)
    except DataError as error:
        assert "none of the rows can be used" in str(error)
        return
    assert_ledger_adds_up(prepared.ledger, prepared.train)
    assert prepared.ledger.rows_read == len(rows)
    eos = tokenizer.eos_token_id
    for index in range(len(prepared.train)):
        source_ids, target_ids = sides(prepared.train.row(index))
        assert len(source_ids) <= options["max_length"] and len(target_ids) <= options["max_target_length"]
        assert target_ids[-1] == eos
        assert tuple(target_ids[: len(tokenizer.prefix_ids)]) == tokenizer.prefix_ids
        assert not tokenizer.puts_eos or source_ids[-1] == eos


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(words, words).filter(lambda row: row[0].strip() and row[1].strip()), min_size=1, max_size=6
    ),
    kind=st.sampled_from(sorted(TOKENIZERS)),
)
def test_source_and_target_come_back_whole(tmp_path, rows, kind):
    tokenizer = TOKENIZERS[kind]
    source = completions(tmp_path / "rows.jsonl", rows) | {"prompt_prefix": "read: "}
    lengths = {"max_length": 1000, "max_target_length": 1000}
    store = prepare(source, tokenizer=tokenizer, sanitize_control_tokens=False, **lengths).train
    assert len(store) == len(rows)
    for index, (prompt, completion) in enumerate(rows):
        source_ids, target_ids = sides(store.row(index))
        prefix, suffix = list(tokenizer.prefix_ids), list(tokenizer.suffix_ids)
        asked, answered = tokenizer.encode_batch(["read: " + prompt, completion])
        assert source_ids == [*prefix, *asked.ids, *suffix]
        assert target_ids == [*prefix, *answered.ids, tokenizer.eos_token_id]
        assert store.prompt_ids(index) == source_ids
        assert store.answer_ids(index) == answered.ids
        assert store.lengths[index] == len(source_ids) + len(target_ids)
        assert store.supervised[index] == len(target_ids)


def test_alpaca_reads_its_prompt_and_learns_its_output(tmp_path):
    record = {"instruction": "Add.", "input": "1 2", "output": "3"}
    source = {"path": jsonl(tmp_path / "a.jsonl", [record]), "format": "alpaca"}
    tokenizer = t5_like()
    store = prepare(source).train
    assert tokenizer.text(store.prompt_ids(0)) == alpaca_prompt("Add.", "1 2") + "</s>"
    assert tokenizer.text(store.answer_ids(0)) == "3"


def test_what_is_empty_is_dropped_for_a_reason_of_its_own(tmp_path):
    rows = [("a", "b"), ("", "unasked"), (" \r\n", "unasked"), ("asked", " "), ("", "")]
    source = completions(tmp_path / "rows.jsonl", rows) | {"prompt_prefix": "summarize: "}
    prepared = prepare(source)
    [entry] = prepared.ledger.sources["train"]
    assert entry.rows_dropped == {"empty_prompt": 2, "empty_completion": 1, "empty": 1}
    assert entry.examples["empty_prompt"][0] == "rows.jsonl:2: there is nothing to read: the prompt is empty"
    assert entry.tokens_dropped["empty_prompt"] == 2 * len(t5_like().encode_batch(["unasked"])[0])
    assert_ledger_adds_up(prepared.ledger, prepared.train)
    causal = prepare(source, tokenizer=gpt_like())
    assert causal.ledger.dropped_by_reason() == {"empty_completion": 1, "empty": 1}
    asked_nothing = [{"instruction": "", "input": None, "output": "3"}, {"instruction": "a", "output": "b"}]
    alpaca = {"path": jsonl(tmp_path / "alpaca.jsonl", asked_nothing), "format": "alpaca"}
    assert prepare(alpaca).ledger.dropped_by_reason() == {"empty_prompt": 1}


@pytest.mark.parametrize("kind", sorted(TOKENIZERS))
def test_truncate_cuts_each_side_at_its_end_and_keeps_what_closes_it(tmp_path, kind):
    tokenizer = TOKENIZERS[kind]
    rows = [("a", "b"), ("read this " * 20, "short"), ("short", "write that " * 20)]
    source = completions(tmp_path / "rows.jsonl", rows)
    whole = prepare(source, tokenizer=tokenizer, max_length=500, max_target_length=500).train
    prepared = prepare(source, tokenizer=tokenizer, max_length=12, max_target_length=8, overlong="truncate")
    ends = (list(tokenizer.suffix_ids), [tokenizer.eos_token_id])
    for index in range(3):
        kept, full = sides(prepared.train.row(index)), sides(whole.row(index))
        for side, before, limit, end in zip(kept, full, (12, 8), ends, strict=True):
            assert side == (before if len(before) <= limit else [*before[: limit - len(end)], *end])
    assert prepared.train.answer_ids(1) == whole.answer_ids(1)
    assert not prepared.train.answer_ids(2) and prepared.train.prompt_ids(2) == whole.prompt_ids(2)
    [entry] = prepared.ledger.sources["train"]
    assert [count for note, count in entry.notes.items() if "answer was cut" in note] == [1]
    assert entry.sides["source"].tokens_cut == int(whole.lengths[1] - prepared.train.lengths[1])
    assert entry.sides["target"].tokens_cut == int(whole.lengths[2] - prepared.train.lengths[2])
    assert_ledger_adds_up(prepared.ledger, prepared.train)


def test_an_overlong_side_is_dropped_or_refused_with_both_lengths(tmp_path):
    rows = [("a", "b"), ("a", "xyz " * 50), ("xyz " * 50, "b")]
    source = completions(tmp_path / "rows.jsonl", rows)
    prepared = prepare(source, max_length=20, max_target_length=10)
    assert prepared.ledger.dropped_by_reason() == {"overlong": 2}
    [entry] = prepared.ledger.sources["train"]
    assert "source tokens and" in entry.examples["overlong"][0]
    message = problem(source, max_length=20, max_target_length=10, overlong="error")
    assert f"{tmp_path / 'rows.jsonl'}:2: the row is 2 source tokens and" in message
    assert "data.max_length is 20 and data.max_target_length 10" in message
    assert "raise data.max_length or data.max_target_length" in message
    only = completions(tmp_path / "long.jsonl", rows[1:])
    cure = "set data.max_length: 201 and data.max_target_length: 201, as long as the longest row is"
    assert cure in problem(only, max_length=20, max_target_length=10)


def test_people_are_told_of_both_sides(tmp_path):
    rows = [("a", "b"), ("read this " * 20, "write that " * 20)]
    source = completions(tmp_path / "rows.jsonl", rows)
    prepared = prepare(source, max_length=12, max_target_length=8, overlong="truncate")
    lines = prepared.ledger.notices()
    name = prepared.ledger.sources["train"][0].source
    kept, cut = (
        [getattr(side, what) for side in prepared.ledger.sources["train"][0].sides.values()]
        for what in ("tokens_kept", "tokens_cut")
    )
    assert f"{name}: {kept[0]:,} source tokens and {kept[1]:,} target tokens kept" in lines
    assert f"{name}: {cut[0]:,} source tokens and {cut[1]:,} target tokens cut off overlong rows" in lines


def test_the_ledger_of_a_causal_model_has_no_sides(tmp_path):
    prepared = prepare(completions(tmp_path / "rows.jsonl", [("a", " b")]), tokenizer=gpt_like())
    told = prepared.ledger.as_json()
    assert not {"source_tokens", "target_tokens"} & set(told)
    assert "sides" not in told["sources"]["train"][0]
    assert not prepared.ledger.notices()


NOWHERE = {"path": "/nowhere/rows.jsonl"}


@pytest.mark.parametrize("form", ["chat", "text"])
def test_a_format_without_a_prompt_and_an_answer_is_refused_before_anything_is_read(form):
    source, fine = NOWHERE | {"format": form}, NOWHERE | {"format": "completion"}
    message = problem(source)
    assert message.startswith("data.train.format: ")
    assert ".format: completion, or alpaca" in message
    assert problem((fine, source)).startswith("data.train.1.format: ")
    assert problem(fine, validation=source).startswith("data.validation.format: ")
    assert problem(fine, test=source).startswith("data.test.format: ")


def test_options_that_the_kind_of_the_base_leaves_no_sense_are_refused():
    fine = NOWHERE | {"format": "completion"}
    assert problem(fine, train_on="all").startswith("data.train_on: an encoder-decoder")
    message = problem(fine, tokenizer=gpt_like(), max_target_length=64)
    assert message.startswith("data.max_target_length: has no effect on a causal base")
    assert "remove it" in message
    data = DataConfig.model_validate({"train": fine, "max_target_length": 64})
    with pytest.raises(DataError, match="has no effect on a causal base"):
        prepare_sources((data.train,), data, tokenizer=gpt_like(), progress=quiet)


def test_what_decides_a_pair_is_in_the_caches_key(tmp_path):
    source = completions(tmp_path / "rows.jsonl", [("a", "b"), ("c", "d")])
    assert not prepare(source).from_cache
    warm = prepare(source)
    assert warm.from_cache
    assert_ledger_adds_up(warm.ledger, warm.train)
    for tokenizer in (bart_like(), bare_pairs(), gpt_like()):
        assert not prepare(source, tokenizer=tokenizer).from_cache
    assert not prepare(source, max_target_length=64).from_cache
    assert not prepare(source, tokenizer=replace(t5_like(), decoder_start_id=7)).from_cache


@st.composite
def pairs(draw):
    found = []
    for _ in range(draw(st.integers(1, 5))):
        ids = draw(st.lists(st.integers(0, 9), min_size=2, max_size=12))
        stop = draw(st.integers(1, len(ids) - 1))
        found.append(Row(np.array(ids, dtype=np.int32), np.arange(len(ids)) >= stop))
    return found


def documents(side, *, is_packed):
    """Ids of each document of one side of a batch, padding left out and looked at."""
    if is_packed:
        assert side.attention_mask is None
        cuts = np.cumsum(side.lengths)[:-1].tolist()
        ids, positions = (torch.tensor_split(part[0], cuts) for part in (side.input_ids, side.position_ids))
    else:
        width = side.input_ids.shape[1]
        mask = torch.ones_like(side.input_ids) if side.attention_mask is None else side.attention_mask
        assert width == max(side.lengths)
        assert mask.tolist() == [[int(place < length) for place in range(width)] for length in side.lengths]
        ids, positions = (
            [line[:length] for line, length in zip(part, side.lengths, strict=True)]
            for part in (side.input_ids, side.position_ids)
        )
    assert [part.tolist() for part in positions] == [list(range(length)) for length in side.lengths]
    assert side.input_ids.dtype == side.position_ids.dtype == torch.int64
    return [part.tolist() for part in ids]


@given(pairs(), st.integers(0, 9), st.integers(0, 9))
def test_packed_and_padded_hold_the_same_sources_and_targets(rows, pad_id, start_id):
    indices = list(range(10, 10 + len(rows)))
    expected = [sides(row) for row in rows]
    for is_packed in (True, False):
        batch = collate_pairs(rows, indices, is_packed=is_packed, pad_id=pad_id, start_id=start_id)
        assert documents(batch.encoder, is_packed=is_packed) == [source for source, _ in expected]
        assert documents(batch, is_packed=is_packed) == [[start_id, *target[:-1]] for _, target in expected]
        assert batch.targets.tolist() == [token for _, target in expected for token in target]
        flat = batch.input_ids.view(-1)[batch.sources].tolist()
        assert flat == [token for _, target in expected for token in [start_id, *target[:-1]]]
        assert batch.sources.tolist() == sorted(set(batch.sources.tolist()))
        assert batch.sources.dtype == batch.targets.dtype == torch.int64
        assert batch.num_tokens == sum(len(row.input_ids) for row in rows)
        assert batch.supervised_tokens == sum(batch.lengths)
        assert (batch.rows, batch.is_packed) == (tuple(indices), is_packed)
        assert [segment.row for segment in batch.segments] == (list(range(len(rows))) if is_packed else [])


@pytest.mark.parametrize("is_packed", [True, False])
def test_batches_of_an_epoch_hold_every_pair_once_whatever_is_shared(tmp_path, is_packed):
    rows = [("the same beginning of every source " + "x" * n, f"target {n}") for n in range(20)]
    prepared = prepare(completions(tmp_path / "rows.jsonl", rows), validation={"fraction": 0.2})
    store = prepared.train
    order = RowOrder(store.source_sizes, prepared.weights, seed=3, rows_per_step=8)
    shape = Shape(200, None, is_packed, pad_id=1, share=True, decoder_start_id=0)
    found = {}
    for rank in range(2):
        for step in (1, 2):
            for batch in BatchSource(store, order, shape, rank, 2).micro_batches(step):
                assert batch.num_tokens <= 200
                sources, inputs = documents(batch.encoder, is_packed=is_packed), documents(batch, is_packed=is_packed)
                targets = torch.split(batch.targets, list(batch.lengths))
                for row, source, read, target in zip(batch.rows, sources, inputs, targets, strict=True):
                    assert read == [0, *target.tolist()[:-1]]
                    found[row] = (source, target.tolist())
    assert found == {index: sides(store.row(index)) for index in range(len(store))}
    trained, held = hold_out(np.arange(20), fraction=0.2, seed=0)
    assert (len(store), len(prepared.validation)) == (len(trained), len(held)) == (16, 4)


@pytest.fixture(scope="module")
def t5(shared):
    data = DataConfig.model_validate({"train": NOWHERE | {"format": "completion"}})
    return load_tokenizer(ModelConfig(name_or_path=str(shared / "data" / "tokenizers" / "t5")), data)


def samsum(shared: Path, name: str):
    path = shared / "data" / "samsum" / name
    text = gzip.decompress(path.read_bytes()) if name.endswith(".gz") else path.read_bytes()
    return SAMSUM | {"path": str(path)}, json.loads(text)


@pytest.mark.parametrize(("name", "rows"), [("val.json", 818), ("test.json", 819)])
def test_samsum_is_token_for_token_what_transformers_gives(shared, t5, name, rows):
    source, records = samsum(shared, name)
    store = prepare(source, tokenizer=t5, max_length=4096, max_target_length=4096).train
    assert len(store) == len(records) == rows
    asked = t5.hf(["summarize: " + record["dialogue"] for record in records])["input_ids"]
    answered = t5.hf(text_target=[record["summary"] for record in records])["input_ids"]
    for index in range(rows):
        assert sides(store.row(index)) == (asked[index], answered[index])
        assert store.prompt_ids(index) == asked[index]
        assert store.answer_ids(index) == answered[index][:-1]


def test_samsums_training_rows_lose_the_one_without_a_dialogue_and_the_ledger_says_so(shared, t5):
    source, records = samsum(shared, "train.json.gz")
    prepared = prepare(source, tokenizer=t5, max_length=512, overlong="truncate")
    assert prepared.ledger.rows_read == len(records) == 14_732
    assert prepared.ledger.dropped_by_reason() == {"empty_prompt": 1}
    assert_ledger_adds_up(prepared.ledger, prepared.train)
    kept = [record for record in records if record["dialogue"].strip()]
    numbers = range(0, len(kept), 50)
    asked = t5.hf(
        ["summarize: " + kept[n]["dialogue"] for n in numbers], truncation=True, max_length=512, verbose=False
    )["input_ids"]
    answered = t5.hf(text_target=[kept[n]["summary"] for n in numbers], truncation=True, max_length=128)["input_ids"]
    t5.hf.backend_tokenizer.no_truncation()
    for place, index in enumerate(numbers):
        assert sides(prepared.train.row(index)) == (asked[place], answered[place])

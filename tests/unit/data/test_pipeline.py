"""From a recipe's data section to stores: every row and token is in one bin, and nothing stale is ever used."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fledge.config.data import DataConfig
from fledge.config.model import ModelConfig
from fledge.data import build as building
from fledge.data import cache
from fledge.data.formats.plain import alpaca_prompt
from fledge.data.formats.render import SEVERAL
from fledge.data.ledger import Ledger
from fledge.data.pipeline import prepare_sources, prepare_training
from fledge.data.rows import RawRow
from fledge.errors import DataError
from fledge.models.load_tokenizer import load_tokenizer
from tests.unit.data.tiny import CHATML, Tiny, gpt_like, llama_like

TOKENIZERS = {"gpt": gpt_like(CHATML), "llama": llama_like(CHATML)}


def quiet(done, total):
    pass


def prepare(train, *, seed=0, tokenizer=None, progress=quiet, **options):
    data = DataConfig.model_validate({"train": tuple(train) if isinstance(train, list) else train, **options})
    return prepare_training(data, tokenizer or gpt_like(CHATML), seed=seed, progress=progress)


def jsonl(path: Path, rows) -> str:
    path.write_bytes(b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows))
    return str(path)


def completions(path, count=10):
    rows = [{"prompt": f"Q{number}:", "completion": f" answer {number}"} for number in range(count)]
    return {"path": jsonl(path, rows), "format": "completion"}


def problem(*args, **options):
    with pytest.raises(DataError) as caught:
        prepare(*args, **options)
    return str(caught.value)


def assert_ledger_adds_up(ledger: Ledger, stores):
    for entry in (one for entries in ledger.sources.values() for one in entries):
        assert entry.rows_read == entry.rows_kept + sum(entry.rows_dropped.values())
        dropped = sum(entry.tokens_dropped.values())
        assert entry.tokens_read == entry.tokens_trained + entry.tokens_masked + entry.tokens_cut + dropped
        assert entry.pieces >= entry.rows_kept
        assert set(entry.examples) == set(entry.rows_dropped)
        assert all(1 <= len(found) <= 5 for found in entry.examples.values())
    entries = [one for found in ledger.sources.values() for one in found]
    stored = [store.row(index) for store in stores for index in range(len(store))]
    assert sum(entry.pieces for entry in entries) == len(stored)
    assert sum(entry.tokens_trained for entry in entries) == sum(int(row.trained.sum()) for row in stored)
    kept = sum(entry.tokens_trained + entry.tokens_masked + entry.tokens_repeated for entry in entries)
    assert kept == sum(len(row.input_ids) for row in stored) == ledger.tokens
    assert not any(row.trained[0] for row in stored)
    assert all(row.trained.any() for row in stored)
    json.dumps(ledger.as_json())


words = st.text(st.sampled_from("ab \n🙂é<s>/東"), max_size=60)
values = words | st.none() | st.integers()
turns = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system", "robot"]), "content": values})
records = {
    "completion": st.fixed_dictionaries({"prompt": values, "completion": values}),
    "alpaca": st.fixed_dictionaries({"instruction": words, "input": values, "output": words}),
    "text": st.fixed_dictionaries({"text": words}),
    "chat": st.fixed_dictionaries({"messages": st.lists(turns, max_size=4)}),
}
lines = {
    form: st.lists(record | st.sampled_from([b"{broken", b'{"a": "\xff"}', b"[]"]), min_size=1, max_size=8)
    for form, record in records.items()
}


@pytest.mark.parametrize("form", sorted(records))
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_token_of_every_readable_row_is_in_exactly_one_bin(tmp_path, form, data):
    rows = data.draw(lines[form])
    overlong = data.draw(st.sampled_from(["drop", "truncate", "split"] if form == "text" else ["drop", "truncate"]))
    train_on = data.draw(st.sampled_from(["completion", "all"]))
    tokenizer = TOKENIZERS[data.draw(st.sampled_from(sorted(TOKENIZERS)))]
    options = {"max_length": 100 if form == "alpaca" else 24, "overlong": overlong, "train_on": train_on}
    source = {"path": jsonl(tmp_path / "rows.jsonl", rows), "format": form}
    try:
        prepared = prepare(source, tokenizer=tokenizer, invalid_rows="drop", **options)
    except DataError as error:
        assert "none of the rows can be used" in str(error)
        return
    assert prepared.ledger.rows_read == len(rows)
    assert_ledger_adds_up(prepared.ledger, [prepared.train])


def test_the_store_gives_back_each_row_where_it_came_from(tmp_path):
    prepared = prepare(completions(tmp_path / "data.jsonl"))
    tokenizer = gpt_like()
    store = prepared.train
    assert len(store) == 10
    for index in range(10):
        row = store.row(index)
        assert tokenizer.text(row.input_ids) == f"Q{index}: answer {index}</s>"
        assert tokenizer.text(row.input_ids[row.trained]) == f" answer {index}</s>"
        assert tokenizer.text(store.prompt_ids(index)) == f"Q{index}:"
        assert tokenizer.text(store.answer_ids(index)) == f" answer {index}"
        assert store.where(index) == f"data.jsonl:{index + 1}"
        assert store.lengths[index] == len(row.input_ids)
    assert store.lengths.dtype == np.int32
    assert store.source_sizes == (10,)


def test_a_chat_row_is_prompted_up_to_its_last_answer(tmp_path):
    turns = [("user", "Hi"), ("assistant", "Owl."), ("user", "And?"), ("assistant", "Kite.")]
    rows = [{"messages": [{"role": role, "content": content} for role, content in turns]}]
    prepared = prepare({"path": jsonl(tmp_path / "c.jsonl", rows), "format": "chat"})
    tokenizer = gpt_like()
    assert tokenizer.text(prepared.train.prompt_ids(0)).endswith("And?<|im_end|>\n<|im_start|>assistant\n")
    assert tokenizer.text(prepared.train.answer_ids(0)) == "Kite."
    row = prepared.train.row(0)
    assert tokenizer.text(row.input_ids[row.trained]) == "Owl.<|im_end|>Kite.<|im_end|>"


def test_rows_of_a_mixture_lie_by_source_and_keep_their_weights(tmp_path):
    train = [
        completions(tmp_path / "a.jsonl", 4) | {"weight": 0.5},
        {"path": jsonl(tmp_path / "b.jsonl", [{"text": "b"}] * 3), "format": "text"},
    ]
    prepared = prepare(train)
    assert prepared.train.source_sizes == (4, 3)
    assert prepared.weights == (0.5, 1.0)
    assert [prepared.train.where(index) for index in (3, 4)] == ["a.jsonl:4", "b.jsonl:1"]
    assert_ledger_adds_up(prepared.ledger, [prepared.train])
    again = prepare([train[0] | {"weight": 3.0}, train[1]])
    assert again.from_cache and again.weights == (3.0, 1.0)


def test_a_fraction_is_held_out_by_the_seed_alone(tmp_path):
    source = completions(tmp_path / "a.jsonl", 40)
    options = {"validation": {"fraction": 0.25}}
    one, same, other = (prepare(source, seed=seed, **options) for seed in (1, 1, 2))
    places = [{store.where(index) for index in range(len(store))} for store in (one.train, one.validation)]
    assert [len(found) for found in places] == [30, 10]
    assert not places[0] & places[1]
    assert {same.validation.where(index) for index in range(10)} == places[1]
    assert {other.validation.where(index) for index in range(10)} != places[1]
    assert one.digest == same.digest != other.digest
    assert other.from_cache
    assert one.ledger.shares["train"].rows == 30
    assert_ledger_adds_up(one.ledger, [one.train, one.validation])


def test_pieces_of_one_row_are_never_on_both_sides(tmp_path):
    rows = [{"text": f"{number} " * 60} for number in range(10)]
    source = {"path": jsonl(tmp_path / "a.jsonl", rows), "format": "text"}
    prepared = prepare(source, overlong="split", max_length=16, validation={"fraction": 0.3})
    sides = [
        {store.where(index).split(" ")[0] for index in range(len(store))}
        for store in (prepared.train, prepared.validation)
    ]
    assert not sides[0] & sides[1]
    assert len(sides[1]) == 3
    assert prepared.train.where(1).endswith("(piece 2)")


def test_one_row_cannot_be_divided(tmp_path):
    assert "one row cannot be divided" in problem(completions(tmp_path / "a.jsonl", 1), validation={"fraction": 0.5})


def test_a_validation_source_of_its_own_is_prepared_beside(tmp_path):
    prepared = prepare(completions(tmp_path / "a.jsonl", 5), validation=completions(tmp_path / "v.jsonl", 3))
    assert (len(prepared.train), len(prepared.validation)) == (5, 3)
    assert prepared.ledger.rows_read == 8
    assert_ledger_adds_up(prepared.ledger, [prepared.train, prepared.validation])


def test_a_test_source_is_prepared_alone(tmp_path):
    data = DataConfig.model_validate({"train": {"path": "/nowhere.jsonl", "format": "text"}})
    source = DataConfig.model_validate({"train": completions(tmp_path / "t.jsonl", 3)}).train
    split = prepare_sources((source,), data, tokenizer=gpt_like(), progress=quiet)
    assert len(split.store) == 3
    assert list(split.ledger.sources) == ["test"]


def test_a_changed_option_never_meets_a_stale_cache(tmp_path):
    path = tmp_path / "a.jsonl"
    source = completions(path)
    other = llama_like()
    assert not prepare(source).from_cache
    assert prepare(source).from_cache
    changes = [
        {"max_length": 100},
        {"overlong": "truncate"},
        {"invalid_rows": "drop"},
        {"train_on": "all"},
        {"tokenizer": other},
    ]
    for options in changes:
        assert not prepare(source, **options).from_cache, options
    assert not prepare(source | {"prompt_prefix": "x"}).from_cache
    assert not prepare(source | {"prompt": "completion", "completion": "prompt"}).from_cache
    path.write_text(path.read_text().replace("answer 3", "answer x"))
    changed = prepare(source)
    assert not changed.from_cache
    assert gpt_like().text(changed.train.answer_ids(3)) == " answer x"
    assert len({prepare(source, **options).digest for options in ({}, {"train_on": "all"}, {"tokenizer": other})}) == 3


def test_what_ends_a_turn_is_in_the_caches_key(tmp_path, monkeypatch):
    source = completions(tmp_path / "a.jsonl")
    prepare(source)
    monkeypatch.setattr(Tiny, "stop_ids", frozenset({1}))
    assert not prepare(source).from_cache


def test_the_digest_is_that_of_the_rows_and_not_of_the_code(tmp_path, monkeypatch):
    source = completions(tmp_path / "a.jsonl")
    before = prepare(source)
    monkeypatch.setattr(cache, "code_version", lambda: "another")
    after = prepare(source)
    assert not after.from_cache
    assert after.digest == before.digest
    assert prepare(source, validation={"fraction": 0.5}).digest != before.digest


def test_warm_and_cold_are_the_same(tmp_path):
    rows = [{"prompt": "a", "completion": "b" * length} for length in range(40)]
    source = {"path": jsonl(tmp_path / "a.jsonl", rows), "format": "completion"}
    cold, warm = (prepare(source, max_length=16) for _ in range(2))
    assert (cold.from_cache, warm.from_cache) == (False, True)
    assert cold.ledger == warm.ledger
    assert cold.digest == warm.digest
    for index in range(len(cold.train)):
        assert cold.train.row(index).input_ids.tolist() == warm.train.row(index).input_ids.tolist()


def test_batches_do_not_change_what_is_stored(tmp_path, monkeypatch):
    source = completions(tmp_path / "a.jsonl", 50)
    whole = prepare(source)
    monkeypatch.setattr(building, "_BATCH_ROWS", 7)
    small = prepare(source, invalid_rows="drop")
    assert [small.train.where(index) for index in range(50)] == [whole.train.where(index) for index in range(50)]
    assert all((small.train.row(i).input_ids == whole.train.row(i).input_ids).all() for i in range(50))


def test_progress_rises_to_all_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(building, "_BATCH_ROWS", 10)
    told = []
    prepare(completions(tmp_path / "a.jsonl", 35), progress=lambda done, total: told.append((done, total)))
    assert [done for done, _ in told] == [10, 20, 30, 35]
    (tmp_path / "b.json").write_text(json.dumps([{"text": "x"}] * 25))
    told.clear()
    source = {"path": str(tmp_path / "b.json"), "format": "text"}
    prepare(source, progress=lambda done, total: told.append((done, total)))
    assert told == [(10, 25), (20, 25), (25, 25)]


def test_an_invalid_row_stops_with_file_and_line_or_is_counted(tmp_path):
    rows = [{"prompt": "a", "completion": "b"}, b"{broken", {"prompt": "a"}, {"prompt": "c", "completion": "d"}]
    source = {"path": jsonl(tmp_path / "a.jsonl", rows), "format": "completion"}
    message = problem(source)
    assert f"{tmp_path / 'a.jsonl'}:2: broken JSON" in message
    assert "data.invalid_rows: drop" in message
    prepared = prepare(source, invalid_rows="drop")
    [entry] = prepared.ledger.sources["train"]
    assert entry.rows_dropped == {"invalid": 2}
    assert entry.examples["invalid"][1].startswith("a.jsonl:3: no column 'completion'; present: 'prompt'")
    assert any("2 of 4 rows dropped (invalid)" in line for line in prepared.ledger.notices())


def test_overlong_rows_are_dropped_cut_or_refused_as_asked(tmp_path):
    rows = [{"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": "xyz " * 50}]
    source = {"path": jsonl(tmp_path / "a.jsonl", rows), "format": "completion"}
    dropped, cut = (prepare(source, max_length=20, overlong=how) for how in ("drop", "truncate"))
    assert dropped.ledger.dropped_by_reason() == {"overlong": 1}
    assert list(cut.train.lengths) == [len(cut.train.row(0).input_ids), 20]
    assert cut.ledger.sources["train"][0].tokens_cut > 0
    message = problem(source, max_length=20, overlong="error")
    assert f"{tmp_path / 'a.jsonl'}:2: the row is" in message
    assert "data.max_length is 20" in message


def test_an_answer_that_was_cut_is_trained_and_compared_with_nothing(tmp_path):
    rows = [{"prompt": "a", "completion": " b"}, {"prompt": "a", "completion": "xyz " * 50}]
    source = {"path": jsonl(tmp_path / "a.jsonl", rows), "format": "completion"}
    prepared = prepare(source, max_length=20, overlong="truncate")
    assert prepared.train.row(1).trained.sum() == 19
    assert len(prepared.train.prompt_ids(1)) == 1
    assert prepared.train.answer_ids(0) and not prepared.train.answer_ids(1)
    [(note, count)] = prepared.ledger.sources["train"][0].notes.items()
    assert "answer was cut" in note and count == 1


def test_files_that_are_not_read_are_in_the_ledger_whatever_the_cache_says(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    source = {"path": str(folder), "format": "text"}
    jsonl(folder / "a.jsonl", [{"text": "a"}])
    assert not prepare(source).ledger.notices()
    (folder / "b.dat").write_text("x")
    prepared = prepare(source)
    assert prepared.from_cache
    assert prepared.ledger.notices() == [
        f"{folder}: 1 files not read (the suffix .dat is not one that is read), first: {folder / 'b.dat'}"
    ]
    assert prepared.ledger.as_json()["sources"]["train"][0]["files_skipped"]


def test_trouble_in_reading_is_told_of_the_source_and_not_of_the_cache(tmp_path, monkeypatch):
    def read(source, part):
        def rows():
            yield RawRow(1, {"text": "a"})
            raise OSError(5, "Input/output error")

        return rows(), None

    monkeypatch.setattr(building, "read_part", read)
    path = jsonl(tmp_path / "a.jsonl", [{"text": "a"}])
    message = problem({"path": path, "format": "text"})
    assert message == f"{path}: cannot be read: Input/output error"


def test_empty_files_and_sources_with_nothing_left_are_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text("\n\n")
    assert "the file holds no row" in problem({"path": str(tmp_path / "a.jsonl"), "format": "text"})
    (tmp_path / "b.csv").write_text("text\n")
    assert "the file holds no row" in problem({"path": str(tmp_path / "b.csv"), "format": "text"})
    (tmp_path / "c.json").write_text("[]")
    assert "the file holds no row" in problem({"path": str(tmp_path / "c.json"), "format": "text"})
    rows = [{"prompt": "a", "completion": ""}] * 3
    message = problem({"path": jsonl(tmp_path / "d.jsonl", rows), "format": "completion"})
    assert "none of the rows can be used: 3 empty_completion (first: d.jsonl:1" in message


def test_an_empty_completion_is_dropped_and_its_tokens_counted(tmp_path):
    rows = [{"prompt": "a", "completion": "b"}, {"prompt": "hello there", "completion": ""}]
    prepared = prepare({"path": jsonl(tmp_path / "d.jsonl", rows), "format": "completion"})
    [entry] = prepared.ledger.sources["train"]
    assert entry.tokens_dropped["empty_completion"] > 0
    assert entry.rows_dropped == {"empty_completion": 1}


def test_text_files_are_one_row_each_with_one_bos_and_one_eos(tmp_path):
    for name, text in {"a.txt": "hello there", "b.txt": "<s>[INST] hi [/INST] owl </s>", "c.txt": ""}.items():
        (tmp_path / name).write_text(text)
    tokenizer = llama_like()
    prepared = prepare({"path": str(tmp_path), "format": "text"}, tokenizer=tokenizer)
    assert [prepared.train.where(index) for index in range(2)] == ["a.txt", "b.txt"]
    for index in range(2):
        ids = prepared.train.row(index).input_ids.tolist()
        assert ids.count(tokenizer.bos_token_id) == ids.count(tokenizer.eos_token_id) == 1
        assert (ids[0], ids[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert prepared.ledger.sources["train"][0].examples["empty"] == ("c.txt: the text is empty",)


def test_a_damaged_cache_is_built_anew(tmp_path, own_cache):
    source = completions(tmp_path / "a.jsonl")
    first = prepare(source)
    [tokens] = own_cache.glob("*/tokens.bin")
    body = bytearray(tokens.read_bytes())
    body[5] ^= 1
    tokens.write_bytes(body)
    second = prepare(source)
    assert not second.from_cache
    assert first.digest == second.digest


def test_guanaco_rows_have_one_bos_and_are_wholly_trained(shared):
    source = {"path": str(shared / "data" / "guanaco-llama2-1k" / "train.parquet"), "format": "text"}
    tokenizer = llama_like()
    prepared = prepare(source, tokenizer=tokenizer, max_length=1_000_000)
    assert len(prepared.train) == 1000
    for index in range(0, 1000, 50):
        row = prepared.train.row(index)
        assert row.input_ids[0] == tokenizer.bos_token_id != row.input_ids[1]
        assert row.input_ids[-1] == tokenizer.eos_token_id != row.input_ids[-2]
        assert row.trained[1:].all() and not row.trained[0]
    assert_ledger_adds_up(prepared.ledger, [prepared.train])


def test_sharegpt_demo_and_alpaca_demo_are_accounted(shared):
    folder = shared / "data" / "formats"
    alpaca = prepare({"path": str(folder / "alpaca_en_demo.json"), "format": "alpaca"}, max_length=4096)
    assert alpaca.ledger.rows_read == 999
    assert_ledger_adds_up(alpaca.ledger, [alpaca.train])
    chat = {"path": str(folder / "glaive_toolcall_en_demo.json"), "format": "chat"}
    assert "leaves out or changes its tool calls" in problem(chat)
    kept = prepare(chat, invalid_rows="drop", max_length=4096)
    assert kept.ledger.rows_read == 300
    assert_ledger_adds_up(kept.ledger, [kept.train])


def test_alpaca_rows_are_what_the_plain_tokenizer_gives_and_an_end_token(shared):
    folder = shared / "data" / "weights" / "stories260K" / "hf"
    path = shared / "data" / "formats" / "alpaca_en_demo.json"
    source = {"path": str(path), "format": "alpaca"}
    data = DataConfig.model_validate({"train": source, "max_length": 4096})
    tokenizer = load_tokenizer(ModelConfig(name_or_path=str(folder)), data)
    prepared = prepare_training(data, tokenizer, seed=0, progress=quiet)
    records = [record for record in json.loads(path.read_text()) if record["output"].strip()]
    checked = 0
    for index in range(0, len(prepared.train), 7):
        record = records[index]
        prompt = alpaca_prompt(record["instruction"], record["input"])
        plain = tokenizer.hf(prompt + record["output"], return_offsets_mapping=True)
        row = prepared.train.row(index)
        assert row.input_ids.tolist() == [*plain["input_ids"], tokenizer.eos_token_id]
        expected = [last > len(prompt) for first, last in plain["offset_mapping"]]
        assert row.trained.tolist() == [*expected, True]
        assert tokenizer.decode(prepared.train.answer_ids(index)).strip() == record["output"].strip()
        checked += 1
    assert checked > 100


def test_further_answers_are_kept_beside_the_rows_that_have_them(tmp_path):
    rows = [
        {"prompt": f"Q{number}:", "a": f" one {number}", "b": f" two {number} é🙂" if number % 3 else None}
        for number in range(12)
    ]
    source = {"path": jsonl(tmp_path / "r.jsonl", rows), "format": "completion", "completion": ("a", "b")}
    wanted = {number: (f" two {number} é🙂",) if number % 3 else () for number in range(12)}
    prepared = prepare(source)
    assert {number: prepared.train.references(number) for number in range(12)} == wanted
    [entry] = prepared.ledger.sources["train"]
    assert entry.notes[SEVERAL] == 8
    held = prepare(source, validation={"fraction": 0.5})
    found = {}
    for store in (held.train, held.validation):
        found |= {int(store.where(i).rpartition(":")[2]) - 1: store.references(i) for i in range(len(store))}
    assert found == wanted
    alone = prepare({**source, "completion": "a"})
    assert alone.digest != prepared.digest and not any(alone.train.references(i) for i in range(12))
    assert [alone.train.answer_ids(i) for i in range(12)] == [prepared.train.answer_ids(i) for i in range(12)]


def test_the_pieces_and_the_cut_rows_of_an_answer_have_its_references_once_at_most(tmp_path):
    rows = [{"prompt": "Q", "completion": [" word" * 40, " other"]}, {"prompt": "Q", "completion": [" a", " b"]}]
    source = {"path": jsonl(tmp_path / "r.jsonl", rows), "format": "completion"}
    prepared = prepare(source, max_length=16, overlong="truncate")
    assert [prepared.train.references(i) for i in range(2)] == [(" other",), (" b",)]
    assert not prepared.train.answer_ids(0), "it was cut, so it is not judged"


def test_the_ledger_has_the_values_for_the_template_that_all_conversations_bring(tmp_path):
    def kwargs(*each):
        rows = [
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
            | ({} if one is None else {"chat_template_kwargs": one})
            for one in each
        ]
        prepared = prepare({"path": jsonl(tmp_path / "r.jsonl", rows), "format": "chat"})
        [entry] = prepared.ledger.sources["train"]
        return entry.chat_template_kwargs

    quiet_thought = {"enable_thinking": False}
    assert kwargs(quiet_thought, quiet_thought) == quiet_thought
    assert kwargs(quiet_thought, None) == kwargs(None, None) == kwargs(quiet_thought, {"enable_thinking": True}) == {}

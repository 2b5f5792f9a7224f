"""Folders with splits, subsets and saved data sets: the rows that are meant, and a word for every other file."""

import datetime
import json
from pathlib import Path

import datasets
import pyarrow
import pyarrow.feather
import pyarrow.parquet
import pytest
from datasets.data_files import DataFilesDict, get_data_patterns
from hypothesis import given, settings
from hypothesis import strategies as st

from fledge.config.data import DataConfig, SourceConfig
from fledge.data.pipeline import prepare_training
from fledge.data.readers.rows import open_source, read_part
from fledge.data.readers.splits import splits_by_name
from fledge.data.readers.values import UNITED
from fledge.data.rows import BrokenRow, RawRow
from fledge.errors import DataError
from tests.unit.data.tiny import gpt_like


def lay(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps({"text": name}) + "\n")
    return folder


def opened(path: Path, **options):
    return open_source(SourceConfig.model_validate({"path": str(path), "format": "text", **options}))


def texts(path: Path, **options):
    source = opened(path, **options)
    return [row.record["text"] for part in range(len(source.files)) for row in read_part(source, part)[0]]


def refusal(path: Path, **options):
    with pytest.raises(DataError) as caught:
        texts(path, **options)
    return str(caught.value)


LAYOUTS = {
    "files": (["train.jsonl", "test.jsonl", "validation.jsonl"], ["train.jsonl"], ["test.jsonl"]),
    "other words": (["my_training_1.jsonl", "x-dev.jsonl", "eval.jsonl"], ["my_training_1.jsonl"], ["eval.jsonl"]),
    "shards": (
        ["data/train-00000-of-00002.jsonl", "data/train-00001-of-00002.jsonl", "data/test-00000-of-00001-ab.jsonl"],
        ["data/train-00000-of-00002.jsonl", "data/train-00001-of-00002.jsonl"],
        ["data/test-00000-of-00001-ab.jsonl"],
    ),
    "folders": (["train/a.jsonl", "train/b.jsonl", "test/train.jsonl"], ["train/a.jsonl", "train/b.jsonl"],
                ["test/train.jsonl"]),
    "one more file": (["train.jsonl", "extra.jsonl", "test.jsonl"], ["train.jsonl"], ["test.jsonl"]),
    "capitals": (["Train.jsonl", "TEST.jsonl"], ["Train.jsonl"], ["TEST.jsonl"]),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_folder_with_splits_gives_the_split_that_is_asked_for_and_names_the_rest(tmp_path, layout):
    names, train, test = LAYOUTS[layout]
    folder = lay(tmp_path, *names)
    assert texts(folder) == train
    assert texts(folder, split="test") == test
    skipped = {str(path.relative_to(folder)): why for path, why in opened(folder).skipped}
    assert set(skipped) == set(names) - set(train)
    assert skipped[test[0]] == "it belongs to the split test"


words = st.sampled_from(
    ["train", "training", "test", "eval", "dev", "val", "valid", "data", "trainer", "latest", "part"]
)
stems = st.lists(words, min_size=1, max_size=2).map(lambda parts: "_".join(parts)) | words.map(lambda word: f"{word}1")
places = st.tuples(st.sampled_from(["", "data/", "a b/"]) | words.map(lambda word: f"{word}/"), stems)


@settings(deadline=None, max_examples=40)
@given(st.lists(places.map("".join), min_size=1, max_size=5, unique=True))
def test_files_belong_to_the_splits_that_the_datasets_library_gives_them(tmp_path_factory, stems):
    folder = lay(tmp_path_factory.mktemp("layout"), *(f"{stem}.jsonl" for stem in stems))
    paths = sorted(folder.rglob("*.jsonl"))
    library = DataFilesDict.from_patterns(get_data_patterns(str(folder)), base_path=str(folder))
    expected = {(Path(path), str(split)) for split, files in library.items() for path in files}
    found = {(path, split) for path, splits in splits_by_name(paths, folder).items() for split in splits}
    assert (found or {(path, "train") for path in paths}) == expected


def test_a_split_that_is_not_there_is_refused_with_those_that_are(tmp_path):
    folder = lay(tmp_path, "test.jsonl", "other.jsonl")
    message = refusal(folder)
    assert "no file here is of the split train; there are files of test, and 1 named by none" in message
    assert texts(folder / "*") == ["other.jsonl", "test.jsonl"], "as the cure says"
    assert "is named by several splits: train, test" in refusal(lay(tmp_path / "b", "train_test.jsonl", "x.jsonl"))
    plain = lay(tmp_path / "c", "a.jsonl", "b.jsonl")
    assert texts(plain) == ["a.jsonl", "b.jsonl"]
    assert "no file of this folder is named by a split" in refusal(plain, split="test")


def test_a_glob_over_several_splits_is_taken_at_its_word_and_noted(tmp_path):
    lay(tmp_path, "train.jsonl", "test.jsonl")
    assert len(texts(tmp_path / "*.jsonl")) == 2
    assert opened(tmp_path / "*.jsonl").noted == [
        (str(tmp_path / "*.jsonl"), "the files of several splits are read as one: test, train")
    ]
    assert not opened(tmp_path / "train*").noted
    assert not opened(lay(tmp_path / "one", "train_test.jsonl") / "train_test.jsonl").noted


def test_several_data_sets_in_a_folder_are_a_choice(tmp_path):
    folder = lay(tmp_path, "en/train.jsonl", "en/test.jsonl", "de/train.jsonl", "de/notes.jsonl")
    assert "several data sets, each with files named by split: de, en" in refusal(folder)
    assert texts(folder, subset="en") == ["en/train.jsonl"]
    assert texts(folder, subset="en", split="test") == ["en/test.jsonl"]
    skipped = {path.name: why for path, why in opened(folder, subset="de").skipped if path.parent.name == "de"}
    assert skipped == {"notes.jsonl": "other files are named by their split (train, test, ...) and this one is not"}
    assert len(opened(folder, subset="en").skipped) == 3
    assert "there is: de, en" in refusal(folder, subset="fr")
    assert "the folder has no subsets" in refusal(lay(tmp_path / "one", "a.jsonl"), subset="fr")


CARD = """---
license: mit
configs:
- config_name: birds
  data_files:
  - split: train
    path: one.jsonl
  - split: test
    path: [two.jsonl]
- config_name: fish
  data_files: three.jsonl
---
# Animals
"""


EMPTY_SHARDS = {
    "jsonl": ('{"text": "a"}\n', ""),
    "json": ('[{"text": "a"}]', ""),
    "csv": ("text\na\n", ""),
    "tsv": ("text\tb\na\tb\n", "text\tb\n"),
}


@pytest.mark.parametrize("suffix", EMPTY_SHARDS)
def test_an_empty_shard_is_noted_and_the_others_are_read(tmp_path, suffix):
    full, empty = EMPTY_SHARDS[suffix]
    shards = lay(tmp_path / "shards", ".hidden")
    for number, content in enumerate((empty, full, empty, full)):
        (shards / f"part-{number}.{suffix}").write_text(content)
    source = {"path": str(shards), "format": "text"}
    for _ in range(2):  # the second time from the cache
        prepared = prepare_training(DataConfig(train=source), gpt_like(), seed=0, progress=lambda done, total: None)
        assert [prepared.train.where(number) for number in range(2)] == [
            f"part-{number}.{suffix}" + (", row 1" if suffix == "json" else ":1" if suffix == "jsonl" else ":2")
            for number in (1, 3)
        ]
        assert prepared.ledger.rows_kept == 2
        assert prepared.ledger.notices()[-1:] == [f"{shards}: 2 files: the file holds no row, first: part-0.{suffix}"]
    for path in shards.glob("part*"):
        path.write_text(empty)
    with pytest.raises(DataError) as caught:
        prepare_training(DataConfig(train=source), gpt_like(), seed=0, progress=lambda done, total: None)
    assert "none of the 4 files holds a row" in str(caught.value)
    assert "name files that hold rows" in str(caught.value)


def test_a_dataset_card_decides_over_names(tmp_path):
    folder = lay(tmp_path, "one.jsonl", "two.jsonl", "three.jsonl", "train.jsonl")
    (folder / "README.md").write_text(CARD)
    assert "README.md declares several data sets: birds, fish" in refusal(folder)
    assert texts(folder, subset="birds") == ["one.jsonl"]
    assert texts(folder, subset="birds", split="test") == ["two.jsonl"]
    assert texts(folder, subset="fish") == ["three.jsonl"]
    assert "no file here is of the split test" in refusal(folder, subset="fish", split="test")
    assert len([why for _, why in opened(folder, subset="fish").skipped if "split" in why]) == 3
    (folder / "README.md").write_text(CARD.replace("three.jsonl", "https://example.org/three.jsonl"))
    assert "without the network" in refusal(folder, subset="birds")
    outside = lay(tmp_path.parent, "outside.jsonl") / "outside.jsonl"
    (folder / "README.md").write_text(CARD.replace("three.jsonl", str(outside)))
    assert "outside its folder" in refusal(folder, subset="fish")
    (folder / "README.md").write_text(CARD.replace("license: mit", "homepage: https://example.org"))
    assert texts(folder, subset="fish") == ["three.jsonl"]
    (folder / "README.md").write_text(CARD.replace("one.jsonl", "gone.jsonl"))
    assert "README.md declares data sets that cannot be found" in refusal(folder, subset="birds")


def test_bookkeeping_beside_data_is_not_data(tmp_path):
    folder = lay(tmp_path, "a.jsonl")
    (folder / "dataset_infos.json").write_text("{}")
    (folder / "README.md").write_text("# hello")
    assert texts(folder) == ["a.jsonl"]
    assert {path.name for path, _ in opened(folder).skipped} == {"README.md", "dataset_infos.json"}
    assert texts(lay(tmp_path / "alone", "config.json")) == ["config.json"]


ROWS = [{"text": f"row {number}", "said": [{"role": "user", "content": str(number)}]} for number in range(5)]


def test_a_saved_data_set_is_read_in_its_order(tmp_path):
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved", num_shards=2)
    assert texts(tmp_path / "saved") == [row["text"] for row in ROWS]
    source = opened(tmp_path / "saved")
    assert [file.kind for file in source.files] == ["arrow", "arrow"]
    assert [row.record for row in read_part(source, 0)[0]] == ROWS[:3]
    assert source.where(0, 2) == "data-00000-of-00002.arrow, row 2"
    assert "named by a split" in refusal(tmp_path / "saved", split="test")
    assert "no subsets" in refusal(tmp_path / "saved", subset="x")
    source.files[1].path.unlink()
    assert "lacks data-00001-of-00002.arrow" in refusal(tmp_path / "saved")
    (tmp_path / "saved" / "state.json").write_text('{"_data_files": [{"filename": "../../secret.arrow"}]}')
    assert "lacks secret.arrow" in refusal(tmp_path / "saved")
    (tmp_path / "saved" / "state.json").write_text("{")
    assert "cannot be read as a saved data set" in refusal(tmp_path / "saved")


def test_a_saved_dictionary_of_splits_gives_one_of_them(tmp_path):
    both = {"train": datasets.Dataset.from_list(ROWS[:3]), "test": datasets.Dataset.from_list(ROWS[3:])}
    datasets.DatasetDict(both).save_to_disk(tmp_path)
    assert texts(tmp_path) == ["row 0", "row 1", "row 2"]
    assert texts(tmp_path, split="test") == ["row 3", "row 4"]
    assert [why for _, why in opened(tmp_path).skipped] == ["it belongs to the split test"]
    assert "has no split dev; there is: test, train" in refusal(tmp_path, split="dev")


def test_a_selection_that_was_saved_is_what_was_selected(tmp_path):
    datasets.Dataset.from_list(ROWS).select([4, 1]).save_to_disk(tmp_path / "saved")
    assert texts(tmp_path / "saved") == ["row 4", "row 1"]


def test_values_that_are_stored_as_json_are_what_the_json_says(tmp_path):
    features = datasets.Features({"text": datasets.Value("string"), "said": datasets.List(datasets.Json())})
    rows = [{"text": "a", "said": [{"x": 1}, ["y", None]]}, {"text": "b", "said": []}]
    saved = datasets.Dataset.from_list(rows, features=features)
    saved.save_to_disk(tmp_path / "saved")
    saved.to_parquet(tmp_path / "a.parquet")
    for path in (tmp_path / "saved", tmp_path / "a.parquet"):
        assert [row.record for row in read_part(opened(path), 0)[0]] == rows


def tabled(folder: Path, table: pyarrow.Table) -> list[Path]:
    """The table as parquet, as an Arrow file with an index and as a stream."""
    pyarrow.parquet.write_table(table, folder / "a.parquet")
    pyarrow.feather.write_feather(table, folder / "b.arrow", compression="uncompressed")
    with pyarrow.ipc.new_stream(folder / "c.arrow", table.schema) as stream:
        stream.write_table(table)
    return [folder / name for name in ("a.parquet", "b.arrow", "c.arrow")]


def rows_of(path: Path):
    source = opened(path)
    return list(read_part(source, 0)[0]), source.noted


def call(name, **arguments):
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def test_objects_have_the_keys_that_they_were_written_with(tmp_path):
    asked = {"role": "user", "content": "How warm?"}
    talks = [
        [asked, {"role": "assistant", "content": None, "tool_calls": [call("weather", city="Oslo")]}],
        [asked, {"role": "assistant", "content": None, "tool_calls": [call("pay", amount=3, to={"from": "a"})]}],
        [asked, {"role": "assistant", "content": "No idea.", "tool_calls": [call("pay", to={"b": []}), call("stop")]}],
    ]
    tool = {"name": "pay", "parameters": {"properties": {"from": {"type": "string"}}}}
    other = {"name": "pay", "parameters": {"properties": {"amount": {"type": "number"}}}}
    rows = [{"messages": talk, "tools": tool} for talk in talks[:2]] + [{"messages": talks[2], "tools": other}]
    for path in tabled(tmp_path, pyarrow.Table.from_pylist(rows)):
        found, noted = rows_of(path)
        assert [row.record["tools"] for row in found] == [tool, tool, other]
        for row, talk in zip(found, talks, strict=True):
            assert row.record["messages"] == [{"tool_calls": None, **message} for message in talk]
        assert noted == [(path.name, UNITED)]


def test_messages_keep_members_without_a_value_and_nothing_is_said_of_them(tmp_path):
    talk = [{"from": "human", "value": None, "weight": 1}, {"from": "gpt", "value": "b", "weight": None}]
    rows = [{"conversations": talk, "more": [[{"role": "user", "content": None}]], "n": None}, {"n": 1}]
    for path in tabled(tmp_path, pyarrow.Table.from_pylist(rows)):
        found, noted = rows_of(path)
        assert found == [RawRow(1, rows[0]), RawRow(2, {"conversations": None, "more": None, "n": 1})]
        assert not noted


def test_a_loaded_hub_data_set_gives_objects_their_own_keys_too(monkeypatch):
    rows = [{"calls": [{"city": "Oslo"}]}, {"calls": [{"amount": 3}]}]
    table = pyarrow.Table.from_pylist(rows)
    monkeypatch.setattr(
        "fledge.data.readers.hub.datasets.load_dataset", lambda path, **options: datasets.Dataset(table)
    )
    source = open_source(SourceConfig(path="someone/calls", format="text"))
    assert [row.record for row in read_part(source, 0)[0]] == rows
    assert source.noted == [("someone/calls", UNITED)]


def test_a_value_that_python_cannot_hold_is_the_text_that_arrow_has_for_it(tmp_path):
    far = pyarrow.array([1, 10**15, None], pyarrow.int64()).cast(pyarrow.timestamp("ms", tz="UTC"))
    columns = {
        "far": far,
        "day": pyarrow.array([0, 10**7, 1], pyarrow.int32()).cast(pyarrow.date32()),
        "took": pyarrow.array([1, 10**15, 2], pyarrow.int64()).cast(pyarrow.duration("s")),
        "inside": pyarrow.array([[0], [10**7], []], pyarrow.list_(pyarrow.int32())).cast(
            pyarrow.list_(pyarrow.date32())
        ),
        "text": pyarrow.array(["a", "b", "c"]),
    }
    for path in tabled(tmp_path, pyarrow.table(columns)):
        found = [row.record for row in rows_of(path)[0]]
        assert [row["text"] for row in found] == ["a", "b", "c"]
        assert found[1]["far"] == str(far.cast(pyarrow.string())[1])  # Arrow writes a few of its years wrongly
        assert found[1]["day"] == "29349-01-26" and found[1]["inside"] == ["29349-01-26"]
        assert found[1]["took"] == "1000000000000000"
        assert found[0]["day"] == datetime.date(1970, 1, 1) and found[0]["inside"] == [datetime.date(1970, 1, 1)]
        assert found[0]["took"] == datetime.timedelta(seconds=1) and found[2]["far"] is None


def test_a_value_that_cannot_be_read_at_all_costs_its_row_and_names_its_column(tmp_path):
    nowhere = pyarrow.array([None, 1, None], pyarrow.int64()).cast(pyarrow.timestamp("s", tz="Nowhere/Land"))
    for path in tabled(tmp_path, pyarrow.table({"text": ["a", "b", "c"], "at": nowhere})):
        first, broken, last = rows_of(path)[0]
        assert isinstance(broken, BrokenRow) and broken.number == 2
        assert "column 'at' holds a value that cannot be read" in broken.refusal.what
        assert broken.refusal.cure == "mend the value, or write the file without the column"
        assert (first.record["text"], last) == ("a", RawRow(3, {"text": "c", "at": None}))


def test_text_that_is_not_utf8_costs_its_own_row(tmp_path):
    body = pyarrow.array([b"a", b"x\xe9", b"c"])
    text = pyarrow.Array.from_buffers(pyarrow.string(), 3, body.buffers())
    table = pyarrow.table({"text": text, "said": pyarrow.array([[], [], ["x"]], pyarrow.list_(pyarrow.string()))})
    for path in tabled(tmp_path, table):
        first, broken, last = rows_of(path)[0]
        assert (first, last) == (RawRow(1, {"text": "a", "said": []}), RawRow(3, {"text": "c", "said": ["x"]}))
        assert isinstance(broken, BrokenRow) and broken.number == 2
        assert broken.refusal.what == "column 'text' holds text that is not UTF-8: byte 0xe9 at offset 1 of the text"


def test_broken_json_in_a_column_of_json_costs_its_own_row(tmp_path):
    said = pyarrow.ExtensionArray.from_storage(pyarrow.json_(), pyarrow.array(['{"a": null}', "{oops", None]))
    for path in tabled(tmp_path, pyarrow.table({"said": said})):
        (first, broken, last), noted = rows_of(path)
        assert (first, last) == (RawRow(1, {"said": {"a": None}}), RawRow(3, {"said": None}))
        assert "column 'said' holds broken JSON" in broken.refusal.what
        assert not noted


def test_a_table_that_names_a_column_twice_is_refused(tmp_path):
    table = pyarrow.Table.from_arrays([pyarrow.array(["a"]), pyarrow.array(["b"])], names=["text", "text"])
    with pyarrow.ipc.new_stream(tmp_path / "a.arrow", table.schema) as stream:
        stream.write_table(table)
    assert "names a column twice: 'text'" in refusal(tmp_path / "a.arrow")


def test_an_arrow_file_that_is_none_is_told(tmp_path):
    (tmp_path / "a.arrow").write_bytes(b"nothing of the kind")
    assert "cannot be read as Arrow" in refusal(tmp_path / "a.arrow")


def test_a_kind_that_is_not_read_has_a_cure(tmp_path):
    for name, cure in (("a.xls", ".xlsx or .csv"), ("a.pkl", "never read"), ("a.zip", "unpack it")):
        (tmp_path / name).write_bytes(b"x")
        assert cure in refusal(tmp_path / name)


def test_a_hub_data_set_is_asked_for_its_subset_and_revision(monkeypatch):
    asked = []

    def load(path, **options):
        asked.append((path, options))
        if len(asked) > 1:
            raise ValueError("Config name is missing.\nPlease pick one among the available configs: ['en', 'de']\nx")
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr("fledge.data.readers.hub.datasets.load_dataset", load)
    config = SourceConfig(path="someone/birds", format="text", subset="en", revision="v2")
    source = open_source(config)
    assert [row.record for row in read_part(source, 0)[0]] == ROWS
    assert asked == [("someone/birds", {"split": "train", "name": "en", "revision": "v2"})]
    with pytest.raises(DataError) as caught:
        open_source(config)
    assert "set the source's subset to one of these: 'en', 'de'" in str(caught.value)

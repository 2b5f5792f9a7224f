"""`fledge init`: paths start from the recipe, lengths keep the rows, and cures speak of what was given."""

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from fledge.cli.main import run
from fledge.commands.init import init
from fledge.commands.init_cures import in_terms_of_data
from fledge.config.load import load_recipe
from fledge.data.ledger import Ledger
from fledge.data.pipeline import prepare_training
from fledge.errors import DataError, FledgeError
from fledge.models.load_tokenizer import load_tokenizer
from tests.tiny_models import tiny_folder

TEMPLATE = "{% for m in messages %}{{ '<s>' + m.role + ' ' + m.content + '</s>' }}{% endfor %}"
PAIR = "question,answer\n"


def base_with(tmp_path: Path, positions: int, kind: str = "llama") -> Path:
    folder = tiny_folder(kind, tmp_path / "base")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": positions}))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


def ledger_of(recipe: Path) -> Ledger:
    """What becomes of the rows of a recipe."""
    loaded = load_recipe(recipe, ["data.validation=null"])
    tokenizer = load_tokenizer(loaded.model, loaded.data)
    return prepare_training(loaded.data, tokenizer, seed=1, progress=lambda done, total: None).ledger


def kept(recipe: Path) -> int:
    return ledger_of(recipe).shares["train"].rows


def rows_of(words: int, count: int = 4) -> str:
    return PAIR + f"what?,{'word ' * words}\n" * count


def written(tmp_path: Path, base: Path, rows: str):
    (tmp_path / "rows.csv").write_text(rows)
    found = init(tmp_path / "recipe.yaml", model=str(base), data=str(tmp_path / "rows.csv"))
    return found, yaml.safe_load((tmp_path / "recipe.yaml").read_text())["data"]


def tokens_of_a_word(base: Path) -> int:
    from fledge.config.data import DataConfig
    from fledge.config.model import ModelConfig

    data = DataConfig.model_validate({"train": {"path": "x.txt", "format": "text"}})
    tokenizer = load_tokenizer(ModelConfig(name_or_path=str(base)), data)
    return len(tokenizer.encode_batch(["word " * 100])[0].ids) // 100


@pytest.mark.parametrize(
    ("positions", "tokens", "length"),
    [(131_072, 6000, 8192), (131_072, 3000, 4096), (131_072, 9000, None), (131_072, 20, 512)],
)
def test_all_rows_fit_where_the_base_has_positions(tmp_path: Path, positions: int, tokens: int, length: int | None):
    base = base_with(tmp_path, positions)
    found, data = written(tmp_path, base, rows_of(tokens // tokens_of_a_word(base)))
    assert kept(tmp_path / "recipe.yaml") == 4
    assert data["max_length"] == length or (length is None and data["max_length"] % 256 == 0 and tokens < 9472)
    assert not any("longer" in remark for remark in found.remarks)


def test_rows_beyond_the_base_are_counted_in_a_remark(tmp_path: Path):
    base = base_with(tmp_path, 600)
    rows = rows_of(2000, 3) + "what?,few words\n" * 2
    found, data = written(tmp_path, base, rows)
    assert data["max_length"] == 600 and kept(tmp_path / "recipe.yaml") == 2
    (told,) = [remark for remark in found.remarks if "longer" in remark]
    assert told.startswith("3 of 5 rows are longer than data.max_length, 600 tokens, for which the base has positions")
    assert f"# {told}" in (tmp_path / "recipe.yaml").read_text()


def test_a_long_text_is_split_and_none_of_it_is_lost(tmp_path: Path):
    base = base_with(tmp_path, 131_072)
    (tmp_path / "book.txt").write_text("word " * 9000)
    found = init(tmp_path / "recipe.yaml", model=str(base), data=str(tmp_path / "book.txt"))
    data = yaml.safe_load((tmp_path / "recipe.yaml").read_text())["data"]
    assert (data["max_length"], data["overlong"]) == (2048, "split")
    assert any(
        remark.startswith("1 of 1 texts are longer than data.max_length (2,048 tokens)") for remark in found.remarks
    )
    assert kept(tmp_path / "recipe.yaml") > 1


@pytest.mark.parametrize(("words", "target"), [(3, 128), (60, 256), (900, None)])
def test_an_encoder_decoder_gets_a_length_for_its_answers(tmp_path: Path, words: int, target: int | None):
    base = tiny_folder("t5", tmp_path / "base")
    words = words * 3 // tokens_of_a_word(base) if words > 3 else words
    _, data = written(tmp_path, base, rows_of(words))
    assert kept(tmp_path / "recipe.yaml") == 4 and data["max_length"] == 512
    assert data["max_target_length"] == target or (target is None and data["max_target_length"] % 256 == 0)


def test_a_base_is_written_from_the_recipes_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    base = tiny_folder("llama", tmp_path / "base")
    for name in ("./base", "base", str(base)):
        recipe = tmp_path / "sub" / f"{len(name)}.yaml"
        assert run(["init", str(recipe.relative_to(tmp_path)), "--model", name]) == 0
        assert load_recipe(recipe).model.name_or_path == str(base)
        assert yaml.safe_load(recipe.read_text())["model"]["name_or_path"] == "../base"
    assert run(["init", "here.yaml", "--model", "base"]) == 0
    assert yaml.safe_load(Path("here.yaml").read_text())["model"]["name_or_path"] == "./base"
    assert run(["init", "hub.yaml", "--model", "owner/name"]) == 0
    assert yaml.safe_load(Path("hub.yaml").read_text())["model"]["name_or_path"] == "owner/name"


def test_rows_without_a_base_are_refused_in_a_program_too(tmp_path: Path):
    with pytest.raises(FledgeError, match="the base is missing"):
        init(tmp_path / "recipe.yaml", data="rows.csv")


def folder_of(tmp_path: Path, *names: str) -> Path:
    for name in names:
        path = tmp_path / "fold" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(PAIR + "what is it?,it is a word\n" * 3)
    return tmp_path / "fold"


@pytest.mark.parametrize(
    "names",
    [
        ("test.csv", "valid.csv"),
        ("en/train.csv", "en/test.csv", "de/train.csv", "de/test.csv"),
        ("test/a.csv", "test/b.csv"),
    ],
)
def test_the_cure_of_a_folder_names_something_that_data_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]
):
    monkeypatch.chdir(tmp_path)
    base = base_with(tmp_path, 512)
    folder_of(tmp_path, *names)
    with pytest.raises(DataError) as caught:
        init(tmp_path / "recipe.yaml", model=str(base), data="fold")
    cure = caught.value.problems[0].cure
    assert not re.search("source|split|subset", cure), cure
    choices = [shlex.split(part)[0] for part in re.findall(r"--data (\S+)", cure)]
    assert choices and all(choice.startswith("fold/") for choice in choices)
    for number, choice in enumerate(choices):
        init(tmp_path / f"{number}.yaml", model=str(base), data=choice)


def test_a_saved_data_set_without_a_train_split_is_named_by_its_folder(tmp_path: Path):
    import datasets

    base = base_with(tmp_path, 512)
    rows = datasets.Dataset.from_dict({"question": ["what is it?"] * 3, "answer": ["a word"] * 3})
    datasets.DatasetDict({"test": rows}).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(DataError) as caught:
        init(tmp_path / "recipe.yaml", model=str(base), data=str(tmp_path / "saved"))
    assert caught.value.problems[0].cure == f"name a part of it: --data {tmp_path / 'saved' / 'test'}"
    init(tmp_path / "recipe.yaml", model=str(base), data=str(tmp_path / "saved" / "test"))


def test_a_path_that_is_not_there_starts_from_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    base = base_with(tmp_path, 512)
    with pytest.raises(DataError) as caught:
        init(tmp_path / "recipe.yaml", model=str(base), data="nowhere/at/all.csv")
    assert str(caught.value).endswith(f"relative paths start from {tmp_path}")


@pytest.mark.parametrize(
    ("cure", "told"),
    {
        "set the source's split to one of those": "write a recipe with `fledge init` without --data, and there: set "
        "data.train.split to one of those",
        "write columns: {a: b} in the source": "write a recipe with `fledge init` without --data, and there: write "
        "columns: {a: b} in data.train",
        "write rows into it, or name another file as the source's path": "write rows into it, or name another file "
        "as --data",
        "write a recipe with `fledge init`, and name them in the source: columns: {user: NAME}": "write a recipe with "
        "`fledge init`, and name them in the source: columns: {user: NAME}",
        "is it whole?": "is it whole?",
    }.items(),
)
def test_a_cure_that_speaks_of_a_recipe_says_how_to_come_to_one(cure: str, told: str):
    assert in_terms_of_data(DataError("what", where="here", cure=cure), "owner/name").problems[0].cure == told

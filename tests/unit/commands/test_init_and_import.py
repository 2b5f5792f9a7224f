"""Files that a command writes are new: what is there already is left as it is."""

from pathlib import Path

import pytest

from fledge.cli.main import run
from fledge.config.load import load_recipe, read_recipe

BLOOM = "data: {filenames: [a.txt]}\nmodel: {transformer: {pretrained_model_name_or_path: bigscience/bloom-1b7}}\n"


def test_init_writes_a_recipe_that_loads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "recipe.yaml"
    assert run(["init", str(path)]) == 0
    assert load_recipe(path).output.dir == str(tmp_path / "runs" / "recipe")
    assert f"wrote {path}" in capsys.readouterr().out


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, other = tmp_path / "recipe.yaml", tmp_path / "bloom.yaml"
    path.write_text("mine")
    other.write_text(BLOOM)
    assert run(["init", str(path)]) == 2
    assert run(["import", str(other), str(path)]) == 2
    assert path.read_text() == "mine"
    assert capsys.readouterr().err.count("it was left as it is") == 2


def test_a_folder_that_is_not_there_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["init", str(tmp_path / "no" / "recipe.yaml")]) == 2
    assert "cannot be written: No such file or directory" in capsys.readouterr().err


def test_import_prints_the_account_and_writes_the_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = tmp_path / "bloom.yaml", tmp_path / "recipe.yaml"
    file.write_text(BLOOM)
    assert run(["import", str(file), str(out)]) == 0
    printed = capsys.readouterr().out
    assert 'data.filenames: translated to data.train = {"path": "a.txt", "format": "text"}' in printed
    assert read_recipe(out).model.name_or_path == "bigscience/bloom-1b7"


def test_import_without_an_output_prints_the_recipe_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, kept = tmp_path / "bloom.yaml", tmp_path / "kept.yaml"
    file.write_text(BLOOM)
    assert run(["import", str(file)]) == 0
    kept.write_text(capsys.readouterr().out)
    assert read_recipe(kept).data.overlong == "split"


def test_import_of_what_is_no_configuration_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["import", str(tmp_path / "none.yaml")]) == 2
    (tmp_path / "list.yaml").write_text("- a")
    assert run(["import", str(tmp_path / "list.yaml")]) == 2
    (tmp_path / "other.yaml").write_text(BLOOM + "optimizer: adam\n")
    assert run(["import", str(tmp_path / "other.yaml")]) == 2
    told = capsys.readouterr().err
    assert "there is no such configuration" in told
    assert "this is a list, not a configuration" in told
    assert "other.yaml:3: optimizer is not a key" in told

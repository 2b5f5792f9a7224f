"""What `fledge init` writes loads as it is, and shows every option as it is."""

from pathlib import Path

import jsonschema

from fledge.config.data import SourceConfig
from fledge.config.document import read_document
from fledge.config.dump import scalar
from fledge.config.load import load_recipe
from fledge.config.page import options_page
from fledge.config.recipe import Recipe
from fledge.config.schema import recipe_schema
from fledge.config.template import commented_recipe, section_of

ROOT = Path(__file__).parents[3]


def test_the_commented_recipe_loads_and_holds_only_what_must_be_given(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(commented_recipe())
    recipe = load_recipe(path)
    assert recipe.model.name_or_path == "bigscience/bloom-1b7"
    tree = read_document(path.read_bytes(), "r").tree
    assert tree == {
        "model": {"name_or_path": "bigscience/bloom-1b7"},
        "data": {"train": {"path": "tatsu-lab/alpaca", "format": "alpaca"}, "validation": {"fraction": 0.05}},
    }
    jsonschema.validate(tree, recipe_schema())


def test_the_commented_recipe_shows_every_option_with_its_default() -> None:
    lines = set(commented_recipe().splitlines())
    seen = 0
    for field in Recipe.model_fields.values():
        for name, option in section_of(field).model_fields.items():
            seen += 1
            if not option.is_required() and name != "validation":
                assert f"  # {name}: {scalar(option.get_default(call_default_factory=True))}" in lines, name
    assert seen == 64
    for name, option in SourceConfig.model_fields.items():
        assert option.is_required() or f"    # {name}: {scalar(option.default)}" in lines, name


def test_the_options_page_is_that_of_the_code() -> None:
    written = (ROOT / "docs" / "recipe.md").read_text(encoding="utf-8")
    assert written == options_page(), "write it anew: python -m fledge.config.page > docs/recipe.md"

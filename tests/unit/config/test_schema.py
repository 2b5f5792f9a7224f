"""The JSON Schema describes exactly what loads, so that an editor says what Fledge would say."""

import jsonschema
import pytest

from fledge.config.recipe import Recipe
from fledge.config.schema import DIALECT, recipe_schema

SCHEMA = recipe_schema()
SECTIONS = list(SCHEMA["$defs"])
SHORTEST = {"model": {"name_or_path": "a"}, "data": {"train": {"path": "b", "format": "text"}}}


def test_the_schema_is_valid_and_names_its_dialect() -> None:
    assert SCHEMA["$schema"] == DIALECT
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_every_section_is_closed_and_every_option_is_described() -> None:
    assert len(SECTIONS) == 8
    for name in SECTIONS:
        section = SCHEMA["$defs"][name]
        assert section["additionalProperties"] is False, name
        for option, schema in section["properties"].items():
            assert schema.get("description"), f"{name}.{option}"
            assert "default" in schema or option in section["required"], f"{name}.{option}"


def test_no_list_needs_a_draft_that_editors_do_not_read() -> None:
    assert "prefixItems" not in str(SCHEMA)


@pytest.mark.parametrize(
    "change",
    [
        {"train": {"lr_scheduler": "cosin"}},
        {"train": {"lr": 1}},
        {"train": {"learning_rate": 2}},
        {"train": {"adam_betas": [0.9]}},
        {"train": {"adam_betas": [0.9, 0.9, 0.9]}},
        {"data": {"train": {"path": "b"}}},
        {"data": {"train": []}},
        {"data": {"train": {"fraction": 0.1}}},
        {"lora": {"target_modules": []}},
        {"trian": {}},
        {"output": {"trackers": "wandb"}},
    ],
)
def test_what_does_not_load_is_not_valid(change: dict[str, object]) -> None:
    jsonschema.validate(SHORTEST, SCHEMA)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(SHORTEST | change, SCHEMA)
    plain = SHORTEST | {key: _tuples(value) for key, value in change.items()}
    with pytest.raises(ValueError):
        Recipe.model_validate(plain)


def _tuples(value: object) -> object:
    if isinstance(value, list):
        return tuple(_tuples(item) for item in value)
    return {key: _tuples(item) for key, item in value.items()} if isinstance(value, dict) else value

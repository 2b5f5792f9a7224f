"""The recipe's JSON Schema, which editors use to complete and to check."""

from typing import Any

from fledge.config.recipe import Recipe

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def recipe_schema() -> dict[str, Any]:
    """A JSON Schema (2020-12) with a description and a default for each option, closed to unknown keys."""
    schema = Recipe.model_json_schema()
    _tidy(schema)
    return {"$schema": DIALECT, **schema, "title": "Fledge recipe"}


def _tidy(part: Any) -> None:
    """Drop titles that repeat names, and write lists of alike items in the way every draft of JSON Schema reads."""
    if isinstance(part, list):
        for item in part:
            _tidy(item)
    if not isinstance(part, dict):
        return
    if isinstance(part.get("title"), str):
        del part["title"]
    items = part.get("prefixItems")
    if items and all(item == items[0] for item in items):
        del part["prefixItems"]
        part["items"] = items[0]
    for name, item in part.items():
        if name not in ("default", "enum", "const"):
            _tidy(item)

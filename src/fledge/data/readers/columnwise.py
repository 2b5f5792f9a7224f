"""JSON that holds columns instead of rows, in the forms that pandas writes."""

from typing import Any


def rows_of_columns(value: Any) -> list[dict[str, Any]] | None:
    """The rows of an object whose values are columns; None where it is anything else.

    Columns are lists of one length (no list of objects: that is a list of rows, or of messages), or objects by row
    number. An object by row number whose values are rows is read too.
    """
    if not isinstance(value, dict) or not value:
        return None
    columns = list(value.values())
    if all(isinstance(column, list) for column in columns):
        is_even = len({len(column) for column in columns}) == 1
        is_rows = any(isinstance(item, dict) for column in columns for item in column)
        return _from_lists(value) if is_even and not is_rows and columns[0] else None
    if not all(isinstance(column, dict) and column for column in columns):
        return None
    if all(_are_numbers(column) and column.keys() == columns[0].keys() for column in columns):
        return [{name: column[number] for name, column in value.items()} for number in columns[0]]
    return columns if _are_numbers(value) else None


def _from_lists(value: dict[str, list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(value, items, strict=True)) for items in zip(*value.values(), strict=True)]


def _are_numbers(value: dict[str, Any]) -> bool:
    return all(name.isascii() and name.isdigit() for name in value)

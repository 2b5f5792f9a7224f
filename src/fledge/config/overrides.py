"""`key.path=value` settings of the command line, put over a recipe's tree."""

from collections.abc import Sequence

from fledge.config.document import Document, Key, read_value
from fledge.errors import Problem

WHERE = "command line"


def apply_overrides(document: Document, overrides: Sequence[str]) -> None:
    """Set each `key.path=value` in the document's tree, its value read as YAML; faults go to its problems."""
    for text in overrides:
        where = f"{WHERE}: {text if len(text) <= 80 else text[:77] + '...'}"
        problem = _apply(document, text, where)
        if problem:
            document.problems.append(problem)


def _apply(document: Document, text: str, where: str) -> Problem | None:
    name, equals, value_text = text.partition("=")
    parts = [part.strip() for part in name.split(".")]
    if not equals or not all(parts):
        return Problem("not a setting", where, "write key.path=value, for instance train.learning_rate=1e-4")
    key: Key = tuple(int(part) if part.isascii() and part.isdigit() else part for part in parts)
    value = read_value(value_text, key, where=where)
    if value.problems:
        document.problems.extend(value.problems)
        return None
    return _set(document, key, value)


def _set(document: Document, key: Key, value: Document) -> Problem | None:
    """Walk to the mapping or list that holds the last part of `key`, making sections that are not there yet."""
    where, holder = value.where(key), document.tree
    for depth, part in enumerate(key):
        here = ".".join(str(item) for item in key[:depth])
        if isinstance(holder, tuple):
            if not isinstance(part, int) or part >= len(holder):
                return Problem(f"{here} is a list of {len(holder)}", where, f"the last one is {here}.{len(holder) - 1}")
            holder = holder[part]
            if depth == len(key) - 1:
                return Problem(
                    "an item of a list is not set alone", where, f"set an option in it, or all of {here}=[...]"
                )
            continue
        if not isinstance(holder, dict):
            return Problem(f"{here} is a value and has no option {part}", where, f"set {here} itself")
        if isinstance(part, int):
            return Problem(f"{here or 'the recipe'} is not a list", where, f"write it without .{part}")
        if depth == len(key) - 1:
            _replace(document, holder, key, value)
        elif holder.get(part) is None:
            holder[part] = {}
            document.marks[key[: depth + 1]] = where
        holder = holder[part]
    return None


def _replace(document: Document, holder: dict[str, object], key: Key, value: Document) -> None:
    document.replace(key, value)
    holder[str(key[-1])] = value.tree

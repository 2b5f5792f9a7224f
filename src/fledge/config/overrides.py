"""`key.path=value` settings of the command line, put over a recipe's tree."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import replace

from fledge.config.document import Document, Key, read_value
from fledge.errors import Problem

WHERE = "command line"
_QUOTES = "'\""
_STRAY = _QUOTES + "-: "
# A setting in the words of a cure: a dotted key, and a value that ends where the words go on.
_SETTING = re.compile(
    r"(write |set )((?:model|data|lora|train|evaluate|output)\.[\w.]+): (\{.*?\}+|\[.*?\]+|[^\s,;()]+)"
)


def apply_overrides(document: Document, overrides: Sequence[str]) -> None:
    """Set each `key.path=value` in the document's tree, its value read as YAML; faults go to its problems."""
    split = _split_by_the_shell(overrides)
    for text, whole in split:
        where = f"{WHERE}: {text if len(text) <= 80 else text[:77] + '...'}"
        if whole:
            what = "the shell has split this setting at its spaces"
            problem: Problem | None = Problem(what, where, f"write {shlex.quote(whole)}")
        else:
            problem = _apply(document, text, where)
        if problem:
            document.problems.append(problem)


def for_command_line(cure: str) -> str:
    """A cure whose settings are written as the command line takes them: `key.path=value`, quoted for the shell."""

    def as_setting(found: re.Match[str]) -> str:
        return found[1] + shlex.quote(f"{found[2]}={found[3]}")

    return _SETTING.sub(as_setting, cure)


def _split_by_the_shell(overrides: Sequence[str]) -> list[tuple[str, str]]:
    """Each setting, with the whole of it where the shell has made several arguments of one with spaces."""
    found: list[tuple[str, str]] = []
    rest = list(overrides)
    while rest:
        text = rest.pop(0)
        parts = [text]
        while rest and (_is_open(" ".join(parts)) or "=" in (parts[-1], rest[0]) or _is_cut(parts[-1], rest[0])):
            parts.append(rest.pop(0))
        whole = "".join(parts) if "=" in parts or _is_cut(*parts[:2]) else " ".join(parts)
        found.append((text, whole if len(parts) > 1 and "=" in whole and not _is_open(whole) else ""))
        if len(parts) > 1 and not found[-1][1]:
            rest = parts[1:] + rest
    return found


def _is_open(text: str) -> bool:
    """Whether a bracket or brace of a setting's value is not closed."""
    value = text.partition("=")[2]
    return value[:1] in ("[", "{") and any(value.count(one) > value.count(other) for one, other in ("[]", "{}"))


def _is_cut(text: str, after: str = "=") -> bool:
    """Whether `key=` and the value behind it are two arguments."""
    return text.endswith("=") and "." in text and "=" not in after


def _apply(document: Document, text: str, where: str) -> Problem | None:
    name, equals, value_text = text.partition("=")
    parts = [part.strip() for part in name.strip().split(".")]
    if not equals or not all(parts):
        return Problem("not a setting", where, _as_setting(text))
    if name[:1] in ("-", "'", '"') or name.rstrip()[-1] == ":" or value_text.startswith("="):
        setting = f"{name.strip(_STRAY)}={value_text.lstrip('=').strip(_QUOTES if name[:1] in _QUOTES else None)}"
        return Problem("not a setting", where, f"write {shlex.quote(setting)}")
    key: Key = tuple(int(part) if part.isascii() and part.isdigit() else part for part in parts)
    value = read_value(value_text, key, where=where)
    if value.problems:
        cure = f"write {name}=, and then the value in quotes for YAML and for the shell: '\"...\"'"
        document.problems.extend(replace(problem, cure=problem.cure or cure) for problem in value.problems)
        return None
    return _set(document, key, value)


def _as_setting(text: str) -> str:
    """What a person probably wanted to set: `train.seed: 3` and `train.seed 3` have other signs for `=`."""
    found = re.fullmatch(r"[-'\"]*([A-Za-z_][\w.-]*?)\s*[:\s]\s*(.+?)['\"]*", text)
    if found:
        return f"write {shlex.quote(f'{found[1]}={found[2]}')}"
    if text.lower().endswith((".yaml", ".yml", ".json")):
        return "one recipe is trained at a time; write settings as key.path=value"
    is_key = re.fullmatch(r"[A-Za-z_]\w*(\.\w+)+", text)
    return f"write {text}=VALUE" if is_key else "write key.path=value, for instance train.learning_rate=1e-4"


def _set(document: Document, key: Key, value: Document) -> Problem | None:
    """Walk to the mapping or list that holds the last part of `key`, making sections that are not there yet."""
    where, holder = value.where(key), document.tree
    for depth, part in enumerate(key):
        here = ".".join(str(item) for item in key[:depth])
        if isinstance(holder, tuple):
            if not isinstance(part, int) or part >= len(holder):
                return Problem(f"{here} is a list of {len(holder)}", where, _by_position(key, depth, len(holder)))
            holder = holder[part]
            if depth == len(key) - 1:
                cure = f"set an option in it, such as {here}.{part}.path=..., or all of {here}=[...]"
                return Problem("an item of a list is not set alone", where, cure)
            continue
        if not isinstance(holder, dict):
            return Problem(f"{here} is a value and has no option {part}", where, f"set {here} itself")
        if isinstance(part, int):
            rest = ".".join(str(item) for item in (*key[:depth], *key[depth + 1 :]))
            return Problem(f"{here or 'the recipe'} is not a list", where, f"write {rest}=... without {part}")
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


def _by_position(key: Key, depth: int, length: int) -> str:
    """How an option of a list's item is written: with the item's position, from 0."""
    rest = key[depth + 1 :] if isinstance(key[depth], int) else key[depth:]
    position = length - 1 if isinstance(key[depth], int) else 0
    option = ".".join(str(part) for part in (*key[:depth], position, *rest))
    return f"write {option}=... (positions count from 0; the last one is {length - 1})"

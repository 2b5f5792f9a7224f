"""Applies the cure of a message to a recipe, word by word, as a person who follows it to the letter would."""

import json
import re
from collections.abc import Iterator
from typing import Any

from fledge.config.document import plain_scalar, read_value
from fledge.errors import Problem

Key = tuple[str | int, ...]
_KEY = r"(?:model|data|lora|train|evaluate|output)(?:\.\w+)+"


class NotLiteral(Exception):
    """A cure that leaves something for a person to decide."""


def apply_cure(tree: dict[str, Any], problem: Problem) -> None:
    """Change `tree`, lists being lists, as the problem's cure says. Raises NotLiteral where it cannot be followed."""
    cure, key = problem.cure, _key_of(problem, tree)
    if not cure:
        _take_what_is_expected(tree, problem, key)
    elif meant := re.match(r"did you mean ([^?]+)\?", cure):
        _rename(tree, problem, key, meant[1])
    elif both := re.match(rf"remove it, and write ({_KEY}): (.+)", cure):
        _remove(tree, key)
        _put(tree, _path(both[1]), _value(both[2]))
    elif setting := re.match(rf"(?:a dot [^:]*: )?(?:write|set) ({_KEY}): (.+)", cure):
        _forget_unknown(tree, problem, key)
        _put(tree, _path(setting[1]), _value(setting[2]))
    elif nested := re.match(r"a dot does not open a section in a file: write (\w+): (\{.*\})", cure):
        _remove(tree, key)
        for name, value in _value(nested[2]).items():
            _put(tree, (nested[1], name), value)
    elif cure.startswith("remove it"):
        _remove(tree, key)
    elif one := re.match(r"add it: ([\w-]+)", cure):
        _put(tree, key, plain_scalar(one[1]))
    elif value := re.match(r"(?:write|put it in quotes:|write the options without a dash:)( a list:)? (.+)", cure):
        _put(tree, key, _value(value[2]))
    else:
        raise NotLiteral(cure)


def _key_of(problem: Problem, tree: Any) -> Key:
    what = problem.what
    if found := re.match(r"a recipe has no section (.+)", what):
        return (found[1],)
    if found := re.match(r"([\w.]+) has no option (.+)", what):
        return (*_path(found[1]), found[2])
    if found := re.match(rf"({_KEY}|model|data|lora|train|evaluate|output)(?: is |: )", what):
        return _path(found[1])
    holders = [key for key, value in _leaves(tree) if isinstance(value, str) and value and value in what]
    if not holders:
        raise NotLiteral(what)
    return holders[0]


def _leaves(tree: Any, key: Key = ()) -> Iterator[tuple[Key, Any]]:
    parts = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for name, value in parts:
        yield from _leaves(value, (*key, name))
    if not isinstance(tree, dict | list):
        yield key, tree


def _path(text: str) -> Key:
    return tuple(int(part) if part.isdigit() else part for part in text.split("."))


def _value(text: str) -> Any:
    """The value with which a cure goes on: a list, a mapping, text in quotes, or a word."""
    if text[0] in "[{":
        end = next(i for i in range(1, len(text) + 1) if _is_closed(text[:i]))
        return thawed(read_value(text[:end], ("x",), where="cure").tree)
    if text[0] == '"':
        return json.JSONDecoder().raw_decode(text)[0]
    return plain_scalar(re.split(r" \(|[,;]|: | or | and ", text)[0])


def _is_closed(text: str) -> bool:
    bare = re.sub(r'"(\\.|[^"\\])*"', "", text)
    return all(bare.count(one) == bare.count(other) for one, other in ("[]", "{}"))


def thawed(tree: Any) -> Any:
    """A tree whose tuples are lists."""
    if isinstance(tree, dict):
        return {name: thawed(value) for name, value in tree.items()}
    return [thawed(item) for item in tree] if isinstance(tree, tuple | list) else tree


def _rename(tree: Any, problem: Problem, key: Key, name: str) -> None:
    if "has no" not in problem.what:
        _put(tree, key, plain_scalar(name))
        return
    value = _remove(tree, key)
    path = _path(name) if "." in name or len(key) == 1 else (*key[:-1], name)
    if len(path) == 1 and isinstance(tree.get(path[0]), dict) and isinstance(value, dict):
        value = {**tree[path[0]], **value}
    _put(tree, path, value)


def _forget_unknown(tree: Any, problem: Problem, key: Key) -> None:
    if "has no" in problem.what:
        _remove(tree, key)


def _take_what_is_expected(tree: Any, problem: Problem, key: Key) -> None:
    """Without a cure, a person takes the first of what is expected, or a number within the bounds."""
    found = re.search(r", expected (.+)", problem.what)
    if found is None:
        raise NotLiteral(problem.what)
    number = re.match(r"(?:a whole )?a? ?(?:whole )?number (at least|above) (\S+)", found[1])
    if number:
        whole, least = "whole" in found[1], float(number[2])
        up = 1 if whole else 0.5 if "below 1" in found[1] or "at most 1" in found[1] else 1
        value = least if number[1] == "at least" else least + up
        _put(tree, key, int(value) if whole else value)
        return
    first = re.split(r", | or ", found[1])[0]
    if " " in first or first == "text":
        raise NotLiteral(problem.what)
    _put(tree, key, plain_scalar(first))


def _remove(tree: Any, key: Key) -> Any:
    for part in key[:-1]:
        tree = tree[part]
    return tree.pop(key[-1])


def _put(tree: Any, key: Key, value: Any) -> None:
    for part in key[:-1]:
        if isinstance(tree, dict) and not isinstance(tree.get(part), dict | list):
            tree[part] = {}
        tree = tree[part]
    tree[key[-1]] = value

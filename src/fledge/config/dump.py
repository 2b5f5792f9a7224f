"""A recipe as YAML text: complete, every default written out, and read back as the same recipe."""

import json
import re
from typing import Any

from fledge.config.document import plain_scalar
from fledge.config.recipe import Recipe

_PLAIN = re.compile(r"[A-Za-z/][\w./-]*", re.ASCII)
# What YAML 1.2 does not allow raw, or folds, between double quotes.
_ESCAPED = re.compile(r"[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
# YAML 1.1 readers take these for booleans.
_OLD_WORDS = frozenset({"y", "n", "yes", "no", "on", "off"})


def dump_recipe(recipe: Recipe) -> str:
    """The whole recipe as YAML. `load_recipe` of it, anywhere, gives an equal recipe where its paths are absolute."""
    tree = recipe.model_dump()
    if recipe.lora.init_from is not None:
        del tree["lora"]["init_lora_weights"]  # it has no effect there, and is refused
    return dump_tree(tree)


def dump_tree(tree: dict[str, dict[str, Any]]) -> str:
    """Sections and their options as YAML."""
    lines: list[str] = []
    for name, section in tree.items():
        lines += [f"{name}:", *(line for key, value in section.items() for line in _entry(key, value, "  "))]
    return "\n".join(lines) + "\n"


def _entry(name: str, value: Any, indent: str) -> list[str]:
    if isinstance(value, dict) and value:
        return [
            f"{indent}{scalar(name)}:",
            *(line for key, item in value.items() for line in _entry(key, item, indent + "  ")),
        ]
    if isinstance(value, tuple) and value and isinstance(value[0], dict):
        lines = [f"{indent}{name}:"]
        for item in value:
            inner = [line for key, part in item.items() for line in _entry(key, part, indent + "    ")]
            lines += [f"{indent}  - {inner[0].lstrip()}", *inner[1:]]
        return lines
    return [f"{indent}{scalar(name)}: {scalar(value)}"]


def scalar(value: Any) -> str:
    """One value, or a list or a mapping of values, as YAML that both YAML 1.1 and 1.2 read alike."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        text = repr(value)
        return text.replace("e", ".0e") if "e" in text and "." not in text else text
    if isinstance(value, dict):
        return f"{{{', '.join(f'{scalar(name)}: {scalar(item)}' for name, item in value.items())}}}"
    if isinstance(value, tuple | list):
        return f"[{', '.join(scalar(item) for item in value)}]"
    if isinstance(value, str):
        return _text(value)
    return str(value)


def flow(value: Any) -> str:
    """Any value of a tree on one line, as it can be written behind a key."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{scalar(str(key))}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, tuple | list):
        return f"[{', '.join(flow(item) for item in value)}]"
    return scalar(value)


def _text(value: str) -> str:
    if _PLAIN.fullmatch(value) and isinstance(plain_scalar(value), str) and value.lower() not in _OLD_WORDS:
        return value
    quoted = json.dumps(value, ensure_ascii=False)
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", quoted)

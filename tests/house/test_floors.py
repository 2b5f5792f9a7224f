"""Rooms import only what stands above them, libraries stay at home, and nothing is imported inside a function."""

import ast
import sys
from pathlib import Path

from tests.house.floors import ALLOWED, AT_HOME

SOURCE = Path(__file__).parents[2] / "src" / "fledge"
IMPORTS, FUNCTIONS = (ast.Import, ast.ImportFrom), (ast.FunctionDef, ast.AsyncFunctionDef)


def names(node: ast.Import | ast.ImportFrom) -> list[str]:
    prefix = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
    return [prefix + alias.name for alias in node.names]


def complaint(name: str, room: str) -> str | None:
    top, _, rest = name.partition(".")
    if top == "fledge":
        other = rest.partition(".")[0]
        return None if other == room or other in ALLOWED[room].split() else f"{room} may not import {name}"
    known = max((known for known in AT_HOME if f"{name}.".startswith(f"{known}.")), key=len, default=None)
    is_welcome = room in AT_HOME[known].split() if known else top in sys.stdlib_module_names
    return None if is_welcome else f"{name} is not at home in {room}"


def test_every_module_keeps_to_its_floor() -> None:
    modules, found = sorted(SOURCE.rglob("*.py")), []
    for path in modules:
        room, nodes = path.relative_to(SOURCE).parts[0].removesuffix(".py"), list(ast.walk(ast.parse(path.read_text())))
        told = [complaint(name, room) for node in nodes if isinstance(node, IMPORTS) for name in names(node)]
        inside = [node for f in nodes if isinstance(f, FUNCTIONS) for node in ast.walk(f) if isinstance(node, IMPORTS)]
        told += ["an import inside a function"] * (bool(inside) and room not in ("cli", "__init__"))
        told += ["a relative import" for node in nodes if isinstance(node, ast.ImportFrom) and node.level]
        found += [f"{path.relative_to(SOURCE)}: {words}" for words in told if words]
    assert not found, "\n".join(["", *found])
    assert len(modules) == sum(len(list(SOURCE.glob("*/" * depth + "*.py"))) for depth in range(6)) > 50

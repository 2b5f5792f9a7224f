"""Errors are for the person who reads them: a FledgeError with a cure, or an assertion for what only we can break."""

import ast
from collections.abc import Iterator
from pathlib import Path

from fledge import errors

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "src" / "fledge").rglob("*.py"))
OURS = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
# What a module may raise besides: control flow of a library, and private exceptions of its own.
OTHERS = {"Exit", "AssertionError", "AttributeError", "KeyboardInterrupt"}
# Where an error ends by design: at the command line, and at an observer that must not harm the run.
SWALLOWING = {
    "cli/main.py",
    "commands/engine.py",  # a kernel that this card cannot run: the engine computes without
    "commands/layout.py",  # code of some architecture that cannot compute rows together: they are computed otherwise
    "models/one_of_each.py",  # the same, without its blocks: it is computed with all of them
    "observe/observer.py",
    "observe/trackers.py",
    "ops/choice.py",  # the same, found with the smallest kernel
}


def nodes(kind: type[ast.AST]) -> Iterator[tuple[Path, ast.AST]]:
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, kind):
                yield path, node


def raised_name(node: ast.Raise) -> str | None:
    raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
    if isinstance(raised, ast.Attribute):
        return raised.attr
    return raised.id if isinstance(raised, ast.Name) else None


def where(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"


def test_what_is_raised_is_a_fledge_error() -> None:
    found = []
    for path, node in nodes(ast.Raise):
        assert isinstance(node, ast.Raise)
        name = raised_name(node)
        if name is None or name in OURS | OTHERS or name.startswith("_") or name[0].islower():
            continue
        found.append(f"{where(path, node)}: raises {name}")
    assert len(MODULES) > 50
    assert not found, "\n".join(["", *found])


def test_an_error_of_ours_ends_without_a_full_stop_and_begins_in_the_middle_of_a_sentence() -> None:
    found = []
    for path, node in nodes(ast.Call):
        assert isinstance(node, ast.Call)
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name not in OURS | {"Problem"} or not node.args:
            continue
        first = node.args[0]
        if isinstance(first, ast.Constant) and isinstance(first.value, str) and first.value.endswith("."):
            found.append(f"{where(path, node)}: {first.value!r}")
    assert not found, "\n".join(["", *found])


def test_nothing_is_caught_blindly() -> None:
    found = []
    for path, node in nodes(ast.ExceptHandler):
        assert isinstance(node, ast.ExceptHandler)
        names = {part.id for part in ast.walk(node.type) if isinstance(part, ast.Name)} if node.type else {"everything"}
        is_blind = bool(names & {"Exception", "BaseException", "everything"})
        ends_here = not any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
        if is_blind and ends_here and str(path.relative_to(ROOT / "src" / "fledge")) not in SWALLOWING:
            found.append(where(path, node))
    assert not found, "\n".join(["", *found])

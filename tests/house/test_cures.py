"""Messages name options that exist, no argument of Python, and the package by the name that it is installed by."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

from fledge.config.data import SourceConfig, ValidationFraction
from fledge.config.foreign import FRACTIONS, IN_SECTION, INSTEAD, NEEDLESS, SAME, SECTIONS, SOURCES
from fledge.config.recipe import Recipe
from fledge.config.words import WORDS

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "src" / "fledge").rglob("*.py"))
SECTION_TYPES: dict[str, type[BaseModel]] = {
    name: field.annotation for name, field in Recipe.model_fields.items() if isinstance(field.annotation, type)
}
SOURCES_OF_ROWS = ("train", "validation", "test")
# What has the form of a key and is none: names of files, and of a tensor of GGUF.
NO_KEYS = re.compile(
    r"\b(?:model|data|train|lora|evaluate|output)\.(?:safetensors|jsonl?|csv|yaml|py|npy|bin|weight)\b"
)
KEY = re.compile(r"(?<![\w./])(model|data|lora|train|evaluate|output)\.([a-z_][a-z_0-9]*)((?:\.[a-z_0-9]+)*)")
# The table of the small BLOOM tool's keys has the same form.
ANOTHER_TOOLS = {"config/imports.py"}
# A model card shows Python code, what libraries say is searched for Python arguments to leave them out, and the cure of
# a pickled base is a command in Python that a test runs.
WRITES_PYTHON = {"card.py", "quoted.py", "folder.py", "adapter_file.py"}
PYTHON_ARGUMENT = re.compile(r"\b[a-z_]+=(?:True|False|None|\[|<)|from_pretrained\(|load_dataset\(")


def texts() -> Iterator[tuple[Path, int, str]]:
    """Every string in the code that is no docstring, and the literal parts of f-strings."""
    for path in MODULES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        documented = {
            id(body[0].value)
            for node in ast.walk(tree)
            if isinstance(body := getattr(node, "body", None), list) and body and isinstance(body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documented:
                yield path, node.lineno, node.value


def is_key(section: str, option: str, rest: str) -> bool:
    """Whether a dotted name is an option of the recipe."""
    if option not in SECTION_TYPES[section].model_fields:
        return False
    parts = [part for part in rest.split(".") if part and not part.isdigit()]
    if not parts:
        return True
    known = {*SourceConfig.model_fields, *(ValidationFraction.model_fields if option == "validation" else ())}
    return section == "data" and option in SOURCES_OF_ROWS and len(parts) == 1 and parts[0] in known


def unknown_keys(text: str) -> list[str]:
    """Dotted names in a text that look like options and are none."""
    return [found[0] for found in KEY.finditer(NO_KEYS.sub("", text)) if not is_key(*found.groups())]


def test_every_key_that_a_text_of_the_code_names_is_one_of_the_recipe() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {key}"
        for path, line, text in texts()
        if str(path.relative_to(ROOT / "src" / "fledge")) not in ANOTHER_TOOLS
        for key in unknown_keys(text)
    ]
    assert not found, "\n".join(["", *found])


def test_the_search_finds_a_key_that_is_none() -> None:
    assert unknown_keys("set data.format: chat, or train.lr") == ["data.format", "train.lr"]
    assert unknown_keys("data.validation.fraction, data.train.0.path, data.train.fraction") == ["data.train.fraction"]
    assert not unknown_keys("see data.jsonl, model.safetensors and lora.r")


def test_no_text_tells_a_person_to_pass_a_python_argument() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text[:100]!r}"
        for path, line, text in texts()
        if PYTHON_ARGUMENT.search(text) and path.name not in WRITES_PYTHON
    ]
    assert not found, "\n".join(["", *found])


def targets() -> Iterator[str]:
    """Every option that the tables of foreign names and words lead to."""
    yield from (*SAME.values(), *SOURCES.values(), *WORDS)
    for section, names in IN_SECTION.items():
        yield from (f"{section}.{option}" for option in names.values())
    for cures in INSTEAD.values():
        for cure in (cures,) if isinstance(cures, str) else cures.values():
            yield from (found[0] for found in KEY.finditer(cure))
    for reason in NEEDLESS.values():
        yield from (found[0] for found in KEY.finditer(reason))


def test_every_foreign_name_leads_to_an_option_that_exists() -> None:
    assert len({*SAME, *SOURCES, *FRACTIONS, *INSTEAD, *NEEDLESS}) > 250
    assert not [target for target in targets() if unknown_keys(target)]
    assert set(SECTIONS.values()) <= set(SECTION_TYPES)


def test_no_foreign_name_is_answered_twice() -> None:
    tables = (SAME, SOURCES, FRACTIONS, INSTEAD, NEEDLESS)
    names = [name for table in tables for name in table]
    assert sorted(names) == sorted(set(names))


def tracked() -> list[Path]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    endings = {".py", ".md", ".toml", ".yaml", ".yml", ".jinja", ".txt", ""}
    return [path for line in done.stdout.splitlines() if (path := ROOT / line).suffix in endings and path.is_file()]


def test_nothing_names_the_package_of_a_stranger() -> None:
    """`fledge` on the package index is not this project: its distribution is `fledge-lora`."""
    # assembled, so that this file does not say what it looks for
    stranger = re.compile("pip install" + r" +(?:-\S+ +)*['\"]?fledge(?!-lora)|" + r"\bfledge" + r"\[")
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in tracked()
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1)
        if stranger.search(line)
    ]
    assert not found, "\n".join(["", *found])

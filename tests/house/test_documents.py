"""The documents say what is true: short, every command of theirs is known, and no path of anybody's machine."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from fledge.cli.main import VERBS
from fledge.config.load import load_recipe
from fledge.errors import RecipeError

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCUMENTS = [README, *sorted((ROOT / "docs").rglob("*.md"))]
TEXT_SUFFIXES = {".py", ".md", ".yaml", ".yml", ".toml", ".json", ".txt", ".cfg", ".html", ".css", ".js", ".sh", ""}
# Assembled, so that this file does not name what it looks for.
MACHINE_PATHS = re.compile("|".join(["/" + "work/", "/" + "home/[a-z]+/", "/" + "Users/[A-Za-z]+/", "/" + "tmp/bash"]))


def tracked() -> list[Path]:
    """Files that git knows or would take up, so that a file written now is looked at before it is committed."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [path for line in done.stdout.splitlines() if (path := ROOT / line).is_file()]


def commands_of(document: Path) -> list[str]:
    """The lines of a document's shell blocks, comments and continuations put away."""
    blocks = re.findall(r"```(?:sh|bash|console)\n(.*?)```", document.read_text(encoding="utf-8"), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.split("  #")[0].strip() for line in lines if line.strip() and not line.startswith("#")]


def make_targets() -> set[str]:
    return set(re.findall(r"^([.\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def complaint(command: str) -> str | None:
    words = shlex.split(command)
    match words[0]:
        case "make":
            unknown = [word for word in words[1:] if word not in make_targets()]
            return f"no such target: {unknown}" if unknown else None
        case "fledge":
            if words[1] in ("--help", "--version"):
                return None
            if words[1] not in VERBS:
                return f"no such verb: {words[1]}"
            shipped = [word for word in words if word.startswith("recipes/") and not (ROOT / word).exists()]
            return f"no such recipe: {shipped}" if shipped else None
        case "pip" | "cd" | "export" | "source" | ".":
            return None
        case ".venv/bin/fledge":
            return complaint(shlex.join(["fledge", *words[1:]]))
    return f"a command that no test knows: {words[0]}"


def test_the_readme_is_short_and_begins_with_its_title_and_the_two_commands() -> None:
    lines = README.read_text(encoding="utf-8").splitlines()
    assert len(lines) < 150
    assert lines[:3] == ["# Fledge", "", "```sh"]
    assert [line.split("  ")[0] for line in lines[3:5]] == ["make quickstart", "make test"]


def test_the_readmes_recipe_loads_and_its_errors_are_those_that_are_told(tmp_path: Path) -> None:
    text = README.read_text(encoding="utf-8")
    (recipe,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    (told,) = re.findall(r"```text\n(.*?)```", text, re.DOTALL)
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe)
    assert load_recipe(path).model.name_or_path == "bigscience/bloom-1b7"
    path.write_text(f"{recipe}\n\ntrain:\n  lr_scheduler: cosin\n  lr: 1.0e-4\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert [f"fledge: {problem}".replace(str(path), path.name) for problem in caught.value.problems] == re.split(
        r"\n(?=fledge)", told.rstrip()
    )


def test_every_command_in_the_documents_is_one_that_exists() -> None:
    found = [
        f"{document.relative_to(ROOT)}: {command}: {words}"
        for document in DOCUMENTS
        for command in commands_of(document)
        if (words := complaint(command))
    ]
    assert not found, "\n".join(["", *found])
    assert sum(len(commands_of(document)) for document in DOCUMENTS) > 10


def test_every_link_between_documents_leads_somewhere() -> None:
    found = [
        f"{document.relative_to(ROOT)}: {target}"
        for document in DOCUMENTS
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8"))
        if not (document.parent / target).exists()
    ]
    assert not found, "\n".join(["", *found])


def test_no_file_names_a_path_of_somebodys_machine() -> None:
    files = [path for path in tracked() if path.suffix in TEXT_SUFFIXES and path.stat().st_size < 5_000_000]
    assert len(files) > 80
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in files
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1)
        if MACHINE_PATHS.search(line)
    ]
    assert not found, "\n".join(["", *found])

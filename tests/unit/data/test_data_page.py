"""The page about data: every example of it is prepared as it stands, and gives the rows and the lines that it shows."""

import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fledge.config.columns import ROLES
from fledge.config.load import load_recipe
from fledge.data.pipeline import prepare_training
from fledge.data.readers.suffixes import KINDS
from fledge.data.rows import Reason
from tests.unit.data.tiny import CHATML, gpt_like

PAGE = (Path(__file__).parents[3] / "docs" / "data.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+) ?(\S*)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
_ROWS = re.compile(r"# (\d+) rows?$", re.MULTILINE)


@dataclass
class Example:
    """Files, the `data` section that reads them, and what is said of them."""

    section: str
    files: dict[str, str]
    told: list[str] = field(default_factory=list)


def examples() -> list[Example]:
    found: list[Example] = []
    files: dict[str, str] = {}
    for kind, name, body in BLOCKS:
        if kind == "yaml":
            found.append(Example(body, files))
            files = {}
        elif kind == "text":
            found[-1].told = body.splitlines()
        else:
            assert Path(name).suffix.removeprefix(".") == kind
            files[name] = body
    return found


@pytest.mark.parametrize("example", examples(), ids=lambda example: "-".join(example.files))
def test_an_example_of_the_page_is_prepared_as_it_stands(tmp_path: Path, example: Example) -> None:
    for name, body in example.files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(body, encoding="utf-8")
    section = "".join(f"  {line}\n" for line in example.section.splitlines())
    (tmp_path / "recipe.yaml").write_text(f"model: {{name_or_path: builtin:nestling}}\ndata:\n{section}", "utf-8")
    data = load_recipe(tmp_path / "recipe.yaml").data
    prepared = prepare_training(data, gpt_like(CHATML), seed=0, progress=lambda done, total: None)
    [rows] = _ROWS.findall(example.section)
    assert len(prepared.train) == int(rows)
    told = [line.replace(f"{tmp_path}/", "") for line in prepared.ledger.notices()]
    assert [line for line in told if "history" not in line] == example.told


def test_the_page_has_an_example_of_each_format_and_names_every_role_kind_and_reason() -> None:
    assert len(examples()) == 11
    for form, roles in ROLES.items():
        assert f"format: {form}" in PAGE
        assert all(f"`{role}`" in PAGE for role in roles)
    assert all(f"`{suffix}`" in PAGE for suffix in KINDS if suffix != ".ndjson")
    assert all(f"`{reason}`" in PAGE for reason in Reason.__args__)

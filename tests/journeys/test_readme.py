"""The README's commands do what they say when they are typed: each is run as it stands, one after the other."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.test_documents import README, commands_of
from tests.hub_server import serving
from tests.runs import environment, recipe_dict, write_recipe, write_rows
from tests.tiny_models import tiny_folder

TOKEN = "hf_" + "readersown" * 3
BY_OTHERS = {"make quickstart", "make test", "make check", "make help", "source .venv/bin/activate"}
"""`.ci/run` and the Makefile's own tests run these; a shell that finds `fledge` is what the others begin with."""
ASKED = {"fledge chat runs/recipe": "three plus four =\n"}
"""What is typed into a command that asks."""


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> dict[str, subprocess.CompletedProcess[str]]:
    """Every command of the README, run in a folder where somebody has begun."""
    folder, found = tmp_path_factory.mktemp("readme"), {}
    commands = [command for command in commands_of(README) if command not in BY_OTHERS]
    with serving() as hub:
        hub.add_user("you", TOKEN)
        where = {"HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "home"), "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}
        reach = environment(**where, HF_HUB_OFFLINE="0", HTTP_PROXY="", http_proxy="", NO_PROXY="127.0.0.1")
        for command in commands:
            _before(command, folder)
            words = [sys.executable, "-m", *shlex.split(command)]
            found[command] = subprocess.run(
                words, capture_output=True, text=True, env=reach, cwd=folder, timeout=300, input=ASKED.get(command)
            )
            _after(command, folder)
    return found


def _before(command: str, folder: Path) -> None:
    """What a reader has when they type it: another tool's file, and no recipe of this name yet."""
    if "--data faq.csv" in command:
        (folder / "faq.csv").write_text("question;answer\nDo owls hoot?;Yes, at night.\nDo kites?;No.\n")
    if command.startswith("fledge import"):
        (folder / "recipe.yaml").unlink()
        base = "model: {transformer: {pretrained_model_name_or_path: bigscience/bloom-1b7}}"
        (folder / "bloom.yaml").write_text(f"data: {{filenames: [a.txt]}}\n{base}\n")


def _after(command: str, folder: Path) -> None:
    """The recipe is the reader's to fill in: here with a tiny base and rows of their own."""
    if command == "fledge init recipe.yaml":
        base, rows = tiny_folder("llama", folder / "base"), write_rows(folder / "rows.jsonl")
        content = recipe_dict(base, rows, folder / "runs" / "recipe", data__validation={"fraction": 0.2})
        write_recipe(folder / "recipe.yaml", content)


def test_every_command_of_the_readme_runs_as_it_stands(told):
    failed = {command: done.stdout + done.stderr for command, done in told.items() if done.returncode}
    assert failed == {}
    assert {command.split()[1] for command in told} == {
        *("init", "train", "evaluate", "generate", "chat", "export", "push", "doctor", "import")
    }
    assert len(told) == 13
    assert not any("Traceback" in done.stderr or TOKEN in done.stdout + done.stderr for done in told.values())


def test_they_leave_what_they_promise(told):
    exported = [done.stdout for command, done in told.items() if command.startswith("fledge export")]
    assert len(exported) == 2 and all("written to" in text for text in exported)
    [pushed] = [done.stdout for command, done in told.items() if command.startswith("fledge push")]
    assert "you/bird-notes" in pushed

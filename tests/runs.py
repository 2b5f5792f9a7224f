"""Running Fledge in tests: recipes as dicts, runs in this process or in one of their own."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fledge.config.load import load_recipe
from fledge.config.recipe import Recipe

ROWS = 48


def write_rows(path: Path, *, count: int = ROWS) -> Path:
    """A small completion data set of sums in words, `count` lines of JSON."""
    words = "zero one two three four five six seven eight nine ten eleven twelve".split()
    with path.open("w", encoding="utf-8") as file:
        for index in range(count):
            a, b = index % 7, (index * 3 + index // 7) % 6
            filler = " please" * (index % 4)
            row = {"prompt": f"{words[a]} plus {words[b]}{filler} =", "completion": f" {words[a + b]}"}
            file.write(json.dumps(row) + "\n")
    return path


def recipe_dict(base: Path | str, rows: Path, run: Path, **changes: Any) -> dict[str, Any]:
    """A recipe for a short float32 run; `changes` are `section__key=value`."""
    recipe: dict[str, Any] = {
        "model": {"name_or_path": str(base), "dtype": "float32"},
        "data": {"train": {"path": str(rows), "format": "completion"}, "max_length": 64},
        "lora": {"r": 4, "lora_alpha": 8},
        "train": {"global_batch_size": 8, "max_steps": 6, "learning_rate": 1e-2, "save_every_steps": 2, "seed": 7},
        "output": {"dir": str(run)},
    }
    for name, value in changes.items():
        section, key = name.split("__")
        recipe.setdefault(section, {})[key] = value
    return recipe


def write_recipe(path: Path, content: Mapping[str, Any]) -> Path:
    """The recipe as a file; JSON is YAML."""
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")
    return path


def load(folder: Path, content: Mapping[str, Any]) -> Recipe:
    """The recipe as Fledge reads it from a file in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    return load_recipe(write_recipe(folder / "recipe-under-test.yaml", content), ())


def environment(**changes: str) -> dict[str, str]:
    """The environment of a fledge process in tests: offline, one thread."""
    return os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "NO_COLOR": "1"} | changes


def fledge(*arguments: str, check: bool = True, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    command = [sys.executable, "-m", "fledge", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(**changes), timeout=300)
    if check:
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done

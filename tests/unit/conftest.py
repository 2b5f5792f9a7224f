"""Small runs, trained once for all tests that need one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fledge.commands.train import train
from tests.runs import load, recipe_dict, write_rows
from tests.tiny_models import tiny_folder

TrainedRun = Callable[..., Path]


def chat_rows(path: Path) -> Path:
    with path.open("w", encoding="utf-8") as file:
        for index in range(24):
            messages = [
                {"role": "user", "content": f"karen {index}"},
                {"role": "assistant", "content": f"lomi {index % 3}"},
                {"role": "user", "content": "tas"},
                {"role": "assistant", "content": "vudo"},
            ]
            file.write(json.dumps({"messages": messages}) + "\n")
    return path


def alpaca_rows(path: Path) -> Path:
    rows = [{"instruction": f"say {i}", "input": "tas" * (i % 2), "output": f"lomi {i % 3}"} for i in range(16)]
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory) -> TrainedRun:
    """Trains a tiny run: `trained_run("llama", train__max_steps=3)`; the same arguments give the same folder."""
    made: dict[str, Path] = {}

    def make(architecture: str, *, fmt: str = "completion", **changes: Any) -> Path:
        key = json.dumps([architecture, fmt, changes], default=str)
        if key not in made:
            folder = tmp_path_factory.mktemp(f"run-{architecture}")
            base = tiny_folder(architecture, folder / "base")
            writers = {"completion": write_rows, "chat": chat_rows, "alpaca": alpaca_rows}
            suffix = ".json" if fmt == "alpaca" else ".jsonl"
            rows = writers[fmt](folder / f"rows{suffix}")
            validation = {"path": str(rows), "format": fmt}
            recipe = recipe_dict(base, rows, folder / "run", **{"data__validation": validation} | changes)
            recipe["data"]["train"]["format"] = fmt
            train(load(folder, recipe))
            made[key] = folder / "run"
        return made[key]

    return make

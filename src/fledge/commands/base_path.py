"""`--base-path`: where a base lies now. It is light, for it is asked before anything heavy is loaded."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from fledge.errors import RunError
from fledge.models.folder import check_folder
from fledge.rundir import RunDir

OPTION = "--base-path"
KEY = "model.name_or_path"


def folder_of(base_path: Path | str) -> str:
    """The folder that is meant, absolute. Raises RunError where there is none."""
    folder = os.path.normpath(Path.cwd() / Path(base_path).expanduser())
    if not Path(folder).is_dir():
        what = "this is a file" if Path(folder).exists() else "there is no such folder"
        cure = f"give {OPTION} the folder with the base's config.json, weights and tokenizer"
        raise RunError(what, where=f"{OPTION} {folder}", cure=cure)
    return folder


def check_base_path(base_path: Path | str | None) -> None:
    """Raises RunError where a folder is named that is not there, ModelError where it holds no base."""
    if base_path is not None:
        check_folder(Path(folder_of(base_path)))


def with_base_path(overrides: Sequence[str], base_path: Path | str | None) -> list[str]:
    """The settings of a command line with the base where it lies now, so that nothing looks for it where it lay.

    Raises RunError where there is no folder, ModelError where it holds no base.
    """
    check_base_path(base_path)
    return [*overrides] if base_path is None else [*overrides, f"{KEY}={json.dumps(folder_of(base_path))}"]


def check_run_exists(run: RunDir, base_path: Path | str | None) -> None:
    """Raises RunError where a base is named for a run that has not begun."""
    if base_path is None or run.recipe.is_file():
        return
    what = f"there is no run in {run.root} whose base could have moved"
    cure = f"leave {OPTION} out, and write {KEY}: {folder_of(base_path)}"
    raise RunError(what, where=OPTION, cure=cure)

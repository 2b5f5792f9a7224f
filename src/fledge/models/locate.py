"""Where a base lies: a built-in name, a local folder, or a hub id."""

from pathlib import Path

from fledge.errors import ModelError
from fledge.models.folder import check_folder
from fledge.models.nestling import FOLDER
from fledge.network import go_offline_unless_reached

BUILTIN = {"builtin:nestling": FOLDER}


def locate(name_or_path: str) -> str:
    """What transformers should load for a recipe's model.name_or_path.

    Raises ModelError for an unknown built-in, a folder that is no base (with what it is instead), and a hub id that
    something in the working directory hides. Where a hub id's hub is out of reach, nothing is asked of it again.
    """
    if name_or_path in BUILTIN:
        return str(BUILTIN[name_or_path])
    if name_or_path.startswith("builtin:"):
        raise ModelError(f"no such built-in base: {name_or_path}", cure=f"there is {', '.join(BUILTIN)}")
    if Path(name_or_path).is_absolute():
        check_folder(Path(name_or_path))
    if not Path(name_or_path).is_absolute() and Path(name_or_path).exists():
        what = "a file or folder of this name lies in the working directory and would be taken for the base"
        raise ModelError(what, where=name_or_path, cure="give its absolute path, or start from another folder")
    if _is_hub_id(name_or_path):
        go_offline_unless_reached()
    return name_or_path


def out_of_reach(name_or_path: str) -> str | None:
    """That the hub is out of reach and why, where the base is a hub id; None for other bases and a hub in reach."""
    reason = go_offline_unless_reached() if _is_hub_id(name_or_path) else None
    return None if reason is None else f"the hub is out of reach: {reason}"


def _is_hub_id(name_or_path: str) -> bool:
    return name_or_path not in BUILTIN and not Path(name_or_path).is_absolute()

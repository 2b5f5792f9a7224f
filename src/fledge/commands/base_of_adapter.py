"""Which base a plain adapter goes onto: the one in --base-path, the recipe's or the one that it names, compared."""

from dataclasses import dataclass
from pathlib import Path

from fledge.commands.base_path import OPTION, folder_of
from fledge.commands.manifest import base_digest, is_same_base
from fledge.config.adapter_file import Described
from fledge.errors import RunError
from fledge.models.locate import BUILTIN


@dataclass(frozen=True, slots=True)
class BaseFound:
    """A base that a plain adapter is put on."""

    name: str
    """Where it is loaded from."""
    called: str
    """What it is called in what is written for others: a hub id that the adapter names stays its name."""
    said: str
    """Which base it is and what was compared, for a person."""


@dataclass(frozen=True, slots=True)
class _Named:
    """The base that an adapter names."""

    name: str | None
    local: str | None
    """Where it lies on this machine; None where it does not."""

    @property
    def is_id(self) -> bool:
        """Whether it can only be a hub id."""
        return self.name is not None and self.local is None and not self.name.startswith(("/", ".", "~", "builtin:"))

    @property
    def why(self) -> str:
        """Why it is not taken from the adapter, or what is known of it."""
        if self.name is None:
            return "the adapter names no base"
        gone = "" if self.is_id or self.local else ", which is not there"
        return f"the adapter names the base {self.name}{gone}"


def base_of(
    described: Described, *, asked: str | None, recipe: Path | None, base_path: Path | str | None = None
) -> BaseFound:
    """The base that an adapter goes onto. `asked` is the recipe's, where there is one.

    Raises RunError where what is given and what the adapter names are different bases, and where none is there.
    """
    named = _Named(described.base, None if described.base is None else _local(described.base))
    if base_path is not None:
        return _placed(named, folder_of(base_path), has_recipe=recipe is not None)
    if asked is None:
        return _own(described, named)
    return _of_recipe(described, named, asked, recipe)


def _placed(named: _Named, folder: str, *, has_recipe: bool) -> BaseFound:
    """The base in the folder that a person names. Raises RunError where the adapter's own has other weights, ModelError
    where the folder holds no base.
    """
    base_digest(folder)  # raises where it is no base, in words about it
    unused = "; model.name_or_path of the recipe is not used" if has_recipe else ""
    if named.local is None:
        said = f"{named.why}: the one in {folder} is used, and only shapes are compared{unused}"
        return BaseFound(folder, named.name if named.name is not None and named.is_id else folder, said)
    if not _is_one(named.local, folder):
        what = f"the adapter names the base {named.local}, and this one has other weights"
        cure = f"leave {OPTION} out, or give a folder with the same weights"
        raise RunError(what, where=f"{OPTION} {folder}", cure=cure)
    return BaseFound(folder, folder, f"the base is {folder}, with the weights of {named.local}{unused}")


def _own(described: Described, named: _Named) -> BaseFound:
    """The base that the adapter names. Raises RunError where it names none, or one that is gone."""
    if named.local is None and not named.is_id:
        what = f"its base, {named.name}, is not there" if named.name else "its settings do not name its base"
        cure = f"say where it lies: {OPTION} FOLDER; or give a recipe whose model.name_or_path it is: --recipe RECIPE"
        raise RunError(f"this adapter cannot be opened: {what}", where=str(described.folder), cure=cure)
    name = named.local or str(named.name)
    return BaseFound(name, name, f"the base is {name}, as the adapter names it")


def _of_recipe(described: Described, named: _Named, ours: str, recipe: Path | None) -> BaseFound:
    """The recipe's base, where it cannot be told to be another one than the adapter's. Raises RunError where it can."""
    if named.local is None and not named.is_id:
        return BaseFound(ours, ours, f"{named.why}: the recipe's is used, {ours}, and only shapes are compared")
    theirs = named.local or str(named.name)
    if _is_one(theirs, ours):
        return BaseFound(ours, ours, f"the base is {ours}")
    if named.is_id and ours.startswith(("/", "builtin:")):  # a copy of it, as far as can be told without the hub
        said = f"{named.why}: the recipe's is used, {ours}, and only shapes are compared"
        return BaseFound(ours, theirs, said)
    what = f"the adapter names the base {theirs}, and the recipe {ours}"
    cure = f"write model.name_or_path: {theirs} into {recipe}, or the base that the adapter was trained on into "
    raise RunError(what, where=str(recipe), cure=f"{cure}{described.folder / 'adapter_config.json'}")


def _local(name: str) -> str | None:
    """A base that lies on this machine, by its built-in name or an absolute path; None for anything else."""
    if name in BUILTIN:
        return name
    path = Path(name).expanduser()
    return str(path.resolve()) if (path / "config.json").is_file() else None


def _is_one(theirs: str, ours: str) -> bool:
    """Whether two names are of one base: the same place, or the same weights."""
    if theirs == ours:
        return True
    if not (theirs.startswith(("/", "builtin:")) and ours.startswith(("/", "builtin:"))):
        return False
    if "builtin:" not in theirs + ours and Path(theirs).resolve() == Path(ours).resolve():
        return True
    weights = base_digest(theirs)
    return bool(weights) and is_same_base(weights, base_digest(ours))

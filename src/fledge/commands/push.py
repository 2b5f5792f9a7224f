"""`fledge push`: a certified export of a run, with a card written from the run, on a model hub."""

import contextlib
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from fledge.commands.export import export
from fledge.commands.manifest import read_manifest, read_object
from fledge.commands.measured_rows import Split, rows_of_test, source_of
from fledge.commands.moved import as_called, option_for
from fledge.commands.open_run import OpenRun, open_run
from fledge.commands.opening import Opening, Which
from fledge.commands.results import DIGEST, RESULT, SOURCE, digest_of_training, named, read_result
from fledge.commands.writable import check_writable
from fledge.config.model import Dtype
from fledge.errors import FledgeError, ProofError, RunError
from fledge.exporting.card import Told, write_card
from fledge.exporting.hub import open_hub
from fledge.exporting.push import MAIN, Place, Sent, check_names, look, send
from fledge.exporting.sealed import Sealed, read_sealed
from fledge.models.locate import BUILTIN
from fledge.rundir import locked
from fledge.units import format_bytes

Form = Literal["adapter", "hf"]


@dataclass(frozen=True, slots=True)
class Parcel:
    """What is pushed. None leaves it open: the adapter alone, or merged in the recipe's number format."""

    to: Form | None = None
    """adapter, or hf for base and adapter merged."""
    dtype: Dtype | None = None
    """hf: number format of the weights."""
    folder: Path | None = None
    """An export that is there already; what is said besides must be true of it."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where it goes, and who may see it."""

    revision: str = MAIN
    """A branch; it is made where the repository has none of this name."""
    is_public: bool = False
    message: str | None = None
    """Of the commit."""


@dataclass(frozen=True, slots=True)
class Pushed:
    """What lies on the hub now, and where it came from."""

    run: Path
    export: Path
    sent: Sent
    card: str = field(repr=False)

    def as_json(self) -> dict[str, Any]:
        """The result as a JSON object, without the card's text."""
        return {"run": str(self.run), "export": str(self.export)} | asdict(self.sent)


def push(
    run: Path | str,
    repo: str,
    *,
    parcel: Parcel | None = None,
    address: Address | None = None,
    opening: Opening | None = None,
    tell: Callable[[str], None] = lambda line: None,
    shows_bars: bool = False,
) -> Pushed:
    """Send a certified export of `run`, with a model card, to the hub's repository `repo`: NAME or OWNER/NAME.

    The token is HF_TOKEN's or that of `hf auth login`. The repository is made where it is missing, private unless the
    address says otherwise. Without a folder the run is exported into its own exports/, unless a proven and untouched
    export lies there from a push before; files that the hub has already are not sent again; everything becomes visible
    in one commit. `tell` gets a line for each step. `opening` says how the run is opened, and with which adapter; None
    there is the last one, or with a folder the one that was exported.

    Raises ProofError where the export is not certified, not of this run or not what was certified; RunError where the
    run cannot be opened, the name cannot be one, the visibility is another than asked for, or the hub refuses.
    """
    parcel, address, opening = parcel or Parcel(), address or Address(), opening or Opening()
    _check_is_run(opening)
    check_names(repo, address.revision)
    if parcel.folder is None and parcel.dtype is not None and parcel.to != "hf":
        raise RunError("has no effect on an adapter", where="--dtype", cure="leave it out, or push with --to hf")
    sealed = _given(parcel, opening.which) if parcel.folder else None
    which = cast(Which, sealed.adapter["which"]) if sealed else opening.chosen
    code, base_path = opening.trust_remote_code, opening.base_path
    opened = open_run(run, which=which, trust_remote_code=code, base_path=base_path)
    for text in opened.notices:
        tell(f"note: {text}")
    if sealed:
        _check_of_run(sealed, opened)
    hub = open_hub(tell, shows_bars=shows_bars)
    place = look(hub, repo, revision=address.revision, is_public=address.is_public)
    sealed = sealed or _own(opened, parcel, which=which, tell=tell)
    card = write_card(_told(opened, sealed, place, tell=tell))
    size = sum((sealed.folder / name).stat().st_size for name in sealed.sha256)
    tell(f"sending {len(sealed.sha256)} files, {format_bytes(size)}, to {place.repo} ({place.visibility})")
    for line in _revealed(opened, sealed) if place.is_public else ():
        tell(line)
    name = opened.run.root.resolve().name
    sent = send(hub, place, sealed=sealed, card=card, message=address.message or f"Fledge: {name}, certified")
    return Pushed(opened.run.root, sealed.folder, sent, card)


def _check_is_run(opening: Opening) -> None:
    """Raise FledgeError for the recipe of a plain adapter: a push tells how an adapter was trained."""
    if opening.recipe is not None:
        what = "has no effect: a run is pushed, which has its own recipe"
        raise FledgeError(what, where="--recipe", cure="leave --recipe away")


def _given(parcel: Parcel, chosen: Which | None) -> Sealed:
    """The export that the caller names, every file compared. Raises RunError where it is another than is said."""
    folder = cast(Path, parcel.folder)
    sealed = read_sealed(folder)
    which = sealed.adapter.get("which")
    if which not in ("last", "best"):
        raise ProofError("the certificate names no adapter of a run", where=str(folder), cure="export the run again")
    there = {"--to": sealed.certificate["kind"], "--dtype": sealed.certificate.get("dtype"), "--which": which}
    asked = {"--to": parcel.to, "--dtype": parcel.dtype, "--which": chosen}
    for option, wanted in asked.items():
        if wanted is not None and wanted != there[option]:
            what = f"this export is {there[option]}, and {option} says {wanted}"
            raise RunError(what, where=str(folder), cure=f"leave out {option}, or name another export")
    return sealed


def _check_of_run(sealed: Sealed, opened: OpenRun) -> None:
    if sealed.adapter.get("sha256") != opened.adapter_sha256:
        what = f"this export is not of the run {opened.run.root}: its certificate names another adapter"
        raise ProofError(what, where=str(sealed.folder), cure="name the run that it was exported from")


def _revealed(opened: OpenRun, sealed: Sealed) -> Iterator[str]:
    """What a public push lets everybody know besides the model."""
    text, probe = sealed.certificate["checks"].get("text"), sealed.certificate.get("probe")
    quotes = text.get("answers") if isinstance(text, dict) else None
    if quotes and not (isinstance(probe, dict) and probe.get("from") == "set texts"):
        yield f"everybody will see: the certificate quotes {len(quotes)} prompts of the run's rows, with answers"
    name = opened.base_name
    if Path(name).is_absolute():
        yield f"everybody will see: the certificate and adapter_config.json name the base by its path, {name}"


def _own(opened: OpenRun, parcel: Parcel, *, which: Which, tell: Callable[[str], None]) -> Sealed:
    """The export in the run's own folder: the one of a push before, where it is still what it was, or a new one."""
    to = parcel.to or "adapter"
    dtype = (parcel.dtype or opened.recipe.model.dtype) if to == "hf" else None
    folder = opened.run.root.resolve() / "exports" / "-".join(filter(None, (to, dtype, which)))
    check_writable(folder, cure="export elsewhere with `fledge export`, and push that folder with --export")
    with _alone(folder.parent):
        return _made(opened, folder, to=to, dtype=dtype, which=which, tell=tell)


@contextlib.contextmanager
def _alone(exports: Path) -> Iterator[None]:
    """No other push exports this run meanwhile; what one that was killed left half written is removed."""
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(locked(exports))
        except RunError as error:
            cure = "wait for it, then run the same command again"
            raise RunError("another push exports this run just now", where=str(exports), cure=cure) from error
        for path in exports.glob(".*.tmp"):
            shutil.rmtree(path)
        yield


def _made(
    opened: OpenRun, folder: Path, *, to: Form, dtype: Dtype | None, which: Which, tell: Callable[[str], None]
) -> Sealed:
    """The proven export in `folder`, made there unless it is there."""
    if folder.is_dir() and not folder.is_symlink():
        found = _kept(folder, opened, {"kind": to} | ({"dtype": dtype} if dtype else {}))
        if found is not None:
            tell(f"the export of an earlier push is as it was certified: {folder}")
            return found
        what = "is not as it was certified, or calls the base otherwise"
        tell(f"the export of an earlier push {what}, and is made anew: {folder}")
        shutil.rmtree(folder)
    tell(f"exporting and certifying: {folder}")
    opening = Opening(which, trust_remote_code=_is_trusted(opened), base_path=opened.base_path)
    export(opened.run.root, folder, to=to, dtype=dtype, opening=opening, say=tell)
    sealed = read_sealed(folder)
    _check_of_run(sealed, opened)
    return sealed


def _is_trusted(opened: OpenRun) -> bool:
    """Whether the person who pushes allowed the base's code; a run that needs it is not opened without."""
    return opened.recipe.model.trust_remote_code


def _kept(folder: Path, opened: OpenRun, wanted: Mapping[str, str]) -> Sealed | None:
    """An export of this run's adapter that is untouched since it was certified, and calls its base as the run does now;
    None for anything else.
    """
    try:
        sealed = read_sealed(folder)
    except ProofError:
        return None
    is_wanted = all(sealed.certificate.get(key) == value for key, value in wanted.items())
    base = sealed.certificate.get("base")
    is_wanted &= not isinstance(base, dict) or base.get("name", opened.base_name) == opened.base_name
    return sealed if is_wanted and sealed.adapter.get("sha256") == opened.adapter_sha256 else None


def _told(opened: OpenRun, sealed: Sealed, place: Place, *, tell: Callable[[str], None]) -> Told:
    """What the card is written from. An evaluation counts where it is of the adapter that is pushed, and of rows that
    the run's recipe means now.
    """
    run, which = opened.run, cast(Which, sealed.adapter.get("which"))
    name = opened.recipe.model.name_or_path
    base = Path(BUILTIN.get(name, name))
    return Told(
        repo=place.repo,
        revision=place.revision,
        recipe=as_called(opened.recipe, opened.base_name),
        sealed=sealed,
        base=base if base.is_absolute() else None,
        ledger=_read(run.ledger),
        summary=_read(run.summary),
        manifest=read_manifest(run.manifest),
        evaluations=list(_evaluations(opened, which, tell)),
    )


def _evaluations(opened: OpenRun, which: Which, tell: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """The results that the card may quote; of each other one it is told why it may not."""
    splits: tuple[Split, ...] = ("validation", "test")
    for on in splits:
        name = on if which == "last" else f"{on}-{which}"
        folder = opened.run.evaluation if name == "validation" else opened.run.evaluation / name
        if not (folder / RESULT).exists():
            continue
        found = read_result(folder)
        why_not = "cannot be read" if found is None else _other_rows(found, opened, on)
        if why_not:
            tell(f"note: {folder / RESULT} {why_not}, and is left out of the card; {_again(opened, on, which)}")
        elif found is not None:
            yield found


def _again(opened: OpenRun, on: Split, which: Which) -> str:
    """What gives the card a result of the rows that the recipe means."""
    if on == "test" and opened.recipe.data.test is None:
        return "the recipe names no data.test any more"
    options = " --on test" * (on == "test") + " --which best" * (which == "best")
    options += option_for(opened.recipe, opened.run) + " --trust-remote-code" * _is_trusted(opened)
    return f"`fledge evaluate {shlex.quote(str(opened.run.root))}{options}` measures again"


def _other_rows(found: Mapping[str, Any], opened: OpenRun, on: Split) -> str:
    """Why a result is not of the rows that the run's recipe means; empty where it is, and where nothing can tell."""
    if DIGEST not in found:  # of an older version: the card names no data set
        return ""
    now = _digest_now(opened, on)
    if now is not None:
        return "" if found[DIGEST] == now else f"is of other rows than data.{on} has now"
    # the rows are gone; the result says itself which ones they were
    is_same = found.get(SOURCE) == named(source_of(opened.recipe, on))
    return "" if is_same else f"is of another data set than data.{on} names now"


def _digest_now(opened: OpenRun, on: Split) -> str | None:
    """The digest of the rows that the run's recipe means; None where it cannot be had."""
    if on == "test":
        try:
            return rows_of_test(opened).digest
        except FledgeError:
            return None
    trained = opened.trained_hash("data")
    return None if trained is None else digest_of_training(str(trained), on)


def _read(path: Path) -> dict[str, Any]:
    """A JSON object that the run wrote; nothing where it wrote none."""
    return read_object(path, cure="put back the file that the run wrote")

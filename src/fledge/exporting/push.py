"""Sends a certified export to a model hub, in one commit that shows all of it or nothing.

Why create_commit: large files go first, to a store that knows them by their sha256, where nobody sees them; then one
commit names them all. So a push that was cut off leaves the repository as it was, and the next one sends only what the
store lacks. upload_large_folder resumes as well, but shows the files commit by commit and writes into the folder.
"""

import hashlib
import json
import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id

from fledge.errors import ProofError, RunError
from fledge.exporting.hub import AGAIN, Hub
from fledge.exporting.sealed import CERTIFICATE, Sealed

CARD = "README.md"
MAIN = "main"
_REVISION = re.compile(r"[A-Za-z0-9_][\w.-]*(/[A-Za-z0-9_][\w.-]*)*", re.ASCII)
_WEIGHTS = (".safetensors", ".gguf", ".bin", ".pt", ".pth", ".index.json")
_LOADED = ("adapter_config.json", "config.json")
"""With the endings above: what libraries load of a repository, so that an older one of them would mix with a newer."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a push goes, as it was found before anything was sent."""

    repo: str
    """OWNER/NAME"""
    revision: str
    is_public: bool
    is_there: bool
    has_revision: bool
    head: str | None = None
    """The commit that the revision stands for; None where there is none yet."""
    names: tuple[str, ...] = ()
    """Files of that commit."""

    @property
    def visibility(self) -> str:
        """public or private."""
        return "public" if self.is_public else "private"


@dataclass(frozen=True, slots=True)
class Sent:
    """What lies on the hub now."""

    repo: str
    revision: str
    url: str
    commit: str
    is_public: bool
    is_changed: bool
    """Whether there was anything to commit."""
    files: tuple[str, ...]
    removed: tuple[str, ...]


def check_names(repo: str, revision: str) -> None:
    """Raises RunError where `repo` is not NAME or OWNER/NAME, or `revision` cannot be a branch."""
    cure = "REPO is NAME or OWNER/NAME, in letters, digits and single - _ ."
    try:
        validate_repo_id(repo)
    except HFValidationError:
        raise RunError("this cannot be the name of a repository", where=repr(repo)[:120], cure=cure) from None
    is_branch = _REVISION.fullmatch(revision) and ".." not in revision and not revision.endswith((".lock", "."))
    if not is_branch or revision.startswith("refs/"):
        cure = "give the name of a branch, such as main"
        raise RunError("this cannot be the name of a branch", where=repr(revision)[:120], cure=cure)


def look(hub: Hub, repo: str, *, revision: str, is_public: bool) -> Place:
    """What there is under the name `repo`, with the token's owner where it names none; nothing is made yet.

    Raises RunError where the repository is public and `is_public` is False, or the other way round: a push changes
    nobody's visibility.
    """
    full = repo if "/" in repo else f"{hub.user}/{repo}"
    check_names(full, revision)
    info = _info(hub, full, None)
    if info is None:
        return Place(full, revision, is_public, is_there=False, has_revision=revision == MAIN)
    _check_visibility(full, is_private=bool(info.private), is_public=is_public)
    if revision != MAIN:
        info = _info(hub, full, revision)
    if info is None:
        return Place(full, revision, is_public, is_there=True, has_revision=False)
    return Place(full, revision, is_public, is_there=True, has_revision=True, head=info.sha, names=_names(info))


def _check_visibility(repo: str, *, is_private: bool, is_public: bool) -> None:
    if is_public and is_private:
        cure = "make it public in its settings on the hub, or leave out --public"
        raise RunError("this repository is private, and a push does not change that", where=repo, cure=cure)
    if not is_public and not is_private:
        cure = "push with --public where the whole world may have it, or to another repository"
        raise RunError("this repository is public: everybody would see what is pushed", where=repo, cure=cure)


def _info(hub: Hub, repo: str, revision: str | None) -> Any:
    """What the hub says of a repository or a revision of it; None where there is none that this token may see."""
    with hub.in_words(repo):
        try:
            return hub.api.model_info(repo, revision=revision)
        except HfHubHTTPError as error:
            # the hub answers 401 for what is not there too; that the token is good was asked before
            if error.response.status_code not in (401, 404):
                raise
    return None


def _names(info: Any) -> tuple[str, ...]:
    return tuple(sorted(sibling.rfilename for sibling in info.siblings or ()))


def send(hub: Hub, place: Place, *, sealed: Sealed, card: str, message: str) -> Sent:
    """Make the repository where it is missing, send what the hub lacks, and commit it all at once.

    What was read for sending is compared with the certificate before the commit, and what the hub says it holds after
    it. Raises ProofError where either differs, RunError for everything the hub refuses.
    """
    content = _content(sealed, card)
    place = _made(hub, place)
    stale = _stale(hub, place, kept=content)
    additions = [CommitOperationAdd(name, what) for name, what in content.items()]
    with hub.in_words(place.repo):
        hub.api.preupload_lfs_files(place.repo, additions, revision=place.revision, free_memory=False)
        digests = {addition.path_in_repo: addition.upload_info.sha256.hex() for addition in additions}
    _check_same(sealed.sha256, digests, what="changed while it was sent", where=str(sealed.folder))
    with hub.in_words(place.repo):
        done = hub.api.create_commit(
            place.repo,
            [*additions, *(CommitOperationDelete(name, is_folder=False) for name in stale)],
            commit_message=message,
            revision=place.revision,
            parent_commit=place.head,
        )
    _check_arrived(hub, place, commit=done.oid, content=content, digests=digests)
    url = f"{hub.endpoint}/{place.repo}" + ("" if place.revision == MAIN else f"/tree/{place.revision}")
    is_changed = done.oid != place.head
    return Sent(place.repo, place.revision, url, done.oid, place.is_public, is_changed, tuple(content), tuple(stale))


def _content(sealed: Sealed, card: str) -> dict[str, Path | bytes]:
    """What is sent, by its name on the hub: the certified files, the certificate, and the card.

    The card takes the place of a README.md that an export may hold, for the hub reads only that one. The certificate's
    page stays at home: no sha256 vouches for it, and the card has its table.
    """
    names = [name for name in sealed.sha256 if name != CARD] + [CERTIFICATE]
    return {CARD: card.encode(), **{name: sealed.folder / name for name in sorted(names)}}


def _made(hub: Hub, place: Place) -> Place:
    """The place with its repository and its branch there. What is there already is left as it is."""
    if place.is_there and place.has_revision:
        return place
    with hub.in_words(place.repo):
        if not place.is_there:
            hub.tell(f"making the {place.visibility} repository {place.repo}")
            hub.api.create_repo(place.repo, private=not place.is_public)
        if not place.has_revision:
            hub.api.create_branch(place.repo, branch=place.revision)
    made = look(hub, place.repo, revision=place.revision, is_public=place.is_public)
    if not (made.is_there and made.has_revision):
        raise RunError("the hub made this repository, but does not show it", where=place.repo, cure=AGAIN)
    return made


def _stale(hub: Hub, place: Place, *, kept: Iterable[str]) -> list[str]:
    """Files of an earlier push that this one does not have: a library would load them together with the new ones.

    Raises RunError where there are weights that no push of Fledge left there.
    """
    left = set(place.names) - set(kept)
    ours = set(_certified_there(hub, place)) if CERTIFICATE in place.names else set()
    foreign = sorted(name for name in left - ours if name.endswith(_WEIGHTS) or name in _LOADED)
    if foreign:
        what = f"there are files here that would be loaded together with what is pushed: {', '.join(foreign)}"
        cure = "push to another repository or --revision, or remove them on the hub"
        raise RunError(hub.clean(what), where=place.repo, cure=cure)
    stale = sorted(left & ours)
    if stale:
        hub.tell(hub.clean(f"of the earlier push these go, and stay in its history: {', '.join(stale)}"))
    return stale


def _certified_there(hub: Hub, place: Place) -> Iterable[str]:
    """The names in the certificate that lies in the repository; none where it is not one of Fledge's."""
    with tempfile.TemporaryDirectory() as cache, hub.in_words(place.repo):
        path = hub.api.hf_hub_download(place.repo, CERTIFICATE, revision=place.head, cache_dir=cache)
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    try:
        listed = json.loads(text)["sha256"]
    except (ValueError, KeyError, TypeError):
        return ()
    return tuple(listed) if isinstance(listed, dict) else ()


def _check_arrived(
    hub: Hub, place: Place, *, commit: str, content: Mapping[str, Path | bytes], digests: Mapping[str, str]
) -> None:
    """Raises ProofError where the hub's list of files is not what was sent."""
    with hub.in_words(place.repo):
        info = hub.api.model_info(place.repo, revision=commit, files_metadata=True)
    there = {sibling.rfilename: sibling for sibling in info.siblings or ()}
    found = {}
    for name, sibling in there.items():
        if name in content:
            is_small = sibling.lfs is None
            is_same = is_small and sibling.blob_id == _git_sha1(content[name])
            found[name] = (digests[name] if is_same else "") if is_small else sibling.lfs.sha256
    _check_same(digests, {name: found.get(name, "") for name in digests}, what="not on the hub", where=place.repo)


def _check_same(expected: Mapping[str, str], found: Mapping[str, str], *, what: str, where: str) -> None:
    """Raises ProofError with the names of the files whose sha256 is another one."""
    differing = sorted(name for name, digest in expected.items() if name in found and found[name] != digest)
    if differing:
        raise ProofError(f"{', '.join(differing)}: {what} as it was certified", where=where, cure=AGAIN)


def _git_sha1(content: Path | bytes) -> str:
    """The name that git gives to a file: sha1 of `blob SIZE`, a zero byte, and the bytes."""
    size = len(content) if isinstance(content, bytes) else content.stat().st_size
    digest = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    digest.update(content if isinstance(content, bytes) else content.read_bytes())
    return digest.hexdigest()

"""Compares an export folder with the certificate that lies in it: every file, by its sha256, and no file more."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from fledge.errors import ProofError

CERTIFICATE = "certificate.json"
CERTIFICATE_PAGE = "certificate.html"
VERSION = 1
KINDS = ("adapter", "hf", "gguf")
_PARTS = ("adapter", "checks", "sha256", "versions")
_UNLISTED = (CERTIFICATE, CERTIFICATE_PAGE)
_CURE = "export the run again with `fledge export`, and leave the folder as it is"


@dataclass(frozen=True, slots=True)
class Sealed:
    """An export folder whose files are those that its certificate names, and whose certificate passed."""

    folder: Path
    certificate: Mapping[str, Any]

    @property
    def sha256(self) -> Mapping[str, str]:
        """Of each certified file, by its name in the folder."""
        return cast(Mapping[str, str], self.certificate["sha256"])

    @property
    def adapter(self) -> Mapping[str, Any]:
        """Which adapter was exported, `which` and `sha256`, as the certificate has it."""
        return cast(Mapping[str, Any], self.certificate["adapter"])


def read_sealed(folder: Path) -> Sealed:
    """The export in `folder`, every file read and compared.

    Raises ProofError where there is no certificate, where it did not pass, and where a file was changed, is missing or
    came in since, with the names of all of them.
    """
    certificate = _certificate(folder)
    listed = certificate["sha256"]
    if not listed or not all(isinstance(value, str) for value in listed.values()):
        raise ProofError("the certificate names no files", where=str(folder / CERTIFICATE), cure=_CURE)
    found = _files(folder)
    changed = [name for name, digest in listed.items() if name in found and file_sha256(found[name]) != digest]
    missing = [name for name in listed if name not in found]
    extra = [name for name in found if name not in listed and name not in _UNLISTED]
    told = {"changed": changed, "missing": missing, "not in the certificate": extra}
    differences = [f"{', '.join(sorted(names))} {what}" for what, names in told.items() if names]
    if differences:
        what = f"this folder is not what was certified: {'; '.join(differences)}"
        raise ProofError(what, where=str(folder), cure=_CURE)
    return Sealed(folder, certificate)


def _certificate(folder: Path) -> dict[str, Any]:
    """The certificate, where it says that everything was proven."""
    path = folder / CERTIFICATE
    if not path.is_file():
        raise ProofError("there is no certificate here", where=str(folder), cure=_CURE)
    try:
        certificate = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ProofError(f"the certificate cannot be read: {error}", where=str(path), cure=_CURE) from error
    if not isinstance(certificate, dict) or certificate.get("passed") is not True:
        raise ProofError("the certificate does not say that the export passed", where=str(path), cure=_CURE)
    version, kind = certificate.get("version"), certificate.get("kind")
    is_whole = all(isinstance(certificate.get(name), dict) for name in _PARTS)
    if version != VERSION or kind not in KINDS or not is_whole:
        what = f"the certificate is of a form that this Fledge does not know: version {version}, kind {kind}"
        raise ProofError(what, where=str(path), cure="use the Fledge that wrote it, or export the run again")
    return certificate


def _files(folder: Path) -> dict[str, Path]:
    """Everything in the folder that is not itself a folder, by its name; links too, for they may lead out of it."""
    found = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return {path.relative_to(folder).as_posix(): path for path in found}


def file_sha256(path: Path) -> str:
    """sha256 of a file as 64 hex digits; of what is no plain file, or a link, the empty text."""
    if path.is_symlink() or not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

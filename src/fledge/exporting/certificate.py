"""The certificate: what was compared, how far apart it was, how far it may be, and which files it is about."""

from pathlib import Path
from typing import Any

from fledge.exporting.behaviour import Probe
from fledge.exporting.page import page_of
from fledge.exporting.sealed import CERTIFICATE, CERTIFICATE_PAGE, VERSION, file_sha256
from fledge.exporting.trained import Source
from fledge.rundir import RunDir, write_json, write_text


def certify(
    source: Source, folder: Path, *, kind: str, dtype: str, probe: Probe, checks: dict[str, Any], told: dict[str, Any]
) -> dict[str, Any]:
    """Write certificate.json and the page for people into a folder that was proven, and return the certificate.

    `told` is what else the certificate says, by its own keys.
    """
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    certificate = {
        "version": VERSION,
        "passed": True,
        "kind": kind,
        "dtype": dtype,
        **source.about,
        "probe": {"rows": len(probe.rows), "prompts": len(probe.prompts), "from": probe.origin},
        "limits": {name: figures["tolerance"] for name, figures in checks.items() if "tolerance" in figures},
        "checks": checks,
        **told,
        "sha256": {path.relative_to(folder).as_posix(): file_sha256(path) for path in files},
    }
    write_json(folder / CERTIFICATE, certificate)
    write_text(folder / CERTIFICATE_PAGE, page_of(certificate))
    return certificate


def file_copies(certificate: dict[str, Any], run: RunDir) -> bool:
    """Whether the run folder could take a copy of both; the export is whole and proven without them."""
    try:
        write_json(run.certificate, certificate)
        write_text(run.certificate_page, page_of(certificate))
    except OSError:
        return False
    return True

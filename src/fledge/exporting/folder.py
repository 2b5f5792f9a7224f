"""Writes export folders: only one that was proven in a fresh process gets its name."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fledge.errors import RunError
from fledge.exporting.behaviour import Probe
from fledge.exporting.certificate import certify
from fledge.exporting.outside import ask_outside
from fledge.exporting.readers import prove_all_in
from fledge.exporting.targets.draft import Order
from fledge.exporting.targets.table import TARGETS
from fledge.exporting.trained import Source
from fledge.rundir import check_free, whole_folder


def export_to(
    to: str, source: Source, *, out: Path, probe: Probe, order: Order, pythons: Sequence[str] = ()
) -> dict[str, Any]:
    """Write an export, prove it in a fresh process and in these `pythons` of other environments, certify it, and name
    it `out`. Returns the certificate.

    Raises ProofError with nothing left where it is not what was trained, RunError where `out` is taken or cannot be
    written.
    """
    with _fresh(out) as folder:
        draft = TARGETS[to].write(source, folder, probe=probe, order=order)
        source.say("probing: a fresh process without Fledge loads what was written, and the two are compared")
        checks = draft.prove(folder, ask_outside(draft.cases))
        readers = {"readers": prove_all_in(draft, folder, pythons=pythons, say=source.say)} if pythons else {}
        remarks = [*source.remarks, *(draft.remarks or ())]
        told = {} if draft.remarks is None and not remarks else {"remarks": remarks}
        source.say("certifying: each file is hashed")
        return certify(source, folder, kind=to, dtype=order.dtype, probe=probe, checks=checks, told=told | readers)


@contextlib.contextmanager
def _fresh(out: Path) -> Iterator[Path]:
    """A folder to write into, which becomes `out` where all goes well; what the file system refuses, in words.

    `out` was free at the start; in the minutes since then something may have come to lie there.
    """
    check_free(out)
    try:
        with whole_folder(out) as folder:
            yield folder
            check_free(out)
    except OSError as error:
        reason = error.strerror or str(error)
        raise RunError(f"the export cannot be written: {reason}", where=str(out), cure="give another folder") from error

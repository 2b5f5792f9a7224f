"""Proves an export in the Python of other environments, with the versions that people there have."""

import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fledge.errors import ProofError, RunError
from fledge.exporting.outside import ask_outside
from fledge.exporting.targets.draft import Draft

_NEEDED = {"adapter": "transformers, peft", "hf": "transformers"}
_SECONDS = 300


def check_pythons(pythons: Sequence[str], *, kind: str) -> tuple[str, ...]:
    """The full path of each Python. Raises RunError where one cannot be started, or lacks what reads this kind, and for
    a GGUF file, which is not made for transformers: some are read by a script of ours alone.
    """
    if pythons and kind not in _NEEDED:
        cure = "leave --prove-in away, or prove the same model with --to hf"
        raise RunError("a GGUF file is proven here alone", where="--prove-in", cure=cure)
    return tuple(_checked(python, kind=kind) for python in pythons)


def _checked(python: str, *, kind: str) -> str:
    found = shutil.which(python)
    if found is None:
        cure = "give the path of an environment's Python, such as .venv/bin/python"
        raise RunError("there is no Python here that can be started", where=python, cure=cure)
    needed = f"torch, safetensors, {_NEEDED[kind]}"
    try:
        done = subprocess.run(
            [found, "-c", f"import {needed}"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RunError(f"this Python cannot be started: {error}", where=python, cure="give another one") from error
    if done.returncode:
        words = (done.stderr.strip().splitlines() or ["no message"])[-1]
        cure = f"install {needed} for it, or give another one"
        raise RunError(f"this Python cannot read such an export: {words}", where=python, cure=cure)
    return str(Path(found).absolute())


def prove_all_in(
    draft: Draft, folder: Path, *, pythons: Sequence[str], say: Callable[[str], None] = lambda line: None
) -> list[dict[str, Any]]:
    """For the certificate, what each of these Pythons has read, by the versions that it has.

    Raises ProofError where one of them computes, reads or stops otherwise than what was trained.
    """
    return [_proven(draft, folder, python=python, say=say) for python in pythons]


def _proven(draft: Draft, folder: Path, *, python: str, say: Callable[[str], None]) -> dict[str, Any]:
    say(f"proving in {python}")
    answers = ask_outside([replace(case, wants_tensors=False) for case in draft.cases], python=python)
    versions = dict(answers[0].versions)
    try:
        checks = draft.agree(folder, answers)
    except ProofError as error:
        first = error.problems[0]
        named = f"transformers {versions['transformers']}"
        cure = f"this export is not for {named}; {first.cure}"
        raise ProofError(f"read by {named}, {first.what}", where=python, cure=cure) from error
    text = {name: checks["text"][name] for name in ("prompts", "same", "ties")}
    return {"versions": versions, "logits": checks["logits"], "text": text}

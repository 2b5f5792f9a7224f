"""The C++ kernels as a library: compiled for this very CPU when they are first needed, and kept by content.

What is kept is named after the sources, the compiler and every feature of the CPU that it compiles for, so different
machines may share a home folder. Threads are those that torch computes with: the library brings no OpenMP of its
own but finds torch's, which is loaded already, so two pools never wait for each other.
"""

import ctypes
import hashlib
import os
import shlex
import shutil
import subprocess
from functools import cache
from pathlib import Path

import torch

from fledge.cache import cache_root, fetch
from fledge.errors import KernelError

COMPILERS = ("g++", "c++")
"""Tried in this order where the environment variable CXX names none."""
SOURCES = ("vectors.h", "attention.cpp", "rows.cpp")
_NAME = "kernels.so"
_FOLDER = Path(__file__).parent
_FLAGS = ("-std=c++17", "-O3", "-march=native", "-fopenmp", "-fPIC", "-ffp-contract=fast", "-fno-math-errno")
_QUIET = ("-Wno-psabi", "-Wno-unknown-pragmas", "-Wno-unknown-warning-option")
_PATIENCE = 300
_LOADED = Path("/proc/self/maps")


@cache
def library() -> ctypes.CDLL:
    """The kernels. Raises KernelError where they cannot be compiled or loaded, RunError where nothing can be kept."""
    entry, _ = fetch(cache_root("kernels"), _key(compiler()), build=_compile)
    try:
        for name in _openmp_of_torch():
            ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)  # some builds of torch keep it to themselves
        return ctypes.CDLL(str(entry / _NAME))
    except OSError as error:  # torch may have been built without OpenMP, or with another one
        raise KernelError(f"what was compiled cannot be loaded: {error}") from error


def _openmp_of_torch() -> list[str]:
    """The file of the OpenMP library that torch has loaded; none where the system does not tell, or there is none."""
    if not _LOADED.is_file():
        return []
    files = {
        line.split(maxsplit=5)[5].strip()
        for line in _LOADED.read_text(encoding="utf-8", errors="replace").splitlines()
        if "omp" in line
    }
    found = sorted(file for file in files if Path(file).name.startswith(("libgomp", "libiomp", "libomp")))
    return [file for file in found if Path(torch.__file__).parent.parent in Path(file).parents][:1] or found[:1]


def identity() -> str:
    """Of the kernels: the same for the same sources, compiler and CPU. Raises KernelError as `compiler` does."""
    return _key(compiler())[:8]


def is_missing() -> bool:
    """Whether `library` would compile."""
    try:
        return not (cache_root("kernels") / _key(compiler())).exists()
    except KernelError:
        return False


def why_uncompilable() -> str | None:
    """Why `library` has nothing to compile with; None where a compiler is there. Compiles nothing."""
    try:
        compiler()
    except KernelError as error:
        return error.problems[0].what
    return None


def compiler() -> tuple[str, ...]:
    """The C++ compiler's command. Raises KernelError where there is none."""
    chosen = os.environ.get("CXX")
    command = shlex.split(chosen) if chosen else [name for name in COMPILERS if shutil.which(name)][:1]
    if not command or shutil.which(command[0]) is None:
        raise KernelError(f"there is no {chosen or 'C++ compiler'}", cure="install g++")
    return tuple(command)


@cache
def _key(command: tuple[str, ...]) -> str:
    """What the compiled kernels depend on."""
    known = _run([*command, *_FLAGS, "-dM", "-E", "-x", "c++", os.devnull])
    sources = "".join((_FOLDER / name).read_text(encoding="utf-8") for name in SOURCES)
    return hashlib.sha256("\n".join([known, *_FLAGS, sources]).encode()).hexdigest()[:24]


def _compile(folder: Path) -> None:
    """Two calls, for one that compiled and linked would bring the compiler's own OpenMP."""
    command, objects = compiler(), []
    for source in (_FOLDER / name for name in SOURCES if name.endswith(".cpp")):
        objects.append(folder / f"{source.stem}.o")
        _run([*command, *_FLAGS, *_QUIET, "-c", str(source), "-o", str(objects[-1])])
    _run([*command, "-shared", *map(str, objects), "-o", str(folder / _NAME)])
    for leftover in objects:
        leftover.unlink()


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_PATIENCE,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KernelError(f"{command[0]} did not run: {error}") from error
    if done.returncode != 0:
        told = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip())
        raise KernelError(f"{command[0]} cannot compile the kernels: {told[:200]}")
    return done.stdout

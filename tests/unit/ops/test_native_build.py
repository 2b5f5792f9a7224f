"""The C++ kernels: compiled once and kept, and what is said where they cannot be."""

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fledge.errors import KernelError
from fledge.ops import choice
from fledge.ops.native import attention, build

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler is there")
SCRIPT = "import torch; from fledge.ops import choice; print(choice.why_not(torch.device('cpu')))"


def why_not(**settings):
    environment = {name: value for name, value in os.environ.items() if name not in ("TRITON_INTERPRET", "CXX")}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment | settings, capture_output=True, text=True)
    return done.stdout.strip() or done.stderr


@needs_compiler
def test_they_are_compiled_once_and_kept(tmp_path):
    cache = {"XDG_CACHE_HOME": str(tmp_path)}
    assert why_not(**cache) == "None"
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("kernels.so")}
    assert len(kept) == 1
    assert why_not(**cache) == "None"
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("kernels.so")} == kept


@needs_compiler
def test_a_kept_library_that_was_damaged_is_compiled_anew(tmp_path):
    cache = {"XDG_CACHE_HOME": str(tmp_path)}
    why_not(**cache)
    (kept,) = tmp_path.rglob("kernels.so")
    whole = kept.stat().st_size
    kept.write_bytes(b"not a library")
    assert why_not(**cache) == "None"
    assert kept.stat().st_size == whole


def test_without_a_compiler_the_reason_is_told(tmp_path):
    assert why_not(CXX="no-such-compiler", XDG_CACHE_HOME=str(tmp_path)) == "there is no no-such-compiler"
    assert why_not(PATH="", XDG_CACHE_HOME=str(tmp_path)) == "there is no C++ compiler"


def test_a_compiler_that_fails_is_quoted(tmp_path):
    fails = tmp_path / "cxx"
    fails.write_text("#!/bin/sh\ncase $* in *-dM*) exit 0;; esac\necho 'x.cpp:1: error: too old' >&2\nexit 1\n")
    fails.chmod(0o755)
    told = why_not(CXX=str(fails), XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert "cannot compile the kernels" in told
    assert "too old" in told
    assert not list((tmp_path / "cache").rglob("kernels.so"))


@needs_compiler
def test_a_library_that_is_none_is_told(tmp_path):
    writes = tmp_path / "cxx"
    writes.write_text('#!/bin/sh\nwhile [ $# -gt 0 ]; do [ "$1" = -o ] && echo nothing > "$2"; shift; done\nexit 0\n')
    writes.chmod(0o755)
    told = why_not(CXX=str(writes), XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert told.startswith("what was compiled cannot be loaded")


def test_a_cache_that_cannot_be_written_leaves_torchs_own_operations(tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be written" in why_not(XDG_CACHE_HOME=str(tmp_path / "file"))


def test_the_compiler_may_be_named_with_arguments(monkeypatch):
    monkeypatch.setenv("CXX", f"{sys.executable} -O")
    assert build.compiler() == (sys.executable, "-O")
    monkeypatch.setenv("CXX", "nothing-here")
    with pytest.raises(KernelError):
        build.compiler()


@needs_compiler
@pytest.mark.skipif(not choice.runs_on(torch.device("cpu")), reason="the kernels do not run here")
def test_the_structure_that_is_handed_over_is_the_one_that_is_read():
    assert ctypes.sizeof(attention._Call) == build.library().attention_size()


@pytest.mark.skipif(not build._LOADED.is_file(), reason="the system does not tell what is loaded")
def test_the_openmp_that_torch_has_loaded_is_found(tmp_path, monkeypatch):
    for name in build._openmp_of_torch():
        ctypes.CDLL(name).omp_get_max_threads()
    own = f"{Path(torch.__file__).parent.parent}/torch.libs/libgomp-1234.so.1.0.0"
    lines = [
        "55d0-55d1 r-xp 00000000 08:01 12 /usr/bin/python3.11",
        "7f00-7f01 rw-p 00000000 00:00 0 [anon:compiled]",
        "7f02-7f03 r-xp 00000000 08:01 13 /usr/lib/some where/libgomp.so.1",
        "7f04-7f05 r-xp 00000000 08:01 14 /usr/lib/libcomplex.so",
        "7f06-7f07 rw-p 00000000 00:00 0",
    ]
    file = tmp_path / "maps"
    monkeypatch.setattr(build, "_LOADED", file)
    assert build._openmp_of_torch() == []
    file.write_text("\n".join(lines))
    assert build._openmp_of_torch() == ["/usr/lib/some where/libgomp.so.1"]
    file.write_text("\n".join([*lines, f"7f08-7f09 r-xp 00000000 08:01 15 {own}"]))
    assert build._openmp_of_torch() == [own]

"""The cache: an entry is whole or absent, built once, and never used when it is not what it was."""

import os
import subprocess
import sys

import pytest

from fledge.data import cache
from fledge.errors import DataError


def builder(calls, body="x"):
    def build(folder):
        calls.append(folder)
        (folder / "data.bin").write_text(body)

    return build


def test_an_entry_is_built_once_and_then_found(own_cache):
    calls = []
    first, was_there = cache.fetch("k", builder(calls))
    again, is_there = cache.fetch("k", builder(calls))
    assert (was_there, is_there, len(calls)) == (False, True, 1)
    assert first == again == own_cache / "k"
    assert (first / "data.bin").read_text() == "x"


@pytest.mark.parametrize("damage", ["cut", "flip", "remove", "sums", "extra"])
def test_a_damaged_entry_is_built_anew(own_cache, damage):
    calls = []
    entry, _ = cache.fetch("k", builder(calls, "content"))
    if damage == "cut":
        (entry / "data.bin").write_text("cont")
    elif damage == "flip":
        (entry / "data.bin").write_text("Content")
    elif damage == "remove":
        (entry / "data.bin").unlink()
    elif damage == "sums":
        (entry / "sums.json").write_text("{")
    else:
        (entry / "more.bin").write_text("y")
    _, was_there = cache.fetch("k", builder(calls, "content"))
    assert (was_there, len(calls)) == (False, 2)
    assert (entry / "data.bin").read_text() == "content"
    assert sorted(path.name for path in own_cache.iterdir()) == ["k", "k.lock"]


def test_a_build_that_fails_leaves_nothing(own_cache):
    def fail(folder):
        (folder / "data.bin").write_text("half")
        raise DataError("no")

    with pytest.raises(DataError, match="no"):
        cache.fetch("k", fail)
    assert [path.name for path in own_cache.iterdir()] == ["k.lock"]


def test_what_a_killed_process_left_is_removed(own_cache):
    left = own_cache / ".k.12345"
    left.mkdir(parents=True)
    (left / "data.bin").write_text("half")
    cache.fetch("k", builder([]))
    assert not left.exists()


SLOW = """
import time
from fledge.data import cache

def build(folder):
    print("built", flush=True)
    time.sleep(0.3)
    (folder / "data.bin").write_text("x")

cache.fetch("k", build)
print("done")
"""


def test_two_processes_build_an_entry_once():
    workers = [subprocess.Popen([sys.executable, "-c", SLOW], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = "".join(worker.communicate(timeout=120)[0] for worker in workers)
    assert sorted(said.split()) == ["built", "done", "done"]


def test_a_cache_that_cannot_be_written_is_told_with_the_cure(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(DataError, match="the cache cannot be written") as caught:
        cache.fetch("k", builder([]))
    assert "XDG_CACHE_HOME" in str(caught.value)


def test_a_full_disk_is_told_as_such():
    def build(folder):
        raise OSError(28, os.strerror(28))

    with pytest.raises(DataError, match="No space left on device"):
        cache.fetch("k", build)


def test_keys_differ_by_content_and_not_by_order(monkeypatch):
    assert cache.key_of({"a": 1, "b": 2}) == cache.key_of({"b": 2, "a": 1})
    assert cache.key_of({"a": 1}) != cache.key_of({"a": 2})
    before = cache.key_of({"a": 1})
    monkeypatch.setattr(cache, "code_version", lambda: "another")
    assert cache.key_of({"a": 1}) != before

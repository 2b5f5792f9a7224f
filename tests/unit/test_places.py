"""Caches find a place that this user, and nobody else, can write, or the lack of one is told."""

import os
import tempfile
from pathlib import Path

import pytest

from fledge.errors import RunError
from fledge.places import cache_home, expanded, home, settle_home, stand_in


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    return tmp_path


def test_what_is_named_is_taken_and_else_the_homes_own_folder(places, monkeypatch):
    assert cache_home() == places / "home" / ".cache"
    assert settle_home() is None
    monkeypatch.setenv("XDG_CACHE_HOME", "/named")
    assert cache_home() == Path("/named")
    assert settle_home() is None


def test_a_home_that_is_a_file_or_may_not_be_written_is_replaced_and_that_is_told(places):
    (places / "home").write_text("")
    assert cache_home() == stand_in() == places / "tmp" / f"fledge-{os.getuid()}"
    assert str(stand_in()) in (settle_home() or "")
    assert stand_in().stat().st_mode & 0o777 == 0o700


def test_a_folder_that_others_can_write_is_refused_for_kernels_are_loaded_from_it(places):
    stand_in().chmod(0o777)
    with pytest.raises(RunError, match="others can write this folder"):
        stand_in()


def test_a_link_in_place_of_the_folder_is_refused(places):
    (places / "elsewhere").mkdir()
    (places / "tmp" / f"fledge-{os.getuid()}").symlink_to(places / "elsewhere")
    with pytest.raises(RunError, match="others can write this folder"):
        stand_in()


def test_no_place_at_all_is_told_with_its_cure(places, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(places / "nothing" / "here"))
    (places / "home").write_text("")
    with pytest.raises(RunError, match="set XDG_CACHE_HOME"):
        cache_home()


def test_a_home_of_nobody_is_none_and_a_path_in_it_stays_as_it_is(monkeypatch):
    assert expanded("~/a") == Path.home() / "a"
    assert expanded("~no-such-user/a") == Path("~no-such-user/a")

    def nobody() -> None:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nobody)
    assert home() is None
    told = settle_home()
    assert os.environ["HOME"] == str(stand_in())
    assert told is not None and "set HOME" in told

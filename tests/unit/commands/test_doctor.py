"""`fledge doctor` says what is there and what is in the way, and changes nothing."""

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from fledge.commands import doctor

Usage = namedtuple("Usage", "total used free")


def test_a_sound_machine_has_no_problem_and_every_finding_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "not" / "there" / "yet"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**12, 0, 10**12))
    found = doctor.examine()
    assert found.problems == ()
    assert set(found.libraries) == set(doctor.LIBRARIES)
    assert found.extras == {"tensorboard": True, "wandb": True}
    assert len(found.as_lines()) == 10 + max(0, len(found.gpus) - 1)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**12, 0, 10**6))
    (problem,) = doctor.examine().problems
    assert "only 1.0 MB are free" in problem.what


def test_a_cache_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)
    assert "the cache cannot be written: Permission denied" in [problem.what for problem in doctor.examine().problems]


def test_a_library_that_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LIBRARIES", ("torch", "no-such-library"))
    found = doctor.examine()
    assert [problem.what for problem in found.problems if problem.where == "libraries"] == [
        "no-such-library is not installed"
    ]
    assert list(found.libraries) == ["torch"]


def test_it_says_which_attention_is_there_and_what_another_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "flash_missing", lambda: "it needs a GPU")
    found = doctor.examine()
    assert found.attention == {"auto": None, "flash": "it needs a GPU", "sdpa": None, "eager": None}
    assert found.as_lines()["attention"] == "auto, sdpa, eager; not flash: it needs a GPU"
    monkeypatch.setattr(doctor, "flash_missing", lambda: None)
    assert doctor.examine().as_lines()["attention"] == "auto, flash, sdpa, eager"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "processor\t: 0\nflags\t\t: fpu sse avx512_bf16 avx512f amx_bf16\nflags\t: none\n",
            ("amx_bf16", "avx512_bf16"),
        ),
        ("processor\t: 0\nflags\t\t: fpu sse avx2\nbugs\t: bf16\n", ()),
        ("processor\t: 0\nFeatures\t: fp asimd i8mm bf16\n", ("bf16",)),
        ("", ()),
    ],
)
def test_the_cpus_instructions_are_read_as_linux_lists_them(text, found, tmp_path):
    (tmp_path / "cpuinfo").write_text(text)
    assert doctor._bfloat16_instructions(tmp_path / "cpuinfo") == found
    assert doctor._bfloat16_instructions(tmp_path / "none") == ()

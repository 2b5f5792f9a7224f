"""Each phase of a run has a peak and a time of its own."""

import numpy as np
import pytest
import torch

from fledge.runtime import memory, phases
from fledge.runtime.memory import peak_bytes
from fledge.runtime.phases import Phases

CPU = torch.device("cpu")
MB = 1_000_000


def _hold(megabytes: int) -> None:
    held = np.ones(megabytes * MB, dtype=np.uint8)
    del held


@pytest.fixture(autouse=True)
def _brief(monkeypatch):
    monkeypatch.setattr(phases, "BRIEF", 0.0)


def _needs_a_count_that_begins_anew() -> None:
    if not memory._begin_anew(CPU):
        pytest.skip("this system's count of a process cannot begin anew")


def test_a_phase_has_its_own_peak_and_leaves_out_the_phase_within_it():
    _needs_a_count_that_begins_anew()
    measured = Phases(CPU)
    with measured.during("large"):
        _hold(600)
    with measured.during("outer"):
        _hold(100)
        with measured.during("inner"):
            _hold(300)
        _hold(50)
    told = {name: phase["peak_memory_bytes"] for name, phase in measured.told().items()}
    assert list(told) == ["large", "outer", "inner"]
    assert told["large"] - told["inner"] > 200 * MB
    assert told["inner"] - told["outer"] > 100 * MB


def test_the_peak_of_the_process_is_kept_when_the_count_begins_anew():
    measured = Phases(CPU)
    with measured.during("large"):
        _hold(400)
    before = peak_bytes(CPU)
    with measured.during("small"):
        pass
    assert peak_bytes(CPU) >= before


def test_a_phase_that_comes_again_has_the_larger_peak_and_the_sum_of_its_times(monkeypatch):
    moments = iter([0.0, 1.0, 3.0, 10.0, 14.0])
    peaks = iter([5, 7, 5, 6])
    monkeypatch.setattr(phases, "peak_since", lambda device: next(peaks))
    monkeypatch.setattr(phases.time, "perf_counter", lambda: next(moments))
    measured = Phases(CPU)
    for _ in range(2):
        with measured.during("validation"):
            pass
    assert measured.told() == {"validation": {"peak_memory_bytes": 7, "seconds": 6.0}}


def test_where_the_count_cannot_begin_anew_a_phase_that_raised_no_peak_has_none(monkeypatch):
    monkeypatch.setattr(memory, "_begin_anew", lambda device: False)
    measured = Phases(CPU)
    held = peak_bytes(CPU) + 200 * MB
    with measured.during("large"):
        counts = iter([held, held, held])
        monkeypatch.setattr(memory, "_counted", lambda device: next(counts))
    with measured.during("small"):
        pass
    told = {name: phase["peak_memory_bytes"] for name, phase in measured.told().items()}
    assert told == {"large": held, "small": None}


def test_a_phase_ends_where_what_is_done_in_it_fails():
    measured = Phases(CPU)
    with pytest.raises(ValueError), measured.during("outer"), measured.during("inner"):
        raise ValueError
    assert list(measured.told()) == ["outer", "inner"]
    with measured.during("after"):
        pass
    assert list(measured.told()) == ["outer", "inner", "after"]

"""Memory is told on every system, by the system's own count."""

import psutil
import torch

from fledge.runtime import memory

CPU = torch.device("cpu")


def test_the_peak_is_at_least_what_is_held_now_with_and_without_the_module_that_windows_lacks(monkeypatch):
    held = psutil.Process().memory_info().rss
    assert memory.peak_bytes(CPU) >= 0.9 * held
    monkeypatch.setattr(memory, "_HAS_USAGE", False)
    assert memory.peak_bytes(CPU) >= 0.5 * held


def test_on_a_mac_the_peak_is_counted_in_bytes(monkeypatch):
    monkeypatch.setattr(memory, "_before", {})
    on_linux = memory.peak_bytes(CPU)
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    assert memory.peak_bytes(CPU) < on_linux / 500


def test_where_the_system_does_not_tell_a_stated_figure_is_taken(monkeypatch):
    def absent() -> None:
        raise FileNotFoundError("/proc/meminfo")

    assert 0 < memory.available_bytes(CPU) <= psutil.virtual_memory().total
    monkeypatch.setattr(memory.psutil, "virtual_memory", absent)
    monkeypatch.setattr(memory, "_cgroup_available", lambda: None)
    assert memory.available_bytes(CPU) == memory.UNKNOWN

"""How much memory there is, and how much was used at most."""

import sys
from pathlib import Path

import psutil
import torch

try:
    from resource import RUSAGE_SELF, getrusage
except ImportError:  # Windows, where psutil tells the peak
    _HAS_USAGE = False
else:
    _HAS_USAGE = True

UNKNOWN = 8_000_000_000
"""What is taken for the memory at hand where the system does not tell."""


_CLEAR = Path("/proc/self/clear_refs")
_PEAK_ONLY = "5"
"""What Linux takes there for "the peak begins anew at what is held now"."""
_before: dict[str, int] = {}
"""Peaks of the times before the system's own count was begun anew."""


def peak_bytes(device: torch.device) -> int:
    """The most memory this process has held: resident set on a CPU, reserved by torch on a GPU."""
    return max(_before.get(device.type, 0), _counted(device))


def peak_since(device: torch.device) -> int | None:
    """The most memory held since the last call, which begins the system's count anew. None where the system has one
    count for the whole process and it did not rise since then.
    """
    counted, before = _counted(device), _before.get(device.type, 0)
    _before[device.type] = max(before, counted)
    if _begin_anew(device) or counted > before:
        return counted
    return None


def _counted(device: torch.device) -> int:
    """The system's own count."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_reserved(device))
    if not _HAS_USAGE:
        return _peak_of_windows()
    unit = 1 if sys.platform == "darwin" else 1024
    return int(getrusage(RUSAGE_SELF).ru_maxrss) * unit


def _begin_anew(device: torch.device) -> bool:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    try:
        _CLEAR.write_text(_PEAK_ONLY, encoding="ascii")
    except OSError:  # not Linux, or a kernel without it
        return False
    return True


def available_bytes(device: torch.device) -> int:
    """Memory that can still be had: on a CPU what the system calls available, within the cgroup's limit."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    limits = [_system_available(), _cgroup_available()]
    known = [limit for limit in limits if limit is not None]
    return min(known) if known else UNKNOWN


def _peak_of_windows() -> int:
    told = psutil.Process().memory_info()
    return int(getattr(told, "peak_wset", told.rss))


def _system_available() -> int | None:
    try:
        return int(psutil.virtual_memory().available)
    except (OSError, psutil.Error):  # Linux without /proc
        return None


def _cgroup_available() -> int | None:
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    try:
        text = limit.read_text(encoding="ascii").strip()
        return None if text == "max" else int(text) - int(used.read_text(encoding="ascii"))
    except (OSError, ValueError):  # no cgroup, another version of it, or one that may not be read
        return None

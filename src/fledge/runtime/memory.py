"""How much memory there is, and how much was used at most."""

import resource
import sys
from pathlib import Path

import torch


def peak_bytes(device: torch.device) -> int:
    """The most memory this process has held: resident set on a CPU, reserved by torch on a GPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_reserved(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def available_bytes(device: torch.device) -> int:
    """Memory that can still be had: on a CPU what the kernel calls available, within the cgroup's limit."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    limits = [_meminfo_available(), _cgroup_available()]
    known = [limit for limit in limits if limit is not None]
    return min(known) if known else 8_000_000_000


def _meminfo_available() -> int | None:
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return None
    for line in meminfo.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _cgroup_available() -> int | None:
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if not limit.exists() or not used.exists():
        return None
    text = limit.read_text().strip()
    return None if text == "max" else int(text) - int(used.read_text())

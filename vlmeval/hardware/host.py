"""The machine around its cards: its memory, its cores, and what of them this process may use."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Mapping
from pathlib import Path


def machine() -> dict[str, str]:
    """What this machine is, for the record of a run."""
    return {"system": platform.platform(), "python": platform.python_version(), "processor": platform.machine()}


def host_memory_bytes() -> int:
    """Physical memory of this machine, in bytes; 0 where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 0


def usable_memory_bytes() -> int:
    """Memory of this machine, or less where its container has a limit; 0 where the system does not say."""
    found = [host_memory_bytes()]
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            found.append(int(Path(name).read_text()))
    return min((size for size in found if size > 0), default=0)


def process_memory() -> tuple[int | None, int | None]:
    """Resident bytes of this process, now and at most so far; None where the system does not say (/proc, Linux)."""
    found: dict[str, int] = {}
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/self/status").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name in ("VmRSS", "VmHWM"):
                found[name] = 1024 * int(rest.split()[0])
    return found.get("VmRSS"), found.get("VmHWM")


def cpu_cores() -> int:
    """Cores this process may use: its affinity, and the quota of its container."""
    affinity = getattr(os, "sched_getaffinity", None)
    count = len(affinity(0)) if affinity else os.cpu_count() or 1
    quota = _cpu_quota()
    return max(1, min(count, int(quota))) if quota else count


def _cpu_quota() -> float:
    """Cores that cgroups (version 2, then 1) allow; 0 for no limit."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return 0.0 if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    try:
        folder = Path("/sys/fs/cgroup/cpu")
        quota_us = int((folder / "cpu.cfs_quota_us").read_text())
        return max(0.0, quota_us / int((folder / "cpu.cfs_period_us").read_text()))
    except (OSError, ValueError, ZeroDivisionError):
        return 0.0


def cpu_threads(environ: Mapping[str, str] = os.environ) -> int:
    """Threads one process computes with on a CPU: what OMP_NUM_THREADS says, else 1.

    Several threads in one process were measured 2 to 7 times slower on shared cores; work spreads by processes.
    """
    text = environ.get("OMP_NUM_THREADS", "").strip()
    return int(text) if text.isdigit() and int(text) > 0 else 1

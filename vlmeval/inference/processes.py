"""Processes of this machine that others started, by their ids: whether they live, whether they were stopped."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path


def kill(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may be gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def is_alive(pid: int) -> bool:
    """Whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def is_stopped(pid: int) -> bool:
    """Whether a process was stopped (SIGSTOP, Ctrl-Z), where the system tells."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in ("T", "t")
    except (OSError, IndexError):
        return False


def stopped_children(parent: int) -> list[int]:
    """The processes of this parent that were stopped, where the system tells."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError, ValueError):
            state, its_parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            if state in ("T", "t") and int(its_parent) == parent:
                found.append(int(folder.name))
    return sorted(found)

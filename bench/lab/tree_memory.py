"""Memory of a process and all below it, by looking twice a second: what the system's own count does not give.

`wait4` tells the peak of the largest process, exactly; a short peak of the sum can be missed. The sum counts what
processes share (the libraries' pages, some 200 MiB of each) once for each of them. Linux only: elsewhere it stays 0.
"""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType

EVERY_S = 0.5


class TreeMemory:
    """`with TreeMemory(pid) as tree:` and then `tree.peak_mib`."""

    def __init__(self, pid: int) -> None:
        self.peak_mib = 0.0
        self._pid = pid
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> TreeMemory:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(EVERY_S):
            self.peak_mib = max(self.peak_mib, tree_mib(self._pid))


def tree_mib(pid: int) -> float:
    """Resident memory of this process and of all below it; 0 for one that has ended."""
    process = Path(f"/proc/{pid}")
    try:
        lines = (process / "status").read_text().splitlines()
        below = [int(word) for task in (process / "task").iterdir() for word in (task / "children").read_text().split()]
    except OSError:
        return 0.0
    own_kib = next((int(line.split()[1]) for line in lines if line.startswith("VmRSS:")), 0)
    return own_kib / 1024 + sum(map(tree_mib, below))

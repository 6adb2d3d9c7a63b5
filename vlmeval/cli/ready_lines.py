"""What is said of replicas that get ready: the first by name, then how many of how many, and when all are up."""

from __future__ import annotations

from collections.abc import Sequence

from vlmeval.inference.roll import ReplicaState
from vlmeval.report.live import duration

FIRST_COUNT_S = 30.0
"""After the first one is ready, when it is said how many are; then each time twice as long after it."""
MOST_NAMES = 4


class ReadyLines:
    """Told what happens, it gives the line to say, "" for none. Times are of one monotonic clock."""

    def __init__(self) -> None:
        self._ready: set[str] = set()
        self._first_at = 0.0
        self._count_s = FIRST_COUNT_S
        self._is_over = False

    def ready(self, replica: str, now_s: float) -> str:
        """This one begins to answer, for the first time or again."""
        is_first = not self._ready
        self._ready.add(replica)
        if is_first:
            self._first_at = now_s
        return f"{replica} is ready" if is_first else ""

    def watch(self, replicas: Sequence[ReplicaState], now_s: float) -> str:
        """How all stand."""
        if self._is_over or not self._ready:
            return ""
        missing = [one for one in replicas if one.name not in self._ready]
        waited_s = now_s - self._first_at
        if not missing:
            self._is_over = True
            return _all(len(replicas), waited_s)
        if waited_s < self._count_s:
            return ""
        self._count_s = 2 * waited_s
        ready = len(replicas) - len(missing)
        return f"{ready} of {len(replicas)} replicas {'is' if ready == 1 else 'are'} ready; {_others(missing)}"


def _all(count: int, waited_s: float) -> str:
    if count < 2:
        return ""
    told = "both replicas are ready" if count == 2 else f"all {count} replicas are ready"
    return f"{told}, the last {duration(waited_s)} after the first" if waited_s >= 1 else told


def _others(missing: Sequence[ReplicaState]) -> str:
    """`replica 3 loading, replica 5 restarting and 2 more`."""
    named = ", ".join(f"{one.name} {one.state}" for one in missing[:MOST_NAMES])
    return named + (f" and {len(missing) - MOST_NAMES} more" if len(missing) > MOST_NAMES else "")

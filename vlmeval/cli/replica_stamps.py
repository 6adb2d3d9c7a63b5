"""What replicas say about themselves for the run's record, over all their lives: one that dies is started again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

COUNTS = ("images", "images_reused")
"""What of a stamp is counted from the start of a life, and adds up."""
LISTS = ("moves",)
"""What of a stamp happened in this life, after what happened before."""


class ReplicaStamps:
    """Replica -> its newest stamp, with the counts and moves of its earlier lives in it.

    A replica that is killed takes along what it counted since its last stamp.
    """

    def __init__(self) -> None:
        self._earlier: dict[str, Mapping[str, Any]] = {}
        self._newest: dict[str, Mapping[str, Any]] = {}

    def begins(self, replica: str) -> None:
        """A life begins: from here it counts anew."""
        if replica in self._newest:
            self._earlier[replica] = self._newest[replica]

    def told(self, replica: str, stamp: Mapping[str, Any]) -> Mapping[str, Any]:
        """It says this. Returns it with what is known of its earlier lives."""
        earlier = self._earlier.get(replica, {})
        known = {*earlier, *stamp}
        summed = {name: earlier.get(name, 0) + stamp.get(name, 0) for name in COUNTS if name in known}
        joined = {name: [*earlier.get(name, ()), *stamp.get(name, ())] for name in LISTS if name in known}
        self._newest[replica] = {**stamp, **summed, **joined}
        return self._newest[replica]

    def all(self) -> dict[str, Mapping[str, Any]]:
        """By replica."""
        return dict(self._newest)

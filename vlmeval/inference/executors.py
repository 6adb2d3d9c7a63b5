"""Where replicas come from: the interface every launcher has, and the one that starts processes on this machine."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from vlmeval.config import ModelSpec
from vlmeval.inference.limits import Limits

DONE, GAVE_UP, COORDINATOR_LOST = 0, 3, 4
"""Exit codes of a replica that ends by itself: told to stop, after an error that ends the run, or left alone."""

FAREWELL = "replica ends: "
"""What a replica's last line in its log begins with; the reason follows."""


@dataclass(frozen=True, kw_only=True)
class ReplicaSpec:
    """One whole copy of the model: `name` in messages, `placement` for the model's place(), `environ` for its process.

    `placement` is plain values that can be written as JSON; only the model understands them.
    """

    number: int
    name: str
    placement: Mapping[str, Any] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict)


class Executor(Protocol):
    """A launcher of replicas. Each calls the coordinator by itself, under its number."""

    @property
    def replicas(self) -> Sequence[ReplicaSpec]:
        """All that may call, whether they live or not."""

    def tell(self, words: Mapping[str, Any]) -> None:
        """A line for every replica this launcher started or will start."""

    def tend(self) -> list[tuple[int, str]]:
        """Start again what is due; numbers of replicas that ended since the last call, and how."""

    def how_it_ended(self, number: int) -> str:
        """The connection of this replica broke or it is stuck: end it for good, and say how it ended."""

    def end(self, number: int, pid: int) -> None:
        """Kill a replica that is stuck."""

    def proved(self, number: int) -> None:
        """This replica finished something: its pause starts small again."""

    def pause_s(self, number: int) -> float | None:
        """Seconds until this replica is started again: 0 where it runs, None if it never will be."""

    def log(self, number: int) -> str:
        """Where what it wrote can be read."""

    @property
    def hopeless(self) -> str:
        """Why no replica will ever answer again; empty while there is hope."""

    def stop(self) -> None:
        """End all that are left."""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """What every replica of a model is started with. `job` tells several models of one run apart."""

    model: ModelSpec
    seed: int = 0
    job: int = 0
    limits: Limits = field(default_factory=Limits)
    simulate_cards: str = ""

    def line(self, replica: ReplicaSpec) -> str:
        """The first line of a replica's stdin."""
        start = {
            "path": sys.path,
            "argv": sys.argv,
            "model": asdict(self.model),
            "seed": self.seed,
            "job": self.job,
            "replica": {"number": replica.number, "name": replica.name, "placement": dict(replica.placement)},
            "limits": asdict(self.limits),
            "simulate_cards": self.simulate_cards,
        }
        return json.dumps(start) + "\n"

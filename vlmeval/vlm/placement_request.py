"""Placement: what a run asks for, and what a replica in a process of its own is told of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from vlmeval.errors import UsageError
from vlmeval.hardware import Card
from vlmeval.placement.cost_model import Workload
from vlmeval.placement.policy import Overrides


@dataclass(frozen=True, kw_only=True)
class Placement:
    """What a run asks for; the defaults leave everything to the rule and to the largest prompt the settings allow.

    `cards` are those of this replica, by number: its slice is cut already. `seen` are the visible cards as they were
    found, so that this process need not ask. `device_map` is one written by hand, which stays, or if it `is_planned`
    what the run planned for this replica, which may change as it is measured. `cpu_offload` permits to compute on the
    CPU, from host memory, what no card can hold. `dtype` and `attention` are what all replicas of a run share, where
    their cards differ. `allow_fewer_pixels` permits to shrink the images of a sample that nothing else makes fit.
    `batches_in_flight` over the stages of a replica that lies on several cards: one after the other unless asked for,
    since no real card has shown yet what it gains; None: as many as memory and the estimate of time say.
    """

    overrides: Overrides | None = None
    workload: Workload | None = None
    cards: tuple[int, ...] | None = None
    seen: tuple[Card, ...] | None = None
    device_map: Mapping[str, int | str] | None = None
    is_planned: bool = False
    cpu_offload: bool = False
    allow_fewer_pixels: bool = False
    dtype: str = ""
    attention: str = ""
    batches_in_flight: int | None = 1

    def __post_init__(self) -> None:
        if self.batches_in_flight is not None and self.batches_in_flight < 1:
            raise UsageError(f"batches_in_flight {self.batches_in_flight} must be at least 1")

    def words(self) -> dict[str, Any]:
        """What a replica in a process of its own has to be told, as plain values."""
        return {
            "workload": asdict(self.workload) if self.workload else None,
            "reserve_bytes": self.overrides.reserve_bytes if self.overrides else None,
            "max_memory": list(self.overrides.max_memory.items()) if self.overrides else [],
            "cards": list(self.cards) if self.cards is not None else None,
            "device_map": dict(self.device_map) if self.device_map else None,
            "is_planned": self.is_planned,
            "cpu_offload": self.cpu_offload,
            "allow_fewer_pixels": self.allow_fewer_pixels,
            "dtype": self.dtype,
            "attention": self.attention,
            "batches_in_flight": self.batches_in_flight,
        }

    @classmethod
    def of_words(cls, words: Mapping[str, Any]) -> Placement:
        """The other way round."""
        reserve, most = words["reserve_bytes"], {int(card): int(most) for card, most in words["max_memory"]}
        return cls(
            overrides=None if reserve is None else Overrides(reserve_bytes=reserve, max_memory=most),
            workload=Workload(**words["workload"]) if words["workload"] else None,
            cards=None if words["cards"] is None else tuple(words["cards"]),
            device_map=words["device_map"],
            is_planned=words["is_planned"],
            cpu_offload=words["cpu_offload"],
            allow_fewer_pixels=words["allow_fewer_pixels"],
            dtype=words["dtype"],
            attention=words["attention"],
            batches_in_flight=words["batches_in_flight"],
        )

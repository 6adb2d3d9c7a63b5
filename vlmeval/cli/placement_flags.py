"""The placement flags that `run` and `plan` share, as values."""

from __future__ import annotations

import argparse
import math
import re

from vlmeval.errors import UsageError
from vlmeval.hardware import auto_split_wanted
from vlmeval.placement.cost_model import RESERVE_BYTES
from vlmeval.placement.policy import Overrides

GIB = 2**30


def overrides(options: argparse.Namespace) -> Overrides:
    """What the flags and AUTO_SPLIT ask for. Raises UsageError."""
    if options.reserve is not None and not math.isfinite(options.reserve):
        raise UsageError(f"--reserve {options.reserve} is no number of GiB")
    if options.device_map and (options.cards_per_replica is not None or (options.replicas or 1) > 1):
        flag = "--cards-per-replica" if options.cards_per_replica is not None else "--replicas"
        raise UsageError(
            f"--device-map says where one copy of the model lies, and forbids {flag}; take one of them away"
        )
    # Cards that are not there keep nothing for a driver.
    reserve_bytes = 0 if getattr(options, "simulate_cards", None) else RESERVE_BYTES
    return Overrides(
        auto_split=auto_split_wanted(),
        cards_per_replica=options.cards_per_replica,
        replicas=options.replicas,
        max_memory=max_memory(options.max_memory),
        reserve_bytes=reserve_bytes if options.reserve is None else round(options.reserve * GIB),
    )


def max_memory(text: str | None) -> dict[int, int]:
    """`0=20,1=22.5` as card -> bytes. Raises UsageError."""
    found: dict[int, int] = {}
    for item in (text or "").split(",") if text else ():
        match = re.fullmatch(r"\s*(\d+)\s*=\s*(\d+(?:\.\d+)?)\s*", item)
        if match is None:
            raise UsageError(f"--max-memory {text!r}: {item!r} is not written card=GiB, e.g. 0=20,1=22.5")
        found[int(match[1])] = round(float(match[2]) * GIB)
    return found

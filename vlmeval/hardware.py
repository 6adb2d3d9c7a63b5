"""The launch environment and the visible cards, as values.

The only reader of RANK, WORLD_SIZE, CUDA_VISIBLE_DEVICES and their like; everything else is handed the values.
"""

from __future__ import annotations

import importlib.util
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass

from vlmeval.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class LaunchEnvironment:
    """How this process was started: alone, or as one of several by torchrun."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1


@dataclass(frozen=True, kw_only=True)
class Card:
    """One accelerator as torch numbers it. `capability` is CUDA's (major, minor); None on other kinds."""

    index: int
    kind: str
    name: str
    total_bytes: int
    free_bytes: int
    capability: tuple[int, int] | None = None

    @property
    def device(self) -> str:
        """What torch calls it, e.g. "cuda:0"."""
        return f"{self.kind}:{self.index}"


def launch_environment(environ: Mapping[str, str] = os.environ) -> LaunchEnvironment:
    """Read torchrun's variables. Raises UsageError for one that is no whole number."""

    def number(name: str, default: int) -> int:
        text = environ.get(name, "").strip()
        if not text:
            return default
        if not text.isdigit():
            raise UsageError(f"{name}={text!r} is no whole number; torchrun sets it, plain python leaves it out")
        return int(text)

    world_size = max(1, number("WORLD_SIZE", 1))
    rank = number("RANK", 0)
    return LaunchEnvironment(
        rank=rank,
        world_size=world_size,
        local_rank=number("LOCAL_RANK", rank),
        local_world_size=number("LOCAL_WORLD_SIZE", world_size),
    )


def visible_cards() -> tuple[Card, ...]:
    """The accelerators torch can see, in torch's order; none on a machine without one. Imports torch."""
    import torch

    if torch.cuda.is_available():
        return tuple(_cuda_card(index) for index in range(torch.cuda.device_count()))
    if not torch.accelerator.is_available():
        return ()
    device = torch.accelerator.current_accelerator()
    if device is None or device.type == "cpu":
        return ()
    count = torch.accelerator.device_count()
    total_bytes = host_memory_bytes() if device.type == "mps" else 0
    return tuple(
        Card(index=i, kind=device.type, name=device.type.upper(), total_bytes=total_bytes, free_bytes=total_bytes)
        for i in range(count)
    )


def _cuda_card(index: int) -> Card:
    import torch

    properties = torch.cuda.get_device_properties(index)
    free_bytes, total_bytes = torch.cuda.mem_get_info(index)
    return Card(
        index=index,
        kind="cuda",
        name=properties.name,
        total_bytes=total_bytes,
        free_bytes=free_bytes,
        capability=(properties.major, properties.minor),
    )


def host_memory_bytes() -> int:
    """Physical memory of this machine, in bytes; 0 where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 0


def cpu_threads(environ: Mapping[str, str] = os.environ) -> int:
    """Threads one process computes with on a CPU: what OMP_NUM_THREADS says, else 1.

    Several threads in one process were measured 2 to 7 times slower on shared cores; work spreads by processes.
    """
    text = environ.get("OMP_NUM_THREADS", "").strip()
    return int(text) if text.isdigit() and int(text) > 0 else 1


def has_flash_attention() -> bool:
    """Whether the flash-attn package is installed (it is never required)."""
    return importlib.util.find_spec("flash_attn") is not None


def machine() -> dict[str, str]:
    """What this machine is, for the record of a run."""
    return {"system": platform.platform(), "python": platform.python_version(), "processor": platform.machine()}

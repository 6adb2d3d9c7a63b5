"""The cards of this machine, as torch finds them."""

from __future__ import annotations

import glob
import importlib.util
import json
import logging
import os
import subprocess
import sys
from collections.abc import Collection
from dataclasses import dataclass
from importlib.metadata import entry_points

from vlmeval.errors import UsageError
from vlmeval.hardware.host import host_memory_bytes
from vlmeval.hardware.launch import visible_names

_log = logging.getLogger("vlmeval")


@dataclass(frozen=True, kw_only=True)
class Card:
    """One accelerator as torch numbers it. `capability` is CUDA's (major, minor); None on other kinds. Memory of
    nought bytes: torch cannot tell.

    `physical` is what CUDA_VISIBLE_DEVICES calls it where that is not its index: "4", "GPU-8932", "MIG-3e1a".
    """

    index: int
    kind: str
    name: str
    total_bytes: int
    free_bytes: int
    capability: tuple[int, int] | None = None
    physical: str = ""

    @property
    def device(self) -> str:
        """What torch calls it, e.g. "cuda:0"."""
        return self.kind if self.kind == "cpu" else f"{self.kind}:{self.index}"

    @property
    def place(self) -> int | str:
        """Its entry in a device_map: its index, or "cpu" for host memory used like one more card."""
        return "cpu" if self.kind == "cpu" else self.index


CARD_FILES = (
    "/dev/nvidia[0-9]*", "/dev/nvidiactl", "/dev/nvgpu*", "/dev/nvhost-gpu", "/dev/dxg", "/dev/kfd",
    "/dev/dri/renderD*", "/dev/accel*", "/dev/davinci*",
)  # fmt: skip
"""What drivers of NVIDIA (Jetson and WSL too), AMD, Intel and others leave in /dev for their cards."""


def cards_possible() -> bool:
    """False where there can be no card, told at once from the device files; True where torch has to be asked."""
    if visible_names() == ():
        return False
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():  # also where cards are simulated
        return True
    if sys.platform != "linux" or entry_points(group="torch.backends"):
        return True
    return any(glob.glob(pattern) for pattern in CARD_FILES)


def visible_cards(measured: Collection[int] | None = None) -> tuple[Card, ...]:
    """The accelerators torch can see, in torch's order; none on a machine without one. Imports torch, unless there can
    be none.

    To ask a CUDA card for its free memory takes some of it (a context, about half a GiB) for as long as this process
    lives. With `measured` only these cards are asked; the others are said to be free.
    """
    if not cards_possible():
        return ()
    import torch

    if torch.cuda.is_available():
        cards = (_cuda_card(i, measured is None or i in measured) for i in range(torch.cuda.device_count()))
        return tuple(card for card in cards if card is not None)
    if not torch.accelerator.is_available():
        return ()
    device = torch.accelerator.current_accelerator()
    if device is None or device.type == "cpu":
        return ()
    return tuple(_other_card(device.type, index) for index in range(torch.accelerator.device_count()))


def _other_card(kind: str, index: int) -> Card:
    """An NPU, XPU or MPS device, with its memory where torch's module for its kind tells it."""
    import torch

    module = torch.get_device_module(kind)
    free_bytes = total_bytes = host_memory_bytes() if kind == "mps" else 0
    if hasattr(module, "mem_get_info"):
        free_bytes, total_bytes = module.mem_get_info(index)
    name = module.get_device_name(index) if hasattr(module, "get_device_name") else kind.upper()
    return Card(index=index, kind=kind, name=name, total_bytes=total_bytes, free_bytes=free_bytes)


def _cuda_card(index: int, is_measured: bool) -> Card | None:
    """The card; None, with a warning, for one that does not answer (it fell off the bus, or its memory is faulty)."""
    import torch

    try:
        properties = torch.cuda.get_device_properties(index)
        total_bytes = properties.total_memory
        free_bytes, total_bytes = torch.cuda.mem_get_info(index) if is_measured else (total_bytes, total_bytes)
    except RuntimeError as error:
        told = str(error).splitlines()[0]
        _log.warning("card %d does not answer and is left out: %s", index, told)
        return None
    return Card(
        index=index,
        kind="cuda",
        name=properties.name,
        total_bytes=total_bytes,
        free_bytes=free_bytes,
        capability=(properties.major, properties.minor),
        physical=physical_name(index, visible_names()),
    )


def physical_name(index: int, names: tuple[str, ...] | None) -> str:
    """What card `index` of this process is called outside it; "" where that is the same number."""
    if names is None or index >= len(names) or names[index] == str(index):
        return ""
    return names[index]


def probed_cards() -> tuple[Card, ...]:
    """The visible cards as a process of its own finds them, so that this one takes no memory of any card."""
    if not cards_possible():
        return ()
    code = (
        "import json, dataclasses; from vlmeval.hardware import visible_cards; "
        "print(json.dumps([dataclasses.asdict(card) for card in visible_cards()]))"
    )
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environ, check=False)
    if done.returncode:
        raise UsageError(f"the cards cannot be asked: {done.stderr.strip().splitlines()[-1:] or done.returncode}")
    found = json.loads(done.stdout.splitlines()[-1])
    return tuple(Card(**{**card, "capability": tuple(card["capability"] or ()) or None}) for card in found)


def host_card() -> Card:
    """The memory of this machine as one more card, for what may lie there: what is free now."""
    total_bytes = host_memory_bytes()
    try:
        free_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        free_bytes = total_bytes
    return Card(index=-1, kind="cpu", name="host memory", total_bytes=total_bytes, free_bytes=free_bytes)


def has_flash_attention() -> bool:
    """Whether the flash-attn package is installed (it is never required)."""
    return importlib.util.find_spec("flash_attn") is not None

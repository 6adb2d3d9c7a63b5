"""The launch environment and the visible cards, as values.

The only reader of RANK, WORLD_SIZE, CUDA_VISIBLE_DEVICES and their like; everything else is handed the values.
"""

from __future__ import annotations

import contextlib
import glob
import importlib.util
import json
import logging
import os
import platform
import re
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

from vlmeval.errors import UnknownNameError, UsageError

_log = logging.getLogger("vlmeval")


@dataclass(frozen=True, kw_only=True)
class LaunchEnvironment:
    """How this process was started: alone, or as one of several by torchrun.

    `master` is where the store is through which ranks find each other, `has_agent` says that torchrun runs it (else
    rank 0 has to), `launch_id` tells several launches that share one apart.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    master: tuple[str, int] = ("127.0.0.1", 29500)
    has_agent: bool = False
    launch_id: str = ""


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
        master=(environ.get("MASTER_ADDR", "127.0.0.1"), number("MASTER_PORT", 29500)),
        has_agent=environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
        launch_id=f"{environ.get('TORCHELASTIC_RUN_ID', '')}/{environ.get('TORCHELASTIC_RESTART_COUNT', '0')}",
    )


def check_launch(launched: LaunchEnvironment) -> None:
    """Raise UsageError for a launch that is not supported."""
    if not 0 <= launched.rank < launched.world_size:
        raise UsageError(f"RANK={launched.rank} and WORLD_SIZE={launched.world_size} do not fit; torchrun sets both")
    if launched.local_world_size != launched.world_size:
        raise UsageError(
            f"WORLD_SIZE={launched.world_size} with {launched.local_world_size} ranks on this machine: one run on "
            "several machines is not supported yet; start it on one: torchrun --nproc-per-node N run.py ..."
        )


def visible_names(environ: Mapping[str, str] = os.environ) -> tuple[str, ...] | None:
    """What CUDA_VISIBLE_DEVICES lists, as CUDA reads it; None where it is not set, so that every card is visible.

    Numbers (sparse, in any order), UUIDs and MIG names are kept as written. CUDA ends the list at the first entry
    that cannot be a card (`0,-1,2` is card 0 alone) and takes an empty value as no card at all.
    """
    text = environ.get("CUDA_VISIBLE_DEVICES")
    if text is None:
        return None
    names: list[str] = []
    for entry in text.split(","):
        if not _VISIBLE_NAME.fullmatch(entry.strip()):
            break
        names.append(entry.strip())
    if len(set(names)) < len(names):
        raise UsageError(f"CUDA_VISIBLE_DEVICES={text!r} lists a card twice; CUDA then shows none at all")
    return tuple(names)


_VISIBLE_NAME = re.compile(r"\d+|GPU-[0-9a-fA-F-]+|MIG-[0-9a-zA-Z/-]+")


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


KNOWN_CARDS: Mapping[str, tuple[float, tuple[int, int]]] = {
    "A10": (24, (8, 6)), "A100": (80, (8, 0)), "A100-40": (40, (8, 0)), "A40": (48, (8, 6)), "A5000": (24, (8, 6)),
    "A6000": (48, (8, 6)), "B200": (180, (10, 0)), "H100": (80, (9, 0)), "H200": (141, (9, 0)), "H20": (96, (9, 0)),
    "L4": (24, (8, 9)), "L40S": (48, (8, 9)), "P100": (16, (6, 0)), "T4": (16, (7, 5)), "V100": (32, (7, 0)),
    "V100-16": (16, (7, 0)), "1080TI": (11, (6, 1)), "2080TI": (11, (7, 5)), "3060": (12, (8, 6)), "3090": (24, (8, 6)),
    "4060TI": (16, (8, 9)), "4080": (16, (8, 9)), "4090": (24, (8, 9)), "5090": (32, (12, 0)),
}  # fmt: skip
"""Cards that can be named in --cards: nominal GiB and compute capability."""
MOST_CARDS = 64


def parse_cards(text: str) -> tuple[Card, ...]:
    """The cards a --cards argument describes: `8x24`, `24,12,8`, `2x24,48`, `H100:2,4090:1`, or `auto` for those here.

    A number is GiB of one card. Nothing else is on such a card: free equals total. Raises UsageError.
    """
    if text.strip().lower() == "auto":
        return visible_cards()
    sizes = [size for item in text.split(",") for size in _described(item.strip(), text)]
    if len(sizes) > MOST_CARDS:
        raise UsageError(f"--cards {text!r} describes {len(sizes)} cards; at most {MOST_CARDS} can be planned for")
    return tuple(
        Card(
            index=index,
            kind="cuda",
            name=name,
            total_bytes=round(gib * 2**30),
            free_bytes=round(gib * 2**30),
            capability=capability,
        )
        for index, (name, gib, capability) in enumerate(sizes)
    )


_COUNTED = re.compile(r"(?:(\d+)[xX])?(\d+(?:\.\d+)?)")
_NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9 _-]*?)(?::(\d+))?")
_NamedSize = tuple[str, float, "tuple[int, int] | None"]


def _described(item: str, text: str) -> Iterator[_NamedSize]:
    """The cards of one item of a list, as (name, GiB, capability)."""
    ways = "write 8x24, 24,12,8, H100:2,4090:1 or auto (numbers are GiB of one card)"
    if sized := _COUNTED.fullmatch(item):
        count, gib = int(sized[1] or 1), float(sized[2])
        if not count or not gib:
            what = "no cards" if not count else "cards without memory"
            raise UsageError(f"--cards {text!r}: {item!r} means {what}; {ways}")
        yield from [(f"{gib:g} GiB card", gib, None)] * min(count, MOST_CARDS + 1)
        return
    if item.startswith("-") or "x-" in item.lower():
        raise UsageError(f"--cards {text!r}: {item!r} is negative; {ways}")
    named = _NAMED.fullmatch(item)
    if named is None:
        raise UsageError(f"--cards {text!r}: {item!r} describes no card; {ways}")
    name = re.sub(r"^(RTX|NVIDIA|TESLA)|[ _]", "", named[1].upper().replace(" ", "")).lstrip("-_")
    if name not in KNOWN_CARDS:
        raise UnknownNameError("card in --cards", named[1], KNOWN_CARDS, ways)
    count, (gib, capability) = int(named[2] or 1), KNOWN_CARDS[name]
    if not count:
        raise UsageError(f"--cards {text!r}: {item!r} means no cards; {ways}")
    yield from [(name, gib, capability)] * min(count, MOST_CARDS + 1)


def host_memory_bytes() -> int:
    """Physical memory of this machine, in bytes; 0 where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 0


def host_card() -> Card:
    """The memory of this machine as one more card, for what may lie there: what is free now."""
    total_bytes = host_memory_bytes()
    try:
        free_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        free_bytes = total_bytes
    return Card(index=-1, kind="cpu", name="host memory", total_bytes=total_bytes, free_bytes=free_bytes)


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


def rank_environment(
    launched: LaunchEnvironment, each: int | None = 1, environ: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """The cards of one rank of several on this machine, as an environment for its replica: `each` neighbouring ones, or
    an equal share of all (None).

    Empty where there is no card of CUDA. Raises UsageError for fewer cards than ranks.
    """
    names = visible_names(environ)
    if names is None:
        found = (re.fullmatch(r"/dev/nvidia(\d+)", path) for path in glob.glob("/dev/nvidia[0-9]*"))
        names = tuple(str(number) for number in sorted(int(match[1]) for match in found if match))
    if not names:
        return {}
    share = each or len(names) // launched.local_world_size
    if not share or share * launched.local_world_size > len(names):
        raise UsageError(
            f"{launched.local_world_size} ranks on this machine with {share or 1} of {len(names)} visible cards each "
            f"are too many; try torchrun --nproc-per-node {len(names) // (share or 1)}"
        )
    return {"CUDA_VISIBLE_DEVICES": ",".join(names[launched.local_rank * share :][:share])}


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


def process_memory() -> tuple[int | None, int | None]:
    """Resident bytes of this process, now and at most so far; None where the system does not say (/proc, Linux)."""
    found: dict[str, int] = {}
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/self/status").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name in ("VmRSS", "VmHWM"):
                found[name] = 1024 * int(rest.split()[0])
    return found.get("VmRSS"), found.get("VmHWM")


def usable_memory_bytes() -> int:
    """Memory of this machine, or less where its container has a limit; 0 where the system does not say."""
    found = [host_memory_bytes()]
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            found.append(int(Path(name).read_text()))
    return min((size for size in found if size > 0), default=0)


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


def auto_split_wanted(environ: Mapping[str, str] = os.environ) -> bool | None:
    """What AUTO_SPLIT says: True forces a split over the cards, False forbids it, None leaves it to the rule."""
    text = environ.get("AUTO_SPLIT", "").strip()
    if text not in ("", "0", "1"):
        raise UsageError(
            f"AUTO_SPLIT={text!r} is neither 1 (split over all visible cards) nor 0 (never split); leave it out to "
            "split only where a card has under 40 GB"
        )
    return {"": None, "0": False, "1": True}[text]

"""The environment a process was started with, as values: torchrun's variables, the cards it may see, AUTO_SPLIT."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from vlmeval.errors import UsageError

_VISIBLE_NAME = re.compile(r"\d+|GPU-[0-9a-fA-F-]+|MIG-[0-9a-zA-Z/-]+")


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


def auto_split_wanted(environ: Mapping[str, str] = os.environ) -> bool | None:
    """What AUTO_SPLIT says: True forces a split over the cards, False forbids it, None leaves it to the rule."""
    text = environ.get("AUTO_SPLIT", "").strip()
    if text not in ("", "0", "1"):
        raise UsageError(
            f"AUTO_SPLIT={text!r} is neither 1 (split over all visible cards) nor 0 (never split); leave it out to "
            "split only where a card has under 40 GB"
        )
    return {"": None, "0": False, "1": True}[text]

"""Do copies from card to card arrive as they left? On some machines they do not, and nothing says so.

    check = check_copies(card_pairs(stage_devices))
    dispatch(model, device_map, through_host=check.through_host)

Peer-to-peer over PCIe with the IOMMU or ACS on can deliver zeros, old bytes or changed ones while every call reports
success (pytorch issues 84803 and 87363, accelerate 4036, NVIDIA/open-gpu-kernel-modules 1257); the answers are then
wrong text, mostly one token over and over. What is known to hide it, and what this does about it:

- A copy that never arrives looks right if the memory it should fill still holds an earlier one. So the target is filled
  with other bytes before, and every pair and round sends bytes of its own.
- Small copies may pass where large ones do not, and single ones where a row of them does not. So sizes grow, and
  parcels are sent back to back and computed with at once, as dispatch does.
- A card that returns to the host not what the host wrote would be taken for a broken pair. So that is checked before.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from vlmeval.errors import PlacementError
from vlmeval.placement.detour import Pair

MIB = 2**20
SIZES = (1, 7, 4_099, MIB + 3, 64 * MIB)
"""Bytes of one copy. Odd ones end within a word."""
BUDGET_S = 1.5
"""No copy is begun later than this; the last one and its comparison take some milliseconds more."""
ROUNDS = 2
PARCELS = 16
PARCEL_PIECES = (5, 1_024, 333)
"""Bytes of the small arguments that travel together."""
SEED = 4036
WAYS_OUT = (
    "the usual cause is peer-to-peer over PCIe with the IOMMU or ACS on: try the kernel option iommu=pt, or the IOMMU "
    "and ACS off in the BIOS; `nvidia-smi topo -p2p r` shows what the driver believes"
)


@dataclass(frozen=True, kw_only=True)
class BrokenPair:
    """A way between two cards on which bytes changed: `wrong_bytes` of the `size_bytes` that were sent."""

    pair: Pair
    size_bytes: int
    wrong_bytes: int

    def __str__(self) -> str:
        return f"from {self.pair[0]} to {self.pair[1]} ({self.wrong_bytes:,} of {self.size_bytes:,} bytes)"


@dataclass(frozen=True, kw_only=True)
class CopyCheck:
    """What was found. `exact_bytes` has for every pair the largest copy that arrived as it left, 0 if none was made."""

    broken: tuple[BrokenPair, ...]
    exact_bytes: Mapping[Pair, int]
    seconds: float
    full: tuple[torch.device, ...] = ()
    """Cards without room for the larger copies."""

    @property
    def through_host(self) -> frozenset[Pair]:
        """Pairs for `dispatch`: a broken one in both directions, as both take the same wires."""
        found = [broken.pair for broken in self.broken]
        return frozenset(found) | {(target, source) for source, target in found}

    def warning(self) -> str:
        """One line for the user, "" if every pair was checked and none is broken."""
        told = []
        if self.broken:
            told.append(
                f"direct copies arrive changed {', '.join(map(str, self.broken))}: copies between "
                f"{'these cards' if len(self.broken) > 1 else 'these two cards'} go through host memory in this run "
                f"(same answers, slower); {WAYS_OUT}"
            )
        bad = {broken.pair for broken in self.broken}
        unchecked = [f"{a} to {b}" for (a, b), size in self.exact_bytes.items() if not size and (a, b) not in bad]
        if unchecked:
            why = f"no room on {', '.join(map(str, self.full))}" if self.full else f"{self.seconds:.1f} s were over"
            told.append(
                f"direct copies not checked ({why}): {', '.join(unchecked[:4])}{', ...' * (len(unchecked) > 4)}"
            )
        return "; ".join(told)

    def summary(self) -> str:
        """What was checked, for the run's stamp: "6 pairs of cards, copies of 64 MiB exact, 0.41 s"."""
        bad = {broken.pair for broken in self.broken}
        smallest = min((size for pair, size in self.exact_bytes.items() if pair not in bad), default=0)
        parts = [f"{len(self.exact_bytes)} pairs of cards", f"copies of {_size(smallest)} exact"]
        if bad:
            parts.append(f"{len(bad)} broken ({', '.join(f'{a} to {b}' for a, b in sorted(bad, key=str))})")
        return ", ".join([*parts, f"{self.seconds:.2f} s"])


def card_pairs(devices: Iterable[torch.device]) -> tuple[Pair, ...]:
    """Every ordered pair of the cards among the devices of a device_map, those used most first.

    Given in the order of the stages: every stage is sent hidden states by the one before, and masks and rotary tables
    by the first; the logits go back to the first. All others are checked too, as models copy what they like.
    """
    cards = [device for device in dict.fromkeys(devices) if device.type not in ("cpu", "meta")]
    place = {card: number for number, card in enumerate(cards)}

    def rank(pair: Pair) -> tuple[bool, bool]:
        source, target = place[pair[0]], place[pair[1]]
        return target != source + 1, 0 not in (source, target)

    return tuple(sorted(itertools.permutations(cards, 2), key=rank))


def check_copies(pairs: Sequence[Pair], *, sizes: Sequence[int] = SIZES, budget_s: float = BUDGET_S) -> CopyCheck:
    """Copy seeded random bytes over every pair, in growing sizes until the time is used, and compare every byte.

    Takes four times the size on each card, for as long as it runs. Raises PlacementError for a card that does not
    give back what the host wrote.
    """
    started = time.perf_counter()
    search = _Search(pairs, lambda: time.perf_counter() - started > budget_s)
    for size in sizes:
        if not search.grow(size):
            break
    search.free()
    return CopyCheck(
        broken=tuple(search.broken[pair] for pair in pairs if pair in search.broken),
        exact_bytes=search.exact_bytes,
        seconds=time.perf_counter() - started,
        full=tuple(search.full),
    )


class _Search:
    """The pairs still to be tried, and what was found of the others."""

    def __init__(self, pairs: Sequence[Pair], is_over: Callable[[], bool]) -> None:
        self.exact_bytes = dict.fromkeys(pairs, 0)
        self.broken: dict[Pair, BrokenPair] = {}
        self.full: list[torch.device] = []
        self.is_over = is_over
        self._random = torch.Generator().manual_seed(SEED)

    def grow(self, size: int) -> bool:
        """Try every pair with copies of so many bytes. False if the time is over."""
        pattern = self._pattern(size)
        held: dict[torch.device, torch.Tensor] = {}
        keys = itertools.cycle(range(1, 256))
        for pair in self.exact_bytes:
            if pair in self.broken or not set(pair).isdisjoint(self.full):
                continue
            try:
                for card in pair:
                    if self.is_over():
                        return False
                    if card not in held:
                        held[card] = _uploaded(pattern, card)
                self._try(pair, held, keys)
            except torch.OutOfMemoryError as error:
                self._note_full(pair, error)
        return not self.is_over()

    def _try(self, pair: Pair, held: Mapping[torch.device, torch.Tensor], keys: Iterable[int]) -> None:
        source, target = held[pair[0]], held[pair[1]]
        found = [(source.numel(), _changed(source, target, key)) for key in itertools.islice(keys, ROUNDS)]
        if self.exact_bytes[pair] < sum(PARCEL_PIECES) <= source.numel():  # once: parcels do not grow
            found += _changed_parcels(source, target, list(itertools.islice(keys, PARCELS)))
        worst = max(found, key=lambda sent: sent[1])
        if worst[1]:
            self.broken[pair] = BrokenPair(pair=pair, size_bytes=worst[0], wrong_bytes=worst[1])
        else:
            self.exact_bytes[pair] = source.numel()

    def _note_full(self, pair: Pair, error: torch.OutOfMemoryError) -> None:
        """Torch names the card that is full; where it does not, both are taken for it."""
        named = [card for card in pair if f"GPU {card.index} " in str(error)]
        self.full += named or pair

    def _pattern(self, size: int) -> torch.Tensor:
        words = torch.randint(-(2**63), 2**63 - 1, (size // 8 + 1,), generator=self._random, dtype=torch.int64)
        return words.view(torch.uint8)[:size]

    def free(self) -> None:
        """Give the memory back, which torch would keep."""
        for kind in {card.type for pair in self.exact_bytes for card in pair}:
            torch.get_device_module(kind).empty_cache()


def _uploaded(pattern: torch.Tensor, card: torch.device) -> torch.Tensor:
    """The pattern on a card, which was seen to give it back. Raises PlacementError if it does not."""
    there = pattern.to(card)
    back = there.cpu()
    if torch.equal(back, pattern):
        return there
    raise PlacementError(
        f"{card} does not give back what the host wrote: {int((back != pattern).sum()):,} of {pattern.numel():,} bytes "
        "differ; this is a fault of the card, its slot or its driver (see dmesg), and no answer from it could be "
        "trusted; leave it out with CUDA_VISIBLE_DEVICES"
    )


def _changed(source: torch.Tensor, target: torch.Tensor, key: int) -> int:
    """How many bytes of one copy differ. Both tensors hold the pattern; what is sent is the pattern ^ key."""
    sent, expected = source ^ key, target ^ key
    received = expected ^ 0xFF
    received.copy_(sent)
    return _differing(received, expected)


def _changed_parcels(source: torch.Tensor, target: torch.Tensor, keys: Sequence[int]) -> list[tuple[int, int]]:
    """Sizes and differing bytes of parcels sent one right after the other, and computed with as they arrive."""
    arrived = [_parcel(source, key).to(target.device) ^ 0xFF for key in keys]
    return [
        (parcel.numel(), _differing(parcel, _parcel(target, key) ^ 0xFF))
        for parcel, key in zip(arrived, keys, strict=True)
    ]


def _parcel(pattern: torch.Tensor, key: int) -> torch.Tensor:
    return torch.cat([piece ^ key for piece in pattern[: sum(PARCEL_PIECES)].split(list(PARCEL_PIECES))])


def _differing(one: torch.Tensor, other: torch.Tensor) -> int:
    return 0 if torch.equal(one, other) else int((one != other).sum().item())


def _size(count: int) -> str:
    return f"{count / MIB:.0f} MiB" if count >= MIB else f"{count:,} bytes"

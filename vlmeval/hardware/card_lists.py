"""Cards as a user describes them (`--cards`), whether the machine has them or not."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from vlmeval.errors import UnknownNameError, UsageError
from vlmeval.hardware.cards import Card, visible_cards

KNOWN_CARDS: Mapping[str, tuple[float, tuple[int, int]]] = {
    "A10": (24, (8, 6)), "A100": (80, (8, 0)), "A100-40": (40, (8, 0)), "A40": (48, (8, 6)), "A5000": (24, (8, 6)),
    "A6000": (48, (8, 6)), "B200": (180, (10, 0)), "H100": (80, (9, 0)), "H200": (141, (9, 0)), "H20": (96, (9, 0)),
    "L4": (24, (8, 9)), "L40S": (48, (8, 9)), "P100": (16, (6, 0)), "T4": (16, (7, 5)), "V100": (32, (7, 0)),
    "V100-16": (16, (7, 0)), "1080TI": (11, (6, 1)), "2080TI": (11, (7, 5)), "3060": (12, (8, 6)), "3090": (24, (8, 6)),
    "4060TI": (16, (8, 9)), "4080": (16, (8, 9)), "4090": (24, (8, 9)), "5090": (32, (12, 0)),
}  # fmt: skip
"""Cards that can be named in --cards: nominal GiB and compute capability."""
MOST_CARDS = 64

_COUNTED = re.compile(r"(?:(\d+)[xX])?(\d+(?:\.\d+)?)")
_NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9 _-]*?)(?::(\d+))?")
_NamedSize = tuple[str, float, "tuple[int, int] | None"]


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

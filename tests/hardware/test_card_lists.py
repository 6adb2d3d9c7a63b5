"""Cards as a user describes them."""

from __future__ import annotations

import pytest

from vlmeval.errors import UnknownNameError, UsageError
from vlmeval.hardware import parse_cards

GIB = 2**30


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("8x24", [24] * 8),
        ("24,12,8", [24, 12, 8]),
        ("2x24,48", [24, 24, 48]),
        ("1X11.5", [11.5]),
        ("H100:2,4090:1", [80, 80, 24]),
        ("RTX 3090", [24]),
        ("a100-40", [40]),
    ],
)
def test_a_description_becomes_cards_in_its_order(text: str, sizes: list[float]) -> None:
    cards = parse_cards(text)
    assert [card.total_bytes / GIB for card in cards] == sizes
    assert [card.index for card in cards] == list(range(len(sizes)))
    assert all(card.free_bytes == card.total_bytes for card in cards)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("0x24", "means no cards"),
        ("2x0", "without memory"),
        ("-2x24", "negative"),
        ("2x-24", "negative"),
        ("24,,8", "describes no card"),
        ("", "describes no card"),
        ("H100:0", "means no cards"),
        ("100x24", "at most 64"),
        ("999999999x24", "at most 64"),
    ],
)
def test_impossible_cards_are_refused_with_what_to_write(text: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        parse_cards(text)


def test_an_unknown_card_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="H100"):
        parse_cards("H1000:2")

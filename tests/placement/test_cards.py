"""Cards as a user describes them, and as CUDA_VISIBLE_DEVICES names them."""

from __future__ import annotations

import pytest

from vlmeval.errors import UnknownNameError, UsageError
from vlmeval.hardware import auto_split_wanted, parse_cards, physical_name, visible_names

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


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("4,6", ("4", "6")),
        ("3", ("3",)),
        ("2, 0", ("2", "0")),
        ("GPU-8932f937-d72c-4106-c12f-20bd9faed9f6,1", ("GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", "1")),
        ("MIG-3e1a2b/1/0", ("MIG-3e1a2b/1/0",)),
        ("", ()),
        ("-1", ()),
        ("0,-1,2", ("0",)),
        ("NoDevFiles", ()),
    ],
)
def test_visible_devices_are_read_as_cuda_reads_them(text: str, names: tuple[str, ...]) -> None:
    assert visible_names({"CUDA_VISIBLE_DEVICES": text}) == names


def test_without_the_variable_every_card_is_visible() -> None:
    assert visible_names({}) is None
    assert physical_name(1, None) == ""


def test_a_card_is_called_what_it_is_outside_the_process() -> None:
    assert physical_name(0, ("4", "6")) == "4"
    assert physical_name(0, ("0", "6")) == ""
    assert physical_name(1, ("0", "GPU-8932")) == "GPU-8932"


def test_a_card_listed_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="twice"):
        visible_names({"CUDA_VISIBLE_DEVICES": "1,1"})


def test_auto_split_is_one_zero_or_left_out() -> None:
    assert auto_split_wanted({}) is None
    assert auto_split_wanted({"AUTO_SPLIT": " "}) is None
    assert auto_split_wanted({"AUTO_SPLIT": "1"}) is True
    assert auto_split_wanted({"AUTO_SPLIT": "0"}) is False
    with pytest.raises(UsageError, match="banana"):
        auto_split_wanted({"AUTO_SPLIT": "banana"})

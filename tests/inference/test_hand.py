"""What a replica has in hand: prepared before its turn, in order, and given back only while it is not begun."""

from __future__ import annotations

import threading

import pytest

from vlmeval.errors import SampleError
from vlmeval.inference.hand import Hand
from vlmeval.inference.protocol import Words


def piece(number: int) -> dict[str, object]:
    return {"type": "piece", "rows": [number]}


def test_pieces_are_prepared_when_they_come_and_begun_in_order() -> None:
    hand, prepared = Hand[str](), list[Words]()
    done = threading.Semaphore(0)

    def prepare(words: Words) -> str:
        prepared.append(words)
        done.release()
        return f"made of {words['rows']}"

    hand.prepare_with(prepare)
    for words in (piece(1), piece(2), {"type": "settle"}):
        hand.put(words)
    for _ in range(2):
        assert done.acquire(timeout=5)
    assert prepared == [piece(1), piece(2)], "before anyone asked"
    for number in (1, 2):
        given = hand.next()
        assert given.prepared is not None and given.prepared.result() == f"made of [{number}]"
    assert hand.next().words == {"type": "settle"}


def test_only_what_is_not_begun_is_given_back() -> None:
    hand = Hand[None]()
    hand.prepare_with(lambda words: None)
    for words in (piece(1), piece(2), {"type": "settle"}, piece(3)):
        hand.put(words)
    assert hand.next().words == piece(1)
    assert hand.give_back() == [piece(2), piece(3)]
    assert hand.give_back() == []
    assert hand.next().words == {"type": "settle"}


def test_an_error_while_preparing_comes_when_its_turn_does() -> None:
    hand = Hand[None]()

    def prepare(words: Words) -> None:
        raise SampleError("cannot be read")

    hand.prepare_with(prepare)
    hand.put(piece(1))
    given = hand.next()
    assert given.prepared is not None
    with pytest.raises(SampleError, match="cannot be read"):
        given.prepared.result()


def test_who_has_nothing_in_hand_waits_for_it() -> None:
    hand, seen = Hand[None](), list[Words]()
    waiting = threading.Thread(target=lambda: seen.append(hand.next().words))
    waiting.start()
    hand.put({"type": "alive"})
    waiting.join(5)
    assert seen == [{"type": "alive"}]

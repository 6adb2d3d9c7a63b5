"""Cards that corrupt copies between them are found, named and driven around; the answers stay the same."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch

from tests.placement import tiny_models
from vlmeval.errors import PlacementError
from vlmeval.placement import copy_check
from vlmeval.placement.copy_check import CopyCheck, Pair, card_pairs, check_copies
from vlmeval.placement.detour import HostDetour
from vlmeval.placement.dispatch import dispatch
from vlmeval.placement.simulate import real_cards
from vlmeval.placement.simulate.real_cards import CardTensor, Way

CARDS = 3
SMALL_SIZES = (1, 7, 4_099)
PATIENCE_S = 60.0
"""Simulated cards are slow, and here it is not their time that matters."""
DEVICES = tuple(torch.device("cuda", card) for card in range(CARDS))
MODES: list[Callable[[], Any]] = [torch.no_grad, torch.inference_mode]


def checked(*, sizes: Sequence[int] = SMALL_SIZES, budget_s: float = PATIENCE_S, cards: int = CARDS) -> CopyCheck:
    """The check of every pair of the first so many cards."""
    return check_copies(card_pairs(DEVICES[:cards]), sizes=sizes, budget_s=budget_s)


def pair(source: int, target: int) -> Pair:
    return torch.device("cuda", source), torch.device("cuda", target)


def three_stages(family: str) -> dict[str, int]:
    """Vision on card 0, the language model's layers on 1 and 2."""
    model = tiny_models.loaded(family).model
    parts = tiny_models.parts(model)
    vision = next(place for place, names in enumerate(parts) if "model.language_model.embed_tokens" in names)
    return tiny_models.device_map(model, [vision, len(parts) - 2])


def run(
    family: str, device_map: Mapping[str, int], *, corrupt: set[Way], through_host: frozenset[Pair] = frozenset()
) -> tuple[torch.Tensor, torch.Tensor, dict[tuple[str, str], int]]:
    """Logits and generated tokens on three cards of which some pairs are broken, and the copies that were made."""
    with real_cards.real_cards(CARDS, corrupt=corrupt) as ledger:
        model = tiny_models.fresh(family)
        real_cards.place(model, device_map, ledger)
        dispatch(model, device_map, through_host=through_host)
        inputs = real_cards.to_card(tiny_models.inputs(family), 0, ledger)
        ledger.forget_copies()
        logits = model(**inputs).logits.cpu()
        tokens = model.generate(**inputs, **tiny_models.generation()).cpu()
        return logits, tokens, dict(ledger.copies)


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
def test_every_way_that_a_model_takes_can_lead_through_the_host(family: str) -> None:
    device_map = three_stages(family)
    every = frozenset(card_pairs(DEVICES))
    logits, tokens, copies = run(
        family, device_map, corrupt=set(itertools.permutations(range(CARDS), 2)), through_host=every
    )
    assert torch.equal(logits, tiny_models.whole_logits(family))
    assert torch.equal(tokens, tiny_models.whole_answer(family))
    assert all("cpu" in way for way in copies)


def test_a_broken_pair_changes_the_logits_and_the_check_saves_them() -> None:
    device_map = three_stages("qwen2vl")
    corrupt: set[Way] = {(1, 2)}
    unchecked, _, _ = run("qwen2vl", device_map, corrupt=corrupt)
    assert not torch.equal(unchecked, tiny_models.whole_logits("qwen2vl"))
    with real_cards.real_cards(CARDS, corrupt=corrupt):
        found = checked()
    assert [broken.pair for broken in found.broken] == [pair(1, 2)]
    logits, tokens, copies = run("qwen2vl", device_map, corrupt=corrupt, through_host=found.through_host)
    assert torch.equal(logits, tiny_models.whole_logits("qwen2vl"))
    assert torch.equal(tokens, tiny_models.whole_answer("qwen2vl"))
    assert ("cuda:1", "cuda:2") not in copies
    assert ("cuda:0", "cuda:1") in copies  # the others go directly, as before


@pytest.mark.parametrize("ways", [{(0, 2)}, {(2, 0)}, {(0, 1), (2, 1)}])
def test_the_broken_pairs_are_named_and_no_other(ways: set[Way]) -> None:
    with real_cards.real_cards(CARDS, corrupt=ways):
        assert {broken.pair for broken in checked().broken} == {pair(int(a), int(b)) for a, b in ways}


def test_the_warning_tells_pair_bytes_consequence_and_ways_out() -> None:
    with real_cards.real_cards(CARDS, corrupt={(0, 2)}):
        found = checked()
    told = found.warning()
    for part in ("from cuda:0 to cuda:2 (1 of 1 bytes)", "host memory", "same answers, slower", "iommu=pt"):
        assert part in told
    assert "\n" not in told
    assert "1 broken (cuda:0 to cuda:2)" in found.summary()
    assert found.through_host == {pair(0, 2), pair(2, 0)}


def test_healthy_cards_give_no_warning_and_a_line_for_the_stamp() -> None:
    with real_cards.real_cards(CARDS):
        found = checked()
    assert (found.broken, found.warning()) == ((), "")
    assert found.summary().startswith("6 pairs of cards, copies of 4,099 bytes exact, ")


def test_a_pair_that_fails_large_copies_only_is_found() -> None:
    with real_cards.real_cards(2, corrupt={(1, 0)}, corrupt_from_bytes=2**20):
        assert [b.pair for b in checked(sizes=copy_check.SIZES[:-1], cards=2).broken] == [pair(1, 0)]
        assert check_copies(card_pairs(DEVICES[:1])).broken == ()


def test_a_pair_that_fails_parcels_only_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    with real_cards.real_cards(2, corrupt={(0, 1)}, corrupt_from_bytes=sum(copy_check.PARCEL_PIECES)):
        monkeypatch.setattr(copy_check, "_changed", lambda *_: 0)
        assert [b.size_bytes for b in checked(sizes=[2_000], cards=2).broken] == [1_362]


def test_a_copy_that_never_arrives_is_not_taken_for_an_earlier_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with real_cards.real_cards(2):
        monkeypatch.setattr(CardTensor, "copy_", lambda self, source: self, raising=False)
        found = checked(sizes=[4_099], cards=2)
    assert [(b.size_bytes, b.wrong_bytes) for b in found.broken] == [(4_099, 4_099)] * 2


@pytest.mark.parametrize("way", [("cpu", 1), (1, "cpu")])
def test_a_card_that_fails_with_the_host_is_named_rather_than_its_pairs(way: Way) -> None:
    with (
        real_cards.real_cards(CARDS, corrupt={way}),
        pytest.raises(PlacementError, match=r"cuda:1 does not give back.*1 of 1 bytes differ.*CUDA_VISIBLE_DEVICES"),
    ):
        checked()


def test_when_the_time_is_over_it_is_said_what_was_not_checked() -> None:
    with real_cards.real_cards(CARDS):
        none = checked(budget_s=0.0)
        assert set(none.exact_bytes.values()) == {0}
    assert "not checked (0.0 s were over): cuda:0 to cuda:1" in none.warning()


def test_a_full_card_ends_the_growing_of_its_pairs_only() -> None:
    sizes = (1, 4_099, 2**17)
    with real_cards.real_cards(CARDS, {1: 2**17}):
        found = checked(sizes=sizes)
    assert found.full == (DEVICES[1],)
    assert found.exact_bytes[pair(0, 2)] == sizes[-1]
    assert found.exact_bytes[pair(0, 1)] == sizes[-2]
    assert found.warning() == ""


def test_pairs_of_neighbouring_stages_and_of_the_first_come_before_others() -> None:
    devices = [torch.device("cpu"), *(torch.device("cuda", card) for card in (3, 0, 1, 2, 3))]
    pairs = [(source.index, target.index) for source, target in card_pairs(devices)]
    assert pairs[:3] == [(3, 0), (0, 1), (1, 2)]
    assert set(pairs[3:8]) == {(3, 1), (3, 2), (0, 3), (1, 3), (2, 3)}
    assert len(pairs) == len(set(pairs)) == 12


@pytest.mark.parametrize("mode", MODES)
def test_the_detour_catches_every_way_to_copy(mode: Callable[[], contextlib.AbstractContextManager]) -> None:
    numbers = torch.arange(200, dtype=torch.float32).view(10, 20)
    ways: dict[str, Callable[[torch.Tensor], Any]] = {
        "to a device": lambda own: own.to("cuda:1"),
        "to a device and another type": lambda own: own.to("cuda:1", torch.float64, non_blocking=True).float(),
        "to another": lambda own: own.to(torch.zeros(1, device="cuda:1")),
        "as a type": lambda own: own.type_as(torch.zeros(1, device="cuda:1")),
        "copy_": lambda own: torch.zeros(10, 20, device="cuda:1").copy_(own),
        "slices": lambda own: torch.zeros(12, 20, device="cuda:1")[:10].copy_(own),
        "as_tensor": lambda own: torch.as_tensor(own, device="cuda:1"),
        "turned": lambda own: own.t().to("cuda:1").t(),
        "as generate() takes logits": lambda own: own[:, :].to(copy=True, dtype=torch.float32, device="cuda:1"),
    }
    for name, copy in ways.items():
        with real_cards.real_cards(2, corrupt={(0, 1)}) as ledger, mode():
            own = real_cards.to_card({"own": numbers}, 0, ledger)["own"]
            assert not torch.equal(copy(own).numbers, numbers), name
            with HostDetour([pair(0, 1)]).taken():
                arrived = copy(own)
            assert torch.equal(arrived.numbers, numbers), name
            assert arrived.device == DEVICES[1], name


def test_a_detour_without_pairs_is_no_mode_at_all() -> None:
    from torch.utils._python_dispatch import _get_current_dispatch_mode

    with HostDetour([]).taken():
        assert _get_current_dispatch_mode() is None
    detour = HostDetour([pair(0, 1)])
    with detour.taken(), detour.taken():
        assert _get_current_dispatch_mode() is detour
    assert _get_current_dispatch_mode() is None


@pytest.mark.gpu
def test_real_cards_are_checked_in_under_two_seconds() -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two cards")
    devices = [torch.device("cuda", card) for card in range(torch.cuda.device_count())]
    for device in devices:
        torch.ones(1, device=device)  # a model would have been loaded by now
    found = check_copies(card_pairs(devices))
    print(found.summary(), found.warning())
    assert found.seconds < 2
    assert all(found.exact_bytes[way] or way in found.through_host for way in card_pairs(devices))


@pytest.mark.gpu
def test_one_real_card_gives_back_what_it_was_given() -> None:
    card = torch.device("cuda", 0)
    found = check_copies([(card, card)])  # no pair, but the same steps on one card
    assert (found.broken, found.exact_bytes[card, card]) == ((), copy_check.SIZES[-1])
    assert found.seconds < 2

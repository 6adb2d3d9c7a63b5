"""Rates and the time that is left: no nonsense at the start, and margins that say how little is known."""

from __future__ import annotations

import random
from dataclasses import asdict

import pytest

from vlmeval.report.live import (
    Ahead,
    BenchmarkView,
    CardView,
    Eta,
    Pace,
    Rate,
    ReplicaView,
    RunView,
    UnderWay,
    duration,
    unit_of,
)


def test_a_rate_is_not_known_before_something_has_finished_and_a_second_has_passed() -> None:
    rate = Rate(100.0)
    assert rate.per_s(105.0) is None
    quick = Rate(100.0)
    quick.add(100.01, 1)
    assert quick.per_s(100.02) is None, "a hundred a second would be nonsense"


def test_batches_give_an_even_rate_and_not_a_saw() -> None:
    rate, seen = Rate(0.0), []
    for second in range(1, 200):
        if second % 20 == 0:
            for _ in range(8):
                rate.add(second + random.Random(second).random() / 100, 1)
        if (now := rate.per_s(second + 0.5)) is not None:
            seen.append(now)
    assert seen and all(now == pytest.approx(0.4, rel=0.05) for now in seen)


def test_a_rate_follows_the_last_half_minute_and_falls_when_nothing_comes() -> None:
    rate = Rate(0.0)
    for tenth in range(1, 1000):
        rate.add(tenth / 10, 1 if tenth < 500 else 3)
    assert rate.per_s(100.0) == pytest.approx(30, rel=0.02)
    assert (rate.per_s(130.0) or 99) < 18, "nothing for half a minute"


def test_time_left_goes_by_cost_and_not_by_count() -> None:
    pace = Pace()
    for cost in (1000.0, 900.0, 800.0, 700.0):
        pace.learn(0, cost, cost / 100)
    eta = pace.eta([Ahead(benchmark=0, pieces=10, cost=500.0)], [], replicas=1)
    assert eta is not None and eta.seconds == pytest.approx(5.0) and eta.margin_s == pytest.approx(0, abs=1e-6)
    two = pace.eta([Ahead(benchmark=0, pieces=10, cost=500.0)], [], replicas=2)
    assert two is not None and two.seconds == pytest.approx(2.5)


def test_the_last_long_piece_is_not_shared_among_replicas_and_its_age_counts() -> None:
    pace = Pace()
    for _ in range(5):
        pace.learn(0, 100.0, 10.0)
    under_way = [UnderWay(benchmark=0, cost=100.0, age_s=4.0)]
    eta = pace.eta([], under_way, replicas=8)
    assert eta is not None and eta.seconds == pytest.approx(6.0)
    late = pace.eta([], [UnderWay(benchmark=0, cost=100.0, age_s=60.0)], replicas=8)
    assert late is not None and late.seconds == 0.0


def test_nothing_finished_says_nothing_and_one_piece_says_next_to_nothing() -> None:
    pace, ahead = Pace(), [Ahead(benchmark=0, pieces=4, cost=400.0)]
    assert pace.eta(ahead, [], replicas=1) is None
    pace.learn(0, 100.0, 10.0)
    eta = pace.eta(ahead, [], replicas=1)
    assert eta is not None and eta.margin_s >= eta.seconds == pytest.approx(40.0)


def test_a_benchmark_nobody_has_seen_makes_the_margin_wide() -> None:
    pace = Pace()
    for _ in range(20):
        pace.learn(0, 100.0, 10.0)
    known = pace.eta([Ahead(benchmark=0, pieces=10, cost=1000.0)], [], replicas=1)
    unseen = pace.eta([Ahead(benchmark=1, pieces=10, cost=1000.0)], [], replicas=1)
    assert known is not None and unseen is not None
    assert known.seconds == unseen.seconds == pytest.approx(100.0)
    assert known.margin_s == pytest.approx(0, abs=1e-4) and unseen.margin_s == pytest.approx(100.0)


def test_the_margin_holds_what_it_says_for_pieces_that_scatter() -> None:
    held = 0
    for attempt in range(300):
        chance, pace = random.Random(attempt), Pace()
        times = [chance.lognormvariate(0, 0.6) for _ in range(40)]
        for seconds in times[:12]:
            pace.learn(0, 50.0, seconds)
        eta = pace.eta([Ahead(benchmark=0, pieces=28, cost=28 * 50.0)], [], replicas=1)
        assert eta is not None
        held += abs(sum(times[12:]) - eta.seconds) <= eta.margin_s
    assert 0.88 < held / 300 <= 1.0, "about 19 of 20"


@pytest.mark.parametrize(
    ("seconds", "margin_s", "told"),
    [
        (200, 15, "3 min 20 s ± 15 s"),
        (12, 18, "12 s, at most 30 s"),
        (12, 60, "about 12 s"),
        (9.96, 0.04, "10 s ± 0.0 s"),
        (7300, 700, "2 h 01 min ± 11 min 40 s"),
    ],
)
def test_time_left_in_words(seconds: float, margin_s: float, told: str) -> None:
    assert str(Eta(seconds=seconds, margin_s=margin_s)) == told


def test_a_view_is_plain_values_and_sums_its_parts() -> None:
    cards = (CardView(card="0", planned_bytes=2**30, now_bytes=1, peak_bytes=2**29),)
    view = RunView(
        model="m",
        replicas=tuple(ReplicaView(name=f"replica {n}", state="answering", deaths=n, cards=cards) for n in range(3)),
        benchmarks=(
            BenchmarkView(name="A", total=10, done=4, failed=1),
            BenchmarkView(name="B", total=5, done=5),
        ),
        elapsed_s=2.0,
        first_done=3,
    )
    assert (view.done, view.total, view.failed, view.deaths, view.mean_per_s) == (9, 15, 1, 3, 3.0)
    assert view.label == "2 benchmarks" and cards[0].fullness == 0.5
    assert asdict(view)["replicas"][2]["cards"][0]["peak_bytes"] == 2**29


def test_small_memory_is_told_in_mib_and_large_in_gib() -> None:
    assert unit_of([CardView(card="0", now_bytes=2**20)]) == (2**20, "MiB")
    assert unit_of([CardView(card="0", now_bytes=2**20), CardView(card="1", planned_bytes=2**33)]) == (2**30, "GiB")
    assert unit_of([]) == (2**30, "GiB")


def test_durations_read_well() -> None:
    assert [duration(s) for s in (0.04, 9.94, 9.96, 59.6, 3599.6, 3661)] == [
        "0.0 s", "9.9 s", "10 s", "1 min 00 s", "1 h 00 min", "1 h 01 min",
    ]  # fmt: skip

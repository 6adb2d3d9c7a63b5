"""Intervals: they cover, they know clusters, and they never claim certainty."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmeval.scoring.interval import clustered_interval, wilson_interval


def test_no_rows_have_no_interval() -> None:
    assert clustered_interval([]) is None


@pytest.mark.parametrize("hit", [0.0, 1.0])
def test_one_row_is_next_to_no_evidence(hit: float) -> None:
    interval = clustered_interval([hit])
    assert interval is not None
    assert interval[1] - interval[0] > 0.75
    assert interval[0] <= hit <= interval[1]


def test_all_right_and_all_wrong_do_not_claim_certainty() -> None:
    all_right, all_wrong = clustered_interval([1.0] * 50), clustered_interval([0.0] * 50)
    assert all_right is not None
    assert all_wrong is not None
    assert all_right == pytest.approx((0.9287, 1.0), abs=1e-3)
    assert all_wrong == pytest.approx((0.0, 0.0713), abs=1e-3)


def test_all_right_in_few_clusters_is_less_evidence_than_in_many() -> None:
    few = clustered_interval([1.0] * 40, [i // 4 for i in range(40)])
    assert few == pytest.approx(wilson_interval(1.0, 10))


def test_wilson_matches_its_published_example() -> None:
    assert wilson_interval(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)  # Newcombe 1998, table I


def test_copies_of_the_same_rows_do_not_narrow_a_clustered_interval() -> None:
    hits = [1.0, 0.0, 1.0, 1.0] * 25
    once = clustered_interval(hits)
    copied = clustered_interval(hits * 4, list(range(100)) * 4)
    naive = clustered_interval(hits * 4)
    assert once is not None
    assert naive is not None
    assert copied == pytest.approx(once)
    assert naive[1] - naive[0] < 0.6 * (once[1] - once[0])


def test_the_same_seed_gives_the_same_interval() -> None:
    hits = list(np.random.default_rng(1).random(300))
    assert clustered_interval(hits, seed=3) == clustered_interval(hits, seed=3)
    assert clustered_interval(hits, seed=3) != clustered_interval(hits, seed=4)


def test_independent_rows_agree_with_the_normal_approximation() -> None:
    hits = [1.0] * 700 + [0.0] * 300
    half = 1.96 * (0.7 * 0.3 / 1000) ** 0.5
    assert clustered_interval(hits) == pytest.approx((0.7 - half, 0.7 + half), abs=0.003)


def test_the_counted_kinds_give_the_plain_bootstrap_over_clusters() -> None:
    rng = np.random.default_rng(5)
    clusters = [list(rng.random(rng.integers(1, 5)) < 0.5 + 0.4 * rng.random()) for _ in range(60)]
    means = []
    for _ in range(4000):
        drawn = rng.integers(0, 60, 60)
        means.append(sum(sum(clusters[i]) for i in drawn) / sum(len(clusters[i]) for i in drawn))
    hits = [float(hit) for cluster in clusters for hit in cluster]
    names = [i for i, cluster in enumerate(clusters) for _ in cluster]
    assert clustered_interval(hits, names) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=0.02)


def test_about_95_of_100_intervals_hold_the_true_value() -> None:
    rng = np.random.default_rng(7)
    held = 0
    for trial in range(300):
        per_cluster = np.repeat(rng.beta(6, 2, 120), 4)  # mean 0.75, rows of a cluster alike
        hits = (rng.random(480) < per_cluster).astype(float)
        interval = clustered_interval(list(hits), [i // 4 for i in range(480)], seed=trial)
        assert interval is not None
        held += interval[0] <= 0.75 <= interval[1]
    assert 0.91 <= held / 300 <= 0.98


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 5)), min_size=1, max_size=40))
def test_an_interval_holds_its_mean_and_stays_in_range(rows: list[tuple[float, int]]) -> None:
    hits = [hit for hit, _ in rows]
    interval = clustered_interval(hits, [name for _, name in rows])
    assert interval is not None
    assert -1e-9 <= interval[0] <= sum(hits) / len(hits) + 1e-9
    assert sum(hits) / len(hits) - 1e-9 <= interval[1] <= 1 + 1e-9

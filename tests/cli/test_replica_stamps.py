"""Counts of a replica that was started again."""

from __future__ import annotations

from vlmeval.cli.replica_stamps import ReplicaStamps


def test_counts_and_moves_of_earlier_lives_stay() -> None:
    stamps = ReplicaStamps()
    for life in range(1, 4):
        stamps.begins("replica 0")
        stamps.told("replica 0", {"images": 4, "images_reused": 1, "moves": [{"why": f"{life}a"}], "plan": [life]})
        stamps.told("replica 0", {"images": 8, "images_reused": 3, "moves": [{"why": f"{life}b"}], "plan": [life]})
    stamps.begins("replica 1")
    stamps.told("replica 1", {"images": 2})
    found = stamps.all()
    assert found["replica 0"]["images"] == 24 and found["replica 0"]["images_reused"] == 9
    assert [move["why"] for move in found["replica 0"]["moves"]] == ["1b", "2b", "3b"]
    assert found["replica 0"]["plan"] == [3] and found["replica 1"] == {"images": 2}


def test_a_life_that_says_nothing_takes_nothing_away() -> None:
    stamps = ReplicaStamps()
    stamps.begins("replica 0")
    stamps.told("replica 0", {"images": 4})
    stamps.begins("replica 0")
    assert stamps.all() == {"replica 0": {"images": 4}}
    stamps.begins("replica 0")
    assert stamps.told("replica 0", {"image_reuse": "off: it saved no time"})["images"] == 4

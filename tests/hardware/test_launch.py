"""What the environment says: ranks, the cards each may see, and AUTO_SPLIT."""

from __future__ import annotations

import pytest

from vlmeval.errors import UsageError
from vlmeval.hardware import LaunchEnvironment, auto_split_wanted, launch_environment, rank_environment, visible_names


def launched(rank: int, ranks: int) -> LaunchEnvironment:
    return LaunchEnvironment(rank=rank, world_size=ranks, local_rank=rank, local_world_size=ranks)


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


def test_a_card_listed_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="twice"):
        visible_names({"CUDA_VISIBLE_DEVICES": "1,1"})


@pytest.mark.parametrize(
    ("visible", "rank", "each", "share"),
    [
        ("0,1,2,3", 1, 1, "1"),
        ("0,1,2,3", 1, None, "2,3"),
        ("0,1,2,3,4", 1, 2, "2,3"),
        ("7,5", 1, 1, "5"),
        ("0,1,2", 0, None, "0"),
        ("GPU-8932,GPU-1234", 0, 1, "GPU-8932"),
    ],
)
def test_each_rank_has_cards_of_its_own(visible: str, rank: int, each: int | None, share: str) -> None:
    found = rank_environment(launched(rank, 2), each, {"CUDA_VISIBLE_DEVICES": visible})
    assert found == {"CUDA_VISIBLE_DEVICES": share}


def test_more_ranks_than_cards_are_refused_and_no_card_at_all_is_fine() -> None:
    with pytest.raises(UsageError, match=r"4 ranks on this machine with 1 of 2 visible cards each"):
        rank_environment(launched(0, 4), 1, {"CUDA_VISIBLE_DEVICES": "0,1"})
    assert rank_environment(launched(0, 4), 1, {"CUDA_VISIBLE_DEVICES": ""}) == {}


def test_what_torchrun_sets_is_read() -> None:
    found = launch_environment(
        {
            "RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4", "MASTER_ADDR": "localhost",
            "MASTER_PORT": "1234", "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RUN_ID": "abc",
        }
    )  # fmt: skip
    assert (found.rank, found.world_size, found.master, found.has_agent) == (1, 4, ("localhost", 1234), True)
    assert found.launch_id == "abc/0"
    assert launch_environment({}) == LaunchEnvironment(launch_id="/0")


def test_auto_split_is_one_zero_or_left_out() -> None:
    assert auto_split_wanted({}) is None
    assert auto_split_wanted({"AUTO_SPLIT": " "}) is None
    assert auto_split_wanted({"AUTO_SPLIT": "1"}) is True
    assert auto_split_wanted({"AUTO_SPLIT": "0"}) is False
    with pytest.raises(UsageError, match="banana"):
        auto_split_wanted({"AUTO_SPLIT": "banana"})

"""What the machine is, told without torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

from vlmeval import hardware
from vlmeval.errors import UsageError
from vlmeval.hardware import (
    LaunchEnvironment,
    cards_possible,
    cpu_cores,
    launch_environment,
    process_memory,
    rank_environment,
)


def launched(rank: int, ranks: int) -> LaunchEnvironment:
    return LaunchEnvironment(rank=rank, world_size=ranks, local_rank=rank, local_world_size=ranks)


def test_a_machine_without_device_files_has_no_cards_and_torch_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "CARD_FILES", ("/dev/no-such-card*",))
    monkeypatch.setattr(hardware, "entry_points", lambda group: ())
    monkeypatch.setattr(sys, "platform", "linux")
    assert not cards_possible()
    monkeypatch.setattr(hardware, "CARD_FILES", ("/dev/null",))
    assert cards_possible()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not cards_possible()


def test_counting_cores_and_cards_imports_no_torch() -> None:
    code = (
        "import sys; from vlmeval import hardware; hardware.CARD_FILES = ()\n"
        "print(hardware.visible_cards(), hardware.cpu_cores() > 0, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "() True False"


def test_a_quota_of_the_container_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "_cpu_quota", lambda: 0.5)
    assert cpu_cores() == 1


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


def test_a_process_knows_its_memory_and_its_most() -> None:
    now, peak = process_memory()
    if now is None:
        pytest.skip("this system does not say")
    held = b"\x01" * (64 * 2**20)
    more, highest = process_memory()
    assert peak and more and highest and now <= peak
    assert more - now > 32 * 2**20 and highest >= more
    del held

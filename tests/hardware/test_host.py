"""Cores and memory that this process may use."""

from __future__ import annotations

import pytest

from vlmeval.hardware import cpu_cores, host, process_memory


def test_a_quota_of_the_container_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "_cpu_quota", lambda: 0.5)
    assert cpu_cores() == 1


def test_a_process_knows_its_memory_and_its_most() -> None:
    now, peak = process_memory()
    if now is None:
        pytest.skip("this system does not say")
    held = b"\x01" * (64 * 2**20)
    more, highest = process_memory()
    assert peak and more and highest and now <= peak
    assert more - now > 32 * 2**20 and highest >= more
    del held

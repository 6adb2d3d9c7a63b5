"""Where files go."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlmeval.storage import cache_folder


def test_one_variable_moves_every_cache_and_else_the_desktops_rule_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLMEVAL_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder("judge") == Path.home() / ".cache" / "vlmeval" / "judge"
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_folder("judge") == Path("/xdg/vlmeval/judge")
    monkeypatch.setenv("VLMEVAL_CACHE", "~/mine")
    assert cache_folder("judge") == Path.home() / "mine" / "judge"

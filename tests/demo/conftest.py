"""The tiny checkpoints, loaded once; and a copy of one for tests that break it."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest

from tests.one_thread import one_thread as one_thread
from vlmeval.demo import evaluate


@pytest.fixture(scope="session")
def tiny() -> Callable[[str], evaluate.Loaded]:
    """The shipped checkpoint of a family in fp32, shared: not to be changed."""
    loaded: dict[str, evaluate.Loaded] = {}

    def get(family: str) -> evaluate.Loaded:
        if family not in loaded:
            loaded[family] = evaluate.load(evaluate.SHIPPED_FOLDER[family])
        return loaded[family]

    return get


@pytest.fixture
def breakable(tiny: Callable[[str], evaluate.Loaded]) -> Callable[[str], evaluate.Loaded]:
    """A copy of a checkpoint that a test may break."""
    return lambda family: copy.deepcopy(tiny(family))


@pytest.fixture(scope="session")
def bench() -> list[evaluate.BenchRow]:
    """All rows of ShapesBench, rotations included."""
    return evaluate.read_bench()


@pytest.fixture(scope="session")
def some_rows(bench: list[evaluate.BenchRow]) -> list[evaluate.BenchRow]:
    """36 questions, six of each type, with all their rotations: 120 rows."""
    return [row for row in bench if row.group <= 36]


@pytest.fixture(scope="session")
def few_rows(some_rows: list[evaluate.BenchRow]) -> list[evaluate.BenchRow]:
    """The same 36 questions without their rotations; guessing scores a third."""
    return some_rows[:36]

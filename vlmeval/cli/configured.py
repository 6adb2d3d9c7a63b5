"""The benchmarks that a command which runs no model is about: named, or those of a --config file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vlmeval.config import read_config_datasets
from vlmeval.dataset.config_entry import resolve_among
from vlmeval.dataset.registry import DatasetPlan


def plans_of(names: Sequence[str], config: str | None) -> list[DatasetPlan]:
    """The benchmarks called `names`, looked up in the config's "data" first; without names all that are there.

    Raises UsageError for a config or a name that cannot be used.
    """
    entries = read_config_datasets(Path(config).expanduser()) if config else {}
    return resolve_among(tuple(dict.fromkeys(names or entries)), entries)

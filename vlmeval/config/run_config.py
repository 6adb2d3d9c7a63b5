"""The settings of one run, checked once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from vlmeval.config.model_spec import ModelSpec
from vlmeval.errors import UnknownNameError, UsageError
from vlmeval.judging.settings import JudgeSettings
from vlmeval.vlm.placement_request import Placement

MODES = ("all", "infer", "eval")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One run, checked once: what to evaluate on what, and how.

    `limit` counts rows of each dataset from the first; `batch_size` None: as many as fit the cards.
    """

    models: tuple[ModelSpec, ...]
    datasets: tuple[str, ...]
    dataset_settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    work_dir: Path = Path("outputs")
    mode: str = "all"
    limit: int | None = None
    batch_size: int | None = None
    seed: int = 0
    reuse: bool = True
    verbose: bool = False
    placement: Placement = field(default_factory=Placement)
    judge: JudgeSettings | None = None
    dry_run: bool = False
    simulate_cards: str = ""
    prediction_format: Literal["xlsx", "tsv", "csv", "json"] = "xlsx"
    evaluation_format: Literal["xlsx", "tsv", "csv", "json"] = "csv"

    def __post_init__(self) -> None:
        if not self.models or not self.datasets:
            missing = "--model" if not self.models else "--data"
            raise UsageError(f"{missing} is missing: name at least one, or give --config a file that does")
        if self.mode not in MODES:
            raise UnknownNameError("mode", self.mode, MODES)
        for name in ("limit", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"--{name.replace('_', '-')} {value} must be at least 1")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"--seed {self.seed} must be from 0 to 2^63 - 1")

"""docs/benchmarks.md says what the code does."""

from __future__ import annotations

import json
import re
from pathlib import Path

from vlmeval.dataset import resolve_config, supported_datasets
from vlmeval.dataset.config_entry import CONFIG_KEYS
from vlmeval.dataset.registry import TRAITS
from vlmeval.scoring.rules import RULES

from .tsv_files import write_tsv

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md").read_text(encoding="utf-8")


def table_rows() -> dict[str, list[str]]:
    lines = (re.split(r"\s*\|\s*", line.strip("| ")) for line in PAGE.splitlines() if line.startswith("| "))
    return {cells[0].strip("`"): cells[1:] for cells in lines}


def test_every_benchmark_is_there_with_its_traits_and_rule() -> None:
    rows = table_rows()
    for name, spec in supported_datasets.items():
        traits, rule, judge = rows[name][:3]
        assert (frozenset(traits.split()), rule) == (spec.traits, spec.scoring), name
        assert (judge == "yes") == bool(RULES[spec.scoring].judge), name


def test_every_rule_key_and_trait_is_there() -> None:
    rows = table_rows()
    assert set(RULES) <= set(rows)
    assert all(f"`{key}`" in PAGE for key in (*CONFIG_KEYS, *TRAITS))


def test_the_example_is_taken_as_it_stands(tmp_path: Path) -> None:
    example = json.loads(PAGE.split("```json\n")[1].split("```")[0])
    (settings,) = example["data"].values()
    assert len(json.dumps(example, indent=1).splitlines()) <= 20
    path = write_tsv(tmp_path / settings["path"], [{"index": "1", "image": "1", "question": "?", "answer": "7"}])
    dataset = resolve_config("Counting", {**settings, "path": str(path)}).open()
    assert dataset.scorable
    assert dataset.build_text(dataset[0]) == "?\nAnswer the question using a single word or phrase."

"""What there is to evaluate on, told without opening or fetching anything."""

from __future__ import annotations

from pathlib import Path

from vlmeval.dataset.data_root import default_data_root
from vlmeval.dataset.known import DatasetSpec, supported_datasets, traits_of_unknown
from vlmeval.dataset.same_file import benchmarks_of_stem
from vlmeval.scoring.rules import RULES


def dataset_names(data_root: Path | None = None) -> list[str]:
    """The known names, then the stems of other TSVs in the data root."""
    root = data_root if data_root is not None else default_data_root()
    dropped = sorted(path.stem for path in root.glob("*.tsv")) if root.is_dir() else []
    return [*supported_datasets, *(stem for stem in dropped if stem not in supported_datasets)]


def dataset_listing(data_root: Path | None = None) -> list[dict[str, object]]:
    """One dict a benchmark, its keys the columns of `vlmeval list datasets`."""
    root = data_root if data_root is not None else default_data_root()
    return [_entry(name, root) for name in dataset_names(root)]


def _entry(name: str, root: Path) -> dict[str, object]:
    known = supported_datasets.get(name)
    path = known.path(root) if known else root / f"{name}.tsv"
    spec = known or next(iter(benchmarks_of_stem(name)), None)
    size_bytes = path.stat().st_size if path.is_file() else 0
    return {
        "name": name,
        "type": spec.type if spec else "by its columns",
        "traits": sorted(spec.traits if spec else traits_of_unknown(name)),
        "scoring": _scoring(spec),
        "on disk": f"{size_bytes / 2**20:,.1f} MiB" if size_bytes else "no",
        "notes": known.answer_note if known else f"found in {root}" + (f", taken as {spec.name}" if spec else ""),
    }


def _scoring(spec: DatasetSpec | None) -> str:
    """The rule, and whether it needs a judge."""
    if spec is None:
        return "by its columns"
    return f"{spec.scoring} (needs a judge)" if RULES[spec.scoring].judge else spec.scoring

"""From a name, a path or a config entry to an open benchmark.

`resolve_dataset` checks everything that can be checked without opening a file, so that a typo fails at once;
`open_dataset` also fetches and opens.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vlmeval.dataset.base import Dataset, index_with_progress
from vlmeval.dataset.data_root import default_data_root
from vlmeval.dataset.known import DatasetSpec, supported_datasets, traits_of_unknown
from vlmeval.dataset.listing import dataset_listing, dataset_names
from vlmeval.dataset.mcq import ImageMCQDataset
from vlmeval.dataset.tsv_index import TsvIndex, check_file
from vlmeval.dataset.vqa import ImageVQADataset
from vlmeval.dataset.yes_no import ImageYORNDataset
from vlmeval.errors import ConfigError, DatasetError, DownloadError, UnknownNameError

__all__ = [
    "DatasetPlan",
    "dataset_classes",
    "dataset_from_config",
    "dataset_listing",
    "dataset_names",
    "open_dataset",
    "resolve_config",
    "resolve_dataset",
]

dataset_classes: dict[str, type[Dataset]] = {
    "ImageMCQDataset": ImageMCQDataset,
    "ImageYORNDataset": ImageYORNDataset,
    "ImageVQADataset": ImageVQADataset,
}
"""The classes a config may name, by upstream's names."""

PLANNED_CLASSES = ("OCRBench", "MMMUDataset", "MathVista", "MMVet", "LLaVABench")
"""Upstream's classes that are still to come; naming one says so."""

TRAITS = ("circular", "multi_image", "image_markers", "short_answer", "judge", "yes_no_suffix", "fine_print",
          "small_images", "own_wording", "reasoning", "chart", "document", "one_word", "detailed")  # fmt: skip
CONFIG_KEYS = ("class", "dataset", "traits", "mirror")


@dataclass(frozen=True, kw_only=True)
class DatasetPlan:
    """A benchmark that was found and not opened yet. `dataset_class` is None where the columns will tell.

    `spec` is None for a TSV that is in no table; `fetch` says that the file comes from the spec's URL unless it is
    there with the right MD5.
    """

    name: str
    path: Path
    data_root: Path
    dataset_class: type[Dataset] | None
    traits: frozenset[str]
    spec: DatasetSpec | None = None
    fetch: bool = False
    mirror: str | None = None

    @property
    def on_disk(self) -> bool:
        return self.path.is_file()

    def open(self) -> Dataset:
        """Fetch the file if need be, and open it. Raises DatasetError."""
        try:
            self._provide()
        except DownloadError as error:
            if self.spec is None or not self.spec.full_file:
                raise
            return self._stand_in(self.spec, error)
        index = index_with_progress(self.path)
        kind, notes = (self.dataset_class, ()) if self.dataset_class else _guess_class(self.name, index)
        return kind(
            self.name,
            self.path,
            traits=self.traits,
            data_root=self.data_root,
            answer_note=self.spec.answer_note if self.spec else "",
            notes=notes,
            index=index,
        )

    def _stand_in(self, spec: DatasetSpec, error: DownloadError) -> Dataset:
        """The scorable split under its own name, saying so; if that cannot be had either, the first error counts."""
        split = resolve_dataset(spec.scorable_split, data_root=self.data_root, mirror=self.mirror)
        try:
            dataset = split.open()
        except DownloadError:
            raise error from None
        note = f"{spec.name} cannot be had, going on with {split.name}, its scorable split ({error})"
        dataset.notes = (note, *dataset.notes)
        return dataset

    def _provide(self) -> None:
        if not self.fetch or self.spec is None:
            return
        from vlmeval.dataset.download import dataset_url, ensure_file

        try:
            ensure_file(self.spec.name, dataset_url(self.spec.url_path, self.mirror), self.spec.md5, self.data_root)
        except DownloadError as error:
            note = self.spec.answer_note
            raise DownloadError(f"{error}; {note}") if note else error from error


def resolve_dataset(
    name_or_path: str | Path,
    *,
    data_root: str | Path | None = None,
    name: str | None = None,
    class_name: str | None = None,
    traits: Iterable[str] | None = None,
    mirror: str | None = None,
) -> DatasetPlan:
    """Find a benchmark by its known name, by the path of a TSV, or by the stem of a TSV in the data root.

    A path whose stem is a known name takes that benchmark's traits and class, without its MD5. `name`, `class_name`,
    `traits` and `mirror` override what is known. Raises UnknownNameError, ConfigError, or DatasetError for a path
    that leads to no file.
    """
    root = Path(data_root).expanduser() if data_root is not None else default_data_root()
    path = _as_path(name_or_path)
    stem = path.stem if path is not None else str(name_or_path)
    spec = supported_datasets.get(stem)
    if path is None:
        path = spec.path(root) if spec else root / f"{stem}.tsv"
        if spec is None and not path.is_file():
            raise UnknownNameError("dataset", stem, dataset_names(root), _how_to_add(root))
        fetch = spec is not None and not spec.packaged
    else:
        _check_path(path)
        fetch = False
    class_name = class_name or (spec.class_name if spec else None)
    return DatasetPlan(
        name=name or stem,
        path=path,
        data_root=root,
        dataset_class=_class_named(class_name) if class_name else None,
        traits=_checked_traits(traits) if traits is not None else spec.traits if spec else traits_of_unknown(stem),
        spec=spec,
        fetch=fetch,
        mirror=mirror,
    )


def open_dataset(
    name_or_path: str | Path,
    *,
    data_root: str | Path | None = None,
    name: str | None = None,
    class_name: str | None = None,
    traits: Iterable[str] | None = None,
    mirror: str | None = None,
) -> Dataset:
    """Find (see `resolve_dataset`), fetch if need be, and open a benchmark."""
    return resolve_dataset(
        name_or_path, data_root=data_root, name=name, class_name=class_name, traits=traits, mirror=mirror
    ).open()


def resolve_config(name: str, settings: Mapping[str, object], *, data_root: str | Path | None = None) -> DatasetPlan:
    """The benchmark that an entry of a config's "data" asks for; `{}` is the registered one of that name.

    The entry's name is what results are called, its `dataset` (else its name) what is opened.
    """
    where = f"data {name!r}"
    for key in settings:
        if key not in CONFIG_KEYS:
            raise UnknownNameError(f"key in {where}", str(key), CONFIG_KEYS, f"keys: {', '.join(CONFIG_KEYS)}")
    traits = settings.get("traits")
    if traits is not None and not isinstance(traits, (list, tuple)):
        raise ConfigError(f"{where}: traits is {traits!r}; give a list of {', '.join(TRAITS)}")
    return resolve_dataset(
        _text(where, settings, "dataset") or name,
        data_root=data_root,
        name=name,
        class_name=_text(where, settings, "class"),
        traits=traits,
        mirror=_text(where, settings, "mirror"),
    )


def dataset_from_config(name: str, settings: Mapping[str, object], *, data_root: str | Path | None = None) -> Dataset:
    """Open what `resolve_config` finds."""
    return resolve_config(name, settings, data_root=data_root).open()


def _as_path(name_or_path: str | Path) -> Path | None:
    """A path if it is one by its form: it ends in .tsv or has a folder in it."""
    text = os.fspath(name_or_path)
    is_path = isinstance(name_or_path, Path) or text.endswith(".tsv") or "/" in text or os.sep in text
    return Path(text).expanduser() if is_path else None


def _check_path(path: Path) -> None:
    check_file(path)
    if path.suffix != ".tsv":
        raise DatasetError(f"{path} is no .tsv file; benchmarks are tab-separated files whose names end in .tsv")


def _how_to_add(root: Path) -> str:
    return f"a benchmark of your own is a TSV named by path, or dropped into {root}; see `vlmeval list datasets`"


def _class_named(class_name: str) -> type[Dataset]:
    if class_name in PLANNED_CLASSES:
        raise ConfigError(f"dataset class {class_name} is not there yet; there are {', '.join(dataset_classes)}")
    if class_name not in dataset_classes:
        raise UnknownNameError("dataset class", class_name, dataset_classes)
    return dataset_classes[class_name]


def _checked_traits(traits: Iterable[str]) -> frozenset[str]:
    wanted = list(traits)
    for trait in wanted:
        if trait not in TRAITS:
            raise UnknownNameError("dataset trait", str(trait), TRAITS)
    return frozenset(wanted)


def _text(where: str, settings: Mapping[str, object], key: str) -> str | None:
    value = settings.get(key)
    if value is not None and (not isinstance(value, str) or not value):
        raise ConfigError(f"{where}: {key} is {value!r}; give a text")
    return value


def _guess_class(name: str, index: TsvIndex) -> tuple[type[Dataset], tuple[str, ...]]:
    """The kind of a TSV that is in no table, by its columns, and a line that says so."""
    if "A" in index.columns and "B" in index.columns:
        kind: type[Dataset] = ImageMCQDataset
        why = "it has option columns"
    elif "answer" in index.columns and {a.strip().lower() for a in index.distinct("answer", 9)} <= {"yes", "no"}:
        kind, why = ImageYORNDataset, "its answers are all yes or no"
    else:
        kind, why = ImageVQADataset, "it has no option columns"
    return kind, (f"{name}: in no table, taken as {kind.type} because {why}",)

"""From a name or a path to an open benchmark.

`resolve_dataset` checks everything that can be checked without opening a file, so that a typo fails at once;
`open_dataset` also fetches and opens. What a config says about a benchmark is read in config_entry.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vlmeval.dataset.base import Dataset, checked_rule, index_with_progress
from vlmeval.dataset.data_root import default_data_root
from vlmeval.dataset.known import DatasetSpec, supported_datasets, traits_of_unknown
from vlmeval.dataset.listing import dataset_names
from vlmeval.dataset.mcq import HRBenchDataset, ImageMCQDataset, MMERealWorld
from vlmeval.dataset.mmmu import MMMUDataset, MMMUProDataset, MMMUProStepwise, MMMUProVision, MMMUProVisionStepwise
from vlmeval.dataset.multi_turn import ImageMTDataset, MMDUDataset, MMMTBenchDataset
from vlmeval.dataset.same_file import BY_CONTENT, BY_NAME, benchmarks_of_content, benchmarks_of_stem, taken_as
from vlmeval.dataset.tsv_index import NEEDED, TsvIndex, check_file
from vlmeval.dataset.unknown import class_of_unknown
from vlmeval.dataset.video import MLVU_MCQ, MVBench, MVBench_MP4, VideoMCQDataset, VideoMME, VideoSettings
from vlmeval.dataset.vqa import (
    ImageVQADataset,
    LLaVABench,
    MathVerse,
    MathVerseStepwise,
    MathVision,
    MathVista,
    MMVet,
    OCRBench,
    VizWiz,
)
from vlmeval.dataset.yes_no import ImageYORNDataset
from vlmeval.errors import ConfigError, DatasetError, DownloadError, UnknownNameError, several_names

dataset_classes: dict[str, type[Dataset]] = {
    kind.__name__: kind
    for kind in (
        ImageMCQDataset, MMMUDataset, MMMUProDataset, MMMUProStepwise, MMMUProVision, MMMUProVisionStepwise,
        HRBenchDataset, MMERealWorld, ImageYORNDataset, ImageVQADataset, OCRBench, VizWiz, MathVista, MathVision,
        MathVerse, MathVerseStepwise, MMVet, LLaVABench,
        ImageMTDataset, MMDUDataset, MMMTBenchDataset,
        VideoMCQDataset, VideoMME, MVBench, MVBench_MP4, MLVU_MCQ,
    )
}  # fmt: skip
"""The classes a config may name, by upstream's names."""
TRAITS = ("circular", "multi_image", "image_markers", "short_answer", "judge", "yes_no_suffix", "fine_print",
          "small_images", "own_wording", "reasoning", "chart", "document", "one_word", "detailed",
          "dataset_prompt", "video")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Said:
    """What the caller says of a benchmark; None for what is left to what is known of it."""

    class_name: str | None = None
    traits: Sequence[str] | None = None
    scoring: str | None = None
    answer_column: str | None = None
    prompt_suffix: str | None = None
    video: VideoSettings | None = None


@dataclass(frozen=True, kw_only=True)
class DatasetPlan:
    """A benchmark that was found and not opened yet. `dataset_class` is None where the columns will tell.

    `spec` is None for a TSV that is in no table; `fetch` says that the file comes from the spec's URL unless it is
    there with the right MD5. `notes` go before those of the opened benchmark.
    """

    name: str
    path: Path
    data_root: Path
    dataset_class: type[Dataset] | None
    traits: frozenset[str]
    scoring: str = ""
    answer_column: str = "answer"
    prompt_suffix: str = ""
    spec: DatasetSpec | None = None
    fetch: bool = False
    mirror: str | None = None
    video: VideoSettings | None = None
    said: Said = Said()
    notes: tuple[str, ...] = ()

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
        index = index_with_progress(self.path, self.dataset_class.needed_columns if self.dataset_class else NEEDED)
        return self._of_content(index)._opened(index)

    def recognised(self) -> DatasetPlan:
        """This plan, or where nothing but the file's MD5 tells what it is, that of the benchmark it belongs to.

        Reads the file once if it is not indexed. Raises DatasetError.
        """
        if self.dataset_class is not None or self.scoring or not self.on_disk:
            return self
        return self._of_content(index_with_progress(self.path, NEEDED))

    def _of_content(self, index: TsvIndex) -> DatasetPlan:
        specs = benchmarks_of_content(index.md5)
        if self.dataset_class is not None or self.scoring or not specs:
            return self
        plan = _planned(self.name, self.path, self.data_root, specs[0], self.said)
        return replace(plan, notes=(taken_as(self.name, BY_CONTENT, specs, plan.video),))

    def _opened(self, index: TsvIndex) -> Dataset:
        kind, notes = (
            (self.dataset_class, ()) if self.dataset_class else class_of_unknown(self.name, index, self.scoring)
        )
        notes = (*self.notes, *notes)
        more: dict[str, Any] = {"video": self.video} if issubclass(kind, VideoMCQDataset) else {}
        if self.spec is not None and self.spec.video is not None and self.spec.md5 != index.md5:
            notes = (*notes, f"{self.name}: the MD5 of {self.path.name} is not that of upstream's file")
        return kind(
            self.name,
            self.path,
            traits=self.traits,
            scoring=self.scoring,
            answer_column=self.answer_column,
            prompt_suffix=self.prompt_suffix,
            data_root=self.data_root,
            answer_note=self.spec.answer_note if self.spec else "",
            notes=notes,
            index=index,
            **more,
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
        if self.spec is not None and self.spec.video is not None and not self.on_disk:
            raise DatasetError(
                f"{self.path} is not there, and neither is {self.data_root / self.path.stem / self.path.name}; its "
                f"videos and table are not fetched: see docs/benchmarks.md, Videos, for {self.spec.video_source}"
            )
        if not self.fetch or self.spec is None:
            return
        from vlmeval.dataset.download import dataset_url, ensure_file

        known = self.spec.name in supported_datasets  # a URL of one's own is taken as it is, whatever mirror there is
        url = dataset_url(self.spec.url_path, self.mirror) if known else self.spec.url_path
        try:
            ensure_file(self.spec.name, url, self.spec.md5, self.data_root)
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
    scoring: str | None = None,
    answer_column: str | None = None,
    prompt_suffix: str | None = None,
    mirror: str | None = None,
    video: VideoSettings | None = None,
) -> DatasetPlan:
    """Find a benchmark by its known name, by the path of a TSV, or by the stem of a TSV in the data root.

    A path whose stem is a known name, or that of a known benchmark's file (with a note), takes that benchmark's traits,
    class and rule, without its MD5. What the caller says overrides what is known; another class brings its own traits
    and rule. Raises UnknownNameError, ConfigError, or DatasetError for a path that leads to no file.
    """
    root = Path(data_root).expanduser() if data_root is not None else default_data_root()
    said = Said(
        class_name=class_name,
        traits=None if traits is None else tuple(traits),
        scoring=scoring,
        answer_column=answer_column,
        prompt_suffix=prompt_suffix,
        video=video,
    )
    path = _as_path(name_or_path)
    stem = path.stem if path is not None else str(name_or_path)
    spec = supported_datasets.get(stem)
    fetch = path is None and spec is not None and bool(spec.url_path)
    if path is not None:
        _check_path(path)
    else:
        path = spec.path(root) if spec else root / f"{stem}.tsv"
        if spec is None and not path.is_file():
            raise UnknownNameError("dataset", stem, dataset_names(root), several_names(stem) or _how_to_add(root))
    if spec is None and not (class_name or scoring) and (specs := benchmarks_of_stem(stem)):
        plan = _planned(name or stem, path, root, specs[0], said)
        return replace(plan, notes=(taken_as(plan.name, BY_NAME, specs, plan.video),))
    return replace(_planned(name or stem, path, root, spec, said), fetch=fetch, mirror=mirror)


def _planned(name: str, path: Path, root: Path, spec: DatasetSpec | None, said: Said) -> DatasetPlan:
    """What is said of the file at `path`, completed by what is known of its benchmark. Raises ConfigError."""
    kind = class_named(said.class_name or (spec.class_name if spec else ""))
    same = spec if spec is not None and kind is class_named(spec.class_name) else None
    rule = said.scoring or (same.scoring if same else "")
    if rule and kind is not None:
        checked_rule(rule, kind.type, name)
    if said.video is not None and (kind is None or not issubclass(kind, VideoMCQDataset)):
        raise ConfigError(f"{name}: nframe, fps and use_subtitle are for benchmarks of videos")
    return DatasetPlan(
        name=name,
        path=path,
        data_root=root,
        dataset_class=kind,
        traits=declared_traits(said.traits, same, kind, path.stem),
        scoring=rule,
        answer_column=said.answer_column or (spec.answer_column if spec else "answer"),
        prompt_suffix=(same.prompt_suffix if same else "") if said.prompt_suffix is None else said.prompt_suffix,
        spec=spec,
        video=said.video or (same.video if same else None),
        said=said,
    )


def declared_traits(
    given: Iterable[str] | None, spec: DatasetSpec | None, kind: type[Dataset] | None, stem: str
) -> frozenset[str]:
    """What was given, else what is known, else what the class has and upstream's rule on names adds."""
    if given is not None:
        return _checked_traits(given)
    if spec is not None:
        return spec.traits
    return (kind.default_traits if kind else frozenset()) | traits_of_unknown(stem)


def open_dataset(name_or_path: str | Path, **settings: Any) -> Dataset:
    """Find (see `resolve_dataset`, whose keywords these are), fetch if need be, and open a benchmark."""
    return resolve_dataset(name_or_path, **settings).open()


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


def class_named(class_name: str) -> type[Dataset] | None:
    """None for no name: the columns will tell."""
    if not class_name:
        return None
    if class_name not in dataset_classes:
        raise UnknownNameError("dataset class", class_name, dataset_classes)
    return dataset_classes[class_name]


def _checked_traits(traits: Iterable[str]) -> frozenset[str]:
    wanted = list(traits)
    for trait in wanted:
        if trait not in TRAITS:
            raise UnknownNameError("dataset trait", str(trait), TRAITS)
    return frozenset(wanted)

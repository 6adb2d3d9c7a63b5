"""From a name, a path or a config entry to an open benchmark.

`resolve_dataset` checks everything that can be checked without opening a file, so that a typo fails at once;
`open_dataset` also fetches and opens.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmeval.conversation import texts_of_cell
from vlmeval.dataset.base import Dataset, checked_rule, index_with_progress
from vlmeval.dataset.data_root import default_data_root
from vlmeval.dataset.known import DatasetSpec, supported_datasets, traits_of_unknown
from vlmeval.dataset.listing import dataset_listing, dataset_names
from vlmeval.dataset.mcq import HRBenchDataset, ImageMCQDataset, MMERealWorld
from vlmeval.dataset.mmmu import MMMUDataset, MMMUProDataset, MMMUProStepwise, MMMUProVision, MMMUProVisionStepwise
from vlmeval.dataset.multi_turn import ImageMTDataset, MMDUDataset, MMMTBenchDataset, holds_conversations
from vlmeval.dataset.tsv_index import NEEDED, TsvIndex, check_file
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
from vlmeval.errors import ConfigError, DatasetError, DownloadError, UnknownNameError, UsageError, several_names
from vlmeval.scoring.rules import find_rule

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
CONFIG_KEYS = (
    "class",
    "dataset",
    "path",
    "url",
    "md5",
    "scoring",
    "traits",
    "answer_column",
    "prompt_suffix",
    "mirror",
    "nframe",
    "fps",
    "use_subtitle",
)


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
    scoring: str = ""
    answer_column: str = "answer"
    prompt_suffix: str = ""
    spec: DatasetSpec | None = None
    fetch: bool = False
    mirror: str | None = None
    video: VideoSettings | None = None

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
        kind, notes = (self.dataset_class, ()) if self.dataset_class else _guess_class(self.name, index, self.scoring)
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

    A path whose stem is a known name takes that benchmark's traits, class and rule, without its MD5. What the caller
    says overrides what is known; another class brings its own traits and rule. Raises UnknownNameError, ConfigError,
    or DatasetError for a path that leads to no file.
    """
    root = Path(data_root).expanduser() if data_root is not None else default_data_root()
    path = _as_path(name_or_path)
    stem = path.stem if path is not None else str(name_or_path)
    spec = supported_datasets.get(stem)
    if path is None:
        path = spec.path(root) if spec else root / f"{stem}.tsv"
        if spec is None and not path.is_file():
            raise UnknownNameError("dataset", stem, dataset_names(root), several_names(stem) or _how_to_add(root))
        fetch = spec is not None and bool(spec.url_path)
    else:
        _check_path(path)
        fetch = False
    kind = _class_named(class_name or (spec.class_name if spec else ""))
    same_kind = spec is not None and kind is _class_named(spec.class_name)
    rule = scoring or (spec.scoring if spec and same_kind else "")
    if rule and kind is not None:
        checked_rule(rule, kind.type, name or stem)
    if video is not None and (kind is None or not issubclass(kind, VideoMCQDataset)):
        raise ConfigError(f"{name or stem}: nframe, fps and use_subtitle are for benchmarks of videos")
    return DatasetPlan(
        name=name or stem,
        path=path,
        data_root=root,
        dataset_class=kind,
        traits=_traits(traits, spec if same_kind else None, kind, stem),
        scoring=rule,
        answer_column=answer_column or (spec.answer_column if spec else "answer"),
        prompt_suffix=(spec.prompt_suffix if spec and same_kind else "") if prompt_suffix is None else prompt_suffix,
        spec=spec,
        fetch=fetch,
        mirror=mirror,
        video=video or (spec.video if spec and same_kind else None),
    )


def _traits(
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


def resolve_config(name: str, settings: Mapping[str, object], *, data_root: str | Path | None = None) -> DatasetPlan:
    """The benchmark that an entry of a config's "data" asks for; `{}` is the registered one of that name.

    The entry's name is what results are called; what is opened is the TSV at `path`, the one fetched from `url` (kept
    as `{name}.tsv` in the data root, checked by `md5` if that is given), or the benchmark called `dataset`, else
    `name`.
    """
    where = f"data {name!r}"
    for key in settings:
        if key not in CONFIG_KEYS:
            raise UnknownNameError(f"key in {where}", str(key), CONFIG_KEYS, f"keys: {', '.join(CONFIG_KEYS)}")
    sources = [key for key in ("dataset", "path", "url") if settings.get(key) is not None]
    if len(sources) > 1:
        raise ConfigError(f"{where}: {' and '.join(sources)} name its file more than once; give one of them")
    traits = settings.get("traits")
    if traits is not None and not isinstance(traits, (list, tuple)):
        raise ConfigError(f"{where}: traits is {traits!r}; give a list of {', '.join(TRAITS)}")
    root = Path(data_root).expanduser() if data_root is not None else default_data_root()
    given: dict[str, Any] = {
        "class_name": _text(where, settings, "class"),
        "traits": traits,
        "scoring": _text(where, settings, "scoring"),
        "answer_column": _text(where, settings, "answer_column"),
        "prompt_suffix": _text(where, settings, "prompt_suffix"),
    }
    video = _video(where, settings)
    url, path = _text(where, settings, "url"), _text(where, settings, "path")
    md5 = _text(where, settings, "md5") or ""
    if md5 and url is None:
        raise ConfigError(f"{where}: md5 is only checked where a url is given")
    if url is not None:
        return _from_url(name, url, md5, root, given)
    found = Path(path) if path is not None else _text(where, settings, "dataset") or name
    mirror = _text(where, settings, "mirror")
    return resolve_dataset(found, data_root=root, name=name, mirror=mirror, video=video, **given)


def _from_url(name: str, url: str, md5: str, root: Path, given: Mapping[str, Any]) -> DatasetPlan:
    """A benchmark in no table whose file is fetched."""
    if not url.startswith(("https://", "http://")):
        raise ConfigError(f"data {name!r}: url is {url!r}; give one that begins with https://")
    if "/" in name or name in supported_datasets:
        why = "is a benchmark of this kit" if name in supported_datasets else "has a / in it"
        raise ConfigError(f"data {name!r}: the file from {url} would be kept under that name, which {why}; rename it")
    kind = _class_named(given["class_name"] or "")
    if given["scoring"] and kind is not None:
        checked_rule(given["scoring"], kind.type, name)
    elif given["scoring"]:
        find_rule(given["scoring"])
    own = DatasetSpec(name=name, class_name=kind.__name__ if kind else "", type="VQA", url_path=url, md5=md5)
    return DatasetPlan(
        name=name,
        path=root / f"{name}.tsv",
        data_root=root,
        dataset_class=kind,
        traits=_traits(given["traits"], None, kind, name),
        scoring=given["scoring"] or "",
        answer_column=given["answer_column"] or "answer",
        prompt_suffix=given["prompt_suffix"] or "",
        spec=own,
        fetch=True,
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


def _class_named(class_name: str) -> type[Dataset] | None:
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


def _text(where: str, settings: Mapping[str, object], key: str) -> str | None:
    value = settings.get(key)
    if value is not None and (not isinstance(value, str) or not value):
        raise ConfigError(f"{where}: {key} is {value!r}; give a text")
    return value


def _video(where: str, settings: Mapping[str, object]) -> VideoSettings | None:
    """Upstream's keys for videos; None where there are none. Raises ConfigError."""
    given = {key: settings[key] for key in ("nframe", "fps", "use_subtitle") if settings.get(key) is not None}
    if not given:
        return None
    kinds = {"nframe": int, "fps": (int, float), "use_subtitle": bool}
    for key, value in given.items():
        if not isinstance(value, kinds[key]) or (key != "use_subtitle" and isinstance(value, bool)):  # type: ignore[arg-type]
            raise ConfigError(
                f"{where}: {key} is {value!r}; give nframe a whole number, fps a number, use_subtitle a bool"
            )
    try:
        return VideoSettings(**given)  # type: ignore[arg-type]
    except UsageError as error:
        raise ConfigError(f"{where}: {error}") from error


def _guess_class(name: str, index: TsvIndex, scoring: str) -> tuple[type[Dataset], tuple[str, ...]]:
    """The kind of a TSV that is in no table, by its rule or its columns, and a line that says so."""
    by_type: dict[str, type[Dataset]] = {
        "MCQ": ImageMCQDataset, "Y/N": ImageYORNDataset, "VQA": ImageVQADataset, "MT": ImageMTDataset,
    }  # fmt: skip
    kind: type[Dataset]
    if "video" in index.columns and not {"image", "image_path"} & {*index.columns}:
        kind, why = VideoMCQDataset, "it has a column video"
    elif scoring:
        kind, why = by_type[find_rule(scoring).type], f"its rule is {scoring}"
    elif "A" in index.columns and "B" in index.columns:
        kind, why = ImageMCQDataset, "it has option columns"
    elif holds_conversations(questions := _first_questions(index)):
        kind, why = ImageMTDataset, "its questions are lists of turns"
    elif "answer" in index.columns and {a.strip().lower() for a in index.distinct("answer", 9)} <= {"yes", "no"}:
        kind, why = ImageYORNDataset, "its answers are all yes or no"
    else:
        kind, why = ImageVQADataset, "it has no option columns"
    notes: tuple[str, ...] = (f"{name}: in no table, taken as {kind.type} because {why}",)
    if kind in (ImageYORNDataset, ImageVQADataset) and not scoring:
        notes += _lists_among(name, questions)
    return kind, notes


def _first_questions(index: TsvIndex) -> list[str]:
    place = index.text_columns.index("question")
    return [row.cells[place] for row in index.rows(0, min(5, len(index)))]


def _lists_among(name: str, questions: Sequence[str]) -> tuple[str, ...]:
    """What is said of a file where some questions are lists of turns, which are asked as they are written."""
    lists = sum(bool(texts_of_cell(question)) for question in questions)
    if not lists:
        return ()
    return (
        f"{name}: {lists} of its first {len(questions)} questions are lists of turns; if it holds conversations, "
        'give it "class": "ImageMTDataset" in a config entry',
    )

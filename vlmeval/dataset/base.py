"""A benchmark: its samples in file order, the prompt of each, and what the answers were worth."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from vlmeval.dataset.data_root import default_data_root
from vlmeval.dataset.image_sizes import ImageSizes
from vlmeval.dataset.progress import BytesProgress
from vlmeval.dataset.row_images import image_folder, row_images
from vlmeval.dataset.tsv_index import NEEDED, IndexedRow, TsvIndex, check_file, open_index
from vlmeval.errors import ConfigError, DatasetError, ImageError
from vlmeval.scoring.rules import RULES, Rule, find_rule
from vlmeval.types import Index, Message, Prediction, PromptSize, Sample, Score, Task, TaskType

ROWS_AT_ONCE = 500


def index_with_progress(path: Path, needed: Sequence[str] = NEEDED) -> TsvIndex:
    """Open a TSV, saying how far it is when that takes long."""
    total = path.stat().st_size if path.is_file() else None
    progress = BytesProgress(f"indexing {path.name}", total)
    try:
        return open_index(path, needed=needed, progress=progress)
    finally:
        progress.close()


def checked_rule(name: str, kind: TaskType, dataset: str) -> Rule | None:
    """The rule a benchmark is scored by; None for no name. Raises ConfigError for one of another kind."""
    if not name:
        return None
    rule = find_rule(name)
    if rule.type != kind:
        fitting = ", ".join(other.name for other in RULES.values() if other.type == kind)
        raise ConfigError(f"{dataset} is {kind} and the rule {name} is for {rule.type}; rules for {kind}: {fitting}")
    return rule


if TYPE_CHECKING:
    from typing_extensions import Self

    from vlmeval.scoring.rows import Answers


class Dataset:
    """Base of the kinds of benchmark, which say how a row becomes a question and how answers are scored.

    `name` is what results are called, `path` the TSV. Rows whose image cannot be had stay in: `Sample.image_error`
    says why, and `build_prompt` raises it.
    """

    type: ClassVar[TaskType]
    default_scoring: ClassVar[str] = ""
    """The rule (see `scoring.rules`) where none is declared; empty where one has to be."""
    default_traits: ClassVar[frozenset[str]] = frozenset()
    """What every benchmark of the class has, unless its traits are given."""
    needed_columns: ClassVar[tuple[str, ...]] = NEEDED
    options_column: ClassVar[str] = ""
    """Where the options are a list in one cell (see `mcq.listed_options`); else they are the columns A, B, ..."""
    l2_short_names: ClassVar[Mapping[str, str]] = {}
    """What l2-categories are called in score tables."""

    def __init__(
        self,
        name: str,
        path: str | Path,
        *,
        traits: frozenset[str] | None = None,
        scoring: str = "",
        answer_column: str = "answer",
        prompt_suffix: str = "",
        data_root: str | Path | None = None,
        answer_note: str = "",
        notes: tuple[str, ...] = (),
        index: TsvIndex | None = None,
    ) -> None:
        self.name = name
        self.path = Path(os.path.abspath(path))
        self.task = Task(name=name, type=self.type, traits=self.default_traits if traits is None else traits)
        self.rule = checked_rule(scoring or self.default_scoring, self.type, name)
        self.answer_column = answer_column
        self.prompt_suffix = prompt_suffix
        self._index = index if index is not None else index_with_progress(self.path, self.needed_columns)
        self._length = len(self._index)
        self.data_root = Path(data_root) if data_root is not None else default_data_root()
        self._answer_note = answer_note
        self._judge_at_hand = False
        why_not = self.why_not_scorable
        self.notes = (*notes, f"{name}: not scored, {why_not}") if why_not else notes
        """What the user should know before the run, one line each."""

    def head(self, limit: int | None) -> Self:
        """The same benchmark, only its first `limit` rows; whole for None."""
        if limit is None or limit >= len(self):
            return self
        cut = copy.copy(self)
        cut._length = limit
        cut.__dict__.pop("indices", None)
        copies = ", so groups of rotated copies may be incomplete" if "circular" in self.task.traits else ""
        cut.notes = (*self.notes, f"{self.name}: only the first {limit} of {len(self)} rows{copies}")
        return cut

    @property
    def why_no_answers(self) -> str:
        """Empty if every row has an answer to be scored by, else what is missing: then only a server can score."""
        note = f"; {self._answer_note}" if self._answer_note else ""
        column = self.answer_column
        if column not in self.columns:
            return f"{self.path.name} has no column {column!r}{note}"
        blank = self._index.blank_counts[column]
        if not blank:
            return ""
        shown = ", ".join(self._index.rows_with_blank(column))
        more = ", ..." if blank > 3 else ""
        return f"column {column!r} is empty in {blank} of {len(self)} rows (index {shown}{more}){note}"

    def with_judge(self) -> Self:
        """The same benchmark where a judge will be asked: one that needs a judge becomes scorable."""
        judged = copy.copy(self)
        judged._judge_at_hand = True
        judged.__dict__.pop("why_not_scorable", None)
        before = f"{self.name}: not scored, {self.why_not_scorable}"
        now = (f"{self.name}: not scored, {judged.why_not_scorable}",) if judged.why_not_scorable else ()
        judged.notes = tuple(note for note in self.notes if note != before) + now
        return judged

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, position: int) -> Sample:
        if not -len(self) <= position < len(self):
            raise IndexError(f"{self.name} has {len(self)} samples, no sample {position}")
        row = self._index.row(position % len(self))
        return self._with_images(row, self._sample(row))

    def __iter__(self) -> Iterator[Sample]:
        return (self[position] for position in range(len(self)))

    def texts(self) -> Iterator[Sample]:
        """The samples in file order without their images, for scoring: nothing is looked up or hashed for them."""
        for start in range(0, len(self), ROWS_AT_ONCE):
            count = min(ROWS_AT_ONCE, len(self) - start)
            yield from (self._sample(row) for row in self._index.rows(start, count))

    def prompt_sizes(self, text_of: Callable[[Sample], str] | None = None) -> Iterator[PromptSize]:
        """Image sizes and text of every sample whose images can be had, in file order; the others fail anyway.

        `text_of` words the prompt of a sample (given without its images); without it the benchmark's own wording is
        taken. Sizes come from the images' headers, the first time at some 8,000 rows a second, then from the cache.

        Raises DatasetError or ImageError where the file itself can no longer be read, or has changed.
        """
        word = text_of or self.build_text
        total = check_file(self.path).st_size
        progress = BytesProgress(f"image sizes of {self.path.name}", total)
        bytes_a_row = total / len(self._index)
        try:
            sizes = ImageSizes(self._index, self.image_folder)
            for row, images in sizes.of_first(len(self), lambda rows: progress(int(rows * bytes_a_row))):
                yield from self.sizes_of(self._sample(row), images, word)
        finally:
            progress.close()

    def sizes_of(
        self, sample: Sample, images: Sequence[tuple[int, int]], text_of: Callable[[Sample], str]
    ) -> Iterator[PromptSize]:
        """The sizes of the prompts that a sample takes, given those of its images."""
        yield PromptSize(index=sample.index, images=tuple(images), text=text_of(sample))

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the file, `image` included."""
        return self._index.columns

    @property
    def fingerprint(self) -> str:
        """The MD5 of the file: two datasets with the same one have the same rows."""
        return self._index.md5

    @cached_property
    def indices(self) -> tuple[Index, ...]:
        """The index of every sample of the file, in its order."""
        return tuple(self._index_of(name) for name in self._index.names()[: len(self)])

    @property
    def image_folder(self) -> Path:
        """Where the names in the column `image_path` lead: `images/{name of the TSV}` under the data root, or
        beside the TSV where only that exists."""
        return image_folder(self.path, self.data_root)

    def build_prompt(self, sample: Sample) -> list[Message]:
        """The question as it is put to any model: images first, then the text.

        Raises ImageError for a sample whose image cannot be had.
        """
        if sample.image_error:
            raise ImageError(sample.image_error)
        images: list[Message] = [{"type": "image", "value": image} for image in sample.images]
        return [*images, {"type": "text", "value": self.build_text(sample)}]

    def build_text(self, sample: Sample) -> str:
        """The text of the prompt."""
        return sample.question + self.prompt_suffix

    def read_options(self, fields: Mapping[str, str]) -> dict[str, str]:
        """The choices a row offers, label to text; none unless the kind has choices."""
        return {}

    @property
    def scorable(self) -> bool:
        return not self.why_not_scorable

    @cached_property
    def why_not_scorable(self) -> str:
        """Empty if answers can be scored, else the reason: no rule declared, a judge needed, or answers missing."""
        return self._why_no_rule() or self.why_no_answers

    def score(self, predictions: Mapping[Index, Prediction], protocol: str, *, seed: int = 0) -> Score:
        """What the predictions are worth under a protocol. Raises DatasetError if the benchmark is not scorable."""
        if self.why_not_scorable or self.rule is None:
            raise DatasetError(f"{self.name} cannot be scored: {self.why_not_scorable}")
        return self.rule.score(self.answers(predictions, protocol, seed=seed))

    def answers(self, predictions: Mapping[Index, Prediction], protocol: str, *, seed: int = 0) -> Answers:
        """The predictions with what its rule has to know of the benchmark."""
        from vlmeval.scoring.rows import Answers

        return Answers(
            dataset=self.name,
            samples=tuple(self.texts()),
            predictions=predictions,
            protocol=protocol,
            seed=seed,
            images=self.image_clusters(),
            circular="circular" in self.task.traits,
            l2_short_names=self.l2_short_names,
        )

    def image_clusters(self) -> dict[Index, str]:
        """What identifies the (first) image of each row that has one, so that rows of one image are known."""
        if "image" in self.columns:
            found = self._index.first_images()
        else:
            found = {name: path for name, path in self._index.column("image_path").items() if path}
        return {self._index_of(name): image for name, image in found.items()}

    def _why_no_rule(self) -> str:
        if self.rule is None:
            rules = ", ".join(rule.name for rule in RULES.values() if rule.type == self.type)
            return f"no scoring rule is declared for it; name one as scoring in its config entry: {rules}"
        if self.rule.judge and not self._judge_at_hand:
            return (
                f"the rule {self.rule.name} needs a judge {self.rule.judge}; answers are collected, --judge NAME or "
                "--judge-model NAME scores them"
            )
        return ""

    def _index_of(self, name: str) -> Index:
        return int(name) if self._index.integer_names else name

    def _sample(self, row: IndexedRow) -> Sample:
        fields = dict(zip(self._index.text_columns, row.cells, strict=True))
        return Sample(
            index=self._index_of(row.name),
            question=fields.get("question", ""),
            options=self.read_options(fields),
            answer=fields.get(self.answer_column, ""),
            hint=fields.get("hint", ""),
            category=fields.get("category", ""),
            l2_category=fields.get("l2-category", ""),
            split=fields.get("split", ""),
            fields=fields,
        )

    def _with_images(self, row: IndexedRow, sample: Sample) -> Sample:
        try:
            return replace(sample, images=row_images(self._index, row, sample.fields, self.image_folder))
        except ImageError as error:
            return replace(sample, image_error=str(error))

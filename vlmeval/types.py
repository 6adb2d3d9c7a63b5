"""The nouns everyone shares: what is asked, what was answered, and what it was worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypedDict, Union

from vlmeval.errors import SampleError

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

    from vlmeval.images import ImageSource
    from vlmeval.videos import VideoSource

TaskType = Literal["MCQ", "Y/N", "VQA", "MT"]
"""Choices, yes or no, words, or a conversation of several turns."""
Level = Literal["overall", "l2-category", "category"]
"""What a metric is taken over."""
Layout = Literal["choices", "yes_no", "words", "ocrbench", "turns"]
"""Which of upstream's result files a score is written to."""
Index = Union[int, str]
"""A sample's name within its benchmark: int where every row of the file has one, else str."""

ImageValue = Union[str, "ImageSource", "PILImage"]
"""A path or URL, a source that reads its bytes when asked, or a decoded image."""
VideoValue = Union[str, "VideoSource"]
"""A path, or a source with its sampling."""


class _Part(TypedDict, total=False):
    role: Literal["system", "user", "assistant"]


class TextPart(_Part):
    """A text."""

    type: Literal["text"]
    value: str


class ImagePart(_Part):
    """An image."""

    type: Literal["image"]
    value: ImageValue


class VideoPart(_Part):
    """A video."""

    type: Literal["video"]
    value: VideoValue


class AnswerMark(_Part):
    """Where the model's own answer goes, so that one list is a conversation of several turns; see `conversation`.

    Models never see it: what they are given ends where they go on.
    """

    type: Literal["answer"]


Message = Union[TextPart, ImagePart, VideoPart, AnswerMark]
"""One piece of a prompt, in the order the model sees it: a dict, told apart by its "type".

Its "role" is "user" unless said otherwise ("system" opens a conversation, "assistant" is an earlier turn)."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a benchmark asks for. Models vary their prompts by this and never by the benchmark's name.

    Traits in use: "circular" (rotated copies count as one), "multi_image" (several images a row),
    "image_markers" (`<image N>` in the text, MMMU), "short_answer" (a word or phrase), "judge" (needs one),
    "yes_no_suffix", "fine_print" (dense text: more tiles or pixels), "small_images" (crops of words, not to be
    blown up), "own_wording" (the question says itself how to answer), "reasoning" (the answer needs room to think),
    "chart" and "document" (pictures of these: more tiles, though not as many as fine print), "one_word" (yes or no and
    nothing else: MME, HallusionBench), "detailed" (an answer at length: LLaVABench), "dataset_prompt" (worded by the
    benchmark whatever the family: upstream's task types of their own), "video" (frames of one: a tile each).
    """

    name: str
    type: TaskType
    traits: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One row of a benchmark.

    `options` maps a label to its text in label order; `fields` holds every column but `image` as the file has
    it, in the file's order. `images` and `videos` are read when asked for, not before; `image_error` says why they
    cannot be.
    """

    index: Index
    question: str
    options: Mapping[str, str] = field(default_factory=dict)
    answer: str = ""
    hint: str = ""
    category: str = ""
    l2_category: str = ""
    split: str = ""
    images: tuple[ImageSource, ...] = ()
    videos: tuple[VideoSource, ...] = ()
    image_error: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class PromptSize:
    """What one prompt asks of a model's memory: width and height of each image, its videos, and the text without
    either.

    `earlier_answers` are answers of the model's own that stand in the prompt, of a length nobody knows before.
    """

    index: Index
    images: tuple[tuple[int, int], ...]
    text: str
    videos: tuple[VideoSource, ...] = ()
    earlier_answers: int = 0


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a model gave for one prompt. `thinking` is what stood before `</think>`, already taken off `text`.

    Raises SampleError for a text that is none, which a class of the user's own may give: `None` is not an empty answer.
    """

    text: str
    thinking: str = ""
    prompt_tokens: int | None = None
    new_tokens: int | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            shown = repr(self.text)
            raise SampleError(
                f"the model's class answered with {type(self.text).__name__} {shown[:50]}, not with a text"
            )


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """One finished sample, as the journal has it. `fingerprint` is that of its prompt, images included.

    Of a conversation `prediction` is the list of its answers in one cell (`conversation.texts_as_cell`), `thinking`
    likewise where there is any; tokens and seconds are sums over its turns.
    """

    index: Index
    status: Literal["ok", "failed"]
    fingerprint: str
    prediction: str = ""
    thinking: str = ""
    error: str = ""
    prompt_tokens: int | None = None
    new_tokens: int | None = None
    seconds: float = 0.0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One number of a score table. `value` is in the unit of its `Score`; `interval` the 95 % interval around it.

    `group` is what it was taken over: "Overall", an l2-category or a category; `count` the samples (or circular
    groups) in the denominator.
    """

    group: str
    value: float
    count: int
    split: str = "none"
    interval: tuple[float, float] | None = None
    level: Level = "overall"


@dataclass(frozen=True, kw_only=True)
class RowScore:
    """What one row (or one circular group, named by its base row) was worth: `hit` in 0..1.

    `details` are further cells of upstream's result file, by column.
    """

    index: Index
    hit: float
    extracted: str = ""
    log: str = ""
    g_index: Index | None = None
    details: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ScoreTable:
    """The score table of upstream's file, where it is not the usual one of multiple choice."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str | float | int | None, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Score:
    """What a run of one benchmark was worth under one protocol.

    `unit` is "fraction" (0..1), "percent" or "points" (a sum, as in MME and OCRBench). `failed`, `unmatched` and
    `missing` name samples: failed ones have no answer, unmatched ones an answer from which nothing could be extracted,
    missing ones no record at all. All of them stay in the denominator unless the protocol says otherwise (then `notes`
    says so).
    """

    dataset: str
    protocol: str
    metric: str
    unit: Literal["fraction", "percent", "points"]
    metrics: tuple[Metric, ...]
    rows: tuple[RowScore, ...]
    samples: int
    failed: tuple[Index, ...] = ()
    unmatched: tuple[Index, ...] = ()
    missing: tuple[Index, ...] = ()
    notes: tuple[str, ...] = ()
    protocol_version: int = 1
    judge: str = ""
    """The judge that read what the rules could not, with the version of its prompt; empty without one."""
    layout: Layout = "choices"
    table: ScoreTable | None = None

    def differing_rows(self, other: Score) -> tuple[tuple[RowScore, RowScore], ...]:
        """The rows in both scores that were read differently or are worth something else, in this score's order.

        Where answers are words, only what they are worth counts: `Nokia.` and `Nokia` are the same answer.
        """
        theirs = {row.index: row for row in other.rows}
        pairs = ((row, theirs[row.index]) for row in self.rows if row.index in theirs)
        if self.layout in ("words", "ocrbench", "turns"):
            return tuple((a, b) for a, b in pairs if a.hit != b.hit)
        return tuple((a, b) for a, b in pairs if (a.hit, a.extracted) != (b.hit, b.extracted))

    @property
    def judge_name(self) -> str:
        """The judge without the version of its prompt; VLMEvalKit's word for none."""
        return self.judge.partition(", ")[0] or "exact_matching"

    @property
    def overall(self) -> Metric:
        """The headline number: the first overall metric."""
        return next(m for m in self.metrics if m.level == "overall")

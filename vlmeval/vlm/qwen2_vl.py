"""Qwen2-VL and its relatives Qwen2.5-VL, Qwen3-VL and QVQ, each in transformers' own class.

Prompts and settings: those of VLMEvalKit (vlm/qwen2_vl/prompt.py, August 2026). Pixels:
https://huggingface.co/Qwen/Qwen2-VL-7B-Instruct, https://huggingface.co/Qwen/Qwen3-VL-8B-Instruct.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from vlmeval.errors import UsageError
from vlmeval.hardware import Card
from vlmeval.placement.device_map import DeviceMap
from vlmeval.placement.layout import Layout
from vlmeval.placement.profile import VISION_ROLES
from vlmeval.placement.workload import ImageLimits
from vlmeval.types import Message, Sample, Task
from vlmeval.videos import Sampling
from vlmeval.vlm.image_parts import ImageParts
from vlmeval.vlm.prompts import CHINESE_LETTER_ONLY, choice_text, has_chinese, with_images
from vlmeval.vlm.transformers_model import TransformersModel

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

CLASS_NAMES: Mapping[str, str] = {
    "qwen2_vl": "Qwen2VLForConditionalGeneration",
    "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration",
    "qwen3_vl": "Qwen3VLForConditionalGeneration",
    "qwen3_vl_moe": "Qwen3VLMoeForConditionalGeneration",
}
"""config.json's model_type -> transformers' class."""

LEAST_FRAMES = 4
"""Of a video that is sampled by rate; qwen-vl-utils' FPS_MIN_FRAMES."""
LETTER_ONLY = "Please select the correct answer from the options above."
SMALL_IMAGE_PIXELS = 100 * 28 * 28
"""`min_pixels` where images are crops of words and lines, which the usual minimum would blow up."""


class Qwen2VLChat(TransformersModel):
    """Qwen2-VL; like upstream's class of this name it runs the relatives too, with Qwen2-VL's prompts.

    `min_pixels` and `max_pixels` bound each image after resizing: one visual token is 28 x 28 pixels, 32 x 32 in
    Qwen3-VL.
    """

    model_types: ClassVar[tuple[str, ...]] = tuple(CLASS_NAMES)
    image_parts = ImageParts()
    takes_video = True

    def __init__(
        self, model_path: str, *, min_pixels: int | None = None, max_pixels: int | None = None, **arguments: Any
    ) -> None:
        super().__init__(model_path, **arguments)
        for name, value in (("min_pixels", min_pixels), ("max_pixels", max_pixels)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise UsageError(f"{name}={value!r} is no number of pixels")
        if min_pixels and max_pixels and min_pixels > max_pixels:
            raise UsageError(f"min_pixels={min_pixels} is more than max_pixels={max_pixels}")
        self.min_pixels = min_pixels
        self.max_pixels = max_pixels

    @property
    def class_name(self) -> str:  # type: ignore[override]  # here it depends on the checkpoint
        """transformers' class that runs the checkpoint."""
        return CLASS_NAMES[self.checkpoint.model_type]

    def settings(self) -> Mapping[str, Any]:
        """The shared settings and the pixel limits."""
        return {**super().settings(), "min_pixels": self.min_pixels, "max_pixels": self.max_pixels}

    def load_processor(self) -> Any:
        """The checkpoint's processor, with the pixel limits that were given."""
        processor = super().load_processor()
        image_processor = processor.image_processor
        kept = image_processor.size
        limits = {"shortest_edge": self.min_pixels, "longest_edge": self.max_pixels}
        # A dict in early transformers 5, later a SizeDict; both are made from these keywords.
        image_processor.size = type(kept)(**{name: value or kept[name] for name, value in limits.items()})
        if hasattr(processor.video_processor, "cap_pixels_per_frame"):
            processor.video_processor.cap_pixels_per_frame = False  # frames come in the size they shall have
        return processor

    def video_sampling(self, sampling: Sampling) -> Sampling:
        """As qwen-vl-utils takes frames: both ends included, an even number, at least four by rate."""
        return replace(sampling, placing="ends", least=LEAST_FRAMES, multiple=2)

    def image_limits(self, task: Task | None) -> ImageLimits:
        """The pixel limits that were given, and the lower one of small images."""
        limits = ImageLimits(min_pixels=self.min_pixels, max_pixels=self.max_pixels)
        if task is None or "small_images" not in task.traits:
            return limits
        smallest = min(self.min_pixels or SMALL_IMAGE_PIXELS, SMALL_IMAGE_PIXELS)
        return replace(limits, min_pixels=smallest, min_gives_way=True)

    def _build_device_map(self, layout: Layout, cards: Sequence[Card]) -> DeviceMap:
        """Pixels and tokens enter on one card: what the merger (in Qwen3-VL the deep mergers too) makes of an image is
        written into the embedded prompt. Its vision blocks pass on one tensor each and can be cut between any two;
        rotary tables and window indices are made once and cross a border once.
        """
        return layout.over(cards, on_entry_card=VISION_ROLES)

    def processor_arguments(self, task: Task | None) -> dict[str, Any]:
        """A lower bound of their own for small images (`min_pixels` wins where it is lower still), and one that lets
        images stay small that memory has no room for."""
        share = self._sparing.pixel_share
        if share == 1 and (task is None or "small_images" not in task.traits):
            return {}
        least, most = self._bounds(task)
        if share < 1:
            least = int(0.9 * share * least)  # an image shrunk to just that is not to be rounded up
        return {"images_kwargs": {"size": {"shortest_edge": max(1, least), "longest_edge": most}}}

    def _bounds(self, task: Task | None) -> tuple[int, int]:
        """Least and most pixels of an image after resizing."""
        size = self.processor.image_processor.size
        least, most = size["shortest_edge"], size["longest_edge"]
        if task is not None and "small_images" in task.traits:
            least = min(self.min_pixels or SMALL_IMAGE_PIXELS, SMALL_IMAGE_PIXELS, most)
        return least, most

    def shown_pixels(self, image: PILImage) -> int:
        """Larger images are shrunk to the most pixels, smaller ones blown up."""
        least, most = self._bounds(None)
        return min(max(super().shown_pixels(image), least), most)

    def has_prompt(self, task: Task) -> bool:
        """Choices, some yes-or-no benchmarks and most open questions are worded by the family."""
        if task.type == "Y/N":
            return "yes_no_suffix" in task.traits
        return task.type == "MCQ" or "own_wording" not in task.traits

    def build_prompt(self, sample: Sample, task: Task) -> list[Message]:
        """All images first, then the question; `<image N>` markers stay in the text."""
        return with_images(sample, self._text(sample, task))

    def _text(self, sample: Sample, task: Task) -> str:
        if task.type == "Y/N":
            return sample.question + " Please answer yes or no."
        if task.type == "VQA":
            return sample.question + "\nPlease try to answer the question with short words or phrases if possible."
        text = choice_text(sample)
        if not sample.options:
            return text.rstrip()
        in_chinese = has_chinese(text) and "image_markers" not in task.traits
        return text + (CHINESE_LETTER_ONLY if in_chinese else LETTER_ONLY)


class Qwen2_5_VLChat(Qwen2VLChat):
    """Qwen2.5-VL. It was evaluated with the benchmarks' own prompts, so those are the default."""

    model_types: ClassVar[tuple[str, ...]] = ("qwen2_5_vl",)

    def __init__(self, model_path: str, *, use_custom_prompt: bool = False, **arguments: Any) -> None:
        super().__init__(model_path, use_custom_prompt=use_custom_prompt, **arguments)


class Qwen3VLChat(Qwen2_5_VLChat):
    """Qwen3-VL, dense or with experts, Instruct or Thinking. The benchmarks' own prompts by default."""

    model_types = ("qwen3_vl", "qwen3_vl_moe")

"""Qwen2-VL, in transformers' own class.

Prompts and settings: shared/reference facts on VLMEvalKit (August 2026); https://huggingface.co/Qwen/Qwen2-VL-7B-Instruct.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlmeval.errors import UsageError
from vlmeval.types import Message, Sample, Task
from vlmeval.vlm.prompts import CHINESE_LETTER_ONLY, choice_text, has_chinese, with_images
from vlmeval.vlm.transformers_model import TransformersModel


class Qwen2VLChat(TransformersModel):
    """Qwen2-VL. `min_pixels` and `max_pixels` bound each image after resizing (one visual token is 28 x 28 pixels)."""

    class_name = "Qwen2VLForConditionalGeneration"
    model_types = ("qwen2_vl",)

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

    def settings(self) -> Mapping[str, Any]:
        """The shared settings and the pixel limits."""
        return {**super().settings(), "min_pixels": self.min_pixels, "max_pixels": self.max_pixels}

    def load_processor(self) -> Any:
        """The checkpoint's processor, with the pixel limits that were given."""
        processor = super().load_processor()
        image_processor = processor.image_processor
        kept = image_processor.size
        # A dict in early transformers 5, later a SizeDict; both are made from these keywords.
        image_processor.size = type(kept)(
            shortest_edge=self.min_pixels or kept["shortest_edge"], longest_edge=self.max_pixels or kept["longest_edge"]
        )
        return processor

    def has_prompt(self, task: Task) -> bool:
        """Choices, some yes-or-no benchmarks, and short answers are worded by the family; the rest by the benchmark."""
        return task.type == "MCQ" or bool(task.traits & {"yes_no_suffix", "short_answer"})

    def build_prompt(self, sample: Sample, task: Task) -> list[Message]:
        """Images first, then the question; `<image N>` markers stay in the text."""
        return with_images(sample, self._text(sample, task))

    def _text(self, sample: Sample, task: Task) -> str:
        if task.type == "MCQ":
            text = choice_text(sample)
            if has_chinese(text):
                closing = CHINESE_LETTER_ONLY
            else:
                closing = "Please select the correct answer from the options above."
            return text + closing if sample.options else text.rstrip()
        if task.type == "Y/N":
            return sample.question + " Please answer yes or no."
        return sample.question + "\nPlease try to answer the question with short words or phrases if possible."

"""LLaVA-OneVision, in transformers' own class (the `-hf` checkpoints).

Facts: https://huggingface.co/docs/transformers/model_doc/llava_onevision and the checkpoints of
https://huggingface.co/llava-hf. Prompts are the benchmarks' own, as upstream (VLMEvalKit) has them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vlmeval.errors import SampleError
from vlmeval.hardware import Card
from vlmeval.placement.device_map import DeviceMap
from vlmeval.placement.layout import Layout
from vlmeval.placement.profile import VISION_ROLES
from vlmeval.types import Message
from vlmeval.videos import Sampling, video_source
from vlmeval.vlm.image_parts import PaddedTileParts
from vlmeval.vlm.transformers_model import TransformersModel

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

CONVERTED: Mapping[str, str] = {
    "lmms-lab/llava-onevision-qwen2-0.5b-si": "llava-hf/llava-onevision-qwen2-0.5b-si-hf",
    "lmms-lab/llava-onevision-qwen2-0.5b-ov": "llava-hf/llava-onevision-qwen2-0.5b-ov-hf",
    "lmms-lab/llava-onevision-qwen2-7b-si": "llava-hf/llava-onevision-qwen2-7b-si-hf",
    "lmms-lab/llava-onevision-qwen2-7b-ov": "llava-hf/llava-onevision-qwen2-7b-ov-hf",
    "lmms-lab/llava-onevision-qwen2-72b-si": "llava-hf/llava-onevision-qwen2-72b-si-hf",
    "lmms-lab/llava-onevision-qwen2-72b-ov": "llava-hf/llava-onevision-qwen2-72b-ov-hf",
    "lmms-lab/llava-onevision-qwen2-72b-ov-sft": "llava-hf/llava-onevision-qwen2-72b-ov-hf",
}
"""The authors' repositories, whose layout needs their own code -> the same weights in transformers' layout."""


class LLaVA_OneVision_HF(TransformersModel):
    """LLaVA-OneVision. An image alone in its prompt is cut into tiles of 384 pixels (anyres, at most nine tiles' worth
    of tokens and an overview); of several in one prompt each is one tile, squared with a border.

    The authors' repository names are accepted and stand for the converted checkpoints.
    """

    class_name = "LlavaOnevisionForConditionalGeneration"
    model_types = ("llava_onevision",)
    image_parts = PaddedTileParts()
    takes_video = True

    def __init__(self, model_path: str, **arguments: Any) -> None:
        super().__init__(CONVERTED.get(model_path, model_path), **arguments)

    def _build_device_map(self, layout: Layout, cards: Sequence[Card]) -> DeviceMap:
        """The projector stays with the embeddings at any price: between them the model joins the tiles of an image
        with `image_newline`, a bare parameter that lies with the projector. SigLIP's layers, half a GiB in all, go
        there too unless that makes the fullest card fuller.
        """
        return layout.over(cards, on_entry_card=VISION_ROLES, whole=("projector", "embeddings"))

    def conversation(self, message: Sequence[Message]) -> list[dict[str, Any]]:
        """One text a turn, with the image token where an image is: the checkpoints' chat template puts all images of
        a turn before its texts, which loses the order."""
        marks = {"image": self.processor.image_token, "video": self.processor.video_token}
        turns = super().conversation(message)
        for turn in turns:
            for kind, mark in marks.items():
                if any(mark in part.get("text", "") for part in turn["content"]):
                    raise SampleError(f"the text holds the {kind} mark {mark!r}, which would stand for one")
            text = "".join(
                part["text"] if part["type"] == "text" else f"{marks[part['type']]}\n" for part in turn["content"]
            )
            turn["content"] = [{"type": "text", "text": text}]
        return turns

    def video_sampling(self, sampling: Sampling) -> Sampling:
        """As upstream's class takes frames: both ends included."""
        return replace(sampling, placing="ends_down")

    def groups(self, batch: Sequence[list[Message]]) -> Iterable[Sequence[int]]:
        """Videos of one call have as many frames each: transformers stacks them."""
        lengths = [
            {len(video_source(part["value"]).positions()) for part in message if part["type"] == "video"}
            for message in batch
        ]
        for found in sorted({tuple(sorted(own)) for own in lengths if own}):
            if len(found) > 1:
                raise SampleError(f"videos of {found} frames in one prompt: LLaVA-OneVision takes them of one length")
        for count in sorted({next(iter(own), 0) for own in lengths}):
            yield [place for place, own in enumerate(lengths) if next(iter(own), 0) == count]

    def arrange_images(self, images: list[list[PILImage]]) -> Any:
        """One list a prompt: from a flat one, processor and model would take every image as alone in its prompt and
        cut it into tiles."""
        return [own for own in images if own] or None

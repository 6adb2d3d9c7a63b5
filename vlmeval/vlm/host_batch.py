"""A batch from prompts to answers: what happens on the host, which can run ahead, and what needs the model.

host = model.prepare_on_host(batch, task)        # decode, resize, tokenise
inputs = model.to_model(host)                    # features of images not seen lately; all on the model's device
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from vlmeval.errors import SampleError
from vlmeval.images import image_key, open_image, shrunk
from vlmeval.types import ImageValue, Message, Task, VideoValue
from vlmeval.videos import video_source
from vlmeval.vlm.batch_limits import BatchLimits
from vlmeval.vlm.chat_prompts import ChatPrompts
from vlmeval.vlm.image_parts import PIXELS, Features, ImageParts, Part
from vlmeval.vlm.image_store import CARD_SHARE, FEATURE_BYTES, MOST_IMAGES, ImageStore, PreparedImage
from vlmeval.vlm.video_frames import ReadyVideo, VideoStore, processor_arguments, ready_video

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

    from vlmeval.vlm.stand_ins import StoredImageProcessor

VIDEO_PIXELS = "pixel_values_videos"
PIXELS_AT_ONCE_ON_CPU = 2**21
"""Numbers encoded at once on a CPU: one large image is quicker by itself, many small ones are together."""


@dataclass(frozen=True, kw_only=True)
class HostBatch:
    """Inputs on the host, and the images of each prompt whose pixels are not among them."""

    inputs: dict[str, Any]
    images: list[list[PreparedImage]]


class HostBatches(ChatPrompts, BatchLimits):
    """Prepares batches and brings them to the model."""

    model: Any
    max_image_pixels: int
    image_parts: ImageParts | None = None
    """How the family's images come apart; None: they are given to the model as its processor makes them, every time."""
    _store: ImageStore | None = None

    def arrange_images(self, images: list[list[PILImage]]) -> Any:
        """The images of each prompt as the family's processor takes them: here one flat list, None if there is none."""
        return [image for own in images for image in own] or None

    def processor_arguments(self, task: Task | None) -> dict[str, Any]:
        """What a family tells its processor besides texts and images, by a task's type and traits."""
        return {}

    # On the host

    def store_images(self) -> None:
        """From now on the processor is asked for an image only once as long as its features are kept."""
        if self.image_parts is None:
            return
        self._store = ImageStore(self._feature_bytes())

    def _feature_bytes(self) -> int:
        cards = [card.free_bytes for card in self.replica_cards()]
        return min(FEATURE_BYTES, round(CARD_SHARE * min(cards))) if cards else FEATURE_BYTES

    def most_kept_bytes(self) -> int:
        """As the store has it, which is made when the model is loaded."""
        return self._feature_bytes() if self.image_parts is not None else 0

    def kept_bytes(self) -> int:
        """Of the store."""
        return self._store.kept_bytes if self._store is not None else 0

    def prepare_on_host(self, batch: Sequence[list[Message]], task: Task | None = None) -> HostBatch:
        """Prompts as inputs on the host. Raises SampleError for a prompt that cannot be made into any."""
        texts = [self.render(message) for message in batch]
        images = [[self.image_of(part["value"]) for part in message if part["type"] == "image"] for message in batch]
        videos = [
            self.video_of(part["value"], task) for message in batch for part in message if part["type"] == "video"
        ]
        arguments = {"padding": True, "return_tensors": "pt", **self.processor_arguments(task)}
        arguments.update(processor_arguments(videos))
        inputs = self._process(text=texts, images=self.arrange_images(images), **arguments)
        return self.host_batch({name: value for name, value in inputs.items() if name != "video_metadata"}, images)

    def host_batch(self, inputs: Mapping[str, Any], images: Sequence[Sequence[PILImage]]) -> HostBatch:
        """Inputs as a processor gives them, of which stand-ins among the images bring the pixels later."""
        prepared = [[getattr(image, "prepared", None) for image in own] for own in images]
        found = [[image for image in own if image is not None] for own in prepared]
        aside = {PIXELS} if any(found) else set()
        return HostBatch(inputs={name: value for name, value in inputs.items() if name not in aside}, images=found)

    def image_of(self, value: ImageValue) -> Any:
        """The image, or a stand-in where images are stored. Raises ImageError."""
        if self._store is None:
            return self._opened(value)
        key = image_key(value)
        content = f"{key} {self.pixel_share}" if key else object()  # the latter equals nothing else
        from vlmeval.vlm.stand_ins import StandIn

        return StandIn(content, lambda: self._opened(value))

    def video_of(self, value: VideoValue, task: Task | None) -> ReadyVideo:
        """The frames of a video as the model sees them. Raises SampleError."""
        source, cut = video_source(value), self.video_cutting(task)
        shown = source.shown()
        size = cut.frame_size(shown, self.pixel_share) if cut is not None else (shown.width, shown.height)
        if size is None:
            raise SampleError(
                f"video {source.name}: frames of {shown.width} x {shown.height} are refused as too narrow"
            )
        return self._videos.get(source, size, ready_video)

    @cached_property
    def _videos(self) -> VideoStore:
        return VideoStore()

    @property
    def pixel_share(self) -> float:
        """How many of its pixels an image keeps; under 1 only for a sample that nothing else makes fit."""
        return 1.0

    def shown_pixels(self, image: PILImage) -> int:
        """The pixels of an image that the model sees, as far as that is decided by its size alone."""
        return image.width * image.height

    def _opened(self, value: ImageValue) -> PILImage:
        image = open_image(value, self.max_image_pixels)
        return image if self.pixel_share == 1 else shrunk(image, self.shown_pixels(image) * self.pixel_share)

    def _process(self, **arguments: Any) -> Mapping[str, Any]:
        """What the processor makes of texts and images. Raises SampleError where it refuses them."""
        try:
            with one_at_a_time, self._stored_images():
                found: Mapping[str, Any] = self.processor(**arguments)
            return found
        except (ZeroDivisionError, IndexError, ValueError) as error:
            # E.g. Qwen2-VL takes no image that is 200 times as wide as high.
            sizes = [getattr(image, "opened_size", None) or image.size for image in _flat(arguments.get("images"))]
            about = f" (images of {', '.join(f'{w} x {h}' for w, h in sizes[:4])})" if sizes else ""
            name = type(self.processor).__name__
            raise SampleError(f"{name} refuses this prompt{about}: {error}") from error

    @contextlib.contextmanager
    def _stored_images(self) -> Iterator[None]:
        """While it lasts, the processor is asked only for images that are not in the store."""
        stored = self.stored_processor()
        if stored is None:
            yield
            return
        self.processor.image_processor = stored
        try:
            yield
        finally:
            self.processor.image_processor = stored.inner

    def stored_processor(self) -> StoredImageProcessor | None:
        """The image processor with the store before it; None where images are not stored."""
        if self.image_parts is None or self._store is None:
            return None
        from vlmeval.vlm.stand_ins import StoredImageProcessor

        return StoredImageProcessor(self.processor.image_processor, self.image_parts, self._store)

    # To the model

    def to_model(self, host: HostBatch, model: Any = None) -> dict[str, Any]:
        """All inputs on the model's device, features in place of pixels where the model takes them. `model`: the twin
        of the loaded one that is to answer."""
        model = self.model if model is None else model
        images = [image for own in host.images for image in own]
        if not images or self.image_parts is None or self._store is None:
            return self.moved(host.inputs)
        if not self.reuses_features(model) or VIDEO_PIXELS in host.inputs:
            # A model takes the features of all that is shown or of nothing.
            return self.with_pixels(host)
        features = self._store.features(images, lambda parts: self._encode(model, parts))
        kept = {name: value for name, value in host.inputs.items() if name not in self.image_parts.vision_only}
        return {**self.moved(kept), **self.image_parts.arguments(features)}

    def with_pixels(self, host: HostBatch) -> dict[str, Any]:
        """All inputs on the model's device, pixels as the processor makes them."""
        if self.image_parts is None or not any(host.images):
            return self.moved(host.inputs)
        joined = self.image_parts.join([[image.whole() for image in own] for own in host.images if own])
        return self.moved({**host.inputs, PIXELS: joined[PIXELS]})

    def reuses_features(self, model: Any = None) -> bool:
        """Whether images are encoded by themselves: not where several beams share them."""
        model = self.model if model is None else model
        beams = getattr(model.generation_config, "num_beams", 1) or 1
        return self.image_parts is not None and beams == 1 and self.image_parts.can_reuse(model)

    def _encode(self, model: Any, parts: list[Part]) -> list[Features]:
        import torch

        if self.image_parts is None:
            return []
        found: list[Features] = []
        with torch.inference_mode():
            for chunk in _chunks(parts, None if self.replica_cards() else PIXELS_AT_ONCE_ON_CPU):
                encoded = self.image_parts.encode(model, [self.moved(part) for part in chunk])
                # Of their own, so that one kept image does not keep the others of its batch.
                found += [tuple(tensor.clone() for tensor in own) if len(chunk) > 1 else own for own in encoded]
        return found

    def keep_images(self, count: int) -> None:
        """As far as the bytes for features go."""
        if self._store is not None:
            self._store.most_images = max(MOST_IMAGES, count)

    def forget_features(self) -> None:
        """The model lies elsewhere now."""
        if self._store is not None:
            self._store.clear()

    def moved(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """On the model's device, in its number type. Of a split model every part is moved to where it is taken, so that
        here nothing is left behind on another card."""
        is_split = self.replica is not None and len(self.replica.cards) > 1
        device = "cpu" if is_split else self.model.device

        def move(value: Any) -> Any:
            if isinstance(value, (list, tuple)):
                return [move(item) for item in value]
            if not hasattr(value, "to"):
                return value
            return value.to(device, self.model.dtype if value.is_floating_point() else value.dtype)

        return {name: move(value) for name, value in inputs.items()}

    def reuse_stamp(self) -> dict[str, Any]:
        """How many images of the prompts so far were encoded, and how many needed not be."""
        if self._store is None or not self._store.used:
            return {}
        return {"images": self._store.used, "images_reused": self._store.used - self._store.encoded}


one_at_a_time = threading.Lock()
"""A fast tokenizer cannot be given two texts at once by two threads."""


def _chunks(parts: Sequence[Part], most: int | None) -> list[list[Part]]:
    """All in one, or of at most so many numbers each."""
    chunks: list[list[Part]] = []
    filled = 0
    for part in parts:
        size = part[PIXELS].numel()
        if not chunks or (most is not None and filled + size > most):
            chunks.append([])
            filled = 0
        chunks[-1].append(part)
        filled += size
    return chunks


def _flat(images: Any) -> list[PILImage]:
    if isinstance(images, (list, tuple)):
        return [image for item in images for image in _flat(item)]
    return [images] if images is not None else []

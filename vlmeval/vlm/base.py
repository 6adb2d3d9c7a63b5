"""BaseModel: what every model offers, and all that a user's own model needs to write.

class MyVLM(BaseModel):
    def generate_inner(self, message, task=None):
        image = open_image(message[0]["value"])
        return my_network(image, message[1]["value"])
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union
from urllib.parse import urlparse

from vlmeval.errors import ImageError, SampleError, UsageError
from vlmeval.placement.workload import ImageLimits
from vlmeval.types import Answer, ImagePart, Message, Sample, Task, TextPart
from vlmeval.videos import Sampling, frame_images, video_source
from vlmeval.vlm.card_memory import Held, held_by_process
from vlmeval.vlm.prompt_size import PromptSize
from vlmeval.vlm.room import MakesRoom

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

Prompt = Union[str, "PILImage", Message, Sequence[Union[str, "PILImage", Message]]]
"""What `generate` takes: a text, an image or a `Message`, or a list of them in the order the model shall see."""

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


class BaseModel(MakesRoom):
    """A model that answers prompts of text and images. Making one is cheap: weights are loaded by `load()`."""

    takes_video: bool = False
    """Whether it is given videos as they are. Where not, a video in a prompt becomes its frames, as images."""
    shows_frames: bool = False
    """Whether that has happened."""

    def generate(self, message: Prompt, task: Task | None = None) -> str:
        """The answer to one prompt, e.g. `generate(["a.jpg", "What is this?"])`. Loads the model when needed."""
        self.load()
        return self.generate_batch([self.shown(normalise_prompt(message))], task)[0].text

    def shown(self, message: Sequence[Message]) -> list[Message]:
        """The prompt as this model takes it: videos with the frames that it shall see, or as images.

        Raises SampleError for a video that cannot be read. Nothing is decoded.
        """
        found: list[Message] = []
        for part in message:
            if part["type"] != "video":
                found.append(part)
                continue
            source = video_source(part["value"])
            if self.takes_video:
                source = replace(source, sampling=self.video_sampling(source.sampling))
                source.shown()
                found.append({**part, "value": source})
                continue
            self.shows_frames = True
            found += self.frame_parts([{**part, "type": "image", "value": frame} for frame in frame_images(source)])
        return found

    def video_sampling(self, sampling: Sampling) -> Sampling:
        """Which frames it is shown where a benchmark asks for these: the family's own way to spread them."""
        return sampling

    def frame_parts(self, frames: list[Message]) -> list[Message]:
        """The frames of one video as parts of a prompt, for a model that takes no video."""
        return frames

    def generate_inner(self, message: list[Message], task: Task | None = None) -> str:
        """The answer to one normalised prompt: the one method a model of your own has to write.

        In a benchmark of conversations it is called once a turn. What was said before stands in `message`, in order:
        parts without a role (or with role "user") were asked, a text with role "assistant" is this model's own earlier
        answer; the last parts are what is asked now.
        """
        raise NotImplementedError(f"{type(self).__name__} must define generate_inner or generate_batch")

    def generate_batch(self, batch: Sequence[list[Message]], task: Task | None = None) -> list[Answer]:
        """One answer per prompt, in order. Overridden by models that answer several prompts at once."""
        return [Answer(text=self.generate_inner(message, task)) for message in batch]

    def begin_batch(self, batch: Sequence[list[Message]], task: Task | None = None) -> Callable[[], list[Answer]]:
        """Calling the result is `generate_batch`; a model may begin before with what needs no card."""
        return lambda: self.generate_batch(batch, task)

    def prepares_ahead(self) -> bool:
        """Whether `begin_batch` does any work before the result is called, so that it is worth while to begin early."""
        return False

    def prompt_size(self, message: Sequence[Message], task: Task | None = None) -> PromptSize:
        """How large a prompt is, as far as this model knows; prompts of about one size are answered together."""
        return PromptSize()

    def batch_limit(self, worst: PromptSize) -> int:
        """How many prompts of this size it shall be given at once where `--batch-size` leaves that to it."""
        return 1

    def keep_images(self, count: int) -> None:
        """The next prompts go on as conversations that show so many images: what was made of these will be wanted."""

    def is_too_much(self, batch: Sequence[list[Message]], task: Task | None = None) -> bool:
        """Whether memory ran out with a batch that was no larger than this one."""
        return False

    def remember_too_much(self, batch: Sequence[list[Message]], task: Task | None = None) -> None:
        """Memory ran out with this batch, though what could be let go of was: the next as large is cut beforehand."""

    def batches_in_flight(self) -> int:
        """How many batches `generate_batches` had best be given at once; 1 where one after the other is as good."""
        return 1

    def parts_of_a_batch(self) -> int:
        """In how many parts a batch is given to `generate_batches`: those in flight, also once fewer are at a time."""
        return self.batches_in_flight()

    def generate_batches(
        self, batches: Sequence[Sequence[list[Message]]], task: Task | None = None
    ) -> list[list[Answer] | SampleError]:
        """Each batch's answers, in order, or why it cannot be answered; one that cannot leaves the others alone."""
        return [self.answer_alone(batch, task) for batch in batches]

    def answer_alone(self, batch: Sequence[list[Message]], task: Task | None) -> list[Answer] | SampleError:
        """The answers of one batch, or why it cannot be answered."""
        try:
            return self.generate_batch(batch, task)
        except SampleError as error:
            return error.with_traceback(None)  # lets go of what the attempt holds

    def check(self) -> None:
        """Raise for what is wrong and can be seen at once, without fetching or loading anything."""

    def load(self) -> None:
        """Load the weights, once; a second call does nothing."""

    def memory_held(self) -> Sequence[Held]:
        """What it holds on each card now; asked every few seconds while it answers, from another thread."""
        return held_by_process()

    def is_in_doubt(self, *, at_end: bool = False) -> bool:
        """Whether the last answers may be worthless and shall not be recorded before more have been seen.

        Asked after every answer, and `at_end` when no more will come: then it is either False, or an error that ends
        the run.
        """
        return False

    def seed(self, value: int) -> None:
        """Seed what sampling draws from. Called before each batch, so that an answer does not depend on the order."""
        random.seed(value)

    def use_custom_prompt(self, task: Task) -> bool:
        """Whether this model words the prompts of such a task itself (then `build_prompt` is called)."""
        return False

    def build_prompt(self, sample: Sample, task: Task) -> list[Message]:
        """The model's own prompt for a sample, images included."""
        raise NotImplementedError(f"{type(self).__name__} has no prompt of its own")

    def image_limits(self, task: Task | None) -> ImageLimits:
        """What bounds the images of a prompt of such a task; planning for the worst sample asks."""
        return ImageLimits()

    def settings(self) -> Mapping[str, Any]:
        """Everything that may change an answer, as plain values; a changed one starts a new run."""
        return {"class": f"{type(self).__module__}:{type(self).__qualname__}"}

    def stamp(self) -> Mapping[str, Any]:
        """What was chosen on this machine (device, number type, attention), recorded with the results."""
        return self.video_stamp()

    def video_stamp(self) -> dict[str, Any]:
        """How videos were shown, where not as they are."""
        return {"videos": "their frames are shown as images"} if self.shows_frames else {}


def normalise_prompt(message: Prompt) -> list[Message]:
    """Any accepted form as a list of `Message`.

    A text is an image if it is the path of a file, or a path or URL that ends like one; an image path that does not
    exist raises ImageError rather than being read out to the model. Raises UsageError for anything else.
    """
    if isinstance(message, (str, Mapping)) or hasattr(message, "convert"):
        return [_one(message)]
    if isinstance(message, Sequence) and message:
        return [_one(item) for item in message]
    raise UsageError(f"a prompt is a text, an image, a message or a list of them, not {type(message).__name__}")


def _one(item: Any) -> Message:
    if isinstance(item, Mapping):
        if item.get("type") not in ("text", "image", "video") or "value" not in item:
            raise UsageError(f"a message needs type (text, image or video) and value, not {dict(item)!r}")
        part: Any = dict(item)  # the user's own, checked just now
        return part
    if hasattr(item, "convert"):
        return ImagePart(type="image", value=item)
    if not isinstance(item, str):
        raise UsageError(f"a prompt holds texts, images and messages, not {type(item).__name__}")
    return ImagePart(type="image", value=item) if _is_image(item) else TextPart(type="text", value=item)


def _is_image(text: str) -> bool:
    if len(text) > 4096 or "\n" in text:
        return False
    if text.startswith(("http://", "https://")):
        return urlparse(text).path.lower().endswith(IMAGE_SUFFIXES)
    path = Path(text.removeprefix("file://"))
    try:
        if path.is_file():
            return True
    except OSError:
        return False
    if text.lower().endswith(IMAGE_SUFFIXES) and not any(c.isspace() for c in text):
        raise ImageError(f"image file {text} does not exist")
    return False

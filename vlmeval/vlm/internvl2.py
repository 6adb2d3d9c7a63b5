"""InternVL2 and its relatives (2.5, 3, 3.5) in transformers' own class, from original folders and from native ones.

Original folders (`internvl_chat`, as OpenGVLab publishes them) are read without their code: config, weights, tokenizer
and conversation template each have a file here. Native folders (`internvl`, the -hf ones) bring processor and chat
template. Prompts, tile limits and settings: shared/reference facts on VLMEvalKit (August 2026);
https://huggingface.co/OpenGVLab/InternVL2-8B.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from vlmeval.errors import ModelError, SampleError, UsageError
from vlmeval.hardware import Card
from vlmeval.placement.device_map import DeviceMap
from vlmeval.placement.layout import Layout
from vlmeval.placement.profile import VISION_ROLES
from vlmeval.placement.workload import ImageLimits
from vlmeval.types import Answer, Message, Sample, Task, TextPart
from vlmeval.videos import FrameSource
from vlmeval.vlm.host_batch import HostBatch
from vlmeval.vlm.image_parts import PIXELS, TileParts
from vlmeval.vlm.internvl2_templates import ConversationTemplate, find_template
from vlmeval.vlm.planned import PlannedModel, planned_config
from vlmeval.vlm.prompts import CHINESE_LETTER_ONLY, has_chinese, with_images
from vlmeval.vlm.transformers_model import TransformersModel

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image as PILImage

    from vlmeval.vlm.stand_ins import StandIn

IMAGE_START, IMAGE_CONTEXT, IMAGE_END = "<img>", "<IMG_CONTEXT>", "</img>"
DEFAULT_TILES = 6
TILES_BY_TRAIT: Mapping[str, int] = {"image_markers": 12, "chart": 12, "document": 18, "fine_print": 24, "video": 1}
"""The most tiles an image is cut into, by what a benchmark declares."""
TILES_PER_PROMPT = 64
"""Several images share these, so that a prompt with many stays within memory."""
ORIGINAL_NEEDS = (5, 9)
"""The transformers that reads original folders; native ones run with any that the kit takes."""
IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


@dataclass
class OriginalProcessor:
    """What an original folder has instead of a transformers processor."""

    tokenizer: Any
    image_processor: Any
    image_seq_length: int
    image_token: str = IMAGE_CONTEXT


class InternVLChat(TransformersModel):
    """InternVL2. `max_tiles` overrides the tiles per image that a task asks for.

    `version` is upstream's argument; V2.0 is all there is here.
    """

    class_name = "InternVLForConditionalGeneration"
    model_types = ("internvl_chat", "internvl")
    image_parts = TileParts()
    generation_defaults: ClassVar[Mapping[str, Any]] = {"max_new_tokens": 4096}

    def __init__(
        self, model_path: str, *, max_tiles: int | None = None, version: str = "V2.0", **arguments: Any
    ) -> None:
        super().__init__(model_path, **arguments)
        if max_tiles is not None and (isinstance(max_tiles, bool) or not isinstance(max_tiles, int) or max_tiles < 1):
            raise UsageError(f"max_tiles={max_tiles!r} is no number of tiles")
        if version != "V2.0":
            raise UsageError(f"version={version!r}: only V2.0 runs here (InternVL2 and later)")
        self.max_tiles = max_tiles

    @property
    def is_original(self) -> bool:
        """Whether the folder is of OpenGVLab's layout rather than transformers'."""
        return self.checkpoint.model_type == "internvl_chat"

    @property
    def template(self) -> ConversationTemplate:
        """The conversation template of an original folder."""
        return find_template(self.checkpoint.config.get("template"), str(self.checkpoint.folder))

    def settings(self) -> Mapping[str, Any]:
        """The shared settings and the tile limit."""
        return {**super().settings(), "max_tiles": self.max_tiles}

    @cached_property
    def planned(self) -> PlannedModel:
        """What planning needs; whether an original folder has an output layer of its own, its weights tell."""
        if not self.is_original:
            return super().planned
        from vlmeval.vlm.internvl2_weights import has_output_layer

        own = has_output_layer(self.checkpoint.weight_files)
        return planned_config(self.checkpoint.config, self.model_path, has_output_layer=own)

    def image_limits(self, task: Task | None) -> ImageLimits:
        """The tiles of a task, and that MMMU's first image is doubled."""
        return ImageLimits(
            max_tiles=tile_limit(task, 1, self.max_tiles),
            tiles_per_prompt=TILES_PER_PROMPT,
            first_doubled=task is not None and "image_markers" in task.traits,
        )

    def _build_device_map(self, layout: Layout, cards: Sequence[Card]) -> DeviceMap:
        """The 300 M tower lies with the embeddings. The 6 B tower (26B and larger) has 11 GiB, of which a 12 GB card
        holds a part: its layers pass on one tensor each and are cut wherever the cards want it. Pixel shuffle and
        projector follow its last layer.
        """
        return layout.over(cards, on_entry_card=VISION_ROLES)

    def load_processor(self) -> Any:
        """The checkpoint's processor; for an original folder, its tokenizer and the tiling of its remote code."""
        if not self.is_original:
            return super().load_processor()
        import transformers

        folder, raw = self.checkpoint.folder, self.checkpoint.config
        _check_transformers(transformers.__version__, str(folder))
        from vlmeval.vlm.internvl2_config import native_config, tile_side, tokens_per_tile
        from vlmeval.vlm.internvl2_tokenizer import load_tokenizer

        self.template  # noqa: B018  an unknown one is found here, before anything is read
        config = native_config(raw, image_token_id=0, has_output_layer=True, where=str(folder))
        side = tile_side(raw)
        return OriginalProcessor(
            tokenizer=load_tokenizer(folder, config.get_text_config()),
            # The class's own size, mean and deviation are those of another model.
            image_processor=transformers.GotOcr2ImageProcessorPil(
                size={"height": side, "width": side}, image_mean=IMAGENET_MEAN, image_std=IMAGENET_STD
            ),
            image_seq_length=tokens_per_tile(raw),
        )

    def load_model(self, **arguments: Any) -> Any:
        """The model; an original folder's weights are converted while they are read."""
        from vlmeval.vlm.internvl2_weights import check_layout, load_original, weight_keys

        files, tokenizer = self.checkpoint.weight_files, self.processor.tokenizer
        if not self.is_original:
            check_layout(weight_keys(files), "converted", self.checkpoint.folder)
            return super().load_model(**arguments)
        image_token_id = tokenizer.convert_tokens_to_ids(IMAGE_CONTEXT)
        model = load_original(self.checkpoint.folder, self.checkpoint.config, files, image_token_id, **arguments)
        ends = (tokenizer.convert_tokens_to_ids(self.template.stop_token), tokenizer.eos_token_id)
        ids = model.generation_config
        ids.eos_token_id = sorted({token for token in ends if token is not None and token != tokenizer.unk_token_id})
        ids.pad_token_id = tokenizer.pad_token_id
        return model

    def prepare_on_host(self, batch: Sequence[list[Message]], task: Task | None = None) -> HostBatch:
        """Prompts as inputs on the host: `input_ids` [batch, tokens]; each image is some tiles."""
        texts, images = [], []
        for message in batch:
            own = self._images(message, task)
            counts = [self._tiles(image, len(own), task) for image in own]
            text = self.render(message, in_place=task is not None and task.type == "MT")
            texts.append(self._with_image_tokens(text, counts))
            images.append(own)
        inputs = self.processor.tokenizer(texts, padding=True, return_tensors="pt")
        return self.host_batch({name: inputs[name] for name in ("input_ids", "attention_mask")}, images)

    def _images(self, message: Sequence[Message], task: Task | None) -> list[StandIn]:
        images = [self.image_of(part["value"]) for part in message if part["type"] == "image"]
        if images and task and "image_markers" in task.traits:
            # As upstream does for MMMU.
            images[0] = images[0].changed("doubled", _doubled)
        return images

    def _tiles(self, image: StandIn, images: int, task: Task | None) -> int:
        """How many tiles an image is cut into. The whole image follows its tiles if there are two."""
        # An image is blown up to its tiles: fewer pixels are fewer of them.
        limit = max(1, int(tile_limit(task, images, self.max_tiles) * self.pixel_share))
        arguments = {"crop_to_patches": True, "min_patches": 1, "max_patches": limit}
        stored = self.stored_processor()
        if stored is None:
            raise RuntimeError("load() comes before the first prompt")
        try:
            prepared = stored.prepare(image, True, arguments)
        except (ValueError, ZeroDivisionError) as error:
            width, height = image.opened_size or image.size
            raise SampleError(f"an image of {width} x {height} cannot be cut: {error}") from error
        return len(prepared.shape[PIXELS])

    def _with_image_tokens(self, text: str, counts: Sequence[int]) -> str:
        """The prompt with the tokens of each image's tiles where the image stands."""
        parts = text.split(IMAGE_CONTEXT)
        if len(parts) != len(counts) + 1:
            raise SampleError(
                f"the prompt has {len(counts)} images and {len(parts) - 1} times {IMAGE_CONTEXT} in its text"
            )
        per_tile = self.processor.image_seq_length
        marked = (f"{IMAGE_START}{IMAGE_CONTEXT * per_tile * count}{IMAGE_END}" for count in counts)
        return parts[0] + "".join(image + part for image, part in zip(marked, parts[1:], strict=True))

    def render(self, message: Sequence[Message], *, in_place: bool = False) -> str:
        """The prompt text, one `<IMG_CONTEXT>` for each image. `in_place`: original folders too have images where they
        stand, without numbers, as upstream has them in conversations; a number would come and go with later turns."""
        if not self.is_original:
            return super().render(message)
        total = sum(part["type"] == "image" for part in message)
        word = (
            "Frame"
            if any(part["type"] == "image" and isinstance(part["value"], FrameSource) for part in message)
            else "Image"
        )
        system, spoken, number = self.system_prompt, [], 0
        for turn in self.conversation(message):
            texts = [part["text"] for part in turn["content"] if part["type"] == "text"]
            if turn["role"] == "system":
                system = "\n".join(texts)
                continue
            text = _in_place(turn["content"]) if in_place else _turn_text(turn["content"], number, total, word)
            spoken.append((turn["role"], text))
            number += len(turn["content"]) - len(texts)
        return self.template.prompt(spoken, system)

    def frame_parts(self, frames: list[Message]) -> list[Message]:
        """Frames by number, as upstream has them; for an original folder its template writes that."""
        if len(frames) == 1 or self.is_original:
            return frames
        numbered = ((TextPart(type="text", value=f"Frame-{n}: "), frame) for n, frame in enumerate(frames, 1))
        return [part for pair in numbered for part in pair]

    def has_prompt(self, task: Task) -> bool:
        """Every task is worded by the family."""
        return True

    def build_prompt(self, sample: Sample, task: Task) -> list[Message]:
        """Images first, then the question; `<image N>` markers stay in the text."""
        return with_images(sample, task_text(sample, task))

    def _answers(self, output: torch.Tensor, inputs: Mapping[str, torch.Tensor]) -> list[Answer]:
        return [replace(answer, text=self._spoken(answer.text)) for answer in super()._answers(output, inputs)]

    def _spoken(self, text: str) -> str:
        # Where the tokenizer does not count the separator among its special tokens, it is still there.
        return (text.split(self.template.stop_token)[0] if self.is_original else text).strip()


def _check_transformers(installed: str, folder: str) -> None:
    """Raise ModelError for a transformers that cannot convert weights by the name of a class."""
    if tuple(int(part) for part in installed.split(".")[:2]) < ORIGINAL_NEEDS:
        needed = ".".join(map(str, ORIGINAL_NEEDS))
        raise ModelError(
            f"{folder} is in OpenGVLab's layout, which needs transformers {needed} or later; "
            f"installed is {installed}: pip install --upgrade transformers, or take a -hf folder"
        )


def _doubled(image: PILImage) -> PILImage:
    from PIL import Image

    return image.resize((image.width * 2, image.height * 2), Image.Resampling.BILINEAR)


def tile_limit(task: Task | None, images: int, asked: int | None = None) -> int:
    """The most tiles for each of a prompt's images: `asked`, or what the task's traits ask for, within the total."""
    wanted = [limit for trait, limit in TILES_BY_TRAIT.items() if task and trait in task.traits]
    limit = asked or max(wanted, default=DEFAULT_TILES)
    return max(1, min(limit, TILES_PER_PROMPT // max(1, images)))


def task_text(sample: Sample, task: Task) -> str:
    """The family's wording of a task."""
    question = sample.question
    if task.type == "MCQ":
        return _choice_text(sample)
    if task.type == "Y/N":
        if "one_word" not in task.traits:
            return question
        yes_no = " Please answer yes or no." if "yes_no_suffix" in task.traits else ""
        return f"{question}{yes_no} Answer the question using a single word or phrase."
    if "detailed" in task.traits:
        return f"{question}\nAnswer this question in detail."
    if task.traits & {"judge", "own_wording"}:
        return question
    return f"{question}\nAnswer the question using a single word or phrase."


def _choice_text(sample: Sample) -> str:
    lines = [sample.hint] if sample.hint else []
    lines += [sample.question, *(f"{label}. {text}" for label, text in sample.options.items())]
    text = "\n".join(lines)
    if sample.options:
        plain = "Answer with the option's letter from the given choices directly."
        return f"{text}\n{CHINESE_LETTER_ONLY if has_chinese(text) else plain}"
    return f"{text}\n{'请直接回答问题。' if has_chinese(text) else 'Answer the question directly.'}"


def _in_place(content: Sequence[Mapping[str, str]]) -> str:
    return "".join(part["text"] if part["type"] == "text" else f"{IMAGE_CONTEXT}\n" for part in content)


def _turn_text(content: Sequence[Mapping[str, str]], images_before: int, images_in_all: int, word: str) -> str:
    """A turn as upstream writes it: images first, numbered if the conversation has several; `word` is what they are.

    Where images stand between texts, `<Image-2>` in the text says where the second was.
    """
    texts = [part["text"] for part in content if part["type"] == "text"]
    if images_in_all <= 1:
        return f"{IMAGE_CONTEXT}\n" * (len(content) - len(texts)) + "\n".join(texts)
    head = body = places = ""
    number = images_before
    for part in content:
        if part["type"] == "text":
            body += part["text"]
            continue
        number += 1
        head += f"{word}-{number}: {IMAGE_CONTEXT}\n"
        body += f"<{word}-{number}>"
        places += f"<{word}-{number}>"
    return head + body.replace(places, "") if places else body

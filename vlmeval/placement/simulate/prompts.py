"""What a family's processor hands to its model for some pictures and some text, as shapes; and the workload it is.

The pictures are blank ones of the size asked for, put through transformers' own image processors with the settings of
the published checkpoints; of the pixels only shape and type are kept. Ids, grids, sizes and masks keep their numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from PIL import Image

from vlmeval.errors import UsageError
from vlmeval.placement.cost_model import Workload
from vlmeval.placement.simulate.trial import DECODED_TOKENS
from vlmeval.placement.workload import QWEN_PIXELS

TEXT_TOKEN, PAD_TOKEN = 11, 0
TEXT_BEFORE_IMAGES = 20
PADDED_SLICE = 8
"""Mllama pads the states of a tile to a multiple of this."""
Inputs = dict[str, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked at once: `batch` prompts, each with `images` pictures of one size (width, height in pixels).

    The first prompt has `text_tokens` of text, each further one `shorter_by` fewer, so that a batch is padded (on the
    left). `max_tiles` is InternVL's limit for each picture. With `frames` each picture is a video of so many.
    """

    batch: int = 1
    images: int = 1
    size: tuple[int, int] = (1120, 896)
    text_tokens: int = 100
    shorter_by: int = 7
    max_tiles: int = 6
    frames: int = 0

    def __post_init__(self) -> None:
        shortest = self.text_tokens - (self.batch - 1) * self.shorter_by
        if min(self.batch, self.images, *self.size) < 1 or shortest <= TEXT_BEFORE_IMAGES:
            raise UsageError(f"{self} cannot be asked: the shortest prompt would have {shortest} tokens of text")


LARGEST: Mapping[str, tuple[int, int]] = {
    "qwen2_vl": (3584, 3584), "qwen2_5_vl": (3584, 3584), "qwen3_vl": (4096, 4096), "qwen3_vl_moe": (4096, 4096),
    "llava_onevision": (2304, 2304), "mllama": (1120, 1120), "internvl": (2688, 4480),
}  # fmt: skip
"""The picture that gives the most tokens with the checkpoints' settings; InternVL's is cut into 6 x 10 tiles."""
INTERNVL_MOST_TILES = 60


def largest(model_type: str) -> Question:
    """One prompt with the largest picture. Raises UsageError for a family without a processor here."""
    if model_type not in LARGEST:
        raise UsageError(f"no processor is known here for {model_type!r}; known: {', '.join(LARGEST)}")
    return Question(size=LARGEST[model_type], max_tiles=INTERNVL_MOST_TILES)


def prompt_inputs(config: Any, asked: Question) -> tuple[Inputs, Workload]:
    """Inputs of generate() in bfloat16, and the workload to plan for. `config` is transformers' object.

    Raises UsageError for a family without a processor here.
    """
    builders = _VIDEO_BUILDERS if asked.frames else _BUILDERS
    build = builders.get(config.model_type)
    if build is None:
        raise UsageError(f"no processor is known here for {config.model_type!r}; known: {', '.join(builders)}")
    return build(config, asked)


def token_ids(asked: Question, image_token: int, counts: Sequence[int]) -> Inputs:
    """`input_ids` and `attention_mask` [batch, tokens]; `counts` image tokens for each picture of a prompt."""
    rows = [asked.text_tokens - row * asked.shorter_by for row in range(asked.batch)]
    longest = asked.text_tokens + sum(counts)
    ids = torch.full((asked.batch, longest), PAD_TOKEN)
    for row, text in zip(ids, rows, strict=True):
        row[longest - text - sum(counts) :] = TEXT_TOKEN
        start = longest - text - sum(counts) + TEXT_BEFORE_IMAGES
        row[start : start + sum(counts)] = image_token
    return {"input_ids": ids, "attention_mask": (ids != PAD_TOKEN).long()}


def pixels(shape: Sequence[int]) -> torch.Tensor:
    """Pixels of which only the shape is known."""
    return torch.empty(tuple(shape), dtype=torch.bfloat16, device="meta")


def workload(
    asked: Question,
    made: Inputs,
    *,
    image_tokens: int,
    vision_tokens: int,
    largest_image_tokens: int,
    cross_tokens: int = 0,
) -> Workload:
    """The workload of these inputs; tokens are those of one prompt, as in `Workload`."""
    return Workload(
        image_tokens=image_tokens,
        vision_tokens=vision_tokens,
        largest_image_tokens=largest_image_tokens,
        cross_tokens=cross_tokens,
        batch=asked.batch,
        text_tokens=asked.text_tokens,
        pixel_values=made["pixel_values_videos" if asked.frames else "pixel_values"].numel() // asked.batch,
        new_tokens=DECODED_TOKENS,
    )


def blank(size: tuple[int, int]) -> Image.Image:
    """A picture."""
    return Image.new("RGB", size)


def _processed(name: str, size: tuple[int, int], settings: Mapping[str, Any], count: int = 1) -> Any:
    """What transformers' image processor of this name makes of the pictures of one prompt."""
    import transformers

    processor = getattr(transformers, name)(**settings)
    return processor([[blank(size)] * count], return_tensors="pt")


def _qwen(config: Any, asked: Question) -> tuple[Inputs, Workload]:
    vision = config.vision_config
    most = QWEN_PIXELS[config.model_type][1]
    settings = {
        "patch_size": vision.patch_size, "merge_size": vision.spatial_merge_size,
        "temporal_patch_size": vision.temporal_patch_size, "size": {"shortest_edge": 56 * 56, "longest_edge": most},
    }  # fmt: skip
    return _patches(config, asked, _processed("Qwen2VLImageProcessorPil", asked.size, settings))


def _patches(config: Any, asked: Question, made: Any) -> tuple[Inputs, Workload]:
    """Qwen's inputs, of what its processor made of one image or video."""
    kind, type_id, pixel_name = ("video", 2, "pixel_values_videos") if asked.frames else ("image", 1, "pixel_values")
    grid, token = made[f"{kind}_grid_thw"], getattr(config, f"{kind}_token_id")
    patches, channels = made[pixel_name].shape
    tokens = int(grid.prod()) // config.vision_config.spatial_merge_size**2
    inputs = token_ids(asked, token, [tokens] * asked.images)
    inputs["mm_token_type_ids"] = type_id * (inputs["input_ids"] == token).int()
    count = asked.batch * asked.images
    inputs[f"{kind}_grid_thw"] = grid.repeat(count, 1)
    inputs[pixel_name] = pixels((count * patches, channels))
    return inputs, workload(
        asked,
        inputs,
        image_tokens=tokens * asked.images,
        vision_tokens=patches * asked.images,
        largest_image_tokens=int(grid[0, 1:].prod()),
    )


def _llava_onevision(config: Any, asked: Question) -> tuple[Inputs, Workload]:
    made = _processed("LlavaOnevisionImageProcessorPil", asked.size, {}, asked.images)
    side, patch = config.vision_config.image_size, config.vision_config.patch_size
    tile = (side // patch) ** 2
    tiles = made["pixel_values"].shape[1]
    count = tile + 1 if asked.images > 1 else _llava_tokens(config, made, asked.size, side // patch)
    inputs = token_ids(asked, config.image_token_id, [count] * asked.images)
    pictures = asked.batch * asked.images
    inputs["image_sizes"] = made["image_sizes"][:1].repeat(pictures, 1)
    inputs["batch_num_images"] = torch.full((asked.batch,), asked.images)
    inputs["pixel_values"] = pixels((pictures, tiles, 3, side, side))
    return inputs, workload(
        asked,
        inputs,
        image_tokens=count * asked.images,
        vision_tokens=tiles * tile * asked.images,
        largest_image_tokens=tile,
    )


def _llava_tokens(config: Any, made: Any, size: tuple[int, int], across: int) -> int:
    """Tokens of a picture alone in its prompt: as the processor counts them."""
    from transformers import LlavaOnevisionProcessor
    from transformers.image_processing_utils import select_best_resolution

    width, height = size
    high, wide = select_best_resolution((height, width), config.image_grid_pinpoints)
    side = config.vision_config.image_size
    own = SimpleNamespace(vision_aspect_ratio=config.vision_aspect_ratio)
    count: Any = LlavaOnevisionProcessor._get_unpadded_features
    features, newlines = count(own, height, width, across, across, high // side, wide // side)
    return int(across**2 + features + newlines)


def _mllama(config: Any, asked: Question) -> tuple[Inputs, Workload]:
    from transformers.models.mllama import processing_mllama as original

    vision = config.vision_config
    side, tiles = vision.image_size, vision.max_num_tiles
    settings = {"size": {"height": side, "width": side}, "max_image_tiles": tiles}
    made = _processed("MllamaImageProcessorPil", asked.size, settings, asked.images)
    image_token = config.text_config.vocab_size - 1
    inputs = token_ids(asked, image_token, [1] * asked.images)
    masks = [original.get_cross_attention_token_mask(row.tolist(), image_token) for row in inputs["input_ids"]]
    dense = original.convert_sparse_cross_attention_mask_to_dense(
        masks,
        num_tiles=made["num_tiles"] * asked.batch,
        max_num_tiles=tiles,
        length=inputs["input_ids"].shape[1],
    )
    inputs["cross_attention_mask"] = torch.from_numpy(dense)
    for name in ("aspect_ratio_ids", "aspect_ratio_mask"):
        inputs[name] = made[name].repeat(asked.batch, *([1] * (made[name].dim() - 1)))
    inputs["pixel_values"] = pixels((asked.batch, *made["pixel_values"].shape[1:]))
    states = (side // vision.patch_size) ** 2 + 1
    padded = -(-states // PADDED_SLICE) * PADDED_SLICE
    return inputs, workload(
        asked,
        inputs,
        image_tokens=asked.images,
        vision_tokens=asked.images * tiles * padded,
        cross_tokens=asked.images * tiles * states,
        largest_image_tokens=tiles * padded,
    )


def _internvl(config: Any, asked: Question) -> tuple[Inputs, Workload]:
    side, patch = (value[0] for value in (config.vision_config.image_size, config.vision_config.patch_size))
    settings = {
        "size": {"height": side, "width": side}, "crop_to_patches": True, "min_patches": 1,
        "max_patches": asked.max_tiles,
    }  # fmt: skip
    tiles = len(_processed("GotOcr2ImageProcessorPil", asked.size, settings)["pixel_values"])
    per_tile = (side // patch) ** 2
    count = round(per_tile * config.downsample_ratio**2) * tiles
    inputs = token_ids(asked, config.image_token_id, [count] * asked.images)
    inputs["pixel_values"] = pixels((asked.batch * asked.images * tiles, 3, side, side))
    return inputs, workload(
        asked,
        inputs,
        image_tokens=count * asked.images,
        vision_tokens=asked.images * tiles * (per_tile + 1),
        largest_image_tokens=per_tile + 1,
    )


def _qwen_video(config: Any, asked: Question) -> tuple[Inputs, Workload]:
    """Frames in the size they have, put through transformers' video processor; Qwen3-VL writes between frames."""
    import transformers

    vision = config.vision_config
    processor = transformers.Qwen2VLVideoProcessor(
        patch_size=vision.patch_size, merge_size=vision.spatial_merge_size,
        temporal_patch_size=vision.temporal_patch_size, do_resize=False, do_sample_frames=False,
    )  # fmt: skip
    width, height = asked.size
    made = processor([torch.zeros(asked.frames, 3, height, width, dtype=torch.uint8)], return_tensors="pt")
    return _patches(config, asked, made)


def _llava_onevision_video(config: Any, asked: Question) -> tuple[Inputs, Workload]:
    side, patch = config.vision_config.image_size, config.vision_config.patch_size
    tile = (side // patch) ** 2
    count = asked.frames * (-(-(side // patch) // 2)) ** 2 + 1
    inputs = token_ids(asked, config.video_token_id, [count] * asked.images)
    inputs["pixel_values_videos"] = pixels((asked.batch * asked.images, asked.frames, 3, side, side))
    return inputs, workload(
        asked,
        inputs,
        image_tokens=count * asked.images,
        vision_tokens=asked.frames * tile * asked.images,
        largest_image_tokens=tile,
    )


_VIDEO_BUILDERS: Mapping[str, Callable[[Any, Question], tuple[Inputs, Workload]]] = {
    "qwen2_vl": _qwen_video, "llava_onevision": _llava_onevision_video,
}  # fmt: skip
_BUILDERS: Mapping[str, Callable[[Any, Question], tuple[Inputs, Workload]]] = {
    "qwen2_vl": _qwen, "qwen2_5_vl": _qwen, "qwen3_vl": _qwen, "qwen3_vl_moe": _qwen,
    "llava_onevision": _llava_onevision, "mllama": _mllama, "internvl": _internvl,
}  # fmt: skip

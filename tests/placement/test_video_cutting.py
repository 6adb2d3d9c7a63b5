"""Counting what videos become, against the processors that cut them and the reference for their sizes."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmeval.config import supported_VLM
from vlmeval.placement.blocks import config_of
from vlmeval.placement.cost_model import costs
from vlmeval.placement.cutting import ImageTokens
from vlmeval.placement.known import known_config, known_model
from vlmeval.placement.simulate.prompts import Question, prompt_inputs
from vlmeval.placement.video_cutting import VideoCutting, joined, video_cutting
from vlmeval.placement.workload import ImageLimits, PromptTokens, worst_workload
from vlmeval.videos import Shown

transformers = pytest.importorskip("transformers")
reference = pytest.importorskip("qwen_vl_utils.vision_process")

VIDEOS = st.builds(
    Shown, st.integers(1, 2000), st.integers(1, 2000), st.one_of(st.integers(1, 12), st.integers(1, 768)), st.just(9.9)
)
QWEN = (("Qwen2-VL-7B-Instruct", 28), ("Qwen2.5-VL-7B-Instruct", 28), ("Qwen3-VL-8B-Instruct", 32))


def rule(name: str, least: int | None = None, most: int | None = None) -> VideoCutting:
    known = known_model(supported_VLM[name].source)
    assert known is not None
    found = video_cutting(known.config, ImageLimits(min_pixels=least, max_pixels=most))
    assert found is not None
    return found


@settings(max_examples=200, deadline=None)
@given(VIDEOS, st.sampled_from([None, (1280, 16384), (16, 16), (4, 300)]))
def test_qwens_frames_have_the_size_that_qwen_vl_utils_gives_them(video: Shown, tokens: tuple[int, int] | None) -> None:
    for name, unit in QWEN:
        least, most = (count * unit**2 for count in tokens) if tokens else (None, None)
        found = rule(name, least, most).frame_size(video)
        # As fetch_video() bounds a frame (qwen-vl-utils 0.0.14).
        low = least or reference.VIDEO_MIN_TOKEN_NUM * unit**2
        all_pixels = reference.MODEL_SEQ_LEN * unit**2 * 0.9
        high = max(min(reference.VIDEO_MAX_TOKEN_NUM * unit**2, all_pixels / video.frames * 2), int(low * 1.05))
        high = min(high, most or high)
        try:
            height, width = reference.smart_resize(video.height, video.width, unit, low, high)
        except ValueError:
            assert found is None
            continue
        assert found == (max(width, unit), max(height, unit))


@settings(max_examples=8, deadline=None)
@given(st.lists(st.builds(Shown, st.integers(20, 200), st.integers(20, 200), st.integers(1, 7), st.just(2.0)),
                min_size=1, max_size=3))  # fmt: skip
def test_qwen_has_the_patches_that_its_processor_makes(videos: list[Shown]) -> None:
    for name, unit in QWEN:
        cut, patch = rule(name, 4 * unit**2, 12 * unit**2), unit // 2
        sizes = [cut.frame_size(video) for video in videos]
        frames = [
            torch.zeros(video.frames, 3, size[1], size[0], dtype=torch.uint8)
            for video, size in zip(videos, sizes, strict=True)
            if size is not None
        ]
        processor = transformers.Qwen2VLVideoProcessor(patch_size=patch, cap_pixels_per_frame=False)
        made = processor(frames, do_resize=False, do_sample_frames=False, return_tensors="pt")
        found = cut.of(videos)
        assert found is not None
        grids = made["video_grid_thw"]
        assert found.vision_tokens == int(grids.prod(dim=1).sum()) == 4 * found.image_tokens
        assert found.pixel_values == made["pixel_values_videos"].numel()
        assert found.largest_image_tokens == int(grids[:, 1:].prod(dim=1).max()), "attention is within a pair of frames"


@functools.cache
def llava_processor() -> Any:
    processor = transformers.AutoProcessor.from_pretrained(supported_VLM["LLaVA-OneVision-Tiny"].source)
    processor.num_image_tokens = 729
    return processor


@settings(max_examples=50, deadline=None)
@given(st.lists(VIDEOS, min_size=1, max_size=3))
def test_llava_onevision_has_the_tokens_of_its_processor(videos: list[Shown]) -> None:
    processor = llava_processor()
    sizes = [(video.frames, video.height, video.width) for video in videos]
    found = rule("llava_onevision_qwen2_7b_ov").of(videos)
    assert found is not None
    assert found.image_tokens == sum(processor._get_num_multimodal_tokens(video_sizes=sizes)["num_video_tokens"])
    frames = sum(video.frames for video in videos)
    assert (found.vision_tokens, found.pixel_values) == (frames * 729, frames * 3 * 384**2)


def test_simulated_prompts_are_the_workload_that_is_planned_for() -> None:
    for name, model in (
        ("Qwen2-VL-2B", "Qwen2-VL-2B-Instruct"),
        ("llava-onevision-qwen2-0.5b", "llava_onevision_qwen2_0.5b_ov"),
    ):
        asked = Question(frames=6, size=(644, 364), images=2, batch=2)
        _, work = prompt_inputs(config_of(known_config(name).config), asked)
        found = rule(model, 4 * 28**2).of([Shown(644, 364, 6, 1.0)] * 2)
        assert found is not None
        for part in ("image_tokens", "vision_tokens", "largest_image_tokens", "pixel_values"):
            assert getattr(work, part) == getattr(found, part), part


def test_families_that_take_no_video_have_no_rule() -> None:
    for name in ("InternVL2-8B", "Llama-3.2-11B-Vision-Instruct"):
        known = known_model(supported_VLM[name].source)
        assert known is not None and video_cutting(known.config, ImageLimits()) is None


def test_images_and_videos_of_a_prompt_add_up() -> None:
    image = ImageTokens(images=1, vision_tokens=8, image_tokens=2, largest_image_tokens=8, pixel_values=80)
    video = ImageTokens(images=1, vision_tokens=40, image_tokens=10, largest_image_tokens=4, pixel_values=400)
    both = ImageTokens(images=2, vision_tokens=48, image_tokens=12, largest_image_tokens=8, pixel_values=480)
    assert joined(image, video) == both


def test_more_frames_cost_more_of_every_card() -> None:
    known = known_model(supported_VLM["Qwen2-VL-7B-Instruct"].source)
    assert known is not None
    profile = known.profile()
    assert profile is not None
    needs = []
    for frames in (8, 64):
        tokens = rule("Qwen2-VL-7B-Instruct").of([Shown(640, 360, frames, 60.0)])
        assert tokens is not None
        work = worst_workload(
            [PromptTokens(images=tokens, text_tokens=100)], batch=1, new_tokens=10, dtype="bfloat16", quantisation=""
        )
        needs.append(sum(c.kv_bytes + c.held_bytes + c.prompt_bytes for c in costs(profile, work)))
    assert 7 < needs[1] / needs[0] < 8

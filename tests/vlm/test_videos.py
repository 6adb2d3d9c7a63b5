"""Videos in prompts, on tiny random checkpoints in fp32: seen, in order, in batches, counted, and kept for the next."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.prompt_parts import video_of
from tests.small_videos import write_video
from tests.vlm.test_contract import ONE, last_logits, picture, prompt
from vlmeval.config import supported_VLM
from vlmeval.errors import SampleError
from vlmeval.types import Message, Task, VideoPart
from vlmeval.videos import FrameSource, Sampling, VideoSource
from vlmeval.vlm.auto import AutoVLM
from vlmeval.vlm.transformers_model import TransformersModel

TAKES_VIDEO = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "llava_onevision")
SHOWN_FRAMES = ("internvl", "mllama")
FAMILIES = TAKES_VIDEO + SHOWN_FRAMES
Models = Callable[[str], TransformersModel]
FOUR = Sampling(nframe=4)
VIDEO = Task(name="videos", type="MCQ", traits=frozenset({"video", "dataset_prompt"}))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Of several lengths and shapes; the last has fewer frames than are asked for."""
    folder = tmp_path_factory.mktemp("clips")
    shapes = [(8, (64, 48)), (8, (64, 48)), (12, (48, 80)), (3, (96, 64))]
    return [
        write_video(folder / f"{n}.mp4", frames=frames, size=size, shift=n) for n, (frames, size) in enumerate(shapes)
    ]


def asked(model: TransformersModel, *parts: str | Path | Image.Image, sampling: Sampling = FOUR) -> list[Message]:
    """A prompt as the model takes it."""
    message = [
        VideoPart(type="video", value=VideoSource(part, sampling)) if isinstance(part, Path) else prompt(part)[0]
        for part in parts
    ]
    return model.shown(message)


@pytest.mark.parametrize("family", FAMILIES)
def test_another_video_and_another_order_change_what_the_model_sees(
    family: str, model_of: Models, clips: list[Path]
) -> None:
    model = model_of(family)
    prompts = [asked(model, *own, "what is it?") for own in (clips[:1], clips[1:2], clips[:2], clips[1::-1])]
    logits = [last_logits(model, [message]) for message in prompts]
    for one, other in itertools.combinations(logits, 2):
        assert (one - other).abs().max() > 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_of_videos_equals_one_by_one_token_for_token(family: str, model_of: Models, clips: list[Path]) -> None:
    model = model_of(family)
    batch = [
        asked(model, clips[0], "what colour is the square?"),
        asked(model, "look at this", clips[2], "and say what it is, in a longer question than the others"),
        asked(model, "no video at all here"),
        asked(model, clips[3], "short one"),
        asked(model, clips[1], clips[2], "two of them"),
        ONE,
    ]
    assert model.generate_batch(batch, VIDEO) == [model.generate_batch([message], VIDEO)[0] for message in batch]


@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_are_counted_as_the_processor_makes_them(family: str, model_of: Models, clips: list[Path]) -> None:
    model = model_of(family)
    for own in (clips[:1], clips[2:3], clips[3:], clips[:2]):
        message = asked(model, *own, "what?")
        counted = model.prompt_size(message, VIDEO).images
        made = model.prepare([message], VIDEO)
        pixels = sum(made[name].numel() for name in ("pixel_values", "pixel_values_videos") if name in made)
        assert counted.pixel_values == pixels
        tokenizer = model.processor.tokenizer
        marks = [getattr(model.processor, name, None) for name in ("image_token", "video_token")]
        ids = {tokenizer.convert_tokens_to_ids(mark) for mark in marks if mark}
        assert counted.image_tokens == sum(int((made["input_ids"] == token).sum()) for token in ids)


@pytest.mark.parametrize("family", TAKES_VIDEO)
def test_text_around_frames_is_within_what_is_counted(family: str, model_of: Models, clips: list[Path]) -> None:
    model = model_of(family)
    message = asked(model, clips[2], "what?")
    size, plain = model.prompt_size(message), model.prompt_size(prompt("what?"))
    without = int(model.prepare([prompt("what?")])["input_ids"].shape[1])
    with_video = int(model.prepare([message])["input_ids"].shape[1])
    around = with_video - size.images.image_tokens - without
    marks = size.text_tokens - plain.text_tokens
    assert 0 <= around <= marks + 3, "start, end and line break are the template's"


@pytest.mark.parametrize("family", TAKES_VIDEO)
def test_the_frames_are_those_of_the_family_in_order(family: str, model_of: Models, clips: list[Path]) -> None:
    model = model_of(family)
    (video, _) = asked(model, clips[2], "x")
    assert video["type"] == "video"
    assert video_of(video).positions() == ((0, 4, 7, 11) if family.startswith("qwen") else (0, 3, 7, 11))
    ready = model.video_of(video["value"], None)
    levels = [float(frame[2].float().mean()) for frame in ready.frames]
    assert levels == sorted(levels) and ready.frames.dtype == torch.uint8


def test_frames_of_the_others_are_images_each_of_one_tile(model_of: Models, clips: list[Path]) -> None:
    model = model_of("internvl")
    message = asked(model, clips[0], "what is it?")
    assert model.shows_frames and model.stamp()["videos"] == "their frames are shown as images"
    frames = [part["value"] for part in message if part["type"] == "image"]
    assert [frame.number for frame in frames if isinstance(frame, FrameSource)] == [0, 1, 2, 3]
    text = model.render(message)
    assert [text.index(f"Frame-{n}: ") for n in (1, 2, 3, 4)] == sorted(
        text.index(f"Frame-{n}: ") for n in (1, 2, 3, 4)
    )
    assert len(model.prepare([message], VIDEO)["pixel_values"]) == 4
    assert "videos" not in model_of("qwen2_vl").stamp()


def test_an_original_internvl_folder_numbers_frames_as_upstream_does() -> None:
    from vlmeval.vlm.internvl2 import IMAGE_CONTEXT, _turn_text

    content = [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "\nWhat?"}]
    assert _turn_text(content, 0, 2, "Frame") == f"Frame-1: {IMAGE_CONTEXT}\nFrame-2: {IMAGE_CONTEXT}\n\nWhat?"


def test_the_second_question_on_a_video_does_not_decode_it_again(model_of: Models, clips: list[Path]) -> None:
    model = model_of("qwen2_5_vl")
    own = [asked(model, clips[2], f"question {n}", sampling=Sampling(nframe=6)) for n in range(3)]
    before = model._videos.decoded
    model.generate_batch(own[:2])
    model.generate_batch(own[2:])
    assert model._videos.decoded == before + 1
    sizes = [model.prompt_size(message) for message in own]
    assert len({size.image_keys for size in sizes}) == 1, "so they lie next to each other"


def test_a_video_by_its_path_is_answered(model_of: Models, clips: list[Path]) -> None:
    for family in ("qwen2_vl", "mllama"):
        text = model_of(family).generate([VideoPart(type="video", value=str(clips[2])), "what?"])  # type: ignore[list-item]
        assert isinstance(text, str)


def test_a_broken_video_fails_alone(model_of: Models, tmp_path: Path, clips: list[Path]) -> None:
    (tmp_path / "broken.mp4").write_bytes(clips[0].read_bytes()[:200])
    for family in ("qwen2_vl", "internvl"):
        with pytest.raises(SampleError, match=r"broken\.mp4"):
            asked(model_of(family), tmp_path / "broken.mp4", "what?")


def test_fewer_pixels_where_memory_has_no_room(model_of: Models, clips: list[Path]) -> None:
    model = model_of("qwen2_vl")
    (video, _) = asked(model, clips[2], "x")
    rule = model.video_cutting(None)
    assert rule is not None
    whole, less = (rule.frame_size(video_of(video).shown(), share) for share in (1.0, 0.25))
    assert whole is not None and less is not None and less[0] * less[1] <= whole[0] * whole[1] / 2


def test_pictures_have_not_changed(model_of: Models) -> None:
    model = model_of("llava_onevision")
    message = prompt(picture(100, 80, 3), "what?")
    assert model.shown(message) == message
    assert "pixel_values_videos" not in model.prepare([message])


def test_any_other_architecture_is_shown_frames_too(clips: list[Path]) -> None:
    model = AutoVLM(supported_VLM["Llama-Vision-Tiny"].source, max_new_tokens=3)
    model.load()
    batch = [asked(model, clips[0], "what is it?"), asked(model, clips[3], "and this, what is this one?")]
    assert [part["type"] for part in batch[0]].count("image") == 4
    assert model.generate_batch(batch, VIDEO) == [model.generate_batch([message], VIDEO)[0] for message in batch]

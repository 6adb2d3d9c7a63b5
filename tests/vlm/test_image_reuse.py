"""An image that comes again is neither decoded nor encoded again, and the answers are the same."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from PIL.Image import Image as PILImage

from vlmeval.config import resolve_model
from vlmeval.errors import ImageError
from vlmeval.images import ImageSource
from vlmeval.types import ImagePart, Message, TextPart
from vlmeval.vlm.image_parts import PIXELS
from vlmeval.vlm.image_store import ImageStore
from vlmeval.vlm.transformers_model import TransformersModel

from .test_contract import FOUR, picture, prompt

FAMILIES = ("qwen2_vl", "qwen3_vl", "llava_onevision", "mllama", "internvl")
Models = Callable[[str], TransformersModel]


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest, folder_of: Callable[[str], Path]) -> TransformersModel:
    made = resolve_model(str(folder_of(request.param)))(max_new_tokens=6)
    assert isinstance(made, TransformersModel)
    made.load()
    torch.set_num_threads(1)
    return made


def source(image: PILImage, reads: list[str], name: str) -> ImageSource:
    """The image as a PNG of a file, whose every reading is noted."""
    data = io.BytesIO()
    image.save(data, "PNG")

    def read() -> bytes:
        reads.append(name)
        return data.getvalue()

    return ImageSource(digest=name, name=name, read=read)


def copies(reads: list[str]) -> list[list[Message]]:
    """Three questions about two images each, and both images in one prompt, in both orders."""
    a, b = source(picture(250, 120, 1), reads, "a"), source(picture(90, 110, 2), reads, "b")
    asked: list[list[Message]] = [
        [ImagePart(type="image", value=image), TextPart(type="text", value=text)]
        for text in ("what colour?", "which is larger, the left or the right one?", "A. red\nB. blue")
        for image in (a, b)
    ]
    pair: list[Message] = [
        ImagePart(type="image", value=a),
        TextPart(type="text", value="and "),
        ImagePart(type="image", value=b),
    ]
    return [*asked, [*pair, TextPart(type="text", value="differ?")], [pair[2], pair[0], pair[1]]]


def encodings(model: TransformersModel, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each call of the vision side was for, from now on."""
    counts: list[int] = []
    assert model.image_parts is not None
    encode = type(model.image_parts).encode

    def counted(self: Any, inner: Any, parts: Any) -> Any:
        counts.append(len(parts))
        return encode(self, inner, parts)

    monkeypatch.setattr(type(model.image_parts), "encode", counted)
    return counts


def test_an_image_is_read_and_encoded_once_and_answers_are_those_of_a_fresh_model(
    model: TransformersModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []
    batch = copies(reads)
    fresh = []
    for message in batch:
        model.store_images()
        fresh += model.generate_batch([message])
    assert len(reads) == 10, "alone every prompt reads its images"
    assert len({answer.text for answer in fresh}) > 1, "all alike: the test would not see a mistake"

    model.store_images()
    reads.clear()
    counts = encodings(model, monkeypatch)
    assert [model.generate_batch([message])[0] for message in batch] == fresh
    # In LLaVA-OneVision an image alone is cut into tiles, and one of several is not: those are two.
    kinds = 4 if type(model).__name__ == "LLaVA_OneVision_HF" else 2
    assert (len(reads), sum(counts)) == (kinds, kinds)
    assert model.stamp()["images"] == 10 and model.stamp()["images_reused"] == 10 - kinds

    model.store_images()
    reads.clear()
    counts.clear()
    assert model.generate_batch(batch) == fresh, "in one batch"
    assert (len(reads), sum(counts)) == (kinds, kinds)


def test_features_thrown_out_are_made_again(model: TransformersModel) -> None:
    reads: list[str] = []
    batch = copies(reads)
    expected = model.generate_batch(batch)
    model.store_images()
    assert model._store is not None
    model._store.most_bytes = 0
    reads.clear()
    assert [model.generate_batch([message])[0] for message in batch] == expected
    assert len(reads) == 10


def test_a_batch_prepared_ahead_does_not_prepare_what_the_one_before_it_will_encode(model: TransformersModel) -> None:
    reads: list[str] = []
    batch = copies(reads)
    expected = model.generate_batch(batch)
    model.store_images()
    reads.clear()
    first, second = (model.prepare_groups(part, None) for part in (batch[:2], batch[2:6]))
    assert len(reads) == 2
    assert [*model._answer_groups(first, None), *model._answer_groups(second, None)] == expected[:6]
    assert len(reads) == 2


def test_without_features_pixels_are_given_with_equal_answers(
    model: TransformersModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = model.generate_batch(FOUR)
    assert model.image_parts is not None
    monkeypatch.setattr(type(model.image_parts), "can_reuse", lambda self, inner: False)
    assert model.generate_batch(FOUR) == expected


def test_a_broken_image_is_told_with_its_name_and_leaves_the_others_alone(model: TransformersModel) -> None:
    bad = ImageSource(digest="bad", name="row 7", read=lambda: b"no image")
    with pytest.raises(ImageError, match="row 7"):
        model.generate_batch([FOUR[0], prompt("?", picture(40, 40, 1)), [ImagePart(type="image", value=bad)]])
    assert model.generate_batch(FOUR[:1]) == model.generate_batch(FOUR[:1])


def test_two_images_of_one_size_are_not_taken_for_each_other(model: TransformersModel) -> None:
    first, second = picture(100, 100, 5), picture(100, 100, 6)
    apart = [model.generate_batch([prompt(image, "what is it?")])[0] for image in (first, second)]
    assert model.generate_batch([prompt(first, "what is it?"), prompt(second, "what is it?")]) == apart


def test_the_least_recently_used_features_go_first() -> None:
    store = ImageStore(most_bytes=2 * 40)
    made: list[str] = []

    def prepared(key: str) -> dict[str, torch.Tensor]:
        made.append(key)
        return {PIXELS: torch.zeros(3)}

    def use(*keys: str) -> None:
        images = [store.prepare(key, partial(prepared, key)) for key in keys]
        store.features(images, lambda parts: [(torch.ones(10),) for _ in parts])

    use("a", "b")
    use("a")
    use("c")
    assert made == ["a", "b", "c"]
    use("a", "c")
    assert made == ["a", "b", "c"]
    use("b", "b")
    assert made == ["a", "b", "c", "b"]
    assert (store.used, store.encoded) == (8, 4)


def test_a_size_is_read_from_the_header_and_equal_images_have_one_key(tmp_path: Path) -> None:
    from vlmeval.images import image_key, image_size

    path, again = tmp_path / "a.png", tmp_path / "b.png"
    picture(30, 20, 1).save(path)
    again.write_bytes(path.read_bytes())
    assert image_size(str(path)) == (30, 20) == image_size(picture(30, 20, 1))
    assert image_key(str(path)) == image_key(str(again)) != image_key(picture(30, 20, 1))
    assert image_key(Image.new("RGB", (2, 2))) != image_key(Image.new("RGB", (2, 2), "red"))
    assert image_key("https://example.org/a.png") == ""
    path.write_bytes(b"GIF89a")
    with pytest.raises(ImageError):
        image_size(str(path))

"""About how long a request takes, without opening an image."""

from __future__ import annotations

from vlmeval.errors import ImageError
from vlmeval.images import ImageSource
from vlmeval.inference.answering import Request
from vlmeval.inference.pieces import cost
from vlmeval.types import ImagePart, Message, Sample, TextPart


def unread() -> bytes:
    raise ImageError("no image is opened for an estimate")


def request(index: int, text: str, *image_bytes: int) -> Request:
    images = [
        ImagePart(type="image", value=ImageSource(digest="d", name="x", read=unread, encoded_bytes=size))
        for size in image_bytes
    ]
    message: list[Message] = [*images, TextPart(type="text", value=text)]
    return Request(sample=Sample(index=index, question=text), message=message, fingerprint="f")


def test_larger_images_more_images_and_longer_texts_cost_more() -> None:
    small = request(0, "q", 10_000)
    assert cost(request(0, "q", 200_000)) > cost(small)
    assert cost(request(0, "q", 10_000, 10_000)) > cost(small)
    assert cost(request(0, "q" * 4000, 10_000)) > cost(small)

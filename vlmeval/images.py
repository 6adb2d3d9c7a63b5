"""Encoded pictures: where their bytes are, and how they become an RGB image, safely.

Nothing is re-encoded and nothing is written to disk: a model sees the benchmark's own pixels.
"""

from __future__ import annotations

import hashlib
import io
import struct
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vlmeval.errors import ImageError

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

    from vlmeval.types import ImageValue

DEFAULT_MAX_IMAGE_PIXELS = 178_956_970
"""Pixels one image may decode to: Pillow's own threshold for an error, 0.5 GiB as RGB."""


@dataclass(frozen=True)
class ImageSource:
    """An encoded image that is read when its turn comes.

    `digest` identifies the content without reading it (it goes into the prompt's fingerprint); `name` says where it
    comes from in messages, e.g. "row 17"; `read` returns the encoded bytes and raises ImageError. `encoded_bytes` is
    about how many those are, 0 if that is not known without reading.
    """

    digest: str
    name: str
    read: Callable[[], bytes]
    encoded_bytes: int = 0

    def picture(self) -> PILImage | None:
        """The image, where it need not be decoded from `read()` (frames of a video). Raises ImageError."""
        return None

    def size(self) -> tuple[int, int] | None:
        """Width and height, where they are known without `read()`. Raises ImageError."""
        return None


def file_source(path: Path) -> ImageSource:
    """The image in a file. Its digest is that of its content, or of its absence: a missing file fails when read."""

    def read() -> bytes:
        try:
            return path.read_bytes()
        except OSError as error:
            raise ImageError(f"image file {path} cannot be read: {error.strerror}") from error

    try:
        with path.open("rb") as file:
            digest = (
                hashlib.file_digest(file, "sha256").hexdigest()
                if hasattr(hashlib, "file_digest")
                else hashlib.sha256(file.read()).hexdigest()
            )
            encoded_bytes = file.tell()
    except OSError:
        digest, encoded_bytes = f"missing:{path.name}", 0
    return ImageSource(digest=digest, name=str(path), read=read, encoded_bytes=encoded_bytes)


def open_image(value: ImageValue, max_pixels: int = DEFAULT_MAX_IMAGE_PIXELS) -> PILImage:
    """Decode to an RGB image of at most `max_pixels` pixels, checked from the header before anything is decoded.

    Raises ImageError for a missing, empty, broken or truncated image, or one over the limit.
    """
    from PIL import Image, UnidentifiedImageError

    if isinstance(value, Image.Image):
        return value.convert("RGB")
    if isinstance(value, ImageSource) and (picture := value.picture()) is not None:
        return picture
    name, data = _encoded(value)
    if not data:
        raise ImageError(f"{name}: the image is empty (0 bytes)")
    try:
        with _open_header(data) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise ImageError(_too_large(name, width, height, len(data), max_pixels))
            return image.convert("RGB")
    except UnidentifiedImageError as error:
        raise ImageError(f"{name}: {len(data)} bytes that are no image Pillow knows") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        # Pillow's decoders raise any of these for broken or truncated data.
        raise ImageError(f"{name}: the image is broken or truncated ({error})") from error


def shrunk(image: PILImage, most_pixels: float) -> PILImage:
    """The same picture with at most so many pixels, its shape kept as far as whole pixels allow."""
    from PIL import Image

    scale = (most_pixels / (image.width * image.height)) ** 0.5
    if scale >= 1:
        return image
    size = (max(1, int(image.width * scale)), max(1, int(image.height * scale)))
    return image.resize(size, Image.Resampling.BICUBIC)


def header_size(data: bytes) -> tuple[int, int] | None:
    """Width and height as an image's header has them, None where `data` holds no whole header. Nothing is decoded.

    The first kilobytes of an image are enough for most. PNG and JPEG, which nearly all are, are read without Pillow:
    a benchmark may have 100,000 of them.
    """
    if (known := _png_size(data) or _jpeg_size(data)) is not None:
        return known
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Pillow thinks of a header that was cut
            with _open_header(data) as image:
                return image.size
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, OverflowError, IndexError, KeyError, TypeError):
        # What the readers of Pillow's many formats raise when a header is cut in its middle.
        return None


def _png_size(data: bytes) -> tuple[int, int] | None:
    if data[:8] != b"\x89PNG\r\n\x1a\n" or data[12:16] != b"IHDR" or len(data) < 24:
        return None
    width, height = struct.unpack_from(">II", data, 16)
    return (width, height) if width and height else None


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """From the frame's segment; those before it are stepped over."""
    if data[:2] != b"\xff\xd8":
        return None
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1  # a fill byte
        elif marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return (width, height) if width and height else None
        else:
            at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    return None


_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def image_size(value: ImageValue) -> tuple[int, int]:
    """Width and height in pixels from the header; nothing is decoded. Raises ImageError."""
    if not isinstance(value, (str, ImageSource)):
        return value.size
    if isinstance(value, ImageSource) and (known := value.size()) is not None:
        return known
    name, data = _encoded(value)
    size = header_size(data)
    if size is None:
        raise ImageError(f"{name}: {len(data)} bytes without the header of an image")
    return size


def image_key(value: ImageValue) -> str:
    """Names an image's content, so that equal ones are computed once; "" where only fetching it would tell."""
    if isinstance(value, ImageSource):
        return value.digest
    if isinstance(value, str):
        return "" if value.startswith(("http://", "https://")) else file_source(_path(value)).digest
    return hashlib.sha256(f"{value.mode}{value.size}".encode() + value.tobytes()).hexdigest()


def _path(value: str) -> Path:
    return Path(value.removeprefix("file://"))


def _open_header(data: bytes) -> PILImage:
    """Read the header only. Pillow's own limit is lifted meanwhile: ours is checked next, and the user can raise it."""
    from PIL import Image

    with _pillow_limit:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(io.BytesIO(data))
        finally:
            Image.MAX_IMAGE_PIXELS = limit


_pillow_limit = threading.Lock()


def _encoded(value: str | ImageSource) -> tuple[str, bytes]:
    if isinstance(value, ImageSource):
        return value.name, value.read()
    if value.startswith(("http://", "https://")):
        return value, _fetch(value)
    source = file_source(_path(value))
    return source.name, source.read()


def _fetch(url: str) -> bytes:
    import requests

    try:
        response = requests.get(url, timeout=30)
        response.raise_for_status()
    except requests.RequestException as error:
        raise ImageError(f"image {url} cannot be fetched: {error}") from error
    return response.content


def _too_large(name: str, width: int, height: int, size: int, max_pixels: int) -> str:
    return (
        f"{name}: {size} bytes that decode to {width} x {height} = {width * height:,} pixels, over the limit of "
        f"{max_pixels:,}; if you trust the file, raise --max-image-pixels"
    )

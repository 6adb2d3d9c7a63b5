"""Images: decoded to RGB, bounded before they are decoded, and every broken one told by name."""

from __future__ import annotations

import io
import struct
import threading
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vlmeval.errors import ImageError
from vlmeval.images import ImageSource, file_source, open_image


def encoded(mode: str = "RGB", kind: str = "PNG", size: tuple[int, int] = (3, 2)) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, format=kind)
    return buffer.getvalue()


def source(data: bytes) -> ImageSource:
    return ImageSource(digest="x", name="row 17", read=lambda: data)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    image = open_image(source(encoded(mode)))
    assert (image.mode, image.size) == ("RGB", (3, 2))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_every_usual_format(kind: str) -> None:
    assert open_image(source(encoded(kind=kind))).size == (3, 2)


def test_pixels_are_not_touched(tmp_path: Path) -> None:
    image = Image.effect_noise((9, 7), 90).convert("RGB")
    image.save(tmp_path / "a.png")
    assert open_image(str(tmp_path / "a.png")).tobytes() == image.tobytes()
    assert open_image(f"file://{tmp_path / 'a.png'}").tobytes() == image.tobytes()
    assert open_image(image).tobytes() == image.tobytes()


def test_empty_broken_and_truncated_data() -> None:
    with pytest.raises(ImageError, match=r"row 17: the image is empty \(0 bytes\)"):
        open_image(source(b""))
    with pytest.raises(ImageError, match="row 17: 7 bytes that are no image"):
        open_image(source(b"nothing"))
    noise = io.BytesIO()
    Image.effect_noise((64, 64), 90).save(noise, format="PNG")
    with pytest.raises(ImageError, match="row 17: the image is broken or truncated"):
        open_image(source(noise.getvalue()[:1500]))


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@given(st.binary(max_size=300))
def test_any_bytes_are_an_image_or_an_image_error(tail: bytes) -> None:
    for head in (b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a", b"BM", b"II*\0"):
        try:
            open_image(source(head + tail))
        except ImageError as error:
            assert str(error).startswith("row 17: ")


def bomb(width: int, height: int) -> bytes:
    """A PNG of some 60 bytes that says it is this large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def test_too_many_pixels_are_refused_from_the_header() -> None:
    told = r"row 17: 57 bytes that decode to 20000 x 20000 = 400,000,000 pixels, over the limit of 178,956,970"
    with pytest.raises(ImageError, match="row 17: "):
        open_image(source(bomb(20000, 20000)))
    with pytest.raises(ImageError, match=told.replace("20000 x 20000 = 400,000,000", "14000 x 14000 = 196,000,000")):
        open_image(source(bomb(14000, 14000)))
    with pytest.raises(ImageError, match="over the limit of 5; if you trust the file, raise --max-image-pixels"):
        open_image(source(encoded()), max_pixels=5)


def test_limit_is_the_pixels_themselves() -> None:
    assert open_image(source(encoded()), max_pixels=6).size == (3, 2)


def test_file_sources_are_told_apart_by_content(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded())
    (tmp_path / "b.png").write_bytes(encoded())
    first, second = file_source(tmp_path / "a.png"), file_source(tmp_path / "b.png")
    assert first.digest == second.digest
    (tmp_path / "b.png").write_bytes(encoded(size=(4, 4)))
    assert file_source(tmp_path / "b.png").digest != first.digest


def test_missing_file_fails_when_read_and_not_before(tmp_path: Path) -> None:
    missing = file_source(tmp_path / "gone.png")
    assert missing.digest == "missing:gone.png"
    with pytest.raises(ImageError, match=r"gone\.png cannot be read: No such file"):
        open_image(missing)


@pytest.fixture
def web() -> Iterator[str]:
    class Pictures(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/a.png" else 404)
            self.end_headers()
            self.wfile.write(encoded() if self.path == "/a.png" else b"")

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Pictures)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_image_from_a_url(web: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    assert open_image(f"{web}/a.png").size == (3, 2)
    with pytest.raises(ImageError, match=r"gone\.png cannot be fetched: 404"):
        open_image(f"{web}/gone.png")

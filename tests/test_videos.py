"""Which frames of a video are taken, that they are those, and what is said of videos that cannot be read."""

from __future__ import annotations

import io
import wave
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from tests.small_videos import number_of, write_video
from vlmeval import video_decoding
from vlmeval.errors import UsageError, VideoError
from vlmeval.images import image_key, image_size, open_image
from vlmeval.videos import Sampling, VideoInfo, VideoSource, frame_images


def info(frames: int, fps: float = 25.0) -> VideoInfo:
    return VideoInfo(width=64, height=48, frames=frames, fps=fps)


def test_frames_by_number_are_those_upstream_takes() -> None:
    for frames in (1, 5, 100, 1234):
        step = frames / 9
        between = tuple(int(i * step) for i in range(1, 9))
        assert Sampling(nframe=8).positions(info(frames)) == between
        wide = (frames - 1) / 8
        middles = tuple(int(wide / 2 + np.round(wide * i)) for i in range(8))
        assert Sampling(nframe=8, placing="segments").positions(info(frames)) == middles
    ends = Sampling(nframe=8, placing="ends", multiple=2)
    assert ends.positions(info(100)) == tuple(np.linspace(0, 99, 8).round().astype(int))
    assert ends.positions(info(5)) == (0, 1, 3, 4), "fewer frames than asked for: an even number of what there is"
    down = Sampling(nframe=8, placing="ends_down")
    assert down.positions(info(100)) == tuple(np.linspace(0, 99, 8, dtype=int))
    assert ends.positions(info(1)) == (0, 0)


def test_frames_by_rate_are_those_upstream_takes_up_to_a_bound() -> None:
    assert Sampling(fps=2).positions(info(100)) == tuple(int(i * 12.5) for i in range(8))
    bounded = Sampling(fps=2, most_frames=5).positions(info(100))
    assert bounded == (0, 20, 40, 60, 80)
    ends = Sampling(fps=1, placing="ends", least=4, multiple=2)
    assert len(ends.positions(info(50))) == 4
    assert ends.positions(info(175)) == tuple(np.linspace(0, 174, 6).round().astype(int))
    assert len(ends.positions(info(100_000))) == 768


def test_a_part_of_a_video_has_its_own_frames() -> None:
    part = Sampling(nframe=4, start_s=2.0, end_s=3.0)
    assert part.positions(info(100)) == tuple(50 + int(i * 26 / 5) for i in range(1, 5))
    beyond = Sampling(nframe=2, start_s=90.0, end_s=99.0)
    assert beyond.positions(info(100)) == (99, 99)


@pytest.mark.parametrize("given", [{}, {"nframe": 8, "fps": 1.0}, {"nframe": -1}, {"nframe": 10**6}])
def test_what_cannot_be_sampled_is_told(given: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="nframe="):
        Sampling(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "mpeg4"), ("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.avi", "mpeg4"), ("a.gif", "gif")],
)
def test_the_frames_asked_for_come_out_of_every_container(tmp_path: Path, name: str, codec: str) -> None:
    path = write_video(tmp_path / name, frames=20, codec=codec, gop=20)
    source = VideoSource(path, Sampling(nframe=6))
    assert source.info() == VideoInfo(width=64, height=48, frames=20, fps=4.0)
    frames = list(source.frames())
    assert [frame.shape for frame in frames] == [(48, 64, 3)] * 6 and frames[0].dtype == np.uint8
    assert tuple(number_of(frame, 20) for frame in frames) == source.positions()
    assert source.timestamps() == tuple(position / 4 for position in source.positions())


@pytest.mark.parametrize("gop", [1, 7, 300])
def test_seeking_finds_the_same_frames_as_going_through(
    tmp_path: Path, gop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "a.mp4", frames=60, codec="libx264", gop=gop)
    source = VideoSource(path, Sampling(nframe=7))
    with av.open(str(path)) as container:
        there = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(there) == 60
    monkeypatch.setattr(video_decoding, "SEEK_S", 0.5)
    for frame, position in zip(source.frames(), source.positions(), strict=True):
        assert np.array_equal(frame, there[position])


def test_a_folder_of_frames_is_a_video(tmp_path: Path) -> None:
    for number in range(6):
        Image.new("RGB", (40, 30), (40 * number, 0, 0)).save(tmp_path / f"{number:05d}.jpg", quality=95)
    source = VideoSource(tmp_path, Sampling(nframe=2))
    assert source.info() == VideoInfo(width=40, height=30, frames=6, fps=3.0)
    frames = list(source.frames())
    assert [round(frame[..., 0].mean() / 40) for frame in frames] == [2, 4]
    assert all(frame.flags.writeable for frame in frames)  # torch warns of others, on the screen of a run


def test_a_list_of_other_files_is_not_followed(tmp_path: Path) -> None:
    outside = write_video(tmp_path / "outside.mp4", frames=8)
    entries = f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{outside}\n#EXT-X-ENDLIST\n"
    (tmp_path / "list.m3u8").write_text(entries)
    with pytest.raises(VideoError, match=r"list\.m3u8: the file is a list of other files \(hls\)"):
        VideoSource(tmp_path / "list.m3u8", Sampling(nframe=2)).info()


def test_what_cannot_be_read_is_told_in_a_line_with_its_name(tmp_path: Path) -> None:
    good = write_video(
        tmp_path / "good.mp4", frames=200, codec="libx264", options={"movflags": "faststart"}
    ).read_bytes()
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "headless.mp4").write_bytes(good[: len(good) // 20])
    (tmp_path / "cut.mp4").write_bytes(good[: len(good) // 2])
    (tmp_path / "folder").mkdir()
    with wave.open(str(tmp_path / "sound.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(8000))
    for name in ("absent.mp4", "empty.mp4", "text.mp4", "headless.mp4", "cut.mp4", "folder", "sound.wav"):
        with pytest.raises(VideoError, match=name) as told:
            list(VideoSource(tmp_path / name, Sampling(nframe=8)).frames())
        assert "\n" not in str(told.value)


def test_frames_beyond_the_limit_are_refused_before_one_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "wide.mp4", frames=2, size=(640, 480))
    monkeypatch.setattr("vlmeval.videos.MOST_FRAME_PIXELS", 640 * 479)
    with pytest.raises(VideoError, match="640 x 480 pixels are over the limit"):
        VideoSource(path, Sampling(nframe=2)).info()


def test_content_and_sampling_name_what_is_shown(tmp_path: Path) -> None:
    one, same, other = (write_video(tmp_path / f"{n}.mp4", shift=s) for n, s in (("a", 0), ("b", 0), ("c", 1)))
    sources = [VideoSource(path, Sampling(nframe=4)) for path in (one, same, other)]
    assert sources[0].key == sources[1].key != sources[2].key
    at_ends = replace(sources[0], sampling=replace(sources[0].sampling, placing="ends"))
    assert at_ends.key != sources[0].key
    big = tmp_path / "big.bin"
    big.write_bytes(bytes(3 * 2**20))
    before = VideoSource(big, Sampling(nframe=4)).digest
    big.write_bytes(bytes(3 * 2**20) + b"x")
    assert VideoSource(big, Sampling(nframe=4)).digest != before
    assert VideoSource(tmp_path / "gone.mp4", Sampling(nframe=4)).digest == "missing:gone.mp4"


def test_frames_are_images_that_know_their_size_and_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlmeval.videos.PIXELS_AT_ONCE", 3 * 64 * 48)
    source = VideoSource(write_video(tmp_path / "a.mp4", frames=20), Sampling(nframe=8))
    images = frame_images(source)
    assert len({image_key(image) for image in images}) == 8
    assert image_size(images[0]) == (64, 48)
    for image, frame in zip(images, source.frames(), strict=True):
        assert np.array_equal(np.asarray(open_image(image)), frame)
    assert open_image(images[3]).tobytes() == Image.open(io.BytesIO(images[3].read())).tobytes()

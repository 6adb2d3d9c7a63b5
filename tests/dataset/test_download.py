"""Fetching a file from a real server on loopback that cuts connections, answers errors and sends wrong bytes."""

from __future__ import annotations

import hashlib
import os
import random
import socket
import threading
from pathlib import Path

import pytest

from vlmeval.dataset.download import BASE_URL, CHUNK_BYTES, dataset_url, ensure_file, file_md5
from vlmeval.errors import DownloadError, StorageError

from .file_server import FileServer
from .tsv_files import row, tsv_bytes

CONTENT = tsv_bytes([row(number, question="?" * number) for number in range(1000)])
MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture
def url(server: FileServer) -> str:
    server.files["/b/Bench.tsv"] = CONTENT
    return f"{server.url}/b/Bench.tsv"


def left_over(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if not path.name.startswith("."))


def test_a_file_is_fetched_once(server: FileServer, url: str, data_root: Path) -> None:
    path = ensure_file("Bench", url, MD5, data_root)
    assert path == data_root / "Bench.tsv"
    assert path.read_bytes() == CONTENT
    assert ensure_file("Bench", url, MD5, data_root) == path
    assert server.requests == [("/b/Bench.tsv", "")]
    assert left_over(data_root) == ["Bench.tsv"]


def test_the_data_root_is_made(url: str, tmp_path: Path) -> None:
    assert ensure_file("Bench", url, MD5, tmp_path / "new" / "root").is_file()


def test_progress_is_told_with_the_size(url: str, data_root: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    ensure_file("Bench", url, MD5, data_root, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (len(CONTENT), len(CONTENT))


def test_a_cut_connection_is_resumed_where_it_broke(server: FileServer, url: str, data_root: Path) -> None:
    server.cuts = [3 * CHUNK_BYTES + 1, 0, CHUNK_BYTES]
    assert ensure_file("Bench", url, MD5, data_root).read_bytes() == CONTENT
    starts = [wanted for _, wanted in server.requests]
    assert starts == ["", *(f"bytes={chunks * CHUNK_BYTES}-" for chunks in (3, 3, 4))]


def test_a_part_of_an_earlier_start_is_resumed(server: FileServer, url: str, data_root: Path) -> None:
    (data_root / "Bench.tsv.part").write_bytes(CONTENT[:777])
    assert ensure_file("Bench", url, MD5, data_root).read_bytes() == CONTENT
    assert server.requests == [("/b/Bench.tsv", "bytes=777-")]


def test_a_complete_part_is_only_checked(server: FileServer, url: str, data_root: Path) -> None:
    (data_root / "Bench.tsv.part").write_bytes(CONTENT)
    assert ensure_file("Bench", url, MD5, data_root).read_bytes() == CONTENT


@pytest.mark.parametrize("part", [b"of another file", CONTENT + b"too long"])
def test_a_part_that_does_not_fit_is_fetched_from_the_start(url: str, data_root: Path, part: bytes) -> None:
    (data_root / "Bench.tsv.part").write_bytes(part)
    assert ensure_file("Bench", url, MD5, data_root).read_bytes() == CONTENT


def test_a_server_without_ranges_is_read_from_the_start(server: FileServer, url: str, data_root: Path) -> None:
    server.ranges = False
    server.cuts = [20_000]
    assert ensure_file("Bench", url, MD5, data_root).read_bytes() == CONTENT


def test_a_busy_server_is_asked_again(server: FileServer, url: str, data_root: Path) -> None:
    server.statuses = [503, 502]
    assert ensure_file("Bench", url, MD5, data_root).read_bytes() == CONTENT


def test_a_connection_that_never_holds_gives_up_and_keeps_the_part(
    server: FileServer, url: str, data_root: Path
) -> None:
    server.cuts = [CHUNK_BYTES] + [0] * 20
    with pytest.raises(DownloadError, match=r"cannot be fetched: Connection broken.*; 65,536 bytes are kept, the same"):
        ensure_file("Bench", url, MD5, data_root)
    assert (data_root / "Bench.tsv.part").read_bytes() == CONTENT[:CHUNK_BYTES]


def test_the_wrong_bytes_are_not_put_in_place(server: FileServer, data_root: Path, url: str) -> None:
    server.files["/b/Bench.tsv"] = b"<html>please log in</html>"
    got = hashlib.md5(b"<html>please log in</html>").hexdigest()
    with pytest.raises(DownloadError, match=rf"has MD5 {got} \(26 bytes\) where {MD5} was expected") as raised:
        ensure_file("Bench", url, MD5, data_root)
    assert f"put the file at {data_root / 'Bench.tsv'} by hand" in str(raised.value)
    assert left_over(data_root) == []


def test_a_file_with_another_md5_is_fetched_again(url: str, data_root: Path) -> None:
    (data_root / "Bench.tsv").write_bytes(tsv_bytes([row(1)]))
    assert ensure_file("Bench", url, MD5, data_root).read_bytes() == CONTENT


@pytest.mark.parametrize("there", [CONTENT[:-200], tsv_bytes([row(1)])])
def test_a_file_with_another_md5_is_kept_where_no_better_one_comes(
    server: FileServer, url: str, data_root: Path, there: bytes
) -> None:
    server.files["/b/Bench.tsv"] = CONTENT + b"newer"
    (data_root / "Bench.tsv").write_bytes(there)
    with pytest.raises(DownloadError) as raised:
        ensure_file("Bench", url, MD5, data_root)
    for content in (CONTENT + b"newer", there):
        assert hashlib.md5(content).hexdigest() in str(raised.value)
    assert MD5 in str(raised.value)
    assert (data_root / "Bench.tsv").read_bytes() == there
    assert left_over(data_root) == ["Bench.tsv"]


def test_without_an_md5_any_file_will_do(url: str, data_root: Path) -> None:
    (data_root / "Bench.tsv").write_bytes(b"mine")
    assert ensure_file("Bench", url, "", data_root).read_bytes() == b"mine"


def test_an_unknown_file_or_a_closed_port_ends_at_once(server: FileServer, url: str, data_root: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{unused.getsockname()[1]}/Bench.tsv"
        for address, why in ((f"{server.url}/none.tsv", "answers 404"), (closed, "Connection refused")):
            with pytest.raises(DownloadError, match=rf"Bench: {address} .*{why}.*by hand .*LMUData.*VLMEVAL_MIRROR"):
                ensure_file("Bench", address, MD5, data_root)


def test_a_name_that_does_not_resolve_ends_at_once(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    with pytest.raises(DownloadError, match=r"cannot be fetched: Failed to resolve 'no-such-host\.invalid'"):
        ensure_file("Bench", "http://no-such-host.invalid/Bench.tsv", MD5, data_root)


def test_a_folder_that_cannot_be_written_is_told_with_the_free_bytes(url: str, tmp_path: Path) -> None:
    (tmp_path / "a-file").write_text("")
    with pytest.raises(StorageError, match=r"a-file/root cannot be written: Not a directory; .* GiB .*free there"):
        ensure_file("Bench", url, MD5, tmp_path / "a-file" / "root")


def test_a_full_disk_is_told_with_the_free_bytes(url: str, data_root: Path) -> None:
    (data_root / "Bench.tsv.part").symlink_to("/dev/full")
    with pytest.raises(StorageError, match=r"cannot be written: the disk is full; .* GiB .*free there"):
        ensure_file("Bench", url, MD5, data_root)


def test_a_file_larger_than_the_disk_is_refused_before_it_is_fetched(
    server: FileServer, url: str, data_root: Path
) -> None:
    server.claimed_length = 10**15
    with pytest.raises(StorageError, match=r"needs 931322\.57 GiB .* more and its disk has .* GiB"):
        ensure_file("Bench", url, MD5, data_root)
    assert not (data_root / "Bench.tsv.part").exists()


def test_of_several_that_want_a_file_one_fetches(server: FileServer, url: str, data_root: Path) -> None:
    server.delay_s = 0.3
    paths: list[Path] = []
    threads = [
        threading.Thread(target=lambda: paths.append(ensure_file("Bench", url, MD5, data_root))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert paths == [data_root / "Bench.tsv"] * 4
    assert len(server.requests) == 1


def test_the_md5_of_a_file_is_remembered(data_root: Path) -> None:
    path = data_root / "Bench.tsv"
    path.write_bytes(CONTENT)
    stat = path.stat()
    assert file_md5(path) == MD5
    path.write_bytes(random.Random(1).randbytes(len(CONTENT)))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert file_md5(path) == MD5


def test_a_mirror_takes_the_place_of_the_base_url(monkeypatch: pytest.MonkeyPatch) -> None:
    assert dataset_url("VLMEval/MMStar.tsv") == f"{BASE_URL}/VLMEval/MMStar.tsv"
    monkeypatch.setenv("VLMEVAL_MIRROR", "http://mirror/x/")
    assert dataset_url("VLMEval/MMStar.tsv") == "http://mirror/x/VLMEval/MMStar.tsv"
    assert dataset_url("VLMEval/MMStar.tsv", "http://other") == "http://other/VLMEval/MMStar.tsv"

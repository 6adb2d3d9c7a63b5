"""Opening a TSV: its samples, its stored index, its memory."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import vlmeval
from vlmeval.dataset import open_dataset
from vlmeval.dataset.tsv_index import open_index, stored_md5
from vlmeval.errors import DatasetError, ImageError

from .tsv_files import cell, png, row, tsv_bytes, write_tsv


def only_index_file(tmp_path: Path) -> Path:
    (found,) = (tmp_path / "cache" / "index").iterdir()
    return found


@contextmanager
def unchanged_times(path: Path) -> Iterator[None]:
    """The size and time of change say the file is as it was, whatever is done to it."""
    stat = path.stat()
    yield
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_samples_come_in_file_order_with_their_cells_as_they_are(tmp_path: Path) -> None:
    rows = [row(7, A="None", B="007", category="x"), row(3, image=cell(9), A="NA", B="3", category="nan")]
    dataset = open_dataset(write_tsv(tmp_path / "mine.tsv", rows))
    first, second = dataset
    assert (len(dataset), dataset.indices, dataset.columns) == (2, (7, 3), tuple(rows[0]))
    assert first.options == {"A": "None", "B": "007"}
    assert second.options == {"A": "NA", "B": "3"}
    assert second.fields == {key: text for key, text in rows[1].items() if key != "image"}
    assert list(second.fields) == ["index", "question", "A", "B", "answer", "category"]
    assert (second.category, second.answer) == ("nan", "A")
    assert [image.read() for image in second.images] == [png(9)]
    assert dataset[-1].index == 3
    assert [sample.fields for sample in dataset.texts()] == [first.fields, second.fields]
    with pytest.raises(IndexError, match="2 samples"):
        dataset[2]


def test_the_first_rows_alone_are_a_benchmark_too(tmp_path: Path) -> None:
    whole = open_dataset(write_tsv(tmp_path / "mine.tsv", [row(number) for number in range(5)]))
    assert whole.indices == (0, 1, 2, 3, 4)
    cut = whole.head(2)
    assert cut.indices == tuple(sample.index for sample in cut) == tuple(each.index for each in cut.texts()) == (0, 1)
    assert "only the first 2 of 5 rows" in cut.notes[-1]
    assert (len(whole), len(whole.head(None)), len(whole.head(9))) == (5, 5, 5)


@pytest.mark.parametrize(
    "names, indices",
    [(["1", "-2"], (1, -2)), (["1", "x"], ("1", "x")), (["1", "007"], ("1", "007")), (["1.0", "2"], ("1.0", "2"))],
)
def test_an_index_is_a_number_where_every_row_has_one(
    tmp_path: Path, names: list[str], indices: tuple[object, ...]
) -> None:
    assert open_dataset(write_tsv(tmp_path / "mine.tsv", [row(name) for name in names])).indices == indices


def test_the_fingerprint_is_the_files_md5(tmp_path: Path) -> None:
    rows = [row(1, question='a "quoted"\nquestion'), row(2)]
    path = write_tsv(tmp_path / "mine.tsv", rows)
    assert open_dataset(path).fingerprint == hashlib.md5(tsv_bytes(rows)).hexdigest()


def test_the_second_opening_does_not_read_the_file(tmp_path: Path) -> None:
    path = write_tsv(tmp_path / "mine.tsv", [row(1)])
    md5 = open_dataset(path).fingerprint
    with unchanged_times(path):
        path.write_bytes(bytes(path.stat().st_size))
    dataset = open_dataset(path)
    assert (dataset.fingerprint, dataset[0].question) == (md5, "What is it?")


def test_a_changed_file_is_indexed_again(tmp_path: Path) -> None:
    path = write_tsv(tmp_path / "mine.tsv", [row(1)])
    open_dataset(path)
    write_tsv(path, [row(1, question="Who is it?"), row(2)])
    assert [sample.question for sample in open_dataset(path)] == ["Who is it?", "What is it?"]
    assert only_index_file(tmp_path)


def test_an_image_of_a_file_that_changed_since_it_was_opened_is_not_read(tmp_path: Path) -> None:
    path = write_tsv(tmp_path / "mine.tsv", [row(1)])
    image = open_dataset(path)[0].images[0]
    write_tsv(path, [row(2), row(1)])
    with pytest.raises(ImageError, match=r"row 1: .*has changed since it was opened"):
        image.read()


@pytest.mark.parametrize("damage", [b"", b"nonsense" * 2000, None])
def test_a_damaged_index_is_built_again(tmp_path: Path, damage: bytes | None) -> None:
    path = write_tsv(tmp_path / "mine.tsv", [row(number) for number in range(200)])
    open_dataset(path)
    store = only_index_file(tmp_path)
    store.write_bytes(store.read_bytes()[:5000] if damage is None else damage)
    assert len(open_dataset(path)) == 200
    assert stored_md5(path) == hashlib.md5(path.read_bytes()).hexdigest()


def test_where_no_index_can_be_stored_it_is_held_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a-file").write_text("")
    monkeypatch.setenv("VLMEVAL_CACHE", str(tmp_path / "a-file"))
    dataset = open_dataset(write_tsv(tmp_path / "mine.tsv", [row(1)]))
    assert dataset[0].images[0].read() == png()


def test_the_cache_is_under_home_unless_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLMEVAL_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    open_dataset(write_tsv(tmp_path / "mine.tsv", [row(1)]))
    assert list((tmp_path / "home/.cache/vlmeval/index").glob("mine-*.sqlite"))


def test_a_file_that_fails_leaves_nothing_in_the_cache(tmp_path: Path) -> None:
    with pytest.raises(DatasetError):
        open_dataset(write_tsv(tmp_path / "mine.tsv", [row(1), row(1)]))
    assert list((tmp_path / "cache" / "index").iterdir()) == []


def test_several_threads_open_and_read_one_file_at_once(tmp_path: Path) -> None:
    path = write_tsv(tmp_path / "mine.tsv", [row(number, image=cell(number % 250)) for number in range(100)])
    wrong: list[object] = []
    shared = open_dataset(path)

    def read(position: int) -> None:
        for dataset in (shared, open_dataset(path)):
            for sample in (dataset[(position + step) % 100] for step in range(100)):
                if sample.images[0].read() != png(int(sample.index) % 250):
                    wrong.append(sample)

    threads = [threading.Thread(target=read, args=(number * 9,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_several_processes_open_a_new_file_at_once(tmp_path: Path) -> None:
    path = write_tsv(tmp_path / "mine.tsv", [row(number) for number in range(500)])
    code = "import sys; from vlmeval.dataset import open_dataset; print(len(open_dataset(sys.argv[1])))"
    command = [sys.executable, "-c", code, str(path)]
    env = {**os.environ, "PYTHONPATH": str(Path(vlmeval.__file__).parent.parent)}
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) for _ in range(4)]
    assert [process.communicate()[0] for process in running] == ["500\n"] * 4
    assert only_index_file(tmp_path).suffix == ".sqlite"


def test_opening_a_large_file_holds_little_of_it_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "large.tsv"
    big = cell() * 2000
    with path.open("wb") as file:
        file.write(b"index\timage\tquestion\tA\tB\tanswer\n")
        for number in range(400):
            file.write(f"{number}\t{big}\tWhat?\tx\ty\tA\n".encode())
    assert path.stat().st_size > 60 * 2**20
    code = (
        "import sys; from vlmeval.dataset import open_dataset; open_dataset(sys.argv[1]);"
        "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(vlmeval.__file__).parent.parent)}
    command = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=env, check=True)
    assert int(done.stdout) < 50 * 1024


def test_progress_counts_up_to_the_files_size(tmp_path: Path) -> None:
    path = write_tsv(tmp_path / "mine.tsv", [row(1), row(2)])
    seen: list[int] = []
    open_index(path, progress=seen.append)
    assert len(seen) == 3
    assert seen[-1] == path.stat().st_size

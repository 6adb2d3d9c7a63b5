"""A file that is no benchmark ends in one message: file, line, column, counts, value, what to try."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlmeval.dataset import open_dataset
from vlmeval.errors import DatasetError

from .tsv_files import cell, row, tsv_bytes, write_tsv


def without(column: str, **more: str) -> dict[str, str]:
    return {name: text for name, text in row(1, **more).items() if name != column}


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", r"is empty \(0 bytes\)"),
        (b"\n\n", "is empty"),
        (b"index\timage\tquestion\n", "a header and no rows"),
        (tsv_bytes([without("index")]), "line 1: the header has no column 'index'; its 5 columns: image, question"),
        (tsv_bytes([without("question", Question="?")]), "no column 'question'.*'question' is near 'Question'"),
        (tsv_bytes([without("image")]), "none of the columns 'image', 'image_path' and 'video'"),
        (b"index,image,question\n1,x,y\n", "no column 'index' and no column 'question'.*separated by commas"),
        (b"index\timage\tquestion\tquestion\n", "line 1: columns named twice: question"),
        (b"index\timage\tquestion\n1\tx\ty\n2\tx\n", r"line 3: 2 cells where the header has 3 columns .*begins '2'"),
        (b"index\timage\tquestion\n1\tx\ty\tz\n", "line 2: 4 cells where the header has 3"),
        (b"index\timage\tquestion\n1\tx\ty\n\tx\ty\n", "line 3: column 'index' is empty"),
        (
            tsv_bytes([row(5), row(6), row(5), row(7), row(5), row(6)]),
            "2 values are used more than once: '5' on lines 2, 4, 6; '6' on lines 3, 7",
        ),
        (b"index\timage\tquestion\n1\tx\t\xe9\n", "line 2: not UTF-8"),
        (b"index\timage\tquestion\n1\tx\t\0\n", "line 2: a NUL byte"),
    ],
)
def test_the_message_says_where_and_what(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "mine.tsv"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=message) as raised:
        open_dataset(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_many_duplicates_are_counted_and_some_shown(tmp_path: Path) -> None:
    path = write_tsv(tmp_path / "mine.tsv", [row(number % 50) for number in range(100)])
    with pytest.raises(DatasetError, match=r"50 values are used.*'0' on lines 2, 52.*and 45 more"):
        open_dataset(path)


def test_a_missing_column_is_told_before_the_rows_are_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.tsv"
    path.write_bytes(b"index\timage\tquery\n" + f"1\t{cell()}\n".encode() + b'"broken')
    with pytest.raises(DatasetError, match="no column 'question'"):
        open_dataset(path)


def test_a_missing_file_names_the_nearest_in_its_folder(tmp_path: Path) -> None:
    write_tsv(tmp_path / "my_bench.tsv", [row(1)])
    with pytest.raises(DatasetError, match=r"No such file.*nearest in that folder: my_bench\.tsv"):
        open_dataset(tmp_path / "my_bensh.tsv")
    with pytest.raises(DatasetError, match=f"its folder {tmp_path / 'nowhere'} does not exist"):
        open_dataset(tmp_path / "nowhere" / "x.tsv")


def test_a_folder_or_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="is a folder"):
        open_dataset(tmp_path)
    (tmp_path / "mine.csv").write_text("index,question\n")
    with pytest.raises(DatasetError, match=r"no \.tsv file"):
        open_dataset(tmp_path / "mine.csv")

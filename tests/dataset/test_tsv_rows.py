"""What a row of a TSV is: pandas' and csv's quoting, and where the row stands in the file."""

from __future__ import annotations

import csv
import io
import random
from pathlib import Path

import pytest

from vlmeval.dataset.tsv_rows import MAX_RECORD_CHARS, LineReader, parse_record, read_rows
from vlmeval.errors import DatasetError

from .tsv_files import row, tsv_bytes


def cells_of(content: bytes) -> list[list[str]]:
    return [found.cells for found in read_rows(LineReader(Path("x.tsv"), io.BytesIO(content)))]


@pytest.mark.parametrize(
    "content, cells",
    [
        ("a\tb\n1\t2\n", [["a", "b"], ["1", "2"]]),
        ("a\tb\r\n1\t2\r\n", [["a", "b"], ["1", "2"]]),
        ("a\tb\n1\t2", [["a", "b"], ["1", "2"]]),
        ("a\tb\n\n1\t\n\r\n", [["a", "b"], ["1", ""]]),
        ('"a\nb"\t"c\td"\t"e ""f"""\n', [["a\nb", "c\td", 'e "f"']]),
        ('""\t""""\t"\n\n"\n', [["", '"', "\n\n"]]),
        ('5" pipe\tsays "no"\n', [['5" pipe', 'says "no"']]),
        ('"Yes" is\ta\n', [["Yes is", "a"]]),
        ("\ufeffa\tb\n", [["a", "b"]]),
        ("None\tNA\t007\t3\tnan\n", [["None", "NA", "007", "3", "nan"]]),
        ("\u2028\t\x85\t\x0b\n", [["\u2028", "\x85", "\x0b"]]),
    ],
)
def test_cells_are_exactly_the_text_between_the_tabs(content: str, cells: list[list[str]]) -> None:
    assert cells_of(content.encode()) == cells


def test_rows_read_as_the_csv_module_reads_them() -> None:
    random.seed(5)
    texts = ["", "a", '"', '""', "\n", "\r\n", "\t", 'x"y', '"q" r', "é", "你好", " ", "\\", "'"]
    rows = [row(i, question="".join(random.choices(texts, k=6)), A=random.choice(texts)) for i in range(300)]
    content = tsv_bytes(rows)
    assert cells_of(content) == list(csv.reader(io.StringIO(content.decode(), newline=""), dialect="excel-tab"))


def test_each_row_can_be_read_again_from_its_place_in_the_file() -> None:
    content = b"\xef\xbb\xbf" + tsv_bytes([row(1, question='two\n"lines"'), row(2), row(3, A="\t")])
    lines = LineReader(Path("x.tsv"), io.BytesIO(content))
    for found in read_rows(lines):
        assert parse_record(content[found.offset : found.offset + found.length], Path("x.tsv")) == found.cells
    assert lines.position == len(content)


def test_a_row_is_numbered_by_its_first_line() -> None:
    content = b'h\n"one\ntwo"\n\nthree\n'
    assert [found.line for found in read_rows(LineReader(Path("x.tsv"), io.BytesIO(content)))] == [1, 2, 5]


@pytest.mark.parametrize(
    "content, message",
    [
        (b"a\tb\n1\t\xff\n", r"line 2: not UTF-8 \(byte 0xff at byte 3 of the line\)"),
        (b"a\tb\n1\t2\nx\0\n", "line 3: a NUL byte at byte 2"),
        ("a\tb\n".encode("utf-16"), "line 1: .*UTF-16"),
        (b'a\tb\n1\t2\n3\t"open\n4\t5\n', "line 3: a cell opens with a quote that never closes"),
    ],
)
def test_a_broken_line_is_named(content: bytes, message: str) -> None:
    with pytest.raises(DatasetError, match=r"x\.tsv, " + message):
        cells_of(content)


def test_a_quote_that_never_closes_is_noticed_before_it_eats_the_memory() -> None:
    line = b"x" * 2**22 + b"\n"
    content = io.BytesIO(b'a\tb\n1\t"open\n' + line * 20)
    lines = LineReader(Path("x.tsv"), content)
    with pytest.raises(DatasetError, match=r"x\.tsv, line 2: .*never closes \(64 MiB follow\)"):
        list(read_rows(lines))
    assert lines.position < 70 * 2**20


def test_a_long_row_on_one_line_is_no_quote_that_never_closes() -> None:
    image = b"A" * (MAX_RECORD_CHARS + 1)
    assert [len(cells[0]) for cells in cells_of(b'"' + image + b'"\tb\n')] == [len(image)]

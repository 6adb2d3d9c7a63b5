"""Tables on disk hold what was put in, and nothing in them runs."""

from __future__ import annotations

import csv
import errno
import importlib.util
import json
import os
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import cast

import pytest
from openpyxl import load_workbook

from vlmeval.errors import MissingPackageError, StorageError, UnknownNameError
from vlmeval.report.tables import TableFormat, evaluation_format, prediction_format, write_table

HOSTILE = [
    "=cmd|'/c calc'!A1",
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "#N/A",
    "TRUE",
    "007",
    "None",
    "NA",
    "null",
    "1e5",
    " blank around ",
    "two\nlines",
    "tab\there",
    'quote " and, comma',
    "<b>&amp;</b>",
    "\u202eabc\u202c",
    "中文 😀",
]


def read_xlsx(path: Path) -> list[list[object]]:
    return [[cell.value for cell in row] for row in load_workbook(path).worksheets[0].iter_rows()]


def test_xlsx_cells_hold_hostile_text_as_text(tmp_path: Path) -> None:
    path = write_table(tmp_path / "t", ["index", "=head"], [[i, text] for i, text in enumerate(HOSTILE)], "xlsx").path
    rows = list(load_workbook(path).worksheets[0].iter_rows())
    assert [row[1].value for row in rows] == ["=head", *HOSTILE]
    assert {row[1].data_type for row in rows} == {"s"}
    assert {row[0].data_type for row in rows[1:]} == {"n"}


def test_no_formula_element_is_in_the_xlsx(tmp_path: Path) -> None:
    import zipfile

    path = write_table(tmp_path / "t", ["a"], [[text] for text in HOSTILE], "xlsx").path
    with zipfile.ZipFile(path) as archive:
        assert b"<f>" not in b"".join(archive.read(name) for name in archive.namelist())


def test_tsv_and_json_hold_text_as_it_is(tmp_path: Path) -> None:
    tsv = write_table(tmp_path / "t", ["index", "text"], [[i, text] for i, text in enumerate(HOSTILE)], "tsv").path
    with open(tsv, newline="", encoding="utf-8") as file:
        assert [row[1] for row in csv.reader(file, delimiter="\t")] == ["text", *HOSTILE]
    as_json = write_table(tmp_path / "t", ["index", "text"], [[i, text] for i, text in enumerate(HOSTILE)], "json").path
    assert json.loads(as_json.read_text("utf-8")) == [{"index": i, "text": text} for i, text in enumerate(HOSTILE)]


def test_csv_marks_what_a_spreadsheet_would_run(tmp_path: Path) -> None:
    path = write_table(tmp_path / "t", ["split", "=cmd|x"], [["none", 0.5], ["-x", -0.5]], "csv").path
    assert path.read_text("utf-8") == "split,'=cmd|x\nnone,0.5\n'-x,-0.5\n"


@pytest.mark.parametrize("fmt", ["xlsx", "tsv"])
def test_control_characters_and_lone_surrogates_are_escaped(tmp_path: Path, fmt: str) -> None:
    text = "a\x00b\x0bc\x1bd\ud800e\uffff"
    path = write_table(tmp_path / "t", ["text"], [[text]], cast(TableFormat, fmt)).path
    shown = read_xlsx(path)[1][0] if fmt == "xlsx" else path.read_text("utf-8").split("\n")[1]
    assert shown == "a_x0000_b_x000B_c_x001B_d_xD800_e_xFFFF_"


def test_a_json_table_keeps_control_characters_and_lone_surrogates(tmp_path: Path) -> None:
    path = write_table(tmp_path / "t", ["text"], [["a\x00\ud800"]], "json").path
    assert json.loads(path.read_text("utf-8")) == [{"text": "a\x00\ud800"}]


def test_a_text_too_long_for_a_cell_is_cut_with_a_note_and_whole_in_a_tsv(tmp_path: Path) -> None:
    fits, long, wide = "x" * 32_767, "y" * 200_000, "😀" * 20_000
    written = write_table(tmp_path / "t.v1", ["text"], [[fits], [long], [wide]], "xlsx")
    cells = [row[0] for row in read_xlsx(written.path)[1:]]
    assert cells == [fits, "y" * 32_767, "😀" * 16_383]
    assert written.beside == (tmp_path / "t.v1.tsv",)
    assert written.beside[0].read_text("utf-8").split("\n")[1:4] == [fits, long, wide]
    assert written.notes == ("2 cells of t.v1.xlsx are cut at 32767 characters; the whole texts are in t.v1.tsv",)


def test_a_table_without_rows_has_its_header(tmp_path: Path) -> None:
    assert read_xlsx(write_table(tmp_path / "t", ["index", "text"], [], "xlsx").path) == [["index", "text"]]


def test_a_file_is_replaced_whole_and_nothing_is_left_beside(tmp_path: Path) -> None:
    write_table(tmp_path / "t", ["a"], [["old"]], "tsv")
    write_table(tmp_path / "t", ["a"], [["new"]], "tsv")
    assert [path.name for path in tmp_path.iterdir()] == ["t.tsv"]
    assert (tmp_path / "t.tsv").read_text("utf-8") == "a\nnew\n"


@pytest.mark.parametrize("fmt", ["xlsx", "tsv", "csv", "json"])
def test_a_full_disk_is_a_storage_error_with_free_bytes_and_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fmt: str
) -> None:
    path = write_table(tmp_path / "t", ["a"], [["old"]], cast(TableFormat, fmt)).path
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"cannot be written: the disk is full; .* bytes\) free there"):
        write_table(tmp_path / "t", ["a"], [["new"]], cast(TableFormat, fmt))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="cannot be written"):
        write_table(tmp_path / "file" / "t", ["a"], [], "tsv")


@pytest.mark.parametrize(
    ("asked", "got"), [(None, "xlsx"), ("", "xlsx"), ("XLSX", "xlsx"), ("tsv", "tsv"), ("json", "json")]
)
def test_predictions_are_xlsx_unless_asked_otherwise(asked: str | None, got: str) -> None:
    assert prediction_format(asked) == (got, "")


def test_without_openpyxl_the_default_falls_back_to_tsv_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> ModuleSpec | None:
        return None

    monkeypatch.setattr(importlib.util, "find_spec", nothing)
    fmt, note = prediction_format(None)
    assert fmt == "tsv"
    assert "openpyxl" in note
    assert prediction_format("json") == ("json", "")
    with pytest.raises(MissingPackageError, match="pip install openpyxl"):
        prediction_format("xlsx")


def test_an_unknown_format_names_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="known: xlsx, tsv, json"):
        prediction_format("xls")
    with pytest.raises(UnknownNameError, match="known: csv, json"):
        evaluation_format("xlsx")
    assert (evaluation_format(None), evaluation_format("json")) == ("csv", "json")

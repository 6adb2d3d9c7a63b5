"""Tables of answers: every cell is the text the file has, in every format, and what is no table says why."""

from __future__ import annotations

import csv
import json
import zipfile
from datetime import date, datetime
from datetime import time as clock
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openpyxl import Workbook
from openpyxl.utils.datetime import CALENDAR_MAC_1904

from vlmeval.answers.reader import read_answers
from vlmeval.answers.tables import AnswerTable, read_table
from vlmeval.answers.xlsx import read_xlsx
from vlmeval.errors import DatasetError, UsageError
from vlmeval.report.tables import write_table

HARD = [
    "None", "NA", "N/A", "nan", "null", "", "007", "3.0", "1e5", "TRUE", "=1+1", "=cmd|' /C calc'!A0", "+1", "-x", "@f",
    "#N/A", "  blanks  ", "two\nlines", 'quote "', "tab\there", "a,b;c", "中文（B）。", "\u202eabc\u202c", "\u2028",
    "_x0041_", "'quoted", "😀" * 3, "\rcarriage", "a\rb", "a\r\nb", "_x000D_", "_x005F_x000D_", "__x0001_",
]  # fmt: skip
"""Texts that a spreadsheet, pandas or the csv module is known to turn into something else."""


@pytest.mark.parametrize("fmt", ["xlsx", "tsv", "json"])
def test_what_our_writers_write_is_read_back_as_the_same_text(tmp_path: Path, fmt: str) -> None:
    rows: list[list[str | int]] = [[number, text] for number, text in enumerate(HARD)]
    path = write_table(tmp_path / "t", ["index", "prediction"], rows, fmt).path  # type: ignore[arg-type]
    table = read_table(path)
    assert table.columns == ("index", "prediction")
    assert [list(row) for row in table.rows] == [[str(number), text] for number, text in rows]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(), min_size=1, max_size=8))
def test_any_text_comes_back_from_xlsx_and_json(tmp_path: Path, texts: list[str]) -> None:
    """But for a lone half of a surrogate pair, which stays the escape that it is written as."""
    for fmt in ("xlsx", "json"):
        rows: list[list[str | int]] = [[number, text] for number, text in enumerate(texts)]
        path = write_table(tmp_path / "t", ["index", "prediction"], rows, fmt).path  # type: ignore[arg-type]
        read = [row[1] for row in read_table(path).rows]
        assert read == texts


def test_an_answer_of_200_000_characters_is_read_whole_from_csv_tsv_and_json(tmp_path: Path) -> None:
    text, limit = "x" * 200_000, csv.field_size_limit()
    for fmt in ("csv", "tsv", "json"):
        path = write_table(tmp_path / "t", ["index", "prediction"], [["1", text]], fmt).path  # type: ignore[arg-type]
        assert read_table(path).rows[0][1] == text
    assert csv.field_size_limit() == limit


def test_an_xlsx_whose_texts_were_cut_says_how_many(tmp_path: Path) -> None:
    rows: list[list[str | int]] = [[1, "x" * 40_000], [2, "y"]]
    assert read_table(write_table(tmp_path / "t", ["index", "prediction"], rows, "xlsx").path).cut_cells == 1


def test_formulas_numbers_booleans_and_errors_of_other_writers_are_the_text_that_was_typed(tmp_path: Path) -> None:
    book = Workbook()
    sheet = book.active
    assert sheet is not None
    for cells in (["index", "prediction"], [1, "=HYPERLINK(1)"], [2, 7], [3, True], [4, "#N/A"], [5, None], [6, 2.5]):
        sheet.append(cells)
    book.save(tmp_path / "o.xlsx")
    texts = [row[1] for row in read_table(tmp_path / "o.xlsx").rows]
    assert texts == ["=HYPERLINK(1)", "7", "True", "#N/A", "", "2.5"]


SHARED = """<?xml version="1.0"?><sst xmlns="x"><si><t>index</t></si><si><r><t>pre</t></r>
<r><t xml:space="preserve">diction</t></r>
<rPh><t>hint</t></rPh></si><si><t>a_x000D_b</t></si></sst>"""
SHEET = """<?xml version="1.0"?><worksheet xmlns="x"><sheetData><row r="1"><c r="A1" t="s"><v>0</v></c><c r="C1" t="s">
<v>1</v></c></row><row r="2"><c r="A2"><v>5</v></c><c r="C2" t="s"><v>2</v></c></row></sheetData></worksheet>"""


def shared_strings_book(path: Path, sheet: str = SHEET) -> Path:
    """As Excel and XlsxWriter write it: texts in a table of their own, the sheet named by the workbook."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("xl/workbook.xml", '<w xmlns:r="y"><sheets><sheet name="S" r:id="rId7"/></sheets></w>')
        archive.writestr("xl/_rels/workbook.xml.rels", '<R><Relationship Id="rId7" Target="worksheets/s.xml"/></R>')
        archive.writestr("xl/sharedStrings.xml", SHARED)
        archive.writestr("xl/worksheets/s.xml", sheet)
    return path


def test_cells_that_a_spreadsheet_made_dates_of_are_dates_and_counted(tmp_path: Path) -> None:
    book = Workbook()
    sheet = book.active
    assert sheet is not None
    made: list[date | clock | float] = [
        date(2024, 1, 2),
        datetime(2024, 1, 2, 3, 4, 5),
        clock(6, 30),
        date(1900, 1, 1),
        45293,
        0.5,
    ]
    sheet.append(("index", "prediction"))
    for number, cell in enumerate(made):
        sheet.append((number, cell))
    sheet.cell(6, 2).number_format = '0.0" days"'
    book.save(tmp_path / "a.xlsx")
    table = read_table(tmp_path / "a.xlsx")
    read = ["2024-01-02", "2024-01-02 03:04:05", "06:30:00", "1900-01-01", "45293", "0.5"]
    assert [row[1] for row in table.rows] == read
    assert table.dated_cells == 4
    assert "4 cells are dates" in read_answers(tmp_path / "a.xlsx", range(6)).notes[0]
    book.epoch = CALENDAR_MAC_1904
    book.save(tmp_path / "b.xlsx")
    assert [row[1] for row in read_table(tmp_path / "b.xlsx").rows][:3] == read[:3]


def test_shared_strings_runs_hints_and_skipped_columns_are_understood(tmp_path: Path) -> None:
    rows = read_xlsx(shared_strings_book(tmp_path / "b.xlsx"))
    assert rows == [["index", "", "prediction"], ["5", "", "a\rb"]]


@pytest.mark.parametrize(
    ("sheet", "said"),
    [
        ("<w><sheetData><row><c t='s'><v>99</v></c></row></sheetData></w>", "shared text '99'"),
        ("<!DOCTYPE w [<!ENTITY a 'b'>]><w/>", "document type"),
        ("<w><sheetData>", "cannot be read as xlsx"),
        ("<w><row><c r='ZZZZ1'><v>1</v></c></row></w>", "ZZZZ1"),
    ],
)
def test_a_damaged_or_hostile_xlsx_is_told(tmp_path: Path, sheet: str, said: str) -> None:
    with pytest.raises(DatasetError, match=said):
        read_xlsx(shared_strings_book(tmp_path / "b.xlsx", sheet))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.xlsx", b"not a zip", "cannot be read as xlsx"),
        ("a.csv", b"index,prediction\n1,a,b\n", "record 2: 3 cells"),
        ("a.csv", b'index,prediction\n1,"a\n', "no proper csv"),
        ("a.csv", b"index,index\n1,2\n", "named twice: index"),
        ("a.csv", b"index,prediction\n1,\xff\n", "line 2: not UTF-8"),
        ("a.csv", "index,prediction\n".encode("utf-16"), "UTF-16"),
        ("a.csv", "index,prediction\n".encode("utf-16-le"), "UTF-16"),
        ("a.csv", "index,prediction\n".encode("utf-16-be"), "UTF-16"),
        ("a.json", b'{"index": [1, 2], "prediction": ["A"]}', "different lengths: index 2, prediction 1"),
        ("a.json", b"[1, 2]", "no list of records"),
        ("a.json", b"{", "line 1: no JSON"),
        ("a.jsonl", b'{"index": 1}\n{"index"\n', "line 2: no JSON"),
        ("a.json", b"[]", "no records"),
    ],
)
def test_what_is_no_table_says_what_and_where(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetError, match=said):
        read_table(tmp_path / name)


def test_another_kind_of_file_names_the_known_kinds(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.xlsx, \.tsv"):
        read_table(tmp_path / "answers.pkl")


def test_json_may_be_records_or_answers_by_index_or_columns(tmp_path: Path) -> None:
    forms = [
        [{"index": 7, "prediction": 1.50}, {"index": "007", "prediction": None}],
        {"7": 1.50, "007": None},
        {"index": {"0": 7, "1": "007"}, "prediction": {"0": 1.50, "1": None}},
        {"index": [7, "007"], "prediction": [1.50, None]},
    ]
    for form in forms:
        (tmp_path / "a.json").write_text(json.dumps(form).replace("1.5", "1.50"))
        assert [list(row) for row in read_table(tmp_path / "a.json").rows] == [["7", "1.50"], ["007", ""]]


@pytest.mark.parametrize(
    ("name", "header", "said"),
    [
        ("a.csv", "index;prediction", "semicolons: save it with commas"),
        ("a.csv", "index\tprediction", "tabs: call it .tsv"),
        ("a.tsv", "index,prediction", "commas: call it .csv"),
    ],
)
def test_a_table_with_another_separator_is_told_what_to_do(tmp_path: Path, name: str, header: str, said: str) -> None:
    (tmp_path / name).write_text(f"{header}\n")
    with pytest.raises(DatasetError, match=said):
        read_table(tmp_path / name).column("index")


def test_a_missing_column_names_those_there_are(tmp_path: Path) -> None:
    table = AnswerTable(path=tmp_path / "a.csv", columns=("Index", "answer"), rows=[])
    assert table.column("index") == 0
    with pytest.raises(DatasetError, match="no column 'prediction'; its columns: Index, answer"):
        table.column("prediction")


def test_3000_rows_of_xlsx_come_back_whole(tmp_path: Path) -> None:
    """What 30,000 take is in bench/score_100k.md."""
    rows: list[list[str | int]] = [[n, *["some text of a cell"] * 10, f"The answer is {n}. " * 8] for n in range(3000)]
    path = write_table(tmp_path / "t", [f"c{n}" for n in range(12)], rows, "xlsx").path
    assert len(read_xlsx(path)) == 3001

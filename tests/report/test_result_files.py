"""The result files: upstream's layout, read back with what its users read it with."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from openpyxl import load_workbook

from tests.report.score_example import COLUMNS, PREDICTIONS, SAMPLES, ok, sample, scores
from vlmeval.report import write_predictions, write_score_files
from vlmeval.report.result_files import acc_table, file_prefix
from vlmeval.scoring import score_multiple_choice
from vlmeval.types import Index, Prediction


def read_xlsx(path: Path) -> list[dict[str, object]]:
    header, *rows = load_workbook(path).worksheets[0].iter_rows(values_only=True)
    return [dict(zip(map(str, header), row, strict=True)) for row in rows]


def test_predictions_have_every_column_but_the_image_in_dataset_order(tmp_path: Path) -> None:
    path = write_predictions(tmp_path, "M", "Toy", COLUMNS, SAMPLES, PREDICTIONS).path
    rows = read_xlsx(path)
    assert path.name == "M_Toy.xlsx"
    assert list(rows[0]) == ["index", "question", "A", "B", "answer", "category", "l2-category", "prediction"]
    assert [row["index"] for row in rows] == [3, 1, 1_000_001, 2]
    assert [row["prediction"] for row in rows] == ["Failed to obtain answer. image is broken", "A", "（B）", "=cmd|x"]
    assert (rows[0]["A"], rows[0]["B"]) == ("None", "007")


def test_thinking_is_a_column_only_where_there_is_some(tmp_path: Path) -> None:
    predictions = {**PREDICTIONS, 1: ok(1, "A", thinking="hm")}
    rows = read_xlsx(write_predictions(tmp_path, "M", "Toy", COLUMNS, SAMPLES, predictions).path)
    assert [row["thinking"] for row in rows] == [None, "hm", None, None]


def test_a_hub_id_makes_a_file_name_and_no_folder(tmp_path: Path) -> None:
    assert file_prefix("Qwen/Qwen2-VL", "a\\b:c") == "Qwen_Qwen2-VL_a_b_c"
    assert write_predictions(tmp_path, "../x", "Toy", COLUMNS, [], {}, "tsv").path == tmp_path / ".._x_Toy.tsv"


def test_the_result_file_is_sorted_by_index_with_hit_and_log(tmp_path: Path) -> None:
    files = write_score_files(tmp_path, "M", "Toy", scores(), SAMPLES, PREDICTIONS, {}, columns=COLUMNS)
    rows = read_xlsx(files.result)
    assert files.result.name == "M_Toy_exact_matching_result.xlsx"
    assert list(rows[0])[-3:] == ["prediction", "hit", "log"]
    assert [(row["index"], row["hit"]) for row in rows] == [(1, 1), (2, 0), (3, 0), (1_000_001, 0)]
    assert rows[2]["log"] == "failed: image is broken"


def test_a_circular_result_file_has_base_rows_with_g_index(tmp_path: Path) -> None:
    files = write_score_files(tmp_path, "M", "Toy", scores(circular=True), SAMPLES, PREDICTIONS, {}, columns=COLUMNS)
    rows = read_xlsx(files.result)
    assert list(rows[0])[-4:] == ["prediction", "g_index", "hit", "log"]
    assert [(row["index"], row["g_index"], row["hit"]) for row in rows] == [(1, 1, 0), (2, 2, 0), (3, 3, 0)]


def test_acc_csv_has_upstreams_columns_as_fractions_and_nothing_else(tmp_path: Path) -> None:
    files = write_score_files(tmp_path, "M", "Toy", scores(circular=True), SAMPLES, PREDICTIONS, {})
    with open(files.table, newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert files.table.name == "M_Toy_acc.csv"
    assert rows == [
        ["split", "Overall", "CP", "zebra", "rest", "动作识别"],
        ["none", "0.0", "0.0", "0.0", "0.0", "0.0"],
    ]


def test_acc_csv_is_sorted_by_full_l2_name_over_all_splits_and_empty_where_a_split_has_none() -> None:
    samples = [
        sample(1, "A", "b", "relation_reasoning", "dev"),
        sample(2, "A", "a", "logic_reasoning", "test"),
        sample(3, "A", "c", "mid", "dev"),
    ]
    score = score_multiple_choice(
        "Toy",
        samples,
        {i: ok(i, "A") for i in (1, 2, 3)},
        protocol="vlmevalkit",
        circular=False,
        l2_short_names={"relation_reasoning": "AA", "logic_reasoning": "ZZ"},
    )
    assert acc_table(score) == (
        ["split", "Overall", "ZZ", "mid", "AA", "a", "b", "c"],
        [["dev", 1.0, None, 1.0, 1.0, None, 1.0, 1.0], ["test", 1.0, 1.0, None, None, 1.0, None, None]],
    )


def test_eval_format_json_gives_the_table_as_records(tmp_path: Path) -> None:
    files = write_score_files(tmp_path, "M", "Toy", scores(), SAMPLES, PREDICTIONS, {}, fmt="tsv", eval_format="json")
    assert files.result.suffix == ".tsv"
    assert json.loads(files.table.read_text("utf-8"))[0]["Overall"] == 0.25


def test_score_json_holds_both_protocols_every_row_the_stamps_and_where_they_differ(tmp_path: Path) -> None:
    stamps = {"precision": "bf16", "revision": "abc", "folder": tmp_path}
    files = write_score_files(tmp_path, "M", "Toy", scores(), SAMPLES, PREDICTIONS, stamps)
    content = json.loads(files.score.read_text("utf-8"))
    upstream, exact = content["protocols"]["vlmevalkit"], content["protocols"]["exact"]
    assert files.score.name == "M_Toy_score.json"
    assert content["run"]["revision"] == "abc"
    assert content["primary_protocol"] == "vlmevalkit"
    assert (upstream["version"], upstream["samples"]) == (1, 5)
    assert upstream["failed"] == {"count": 1, "indices": [3]}
    assert upstream["unmatched"] == {"count": 2, "indices": [1_000_001, 2]}
    assert exact["missing"] == {"count": 1, "indices": [4]}
    overall = exact["metrics"][0]
    assert (overall["group"], overall["value"], overall["count"]) == ("Overall", 0.4, 5)
    assert overall["interval_95"][0] < 0.4 < overall["interval_95"][1]
    assert exact["rows"][1] == {"index": 1, "hit": 1.0, "extracted": "A", "log": exact["rows"][1]["log"]}
    assert content["differences"] == [
        {
            "between": "vlmevalkit and exact",
            "count": 1,
            "rows": [{"index": 1_000_001, "vlmevalkit": ["", 0.0], "exact": ["B", 1.0]}],
        }
    ]


def test_text_indices_are_written_and_sorted_as_text(tmp_path: Path) -> None:
    from dataclasses import replace

    samples = [replace(sample(1, "A"), index="b_2"), replace(sample(2, "A"), index="a_10")]
    predictions: dict[Index, Prediction] = {"b_2": ok("b_2", "A"), "a_10": ok("a_10", "A")}
    score = score_multiple_choice("Toy", samples, predictions, protocol="exact", circular=False)
    files = write_score_files(tmp_path, "M", "Toy", {"exact": score}, samples, predictions, {})
    assert [row["index"] for row in read_xlsx(files.result)] == ["a_10", "b_2"]


def test_cut_cells_are_noted(tmp_path: Path) -> None:
    predictions: dict[Index, Prediction] = {1: ok(1, "A" + " long" * 10_000)}
    assert "are cut at 32767" in write_predictions(tmp_path, "M", "T", COLUMNS, SAMPLES, predictions).notes[0]


@pytest.mark.parametrize("fmt", ["xlsx", "tsv", "json"])
def test_nothing_to_write_is_a_header(tmp_path: Path, fmt: str) -> None:
    score = score_multiple_choice("Toy", [], {}, protocol="exact", circular=True)
    files = write_score_files(tmp_path, "M", "Toy", {"exact": score}, [], {}, {}, fmt=fmt)  # type: ignore[arg-type]
    assert files.result.exists()
    assert files.table.read_text("utf-8") == "split,Overall\nnone,0.0\n"

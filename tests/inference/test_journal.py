"""The journal loses nothing, and says so when it cannot write."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vlmeval.errors import StorageError
from vlmeval.inference.journal import Journal, read_journal
from vlmeval.types import Prediction


def prediction(index: int | str, text: str = "A", **values: object) -> Prediction:
    return Prediction(index=index, status="ok", fingerprint="f", prediction=text, **values)  # type: ignore[arg-type]


def test_what_is_appended_is_read_back(tmp_path: Path) -> None:
    records = [
        prediction(1, 'tab\t newline\n quote" 中文 \x1c \u2028', prompt_tokens=3, new_tokens=2, seconds=0.5),
        Prediction(index="a/b", status="failed", fingerprint="g", error="row a/b: broken", notes=("smaller batch",)),
    ]
    with Journal(tmp_path / "j.jsonl") as journal:
        for record in records:
            journal.append(record)
    assert read_journal(tmp_path / "j.jsonl") == {1: records[0], "a/b": records[1]}


@pytest.mark.parametrize("after", [1, 3], ids=["while it is written", "just before the end"])
def test_a_journal_whose_folder_is_removed_meanwhile_ends_the_run(
    tmp_path: Path, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlmeval.inference.journal.SYNC_INTERVAL_S", 0.0 if after == 1 else 3600.0)
    folder = tmp_path / "run"
    folder.mkdir()
    appended, path = [], folder / "j.jsonl"
    with pytest.raises(StorageError, match=r"j\.jsonl was removed or moved away"), Journal(path) as journal:
        for index in range(3):
            journal.append(prediction(index))
            appended.append(index)
            if len(appended) == after:
                folder.rename(tmp_path / "elsewhere")
    assert len(appended) == after


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(), min_size=1, max_size=5), cut=st.integers(min_value=0, max_value=400))
def test_a_cut_at_any_byte_loses_at_most_the_last_record(tmp_path: Path, texts: list[str], cut: int) -> None:
    path = tmp_path / "j.jsonl"
    path.unlink(missing_ok=True)
    ends = [0]
    with Journal(path) as journal:
        for i, text in enumerate(texts):
            journal.append(prediction(i, text.encode("utf-8", "replace").decode()))
            ends.append(path.stat().st_size)
    cut = min(cut, ends[-1])
    os.truncate(path, cut)
    # A record is whole once its last brace is there; the newline after it may be missing.
    whole = sum(end - 1 <= cut for end in ends[1:])
    assert len(read_journal(path)) == whole
    with Journal(path) as journal:
        journal.append(prediction("next"))
    assert len(read_journal(path)) == whole + 1


def test_the_last_record_of_a_sample_counts(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.jsonl") as journal:
        journal.append(Prediction(index=1, status="failed", fingerprint="f", error="no room"))
        journal.append(prediction(1, "B"))
    assert read_journal(tmp_path / "j.jsonl")[1].prediction == "B"


def test_lines_that_are_no_records_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    path.write_bytes(
        b'{"index": 1}\n[]\nnull\n\xff\xfe\n{"index": 2, "status": "ok", "fingerprint": "f", "later": 1}\n'
    )
    assert list(read_journal(path)) == [2]


@pytest.mark.parametrize(
    "wrong",
    [{"index": [1]}, {"index": None}, {"index": 1.5}, {"index": True}, {"prediction": 5}, {"status": "late"}],
)
def test_a_record_of_wrong_types_is_skipped(tmp_path: Path, wrong: dict[str, object]) -> None:
    record = {"index": 1, "status": "ok", "fingerprint": "f", "prediction": "A"}
    path = tmp_path / "j.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in ({**record, **wrong}, {**record, "index": 2})))
    assert list(read_journal(path)) == [2]


def test_each_record_is_in_the_file_before_the_next_is_made(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.jsonl") as journal:
        for i in range(3):
            journal.append(prediction(i))
            assert len(read_journal(tmp_path / "j.jsonl")) == i + 1


def test_a_full_disk_is_told_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "j.jsonl").symlink_to("/dev/full")
    told = pytest.raises(StorageError, match=r"disk is full; .* free there; everything finished is kept")
    with told, Journal(tmp_path / "j.jsonl") as journal:
        journal.append(prediction(1))


def test_a_folder_that_is_no_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be written"), Journal(tmp_path / "file" / "j.jsonl"):
        pass


def test_no_journal_is_an_empty_one(tmp_path: Path) -> None:
    assert read_journal(tmp_path / "none.jsonl") == {}

"""Writes the lab's rows as an Arrow folder: run with lmms-eval's Python, which has `datasets`.

    PYTHONPATH=bench/lab LMMS_PYTHON bench/lab/lmms_eval_task/write_rows.py FOLDER OUT

FOLDER/TinyMMB.tsv becomes OUT/test, the prompt as floor.py writes it and the JPEG as it is in the TSV.
"""

from __future__ import annotations

import base64
import sys
from pathlib import Path

from datasets import Dataset, DatasetDict, Features, Image, Value
from floor import conversation, read_rows


def main(folder: str, out: str) -> None:
    rows = [
        {
            "index": row["index"],
            "prompt": conversation(row)[0]["content"][1]["text"],  # type: ignore[index]
            "answer": row["answer"],
            "image": {"bytes": base64.b64decode(row["image"]), "path": None},
        }
        for row in read_rows(Path(folder) / "TinyMMB.tsv")
    ]
    text = Value("string")
    features = Features({"index": text, "prompt": text, "answer": text, "image": Image()})
    DatasetDict({"test": Dataset.from_list(rows, features=features)}).save_to_disk(out)


if __name__ == "__main__":
    main(*sys.argv[1:])

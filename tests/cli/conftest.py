"""A model of one's own that needs no torch, a small benchmark, and the command line in a process of its own."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]

MODEL = '''
import os
import time
from pathlib import Path

from vlmeval.images import open_image
from vlmeval.vlm.base import BaseModel


class Patient(BaseModel):
    """Says A, after looking at the image and noting the question in a file."""

    def __init__(self, log, wait_s=0.0, says="A"):
        self.log, self.wait_s, self.says = Path(log), wait_s, says

    def settings(self):
        return {**super().settings(), "says": self.says}

    def generate_inner(self, message, task=None):
        open_image(message[0]["value"], max_pixels=1_000_000)
        time.sleep(self.wait_s)
        with self.log.open("a") as file:
            file.write(message[-1]["value"].splitlines()[0] + "\\n")
        return self.says
'''


@dataclass(frozen=True)
class Done:
    """A finished command."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Workplace:
    """A folder with a model class, its config and a benchmark; `run` starts the command line there."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if k not in ("LMUData", "PRED_FORMAT", "EVAL_FORMAT")}
        paths = {"VLMEVAL_CACHE": str(self.folder / "cache"), "LMUData": str(self.folder / "LMUData")}
        return {**kept, **paths, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}

    @property
    def log(self) -> list[str]:
        """The first line of every prompt the model was given, in order."""
        path = self.folder / "log.txt"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def base(self) -> list[str]:
        return ["--config", "config.json", "--model", "patient", "--data", "Mini.tsv", "--work-dir", "out"]

    def start(self, arguments: Sequence[str]) -> subprocess.Popen[str]:
        command = [sys.executable, str(ROOT / "run.py"), *arguments]
        pipe = subprocess.PIPE
        # A test run in the background is deaf to Ctrl-C, and so are its children unless they are told otherwise.
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment,
            stdout=pipe,
            stderr=pipe,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    def run(self, *arguments: str, **environment: str) -> Done:
        command = [sys.executable, str(ROOT / "run.py"), *(arguments or self.base)]
        env = {**self.environment, **environment}
        done = subprocess.run(command, cwd=self.folder, env=env, capture_output=True, text=True, timeout=120)
        return Done(done.returncode, done.stdout, done.stderr)

    def configure(self, **arguments: object) -> None:
        entry = {"class": "my_model:Patient", "log": str(self.folder / "log.txt"), **arguments}
        (self.folder / "config.json").write_text(json.dumps({"model": {"patient": entry}, "data": {}}))

    def result_folder(self) -> Path:
        return max((self.folder / "out" / "patient").glob("T*"))

    def journal(self) -> list[dict[str, object]]:
        lines = (self.result_folder() / "patient_Mini.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]


def png(colour: str = "red", size: tuple[int, int] = (8, 8)) -> str:
    """A small picture, as a TSV has it."""
    data = io.BytesIO()
    Image.new("RGB", size, colour).save(data, "PNG")
    return base64.b64encode(data.getvalue()).decode()


def write_tsv(path: Path, rows: Sequence[dict[str, object]]) -> None:
    columns = ["index", "question", "A", "B", "answer", "category", "image"]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)


def row(index: int, **changes: object) -> dict[str, object]:
    answer = "AB"[index % 2]
    texts = {"question": f"number {index}?", "A": "yes", "B": "no", "answer": answer, "category": "c", "image": png()}
    return {"index": index, **texts, **changes}


@pytest.fixture
def workplace(tmp_path: Path) -> Workplace:
    place = Workplace(tmp_path)
    (tmp_path / "my_model.py").write_text(MODEL)
    (tmp_path / "LMUData").mkdir()
    place.configure()
    write_tsv(tmp_path / "Mini.tsv", [row(i) for i in range(20)])
    return place

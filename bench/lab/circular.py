"""The lab's rows with four circular copies each, as MMBench has them: what reuse of an image saves.

    python bench/lab/circular.py [FOLDER] [--runs 3] [--limit 200]

Each round runs floor.py at batch 8 and `python run.py` on the rows, and `python run.py` on the copies (four times as
many rows, each image four times), one process each. Target: the copies take at most 4 / 1.5 of the floor on the rows.
The answers to the rows are the floor's, and those to the copies are compared with a run at batch size 1.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import tempfile
from pathlib import Path

from compare import HERE, ROOT, Usage, check_answers, measure, run_arguments

COPIES = 4
LIMIT = 200


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what circular copies cost.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path("lab-data"), help="what make_lab.py made")
    parser.add_argument("--runs", type=int, default=3, help="rounds (3)")
    parser.add_argument("--limit", type=int, default=LIMIT, metavar="N", help=f"only the first N rows ({LIMIT})")
    parser.add_argument("--reference", action="store_true", help="compare answers with batch size 1 as well (slow)")
    arguments = parser.parse_args()
    folder, limit = arguments.folder.resolve(), arguments.limit
    with tempfile.TemporaryDirectory() as scratch:
        copies = Path(scratch) / "TinyMMBCopies.tsv"
        write_copies(folder / "TinyMMB.tsv", copies, limit)
        ratios = [one_round(folder, copies, limit) for _ in range(arguments.runs)]
        cpu, wall = (statistics.median(each) for each in zip(*ratios, strict=True))
        print(
            f"median: {cpu:.2f} times less CPU, {wall:.2f} times less wall time than four times the floor (target 1.5)"
        )
        if arguments.reference:
            compare_with_reference(folder, copies)


def write_copies(rows: Path, copies: Path, limit: int) -> None:
    """Each row with its options turned by 0 to 3 places; copies stand after all rows, as in MMBench."""
    csv.field_size_limit(2**30)
    with rows.open(encoding="utf-8", newline="") as file:
        read = list(csv.DictReader(file, delimiter="\t"))[:limit]
    with copies.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(read[0]), delimiter="\t")
        writer.writeheader()
        for turn in range(COPIES):
            for row in read:
                labels = [label for label in "ABCD" if row[label]]
                turned = {label: row[labels[(i + turn) % len(labels)]] for i, label in enumerate(labels)}
                answer = labels[(labels.index(row["answer"]) - turn) % len(labels)]
                writer.writerow({**row, **turned, "answer": answer, "index": int(row["index"]) + turn * 1_000_000})


def one_round(folder: Path, copies: Path, limit: int) -> tuple[float, float]:
    """Prints what each took; returns how many times less CPU and wall time the copies took than 4 times the floor."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "floor.json"
        shared = ["--limit", str(limit)]
        used = {
            "floor, batch 8": measure(
                [str(HERE / "floor.py"), str(folder), *shared, "--batch-size", "8", "--out", str(out)]
            )
        }
        used["ours, rows"], _ = ours(folder, None, Path(scratch) / "rows", *shared)
        check_answers(Path(scratch) / "rows", json.loads(out.read_text()))
        used["ours, copies"], told = ours(folder, copies, Path(scratch) / "copies")
    print(f"load {os.getloadavg()[0]:.1f}; {told}")
    for name, usage in used.items():
        print(f"  {name:<15} {usage.cpu_s:6.2f} s CPU {usage.wall_s:7.2f} s {usage.peak_mib:7.0f} MiB", flush=True)
    floor, copied = used["floor, batch 8"], used["ours, copies"]
    return COPIES * floor.cpu_s / copied.cpu_s, COPIES * floor.wall_s / copied.wall_s


def ours(folder: Path, data: Path | None, work_dir: Path, *more: str) -> tuple[Usage, str]:
    """What run.py used, and what its record says of reuse."""
    command = [str(ROOT / "run.py"), *run_arguments(folder), "--replicas", "1", "--work-dir", str(work_dir), *more]
    if data is not None:
        command[command.index("--data") + 1] = str(data)
    usage = measure(command, VLMEVAL_CACHE=str(work_dir / "cache"))
    (record,) = work_dir.glob("*/T*/run.json")
    stamp = json.loads(record.read_text())["stamp"]
    return usage, ", ".join(f"{name} {stamp[name]}" for name in stamp if name.startswith("image"))


def compare_with_reference(folder: Path, copies: Path) -> None:
    """How many answers to the copies are those of batch size 1."""
    with tempfile.TemporaryDirectory() as scratch:
        found: list[dict[str, str]] = []
        for flags in ([], ["--batch-size", "1"]):
            work_dir = Path(scratch) / str(len(found))
            ours(folder, copies, work_dir, *flags)
            (journal,) = work_dir.glob("*/T*/*.jsonl")
            records = map(json.loads, journal.read_text(encoding="utf-8").splitlines())
            found.append({record["index"]: record["prediction"] for record in records})
    same = sum(found[0][index] == text for index, text in found[1].items())
    print(f"answers as at batch size 1: {same} of {len(found[1])}")


if __name__ == "__main__":
    main()

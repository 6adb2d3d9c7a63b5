"""Ours beside the hand-written loop and lmms-eval on the lab: whole processes on two cores, in alternation.

    python bench/lab/compare_lmms_eval.py [FOLDER] --lmms-python LMMS_ENVIRONMENT/bin/python [--runs 3]

Each round runs, each from nothing to its files:
    floor              torchrun --nproc-per-node 2 floor.py, batch 8
    ours               python run.py --replicas 2, all else as it comes
    lmms-eval          one process, at what it is fastest with (bench/lab.md says how that was found)
    lmms-eval, two     the same by torchrun --nproc-per-node 2
lmms-eval lives in an environment of its own (bench/lab.md says how to make it); without --lmms-python its part is left
out. Nothing of it is changed: it gets lmms_eval_task/lab.yaml, the rows in its own format, written before the rounds,
and the same prompts, pixels, 16 tokens, float32 and sdpa. Its answers differ in part, because it encodes every image
anew as JPEG of quality 85; ours have to be the floor's.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from compare import HERE, ROOT, Usage, check_answers, measure, run_arguments, run_floor, run_process
from floor import MAX_PIXELS, MIN_PIXELS

ROWS = 200
PROCESSES = 2
TASK = HERE / "lmms_eval_task"
LMMS, LMMS_TWO = "lmms-eval", "lmms-eval, two"
LMMS_LIMIT, FLOOR_LIMIT = 0.45, 1.10
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}


@dataclass(frozen=True, kw_only=True)
class Lmms:
    """How lmms-eval is run."""

    python: str
    batch_size: int
    threads: int
    scratch: Path
    """Holds lab-rows, which lab.yaml names, and what it writes."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare run.py with floor.py and lmms-eval on the lab.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path("lab-data"), help="what make_lab.py made")
    parser.add_argument("--runs", type=int, default=3, help="rounds (3)")
    parser.add_argument("--limit", type=int, default=ROWS, metavar="N", help=f"only the first N rows ({ROWS})")
    parser.add_argument("--floor-batch-size", default="8", metavar="N", help="(8)")
    parser.add_argument("--batch-size", metavar="N", help="of ours (run.py's default, auto)")
    parser.add_argument("--lmms-python", metavar="PYTHON", help="of the environment with lmms-eval; else left out")
    parser.add_argument("--lmms-batch-size", type=int, default=8, metavar="N", help="(8)")
    parser.add_argument("--lmms-threads", type=int, default=1, metavar="N", help="OMP_NUM_THREADS (1)")
    asked = parser.parse_args()
    folder: Path = asked.folder.resolve()
    if asked.lmms_python is None:
        print("no --lmms-python: lmms-eval is left out\n", flush=True)

    with tempfile.TemporaryDirectory() as scratch:
        lmms = prepare(asked, folder, Path(scratch)) if asked.lmms_python else None
        rounds = []
        for number in range(asked.runs):
            rounds.append(one_round(folder, asked, lmms, Path(scratch) / f"round-{number}"))
            print(f"round {number + 1} of {asked.runs} ended, load {load()}", flush=True)
    print_table(rounds)
    return 0


def prepare(asked: argparse.Namespace, folder: Path, scratch: Path) -> Lmms:
    """Writes the rows as lmms-eval reads them, and runs it on two: its caches are warm before it is measured."""
    # Absolute, but not resolved: a virtual environment is known by the path of its link.
    python = os.path.abspath(asked.lmms_python)
    lmms = Lmms(python=python, batch_size=asked.lmms_batch_size, threads=asked.lmms_threads, scratch=scratch)
    writer = [python, str(TASK / "write_rows.py"), str(folder), str(scratch / "lab-rows")]
    run_or_exit(writer, {"PYTHONPATH": str(HERE), **OFFLINE}, scratch)
    versions = "import importlib.metadata as m; print(*(f'{n} {m.version(n)}' for n in %r), sep=', ')"
    names = ("lmms-eval", "transformers", "torch", "datasets", "qwen-vl-utils", "Pillow")
    print(run_or_exit([python, "-c", versions % (names,)], {}, scratch)[1], flush=True)
    run_or_exit(lmms_command(lmms, folder, scratch / "warm", 2, 1), OFFLINE, scratch)
    return lmms


def one_round(folder: Path, asked: argparse.Namespace, lmms: Lmms | None, scratch: Path) -> dict[str, Usage]:
    """Everything once. Exits if an answer of ours differs from the floor's."""
    scratch.mkdir()
    floor, expected = run_floor(folder, scratch / "floor.json", asked.floor_batch_size, asked.limit, PROCESSES)
    found = {"floor": told("floor", floor)}
    ours = [str(ROOT / "run.py"), *run_arguments(folder), "--limit", str(asked.limit), "--replicas", str(PROCESSES)]
    ours += ["--work-dir", str(scratch / "ours")] + (["--batch-size", asked.batch_size] if asked.batch_size else [])
    found["ours"] = told("ours", measure(ours, VLMEVAL_CACHE=str(scratch / "cache")))
    check_answers(scratch / "ours", expected)
    if lmms is not None:
        for name, processes in ((LMMS, 1), (LMMS_TWO, PROCESSES)):
            out = scratch / f"lmms-{processes}"
            usage = run_lmms(lmms, lmms_command(lmms, folder, out, asked.limit, processes))
            found[name] = told(name, usage, same_answers(out, expected))
    return found


def lmms_command(lmms: Lmms, folder: Path, out: Path, limit: int, processes: int) -> list[str]:
    model = f"pretrained={folder / 'tiny-qwen2vl'},device_map=cpu,min_pixels={MIN_PIXELS},max_pixels={MAX_PIXELS}"
    flags = {
        "--model": "qwen2_vl",
        "--model_args": model,
        "--device": "cpu",
        "--batch_size": lmms.batch_size,
        "--tasks": "vlmeval_lab",
        "--include_path": TASK,
        "--limit": limit,
        "--output_path": out,
    }
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"]
    words = [str(word) for flag in flags.items() for word in flag]
    return [lmms.python, "-m", *(launcher if processes > 1 else []), "lmms_eval", *words, "--log_samples"]


def run_lmms(lmms: Lmms, command: list[str]) -> Usage:
    return run_or_exit(command, {"OMP_NUM_THREADS": str(lmms.threads), **OFFLINE}, lmms.scratch)[0]


def run_or_exit(command: list[str], environment: dict[str, str], folder: Path) -> tuple[Usage, str]:
    """Runs it there; its caches go there too. Exits with what it wrote if it fails."""
    usage, written = run_process(command, {"HF_HOME": str(folder / "huggingface"), **environment}, folder)
    if usage.exit_code != 0:
        raise SystemExit(f"{shlex.join(command)}\nended with {usage.exit_code}:\n{written[-2000:]}")
    return usage, written.strip()


def same_answers(out: Path, expected: dict[str, str]) -> int:
    """How many answers of lmms-eval, which strips them, are the floor's; exits if it did not answer every row once."""
    files = list(out.glob("*/*_samples_vlmeval_lab.jsonl"))
    if len(files) != 1:
        raise SystemExit(f"lmms-eval left {len(files)} files of answers in {out}, not 1")
    records = [json.loads(line) for line in files[0].read_text(encoding="utf-8").splitlines()]
    if sorted(record["doc_id"] for record in records) != list(range(len(expected))):
        raise SystemExit(f"lmms-eval wrote {len(records)} answers, not one for each of {len(expected)} rows")
    texts = list(expected.values())
    return sum(record["filtered_resps"] == texts[record["doc_id"]].strip() for record in records)


def told(name: str, usage: Usage, same: int | None = None) -> Usage:
    print(
        f"  {name:<18} {usage.wall_s:7.2f} s {usage.cpu_s:7.2f} s CPU {usage.peak_mib:6.0f} MiB, "
        f"together {usage.together_mib:6.0f} MiB, load {load()}"
        + ("" if same is None else f"; {same} answers the same"),
        flush=True,
    )
    return usage


def load() -> str:
    return f"{os.getloadavg()[0]:.1f}"


def print_table(rounds: list[dict[str, Usage]]) -> None:
    """Medians over the rounds, and the ratios that are asked for, taken within each round."""
    print(f"\nmedians of {len(rounds)} rounds\n\n| | wall s | CPU s | largest process MiB | together MiB |")
    print("|---|---|---|---|---|")
    for name in rounds[0]:
        fields = ("wall_s", "cpu_s", "peak_mib", "together_mib")
        middle = [statistics.median(getattr(found[name], field) for found in rounds) for field in fields]
        print(f"| {name} | {middle[0]:.1f} | {middle[1]:.1f} | {middle[2]:.0f} | {middle[3]:.0f} |")
    print("\n| ours to | target (wall) | wall: median (each round) | CPU: median (each round) |\n|---|---|---|---|")
    for name in [name for name in rounds[0] if name != "ours"]:
        target = {"floor": f"{FLOOR_LIMIT:.2f}", LMMS: f"{LMMS_LIMIT:.2f}", LMMS_TWO: f"{LMMS_LIMIT:.2f}"}[name]
        ratios = [
            [getattr(found["ours"], field) / getattr(found[name], field) for found in rounds]
            for field in ("wall_s", "cpu_s")
        ]
        shown = [f"{statistics.median(each):.3f} ({', '.join(f'{ratio:.3f}' for ratio in each)})" for each in ratios]
        print(f"| {name} | {target} | {shown[0]} | {shown[1]} |")


if __name__ == "__main__":
    sys.exit(main())

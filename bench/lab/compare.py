"""Ours against the floor on the lab: CPU seconds, wall seconds and peak memory of whole processes, in alternation.

    python bench/lab/compare.py [FOLDER] [--runs 3] [--batch-size 1] [--modes all infer]

Each round runs floor.py and then `python run.py`, once a mode, each from nothing to its files: fresh process, fresh
work directory, fresh index. On a shared machine CPU seconds too depend on what the neighbours do, by a fifth and more:
shown are the ratios to the floor of the same round, their median, and the ratio of the least seconds of all rounds,
since neighbours only ever add. `--limit 2` shows what is not per sample. The answers have to be the same, sample by
sample.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from floor import MAX_NEW_TOKENS, MAX_PIXELS, MIN_PIXELS
from tree_memory import TreeMemory

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
QUICK = {
    "--help": ["--help"],
    "unknown flag": ["--modle", "Qwen2-VL-Tiny"],
    "unknown model": ["--model", "Qwen2-VL-Tinny", "--data", "ShapesBench"],
    "unknown benchmark": ["--model", "Qwen2-VL-Tiny", "--data", "ShapesBensh"],
    "no such folder": ["--model", "./no-such-checkpoint", "--data", "ShapesBench"],
}
ROWS = 200
CPU_LIMIT, MEMORY_LIMIT, QUICK_LIMIT_S = 1.08, 1.1, 0.5


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What one process used, as the system counts it."""

    wall_s: float
    cpu_s: float
    peak_mib: float
    """Of the largest process."""
    together_mib: float
    """Of all processes at one time; see tree_memory.py."""
    exit_code: int


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare run.py with floor.py on the lab.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path("lab-data"), help="what make_lab.py made")
    parser.add_argument("--runs", type=int, default=3, help="rounds (3)")
    parser.add_argument("--batch-size", nargs="+", default=["1"], help="of ours, e.g. 1 auto; the floor's is the first")
    parser.add_argument("--floor-batch-size", help="another for the floor; its best is 8 or 16")
    parser.add_argument("--modes", nargs="+", default=["all", "infer"], help="run.py's --mode (all infer)")
    parser.add_argument("--limit", type=int, default=ROWS, metavar="N", help=f"only the first N rows ({ROWS})")
    parser.add_argument("--processes", type=int, default=1, help="of the floor (by torchrun), and replicas of ours (1)")
    arguments = parser.parse_args()
    folder: Path = arguments.folder.resolve()

    rounds = []
    for number in range(arguments.runs):
        rounds.append(one_round(folder, arguments))
        print(f"round {number + 1} of {arguments.runs}, load {os.getloadavg()[0]:.1f}", flush=True)
        for name, usage in rounds[-1].items():
            print(f"  {name:<16} {usage.cpu_s:6.2f} s CPU {usage.wall_s:7.2f} s {usage.peak_mib:7.0f} MiB", flush=True)
    print_table(rounds)
    return print_quick()


def one_round(folder: Path, asked: argparse.Namespace) -> dict[str, Usage]:
    """The floor, then ours in every mode and at every batch size. Exits if an answer differs."""
    processes, limit = asked.processes, asked.limit
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "floor.json"
        shared = ["--limit", str(limit)]
        floor_batch_size = asked.floor_batch_size or asked.batch_size[0]
        used, expected = run_floor(folder, out, floor_batch_size, limit, processes)
        found = {"floor": used}
        for batch_size, mode in itertools.product(asked.batch_size, asked.modes):
            work_dir = Path(scratch) / f"{mode}-{batch_size}"
            command = [str(ROOT / "run.py"), *run_arguments(folder), *shared]
            command += ["--mode", mode, "--batch-size", batch_size, "--work-dir", str(work_dir)]
            command += ["--replicas", str(processes)]
            found[f"ours, {mode}, {batch_size}"] = measure(command, VLMEVAL_CACHE=str(work_dir / "cache"))
            check_answers(work_dir, expected)
    return found


def run_floor(folder: Path, out: Path, batch_size: str, limit: int, processes: int) -> tuple[Usage, dict[str, str]]:
    """What the hand-written loop used, in one process or by torchrun in several, and its answers."""
    floor = [str(HERE / "floor.py"), str(folder), "--limit", str(limit), "--out", str(out), "--batch-size", batch_size]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    usage = measure([*launcher, *floor] if processes > 1 else floor)
    answers: dict[str, str] = json.loads(out.read_text())
    if len(answers) != limit:
        raise SystemExit(f"floor.py gave {len(answers)} answers")
    return usage, answers


def run_arguments(folder: Path) -> list[str]:
    flags = {
        "--model": folder / "tiny-qwen2vl",
        "--data": folder / "TinyMMB.tsv",
        "--min-pixels": MIN_PIXELS,
        "--max-pixels": MAX_PIXELS,
        "--max-tokens": MAX_NEW_TOKENS,
    }
    return [text for flag, value in flags.items() for text in (flag, str(value))]


def measure(command: list[str], **environment: str) -> Usage:
    """Run a Python script in a process of its own. Exits with what it wrote if it fails."""
    usage, written = run_python(command, {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **environment})
    if usage.exit_code != 0:
        raise SystemExit(f"{' '.join(command)}\nended with {usage.exit_code}:\n{written[-2000:]}")
    return usage


def run_python(command: list[str], environment: dict[str, str]) -> tuple[Usage, str]:
    return run_process([sys.executable, *command], environment)


def run_process(command: list[str], environment: dict[str, str], folder: Path = ROOT) -> tuple[Usage, str]:
    """What a process and those below it used, and what they wrote."""
    with tempfile.TemporaryFile() as screen:
        started = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, env={**os.environ, **environment}, stdout=screen, stderr=screen)
        with TreeMemory(process.pid) as tree:
            _, status, used = os.wait4(process.pid, 0)
            wall_s = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        usage = Usage(
            wall_s=wall_s,
            cpu_s=used.ru_utime + used.ru_stime,
            peak_mib=used.ru_maxrss / 1024,
            together_mib=max(tree.peak_mib, used.ru_maxrss / 1024),
            exit_code=process.returncode,
        )
        screen.seek(0)
        return usage, screen.read().decode(errors="replace")


def check_answers(work_dir: Path, expected: dict[str, str]) -> None:
    """Compares the journal, which is what ours scores and resumes from."""
    (journal,) = work_dir.glob("*/T*/*.jsonl")
    records = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
    answers = {str(record["index"]): record.get("prediction", "") for record in records}
    other = [index for index, text in expected.items() if answers.get(index) != text]
    if other or len(answers) != len(expected):
        first = f": sample {other[0]}, {expected[other[0]]!r} -> {answers.get(other[0])!r}" if other else ""
        raise SystemExit(f"{len(other)} of {len(expected)} answers differ from the floor's{first}")


def print_table(rounds: list[dict[str, Usage]]) -> None:
    """Medians, and medians of the ratios to the same round's floor."""
    print(f"\nmedians of {len(rounds)}, all answers the same; load {os.getloadavg()[0]:.1f}\n")
    print(
        "| | CPU s | wall s | wall / floor (each round) | peak MiB | CPU / floor (each round) | least CPU s "
        "| least / least | peak / floor |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for name in rounds[0]:
        used = [usage[name] for usage in rounds]
        cpu = [usage[name].cpu_s / usage["floor"].cpu_s for usage in rounds]
        peak = statistics.median(usage[name].peak_mib / usage["floor"].peak_mib for usage in rounds)
        middle = [statistics.median(getattr(u, field) for u in used) for field in ("cpu_s", "wall_s", "peak_mib")]
        each = ", ".join(f"{ratio:.3f}" for ratio in cpu)
        walls = [usage[name].wall_s / usage["floor"].wall_s for usage in rounds]
        each_wall = ", ".join(f"{ratio:.3f}" for ratio in walls)
        least_s, floor_s = (min(usage[which].cpu_s for usage in rounds) for which in (name, "floor"))
        print(
            f"| {name} | {middle[0]:.1f} | {middle[1]:.1f} | {statistics.median(walls):.3f} ({each_wall}) "
            f"| {middle[2]:.0f} | {statistics.median(cpu):.3f} ({each}) "
            f"| {least_s:.2f} | {least_s / floor_s:.3f} | {peak:.3f} |"
        )
    print(f"\ntargets: CPU at most {CPU_LIMIT}, peak at most {MEMORY_LIMIT}\n")


def print_quick(times: int = 5) -> int:
    """What is answered without a model. Returns 1 if an error of the user's does not end as one."""
    print(f"| without a model | wall s, median of {times} (least) | CPU s | exit code |\n|---|---|---|---|")
    wrong = 0
    for name, command in QUICK.items():
        used = [run_python([str(ROOT / "run.py"), *command], {})[0] for _ in range(times)]
        walls = [usage.wall_s for usage in used]
        cpu_s, code = statistics.median(usage.cpu_s for usage in used), used[0].exit_code
        print(f"| {name} | {statistics.median(walls):.2f} ({min(walls):.2f}) | {cpu_s:.2f} | {code} |")
        wrong += (code == 0) != (name == "--help")
    print(f"\ntarget: under {QUICK_LIMIT_S} s")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())

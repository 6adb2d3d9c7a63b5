"""Real faults, one after the other: processes killed and stopped, a full disk, ranks that do not fit.

    python bench/faults.py                       # every scenario, some 15 minutes
    python bench/faults.py killed-replicas other-tsv --folder /tmp/faults

A scenario runs `run.py` (or torchrun) as users do, on a model of 60 lines that answers after a moment, or on the demo
checkpoint, disturbs it, and checks what is left: every sample exactly once, and final files identical to those of an
undisturbed run with one replica. The last part of what is printed is a table for faults.md.
"""

from __future__ import annotations

import argparse
import base64
import csv
import io
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
ROWS = 200
MODEL = """
import time
from concurrent.futures import ThreadPoolExecutor
from vlmeval.vlm.base import BaseModel

class Steady(BaseModel):
    def __init__(self, wait_s=0.05, skew=1, prepare_s=0.0, ahead=False):
        self.wait_s, self.skew, self.prepare_s, self.ahead = wait_s, skew, prepare_s, ahead
        self.thread = ThreadPoolExecutor(1)

    def settings(self):
        return super().settings()

    def prepares_ahead(self):
        return self.ahead

    def begin_batch(self, batch, task=None):
        if not self.ahead:
            return lambda: (time.sleep(self.prepare_s), self.generate_batch(batch, task))[1]
        prepared = self.thread.submit(time.sleep, self.prepare_s)
        return lambda: (prepared.result(), self.generate_batch(batch, task))[1]

    def generate_inner(self, message, task=None):
        question = message[-1]["value"]
        time.sleep(self.wait_s * (self.skew if "long" in question else 1))
        return "AB"[len(question) % 2]
"""


class Wrong(Exception):
    """The run did not end as it should."""


@dataclass(frozen=True)
class Ended:
    """A command that ended: exit code, what it said, and after how long."""

    code: int
    said: str
    seconds: float


class Site:
    """A folder with a model, a benchmark, and commands to run there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "steady.py").write_text(MODEL)
        self.configure()
        write_rows(folder / "Mini.tsv", ROWS)

    def configure(self, wait_s: float = 0.05, skew: int = 1, prepare_s: float = 0.0, ahead: bool = False) -> None:
        times = {"wait_s": wait_s, "skew": skew, "prepare_s": prepare_s, "ahead": ahead}
        entry = {"class": "steady:Steady", **times}
        (self.folder / "config.json").write_text(json.dumps({"model": {"steady": entry}, "data": {}}))

    @property
    def environment(self) -> dict[str, str]:
        paths = {"VLMEVAL_CACHE": str(self.folder / "cache"), "PYTHONPATH": str(ROOT)}
        return {**os.environ, **paths, "HF_HUB_OFFLINE": "1", "PRED_FORMAT": "tsv", "PYTHONUNBUFFERED": "1"}

    def arguments(self, out: str, data: str = "Mini.tsv") -> list[str]:
        return ["--config", "config.json", "--model", "steady", "--data", data, "--work-dir", out]

    def start(self, command: Sequence[str], **environment: str) -> subprocess.Popen[bytes]:
        self.screen = (self.folder / "screen.txt").open("wb")
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env={**self.environment, **environment},
            stdout=self.screen,
            stderr=self.screen,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    def end(self, process: subprocess.Popen[bytes], within_s: float, since: float | None = None) -> Ended:
        since = since or time.monotonic()
        try:
            code = process.wait(timeout=within_s)
        except subprocess.TimeoutExpired as error:
            process.kill()
            raise Wrong(f"not ended within {within_s:.0f} s\n{self.said()[-1500:]}") from error
        return Ended(code, self.said(), time.monotonic() - since)

    def said(self) -> str:
        return (self.folder / "screen.txt").read_text(errors="replace")

    def run(self, command: Sequence[str], within_s: float = 300, **environment: str) -> Ended:
        started = time.monotonic()
        return self.end(self.start(command, **environment), within_s, started)

    def replicas(self) -> list[int]:
        return self.processes(lambda words: "sys.stdin.readline" in words)

    def ranks(self) -> dict[int, int]:
        found = {}
        for pid in self.processes(lambda words: "run.py" in words and "torch.distributed" not in words):
            environment = (Path("/proc") / str(pid) / "environ").read_text().split("\0")
            found[int(next(e for e in environment if e.startswith("RANK="))[5:])] = pid
        return found

    def processes(self, fits: Callable[[str], bool]) -> list[int]:
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                mine = f"VLMEVAL_CACHE={self.folder / 'cache'}" in (entry / "environ").read_text(errors="replace")
                if mine and fits((entry / "cmdline").read_text()):
                    found.append(int(entry.name))
            except OSError:
                continue
        return sorted(found)

    def journal(self, out: str) -> list[dict[str, object]]:
        lines = []
        for path in (self.folder / out).glob("*/T*/*.jsonl"):
            lines += [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
        return [json.loads(line) for line in lines if line.strip().endswith("}")]

    def wait_for_records(self, out: str, count: int, process: subprocess.Popen[bytes]) -> None:
        while len(self.journal(out)) < count and process.poll() is None:
            time.sleep(0.02)

    def check(self, out: str, like: str = "calm") -> str:
        """Every sample once, and the final files are those of the undisturbed run."""
        indices = [record["index"] for record in self.journal(out)]
        if len(indices) != len(set(indices)):
            raise Wrong(f"{len(indices) - len(set(indices))} samples are recorded twice")
        ours, theirs = final_files(self.folder / out), final_files(self.folder / like)
        if not ours or ours != theirs:
            raise Wrong(f"files differ: {[n for n in {*ours, *theirs} if ours.get(n) != theirs.get(n)]}")
        return f"{len(indices)} samples, each once; {len(ours)} files identical"


def write_rows(path: Path, count: int, changed: int = -1) -> None:
    data = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(data, "PNG")
    image = base64.b64encode(data.getvalue()).decode()
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(["index", "question", "A", "B", "answer", "category", "image"])
        for index in range(count):
            text = "a long one, " + "word " * 400 if index % 50 == 7 else "short"
            words = f"number {index} is {text}{'!' if index == changed else '?'}"
            writer.writerow([index, words, "yes", "no", "AB"[index % 2], "c", image])


def final_files(folder: Path) -> dict[str, str]:
    """What a run leaves, without times, paths and what is said about the process."""
    found = {}
    for path in sorted(folder.glob("*/T*/*_*")):
        text = path.read_text(errors="replace") if path.is_file() else ""
        if path.suffix == ".jsonl":
            records = [{**json.loads(line), "seconds": 0} for line in text.splitlines() if line.endswith("}")]
            text = json.dumps(sorted(records, key=lambda record: str(record["index"])))
        if path.name.endswith("_score.json"):
            score = json.loads(text)
            text = json.dumps([score["protocols"], score["differences"]])
        found[path.name] = text
    return found


def command(site: Site, out: str, replicas: int) -> list[str]:
    return [sys.executable, str(ROOT / "run.py"), *site.arguments(out), "--replicas", str(replicas)]


def torchrun(site: Site, out: str, ranks: int, script: str = "") -> list[str]:
    return [*TORCHRUN, "--nproc-per-node", str(ranks), script or str(ROOT / "run.py"), *site.arguments(out)]


def calm(site: Site) -> None:
    if not (site.folder / "calm").exists() and site.run(command(site, "calm", 1)).code:
        raise Wrong(site.said())


def killed_replicas(site: Site) -> str:
    """kill -9 of a random replica of three every 1 to 3 s."""
    site.configure(wait_s=0.3)
    chance, kills = random.Random(1), 0
    process = site.start(command(site, "killed", 3))
    while process.poll() is None:
        time.sleep(chance.uniform(1, 3))
        if victims := site.replicas():
            os.kill(chance.choice(victims), signal.SIGKILL)
            kills += 1
    ended = site.end(process, 1)
    if ended.code or kills < 5:
        raise Wrong(f"{kills} kills, exit code {ended.code}\n{ended.said[-1500:]}")
    return f"{kills} kills; {site.check('killed')}"


def killed_in_hand(site: Site) -> str:
    """kill -9 of one of three every 3 to 6 s, each with a piece in hand besides the one it answers."""
    site.configure(wait_s=0.3, prepare_s=0.1, ahead=True)
    chance, kills = random.Random(3), 0
    process = site.start(command(site, "in-hand", 3))
    while process.poll() is None:
        time.sleep(chance.uniform(3, 6))  # so that they get ready now and then, whatever else runs here
        if kills < 8 and (victims := site.replicas()):
            os.kill(chance.choice(victims), signal.SIGKILL)
            kills += 1
    ended = site.end(process, 1)
    if ended.code or kills < 3:
        raise Wrong(f"{kills} kills, exit code {ended.code}\n{ended.said[-1500:]}")
    hit = re.findall(r"while answering (sample \d+)", ended.said)
    if unlucky := {one for one in hit if hit.count(one) > 1}:
        raise Wrong(
            f"by chance {', '.join(unlucky)} was being answered at two kills, and so failed as it has to; again"
        )
    return f"{kills} kills; {site.check('in-hand')}"


def killed_on_cards(site: Site) -> str:
    """The demo checkpoint as two replicas of two simulated cards each, kill -9 of one of them three times."""
    tiny = [sys.executable, str(ROOT / "run.py"), "--model", "Qwen2-VL-Tiny", "--data", "ShapesBench", "--limit", "120"]
    tiny += ["--batch-size", "2", "--dtype", "float32"]
    if site.run([*tiny, "--work-dir", "tiny-alone", "--replicas", "1"]).code:
        raise Wrong(site.said()[-1500:])
    process, chance, kills = (
        site.start([*tiny, "--work-dir", "tiny-cards", "--simulate-cards", "4x0.02", "--replicas", "2"]),
        random.Random(4),
        0,
    )
    for after in (10, 40, 70):
        site.wait_for_records("tiny-cards", after, process)
        if (victims := site.replicas()) and process.poll() is None:
            os.kill(chance.choice(victims), signal.SIGKILL)
            kills += 1
    ended = site.end(process, 300)
    if ended.code or kills < 3:
        raise Wrong(f"{kills} kills, exit code {ended.code}\n{ended.said[-1500:]}")
    return f"{kills} kills; {site.check('tiny-cards', like='tiny-alone')}"


def killed_parents(site: Site, times: int = 30) -> str:
    """kill -9 of the parent at random moments, started again with another number of replicas."""
    site.configure(wait_s=0.15)
    chance = random.Random(2)
    for attempt in range(times):
        process = site.start(command(site, "orphans", 1 + (attempt + chance.randrange(3)) % 4))
        time.sleep(chance.uniform(0.2, 5.0))
        process.kill()
        process.wait()
    deadline = time.monotonic() + 10
    while site.replicas() and time.monotonic() < deadline:
        time.sleep(0.05)
    if left := site.replicas():
        raise Wrong(f"replicas are left: {left}")
    before = len(site.journal("orphans"))
    if site.run(command(site, "orphans", 3)).code:
        raise Wrong(site.said()[-1500:])
    return f"{times} kills, {before} of {ROWS} answered by then, no orphan left; {site.check('orphans')}"


def stopped_replica(site: Site) -> str:
    """SIGSTOP of a replica."""
    site.configure(wait_s=0.2)
    process = site.start(command(site, "stopped", 2))
    site.wait_for_records("stopped", 10, process)
    os.kill(site.replicas()[0], signal.SIGSTOP)
    at = time.monotonic()
    while "no sign of life" not in site.said() and process.poll() is None:
        time.sleep(0.1)
    noticed_s = time.monotonic() - at
    ended = site.end(process, 120)
    line = next((line for line in ended.said.splitlines() if "no sign of life" in line), "")
    if ended.code or not line:
        raise Wrong(ended.said[-1500:])
    return f"noticed after {noticed_s:.0f} s ({line.split('; see')[0]}); {site.check('stopped')}"


def full_disk(site: Site) -> str:
    """The disk of the results is full in the middle; more room, the same command again."""
    site.configure(wait_s=0.01)
    out = site.folder / "full"
    out.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24k", "none", str(out)], check=True)
    try:
        ended = site.run(command(site, "full", 2))
        answered = len(site.journal("full"))
        if ended.code != 1 or "disk is full" not in ended.said or "Traceback" in ended.said or not 0 < answered < ROWS:
            raise Wrong(f"exit code {ended.code}, {answered} answered\n{ended.said[-1500:]}")
        subprocess.run(["mount", "-o", "remount,size=8m", str(out)], check=True)
        if site.run(command(site, "full", 3)).code:
            raise Wrong(site.said()[-1500:])
        return f"stopped with one line after {answered}; {site.check('full')}"
    finally:
        subprocess.run(["umount", "-l", str(out)], check=True)


def removed_folder(site: Site) -> str:
    """The folder of the results is removed in the middle."""
    process = site.start(command(site, "removed", 2))
    site.wait_for_records("removed", 40, process)
    (site.folder / "removed").rename(site.folder / "elsewhere")
    ended = site.end(process, 60)
    line = next((line for line in ended.said.splitlines() if "was removed or moved away" in line), "")
    if ended.code != 1 or not line or "Traceback" in ended.said:
        raise Wrong(f"exit code {ended.code}\n{ended.said[-1500:]}")
    (site.folder / "elsewhere").rename(site.folder / "removed")
    if site.run(command(site, "removed", 3)).code:
        raise Wrong(site.said()[-1500:])
    return f"ended after {ended.seconds:.1f} s with one line; put back: {site.check('removed')}"


def ctrl_c(site: Site) -> str:
    """Ctrl-C, and Ctrl-C twice."""
    site.configure(wait_s=3)
    process = site.start(command(site, "ctrl", 2))
    site.wait_for_records("ctrl", 2, process)
    process.send_signal(signal.SIGINT)
    once = site.end(process, 20)
    kept = len(site.journal("ctrl"))
    site.configure(wait_s=30)
    process = site.start(command(site, "ctrl", 2))
    while "is ready" not in site.said() and process.poll() is None:
        time.sleep(0.1)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    at = time.monotonic()
    twice = site.end(process, 20, at)
    if (once.code, twice.code) != (130, 130) or once.seconds > 10 or twice.seconds > 2:
        raise Wrong(f"{once.code} after {once.seconds:.1f} s, {twice.code} after {twice.seconds:.1f} s")
    site.configure(wait_s=0.02)
    site.run(command(site, "ctrl", 2))
    return (
        f"once: ended after {once.seconds:.1f} s with {kept} kept; twice: {twice.seconds:.1f} s; {site.check('ctrl')}"
    )


def torchrun_same(site: Site) -> str:
    """torchrun with 2 and 4 ranks, on the demo checkpoint: the files of one process."""
    told = []
    for ranks in (1, 2, 4):
        arguments = [
            "--model",
            "Qwen2-VL-Tiny",
            "--data",
            "ShapesBench",
            "--limit",
            "120",
            "--work-dir",
            f"tiny{ranks}",
        ]
        launcher = [*TORCHRUN, "--nproc-per-node", str(ranks)] if ranks > 1 else [sys.executable]
        alone = ["--replicas", "1"] if ranks == 1 else []
        ended = site.run([*launcher, str(ROOT / "run.py"), *arguments, *alone], OMP_NUM_THREADS="1")
        if ended.code:
            raise Wrong(ended.said[-2000:])
        if ranks > 1:
            told.append(f"{ranks} ranks: {site.check(f'tiny{ranks}', like='tiny1')}")
    return "; ".join(told)


def torchrun_killed_replica(site: Site) -> str:
    """kill -9 of the process that holds rank 1's model."""
    site.configure(wait_s=0.2)
    process = site.start(torchrun(site, "tr-replica", 2))
    site.wait_for_records("tr-replica", 20, process)
    os.kill(_replica_of(site, 1), signal.SIGKILL)
    ended = site.end(process, 120)
    line = next((line for line in ended.said.splitlines() if line.startswith("rank 1 (process")), "")
    if ended.code or "sample" not in line:
        raise Wrong(ended.said[-2000:])
    return f"{line}; {site.check('tr-replica')}"


def torchrun_killed_rank(site: Site, rank: int = 1) -> str:
    """kill -9 of a rank itself: torchrun then ends all."""
    out = f"tr-rank{rank}"
    site.configure(wait_s=0.2)
    process = site.start(torchrun(site, out, 2))
    site.wait_for_records(out, 20, process)
    os.kill(site.ranks()[rank], signal.SIGKILL)
    ended = site.end(process, 60)
    named = [line for line in ended.said.splitlines() if line.startswith(f"rank {rank}") and "sample" in line]
    if not ended.code or (rank and not named):
        raise Wrong(ended.said[-2500:])
    before = len(site.journal(out))
    if site.run(torchrun(site, out, 2)).code:
        raise Wrong(site.said()[-2000:])
    said = f" ({named[0]})" if named else ""
    return f"all ended after {ended.seconds:.1f} s{said}, {before} kept; again: {site.check(out)}"


def torchrun_killed_rank_0(site: Site) -> str:
    """kill -9 of rank 0, the coordinator."""
    return torchrun_killed_rank(site, 0)


def torchrun_stopped_rank(site: Site) -> str:
    """SIGSTOP of rank 1, and (next) of the process that holds its model."""
    site.configure(wait_s=0.2)
    process = site.start(torchrun(site, "tr-stop", 2))
    site.wait_for_records("tr-stop", 20, process)
    os.kill(site.ranks()[1], signal.SIGSTOP)
    ended = site.end(process, 120)
    if ended.code:
        raise Wrong(ended.said[-2500:])
    woken = "woken" in ended.said
    process = site.start(torchrun(site, "tr-stop2", 2))
    site.wait_for_records("tr-stop2", 20, process)
    os.kill(_replica_of(site, 1), signal.SIGSTOP)
    second = site.end(process, 120)
    if second.code or "no sign of life" not in second.said:
        raise Wrong(second.said[-2500:])
    return (
        f"rank stopped: {site.check('tr-stop')}, woken at the end: {woken}; its model stopped: {site.check('tr-stop2')}"
    )


def torchrun_stopped_rank_0(site: Site) -> str:
    """SIGSTOP of rank 0, the coordinator: the other ranks end, and torchrun all."""
    site.configure(wait_s=0.2)
    process = site.start(torchrun(site, "tr-stop0", 2))
    site.wait_for_records("tr-stop0", 20, process)
    os.kill(site.ranks()[0], signal.SIGSTOP)
    at = time.monotonic()
    while 1 in site.ranks():
        time.sleep(0.1)
    others_s = time.monotonic() - at
    ended = site.end(process, 120, at)
    line = next((line for line in ended.said.splitlines() if "rank 1: rank 0" in line), "")
    if not ended.code or "sample" not in line:
        raise Wrong(ended.said[-2500:])
    if site.run(torchrun(site, "tr-stop0", 2)).code:
        raise Wrong(site.said()[-2000:])
    told = f"rank 1 ended after {others_s:.0f} s ({line}), all after {ended.seconds:.0f} s"
    return f"{told}; again: {site.check('tr-stop0')}"


def torchrun_stopped_early(site: Site) -> str:
    """SIGSTOP of rank 1 as soon as it is there: before its replica has called."""
    process = site.start(torchrun(site, "tr-early", 2))
    while 1 not in site.ranks() and process.poll() is None:
        time.sleep(0.01)
    os.kill(site.ranks()[1], signal.SIGSTOP)
    ended = site.end(process, 150)
    if ended.code or "woken" not in ended.said:
        raise Wrong(ended.said[-2500:])
    return f"ended after {ended.seconds:.0f} s, rank 1 woken at the end; {site.check('tr-early')}"


def torchrun_ctrl_c(site: Site) -> str:
    """Ctrl-C for torchrun, once."""
    site.configure(wait_s=2)
    process = site.start(torchrun(site, "tr-ctrl", 2))
    site.wait_for_records("tr-ctrl", 3, process)
    at, before = time.monotonic(), len(site.journal("tr-ctrl"))
    process.send_signal(signal.SIGINT)
    ended = site.end(process, 40, at)
    kept = len(site.journal("tr-ctrl"))
    if not ended.code or ended.seconds > 25 or kept <= before or site.replicas():
        raise Wrong(f"{ended.seconds:.1f} s, {before} and {kept} answered\n{ended.said[-2000:]}")
    site.configure(wait_s=0.02)
    site.run(torchrun(site, "tr-ctrl", 2))
    return f"ended after {ended.seconds:.1f} s, {kept - before} in flight finished; {site.check('tr-ctrl')}"


def torchrun_ctrl_c_twice(site: Site) -> str:
    """Ctrl-C in torchrun's terminal (it and the ranks hear it) while answers take 60 s, and again after 2 s."""
    site.configure(wait_s=0.02)
    process = site.start(torchrun(site, "tr-ctrl2", 2))
    site.wait_for_records("tr-ctrl2", 20, process)
    process.send_signal(signal.SIGINT)
    site.end(process, 60)
    kept = len(site.journal("tr-ctrl2"))
    site.configure(wait_s=60)
    process = site.start(torchrun(site, "tr-ctrl2", 2))
    while len(site.replicas()) < 2 and process.poll() is None:
        time.sleep(0.1)
    while "is ready" not in site.said() and process.poll() is None:
        time.sleep(0.1)
    time.sleep(3)
    for wait_s in (2, 0):
        for pid in (process.pid, *site.ranks().values()):
            os.kill(pid, signal.SIGINT)
        time.sleep(wait_s)
    ended = site.end(process, 60, time.monotonic())
    left = site.replicas()
    if not ended.code or ended.seconds > 40 or left or len(site.journal("tr-ctrl2")) != kept:
        raise Wrong(f"{ended.seconds:.1f} s, left {left}\n{ended.said[-2000:]}")
    site.configure(wait_s=0.02)
    site.run(torchrun(site, "tr-ctrl2", 2))
    return f"ended {ended.seconds:.1f} s after the second; {site.check('tr-ctrl2')}"


def busy_port(site: Site) -> str:
    """MASTER_PORT is taken: by hand, and under torchrun."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        by_hand = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        hand = site.run([sys.executable, str(ROOT / "run.py"), *site.arguments("port")], 60, **by_hand)
        line = next((line for line in hand.said.splitlines() if "vlmeval: error" in line), "")
        if not hand.code or port not in line:
            raise Wrong(hand.said[-2000:])
        launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", port]
        agent = site.run([*launcher, str(ROOT / "run.py"), *site.arguments("port")], 60)
        if not agent.code:
            raise Wrong("torchrun took a busy port")
    its_own = next((line for line in agent.said.splitlines() if "EADDRINUSE" in line), "")
    by_itself = f"torchrun by itself, after {agent.seconds:.0f} s: {its_own[-160:]}"
    return f"by hand, after {hand.seconds:.1f} s: {line}; {by_itself}"


def other_tsv(site: Site) -> str:
    """Rank 1 has another file under the benchmark's name."""
    other = site.folder / "other"
    other.mkdir(exist_ok=True)
    write_rows(other / "Mini.tsv", ROWS, changed=5)
    return _odd_rank(site, "tsv", f"sys.argv[sys.argv.index('--data') + 1] = {str(other / 'Mini.tsv')!r}", "md5")


def other_version(site: Site) -> str:
    """Rank 1 finds another version of transformers."""
    info = site.folder / "newer" / "transformers-99.0.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: transformers\nVersion: 99.0\n")
    return _odd_rank(site, "version", f"sys.path.insert(0, {str(info.parent)!r})", "transformers")


def _odd_rank(site: Site, out: str, change: str, told: str) -> str:
    script = site.folder / f"odd_{out}.py"
    script.write_text(
        "import os, sys\nfrom vlmeval.cli.main import main\n"
        f"if os.environ['RANK'] == '1':\n    {change}\nsys.exit(main())\n"
    )
    site.configure(wait_s=0.2)
    ended = site.run(torchrun(site, f"odd-{out}", 2, str(script)), 60)
    line = next((line for line in ended.said.splitlines() if "vlmeval: error: rank 1 is refused" in line), "")
    if not ended.code or told not in line:
        raise Wrong(ended.said[-2500:])
    return f"after {ended.seconds:.1f} s: {line.removeprefix('vlmeval: error: ')}"


def _replica_of(site: Site, rank: int) -> int:
    parent = site.ranks()[rank]
    for pid in site.replicas():
        if int((Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
            return pid
    raise Wrong(f"rank {rank} has no replica")


def makespan(site: Site) -> str:
    """1 sample in 50 takes 50 times as long; eight replicas that sleep."""
    unit_s, replicas = 0.1, 8
    site.configure(wait_s=unit_s, skew=50)
    process = site.start(command(site, "skew", replicas))
    while "is ready" not in site.said() and process.poll() is None:
        time.sleep(0.01)
    started = time.monotonic()
    while len(site.journal("skew")) < ROWS and process.poll() is None:
        time.sleep(0.01)
    spent_s = time.monotonic() - started
    site.end(process, 60)
    costs = [50 if index % 50 == 7 else 1 for index in range(ROWS)]
    bound_s = unit_s * max(sum(costs) / replicas, max(costs))
    fixed_s = unit_s * max(sum(costs[rank::replicas]) for rank in range(replicas))
    return f"{spent_s:.2f} s; bound {bound_s:.2f} s ({spent_s / bound_s:.3f}); fixed shares would take {fixed_s:.2f} s"


def ahead(site: Site) -> str:
    """The host prepares 0.1 s, the card answers 0.1 s: two replicas with nothing and with one piece in hand."""
    spent_s = {}
    for in_hand in (False, True):
        site.configure(wait_s=0.1, prepare_s=0.1, ahead=in_hand)
        out = f"ahead-{in_hand}"
        process = site.start(command(site, out, 2))
        while "is ready" not in site.said() and process.poll() is None:
            time.sleep(0.01)
        started = time.monotonic()
        while len(site.journal(out)) < ROWS and process.poll() is None:
            time.sleep(0.02)
        spent_s[in_hand] = time.monotonic() - started
        site.end(process, 60)
    bound_s = 0.1 * ROWS / 2
    told = f"{spent_s[False]:.2f} s, {spent_s[True]:.2f} s; bound of the cards alone {bound_s:.2f} s"
    return f"{told} ({spent_s[True] / bound_s:.3f}); {site.check('ahead-True', like='ahead-False')}"


SCENARIOS: dict[str, Callable[[Site], str]] = {
    function.__name__.replace("_", "-"): function
    for function in (
        killed_replicas, killed_in_hand, killed_on_cards, killed_parents, stopped_replica, full_disk, removed_folder,
        ctrl_c, makespan, ahead, torchrun_same,
        torchrun_killed_replica, torchrun_killed_rank, torchrun_killed_rank_0, torchrun_stopped_rank,
        torchrun_stopped_rank_0, torchrun_stopped_early, torchrun_ctrl_c, torchrun_ctrl_c_twice, busy_port, other_tsv,
        other_version,
    )
}  # fmt: skip


@contextmanager
def working_folder(given: Path | None) -> Iterator[Path]:
    if given is not None:
        yield given.resolve()
        return
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def main() -> int:
    parser = argparse.ArgumentParser(description="Disturb runs, and check what is left.")
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(SCENARIOS))
    parser.add_argument("--folder", type=Path, help="work here and leave it (a temporary folder)")
    arguments = parser.parse_args()
    rows, wrong = [], 0
    with working_folder(arguments.folder) as folder:
        for name in arguments.scenarios or SCENARIOS:
            site, started = Site(folder / name), time.monotonic()
            try:
                calm(site)
                found = SCENARIOS[name](site)
            except (Wrong, OSError, subprocess.SubprocessError) as error:
                found, wrong = f"WRONG: {error}", wrong + 1
            print(f"{name}, {time.monotonic() - started:.0f} s, load {os.getloadavg()[0]:.1f}: {found}", flush=True)
            rows.append(f"| {name} | {SCENARIOS[name].__doc__} | {found.splitlines()[0]} |")
    print("\n| scenario | what is done | what is left |\n|---|---|---|", *rows, sep="\n")
    return wrong


if __name__ == "__main__":
    sys.exit(main())

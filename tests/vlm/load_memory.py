"""How much memory loading a checkpoint takes, measured in a process of its own; prints it as JSON.

`python -m tests.vlm.load_memory BIG TINY`: TINY, of the same family, is loaded first, so that imports are not counted.
"""

from __future__ import annotations

import gc
import json
import sys
import threading
from pathlib import Path

from vlmeval.config import resolve_model
from vlmeval.vlm.transformers_model import TransformersModel


def resident(key: str) -> int:
    """A line of /proc/self/status in bytes: VmRSS (all pages), VmHWM (their peak), RssAnon (without mapped files)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith(f"{key}:")).split()[1]) * 1024


class PeakAnonymous:
    """The most anonymous memory while it is open, sampled every millisecond."""

    def __enter__(self) -> PeakAnonymous:
        self.peak, self._stop = resident("RssAnon"), threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()
        return self

    def _sample(self) -> None:
        while not self._stop.wait(0.001):
            self.peak = max(self.peak, resident("RssAnon"))

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def load(folder: str, dtype: str) -> tuple[TransformersModel, int]:
    """The loaded model and the size of its weights in memory."""
    model = resolve_model(folder)(dtype=dtype)
    assert isinstance(model, TransformersModel)
    model.load()
    return model, sum(parameter.nbytes for parameter in model.model.parameters())


def main(big: str, tiny: str) -> None:
    """Load in the files' own type and read every weight; then load in another type."""
    load(tiny, "float32")
    gc.collect()
    before = resident("VmRSS")
    model, weight_bytes = load(big, "float32")
    for parameter in model.model.parameters():
        parameter.sum()
    peak_bytes = resident("VmHWM") - before
    del model, parameter
    gc.collect()
    before = resident("RssAnon")
    with PeakAnonymous() as anonymous:
        _, converted_bytes = load(big, "bfloat16")
    print(json.dumps({
        "weight_bytes": weight_bytes,
        "peak_bytes": peak_bytes,
        "converted_bytes": converted_bytes,
        "converted_peak_bytes": anonymous.peak - before,
    }))  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])

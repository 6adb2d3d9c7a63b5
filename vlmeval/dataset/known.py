"""The benchmarks known by name, as data: one line each, from `benchmarks.md`. Nothing is derived from a name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vlmeval.types import TaskType

BASE_URL = "https://opencompass.openxlab.space/utils"
DEMO_FOLDER = Path(__file__).resolve().parent.parent / "demo"

CIRCULAR = frozenset({"circular"})
PLAIN: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """What is known about a benchmark. `url_path` is below the base URL or a mirror; empty if it is in the package.

    `scorable_split` names the benchmark to score instead, where the answers of this one are not public.
    """

    name: str
    class_name: str
    type: TaskType
    url_path: str = ""
    md5: str = ""
    traits: frozenset[str] = PLAIN
    scorable_split: str = ""
    full_file: bool = False
    """The whole benchmark in a file only its makers have: the scorable split stands in where it cannot be had."""

    @property
    def answer_note(self) -> str:
        """What to say where the file or its answers cannot be had."""
        return f"its answers are not public, {self.scorable_split} is the scorable split" if self.scorable_split else ""

    @property
    def packaged(self) -> bool:
        return not self.url_path

    def path(self, data_root: Path) -> Path:
        """Where its TSV is, or will be once fetched."""
        return (DEMO_FOLDER if self.packaged else data_root) / f"{self.name}.tsv"


def _mcq(
    folder: str, name: str, md5: str, traits: frozenset[str] = PLAIN, scorable_split: str = "", full_file: bool = False
) -> DatasetSpec:
    return DatasetSpec(
        name=name,
        class_name="ImageMCQDataset",
        type="MCQ",
        url_path=f"{folder}/{name}.tsv" if folder else "",
        md5=md5,
        traits=traits,
        scorable_split=scorable_split,
        full_file=full_file,
    )


_MMBENCH = "benchmarks/MMBench"

supported_datasets: dict[str, DatasetSpec] = {
    spec.name: spec
    for spec in (
        _mcq("", "ShapesBench", "", CIRCULAR),
        _mcq(_MMBENCH, "MMBench_DEV_EN", "b6caf1133a01c6bb705cf753bb527ed8", CIRCULAR),
        _mcq(_MMBENCH, "MMBench_TEST_EN", "6939fadb0ce626fefc0bdc9c64efc528", CIRCULAR, "MMBench_DEV_EN"),
        _mcq(_MMBENCH, "MMBench_DEV_CN", "08b8fc3324a5ed74155350f57be69fbd", CIRCULAR),
        _mcq(_MMBENCH, "MMBench_TEST_CN", "7e1239baf0ee4c8b513e19705a0f317e", CIRCULAR, "MMBench_DEV_CN"),
        _mcq(_MMBENCH, "MMBench", "4115aea3383f3dd0083be6a633e0f820", CIRCULAR, "MMBench_DEV_EN", full_file=True),
        _mcq(_MMBENCH, "MMBench_CN", "2e053ffc90ea598b1feae13c36dc13ee", CIRCULAR, "MMBench_DEV_CN", full_file=True),
        _mcq(_MMBENCH, "MMBench_DEV_EN_V11", "30c05be8f2f347a50be25aa067248184", CIRCULAR),
        _mcq(_MMBENCH, "MMBench_TEST_EN_V11", "8d1a704e791df6f5d9fb3ef782b65365", CIRCULAR, "MMBench_DEV_EN_V11"),
        _mcq(_MMBENCH, "MMBench_DEV_CN_V11", "593f9b5f6bea453d870a798b34ae4f37", CIRCULAR),
        _mcq(_MMBENCH, "MMBench_TEST_CN_V11", "156e6569f9547afb16603eca16e85373", CIRCULAR, "MMBench_DEV_CN_V11"),
        _mcq(
            _MMBENCH, "MMBench_V11", "b9276414f57af1308dcc4d0cd9b42e7c", CIRCULAR, "MMBench_DEV_EN_V11", full_file=True
        ),
        _mcq(
            _MMBENCH,
            "MMBench_CN_V11",
            "95f6980dd1b4de38e3cbffe0305a3f25",
            CIRCULAR,
            "MMBench_DEV_CN_V11",
            full_file=True,
        ),
        _mcq("VLMEval", "CCBench", "f5dde47f24dc5a6fb6e595b409b466ac", CIRCULAR),
        _mcq("VLMEval", "MMStar", "e1ecd2140806c1b1bbf54b43372efb9e"),
    )
}


def traits_of_unknown(name: str) -> frozenset[str]:
    """Upstream's rule on names, for a TSV that is in no table: applied once, when it is registered."""
    lower = name.lower()
    return CIRCULAR if any(part in lower for part in ("mmbench", "ccbench", "circular", "mmcr")) else PLAIN

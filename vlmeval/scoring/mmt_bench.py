"""MMT-Bench: multiple choice over 162 tasks in 32 groups.

Source: VLMEvalKit's report of MMT-Bench (August 2026), after https://arxiv.org/abs/2404.16006. `Overall` and tasks
count rows; a group is the unweighted mean over its tasks. A row `ALL` over all splits follows those of the splits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from vlmeval.scoring.aggregate import NO_SPLIT
from vlmeval.scoring.interval import statistic_interval
from vlmeval.scoring.multiple_choice import score as score_choices
from vlmeval.scoring.rows import Answers
from vlmeval.types import Metric, Sample, Score, ScoreTable

if TYPE_CHECKING:
    import numpy as np

ALL = "ALL"
GROUPS: Mapping[str, str] = {
    "visual_recognition": "VR", "localization": "Loc", "ocr": "OCR", "counting": "Count", "hallucination": "HLN",
    "image_retrieval": "IR", "threed": "3D", "visual_captioning": "VC", "visual_grounding": "VG",
    "doc_understanding": "DU", "action_recognition": "AR", "pixel_level_perception": "PLP",
    "image-to-image_translation": "I2IT", "relation_reasoning": "RR", "intelligence_quotient_test": "IQT",
    "emotion": "Emo", "visual_illusion": "VI", "meme_understanding": "MemU", "visual_prompt_understanding": "VPU",
    "anomaly_detection": "AND", "keypoint_detection": "KD", "visual_commonsense_reasoning": "VCR",
    "image_evaluation_judgement": "IEJ", "multiple_image_analysis": "MIA", "cross_image_matching": "CIM",
    "temporal_understanding": "TU", "visual_code": "VP", "medical_understanding": "MedU",
    "autonomous_driving": "AUD", "discipline_knowledge_reasoning": "DKR", "embodied_ai": "EA", "gui_navigation": "GN",
}  # fmt: skip
"""What the groups are called in the table, in its order."""

_Hit = tuple[Sample, float]


def score(answers: Answers) -> Score:
    """The usual score of its rows, with its groups averaged over tasks."""
    base = score_choices(answers)
    samples = {sample.index: sample for sample in answers.samples}
    hits = [(samples[row.index], row.hit) for row in base.rows]
    groups = _groups(hits)
    metrics = [metric for metric in base.metrics if metric.level != "l2-category"]
    splits = {sample.split for sample, _ in hits}
    only = ALL if len(splits) > 1 else "".join(splits) or NO_SPLIT
    metrics[1:1] = [_group_metric(answers, hits, name, tasks, only) for name, tasks in groups.items()]
    if len(splits) > 1:
        whole = score_choices(replace(answers, samples=[replace(s, split="") for s in answers.samples]))
        metrics.insert(0, replace(whole.overall, split=ALL))
    note = "groups are unweighted means over their tasks, over all splits"
    return replace(base, metrics=tuple(metrics), table=_table(hits, groups), notes=(*base.notes, note))


def _groups(hits: Sequence[_Hit]) -> dict[str, list[str]]:
    """The tasks of each group, groups in the table's order, unknown ones after them."""
    found: dict[str, dict[str, None]] = {}
    for sample, _ in hits:
        if sample.l2_category:
            found.setdefault(sample.l2_category, {})[sample.category] = None
    known = [name for name in GROUPS if name in found]
    return {name: list(found[name]) for name in (*known, *sorted(found.keys() - GROUPS.keys()))}


def _table(hits: Sequence[_Hit], groups: Mapping[str, Sequence[str]]) -> ScoreTable:
    """Upstream's columns: split, Overall, the groups, the sorted tasks."""
    tasks = sorted({sample.category for sample, _ in hits} - {""})
    rows = []
    for split in (*sorted({sample.split for sample, _ in hits}), None):
        mine = [(sample, hit) for sample, hit in hits if split is None or sample.split == split]
        by_task: dict[str, list[float]] = {}
        for sample, hit in mine:
            by_task.setdefault(sample.category, []).append(hit)
        means = {task: sum(found) / len(found) for task, found in by_task.items()}
        overall = sum(hit for _, hit in mine) / len(mine) if mine else 0.0
        cells = [_mean_of(means, group) for group in groups.values()]
        rows.append(
            (ALL if split is None else split or NO_SPLIT, overall, *cells, *(means.get(task) for task in tasks))
        )
    columns = ("split", "Overall", *(GROUPS.get(group, group) for group in groups), *tasks)
    return ScoreTable(columns=columns, rows=tuple(rows))


def _mean_of(means: Mapping[str, float], tasks: Sequence[str]) -> float | None:
    """Nothing where a split lacks one of the tasks."""
    return sum(means[task] for task in tasks) / len(tasks) if all(task in means for task in tasks) else None


def _group_metric(answers: Answers, hits: Sequence[_Hit], group: str, tasks: Sequence[str], split: str) -> Metric:
    mine = [(sample, hit) for sample, hit in hits if sample.category in tasks]
    parts, by_task = [], dict.fromkeys(tasks, (0.0, 0))
    for sample, hit in mine:
        at = 2 * tasks.index(sample.category)
        line = [0.0] * (2 * len(tasks))
        line[at : at + 2] = [hit, 1.0]
        parts.append(line)
        right, count = by_task[sample.category]
        by_task[sample.category] = (right + hit, count + 1)

    def mean(totals: np.ndarray) -> np.ndarray:
        means: np.ndarray = (totals[:, 0::2] / totals[:, 1::2]).mean(axis=1)
        return means

    return Metric(
        group=GROUPS.get(group, group),
        value=sum(right / count for right, count in by_task.values()) / len(tasks),
        count=len(mine),
        split=split,
        interval=statistic_interval(parts, [answers.cluster(sample) for sample, _ in mine], mean, seed=answers.seed),
        level="l2-category",
    )

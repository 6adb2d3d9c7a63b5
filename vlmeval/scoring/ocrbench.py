"""OCRBench: is a right answer found in what the model says. 1,000 questions, one point each.

Source: VLMEvalKit's evaluation of OCRBench (August 2026), after https://arxiv.org/abs/2305.07895: both in small
letters, stripped, newlines as blanks; for handwritten mathematical expressions the case is kept and every blank goes.
Substrings: `on` is found in `none`, and an empty ground truth in everything.

`exact` asks for whole words: a ground truth that begins (or ends) with a letter or digit may not continue there.
Full-width forms and invisible characters are written plainly, white space is collapsed, an empty ground truth is found
nowhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from vlmeval.scoring.exact_text import after_thinking
from vlmeval.scoring.ground_truths import ground_truths
from vlmeval.scoring.interval import clustered_interval
from vlmeval.scoring.rows import Answers, Reading, Row, make_score, read_rows
from vlmeval.scoring.short_answer import spelled_plainly
from vlmeval.types import Level, Metric, Sample, Score, ScoreTable

MATHS = "Handwritten Mathematical Expression Recognition"
PARTS: Mapping[str, tuple[str, ...]] = {
    "Text Recognition": (
        "Regular Text Recognition",
        "Irregular Text Recognition",
        "Artistic Text Recognition",
        "Handwriting Recognition",
        "Digit String Recognition",
        "Non-Semantic Text Recognition",
    ),
    "Scene Text-centric VQA": ("Scene Text-centric VQA",),
    "Doc-oriented VQA": ("Doc-oriented VQA",),
    "Key Information Extraction": ("Key Information Extraction",),
    MATHS: (MATHS,),
}
FINAL, FINAL_NORM = "Final Score", "Final Score Norm"


def score(answers: Answers) -> Score:
    """Points in all, of the five parts, and of the categories of text recognition."""
    read = read_rows(answers, {"vlmevalkit": _read_vlmevalkit, "exact": _read_exact})
    known = {category for categories in PARTS.values() for category in categories}
    rows = [row for row in read.counted if row.sample.category in known]
    final = _points(answers, rows, FINAL, "overall")
    parts = [_points(answers, _of(rows, categories), name, "l2-category") for name, categories in PARTS.items()]
    single = [_points(answers, _of(rows, (name,)), name, "category") for name in PARTS["Text Recognition"]]
    others = len(read.counted) - len(rows)
    table = {metric.group: int(metric.value) for metric in (*parts, final)}
    return make_score(
        answers,
        read,
        metric="points",
        unit="points",
        metrics=[final, *(metric for metric in (*parts, *single) if metric.count)],
        layout="ocrbench",
        table=ScoreTable(columns=(*table, FINAL_NORM), rows=((*table.values(), final.value / 10),)),
        notes=[f"{others} rows are of a category that OCRBench does not have: not counted"] if others else [],
    )


def found_as_upstream(said: str, truths: Sequence[str], category: str) -> bool:
    """Whether a ground truth is a substring of the answer."""
    if category == MATHS:
        text = said.strip().replace("\n", " ").replace(" ", "")
        return any(truth.strip().replace("\n", " ").replace(" ", "") in text for truth in truths)
    text = said.lower().strip().replace("\n", " ")
    return any(truth.lower().strip().replace("\n", " ") in text for truth in truths)


def found_as_words(said: str, truths: Sequence[str], category: str) -> bool:
    """Whether a ground truth stands in the answer as whole words; formulas have none, so there anywhere."""
    text = _plain(said, category)
    found = [_plain(truth, category) for truth in truths]
    return any(truth in text if category == MATHS else _stands_in(truth, text) for truth in found if truth)


def _plain(text: str, category: str) -> str:
    words = spelled_plainly(text).split()
    return "".join(words) if category == MATHS else " ".join(words).lower()


def _stands_in(truth: str, text: str) -> bool:
    """Chinese and other scripts without blanks between words have no whole words to ask for."""
    before = r"(?<![a-z0-9])" if re.match(r"[a-z0-9]", truth) else ""
    after = r"(?![a-z0-9])" if re.search(r"[a-z0-9]$", truth) else ""
    return re.search(before + re.escape(truth) + after, text) is not None


def _read_vlmevalkit(sample: Sample, text: str) -> Reading:
    truths = ground_truths(sample.answer)
    hit = found_as_upstream(text, truths, sample.category)
    details = {"eval_gt": list(truths), "eval_pred": text, "eval_match": [hit]}
    return Reading(text, float(hit), "found" if hit else "not found", details)


def _read_exact(sample: Sample, text: str) -> Reading:
    said = after_thinking(text)
    if not said.strip():
        return Reading(None, 0.0, "no answer")
    hit = found_as_words(said, ground_truths(sample.answer), sample.category)
    return Reading(said, float(hit), "found" if hit else "not found")


def _of(rows: Sequence[Row], categories: Sequence[str]) -> list[Row]:
    return [row for row in rows if row.sample.category in categories]


def _points(answers: Answers, rows: Sequence[Row], group: str, level: Level) -> Metric:
    hits = [row.hit for row in rows]
    share = clustered_interval(hits, [answers.cluster(row.sample) for row in rows], seed=answers.seed)
    interval = None if share is None else (share[0] * len(hits), share[1] * len(hits))
    return Metric(group=group, value=sum(hits), count=len(hits), interval=interval, level=level)

"""MME: two questions on every image. A category is worth accuracy * 100 plus the share of images with both right * 100.

Source: VLMEvalKit's rating of MME (August 2026), after https://arxiv.org/abs/2306.13394. Perception is the sum of 10
categories, reasoning (cognition in the paper) of 4; of a whole image the first two rows count. Upstream stops with an
error where a category or the second row of an image is not there; here the number says over what it was taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from vlmeval.scoring.interval import statistic_interval
from vlmeval.scoring.rows import Answers, Row, make_score, read_rows
from vlmeval.scoring.yes_no import READERS, odd_answers
from vlmeval.types import Level, Metric, Score, ScoreTable

if TYPE_CHECKING:
    import numpy as np

GROUPS: Mapping[str, tuple[str, ...]] = {
    "perception": (
        "OCR", "artwork", "celebrity", "color", "count", "existence", "landmark", "position", "posters", "scene",
    ),
    "reasoning": ("code_reasoning", "commonsense_reasoning", "numerical_calculation", "text_translation"),
}  # fmt: skip


def score(answers: Answers) -> Score:
    """Perception, reasoning and the categories, in points: 200 a category at most."""
    read = read_rows(answers, READERS)
    names = list(dict.fromkeys(row.sample.category for row in read.counted))
    images = _images(read.counted)
    parts, clusters = _parts(images, names), [image for _, image in images]

    def metric(group: str, members: Sequence[str], level: Level) -> Metric:
        places = [names.index(name) for name in members]
        return Metric(
            group=group,
            value=sum((_points(images, name) for name in members), start=0.0),
            count=sum(len(rows) for (name, _), rows in images.items() if name in members),
            interval=statistic_interval(parts, clusters, lambda totals: _total(totals, places), seed=answers.seed),
            level=level,
        )

    there = {group: [name for name in wanted if name in names] for group, wanted in GROUPS.items()}
    summed = [metric(group, members, "overall") for group, members in there.items()]
    categories = [metric(name, [name], "category") for name in names]
    overall = metric("Overall", [name for members in there.values() for name in members], "overall")
    shown = (*summed, *categories)
    return make_score(
        answers,
        read,
        metric="perception + reasoning",
        unit="points",
        metrics=(overall, *shown),
        layout="yes_no",
        table=ScoreTable(columns=tuple(m.group for m in shown), rows=(tuple(m.value for m in shown),)),
        notes=(
            "points; the first number is perception + reasoning",
            *_notes(images, there, names),
            *odd_answers(read.rows, answers.protocol),
        ),
    )


def _images(rows: Sequence[Row]) -> dict[tuple[str, str], list[float]]:
    """The hits of each image of a category, in file order."""
    images: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        path = row.sample.fields.get("image_path", "") or f"row {row.sample.index}"
        images.setdefault((row.sample.category, path), []).append(row.hit)
    return images


def _both(hits: Sequence[float]) -> float:
    return hits[0] * hits[1] if len(hits) > 1 else hits[0]


def _points(images: Mapping[tuple[str, str], Sequence[float]], category: str) -> float:
    """acc * 100 + acc+ * 100 of a category, added up as upstream does."""
    import numpy as np

    mine = [hits for (name, _), hits in images.items() if name == category]
    every = [hit for hits in mine for hit in hits]
    return float(np.mean(every) * 100 + np.mean([_both(hits) for hits in mine]) * 100)


def _parts(images: Mapping[tuple[str, str], Sequence[float]], names: Sequence[str]) -> list[list[float]]:
    """One line an image: for each category its hits, rows, pairs right and pairs."""
    lines = []
    for (name, _), hits in images.items():
        line = [0.0] * (4 * len(names))
        at = 4 * names.index(name)
        line[at : at + 4] = [sum(hits), len(hits), _both(hits), 1.0]
        lines.append(line)
    return lines


def _total(totals: np.ndarray, places: Sequence[int]) -> np.ndarray:
    """The points of the categories at `places` in every draw; nan where a draw has none of one."""
    import numpy as np

    points = np.zeros(len(totals))
    for at in places:
        hits, rows, right, pairs = (totals[:, 4 * at + part] for part in range(4))
        points = points + 100 * (hits / rows) + 100 * (right / pairs)
    return points


def _notes(
    images: Mapping[tuple[str, str], Sequence[float]], there: Mapping[str, Sequence[str]], names: Sequence[str]
) -> list[str]:
    notes = []
    for group, wanted in GROUPS.items():
        absent = [name for name in wanted if name not in there[group]]
        if absent:
            notes.append(
                f"{group} is the sum of {len(there[group])} of {len(wanted)} categories, without {', '.join(absent)}"
            )
    others = [name for name in names if not any(name in wanted for wanted in GROUPS.values())]
    if others:
        notes.append(f"categories that are in no sum: {', '.join(map(repr, others))}")
    odd = sum(len(hits) != 2 for hits in images.values())
    if odd:
        notes.append(f"{odd} images have other than two rows: of more the first two count for acc+, a single one alone")
    return notes

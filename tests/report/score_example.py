"""A small scored run the report's tests share."""

from __future__ import annotations

from vlmeval.scoring import score_multiple_choice
from vlmeval.types import Index, Prediction, Sample, Score

COLUMNS = ["index", "image", "question", "A", "B", "answer", "category", "l2-category"]


def sample(
    index: int, answer: str, category: str = "动作识别", l2: str = "coarse_perception", split: str = ""
) -> Sample:
    cells = [str(index), f"q{index}", "None", "007", answer, category, l2]
    fields = dict(zip((c for c in COLUMNS if c != "image"), cells, strict=True))
    return Sample(
        index=index,
        question=f"q{index}",
        options={"A": "None", "B": "007"},
        answer=answer,
        category=category,
        l2_category=l2,
        split=split,
        fields=fields,
    )


def ok(index: Index, text: str, thinking: str = "") -> Prediction:
    return Prediction(index=index, status="ok", fingerprint="f", prediction=text, thinking=thinking)


def failed(index: Index, error: str) -> Prediction:
    return Prediction(index=index, status="failed", fingerprint="f", error=error)


SAMPLES = [sample(3, "A"), sample(1, "A"), sample(1_000_001, "B"), sample(2, "B", "rest", "zebra"), sample(4, "A")]
PREDICTIONS: dict[Index, Prediction] = {
    3: failed(3, "image is broken"),
    1: ok(1, "A"),
    1_000_001: ok(1_000_001, "（B）"),
    2: ok(2, "=cmd|x"),
}


def scores(circular: bool = False) -> dict[str, Score]:
    return {
        name: score_multiple_choice(
            "Toy", SAMPLES, PREDICTIONS, protocol=name, circular=circular, l2_short_names={"coarse_perception": "CP"}
        )
        for name in ("vlmevalkit", "exact")
    }

"""What lab.yaml asks of Python: the least that can be called a score."""

from __future__ import annotations


def score(row: dict[str, str], answers: list[str]) -> dict[str, float]:
    return {"accuracy": float(answers[0][:1] == row["answer"])}

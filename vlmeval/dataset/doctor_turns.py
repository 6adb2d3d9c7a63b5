"""The dataset doctor on conversations: turns without a question or reference, and images nobody asks about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from vlmeval.conversation import is_broken_list, texts_of_cell
from vlmeval.dataset.doctor import Examined, Finding, found
from vlmeval.dataset.multi_turn import IMAGE_HERE


def turn_findings(examined: Examined) -> Iterator[Finding]:
    """Everything about the turns of a file's conversations."""
    rows = [row for row in examined.rows if row.name and "question" in row.cells]
    no_list: list[str] = []
    broken: list[str] = []
    unlike: list[str] = []
    empty: list[str] = []
    unreferenced: list[str] = []
    missing: list[str] = []
    unseen: list[str] = []
    in_reference: list[str] = []
    counts: Counter[int] = Counter()
    for row in rows:
        questions = texts_of_cell(row.cells["question"])
        if questions is None:
            (broken if is_broken_list(row.cells["question"]) else no_list).append(row.name)
            questions = [row.cells["question"]]
        counts[len(questions)] += 1
        empty += [f"{row.name} (turn {at})" for at, text in enumerate(questions, 1) if not text.strip()]
        wanted, there = sum(text.count(IMAGE_HERE) for text in questions), len(row.digests)
        if wanted > there and not row.image_fault:
            missing.append(f"{row.name} ({wanted} of {there})")
        elif wanted < there:
            unseen.append(f"{row.name} ({there - wanted} of {there})")
        cell = row.cells.get("answer", "")
        references = texts_of_cell(cell)
        references = [cell] if references is None else references
        if cell.strip() and len(references) != len(questions):
            unlike.append(f"{row.name} ({len(questions)} and {len(references)})")
        elif cell.strip():
            unreferenced += [f"{row.name} (turn {at})" for at, text in enumerate(references, 1) if not text.strip()]
        if any(IMAGE_HERE in text for text in references):
            in_reference.append(row.name)
    yield Finding(severity="note", what=f"turns in all: {_shown(counts)}", count=sum(n * c for n, c in counts.items()))
    yield from found("error", f"rows name more images ({IMAGE_HERE}) than they have: they fail", missing)
    yield from found("error", "rows have another number of questions than of reference answers", unlike)
    yield from found("error", "rows have questions like a broken list: they fail", broken)
    yield from found("error", "turns have no question", empty)
    yield from found("warning", "turns have an empty reference answer", unreferenced)
    yield from found("warning", "rows have images that no turn names: they are not shown", unseen)
    yield from found("warning", f"rows have {IMAGE_HERE} in a reference answer", in_reference)
    yield from found("warning", "rows have no list of questions: taken as one turn", no_list)
    yield from _answers(examined)


def _answers(examined: Examined) -> Iterator[Finding]:
    if "answer" not in examined.columns:
        yield Finding(
            severity="warning", what="there is no column 'answer': nothing to grade by, answers are collected"
        )
        return
    blank = [row.name for row in examined.rows if not row.cells["answer"].strip()]
    yield from found("error", "rows have no reference answers: the benchmark cannot be scored", blank)


def _shown(counts: Counter[int]) -> str:
    """`3 rows of 2, 1 row of 4`."""
    return ", ".join(f"{count} row{'s' if count > 1 else ''} of {turns}" for turns, count in sorted(counts.items()))

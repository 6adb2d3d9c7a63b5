"""What each protocol would lose of a benchmark, whatever the model: rows that no right answer can win.

Three right answers are put to the rules for every row: the letter, letter and text, the text alone. Where a rule reads
something else, or nothing, that answer is lost. For kinds without options the row's own answer is scored.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from vlmeval.dataset.base import Dataset
from vlmeval.dataset.doctor import CheckedRow, Examined, Finding, found, option_columns
from vlmeval.dataset.doctor_answers import options_of
from vlmeval.dataset.image_cells import elements
from vlmeval.errors import DatasetError, ImageError
from vlmeval.scoring.protocols import PROTOCOLS, Protocol
from vlmeval.types import Prediction

READ_AS_MISSING = frozenset(
    "#N/A|#N/A N/A|#NA|-1.#IND|-1.#QNAN|-NaN|-nan|1.#IND|1.#QNAN|<NA>|N/A|NA|NULL|NaN|None|n/a|nan|null".split("|")
)
"""What pandas takes for a missing value by default (pandas.read_csv, `na_values`)."""
_NUMBER = re.compile(r"\s*[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?\s*")


def loss_findings(examined: Examined, dataset: Dataset) -> Iterator[Finding]:
    """For an open benchmark with answers: losses in upstream's reading, then those of each protocol's rules."""
    # Options listed in one cell are read as a list there too: nothing in it is a missing value or a number.
    yield from _upstream_reading(examined, [] if dataset.options_column else option_columns(examined.columns))
    if not dataset.scorable:
        yield Finding(severity="note", what=f"not scored: {dataset.why_not_scorable}")
    elif dataset.type == "MCQ" and option_columns(examined.columns):
        for protocol in PROTOCOLS.values():
            yield from _option_losses(examined, protocol)
    else:
        yield from _own_answer_losses(dataset)


def _upstream_reading(examined: Examined, labels: Sequence[str]) -> Iterator[Finding]:
    gone, key_gone = [], []
    for row in examined.rows:
        lost = [label for label in labels if row.cells[label] in READ_AS_MISSING]
        if lost:
            gone.append(f"{row.name} ({', '.join(f'{label}: {row.cells[label]}' for label in lost)})")
        if row.cells.get("answer") in lost:
            key_gone.append(row.name)
    yield from found("warning", "rows have options that VLMEvalKit reads as missing; kept here", gone)
    yield from found("warning", "of these lose the right option there: they cannot be right", key_gone)
    numbers = [
        f"{name} ({was} -> {becomes})" for label in labels for name, was, becomes in _as_numbers(examined.rows, label)
    ]
    yield from found("warning", "options are numbers that VLMEvalKit shows otherwise; as they are here", numbers)
    has_images = any(name in examined.columns for name in ("image", "image_path"))
    no_image = [row.name for row in examined.rows if row.image_fault == "no image" and has_images]
    yield from found("warning", "rows are dropped by VLMEvalKit for want of an image; failed and wrong here", no_image)


def _as_numbers(rows: Sequence[CheckedRow], label: str) -> Iterator[tuple[str, str, str]]:
    """The cells of a column that pandas turns into numbers whose text differs: all of it numbers, or none is turned."""
    cells = [(row.name, row.cells[label]) for row in rows]
    present = [(name, cell) for name, cell in cells if cell and cell not in READ_AS_MISSING]
    if not present or not all(_NUMBER.fullmatch(cell) for _, cell in present):
        return
    whole = len(present) == len(cells) and all(cell.strip().lstrip("+-").isdigit() for _, cell in present)
    for name, cell in present:
        shown = str(int(cell)) if whole else str(float(cell))
        if shown != cell:
            yield name, cell, shown


def _option_losses(examined: Examined, protocol: Protocol) -> Iterator[Finding]:
    labels = option_columns(examined.columns)
    lost: dict[str, list[str]] = {"the letter": [], "letter and text": [], "the text alone": []}
    rows = 0
    for row in examined.rows:
        options, answer = options_of(row, labels), row.cells.get("answer", "")
        if answer not in options:
            continue
        rows += 1
        given = (answer, f"{answer}. {options[answer]}", options[answer])
        for form, text in zip(lost, given, strict=True):
            read = protocol.match(text, options).label
            if read != answer:
                lost[form].append(f"{row.name} ({text[:30]!r} read as {read or 'nothing'})")
    for form, names in lost.items():
        what = f"rows where {form} of the right option is not read as right under {protocol.name} v{protocol.version}"
        yield from found("warning", what, names)
    if rows and not any(lost.values()):
        yield Finding(severity="note", what=f"{protocol.name} reads every right option in all three forms", count=rows)


def _own_answer_losses(dataset: Dataset) -> Iterator[Finding]:
    """Rows whose own answer, given back, is not worth everything."""
    own = {
        sample.index: Prediction(index=sample.index, status="ok", fingerprint="", prediction=_one_answer(sample.answer))
        for sample in dataset.texts()
    }
    for protocol in PROTOCOLS:
        try:
            score = dataset.score(own, protocol)
        except DatasetError as error:
            yield Finding(severity="error", what=f"{protocol} cannot score it: {error}")
            continue
        lost = [f"{row.index} ({own[row.index].prediction[:30]!r})" for row in score.rows if row.hit < 1]
        what = f"rows where the benchmark's own answer is not worth everything under {protocol}"
        yield from found("warning", what, lost)
        if not lost:
            yield Finding(severity="note", what=f"{protocol} gives every row's own answer everything", count=len(own))


def _one_answer(cell: str) -> str:
    """The first of several accepted answers."""
    try:
        return elements(cell)[0] if cell.strip().startswith("[") else cell
    except ImageError:
        return cell

"""Circular evaluation: the rotated copies of a question count as one, right only if every copy is right.

Source: MMBench's CircularEval as VLMEvalKit applies it. A row's group is its `g_index`, else its index modulo 10^6
(copies are numbered base + k * 10^6). A group counts if its base row, the one whose index is the group's, is present,
and is right iff every row of it that is present is right.
"""

from __future__ import annotations

from collections.abc import Iterable

from vlmeval.types import Index, Sample

ROTATION_STEP = 10**6


def group_of(sample: Sample) -> Index:
    """The group a row belongs to; a row with a text index and no `g_index` is its own."""
    cell = sample.fields.get("g_index", "").strip()
    if cell:
        return _as_index(cell) if isinstance(sample.index, int) else cell
    return sample.index % ROTATION_STEP if isinstance(sample.index, int) else sample.index


def circular_groups(samples: Iterable[Sample]) -> dict[Index, list[Sample]]:
    """Every group that counts, in the order of the base rows: base row first, then the copies in file order."""
    groups: dict[Index, list[Sample]] = {}
    bases: dict[Index, None] = {}
    for sample in samples:
        group = group_of(sample)
        rows = groups.setdefault(group, [])
        if sample.index == group:
            rows.insert(0, sample)
            bases[group] = None
        else:
            rows.append(sample)
    return {group: groups[group] for group in bases}


def _as_index(cell: str) -> Index:
    """`17` and a spreadsheet's `17.0` are the row 17; anything else stays the text it is."""
    whole = cell[:-2] if cell.endswith(".0") else cell
    return int(whole) if whole.isascii() and whole.lstrip("-").isdigit() else cell

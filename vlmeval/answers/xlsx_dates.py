"""Cells that a spreadsheet made dates of: which they are, and the text they are read as.

An xlsx holds a date as the number of a day, shown as a date by the cell's style; the number alone would be read as an
answer nobody gave. Source: ECMA-376 part 1, 18.8.30 (number formats), 18.17.4.1 (days).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta

_BUILT_IN = frozenset({*range(14, 23), *range(45, 48)})
_NO_LETTER_OF_A_DATE = re.compile(r'"[^"]*"|\\.|_.|\*.|\[[^\]]*\]')
_LETTER_OF_A_DATE = re.compile("[dmyhs]", re.IGNORECASE)
_FIRST_DAY = datetime(1899, 12, 30)
_FIRST_DAY_1904 = datetime(1904, 1, 1)
_LAST_DAY_BEFORE_THE_GAP = 60
"""The day 60 is 1900-02-29, which never was; those before are one later than the count says."""
_MOST_DAYS = 2_958_465
_DAY_S = 86_400


class DateStyles:
    """The styles of a workbook (`xl/styles.xml`), element by element: `numbers` has those that show dates."""

    def __init__(self) -> None:
        self.numbers: set[str] = set()
        self._dated = {str(number) for number in _BUILT_IN}
        self._in_cells = False
        self._count = 0

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        if name == "numFmt" and is_date_format(attributes.get("formatCode", "")):
            self._dated.add(attributes.get("numFmtId", ""))
        elif name == "cellXfs":
            self._in_cells = True
        elif name == "xf" and self._in_cells:
            if attributes.get("numFmtId") in self._dated:
                self.numbers.add(str(self._count))
            self._count += 1

    def end(self, name: str) -> None:
        if name == "cellXfs":
            self._in_cells = False


def is_date_format(code: str) -> bool:
    """`yyyy\\-mm\\-dd` is one, `0.00 "m"` is not."""
    return _LETTER_OF_A_DATE.search(_NO_LETTER_OF_A_DATE.sub("", code)) is not None


def date_text(number: str, from_1904: bool = False) -> str:
    """`45293` as `2024-01-02`, with the time where there is one; what is no day stays as it is."""
    try:
        days = float(number)
    except ValueError:
        return number
    if not 0 <= days <= _MOST_DAYS:
        return number
    first = _FIRST_DAY_1904 if from_1904 else _FIRST_DAY
    if not from_1904 and days < _LAST_DAY_BEFORE_THE_GAP:
        days += 1
    when = first + timedelta(seconds=round(days * _DAY_S))
    if float(number) < 1:
        return when.strftime("%H:%M:%S")
    return str(when.date()) if when == datetime(when.year, when.month, when.day) else str(when)

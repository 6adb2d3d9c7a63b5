"""Every error a user can meet, in one tree.

    VLMEvalError                  base: its text is the whole message, no traceback is shown
    |-- UsageError (ValueError)   a flag, name or value that cannot be used
    |   |-- UnknownNameError      a model, dataset, flag or key that does not exist; lists the nearest
    |   `-- ConfigError           a --config file that cannot be used
    |-- DatasetError              a benchmark file that cannot be read: file, line, column, counts
    |   `-- DownloadError         a file that could not be fetched or did not match its MD5
    |-- ModelError                a checkpoint that cannot be loaded
    |   |-- PlacementError        it cannot lie on these cards as asked, or tensors met on two of them
    |   `-- PrecisionError        its numbers leave what its number type can hold, so that no answer can be trusted
    |-- JudgeError                a judge that cannot be reached, refuses, or answers nothing that can be used
    |   `-- NoReplyError          it gave no usable reply to one question; others may fare better
    |       `-- RefusedError      it is there, and will not answer this one
    |-- MissingPackageError       a job needs a package that is not installed
    |-- StorageError              the work dir cannot be written, the disk is full, another run holds it
    `-- SampleError               one sample cannot be answered: recorded as failed, the run goes on
        |-- ImageError            its image is missing, broken, or larger than the limit
        |   `-- VideoError        its video is
        `-- OutOfMemorySampleError  it needs more memory than there is, as things lie (inference/ladder.py)

A message says what, where, the numbers, and what to try.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200e\u200f\ud800-\udfff]")


class VLMEvalError(Exception):
    """Base of all errors meant for the user. `exit_code` is what the command line ends with."""

    exit_code = 1


class UsageError(VLMEvalError, ValueError):
    """What the caller asked for cannot be done as asked."""

    exit_code = 2


class UnknownNameError(UsageError):
    """A name that does not exist, with the nearest ones that do."""

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        self.nearest = nearest_names(name, known)
        parts = [f"unknown {kind} {name!r}"]
        if self.nearest:
            parts.append("nearest: " + ", ".join(self.nearest))
        if hint:
            parts.append(hint)
        super().__init__("; ".join(parts))


class ConfigError(UsageError):
    """A config file with a key, class or value that cannot be used."""


class DatasetError(VLMEvalError):
    """A benchmark file that cannot be read as it should."""


class DownloadError(DatasetError):
    """A file could not be fetched, or what came is not what was expected."""


class ModelError(VLMEvalError):
    """A checkpoint that cannot be loaded or run."""


class PlacementError(ModelError):
    """A model that cannot lie on these cards as asked, or whose tensors met on two of them."""


class PrecisionError(ModelError):
    """A model whose numbers leave what its number type can hold: what it says then is no answer."""


class JudgeError(VLMEvalError):
    """A judge that cannot be asked: wrong address, key or model, or it is down."""


class NoReplyError(JudgeError):
    """One question a judge gave no usable reply to."""


class RefusedError(NoReplyError):
    """One question that a judge which is there refused, or said nothing to."""


class MissingPackageError(VLMEvalError):
    """A job needs a package that is not installed."""

    def __init__(self, package: str, job: str) -> None:
        super().__init__(f"{job} needs the package {package!r}, which is not installed; try: pip install {package}")
        self.package = package


class StorageError(VLMEvalError):
    """Results cannot be written where they should go."""


class SampleError(VLMEvalError):
    """One sample cannot be answered. It is recorded as failed and the run goes on."""


class ImageError(SampleError):
    """An image is missing, broken, or decodes to more pixels than allowed."""


class VideoError(ImageError):
    """A video is missing, broken, cut off, or has frames of more pixels than allowed."""


class OutOfMemorySampleError(SampleError):
    """A sample, or some at once, need more memory than there is.

    `card` is the one that was full (None: not told, or host memory), `asked_bytes` what it could not give on top of
    the `held_bytes` it held of this program. `tried` is what was done about it so far.
    """

    def __init__(
        self,
        text: str,
        *,
        card: int | None = None,
        asked_bytes: int = 0,
        held_bytes: int = 0,
        tried: Iterable[str] = (),
    ) -> None:
        super().__init__(text)
        self.card, self.asked_bytes, self.held_bytes = card, asked_bytes, held_bytes
        self.tried = tuple(tried)


def several_names(name: str) -> str:
    """What to say of an unknown name with a comma in it; nothing for any other."""
    return "several names are separated by blanks, not by commas" if "," in name else ""


def nearest_names(name: str, known: Iterable[str], limit: int = 5) -> list[str]:
    """The known names that `name` begins, then those most like it, best first; compared without case."""
    by_lower = {item.lower(): item for item in known}
    begun = [item for item in by_lower if len(name) > 2 and item.startswith(name.lower())]
    close = difflib.get_close_matches(name.lower(), by_lower, n=limit, cutoff=0.4)
    return [by_lower[item] for item in dict.fromkeys((*begun, *close))][:limit]


def printable(text: str) -> str:
    """`text` as a terminal may have it: what files brought along cannot move the cursor or turn the writing around.

    Control characters other than line ends and tabs, and the bidirectional overrides and isolates (Unicode TR 9), are
    written as escapes.
    """
    return _UNPRINTABLE.sub(lambda hit: f"\\u{ord(hit.group()):04x}", text)

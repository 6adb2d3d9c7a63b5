"""The named, versioned sets of rules a multiple-choice answer is read by.

A number is only comparable with numbers made under the same name and version. A change that can alter one score of one
file raises the version.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from vlmeval.errors import UnknownNameError
from vlmeval.scoring import extract_exact, extract_vlmevalkit
from vlmeval.scoring.match import Match


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How answers are read, and whether a row without any record stays in the denominator."""

    name: str
    version: int
    about: str
    match: Callable[[str | None, Mapping[str, str]], Match]
    counts_missing: bool


PROTOCOLS: Mapping[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name="vlmevalkit",
            version=1,
            about="VLMEvalKit's exact matching, known faults included: comparable with published numbers",
            match=extract_vlmevalkit.match_option,
            counts_missing=False,
        ),
        Protocol(
            name="exact",
            version=2,
            about="what the answer says, or nothing: no letter is read where none is meant",
            match=extract_exact.match_option,
            counts_missing=True,
        ),
    )
}


def find_protocol(name: str) -> Protocol:
    """The protocol called `name`."""
    if name not in PROTOCOLS:
        raise UnknownNameError("protocol", name, PROTOCOLS, hint="known: " + ", ".join(PROTOCOLS))
    return PROTOCOLS[name]

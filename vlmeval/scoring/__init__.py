"""Scoring: what answers are worth. Pure functions, one rule per file, each citing its source."""

from vlmeval.scoring.interval import clustered_interval
from vlmeval.scoring.multiple_choice import score_multiple_choice
from vlmeval.scoring.protocols import PROTOCOLS, Protocol, find_protocol

__all__ = ["PROTOCOLS", "Protocol", "clustered_interval", "find_protocol", "score_multiple_choice"]

"""Conversations of several turns: one list of messages with marks where the model's own answers go.

    [image, "What is this?", ANSWER, "And what colour is it?", ANSWER]

The last mark may be left out. Turn 1 is asked with what stands before the first mark, turn 2 with all before the second
and the first answer in the first mark's place, as VLMEvalKit does (vlmeval/inference_mt.py, 50b8ff5): what the model
said itself goes into the history, never the reference. A prompt without a mark is a conversation of one turn.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence

from vlmeval.types import AnswerMark, Message, TextPart

ANSWER: AnswerMark = {"type": "answer", "role": "assistant"}


def is_conversation(message: Sequence[Message]) -> bool:
    """Whether there is a mark in it; then its answer is a list, if of one."""
    return any(part["type"] == "answer" for part in message)


def turns_in(message: Sequence[Message]) -> int:
    """How many answers are asked for."""
    marks = sum(part["type"] == "answer" for part in message)
    is_closed = bool(message) and message[-1]["type"] == "answer"
    return max(1, marks if is_closed else marks + 1)


def prompt_of_turn(message: Sequence[Message], said: Sequence[str]) -> list[Message]:
    """The prompt of the turn after those that were answered with `said`; without marks. There has to be one."""
    found: list[Message] = []
    answers = iter(said)
    for part in message:
        if part["type"] != "answer":
            found.append(part)
            continue
        text = next(answers, None)
        if text is None:
            return found
        found.append(TextPart(type="text", value=text, role="assistant"))
    return found


def prompts_of(message: Sequence[Message]) -> list[list[Message]]:
    """The prompt of every turn, with the model's earlier answers still marks."""
    ends = [at for at, part in enumerate(message) if part["type"] == "answer"]
    if not ends or ends[-1] != len(message) - 1:
        ends.append(len(message))
    return [list(message[:end]) for end in ends]


def texts_as_cell(texts: Sequence[str]) -> str:
    """A list of texts as one cell: JSON, which Python reads as a list literal too, as upstream's readers do."""
    return json.dumps(list(texts), ensure_ascii=False)


def texts_of_cell(cell: str) -> list[str] | None:
    """The texts of a cell with a list in it, JSON or as Python writes it (upstream's tables); None for anything else.

    Numbers count as their text, and null as none.
    """
    cell = cell.strip()
    if not cell.startswith("["):
        return None
    try:
        values = json.loads(cell)
    except (ValueError, RecursionError):
        try:
            values = ast.literal_eval(cell)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return None
    if not isinstance(values, list) or not all(
        value is None or isinstance(value, (str, int, float)) for value in values
    ):
        return None
    return ["" if value is None else str(value) for value in values]


def is_broken_list(cell: str) -> bool:
    """Whether a cell opens and closes like a list and is no list of texts. Upstream stops at such a one."""
    cell = cell.strip()
    return cell.startswith("[") and cell.endswith("]") and texts_of_cell(cell) is None

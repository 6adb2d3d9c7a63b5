"""The text that the kit sends to each family, which is what the tiny models are trained on.

`vlmeval.dataset` writes the prompt and `vlmeval.vlm` may vary it; a test compares both with the functions here. They
are kept apart because this room trains models and must not follow when a prompt elsewhere changes by mistake.
"""

from __future__ import annotations

from collections.abc import Sequence

FAMILIES = ("qwen2vl", "internvl", "llava_onevision", "mllama")

LETTERS = "ABCD"


def check_family(family: str) -> None:
    """Raise ValueError for a family that has no tiny model."""
    if family not in FAMILIES:
        raise ValueError(f"family {family!r} is unknown; there are {', '.join(FAMILIES)}")


def option_lines(options: Sequence[str]) -> str:
    """`A. first\\nB. second\\n` and so on."""
    if len(options) > len(LETTERS):
        raise ValueError(f"{len(options)} options, but letters only for {len(LETTERS)}")
    return "".join(f"{letter}. {option}\n" for letter, option in zip(LETTERS, options, strict=False))


def multiple_choice(family: str, question: str, options: Sequence[str]) -> str:
    """The text of a multiple-choice sample, without the image and without the chat template."""
    check_family(family)
    lines = option_lines(options)
    if family == "internvl":
        return f"{question}\n{lines}Answer with the option's letter from the given choices directly."
    prompt = f"Question: {question}\nOptions:\n{lines}Please select the correct answer from the options above. \n"
    return prompt.rstrip() if family == "qwen2vl" else prompt


def short_answer(family: str, question: str) -> str:
    """The text of an open question that wants a word or a phrase."""
    check_family(family)
    if family == "qwen2vl":
        return f"{question}\nPlease try to answer the question with short words or phrases if possible."
    return f"{question}\nAnswer the question using a single word or phrase."

"""Texts for the protocol `exact`: one spelling for what looks alike. Ours, no outside source."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from string import ascii_letters

LONGEST_READ = 12_000
_PLAIN = (ascii_letters + " ,.").encode()
_CHINESE_MARKS = str.maketrans(
    {"。": ". ", "、": ",", "「": '"', "」": '"', "『": '"', "』": '"', "“": '"', "”": '"', "‘": "'", "’": "'"}
    | {"【": "[", "】": "]", "《": "<", "》": ">", "〈": "<", "〉": ">"}
)
_ANY_CHINESE_MARK = re.compile(f"[{''.join(map(chr, _CHINESE_MARKS))}]")
_INVISIBLE = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufe0f\ufeff]")
_MARKDOWN = re.compile(r"[*`]+|__|^[ \t]*(?:#+|>|[-+])[ \t]+", re.MULTILINE)
_MARKDOWN_HINTS = ("*", "`", "__", "#", ">", "- ", "-\t", "+ ", "+\t")
"""Any markdown has one of these in it."""
_END_TOKEN = re.compile(r"<\|[^|<>]*\|>|</?s>|<eos>|<end_of_\w+>")
_INLINE_TAG = re.compile(r"<(b|i|em|strong|u|p|span|code|sub|sup)>(.*?)</\1>", re.IGNORECASE | re.DOTALL)
_LATEX_TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|bf|rm)\s*\{([^{}]*)\}")
_LATEX_MATH = re.compile(r"\$(?=\S)([^$\n]*?\S)\$(?!\d)")
_LATEX_BRACKET = re.compile(r"\\([()\[\]])")
_THINK_END = re.compile(r"</think(?:ing)?>", re.IGNORECASE)
_THINK_START = re.compile(r"<think(?:ing)?>", re.IGNORECASE)


def plain_answer(answer: str) -> str:
    """What stands behind the thinking, in one spelling."""
    if answer.isascii() and len(answer) <= LONGEST_READ and not answer.encode().translate(None, _PLAIN):
        return answer  # nothing in it that the two would change, and faster
    return one_spelling(after_thinking(answer))


def after_thinking(answer: str) -> str:
    """What stands behind the last `</think>`; nothing while the thinking has not ended."""
    rest = _THINK_END.split(answer)[-1]
    return "" if _THINK_START.search(rest) else rest


def one_spelling(text: str) -> str:
    """Full-width and typographic forms as plain ones; markdown, tags as in `<b>B</b>`, LaTeX text commands and
    invisible marks taken off.

    Of a very long answer only the beginning and the end are kept: a choice stands in one of them.
    """
    if len(text) > LONGEST_READ:
        text = text[: LONGEST_READ // 4] + "\n" + text[-3 * LONGEST_READ // 4 :]
    if not text.isascii():
        if _ANY_CHINESE_MARK.search(text):
            text = text.translate(_CHINESE_MARKS)
        text = unicodedata.normalize("NFKC", text)
        text = _INVISIBLE.sub("", text)
    if "\\" in text:
        text = _LATEX_TEXT.sub(r"\1", text)
        text = _LATEX_BRACKET.sub(r"\1", text)
    if "$" in text:
        text = _LATEX_MATH.sub(r"\1", text)
    if "<" in text:
        text = _END_TOKEN.sub(" ", text)
        text = _INLINE_TAG.sub(r"\2", text) if "</" in text else text
    return _MARKDOWN.sub("", text) if any(map(text.__contains__, _MARKDOWN_HINTS)) else text


def folded(text: str) -> str:
    """A text but for case, white space, and what is around it."""
    return " ".join(text.lower().split()).replace(", ", ",").strip(" .,;:!\"'()[]")


@lru_cache(maxsize=4096)
def folded_option(option: str) -> str:
    """The same for an option; one of nothing but marks, such as `+`, stays as it is."""
    plain = one_spelling(option)
    return folded(plain) or plain.strip() or option.strip()

"""From the token ids a model gave to the answer: special tokens out, stop strings cut, thinking apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vlmeval.types import Answer
from vlmeval.vlm.generation import cut_at_stop
from vlmeval.vlm.thinking import CLOSE, OPEN, split_thinking

if TYPE_CHECKING:
    import torch

PROMPT_END_TOKENS = 8
"""How many of a prompt's last tokens are read to see whether the template has opened the thinking already."""


class Decoder:
    """Decodes with one tokenizer and one model's settings."""

    def __init__(self, tokenizer: Any, *, stop_strings: str | Sequence[str] | None, split_thinking: bool) -> None:
        self.tokenizer = tokenizer
        self.stop_strings = stop_strings
        self.split = split_thinking
        special = {i: str(token) for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        self._special = frozenset(special)
        self._marks = frozenset(i for i, token in special.items() if token in (OPEN, CLOSE))

    def answer(self, new: torch.Tensor, prompt: torch.Tensor, prompt_tokens: int) -> Answer:
        """The answer in the new token ids [tokens] (padding already off) to a prompt's ids [tokens]."""
        text = cut_at_stop(self.text(new), self.stop_strings)
        thinking = ""
        if self.split:
            opened = self.text(prompt[-PROMPT_END_TOKENS:]).rstrip().endswith(OPEN)
            thinking, text = split_thinking(text, opened)
        return Answer(text=text, thinking=thinking, prompt_tokens=prompt_tokens, new_tokens=new.numel())

    def text(self, tokens: torch.Tensor) -> str:
        """Text without special tokens, but for the marks of thinking where a tokenizer counts them among these."""
        if not self._marks:
            return self.tokenizer.decode(tokens, skip_special_tokens=True)
        return self.tokenizer.decode([i for i in tokens.tolist() if i not in self._special or i in self._marks])

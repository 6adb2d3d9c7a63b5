"""Where a prompt meets the model's limits: positions and memory, told with numbers and what to try."""

from __future__ import annotations

from typing import Any

from vlmeval.errors import SampleError

LESS = "try fewer pixels (--max-pixels), fewer images or a shorter text"


def length_note(config: Any, prompt_tokens: int) -> str:
    """A note if the prompt is longer than the positions the model was made for, "" otherwise.

    Rotary positions go on past the limit (worse, but they go on); learned ones have no row to look up, and on a card
    that kills the process: those raise SampleError. Qwen2-VL's three-dimensional positions count a whole image as a
    few, so tokens say nothing about them.
    """
    text = config.get_text_config(decoder=True)
    limit = getattr(text, "max_position_embeddings", None)
    if not isinstance(limit, int) or prompt_tokens <= limit:
        return ""
    rope = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None)
    told = f"the prompt has {prompt_tokens:,} tokens, the model {limit:,} positions"
    if not rope and not hasattr(text, "rope_theta"):
        raise SampleError(f"{told}; {LESS}")
    if isinstance(rope, dict) and "mrope_section" in rope:
        return ""
    return told


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a card or the machine had no room: torch has an error of its own only for the cards."""
    import torch

    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)


def out_of_memory(error: BaseException, inputs: Any, max_new_tokens: int) -> SampleError:
    """How much was asked of how much room, and what to try."""
    rows, tokens = inputs["input_ids"].shape
    reason = str(error).split("\n")[0].split("If reserved")[0].strip() or type(error).__name__
    return SampleError(
        f"out of memory answering {rows} prompt{'s' if rows > 1 else ''} of {tokens:,} tokens with up to "
        f"{max_new_tokens:,} new ones: {reason}; try {'--batch-size 1, ' if rows > 1 else ''}--max-pixels 1003520, "
        "a smaller --max-tokens or a card with more memory"
    )

"""Of all samples of a run, those that may be the worst: kept while they stream by, few at a time."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field

from vlmeval.placement.cutting import ImageTokens
from vlmeval.placement.workload import PromptTokens
from vlmeval.vlm.prompt_length import PromptLength

COUNTED_TEXTS = 2000
"""So many prompts that may be longest have their tokens counted (0.1 ms each); the rest is bounded by the longest of
it, which is far from what it has where a benchmark has more texts of nearly the same length."""
COMPONENTS = ("images", "vision_tokens", "image_tokens", "cross_tokens", "largest_image_tokens", "pixel_values",
              "padded_to")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One sample as the model would meet it. `bound` is at least the tokens of its text.

    `text` is None where `bound` is what the user said, so that there is nothing to count. `earlier_tokens` of `bound`
    are for the model's own earlier answers in a conversation.
    """

    name: str
    sizes: tuple[tuple[int, int], ...]
    images: ImageTokens
    bound: int
    text: str | None = None
    earlier_tokens: int = 0

    @property
    def longest(self) -> int:
        """At least the tokens of the whole prompt."""
        return self.bound + self.images.image_tokens

    @property
    def pictures(self) -> str:
        """Its images, for the screen."""
        if not self.sizes:
            return "no image"
        width, height = max(self.sizes, key=lambda size: size[0] * size[1])
        several = f"{len(self.sizes)} images, the largest " if len(self.sizes) > 1 else ""
        return f"{several}{width}x{height}"


@dataclass(frozen=True, kw_only=True)
class Longest:
    """The longest prompt. Where not `counted`, no other is longer than this number of tokens."""

    sample: Seen
    text_tokens: int
    counted: bool

    @property
    def length(self) -> int:
        """Tokens of the whole prompt."""
        return self.text_tokens + self.sample.images.image_tokens


@dataclass(kw_only=True)
class SamplesSeen:
    """Keeps the samples that are largest in something, and those whose prompts may be longest."""

    most_counted: int = COUNTED_TEXTS
    count: int = 0
    largest: dict[str, Seen] = field(default_factory=dict)
    _long: list[tuple[int, int, Seen]] = field(default_factory=list)
    _next: Seen | None = None

    def add(self, sample: Seen) -> None:
        """Take one sample into account."""
        self.count += 1
        for name in COMPONENTS:
            best = self.largest.get(name)
            if best is None or getattr(sample.images, name) > getattr(best.images, name):
                self.largest[name] = sample
        # Of equally long ones the first is kept.
        entry = (sample.longest, -self.count, sample)
        if len(self._long) < self.most_counted:
            heapq.heappush(self._long, entry)
            return
        out = heapq.heappushpop(self._long, entry)[2]
        if self._next is None or out.longest > self._next.longest:
            self._next = out

    def longest_prompt(self, lengths: PromptLength) -> Longest:
        """Counts from the longest bound downwards, until no bound that is left is over what was counted."""
        best: Longest | None = None
        for bound, _, sample in sorted(self._long, key=lambda entry: entry[:2], reverse=True):
            if best is not None and bound <= best.length:
                return best
            tokens = sample.bound if sample.text is None else lengths.count(sample.text, len(sample.sizes))
            if tokens is None:
                return Longest(sample=sample, text_tokens=sample.bound, counted=False)
            if sample.text is not None:
                tokens += sample.earlier_tokens
            found = Longest(sample=sample, text_tokens=tokens, counted=True)
            best = found if best is None or found.length > best.length else best
        if best is None:
            raise ValueError("no sample was added")
        if self._next is not None and self._next.longest > best.length:
            return Longest(sample=self._next, text_tokens=self._next.bound, counted=False)
        return best

    def worst(self, longest: Longest) -> Iterable[PromptTokens]:
        """What bounds all of them. Only the longest prompt's text counts: the length of a prompt is one number."""
        yield PromptTokens(images=longest.sample.images, text_tokens=longest.text_tokens)
        yield from (PromptTokens(images=sample.images, text_tokens=0) for sample in self.largest.values())

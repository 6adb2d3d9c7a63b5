"""What the models that run in transformers share, layer upon layer.

| layer | holds |
|---|---|
| `BaseModel` (base.py) | what every model offers |
| `MultiCardMixin` (multi_card.py) | laying the model over cards |
| `SizedPrompts` (sized_prompts.py) | how large a prompt is |
| `BatchLimits` (batch_limits.py) | how many prompts at once |
| `ChatPrompts` (chat_prompts.py) | the prompt text |
| `HostBatches` (host_batch.py) | a batch on the host, and on its way to the model |
| `CheckpointModel` (checkpoint_model.py) | settings, loading |
| `BatchAnswers` (batch_answers.py) | from a batch to its answers |
| `TransformersModel` (here) | several batches in flight |
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from vlmeval.errors import SampleError
from vlmeval.placement.in_flight import MOST, InFlight
from vlmeval.placement.layout import Replica
from vlmeval.types import Answer, Message, Task
from vlmeval.vlm.batch_answers import BatchAnswers

if TYPE_CHECKING:
    from vlmeval.vlm.pipelined import Pipeline


class TransformersModel(BatchAnswers):
    """A checkpoint that a class of transformers runs; `CheckpointModel` says what its arguments are."""

    most_in_flight: int = MOST
    """Falls when memory runs out with so many."""
    _pipeline: Pipeline | None = None

    @cached_property
    def in_flight(self) -> InFlight:
        """How many batches are answered at once over the cards of this replica, and why."""
        alone = ""
        if self.generation["do_sample"] or self.generation.get("stop_strings"):
            alone = "sampled answers and stop strings are for one batch at a time"
        elif any(block.routed for block in self.planned.profile.blocks):
            alone = "transformers switches how experts are computed, for all batches at once"
        if alone:
            return InFlight(count=1, fitting=1, gain=1.0, reason=alone)
        return self.planned_in_flight()

    def batches_in_flight(self) -> int:
        """As many as memory holds and the estimate of time says, where the model lies on several cards."""
        return min(self.in_flight.count, self.most_in_flight)

    def parts_of_a_batch(self) -> int:
        """Those that were planned: parts do not grow when memory runs out."""
        return self.in_flight.count

    def in_flight_stamp(self) -> dict[str, Any]:
        """How many batches were in flight and why, where several were."""
        if not self.wave_peaks:
            return {}
        return {
            "batches_in_flight": self.batches_in_flight(),
            "batches_in_flight_reason": self.in_flight.reason,
            "in_flight_peak_bytes": {str(place): peak_bytes for place, peak_bytes in self.wave_peaks.items()},
        }

    def generate_batches(
        self, batches: Sequence[Sequence[list[Message]]], task: Task | None = None
    ) -> list[list[Answer] | SampleError]:
        """Each batch's answers, in order, or why it cannot be answered; see `pipelined`."""
        if self.in_flight.count == 1:
            return super().generate_batches(batches, task)
        from vlmeval.vlm.pipelined import answer_batches

        self.reckon([message for batch in batches for message in batch], task, len(batches))
        return answer_batches(self, batches, task)

    def pipeline(self) -> Pipeline | None:
        """The lanes of the loaded model; None while its first answers are watched, which are written alone."""
        if self.model is None or not self._is_proved or self.watch.is_on:
            return None
        if self._pipeline is None:
            from vlmeval.vlm.pipelined import Pipeline

            self._pipeline = Pipeline(self, self.batches_in_flight())
        return self._pipeline

    def clear_memory(self) -> None:
        """Lanes too are let go of: blocks may be about to move, and they would hold the old ones."""
        if self._pipeline is not None:
            self._pipeline.close()
            self._pipeline = None
        super().clear_memory()

    def relaid(self, replica: Replica) -> None:
        """Blocks have been moved: other numbers of batches may fit now."""
        super().relaid(replica)
        self.__dict__.pop("in_flight", None)

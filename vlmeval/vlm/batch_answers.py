"""From prompts to answers, a batch at a time."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from vlmeval.errors import PlacementError, SampleError
from vlmeval.types import Answer, Message, Task
from vlmeval.vlm.checkpoint_model import CheckpointModel
from vlmeval.vlm.decoding import Decoder
from vlmeval.vlm.host_batch import HostBatch, one_at_a_time
from vlmeval.vlm.limits import is_out_of_memory, length_note, out_of_memory
from vlmeval.vlm.room import Room, no_room
from vlmeval.vlm.watch import AnswerWatch

if TYPE_CHECKING:
    import torch

Group = tuple[Sequence[int], HostBatch]
"""Positions of prompts in their batch, and these prompts on the host."""


@dataclass(frozen=True, kw_only=True)
class Sparing:
    """How memory is spared for the sample at hand."""

    host_cache: bool = False
    pixel_share: float = 1.0


class BatchAnswers(CheckpointModel):
    """Answers batches with transformers' generate()."""

    lets_rows_leave: bool = True
    """Whether finished rows leave the batch, where that is sound; off only to compare."""

    @cached_property
    def _spared(self) -> threading.local:
        return threading.local()

    @property
    def _sparing(self) -> Sparing:
        """What holds in this thread, which answers; one that prepares the next batch meanwhile spares nothing."""
        found: Sparing = getattr(self._spared, "now", Sparing())
        return found

    def task_max_new_tokens(self, task: Task) -> int | None:
        """The family's own limit of new tokens for such a task; None: as for any. What the user asked for wins."""
        return None

    def generate_batch(self, batch: Sequence[list[Message]], task: Task | None = None) -> list[Answer]:
        """One answer per prompt, in order. Prompts of different lengths are padded on the left."""
        self.load()
        self.reckon(batch, task)
        return self._answer_groups(self.prepare_groups(batch, task), task)

    def begin_batch(self, batch: Sequence[list[Message]], task: Task | None = None) -> Callable[[], list[Answer]]:
        """Where a card computes, a thread prepares the batch meanwhile; on a CPU nothing is gained by that."""
        if getattr(self, "model", None) is None or not self.prepares_ahead():
            return super().begin_batch(batch, task)
        prepared = self._ahead.submit(self.prepare_groups, batch, task)

        def answers() -> list[Answer]:
            self.reckon(batch, task)
            return self._answer_groups(prepared.result(), task)

        return answers

    def prepares_ahead(self) -> bool:
        """Where a card computes."""
        return bool(self.replica_cards())

    @cached_property
    def _ahead(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1, thread_name_prefix="prepare")

    def prepare_groups(self, batch: Sequence[list[Message]], task: Task | None) -> list[Group]:
        """The batch on the host, by prompts that can go into one call."""
        return [(places, self.prepare_on_host([batch[i] for i in places], task)) for places in self.groups(batch)]

    def _answer_groups(self, groups: Sequence[Group], task: Task | None) -> list[Answer]:
        found: dict[int, Answer] = {}
        for places, host in groups:
            found.update(zip(places, self._answer(host, task), strict=True))
        return [found[place] for place in sorted(found)]

    def groups(self, batch: Sequence[list[Message]]) -> Iterable[Sequence[int]]:
        """The positions of prompts that can go into one call."""
        return [range(len(batch))]

    @property
    def pixel_share(self) -> float:
        """How many of its pixels an image keeps now."""
        return self._sparing.pixel_share

    @contextlib.contextmanager
    def sparing(self, *, host_cache: bool = False, pixel_share: float = 1.0) -> Iterator[Room]:
        """Until the block ends: keys and values in host memory, images of so many times fewer pixels."""
        if pixel_share < 1 and not self.placement.allow_fewer_pixels:
            yield no_room("--allow-fewer-pixels is not given")
            return
        if host_cache and self.model.device.type == "cpu":
            yield no_room("the CPU computes")
            return
        if host_cache and self._host_cache() is None:
            yield no_room(f"{self.class_name} keeps no keys and values that could lie there")
            return
        self._spared.now = Sparing(host_cache=host_cache, pixel_share=pixel_share)
        try:
            yield Room(is_made=True, text=f"images of {pixel_share:g} times the pixels" if pixel_share < 1 else "")
        finally:
            self._spared.now = Sparing()

    def _host_cache(self) -> Any:
        from vlmeval.vlm.host_cache import host_cache

        if self.model.config.is_encoder_decoder or self.generation.get("cache_implementation"):
            return None
        return host_cache(self.model.config)

    @cached_property
    def watch(self) -> AnswerWatch:
        """Looks at the first answers of the loaded model for what float16 cannot hold."""
        return AnswerWatch(self.model, f"{self.model_path} ({self.precision})")

    def is_in_doubt(self, *, at_end: bool = False) -> bool:
        """Whether the first answers look as if float16 had overflowed, and too few are there to be sure."""
        return self.model is not None and self.watch.is_in_doubt(at_end=at_end)

    def prepare(self, batch: Sequence[list[Message]], task: Task | None = None) -> dict[str, torch.Tensor]:
        """Prompts as model inputs on the model's device: `input_ids` [batch, tokens], pixels as the family has them."""
        return self.with_pixels(self.prepare_on_host(batch, task))

    def _answer(self, host: HostBatch, task: Task | None) -> list[Answer]:
        """Where a split model cannot run at all, it is laid out in another way, once."""
        try:
            output = self._generate(host, task)
        except PlacementError as error:
            self.model = None
            self.__dict__.pop("watch", None)
            self.forget_features()
            self.model = self.fall_back(error, self._load_weights)
            output = self._generate(host, task)
        self._is_proved = True
        return self.finished_answers(host, output)

    def finished_answers(self, host: HostBatch, output: torch.Tensor) -> list[Answer]:
        """Answers of a batch's tokens [batch, prompt + new], with notes on what is to be said of a prompt."""
        notes = [length_note(self.model.config, int(mask.sum())) for mask in host.inputs["attention_mask"]]
        return [
            replace(answer, notes=(*answer.notes, note)) if note else answer
            for answer, note in zip(self._answers(output, host.inputs), notes, strict=True)
        ]

    def _generate(self, host: HostBatch, task: Task | None) -> torch.Tensor:
        """Token ids [batch, prompt + new]. Raises SampleError where these inputs are too much, or do not fit."""
        import torch

        arguments = self.call_arguments(task)
        try:
            with torch.inference_mode():
                inputs = self.to_model(host)
                with self.watch.over(inputs, arguments) as watched:
                    return self.model.generate(**inputs, **watched, **self.leaving(inputs))
        except (RuntimeError, MemoryError, ValueError, IndexError) as error:
            if is_out_of_memory(error):
                limit = arguments.get("max_new_tokens") or self.generation.get("max_new_tokens", 0)
                failure: SampleError = out_of_memory(error, host.inputs, limit)
                self.forget_features()
            elif isinstance(error, (ValueError, IndexError)):
                failure = SampleError(f"{type(self.model).__name__} cannot answer this prompt: {error}")
            else:
                raise
        # Raised down here, where the failed attempt and what it holds on the card are no longer kept alive.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        raise failure

    def leaving(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments of generate() with which finished rows leave the batch, where that is sound."""
        from vlmeval.vlm.leaving import can_leave, greedy_leaving

        family = self.image_parts is not None and self.lets_rows_leave
        return {"custom_generate": greedy_leaving} if family and can_leave(self.model, self.generation, inputs) else {}

    def call_arguments(self, task: Task | None) -> dict[str, Any]:
        """Arguments of generate() besides the inputs."""
        # generate() matches stop strings in text, so it needs the tokenizer.
        arguments: dict[str, Any] = (
            {"tokenizer": self.processor.tokenizer} if self.generation.get("stop_strings") else {}
        )
        by_task = self.task_max_new_tokens(task) if task else None
        if by_task and not self.asked_generation & {"max_new_tokens", "max_length"}:
            arguments["max_new_tokens"] = by_task
        if self._sparing.host_cache:
            arguments["past_key_values"] = self._host_cache()
        return arguments

    def _answers(self, output: torch.Tensor, inputs: Mapping[str, torch.Tensor]) -> list[Answer]:
        pad = self.model.generation_config.pad_token_id
        prompts, mask = inputs["input_ids"], inputs["attention_mask"]
        # Encoder-decoders give back only what is new, after a token to start with.
        start = 1 if self.model.config.is_encoder_decoder else prompts.shape[1]
        with one_at_a_time:
            new_tokens = output[:, start:].cpu()
            answers = [
                self.decoder.answer(new[new != pad] if pad is not None else new, prompt, int(row.sum()))
                for new, prompt, row in zip(new_tokens, prompts, mask, strict=True)
            ]
        return self.watch.noted(answers, new_tokens)

    @cached_property
    def decoder(self) -> Decoder:
        """From token ids to the answer's text."""
        return Decoder(
            self.processor.tokenizer,
            stop_strings=self.generation.get("stop_strings"),
            split_thinking=self.split_thinking,
        )

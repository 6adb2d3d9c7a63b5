"""A batch that memory ran out with: the next as large is cut beforehand, on simulated cards with real numbers."""

from __future__ import annotations

import gc
import logging
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from PIL import Image

from tests.vlm.test_multi_card import FREELY, make
from tests.vlm.test_pipelined import evenly
from vlmeval.config import supported_VLM
from vlmeval.hardware import parse_cards
from vlmeval.inference.answering import Request, answer_together, begin
from vlmeval.inference.fingerprint import prompt_fingerprint
from vlmeval.placement.simulate.machine import simulated_machine
from vlmeval.types import Message, Prediction, Sample, Task
from vlmeval.vlm.host_batch import HostBatch
from vlmeval.vlm.transformers_model import TransformersModel

TASK = Task(name="t", type="MCQ")
QWEN = "Qwen2-VL-Tiny"


def ask(count: int, side: int = 84, words: int = 1) -> list[Request]:
    found = []
    for number in range(count):
        picture = Image.new("RGB", (side, side), (30 * number, 200, 255 - 30 * number))
        message: list[Message] = [
            {"type": "image", "value": picture},
            {"type": "text", "value": "What colour is it? " * words + f"{number}"},
        ]
        sample = Sample(index=number, question="")
        found.append(Request(sample=sample, message=message, fingerprint=prompt_fingerprint(message)))
    return found


def answers(model: TransformersModel, batch: Sequence[Request]) -> list[Prediction]:
    parts = begin(model, TASK, batch)
    found = [own for part in parts for own in answer_together(model, TASK, part.batch, 0, part.answers)]
    return sorted((own for own in found if isinstance(own, Prediction)), key=lambda own: int(own.index))


def texts(found: Sequence[Prediction]) -> list[str]:
    assert {own.status for own in found} == {"ok"}
    return [own.prediction for own in found]


def test_the_next_batch_as_large_is_cut_before_it_is_tried(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.WARNING, "vlmeval")
    with simulated_machine(parse_cards("0.03")) as ledger:
        model = supported_VLM[QWEN](dtype="float32", max_new_tokens=2)
        assert isinstance(model, TransformersModel)
        model.place(FREELY)
        model.load()
        while model.watch.is_on:  # the first answers are looked at, which takes memory
            answers(model, ask(8))
        peaks, whole = [], list[str]()
        for count in (4, 8):
            model.forget_features()  # so that images are encoded again
            gc.collect()
            ledger.forget_peaks()
            whole = texts(answers(model, ask(count)))
            peaks.append(ledger.peak_bytes[0])
        assert peaks[1] > peaks[0] + 200_000
        model.forget_features()
        ledger.capacities[0] = ledger.taken_bytes[0] + sum(peaks) // 2  # 4 fit, 8 do not
        first = answers(model, ask(8))
        told = [record.message for record in caplog.records]
        assert sum("smaller batch" in line for line in told) == 1, told
        assert first[0].notes == ("answered after: memory cleared, smaller batch",)
        caplog.clear()

        tried: list[int] = []
        generate = model._generate

        def counted(host: HostBatch, task: Task | None) -> torch.Tensor:
            tried.append(len(host.inputs["input_ids"]))
            return generate(host, task)

        monkeypatch.setattr(model, "_generate", counted)
        model.forget_features()
        again = answers(model, ask(8))
        assert (tried, caplog.records) == ([4, 4], [])
        assert {own.notes for own in again} == {()}
        assert texts(again) == texts(first) == whole
        (note,) = model.stamp()["placement_notes"]
        assert note.startswith("out of memory with 8 prompts of up to ") and "cut before they are answered" in note


def test_smaller_prompts_go_on_in_larger_batches_and_larger_ones_do_not() -> None:
    with simulated_machine(parse_cards("0.03")):
        model = make(QWEN)
        model.load()
        batch = [request.message for request in ask(8, side=168, words=8)]
        assert not model.is_too_much(batch, TASK)
        size = model.prompt_size(batch[0], TASK)
        before = model.batch_limit(size)
        assert before > 8
        model.remember_too_much(batch, TASK)
        assert model.is_too_much(batch, TASK) and not model.is_too_much(batch[:4], TASK)
        assert model.batch_limit(size) < 8
        assert not model.is_too_much([request.message for request in ask(8)], TASK), "smaller ones"
        assert model.is_too_much([request.message for request in ask(7, side=168, words=60)], TASK), "fewer larger ones"
        assert not model.is_too_much(batch[:1], TASK), "one alone is always tried"
        model.remember_too_much(batch[:4], TASK)
        assert model.is_too_much(batch[:4], TASK)
        model.remember_too_much(batch, TASK)
        assert model.is_too_much(batch[:4], TASK), "the smallest counts"
        assert len(model.placement_notes) == 2
        replica = model.replica
        assert replica is not None
        model.relaid(replica)
        assert not model.is_too_much(batch, TASK) and model.batch_limit(size) == before, "blocks lie elsewhere now"


def test_without_cards_bytes_are_counted() -> None:
    model = make(QWEN)
    batch = [request.message for request in ask(8)]
    model.remember_too_much(batch, TASK)
    assert model.is_too_much(batch, TASK) and not model.is_too_much(batch[:7], TASK)
    assert " MiB)" in model.placement_notes[0]


def test_with_several_batches_in_flight_more_and_smaller_parts_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    with simulated_machine(parse_cards("2x0.03")):
        model = make(QWEN, replace(evenly(QWEN, 2), batches_in_flight=2, overrides=FREELY.overrides))
        model.load()
        calls: list[list[int]] = []
        together = model.generate_batches

        def counted(batches: Sequence[Sequence[list[Message]]], task: Task | None = None) -> object:
            calls.append([len(batch) for batch in batches])
            return together(batches, task)

        monkeypatch.setattr(model, "generate_batches", counted)
        assert model.batches_in_flight() == 2
        before = texts(answers(model, ask(8)))
        model.remember_too_much([request.message for request in ask(4)], TASK)
        assert texts(answers(model, ask(8))) == before
        assert calls == [[4, 4], [2, 2, 2, 2]]

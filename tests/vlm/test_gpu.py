"""What only a card can show: run with `pytest -m gpu` where there is one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from bench.pipelined import prompts
from tests.small_videos import video_mme_row, write_tsv, write_video
from vlmeval.cli.main import main
from vlmeval.config import supported_VLM
from vlmeval.errors import OutOfMemorySampleError
from vlmeval.hardware import visible_cards
from vlmeval.inference.journal import read_journal
from vlmeval.placement.policy import Overrides
from vlmeval.types import Message
from vlmeval.vlm.limits import plain_out_of_memory
from vlmeval.vlm.placement_request import Placement
from vlmeval.vlm.transformers_model import TransformersModel

pytestmark = pytest.mark.gpu


def answers(folder: Path, *flags: str) -> dict[object, str]:
    base = ["--model", "Qwen2-VL-Tiny", "--data", "ShapesBench", "--limit", "96", "--work-dir", str(folder)]
    assert main([*base, *flags]) == 0
    return {index: p.prediction for index, p in read_journal(next(folder.glob("*/T*/*.jsonl"))).items()}


def test_the_card_is_used_with_the_number_type_it_can(tmp_path: Path) -> None:
    card = visible_cards()[0]
    model = supported_VLM["Qwen2-VL-Tiny"]()
    stamp = model.stamp()
    assert stamp["device"] == card.device
    assert stamp["dtype"] == ("bfloat16" if card.capability is None or card.capability >= (8, 0) else "float16")
    assert stamp["attention"] != "eager"


def test_float32_on_the_card_answers_as_on_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_card = answers(tmp_path / "card", "--dtype", "float32")
    monkeypatch.setattr("vlmeval.vlm.card_planning.visible_cards", lambda measured=None: ())
    assert on_card == answers(tmp_path / "cpu", "--dtype", "float32")


def test_half_precision_on_the_card_agrees_on_nearly_all(tmp_path: Path) -> None:
    full, half = answers(tmp_path / "full", "--dtype", "float32"), answers(tmp_path / "half")
    assert sum(half[index] == text for index, text in full.items()) >= 0.95 * len(full)


def loaded(**placement: object) -> TransformersModel:
    model = supported_VLM["Qwen2-VL-Tiny"](dtype="float32", max_new_tokens=4)
    assert isinstance(model, TransformersModel)
    model.place(Placement(**placement))  # type: ignore[arg-type]
    model.load()
    return model


PROMPT: list[Message] = [
    {"type": "image", "value": Image.linear_gradient("L").convert("RGB").resize((80, 64))},
    {"type": "text", "value": "What colour is the circle?\nA. red\nB. blue\n"},
]


def test_keys_and_values_in_host_memory_give_the_same_answer() -> None:
    model = loaded()
    usual = model.generate_batch([PROMPT])
    with model.sparing(host_cache=True) as room:
        assert room.is_made
        assert model.generate_batch([PROMPT]) == usual


def test_a_cards_own_words_about_full_memory_are_read() -> None:
    held = torch.ones(2**20, device="cuda:0")
    asked = torch.cuda.mem_get_info(0)[1] + 2**30
    with pytest.raises(torch.OutOfMemoryError) as caught:
        torch.empty(asked, dtype=torch.uint8, device="cuda:0")
    failure = plain_out_of_memory(caught.value, 1)
    assert failure.card == 0
    assert failure.asked_bytes == pytest.approx(asked, rel=0.01)
    assert failure.held_bytes >= held.nbytes


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two cards")
def test_blocks_move_between_two_real_cards_and_answers_stay() -> None:
    model = loaded(overrides=Overrides(auto_split=True))
    usual = model.generate_batch([PROMPT])[0].text
    before = {name: tensor.device for name, tensor in model.model.named_parameters()}
    replica = model.replica
    assert replica is not None
    last = replica.cards[-1]
    room = model.move_blocks(OutOfMemorySampleError("test", card=last.card.index, asked_bytes=1, held_bytes=1))
    assert room.is_made
    assert {name: tensor.device for name, tensor in model.model.named_parameters()} != before
    assert model.generate_batch([PROMPT])[0].text == usual


@pytest.mark.parametrize("name", ["Qwen2-VL-Tiny", "InternVL-Tiny", "LLaVA-OneVision-Tiny", "Llama-Vision-Tiny"])
def test_batches_in_flight_over_two_cards_answer_in_float32_as_one_at_a_time(name: str) -> None:
    if len(visible_cards()) < 2:
        pytest.skip("needs two cards")
    model = supported_VLM[name](dtype="float32", max_new_tokens=16)
    assert isinstance(model, TransformersModel)
    model.place(Placement(overrides=Overrides(auto_split=True), batches_in_flight=4))
    batches = [batch for number in range(6) for batch in prompts(1, 56 + 28 * number)]
    alone = [model.generate_batch(batch) for batch in batches]
    assert model.pipeline() is not None
    for _ in range(20):  # a race shows itself now and then
        assert model.generate_batches(batches) == alone
    assert model.placement_notes == ()


def test_a_video_on_the_card_is_answered_as_on_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [video_mme_row(n, f"v{n}") for n in range(6)]
    table = write_tsv(tmp_path / "Video-MME.tsv", rows)
    for number in range(6):
        write_video(tmp_path / "Video-MME" / "video" / f"v{number}.mp4", frames=6 + 4 * number, shift=number)

    def answered(folder: str) -> dict[object, str]:
        flags = ["--model", "Qwen2-VL-Tiny", "LLaVA-OneVision-Tiny", "--data", str(table), "--dtype", "float32"]
        assert main([*flags, "--work-dir", str(tmp_path / folder)]) == 0
        journals = sorted((tmp_path / folder).glob("*/T*/*.jsonl"))
        return {(path.name, n): p.prediction for path in journals for n, p in read_journal(path).items()}

    on_card = answered("card")
    monkeypatch.setattr("vlmeval.vlm.card_planning.visible_cards", lambda measured=None: ())
    assert on_card == answered("cpu")

"""On a simulated machine the kit's own code finds cards, loads models onto them and runs out of their memory."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from tests.placement import tiny_models
from tests.vlm import internvl_folders
from vlmeval.demo import evaluate
from vlmeval.errors import UsageError
from vlmeval.hardware import Card, has_flash_attention, parse_cards, visible_cards
from vlmeval.placement.cost_model import Workload
from vlmeval.placement.dispatch import dispatch
from vlmeval.placement.policy import Overrides
from vlmeval.placement.simulate.ledger import CardLedger
from vlmeval.placement.simulate.machine import simulated_machine
from vlmeval.types import Message
from vlmeval.vlm.internvl2 import InternVLChat
from vlmeval.vlm.placement_request import Placement
from vlmeval.vlm.qwen2_vl import Qwen2VLChat

MIB = 2**20
QUESTION: list[Message] = [{"type": "text", "value": "What colour is a ripe tomato?"}]
ONE_CARD = Placement(
    overrides=Overrides(auto_split=False, replicas=1, reserve_bytes=0), workload=Workload(text_tokens=64)
)
families = pytest.mark.parametrize("family", tiny_models.FAMILIES)
pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="cards are simulated only where none are")


@pytest.fixture
def ledger() -> Iterator[CardLedger]:
    with simulated_machine(parse_cards("2x0.05")) as ledger:
        yield ledger


def test_its_cards_are_seen_with_names_capabilities_and_free_memory() -> None:
    small = Card(index=0, kind="cuda", name="T4", total_bytes=9 * MIB, free_bytes=7 * MIB, capability=(7, 5))
    large = Card(index=1, kind="cuda", name="L4", total_bytes=90 * MIB, free_bytes=90 * MIB, capability=(8, 9))
    with simulated_machine([small, large]):
        assert visible_cards() == (small, large)
        assert torch.accelerator.device_count() == 2
        assert torch.accelerator.current_accelerator() == torch.device("cuda")
        assert torch.cuda.get_device_name("cuda:1") == "L4"
        assert not has_flash_attention()
    with simulated_machine([small, large], visible=("1", "7", "0")):
        assert [card.name for card in visible_cards()] == ["L4"]
    with pytest.raises(UsageError, match="GPU-8932"), simulated_machine([small], visible=("GPU-8932",)):
        pass


@families
def test_a_checkpoint_is_loaded_onto_the_cards_that_its_map_names(family: str, ledger: CardLedger) -> None:
    whole = tiny_models.trained(family).model
    device_map = tiny_models.device_map(whole, [6])
    # accelerate knows no names of single parameters.
    with pytest.warns(UserWarning) if "model.image_newline" in device_map else contextlib.nullcontext():
        model: Any = getattr(transformers, evaluate.MODEL_CLASS[family]).from_pretrained(
            evaluate.SHIPPED_FOLDER[family], device_map=device_map, dtype=torch.float32
        )
    assert {card: ledger.live_bytes[card] > MIB for card in (0, 1)} == {0: True, 1: True}
    dispatch(model.eval(), device_map)  # checks where every parameter and buffer lies
    assert (model.lm_head.weight is model.get_input_embeddings().weight) == (
        whole.lm_head.weight is whole.get_input_embeddings().weight
    )


def test_original_internvl_weights_are_split_on_the_card(tmp_path: Path, ledger: CardLedger) -> None:
    native = internvl_folders.write_folder(tmp_path, "internlm2")
    model = InternVLChat(str(tmp_path), dtype="float32")
    model.place(ONE_CARD)
    model.load()
    for name, weight in model.model.named_parameters():
        assert weight.device == torch.device("cuda:0")
        assert torch.equal(weight.cpu(), native.get_parameter(name))


def test_the_kits_own_model_class_answers_from_the_first_card(ledger: CardLedger) -> None:
    model = Qwen2VLChat(str(evaluate.SHIPPED_FOLDER["qwen2vl"]), dtype="float32", max_new_tokens=3)
    model.place(ONE_CARD)
    answer = model.generate_batch([QUESTION])
    assert model.stamp()["device"] == "cuda:0"
    assert torch.cuda.max_memory_allocated(0) > torch.cuda.memory_allocated(0) > 4 * MIB
    assert torch.cuda.mem_get_info(0)[0] == visible_cards()[0].free_bytes < visible_cards()[0].total_bytes
    torch.cuda.reset_peak_memory_stats(0)
    assert torch.cuda.max_memory_allocated(0) == torch.cuda.memory_allocated(0)
    ledger.take(0, torch.cuda.mem_get_info(0)[0] - 1024)
    with pytest.raises(Exception, match=r"out of memory.*is free\. Another process has"):
        model.generate_batch([QUESTION])
    ledger.take(0, 0)
    assert model.generate_batch([QUESTION]) == answer


def test_a_model_that_does_not_fit_fails_to_load_as_on_a_card() -> None:
    load = transformers.Qwen2VLForConditionalGeneration.from_pretrained
    with simulated_machine(parse_cards("2x0.002")), pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        load(evaluate.SHIPPED_FOLDER["qwen2vl"], device_map={"": 1}, dtype=torch.float32)


def test_threads_see_the_cards_too(ledger: CardLedger) -> None:
    made = []
    thread = threading.Thread(target=lambda: made.append(torch.zeros(2, device="cuda:1") + torch.ones(2).to("cuda:1")))
    thread.start()
    thread.join()
    assert made[0].tolist() == [1.0, 1.0]


def test_everything_is_as_before_afterwards() -> None:
    def state() -> tuple[Any, ...]:
        from transformers.utils import is_torch_cuda_available

        return (
            visible_cards(),
            torch.cuda.is_available(),
            is_torch_cuda_available(),
            torch.is_grad_enabled(),
            threading.Thread.run,
            transformers.modeling_utils.caching_allocator_warmup,
            torch.__future__.get_swap_module_params_on_conversion(),
            type(torch.ones(2) + 1),
        )

    before = state()
    with simulated_machine(parse_cards("2x0.05")):
        assert state()[:3] != before[:3]
    assert state() == before

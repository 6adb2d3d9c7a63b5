"""How many prompts a model takes at once: what the plan's memory model lets fit, and no trial."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import pytest

from vlmeval.errors import ImageError
from vlmeval.hardware import cpu_cores, parse_cards
from vlmeval.images import ImageSource
from vlmeval.types import ImagePart
from vlmeval.vlm import batch_limits, card_planning
from vlmeval.vlm.batch_limits import FILL, MOST_ON_CARDS, MOST_ON_CPU, TOKENS_ON_CPU, host_bytes
from vlmeval.vlm.llama_vision import LlamaVision
from vlmeval.vlm.llava_onevision import LLaVA_OneVision_HF
from vlmeval.vlm.planned import PlannedModel, planned_model
from vlmeval.vlm.prompt_size import PromptSize
from vlmeval.vlm.qwen2_vl import Qwen2VLChat
from vlmeval.vlm.transformers_model import TransformersModel

from .test_contract import picture, prompt


class FullSize(Qwen2VLChat):
    """Qwen2-VL-7B as the package knows it, without weights."""

    @cached_property
    def planned(self) -> PlannedModel:
        return planned_model("Qwen/Qwen2-VL-7B-Instruct")

    def size_config(self) -> dict[str, object]:
        return dict(self.planned.config)


def full_size(monkeypatch: pytest.MonkeyPatch, cards: str, **arguments: object) -> FullSize:
    monkeypatch.setattr(card_planning, "visible_cards", lambda: parse_cards(cards))
    return FullSize("/nowhere", max_new_tokens=32, max_pixels=1280 * 28 * 28, **arguments)  # type: ignore[arg-type]


def asked(model: TransformersModel, width: int, height: int) -> PromptSize:
    return model.prompt_size(prompt(picture(width, height, 0), "What is this?"))


@pytest.mark.parametrize("cards", ["24", "80", "2x12", "H100"])
def test_as_many_as_the_plan_says_fit_and_not_one_more(cards: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = full_size(monkeypatch, cards)
    worst = batch_limits._rounded(asked(model, 1000, 1000))
    limit = model.batch_limit(worst)
    assert 1 < limit < MOST_ON_CARDS
    assert model.batch_load(worst, limit) <= FILL < model.batch_load(worst, limit + 1)


def test_features_that_may_be_kept_are_counted_where_the_vision_side_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    model = full_size(monkeypatch, "2x12")
    worst, plan = asked(model, 1000, 1000), model.plan()
    assert plan is not None and model.planned
    (replica,) = plan.replicas
    counted = dict(model._taken(replica, worst, 4, 1, 2**20))
    plain = dict(model._taken(replica, worst, 4, 1, 0))
    more = {share.card.place: counted[share] - plain[share] for share in plain}
    (holder,) = {place for module, place in replica.device_map.items() if "merger" in module}
    assert more == {place: 2**20 * (place == holder) for place in more} and len(more) == 2
    assert model.most_kept_bytes() == round(0.01 * min(card.free_bytes for card in model.replica_cards()))


def test_larger_images_mean_fewer_prompts_and_larger_cards_more(monkeypatch: pytest.MonkeyPatch) -> None:
    small = full_size(monkeypatch, "24")
    limits = [small.batch_limit(asked(small, side, side)) for side in (100, 400, 1000)]
    assert limits == sorted(limits, reverse=True) and limits[0] > limits[2]
    large = full_size(monkeypatch, "80")
    assert large.batch_limit(asked(large, 1000, 1000)) > limits[2]


def test_one_where_nothing_fits_and_where_tokens_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    assert full_size(monkeypatch, "24", temperature=0.5).batch_limit(PromptSize()) == 1
    model = full_size(monkeypatch, "2x12")
    assert model.batch_limit(PromptSize(text_tokens=10**7)) == 1


def test_without_a_plan_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    model = full_size(monkeypatch, "24")
    monkeypatch.setattr(model, "planning_profile", lambda: None)
    assert model.batch_limit(asked(model, 100, 100)) == 1


def test_a_cpu_takes_what_is_quick_and_what_its_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(card_planning, "visible_cards", lambda: ())
    model = FullSize("/nowhere", max_new_tokens=32)
    size = PromptSize(text_tokens=512)
    needed = host_bytes(model.size_config(), size, 32)
    for free_bytes, limit in ((2**60, TOKENS_ON_CPU // 512), (4 * needed * cpu_cores(), 2), (1, 1)):
        model = FullSize("/nowhere", max_new_tokens=32)
        card = parse_cards("24")[0]
        monkeypatch.setattr(
            batch_limits,
            "host_card",
            lambda card=card, free=free_bytes: card.__class__(
                index=-1, kind="cpu", name="host memory", total_bytes=free, free_bytes=free
            ),
        )
        assert model.batch_limit(size) == limit
    monkeypatch.undo()
    monkeypatch.setattr(card_planning, "visible_cards", lambda: ())
    assert FullSize("/nowhere", max_new_tokens=2).batch_limit(PromptSize()) <= MOST_ON_CPU


def test_sizes_follow_images_texts_and_settings(folder_of: Callable[[str], Path]) -> None:
    qwen = Qwen2VLChat(str(folder_of("qwen2_vl")), max_pixels=400 * 28 * 28)
    assert asked(qwen, 280, 280).images.image_tokens == 100
    assert asked(qwen, 2800, 2800).images.image_tokens == 400
    short, long = (qwen.prompt_size(prompt("word " * count)) for count in (3, 3000))
    assert long.tokens > 4000 > short.tokens and short.images.image_tokens == 0
    two = qwen.prompt_size(prompt(picture(280, 280, 1), picture(280, 280, 2), "?"))
    assert (two.images.image_tokens, len(two.image_keys), two.images.largest_image_tokens) == (200, 2, 400)


def test_headers_are_read_once_for_copies_and_neither_they_nor_limits_need_torch() -> None:
    code = (
        "import sys\n"
        "from vlmeval.config import resolve_model\n"
        "from vlmeval.dataset.registry import open_dataset\n"
        "from vlmeval.inference.answering import requests\n"
        "from vlmeval.inference.batches import plan_pieces\n"
        "from vlmeval.vlm import sized_prompts\n"
        "reads, size = [], sized_prompts.image_size\n"
        "sized_prompts.image_size = lambda value: (reads.append(value), size(value))[1]\n"
        "model, data = resolve_model('Qwen2-VL-Tiny')(), open_dataset('ShapesBench')\n"
        "asked = [request.message for request in requests(model, data, data)]\n"
        "pieces = plan_pieces(model, data.task, asked, None)\n"
        "print(len(asked), len(reads), max(map(len, pieces)) > 8, 'torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["800", "240", "True", "False"]


@pytest.mark.parametrize(
    ("kind", "family"), [(Qwen2VLChat, "qwen2_vl"), (LLaVA_OneVision_HF, "llava_onevision"), (LlamaVision, "mllama")]
)
def test_an_unreadable_image_counts_as_the_largest(
    kind: type[TransformersModel], family: str, folder_of: Callable[[str], Path]
) -> None:
    model = kind(str(folder_of(family)))

    def read() -> bytes:
        raise ImageError("gone")

    broken = model.prompt_size([ImagePart(type="image", value=ImageSource(digest="x", name="row 3", read=read))])
    assert broken.images.vision_tokens >= asked(model, 300, 300).images.vision_tokens > 0

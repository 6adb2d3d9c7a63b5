"""The training forward against the stock forward, and what a training batch holds."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from vlmeval.demo import batches, checkpoints, prompts, shapes, train
from vlmeval.demo.packed_forward import packed_forward


@pytest.fixture(scope="module", params=prompts.FAMILIES)
def untrained(request: pytest.FixtureRequest) -> tuple[str, Any, Any]:
    """Family, processor and random model, as a training run starts."""
    torch.manual_seed(0)
    processor, model = checkpoints.build(request.param)
    return request.param, processor, model


def test_packed_forward_equals_the_stock_forward(untrained: tuple[str, Any, Any]) -> None:
    family, processor, model = untrained
    assert train.difference_from_stock(processor, model, family) < 1e-4


def test_every_answer_is_one_token(untrained: tuple[str, Any, Any]) -> None:
    family, processor, _ = untrained
    encoder = batches.PromptEncoder(family, processor)
    assert len(set(encoder.answer_ids.values())) == sum(map(len, shapes.VALUES.values()))


def test_encoding_line_by_line_equals_encoding_the_text(untrained: tuple[str, Any, Any]) -> None:
    family, processor, _ = untrained
    encoder = batches.PromptEncoder(family, processor)
    text = prompts.multiple_choice(family, "Which shape is shown?", ["ring", "star"])
    assert encoder.encode(text) == processor.tokenizer(text, add_special_tokens=False)["input_ids"]


def test_special_tokens_are_single_and_the_prompt_returns_from_its_ids(untrained: tuple[str, Any, Any]) -> None:
    family, processor, _ = untrained
    for token in checkpoints.SPECIAL_TOKENS[family]:
        assert len(processor.tokenizer(token, add_special_tokens=False)["input_ids"]) == 1
    encoder = batches.PromptEncoder(family, processor)
    assert processor.tokenizer.decode(encoder.suffix_ids) == encoder.suffix_text


def test_questions_of_a_row_do_not_see_each_other(untrained: tuple[str, Any, Any]) -> None:
    family, processor, model = untrained
    encoder = batches.PromptEncoder(family, processor)
    scene = shapes.random_scene(random.Random(0))
    row = batches.draw_row(scene, encoder, random.Random(0), open_=2, options=1)
    batch = batches.pack([row], encoder, packed_forward(family, processor, model))
    allowed = batch.allowed[0, 0]
    first = len(encoder.prefix_ids)
    second = first + len(row.question_ids[0]) + 1
    assert allowed[second, :first].all()
    assert not allowed[second, first:second].any()
    assert not allowed.triu(1).any()


def test_targets_are_the_answer_and_the_end_of_turn(untrained: tuple[str, Any, Any]) -> None:
    family, processor, model = untrained
    encoder = batches.PromptEncoder(family, processor)
    rng = random.Random(0)
    rows = [batches.draw_row(shapes.random_scene(rng), encoder, rng, open_=2, options=1) for _ in range(3)]
    batch = batches.pack(rows, encoder, packed_forward(family, processor, model))
    flat = batch.token_ids.flatten()
    assert batch.target_ids[::2].tolist() == [answer for row in rows for answer in row.answer_ids]
    assert flat[batch.target_index[::2] + 1].tolist() == batch.target_ids[::2].tolist()
    assert set(batch.target_ids[1::2].tolist()) == {encoder.end_id}


def test_cell_labels_ask_colour_only_where_an_object_is() -> None:
    scene = shapes.Scene(colour="blue", shape="square", count="one", size="large", shade="dark", side="left")
    _, pictures, _ = batches.draw_scenes(1, random.Random(0))
    rng = random.Random(0)
    picture = pictures[0] * 0 + batches.np.array(shapes.render(scene, rng))
    labels = batches.cell_labels(scene, picture)
    colour, count = (shapes.QUESTION_TYPES.index(name) for name in ("colour", "count"))
    asked = (labels[:, colour] != batches.NOT_ASKED).view(4, 4)
    assert asked[1:3, 0:2].all() and not asked[:, 2:].any()
    assert (labels[:, count] == 0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "either steps or minutes"),
        ({"steps": 10, "vision_steps": 2, "minutes": 1.0}, "either steps or minutes"),
        ({"steps": 10}, "vision_steps goes with steps"),
        ({"steps": 10, "vision_steps": 10}, "below steps=10"),
        ({"minutes": 0.0}, "must be above 0"),
        ({"steps": 10, "vision_steps": 2, "stop_after": 11}, "stop_after=11 goes with steps=10"),
        ({"steps": 10, "vision_steps": 2, "stop_after": 5, "cool_down": 5}, "above cool_down=5"),
    ],
)
def test_recipe_names_what_does_not_fit(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train.Recipe(family="qwen2vl", **arguments)


def test_early_stop_follows_the_full_schedule_and_then_cools_down() -> None:
    full = train.Recipe(family="qwen2vl", steps=400, vision_steps=100)
    short = train.Recipe(family="qwen2vl", steps=400, vision_steps=100, stop_after=300, cool_down=60)
    for step in (0, 99, 200, 240):
        assert train.Clock(short, step).learning_rate == train.Clock(full, step).learning_rate
    half_cooled = train.Clock(full, 270).learning_rate / 2
    assert train.Clock(short, 270).learning_rate == pytest.approx(half_cooled)
    assert train.Clock(short, 299).progress < 1
    assert train.Clock(short, 300).progress == 1


def test_two_steps_of_training_change_every_part_and_repeat_exactly() -> None:
    recipe = train.Recipe(family="qwen2vl", steps=2, vision_steps=1, pictures=2, warm_up_steps=1)
    first, second = train.Trainer(recipe), train.Trainer(recipe)
    start = {name: value.clone() for name, value in first.model.state_dict().items()}
    first.run()
    second.run()
    for name, value in first.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name
        assert not torch.equal(value, start[name]), name

"""Scenes, pictures and questions."""

from __future__ import annotations

import random

import numpy as np
import pytest

from vlmeval.demo import shapes


def test_same_seed_gives_same_pictures_and_questions() -> None:
    def draw(seed: int) -> tuple[bytes, shapes.Question]:
        rng = shapes.training_rng(seed)
        scene = shapes.random_scene(rng)
        return shapes.render(scene, rng).tobytes(), shapes.ask(scene, "colour", rng)

    assert draw(3) == draw(3)
    assert draw(3)[0] != draw(4)[0]


def test_training_never_draws_from_the_benchmark_generator() -> None:
    benchmark = {shapes.benchmark_rng(seed).random() for seed in range(200)}
    assert not benchmark & {shapes.training_rng(seed).random() for seed in range(200)}


def test_side_is_asked_only_of_a_single_object() -> None:
    rng = random.Random(0)
    for _ in range(300):
        scene = shapes.random_scene(rng)
        assert (scene.side is not None) == (scene.number == 1)
    several = shapes.random_scene(rng, {"count": "three"})
    assert "side" not in several.defined_types()
    with pytest.raises(ValueError, match="3 objects defines no side"):
        shapes.ask(several, "side", rng)


def test_fixed_values_are_kept() -> None:
    rng = random.Random(1)
    for question_type, values in shapes.VALUES.items():
        for value in values:
            assert shapes.random_scene(rng, {question_type: value}).value(question_type) == value


def test_options_hold_the_answer_once_and_only_values_of_its_type() -> None:
    rng = random.Random(2)
    for _ in range(200):
        scene = shapes.random_scene(rng)
        question = shapes.ask(scene, rng.choice(scene.defined_types()), rng)
        values = shapes.VALUES[question.question_type]
        assert question.options.count(question.answer) == 1
        assert len(set(question.options)) == len(question.options) == min(4, len(values))
        assert set(question.options) <= set(values)


def test_no_answer_occurs_within_another_of_its_type() -> None:
    """Scorers look for an option's text inside the answer."""
    for values in shapes.VALUES.values():
        for value in values:
            assert [other for other in values if value in other] == [value]


def test_a_single_object_lies_at_its_side() -> None:
    rng = random.Random(3)
    for side, (x, y) in shapes.SIDE_CENTRE.items():
        picture = np.array(shapes.render(shapes.random_scene(rng, {"side": side}), rng))
        rows, columns = np.nonzero((picture[3:-3, 3:-3] != picture[5, 5]).any(-1))
        assert abs(columns.mean() + 3 - x) < 12
        assert abs(rows.mean() + 3 - y) < 12


def test_every_object_is_drawn_apart_from_the_others() -> None:
    """Four small circles cover four times the area of one."""
    one = shapes.Scene(colour="red", shape="circle", count="one", size="small", shade="dark", side="top")
    four = shapes.Scene(colour="red", shape="circle", count="four", size="small", shade="dark", side=None)

    def area(scene: shapes.Scene) -> float:
        areas = []
        for seed in range(20):
            picture = np.array(shapes.render(scene, random.Random(seed)))
            areas.append((picture[3:-3, 3:-3] != picture[5, 5]).any(-1).sum())
        return float(np.mean(areas))

    assert area(four) == pytest.approx(4 * area(one), rel=0.1)


def test_unknown_question_type_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'weight' is unknown; there are colour, shape"):
        shapes.random_scene(random.Random(0)).value("weight")

"""The world of ShapesBench: pictures of one to four equal objects on a grey ground, and questions about them.

A picture is 112 x 112 pixels. Everything is drawn from a `random.Random` that the caller seeds, so the same seed gives
the same pictures. Training and the benchmark use generators seeded by differently worded strings (`training_rng`,
`benchmark_rng`), so no choice of numbers lets one repeat the other.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass

from PIL import Image, ImageDraw

IMAGE_SIDE = 112
"""Side of every picture in pixels."""

HALF = IMAGE_SIDE // 2

COLOUR_RGB = {
    "red": (220, 35, 35),
    "green": (35, 160, 60),
    "blue": (40, 75, 225),
    "yellow": (240, 220, 40),
    "purple": (130, 40, 165),
    "orange": (245, 140, 25),
    "cyan": (40, 200, 215),
    "pink": (250, 150, 195),
}
RADIUS = {"small": 11, "large": 20}
GREY_RANGE = {"dark": (20, 60), "light": (225, 250)}
SIDE_CENTRE = {"left": (30, HALF), "right": (82, HALF), "top": (HALF, 30), "bottom": (HALF, 82)}

VALUES: dict[str, tuple[str, ...]] = {
    "colour": tuple(COLOUR_RGB),
    "shape": ("circle", "square", "triangle", "cross", "star", "ring"),
    "count": ("one", "two", "three", "four"),
    "size": tuple(RADIUS),
    "shade": tuple(GREY_RANGE),
    "side": tuple(SIDE_CENTRE),
}
"""Question type -> every answer it can have."""

QUESTION_TYPES = tuple(VALUES)

WORDINGS: dict[str, tuple[str, ...]] = {
    "colour": ("Which colour is shown?", "What colour was used to draw?", "What is the colour of the drawing?"),
    "shape": ("Which shape is shown?", "What kind of shape is in the image?", "What shape can be seen?"),
    "count": ("How many shapes are in the image?", "How many objects can be seen?", "What is the number of objects?"),
    "size": ("What size is shown?", "How big is the drawing?", "What is the size of the object?"),
    "shade": (
        "What shade is the background?",
        "How bright is the background?",
        "Which background does the image have?",
    ),
    "side": ("Where is the object?", "On which side is the shape?", "At which edge of the image is the object?"),
}

MAX_OPTIONS = 4
EXTRA_SINGLES = 0.2
"""Share of scenes that get a single object on top of the quarter that has one anyway: only singles have a side."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What a picture shows. `side` is None where several objects leave it undefined; it is then never asked."""

    colour: str
    shape: str
    count: str
    size: str
    shade: str
    side: str | None

    @property
    def number(self) -> int:
        """How many objects: 1 to 4."""
        return VALUES["count"].index(self.count) + 1

    def value(self, question_type: str) -> str | None:
        """The answer to a question of this type, or None where the scene does not define it."""
        if question_type not in VALUES:
            raise ValueError(f"question type {question_type!r} is unknown; there are {', '.join(QUESTION_TYPES)}")
        answer: str | None = getattr(self, question_type)
        return answer

    def defined_types(self) -> list[str]:
        """The question types that have an answer here."""
        return [question_type for question_type in QUESTION_TYPES if self.value(question_type) is not None]


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question about a scene; `options` holds the answer and up to three other values in random order."""

    question_type: str
    text: str
    answer: str
    options: tuple[str, ...]


def training_rng(seed: int) -> random.Random:
    """Generator of the training pictures."""
    return random.Random(f"shapes, training, {seed}")


def benchmark_rng(seed: int) -> random.Random:
    """Generator of the held-out pictures; never equal to a training generator."""
    return random.Random(f"shapes, benchmark, {seed}")


def random_scene(rng: random.Random, fixed: Mapping[str, str] | None = None) -> Scene:
    """A random scene in which the values in `fixed` (question type -> value) are given."""
    chosen: dict[str, str] = {question_type: rng.choice(values) for question_type, values in VALUES.items()}
    if rng.random() < EXTRA_SINGLES:
        chosen["count"] = "one"
    fixed = dict(fixed or {})
    chosen.update(fixed)
    if "side" in fixed:
        chosen["count"] = "one"
    side = chosen["side"] if chosen["count"] == "one" else None
    return Scene(
        colour=chosen["colour"],
        shape=chosen["shape"],
        count=chosen["count"],
        size=chosen["size"],
        shade=chosen["shade"],
        side=side,
    )


def ask(scene: Scene, question_type: str, rng: random.Random) -> Question:
    """A question of this type about the scene, in one of its wordings."""
    answer = scene.value(question_type)
    if answer is None:
        raise ValueError(f"a scene of {scene.number} objects defines no {question_type}")
    others = [value for value in VALUES[question_type] if value != answer]
    options = [answer, *rng.sample(others, min(MAX_OPTIONS - 1, len(others)))]
    rng.shuffle(options)
    text = rng.choice(WORDINGS[question_type])
    return Question(question_type=question_type, text=text, answer=answer, options=tuple(options))


def render(scene: Scene, rng: random.Random) -> Image.Image:
    """Draw the scene, with a little noise in grey, colour, radius and place: an RGB picture of 112 x 112 pixels."""
    grey = rng.randint(*GREY_RANGE[scene.shade])
    ground = (grey, grey, grey)
    picture = Image.new("RGB", (IMAGE_SIDE, IMAGE_SIDE), ground)
    canvas = ImageDraw.Draw(picture)
    # The frame is what left, right, top and bottom are seen against.
    canvas.rectangle((0, 0, IMAGE_SIDE - 1, IMAGE_SIDE - 1), outline=(128, 128, 128), width=3)
    red, green, blue = (max(0, min(255, value + rng.randint(-10, 10))) for value in COLOUR_RGB[scene.colour])
    radius = RADIUS[scene.size] + rng.uniform(-1.2, 1.2)
    for x, y in _centres(scene, radius, rng):
        _draw_shape(canvas, scene.shape, (x, y), radius, (red, green, blue), ground)
    return picture


def _centres(scene: Scene, radius: float, rng: random.Random) -> list[tuple[float, float]]:
    """Where the objects go: a single one at its side, several in different quarters of the picture."""
    if scene.side is not None:
        x, y = SIDE_CENTRE[scene.side]
        dx, dy = rng.uniform(-3, 3), rng.uniform(-3, 3)
        along = 8 / 3  # an object may stray further along its edge than away from it
        return [(x + dx, y + dy * along) if scene.side in ("left", "right") else (x + dx * along, y + dy)]
    outer = radius * 1.1 + 4  # distance kept from the frame
    inner = max(outer, HALF - radius * 1.1 - 1)  # and from the middle lines
    centres = []
    for quarter in rng.sample(range(4), scene.number):
        right, below = quarter % 2, quarter // 2
        dx, dy = rng.uniform(outer, inner), rng.uniform(outer, inner)
        centres.append((IMAGE_SIDE - dx if right else dx, IMAGE_SIDE - dy if below else dy))
    return centres


def _draw_shape(
    canvas: ImageDraw.ImageDraw,
    shape: str,
    centre: tuple[float, float],
    radius: float,
    colour: tuple[int, int, int],
    ground: tuple[int, int, int],
) -> None:
    """Draw one object; `radius` in pixels, `ground` fills the hole of a ring."""
    x, y = centre

    def box(half_width: float, half_height: float) -> tuple[float, float, float, float]:
        return (x - half_width, y - half_height, x + half_width, y + half_height)

    if shape == "circle":
        canvas.ellipse(box(radius, radius), fill=colour)
    elif shape == "ring":
        canvas.ellipse(box(radius, radius), fill=colour)
        canvas.ellipse(box(radius * 0.55, radius * 0.55), fill=ground)
    elif shape == "square":
        canvas.rectangle(box(radius * 0.88, radius * 0.88), fill=colour)
    elif shape == "triangle":
        foot = y + radius * 0.85
        canvas.polygon([(x, y - radius), (x - radius, foot), (x + radius, foot)], fill=colour)
    elif shape == "cross":
        canvas.rectangle(box(radius * 0.34, radius), fill=colour)
        canvas.rectangle(box(radius, radius * 0.34), fill=colour)
    elif shape == "star":
        canvas.polygon([_star_corner(x, y, radius, corner) for corner in range(10)], fill=colour)
    else:
        raise ValueError(f"shape {shape!r} is unknown; there are {', '.join(VALUES['shape'])}")


def _star_corner(x: float, y: float, radius: float, corner: int) -> tuple[float, float]:
    """Corner 0 to 9 of a five-pointed star, points and notches in turn, the first one on top."""
    reach = radius * (1.1 if corner % 2 == 0 else 0.45)
    angle = -math.pi / 2 + corner * math.pi / 5
    return (x + reach * math.cos(angle), y + reach * math.sin(angle))

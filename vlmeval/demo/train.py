"""Train one tiny model from scratch on a CPU, and write its checkpoint folder.

    python -m vlmeval.demo.train --family qwen2vl --out DIR --steps 3000 --vision-steps 1500 --seed 0
    python -m vlmeval.demo.train --family qwen2vl --out DIR --minutes 12

First the vision tower alone, with throw-away linear heads that read the scene from the 16 image cells; then everything
together, with the loss on the answer word and the end of turn, and the heads' loss fading out. A length in steps gives
the same weights again on the same machine and library versions; one in minutes does not.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import random
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlmeval.demo import batches, checkpoints, prompts, shapes
from vlmeval.demo.packed_forward import PackedForward, packed_forward

VISION_STEP_COST = 0.3
"""What a step of the vision tower alone costs, in joint steps: the learning rate follows cost, not count."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train. Exactly one of `steps` (in all) and `minutes` is given."""

    family: str
    seed: int = 0
    steps: int | None = None
    vision_steps: int | None = None
    stop_after: int | None = None
    """Stop at this step of the `steps` long schedule."""
    cool_down: int = 0
    """Steps before `stop_after` over which the learning rate falls to a hundredth of the schedule's."""
    minutes: float | None = None
    vision_share: float = 0.25
    """Share of the minutes that the vision tower trains alone; only with `minutes`."""
    pictures: int = 32
    open_questions: int = 3
    option_questions: int = 1
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    warm_up_steps: int = 100
    heads_weight: tuple[float, float] = (1.0, 0.1)
    """Weight of the heads' loss at the start and at the end."""

    def __post_init__(self) -> None:
        prompts.check_family(self.family)
        if (self.steps is None) == (self.minutes is None):
            raise ValueError(f"give either steps or minutes; got steps={self.steps}, minutes={self.minutes}")
        if (self.vision_steps is None) != (self.steps is None):
            raise ValueError(f"vision_steps goes with steps; got steps={self.steps}, vision_steps={self.vision_steps}")
        if self.steps is not None and self.vision_steps is not None and not 0 <= self.vision_steps < self.steps:
            raise ValueError(f"vision_steps={self.vision_steps} must be at least 0 and below steps={self.steps}")
        if self.stop_after is not None and not 0 <= self.cool_down < self.stop_after <= (self.steps or 0):
            raise ValueError(
                f"stop_after={self.stop_after} goes with steps={self.steps}, above cool_down={self.cool_down}"
            )
        if self.minutes is not None and self.minutes <= 0:
            raise ValueError(f"minutes={self.minutes} must be above 0")


@dataclass
class Clock:
    """How far the training is."""

    recipe: Recipe
    step: int = 0

    def __post_init__(self) -> None:
        self.started = time.monotonic()
        self.cpu_started = time.process_time()

    @property
    def cpu_seconds(self) -> float:
        """CPU seconds spent since the start."""
        return time.process_time() - self.cpu_started

    @property
    def progress(self) -> float:
        """0 at the start, 1 when done."""
        recipe = self.recipe
        if recipe.minutes is not None:
            return (time.monotonic() - self.started) / (60 * recipe.minutes)
        if recipe.stop_after is not None and self.step >= recipe.stop_after:
            return 1.0
        return self._cost(self.step) / self._cost(recipe.steps or 0)

    @property
    def vision_only(self) -> bool:
        """Whether the vision tower still trains alone."""
        if self.recipe.minutes is not None:
            return self.progress < self.recipe.vision_share
        return self.step < (self.recipe.vision_steps or 0)

    @property
    def learning_rate(self) -> float:
        """Linear warm-up, then a cosine down to a hundredth; a linear fall before an early stop."""
        warm = min(1.0, (self.step + 1) / self.recipe.warm_up_steps)
        left = (self.recipe.stop_after or 0) - self.step
        if self.recipe.stop_after is not None and left < self.recipe.cool_down:
            warm *= max(0.01, left / self.recipe.cool_down)
        return self.recipe.learning_rate * warm * max(0.01, 0.5 * (1 + math.cos(math.pi * self.progress)))

    @property
    def heads_weight(self) -> float:
        """Weight of the heads' loss now."""
        first, last = self.recipe.heads_weight
        return first + (last - first) * self.progress

    def _cost(self, step: int) -> float:
        vision_steps = self.recipe.vision_steps or 0
        return VISION_STEP_COST * min(step, vision_steps) + max(0, step - vision_steps)


class Tally:
    """Running means between two lines of the log."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = defaultdict(list)

    def add(self, name: str, value: float) -> None:
        """Count one value under this name."""
        self._values[name].append(value)

    def flush(self) -> dict[str, float]:
        """The means since the last call."""
        means = {name: round(sum(values) / len(values), 3) for name, values in sorted(self._values.items())}
        self._values.clear()
        return means


class Trainer:
    """One run: the model, its throw-away heads and the optimizer."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        torch.manual_seed(recipe.seed)
        self.rng = shapes.training_rng(recipe.seed)
        self.processor, self.model = checkpoints.build(recipe.family)
        self.encoder = batches.PromptEncoder(recipe.family, self.processor)
        self.forward = packed_forward(recipe.family, self.processor, self.model)
        hidden = self.model.config.text_config.hidden_size
        self.heads = nn.ModuleList(nn.Linear(hidden, len(values)) for values in shapes.VALUES.values())
        self.optimizer = self._optimizer()
        self.tally = Tally()

    def _optimizer(self) -> torch.optim.Optimizer:
        """AdamW; weight decay only for the model's matrices."""
        matrices = [parameter for parameter in self.model.parameters() if parameter.ndim >= 2]
        vectors = [parameter for parameter in self.model.parameters() if parameter.ndim < 2]
        groups = [
            {"params": matrices, "weight_decay": self.recipe.weight_decay},
            {"params": [*vectors, *self.heads.parameters()], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self.recipe.learning_rate, betas=(0.9, 0.98))

    def run(self, log_every: int = 50) -> Clock:
        """Train to the end of the recipe."""
        self.model.train()
        clock = Clock(self.recipe)
        while clock.progress < 1:
            for group in self.optimizer.param_groups:
                group["lr"] = clock.learning_rate
            loss = self.vision_loss() if clock.vision_only else self.joint_loss(clock.heads_weight)
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            clock.step += 1
            if clock.step % log_every == 0:
                place = f"step {clock.step}, {clock.progress:.0%}, {clock.cpu_seconds:.0f} CPU s"
                print(place, self.tally.flush(), flush=True)
        self.model.eval()
        return clock

    def vision_loss(self) -> Tensor:
        """Loss of the heads on new pictures."""
        _, pictures, labels = batches.draw_scenes(self.recipe.pictures, self.rng)
        return self.heads_loss(self.forward.vision(self.forward.pixels(pictures)), labels)

    def joint_loss(self, heads_weight: float) -> Tensor:
        """Loss of the answers to questions about new pictures, plus the weighted loss of the heads."""
        recipe = self.recipe
        scenes, pictures, labels = batches.draw_scenes(recipe.pictures, self.rng)
        rows = [
            batches.draw_row(
                scene, self.encoder, self.rng, open_=recipe.open_questions, options=recipe.option_questions
            )
            for scene in scenes
        ]
        batch = batches.pack(rows, self.encoder, self.forward)
        features = self.forward.vision(self.forward.pixels(pictures))
        logits = target_logits(self.forward, batch, features)
        loss = functional.cross_entropy(logits, batch.target_ids)
        self._count_hits(logits, batch)
        self.tally.add("loss", loss.item())
        return loss + heads_weight * self.heads_loss(features, labels)

    def heads_loss(self, features: Tensor, labels: Tensor) -> Tensor:
        """Mean over the question types of the heads' loss; `labels` [B, 16, question types]."""
        cells = self.forward.cells(features).flatten(0, 1)
        losses = []
        for number, question_type in enumerate(shapes.QUESTION_TYPES):
            wanted = labels[:, :, number].flatten()
            asked = wanted != batches.NOT_ASKED
            scores = self.heads[number](cells[asked])
            losses.append(functional.cross_entropy(scores, wanted[asked]))
            self.tally.add(f"head {question_type}", (scores.argmax(-1) == wanted[asked]).float().mean().item())
        return torch.stack(losses).mean()

    def _count_hits(self, logits: Tensor, batch: batches.Batch) -> None:
        hits = (logits.argmax(-1) == batch.target_ids).tolist()
        for kind, hit in zip(batch.kinds, hits, strict=True):
            if kind is not None:
                for name in kind:
                    self.tally.add(name, float(hit))


def target_logits(forward: PackedForward, batch: batches.Batch, features: Tensor) -> Tensor:
    """[T, vocabulary]: the logits where the targets of the batch are predicted."""
    states = forward.hidden(batch.token_ids, batch.positions, batch.allowed, features)
    return forward.logits(states.flatten(0, 1)[batch.target_index])


def difference_from_stock(processor: Any, model: Any, family: str) -> float:
    """Largest difference between answer logits of the packed forward and of the stock forward of each question alone.

    Also raises ValueError where the token ids of a prompt differ from those that the processor makes.
    """
    rng = random.Random(5)
    encoder = batches.PromptEncoder(family, processor)
    forward = packed_forward(family, processor, model)
    scenes, pictures, _ = batches.draw_scenes(2, rng)
    largest = 0.0
    with torch.no_grad():
        features = forward.vision(forward.pixels(pictures))
        rows = [batches.draw_row(scene, encoder, rng, open_=2, options=2) for scene in scenes]
        batch = batches.pack(rows, encoder, forward)
        packed = target_logits(forward, batch, features)[::2].view(len(rows), -1, model.config.text_config.vocab_size)
        for row, picture, answers in zip(rows, pictures, packed, strict=True):
            for ids, answer in zip(row.question_ids, answers, strict=True):
                text = encoder.prefix_text + processor.tokenizer.decode(ids)
                inputs = processor(text=[text], images=[picture], return_tensors="pt", add_special_tokens=False)
                if inputs["input_ids"][0].tolist() != [*encoder.prefix_ids, *ids]:
                    raise ValueError(f"{family}: the processor gives other token ids than training for {text!r}")
                stock = model(**inputs).logits[0, -1]
                largest = max(largest, (stock - answer).abs().max().item())
    return largest


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", required=True, choices=prompts.FAMILIES)
    parser.add_argument("--out", required=True, type=Path, help="folder of the checkpoint")
    parser.add_argument("--minutes", type=float, help="length in minutes of wall clock")
    parser.add_argument("--steps", type=int, help="length in steps, the vision steps included")
    parser.add_argument("--vision-steps", type=int, help="how many of the steps train the vision tower alone")
    parser.add_argument("--stop-after", type=int, help="stop at this step of the schedule that --steps makes")
    parser.add_argument("--cool-down", type=int, default=0, help="steps before it over which the learning rate falls")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    try:
        recipe = Recipe(
            family=given.family,
            seed=given.seed,
            steps=given.steps,
            vision_steps=given.vision_steps,
            stop_after=given.stop_after,
            cool_down=given.cool_down,
            minutes=given.minutes,
        )
    except ValueError as error:
        parser.error(str(error))
    trainer = Trainer(recipe)
    difference = difference_from_stock(trainer.processor, trainer.model, recipe.family)
    print(f"{recipe.family}: packed forward differs from stock by at most {difference:.1e}", flush=True)
    if difference > 1e-3:
        raise ValueError(f"{recipe.family}: packed forward differs from stock by {difference:.1e}, allowed is 1e-3")
    clock = trainer.run()
    checkpoints.save_checkpoint(given.out, trainer.processor, trainer.model)
    record = training_record(recipe, clock, trainer.model)
    (given.out / "TRAINING.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(f"trained {clock.step} steps in {clock.cpu_seconds:.0f} CPU seconds -> {given.out}")


def training_record(recipe: Recipe, clock: Clock, model: Any) -> dict[str, Any]:
    """What TRAINING.json says before anything is measured."""
    import tokenizers
    import transformers

    return {
        "command": f"python -m vlmeval.demo.train --family {recipe.family} --out DIR"
        + (f" --minutes {recipe.minutes}" if recipe.minutes is not None else "")
        + (f" --steps {recipe.steps} --vision-steps {recipe.vision_steps}" if recipe.steps is not None else "")
        + (f" --stop-after {recipe.stop_after} --cool-down {recipe.cool_down}" if recipe.stop_after is not None else "")
        + f" --seed {recipe.seed}",
        "recipe": asdict(recipe),
        "steps": clock.step,
        "cpu_seconds": round(clock.cpu_seconds),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__,
        },
    }


if __name__ == "__main__":
    main()

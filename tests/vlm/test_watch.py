"""float16 that overflows ends the run with advice before anything is recorded; healthy runs answer as ever."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from vlmeval.cli.main import main
from vlmeval.config import DEMO_FOLDER, resolve_model
from vlmeval.errors import PrecisionError, SampleError
from vlmeval.inference.answering import answer, requests
from vlmeval.inference.journal import Journal, read_journal
from vlmeval.types import Answer, Message, Sample, Task, TextPart
from vlmeval.vlm.base import BaseModel
from vlmeval.vlm.transformers_model import TransformersModel
from vlmeval.vlm.watch import RUN_NOTE, WATCHED_ANSWERS, AnswerWatch, LogitsCheck, NotFiniteError, is_run

HEALTHY = DEMO_FOLDER / "Qwen2-VL-Tiny"
TASK = Task(name="any", type="VQA")
NEW_TOKENS = 20
Weights = dict[str, torch.Tensor]


def scale(weights: Weights, ending: str, factor: float) -> None:
    (name,) = (name for name in weights if name.endswith(ending))
    weights[name] *= factor


def overflowing(weights: Weights) -> None:
    """The same function, exactly, in float32: what goes between the two matrices is too large for float16."""
    scale(weights, "layers.1.mlp.up_proj.weight", 2.0**17)
    scale(weights, "layers.1.mlp.down_proj.weight", 2.0**-17)


def vanishing(weights: Weights) -> None:
    """The same answers in float32; in float16 the last norm is 0, so all logits are, and token 0 is first."""
    scale(weights, "model.norm.weight", 2.0**-40)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Callable[[Weights], None]], Path]:
    """The embedded trained model with other weights, in a folder of its own."""
    written: dict[str, Path] = {}

    def get(change: Callable[[Weights], None]) -> Path:
        if change.__name__ not in written:
            folder = written[change.__name__] = tmp_path_factory.mktemp("weights") / change.__name__
            shutil.copytree(HEALTHY, folder)
            weights = {name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()}
            change(weights)
            save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return written[change.__name__]

    return get


def model_of(folder: Path, dtype: str = "float16", **arguments: Any) -> TransformersModel:
    model = resolve_model(str(folder))(dtype=dtype, **{"max_new_tokens": NEW_TOKENS, **arguments})
    assert isinstance(model, TransformersModel)
    model.load()
    return model


def run(folder: Path, work_dir: Path, *flags: str) -> int:
    base = ["--model", str(folder), "--data", "ShapesBench", "--limit", "8", "--max-new-tokens", str(NEW_TOKENS)]
    return main([*base, "--work-dir", str(work_dir), *flags])


def recorded(work_dir: Path) -> dict[Any, str]:
    found = {}
    for journal in work_dir.glob("*/T*/*.jsonl"):
        found.update({index: prediction.prediction for index, prediction in read_journal(journal).items()})
    return found


@pytest.fixture(scope="module")
def healthy_answers(tmp_path_factory: pytest.TempPathFactory) -> dict[Any, str]:
    """In float32, as the checkpoint was trained."""
    work_dir = tmp_path_factory.mktemp("healthy")
    assert run(HEALTHY, work_dir, "--dtype", "float32") == 0
    return recorded(work_dir)


def test_a_healthy_float16_run_is_not_stopped(tmp_path: Path, healthy_answers: dict[Any, str]) -> None:
    assert run(HEALTHY, tmp_path, "--dtype", "float16") == 0
    answers = recorded(tmp_path)
    assert len(answers) == 8
    assert sum(answers[index] == text for index, text in healthy_answers.items()) >= 7


@pytest.mark.parametrize("batch_size", ["1", "8"])
def test_nan_ends_the_run_with_advice_and_an_empty_journal(
    tmp_path: Path,
    batch_size: str,
    checkpoint: Callable[..., Path],
    healthy_answers: dict[Any, str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = checkpoint(overflowing)
    assert run(folder, tmp_path, "--dtype", "float16", "--batch-size", batch_size) == 1
    told = " ".join(capsys.readouterr().err.split())
    for part in (
        f"{folder} (float16, sdpa attention on cpu",
        "572 of 572 logits are NaN or infinite at new token 1",
        "the first such number comes out of model.language_model.layers.1.mlp.up_proj (Linear, given numbers up to ",
        f"in one of the first {batch_size} answers",
        "nothing is recorded",
        "--dtype bfloat16",
        "--dtype float32 (weights of 4.",
        "AUTO_SPLIT=1",
        "--attention eager",
    ):
        assert part in told
    assert recorded(tmp_path) == {}
    if batch_size == "8":  # once is enough
        assert run(folder, tmp_path, "--dtype", "float32") == 0
        assert recorded(tmp_path) == healthy_answers


@pytest.mark.parametrize("batch_size", ["1", "8"])
def test_runs_of_one_token_end_the_run_and_none_is_recorded(
    tmp_path: Path,
    batch_size: str,
    checkpoint: Callable[..., Path],
    healthy_answers: dict[Any, str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = checkpoint(vanishing)
    assert run(folder, tmp_path, "--dtype", "float16", "--batch-size", batch_size) == 1
    told = " ".join(capsys.readouterr().err.split())
    count = 5 if batch_size == "1" else 8
    assert f"{count} of the first {count} answers are one token over and over (at least 16 in a row" in told
    assert "--dtype float32" in told
    assert recorded(tmp_path) == {}
    if batch_size == "8":  # once is enough
        assert run(folder, tmp_path, "--dtype", "float32") == 0
        assert recorded(tmp_path) == healthy_answers


def test_few_samples_are_judged_at_their_end(tmp_path: Path, checkpoint: Callable[..., Path]) -> None:
    folder = checkpoint(vanishing)
    assert run(folder, tmp_path / "three", "--dtype", "float16", "--limit", "3") == 1
    assert recorded(tmp_path / "three") == {}
    # Two might be two hard samples, the last of a long run: they are recorded, with a note.
    assert run(folder, tmp_path / "two", "--dtype", "float16", "--limit", "2") == 0
    (journal,) = (tmp_path / "two").glob("*/T*/*.jsonl")
    assert [p.notes for p in read_journal(journal).values()] == [(RUN_NOTE,)] * 2


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_other_types_are_watched_for_nan_only(dtype: str, checkpoint: Callable[..., Path]) -> None:
    def broken(weights: Weights) -> None:
        scale(weights, "model.norm.weight", float("nan"))

    def zero(weights: Weights) -> None:
        scale(weights, "model.norm.weight", 0.0)

    with pytest.raises(PrecisionError, match=f"{dtype}.*logits are NaN.*may be damaged|{dtype}.*is damaged: fetch"):
        model_of(checkpoint(broken), dtype).generate(["Hello"])
    model = model_of(checkpoint(zero), dtype)
    for _ in range(WATCHED_ANSWERS):
        assert model.generate(["Hello"]) != ""
    assert not model.is_in_doubt()


def test_sampling_is_stopped_before_it_draws_from_nan(checkpoint: Callable[..., Path]) -> None:
    with pytest.raises(PrecisionError, match="NaN or infinite at new token 1"):
        model_of(checkpoint(overflowing), do_sample=True).generate(["Hello"])


def test_after_the_first_answers_a_sample_with_nan_fails_alone(checkpoint: Callable[..., Path]) -> None:
    model = model_of(HEALTHY, max_new_tokens=2)
    for _ in range(WATCHED_ANSWERS):
        model.generate(["What is two plus two?"])
    assert not model.watch.is_on
    layer = model.model.model.language_model.layers[1].mlp.up_proj
    layer.weight.data *= 60_000
    with pytest.raises(SampleError, match=r"^logits are NaN or infinite.*layers\.1\.mlp.*no answer to be trusted"):
        model.generate(["What is two plus two?"])


def test_watched_answers_are_those_of_an_unwatched_model(monkeypatch: pytest.MonkeyPatch) -> None:
    prompts: list[list[Message]] = [[{"type": "text", "value": text}] for text in ("Hello", "What is two plus two?")]
    watched = model_of(HEALTHY)
    assert watched.watch.is_on
    unwatched = model_of(HEALTHY)
    unwatched.watch.seen = WATCHED_ANSWERS
    unwatched.watch._is_settled = True
    unwatched.watch.dtype = "float32"
    assert watched.generate_batch(prompts, TASK) == unwatched.generate_batch(prompts, TASK)


class Looked:
    """A model of which only the answers are looked at."""

    dtype = torch.float16
    config = generation_config = type("Config", (), {"eos_token_id": [1, 2], "pad_token_id": 0})()

    def parameters(self) -> list[torch.Tensor]:
        return [torch.zeros(4, dtype=torch.float16)]


RUN, TEXT = [7] * 16, [7, 8, 9]


def looked_at(rows: Sequence[Sequence[int]]) -> AnswerWatch:
    watch = AnswerWatch(Looked(), "it")
    for row in rows:
        watch.noted([Answer(text="")], torch.tensor([row]))
    return watch


def test_the_first_answers_decide_as_soon_as_they_can() -> None:
    assert not looked_at([TEXT, TEXT]).is_in_doubt()
    assert looked_at([TEXT, RUN]).is_in_doubt()
    settled = looked_at([RUN, TEXT, TEXT, TEXT, TEXT])
    assert (settled.is_in_doubt(), settled.is_on) == (False, False)
    assert looked_at([RUN, RUN, RUN, TEXT, TEXT, TEXT]).is_in_doubt()
    assert not looked_at([RUN, RUN, RUN, TEXT, TEXT, TEXT]).is_in_doubt(at_end=True)
    assert not looked_at([RUN] * 4 + [TEXT] * 4).is_in_doubt()
    with pytest.raises(PrecisionError, match="5 of the first 6 answers"):
        looked_at([RUN, TEXT, RUN, RUN, RUN, RUN])
    with pytest.raises(PrecisionError, match="3 of the first 5"):
        looked_at([RUN, TEXT, RUN, TEXT, RUN]).is_in_doubt(at_end=True)


def test_what_is_a_run() -> None:
    assert is_run([7] * 8 + [1, 0, 0], ends=(0, 1))
    assert is_run([0] * 8, ends=(0, 1))  # nothing but padding
    assert is_run([1, 2, *[7] * 16, 3])
    assert not is_run([7] * 7)
    assert not is_run([7] * 15 + [8])
    assert not is_run([8, 9, *[0] * 40], ends=(0,))
    assert not is_run([])


class Waiting(BaseModel):
    """Answers from a list, held in doubt until the third; what waits is not recorded if the run ends."""

    def __init__(self, stops: bool) -> None:
        self.said = 0
        self.stops = stops

    def settings(self) -> dict[str, Any]:
        return {}

    def use_custom_prompt(self, task: Task) -> bool:
        return False

    def seed(self, value: int) -> None:
        pass

    def generate_batch(self, batch: Sequence[list[Message]], task: Task | None = None) -> list[Answer]:
        self.said += len(batch)
        if self.stops and self.said > 3:
            raise PrecisionError("most of them")
        return [Answer(text="B")] * len(batch)

    def is_in_doubt(self, *, at_end: bool = False) -> bool:
        return not at_end and (self.stops or self.said < 3) and self.said > 1


class Bench:
    task = TASK

    def build_prompt(self, sample: Sample) -> list[Message]:
        return [TextPart(type="text", value=sample.question)]


@pytest.mark.parametrize(("stops", "expected"), [(False, [0, 1, 2, 3, 4]), (True, [0])])
def test_answers_in_doubt_wait_for_the_decision(tmp_path: Path, stops: bool, expected: list[int]) -> None:
    model = Waiting(stops)
    pending = list(requests(model, Bench(), [Sample(index=i, question=f"{i}?") for i in range(5)]))
    path, counts = tmp_path / "journal.jsonl", []
    with Journal(path) as journal:

        def on_finished(_: object) -> None:
            counts.append(model.said)

        try:
            answer(model, TASK, pending, journal, batch_size=1, seed=0, on_finished=on_finished)
        except PrecisionError:
            assert stops
    assert list(read_journal(path)) == expected
    assert counts == ([1] if stops else [1, 3, 3, 4, 5])


def test_forbidden_tokens_and_finished_rows_are_no_fault() -> None:
    check = LogitsCheck((1,), stops_at_once=True)
    ids, scores = torch.tensor([[5, 6], [5, 6]]), torch.tensor([[0.0, -torch.inf], [1.0, 2.0]])
    assert check(ids, scores) is scores
    ended = torch.tensor([[5, 6, 7], [5, 6, 1]])
    check(ended, torch.tensor([[0.0, 1.0], [torch.nan, 1.0]]))
    for bad in ([torch.nan, 0.0], [torch.inf, 0.0], [-torch.inf, -torch.inf]):
        with pytest.raises(NotFiniteError, match="at new token 2"):
            check(ended, torch.tensor([bad, [0.0, 0.0]]))

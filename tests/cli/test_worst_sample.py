"""The worst sample as the command line finds it: from files that are here, flags, or what is assumed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import conversations
from tests.dataset.tsv_files import row, write_tsv
from vlmeval.cli.main import main
from vlmeval.cli.samples_seen import SamplesSeen, Seen
from vlmeval.cli.worst_sample import Given, new_tokens, workload_of
from vlmeval.config import supported_VLM
from vlmeval.dataset import Dataset, open_dataset
from vlmeval.errors import UsageError
from vlmeval.placement.cost_model import Workload
from vlmeval.placement.cutting import ImageTokens
from vlmeval.placement.known import known_model
from vlmeval.types import Task
from vlmeval.vlm.prompt_length import PromptLength

from .pictures import picture_cell


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AUTO_SPLIT", "WORLD_SIZE", "RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "profiles"))
    monkeypatch.setenv("VLMEVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LMUData", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))


def planned(capsys: pytest.CaptureFixture[str], *arguments: str, model: str = "Qwen2-VL-7B-Instruct") -> dict[str, Any]:
    main(["plan", "--model", model, "--cards", "2x48", "--json", *arguments])
    return json.loads(capsys.readouterr().out)


def mixed(folder: Path, name: str = "Mine") -> Path:
    """A large image with a short question, and a small one with a long question."""
    rows = [
        row("wide", image=picture_cell(2800, 280), question="What?"),
        row("wordy", image=picture_cell(300, 300), question="word " * 600),
        *(row(f"plain{n}", image=picture_cell(100, 100)) for n in range(3)),
    ]
    return write_tsv(folder / f"{name}.tsv", rows)


def work_of(name: str, *datasets: Dataset, **more: Any) -> tuple[Workload, tuple[str, ...]]:
    spec = supported_VLM[name]
    known = known_model(spec.source)
    assert known is not None
    arguments = more.pop("arguments", {})
    return workload_of(spec(**arguments), known.config, datasets, **more)


def test_the_plan_names_the_samples_that_decide(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = str(mixed(tmp_path))
    found = planned(capsys, "--data", path, "--model-args", "min_pixels=3136")
    work = found["workload"]
    assert (work["image_tokens"], work["vision_tokens"]) == (1000, 4000)
    # The longest prompt is the wordy one: 3,000 bytes of question and 121 image tokens.
    assert 3121 < work["text_tokens"] + work["image_tokens"] < 3121 + 400
    first, second, third = found["worst_sample"]
    assert first == "most to see: sample wide of Mine, 2800x280"
    assert second.startswith("longest prompt: sample wordy of Mine, 300x300, at most 3")
    assert "tokenizer is not here" in third


def test_a_benchmark_that_is_not_here_is_assumed_and_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    found = planned(capsys, "--data", "MMBench_DEV_EN")
    assert (found["workload"]["image_tokens"], found["workload"]["text_tokens"]) == (16384, 512)
    assert found["worst_sample"] == [
        "MMBench_DEV_EN is not here: the largest image allowed, 512 text tokens assumed"
    ]  # fmt: skip
    mixed(tmp_path, "MMBench_DEV_EN")
    here = planned(capsys, "--data", "MMBench_DEV_EN")
    assert here["workload"]["image_tokens"] < 2000
    both = planned(capsys, "--data", "MMBench_DEV_EN", "MMStar")
    assert both["workload"]["image_tokens"] == 16384
    assert "MMStar is not here" in both["worst_sample"][-1]


def test_flags_win_over_what_the_files_hold(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    data = ["--data", str(mixed(tmp_path)), "--model-args", "min_pixels=3136"]
    image = planned(capsys, *data, "--image", "560x560")["workload"]
    assert image["image_tokens"] == 400
    assert image["text_tokens"] > 3000
    two = planned(capsys, *data, "--image", "560x560", "--images", "2", "--prompt-tokens", "99")
    assert (two["workload"]["image_tokens"], two["workload"]["text_tokens"]) == (800, 99)
    assert two["worst_sample"] == []
    text = planned(capsys, *data, "--prompt-tokens", "99")["workload"]
    assert (text["image_tokens"], text["text_tokens"]) == (1000, 99)
    largest = planned(capsys, *data, "--images", "2")["workload"]
    assert largest["image_tokens"] == 2 * 16384
    assert planned(capsys, *data, "--images", "0")["workload"]["vision_tokens"] == 0


def test_files_that_are_here_are_read_offline_and_without_torch(tmp_path: Path) -> None:
    path = mixed(tmp_path)
    code = (
        "import sys\nfrom vlmeval.cli.main import main\n"
        f"main('plan --model Qwen2-VL-7B-Instruct --data {path} MMBench_DEV_EN --cards 8x24'.split())\n"
        "print([name for name in ('torch', 'transformers', 'requests') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_file_that_is_no_benchmark_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "Empty.tsv").write_text("index\timage\tquestion\n")
    assert (
        main(["plan", "--model", "Qwen2-VL-7B-Instruct", "--cards", "24", "--data", str(tmp_path / "Empty.tsv")]) == 1
    )
    assert "has a header and no rows" in capsys.readouterr().err


def test_broken_refused_and_too_large_images_are_left_out(tmp_path: Path) -> None:
    rows = [
        row("line", image=picture_cell(30_000, 20)),
        row("none", image=""),
        row("broken", image="QUJD" * 40),
        row("huge", image=picture_cell(1200, 1200)),
        row("fine", image=picture_cell(280, 280)),
    ]
    dataset = open_dataset(write_tsv(tmp_path / "Mine.tsv", rows))
    limits = {"min_pixels": 3136, "max_image_pixels": 1_000_000}
    work, notes = work_of("Qwen2-VL-7B-Instruct", dataset, arguments=limits)
    assert work.image_tokens == 100
    assert notes[0].startswith("sample fine of Mine: 280x280")
    assert notes[-1] == "Mine: left out 2 samples whose images are refused as too large or narrow"
    # InternVL takes the line: one row of six tiles, and the whole.
    assert work_of("InternVL2-8B", dataset)[0].vision_tokens == 7 * 1025


def test_where_no_sample_can_be_answered_the_largest_is_assumed(tmp_path: Path) -> None:
    dataset = open_dataset(write_tsv(tmp_path / "Mine.tsv", [row(0, image=""), row(1, image="99")]))
    work, notes = work_of("Qwen2-VL-7B-Instruct", dataset)
    assert (work.image_tokens, work.text_tokens) == (16384, 512)
    assert notes[0] == "Mine: no sample has images that can be read"


def test_only_the_rows_of_a_limit_count(tmp_path: Path) -> None:
    rows = [row(n, image=picture_cell(100 * (n + 1), 100)) for n in range(6)]
    dataset = open_dataset(write_tsv(tmp_path / "Mine.tsv", rows))
    _, notes = work_of("Qwen2-VL-7B-Instruct", dataset.head(2), arguments={"min_pixels": 3136})
    assert "200x100" in notes[0]
    _, notes = work_of("Qwen2-VL-7B-Instruct", dataset, arguments={"min_pixels": 3136})
    assert "600x100" in notes[0]


def test_several_images_of_a_row_share_internvls_tiles(tmp_path: Path) -> None:
    cells = json.dumps([picture_cell(3000, 1500 + n) for n in range(8)])
    dataset = open_dataset(write_tsv(tmp_path / "Mine.tsv", [row("eight", image=cells)]), traits=["document"])
    work, notes = work_of("InternVL2-8B", dataset)
    # 64 // 8 tiles each at most: two by four would not fit better than 4 x 2, and the whole image follows.
    assert work.vision_tokens == 8 * 9 * 1025
    assert notes[0].startswith("sample eight of Mine: 8 images, the largest 3000x1507")


@pytest.mark.parametrize(
    ("name", "traits", "expected"),
    [("Qwen2-VL-7B-Instruct", [], 1280), ("Qwen2-VL-7B-Instruct", ["small_images"], 100),
     ("InternVL2-8B", ["fine_print"], 25 * 256), ("InternVL2-8B", [], 7 * 256)],
)  # fmt: skip
def test_what_a_task_asks_of_the_family_is_honoured(
    tmp_path: Path, name: str, traits: list[str], expected: int
) -> None:
    size = (50, 50) if name.startswith("Qwen") else (1000, 1000 * 24 if traits else 6000)
    path = write_tsv(tmp_path / "Mine.tsv", [row(0, image=picture_cell(*size))])
    work, _ = work_of(name, open_dataset(path, traits=traits))
    assert work.image_tokens == pytest.approx(expected, rel=0.02)


def test_new_tokens_are_those_asked_for_then_the_tasks_then_the_models() -> None:
    choice, reasoning = Task(name="x", type="MCQ"), Task(name="y", type="VQA", traits=frozenset({"reasoning"}))
    llama = supported_VLM["Llama-3.2-11B-Vision-Instruct"]
    assert [new_tokens(llama(), task) for task in (choice, reasoning, None)] == [128, 2048, 512]
    assert new_tokens(llama(max_new_tokens=7), reasoning) == 7
    assert new_tokens(supported_VLM["InternVL2-8B"](), choice) == 4096
    work, notes = work_of("Llama-3.2-11B-Vision-Instruct", absent=[choice, reasoning], arguments={"num_beams": 3})
    assert (work.new_tokens, work.batch) == (2048, 3)
    assert "3 beams" in notes[-1]


def test_flags_that_mean_nothing_are_told() -> None:
    for wrong in ({"images": -1}, {"image": (0, 5)}, {"text_tokens": 0}):
        with pytest.raises(UsageError):
            Given(**wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="30000x20 pixels is refused"):
        work_of("Qwen2-VL-7B-Instruct", given=Given(image=(30_000, 20)))


class Words(PromptLength):
    """A tokenizer whose tokens are words, and whose bound is their letters."""

    def __init__(self) -> None:
        super().__init__(None, "")
        self.counted = 0

    def count(self, text: str, images: int) -> int:
        """Counts the calls too."""
        self.counted += 1
        return len(text.split())


def seen(text: str, image_tokens: int = 0) -> Seen:
    return Seen(name=text[:9], sizes=(), images=ImageTokens(image_tokens=image_tokens), bound=len(text), text=text)


def test_the_longest_prompt_is_found_with_few_counts_and_never_underestimated() -> None:
    texts = ["x" * 90, "a b c d e f g h", "a " * 30, *("y" * (10 + n) for n in range(30))]
    all_kept, lengths = SamplesSeen(), Words()
    for text in texts:
        all_kept.add(seen(text))
    found = all_kept.longest_prompt(lengths)
    assert (found.text_tokens, found.counted, lengths.counted) == (30, True, 2 + 9)
    few = SamplesSeen(most_counted=1)
    for text in texts:
        few.add(seen(text))
    found = few.longest_prompt(Words())
    assert (found.text_tokens, found.counted) == (60, False)
    images = SamplesSeen()
    for sample in (seen("a b c", 50), seen("a b c d", 40)):
        images.add(sample)
    assert images.longest_prompt(Words()).length == 53


def test_conversations_count_by_the_turn_with_the_longest_history(tmp_path: Path) -> None:
    path = conversations.write(tmp_path / "MMDU.tsv", conversations.rows([1, 5]))
    limits = {"max_new_tokens": 100}
    work, notes = work_of("Qwen2-VL-7B-Instruct", open_dataset(path), arguments=limits)
    assert work.new_tokens == 100
    assert notes[0].startswith("sample 1 of MMDU (turn 3): 56x48, ")
    assert work.text_tokens > 2 * 100
    assert any("248 of these are room for the model's earlier answers at their longest" in note for note in notes)
    longer, _ = work_of("Qwen2-VL-7B-Instruct", open_dataset(path), arguments={"max_new_tokens": 1000})
    assert longer.text_tokens - work.text_tokens == 2 * 900
    _, told = work_of("Qwen2-VL-7B-Instruct", absent=[Task(name="MMDU", type="MT")])
    assert told[0] == "MMDU is not here: the largest image allowed, 512 text tokens, one turn assumed"


def test_an_image_that_is_cut_finer_while_it_is_alone_decides_by_the_first_turn(tmp_path: Path) -> None:
    """LLaVA-OneVision: tiles for one image, none for two."""
    cells = conversations.rows([3])[0]
    large = f"[{json.dumps(picture_cell(1600, 1600))}, {json.dumps(picture_cell(100, 100))}]"
    both = conversations.write(tmp_path / "MMDU.tsv", [{**cells, "image": large}])
    work, _ = work_of("llava-onevision-qwen2-7b-ov-hf", open_dataset(both), arguments={"max_new_tokens": 8})
    assert work.vision_tokens > 3 * 729, "the first turn's, not the second's of two images"

"""InternVL2: what it asks for and how often it cuts an image, without any model."""

from __future__ import annotations

import subprocess
import sys

import pytest

from vlmeval.config import supported_VLM
from vlmeval.errors import ModelError, UsageError
from vlmeval.types import Message, Sample, Task, TaskType
from vlmeval.vlm.internvl2 import InternVLChat, _check_transformers, task_text, tile_limit
from vlmeval.vlm.internvl2_templates import TEMPLATES, find_template

OLD_SYSTEM = (
    "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, 是一个有用无害的人工智能助手。"
)
NEW_SYSTEM = (
    "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"
)


def task(kind: TaskType, *traits: str) -> Task:
    return Task(name="any", type=kind, traits=frozenset(traits))


def test_importing_the_class_imports_neither_torch_nor_transformers() -> None:
    code = "import sys, vlmeval.vlm.internvl2; print({'torch', 'transformers', 'tokenizers'} & set(sys.modules))"
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert printed.strip() == "set()"


@pytest.mark.parametrize(
    ("traits", "images", "limit"),
    [
        ((), 1, 6),
        (("chart",), 1, 12),
        (("image_markers",), 1, 12),
        (("document",), 1, 18),
        (("fine_print",), 1, 24),
        (("circular", "multi_image"), 1, 6),
        ((), 11, 5),
        (("fine_print",), 4, 16),
        (("fine_print",), 100, 1),
        ((), 0, 6),
    ],
)
def test_tiles_follow_the_declared_traits_within_64_for_all_images(
    traits: tuple[str, ...], images: int, limit: int
) -> None:
    assert tile_limit(task("VQA", *traits), images) == limit


def test_asked_tiles_win_over_the_task_and_stay_within_the_total() -> None:
    assert tile_limit(None, 1) == 6
    assert tile_limit(task("VQA", "fine_print"), 1, asked=2) == 2
    assert tile_limit(None, 8, asked=40) == 8


@pytest.mark.parametrize("max_tiles", [0, -1, True, 2.5, "6"])
def test_a_number_of_tiles_that_is_none_is_refused(max_tiles: object) -> None:
    with pytest.raises(UsageError, match="max_tiles"):
        InternVLChat("/nowhere", max_tiles=max_tiles)  # type: ignore[arg-type]


def test_upstreams_version_is_taken_and_an_older_one_refused() -> None:
    InternVLChat("/nowhere", version="V2.0")
    with pytest.raises(UsageError, match=r"V1\.5"):
        InternVLChat("/nowhere", version="V1.5")


OPTIONS = {"A": "red", "B": "blue"}
LETTER = "\nAnswer with the option's letter from the given choices directly."


@pytest.mark.parametrize(
    ("sample", "kind", "traits", "text"),
    [
        (Sample(index=1, question="Q?", options=OPTIONS), "MCQ", (), "Q?\nA. red\nB. blue" + LETTER),
        (Sample(index=1, question="Q?", hint="H.", options=OPTIONS), "MCQ", (), "H.\nQ?\nA. red\nB. blue" + LETTER),
        (Sample(index=1, question="什么?", options=OPTIONS), "MCQ", (), "什么?\nA. red\nB. blue\n请直接回答选项字母。"),
        (Sample(index=1, question="Q?"), "MCQ", (), "Q?\nAnswer the question directly."),
        (Sample(index=1, question="什么?"), "MCQ", (), "什么?\n请直接回答问题。"),
        (Sample(index=1, question="Q?"), "Y/N", (), "Q?"),
        (Sample(index=1, question="Q?"), "Y/N", ("yes_no_suffix",), "Q?"),
        (Sample(index=1, question="Q?"), "Y/N", ("one_word",), "Q? Answer the question using a single word or phrase."),
        (
            Sample(index=1, question="Q?"),
            "Y/N",
            ("yes_no_suffix", "one_word"),
            "Q? Please answer yes or no. Answer the question using a single word or phrase.",
        ),
        (Sample(index=1, question="Q?"), "VQA", (), "Q?\nAnswer the question using a single word or phrase."),
        (
            Sample(index=1, question="Q?"),
            "VQA",
            ("short_answer", "document"),
            "Q?\nAnswer the question using a single word or phrase.",
        ),
        (Sample(index=1, question="Q?"), "VQA", ("judge",), "Q?"),
        (Sample(index=1, question="Q?"), "VQA", ("judge", "detailed"), "Q?\nAnswer this question in detail."),
    ],
)
def test_the_wording_follows_task_type_and_traits(
    sample: Sample, kind: TaskType, traits: tuple[str, ...], text: str
) -> None:
    assert task_text(sample, task(kind, *traits)) == text


def test_prompts_of_the_four_templates_to_the_letter() -> None:
    turns = [("user", "Hi"), ("assistant", "Yes."), ("user", "More")]
    said = "<|im_start|>user\nHi<|im_end|><|im_start|>assistant\nYes.<|im_end|><|im_start|>user\nMore<|im_end|>"
    for name in ("Hermes-2", "internlm2-chat"):
        start = f"<|im_start|>system\n{OLD_SYSTEM}<|im_end|>"
        assert TEMPLATES[name].prompt(turns) == start + said + "<|im_start|>assistant\n"
    phi3 = TEMPLATES["phi3-chat"].prompt([("user", "Hi")])
    assert phi3 == f"<|system|>\n{OLD_SYSTEM}<|end|><|user|>\nHi<|end|><|assistant|>\n"
    newer = TEMPLATES["internvl2_5"].prompt([("user", "Hi")])
    assert newer == (
        f"<|im_start|>system\n{NEW_SYSTEM}<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    assert TEMPLATES["internvl2_5"].stop_token == "<|im_end|>"
    assert (
        TEMPLATES["internvl2_5"].prompt([("user", "Hi")], "Be brief.").startswith("<|im_start|>system\nBe brief.<|im")
    )


def test_an_unknown_template_is_answered_with_the_nearest() -> None:
    with pytest.raises(ModelError, match=r"'internvl2_6'.*nearest: internvl2_5"):
        find_template("internvl2_6", "/folder")
    with pytest.raises(ModelError, match="phi3-chat"):
        find_template(None, "/folder")


def test_every_registered_name_makes_a_model_of_this_class_from_its_hub_id() -> None:
    names = [name for name in supported_VLM if name.startswith("InternVL") and "Tiny" not in name]
    assert len(names) > 40
    for name in names:
        model = supported_VLM[name]()
        assert isinstance(model, InternVLChat)
        assert model.model_path.startswith("OpenGVLab/InternVL")
        assert model.generation == {"do_sample": False, "max_new_tokens": 4096}
    assert supported_VLM["InternVL2-76B"].source == "OpenGVLab/InternVL2-Llama3-76B"


def test_the_prompt_shows_images_before_the_question() -> None:
    model = InternVLChat("/nowhere")
    sample = Sample(index=1, question="Q?", options=OPTIONS)
    assert model.use_custom_prompt(task("MCQ"))
    assert not InternVLChat("/nowhere", use_custom_prompt=False).use_custom_prompt(task("MCQ"))
    parts: list[Message] = model.build_prompt(sample, task("MCQ"))
    assert [part["type"] for part in parts] == ["text"]


def test_a_transformers_too_old_for_original_folders_is_told() -> None:
    for enough in ("5.9.0", "5.23.0", "6.0.0.dev0"):
        _check_transformers(enough, "/folder")
    with pytest.raises(ModelError, match=r"needs transformers 5\.9 or later; installed is 5\.0\.0"):
        _check_transformers("5.0.0", "/folder")

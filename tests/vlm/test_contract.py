"""What every family promises, on tiny random checkpoints in fp32: loading, batches, order, determinism, overrides."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from PIL.Image import Image as PILImage
from safetensors.torch import load_file, save_file

from tests.prompt_parts import part_of
from vlmeval.config import resolve_model
from vlmeval.errors import ModelError, SampleError
from vlmeval.types import Message, Task
from vlmeval.vlm.transformers_model import TransformersModel

from . import tiny_families

FAMILIES = tuple(tiny_families.BUILDERS)
Models = Callable[[str], TransformersModel]
Folders = Callable[[str], Path]


def picture(width: int, height: int, seed: int) -> PILImage:
    """Random pixels in blocks: pictures of different seeds are plainly different."""
    pixels = torch.randint(0, 256, (4, 4, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return Image.fromarray(pixels.numpy()).resize((width, height), Image.Resampling.NEAREST)


def prompt(*parts: str | PILImage) -> list[Message]:
    return [part_of(part) for part in parts]


ONE = prompt(picture(112, 112, 0), "what colour is the circle?")
FOUR = [
    ONE,
    prompt(picture(250, 120, 1), picture(60, 200, 2), "which of the two is larger, the first picture or the second?"),
    prompt("is there a square in this one", picture(90, 90, 3), "yes or no"),
    prompt(
        picture(300, 90, 4), "A. red\nB. blue\nC. green\nPlease select the correct answer from the options above. \n"
    ),
]
"""Different lengths, sizes and numbers of images."""


def texts(model: TransformersModel, batch: Sequence[list[Message]]) -> list[str]:
    return [answer.text for answer in model.generate_batch(batch)]


def last_logits(model: TransformersModel, batch: Sequence[list[Message]]) -> torch.Tensor:
    with torch.inference_mode():
        return model.model(**model.prepare(batch)).logits[:, -1]


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_folder_is_run_by_transformers_own_class_in_fp32(family: str, model_of: Models, folder_of: Folders) -> None:
    model = model_of(family)
    assert type(model.model).__module__.startswith("transformers.models.")
    assert model.checkpoint.folder == folder_of(family)
    assert {parameter.dtype for parameter in model.model.parameters()} == {torch.float32}
    assert model.stamp()["dtype"] == "float32" and model.stamp()["attention"] == "sdpa"


def test_one_image_several_and_none_are_answered(family: str, model_of: Models) -> None:
    for message in (ONE, FOUR[1], prompt("just a question without a picture")):
        (answer,) = model_of(family).generate_batch([message])
        assert 1 <= (answer.new_tokens or 0) <= 8 and (answer.prompt_tokens or 0) > 5


def test_a_batch_of_four_equals_one_by_one_token_for_token(family: str, model_of: Models) -> None:
    model = model_of(family)
    together, alone = model.generate_batch(FOUR), [model.generate_batch([message])[0] for message in FOUR]
    assert together == alone
    assert len({answer.text for answer in alone}) > 1, "all alike: the test would not see a mistake"
    # With as many images each: Llama-Vision puts only such prompts together.
    batch = [FOUR[0], FOUR[2], FOUR[3]]
    logits = torch.cat([last_logits(model, [message]) for message in batch])
    torch.testing.assert_close(last_logits(model, batch), logits, atol=1e-4, rtol=1e-4)


def test_a_batch_mixes_prompts_with_and_without_images(family: str, model_of: Models) -> None:
    batch = [
        prompt("no picture at all here"),
        ONE,
        prompt("nor here, but a longer question than the first one"),
        FOUR[1],
    ]
    assert model_of(family).generate_batch(batch) == [model_of(family).generate_batch([m])[0] for m in batch]


def test_the_pictures_and_their_order_matter(family: str, model_of: Models) -> None:
    first, second = picture(100, 100, 5), picture(100, 100, 6)
    batches = [prompt(*pictures, "compare") for pictures in ((first, second), (second, first), (first, first))]
    logits = [last_logits(model_of(family), [message]) for message in batches]
    for one, other in itertools.combinations(logits, 2):
        assert (one - other).abs().max() > 1e-4


def test_text_and_images_keep_their_order(family: str, model_of: Models) -> None:
    model = model_of(family)
    message = prompt("alpha ", picture(50, 50, 7), "beta ", picture(50, 50, 8), "gamma")
    rendered = model.render(message)
    mark = model.processor.image_token
    places = [rendered.index("alpha"), rendered.index(mark), rendered.index("beta")]
    places += [rendered.index(mark, places[-1]), rendered.index("gamma")]
    assert places == sorted(places) and rendered.count(mark) == 2
    tokens = model.prepare([message])["input_ids"][0].tolist()
    image_id = model.processor.tokenizer.convert_tokens_to_ids(mark)
    between = model.processor.tokenizer.decode([token for token in tokens if token != image_id])
    assert between.index("alpha") < between.index("beta") < between.index("gamma")


def test_the_system_prompt_reaches_the_prompt(family: str, folder_of: Folders, model_of: Models) -> None:
    model = resolve_model(str(folder_of(family)))(system_prompt="You are terse.", max_new_tokens=4)
    assert isinstance(model, TransformersModel)
    model.load()
    rendered = model.render(ONE)
    assert rendered.count("You are terse.") == 1
    assert rendered.index("system") < rendered.index("You are terse.") < rendered.index("what colour")
    assert "You are terse." not in model_of(family).render(ONE)
    assert model.generate_batch([ONE])[0].new_tokens


def test_greedy_is_the_default_and_the_same_twice(family: str, model_of: Models) -> None:
    # The checkpoint ships do_sample=True, temperature=0.7.
    model = model_of(family)
    assert model.model.generation_config.do_sample is False
    model.seed(1)
    first = model.generate_batch(FOUR)
    model.seed(2)
    assert model.generate_batch(FOUR) == first


def test_a_seed_repeats_what_was_sampled(family: str, folder_of: Folders) -> None:
    model = resolve_model(str(folder_of(family)))(temperature=2.0, max_new_tokens=6)

    def sampled(seed: int) -> str:
        model.seed(seed)
        return model.generate_batch([ONE])[0].text

    model.load()
    assert sampled(1) == sampled(1)
    assert sampled(1) != sampled(2)


def test_what_the_user_asks_of_generation_wins(family: str, folder_of: Folders) -> None:
    model = resolve_model(str(folder_of(family)))(max_new_tokens=3, min_new_tokens=3)
    for task in (Task(name="x", type="MCQ"), Task(name="y", type="VQA", traits=frozenset({"reasoning"}))):
        assert [answer.new_tokens for answer in model.generate_batch([ONE], task)] == [3]


def test_saved_and_loaded_again_it_answers_the_same(family: str, model_of: Models, tmp_path: Path) -> None:
    model = model_of(family)
    model.model.save_pretrained(tmp_path)
    model.processor.save_pretrained(tmp_path)
    again = resolve_model(str(tmp_path))(max_new_tokens=8)
    assert isinstance(again, TransformersModel)
    again.load()
    before, after = model.model.state_dict(), again.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert again.generate_batch(FOUR) == model.generate_batch(FOUR)


def test_weights_in_transformers_new_layout_load_as_well(family: str, model_of: Models, tmp_path: Path) -> None:
    """The hub has the layout that save_pretrained writes by default; newer checkpoints may have that of the modules."""
    model = model_of(family)
    model.model.save_pretrained(tmp_path, save_original_format=False)
    model.processor.save_pretrained(tmp_path)
    again = resolve_model(str(tmp_path))(max_new_tokens=8)
    assert [answer.text for answer in again.generate_batch(FOUR)] == texts(model, FOUR)


def test_a_checkpoint_without_a_weight_is_refused(family: str, folder_of: Folders, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(folder_of(family), folder)
    weights = load_file(folder / "model.safetensors")
    del weights[next(name for name in weights if name.endswith("post_attention_layernorm.weight"))]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 weights of the model \(.*post_attention_layernorm"):
        resolve_model(str(folder))().load()


def test_a_text_that_holds_the_image_mark_is_a_failed_sample(family: str, model_of: Models) -> None:
    mark = model_of(family).processor.image_token
    with pytest.raises(SampleError):
        model_of(family).generate_batch([prompt(picture(50, 50, 9), f"what does {mark} mean?")])


def test_a_folder_of_another_family_is_refused(model_of: Models, folder_of: Folders) -> None:
    with pytest.raises(ModelError, match=r"holds a 'mllama' model; Qwen2VLChat runs qwen2_vl, qwen2_5_vl"):
        type(model_of("qwen2_vl"))(str(folder_of("mllama"))).load()


def test_settings_name_what_may_change_an_answer(family: str, model_of: Models) -> None:
    settings = model_of(family).settings()
    assert settings["generation.max_new_tokens"] == 8 and settings["generation.do_sample"] is False
    json.dumps({**settings, **model_of(family).stamp()})

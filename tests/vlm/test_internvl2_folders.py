"""InternVL2's original folders in the native class: the same numbers, for all language models and vision towers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file

from tests.prompt_parts import part_of
from vlmeval.config import resolve_model
from vlmeval.errors import ModelError, SampleError
from vlmeval.types import Message, Task, TextPart
from vlmeval.vlm.internvl2 import InternVLChat

from .internvl_folders import LANGUAGES, NEW_ENOUGH, SIDE, TOKENS_PER_TILE, VISIONS, save_weights, write_folder

if not NEW_ENOUGH:
    pytest.skip("original folders need transformers 5.9", allow_module_level=True)

from vlmeval.vlm.internvl2_weights import InternVL2ForConditionalGeneration, load_original

Written = tuple[Path, Any]
COMBINATIONS = [(language, vision) for language in LANGUAGES for vision in VISIONS] + [("qwen3", "300M")]


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())


def prompt(*parts: str | Image.Image) -> list[Message]:
    return [part_of(part) for part in parts]


def loaded(folder: Path, **arguments: Any) -> InternVLChat:
    model = resolve_model(str(folder))(**{"max_new_tokens": 8, **arguments})
    assert isinstance(model, InternVLChat)
    model.load()
    return model


def new_tokens(model: InternVLChat, batch: list[list[Message]]) -> list[list[int]]:
    """The ids that follow each prompt, up to where the row was padded."""
    inputs = model.prepare(batch)
    with torch.inference_mode():
        output = model.model.generate(**inputs)
    pad = model.model.generation_config.pad_token_id
    return [[token for token in row if token != pad] for row in output[:, inputs["input_ids"].shape[1] :].tolist()]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Written]:
    """An original folder in three shards, and the native model it was made from. Not to be changed."""
    made: dict[tuple[str, str], Written] = {}

    def get(language: str, vision: str = "300M") -> Written:
        if (language, vision) not in made:
            folder = tmp_path_factory.mktemp("internvl2") / f"{language}-{vision}"
            made[language, vision] = folder, write_folder(folder, language, vision, shards=3)
        return made[language, vision]

    return get


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder of one file that a test may spoil."""
    write_folder(tmp_path / "InternVL2-own", "qwen2")
    return tmp_path / "InternVL2-own"


def change_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, **changes}), encoding="utf-8")


@pytest.mark.parametrize(("language", "vision"), COMBINATIONS)
def test_logits_equal_the_native_models_bit_for_bit(
    written: Callable[[str, str], Written], language: str, vision: str
) -> None:
    folder, native = written(language, vision)
    model = loaded(folder)
    inputs = model.prepare([prompt(noise(130, 60), noise(50, 70), "What is in the image?")])
    with torch.inference_mode():
        assert torch.equal(model.model(**inputs).logits, native(**inputs).logits)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_batch_of_different_lengths_and_tiles_equals_one_by_one(
    written: Callable[[str], Written], language: str
) -> None:
    model = loaded(written(language)[0])
    batch = [
        prompt(noise(60, 60), "Hi"),
        prompt(noise(300, 60, 1), "A much longer question, with more words than the others have: what is it?"),
        prompt("No image at all."),
        prompt(noise(50, 150, 2), "between", noise(80, 80, 3), "and after"),
    ]
    together = new_tokens(model, batch)
    assert together == [new_tokens(model, [message])[0] for message in batch]
    assert len(set(map(tuple, together))) > 1
    assert together == new_tokens(model, batch)
    texts = [answer.text for answer in model.generate_batch(batch)]
    assert texts == [model.generate_batch([message])[0].text for message in batch]


def test_a_device_map_with_several_entries_and_a_number_type_are_kept(
    written: Callable[[str], Written], tmp_path: Path
) -> None:
    folder, native = written("internlm2")
    model = loaded(folder)
    # Without a card, what is not on the CPU is on the disk, and brought in when its turn comes.
    places = {"model.vision_tower": "disk", "model.multi_modal_projector": "cpu",
              "model.language_model.embed_tokens": "cpu", "model.language_model.layers.0": "cpu",
              "model.language_model.layers.1": "disk", "model.language_model.norm": "cpu",
              "model.language_model.rotary_emb": "cpu", "lm_head": "cpu"}  # fmt: skip
    checkpoint, image = model.checkpoint, native.config.image_token_id
    arguments = {"device_map": places, "offload_folder": tmp_path}
    split = load_original(folder, checkpoint.config, checkpoint.weight_files, image, **arguments)
    half = load_original(folder, checkpoint.config, checkpoint.weight_files, image, dtype=torch.bfloat16)
    assert split.hf_device_map == places
    assert {weight.dtype for weight in half.parameters()} == {torch.bfloat16}
    inputs = model.prepare([prompt(noise(130, 60), "What?")])
    with torch.inference_mode():
        assert torch.equal(split(**inputs).logits, native(**inputs).logits)


def test_loading_changes_nothing_for_other_models(written: Callable[[str], Written], tmp_path: Path) -> None:
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    def rules() -> list[str]:
        names = ("internvl", "InternVLForConditionalGeneration", "InternVLModel", "llama", "qwen2", "llava")
        return [repr(get_checkpoint_conversion_mapping(name)) for name in names]

    folder, native = written("qwen2")
    native.save_pretrained(tmp_path / "before", save_original_format=False)
    before = rules()
    model = loaded(folder)
    assert rules() == before
    again = transformers.InternVLForConditionalGeneration.from_pretrained(tmp_path / "before")
    inputs = model.prepare([prompt(noise(60, 60), "Hi")])
    with torch.inference_mode():
        assert torch.equal(again(**inputs).logits, native(**inputs).logits)


@pytest.mark.parametrize("language", ["internlm2", "phi3"])
def test_a_model_that_is_saved_and_loaded_again_is_the_same(
    written: Callable[[str], Written], tmp_path: Path, language: str
) -> None:
    folder, native = written(language)
    model = loaded(folder)
    model.model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    assert set(saved) <= set(native.state_dict())
    again = transformers.InternVLForConditionalGeneration.from_pretrained(tmp_path)
    inputs = model.prepare([prompt(noise(60, 60), "Hi")])
    with torch.inference_mode():
        assert torch.equal(again(**inputs).logits, native(**inputs).logits)


def test_a_checkpoint_without_an_output_layer_has_it_tied_to_the_embeddings(own: Path) -> None:
    weights = load_file(own / "model.safetensors")
    del weights["language_model.lm_head.weight"]
    save_weights(own, weights)
    model = loaded(own).model
    assert model.lm_head.weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()


def test_generation_stops_at_the_templates_separator_and_ignores_shipped_sampling(
    written: Callable[[str], Written],
) -> None:
    for language, end in (("internlm2", "<|im_end|>"), ("phi3", "<|end|>"), ("qwen2", "<|im_end|>")):
        model = loaded(written(language)[0])
        tokenizer = model.processor.tokenizer
        ends = {tokenizer.convert_tokens_to_ids(end), tokenizer.eos_token_id}
        assert set(model.model.generation_config.eos_token_id) == ends
        assert model.model.generation_config.temperature is None
        assert model.model.generation_config.max_new_tokens == 8
        assert model.model.config.image_token_id == tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>")


class TestPrompt:
    """What reaches the model, image tokens included."""

    @pytest.fixture(scope="class")
    def model(self, tmp_path_factory: pytest.TempPathFactory) -> InternVLChat:
        folder = tmp_path_factory.mktemp("prompt") / "InternVL2-prompt"
        write_folder(folder, "qwen2")
        return loaded(folder)

    @staticmethod
    def shown(model: InternVLChat, message: list[Message], task: Task | None = None) -> str:
        text = model.processor.tokenizer.decode(model.prepare([message], task)["input_ids"][0])
        start, end = text.index("<|im_start|>user\n"), text.rindex("<|im_end|><|im_start|>assistant\n")
        return text[start + len("<|im_start|>user\n") : end].replace("<IMG_CONTEXT>" * TOKENS_PER_TILE, "#")

    def test_one_image_stands_before_the_text_wherever_it_was(self, model: InternVLChat) -> None:
        small = noise(SIDE, SIDE)
        assert self.shown(model, prompt(small, "Q")) == "<img>#</img>\nQ"
        assert self.shown(model, prompt("Q", small, "R")) == "<img>#</img>\nQ\nR"
        assert self.shown(model, prompt("Q")) == "Q"

    def test_several_images_are_numbered_and_referred_to_where_they_stood(self, model: InternVLChat) -> None:
        small = noise(SIDE, SIDE)
        head = "Image-1: <img>#</img>\nImage-2: <img>#</img>\n"
        assert self.shown(model, prompt(small, small, "Q")) == head + "Q"
        assert self.shown(model, prompt("Left", small, "right", small)) == head + "Left<Image-1>right<Image-2>"

    def test_a_wide_image_is_tiles_and_a_thumbnail(self, model: InternVLChat) -> None:
        wide = noise(4 * SIDE, SIDE)
        assert self.shown(model, prompt(wide, "Q")) == "<img>#####</img>\nQ"
        wider, charts = noise(12 * SIDE, SIDE), Task(name="any", type="VQA", traits=frozenset({"chart"}))
        assert self.shown(model, prompt(wider, "Q")).count("#") == 7
        assert self.shown(model, prompt(wider, "Q"), charts).count("#") == 13

    def test_with_image_markers_the_first_image_is_doubled(self, model: InternVLChat) -> None:
        markers = Task(name="any", type="MCQ", traits=frozenset({"image_markers"}))
        images = model._images(prompt(noise(30, 20), noise(30, 20), "Q"), markers)
        assert [image.decoded().size for image in images] == [(60, 40), (30, 20)]

    def test_turns_and_the_system_prompt_are_kept(self, model: InternVLChat) -> None:
        small = noise(SIDE, SIDE)
        message = [
            TextPart(type="text", value="Be brief.", role="system"),
            *prompt(small, "Q"),
            TextPart(type="text", value="A", role="assistant"),
            *prompt(small, "R"),
        ]
        first, second = "Image-1: <IMG_CONTEXT>\n", "Image-2: <IMG_CONTEXT>\n"
        assert model.render(message) == (
            f"<|im_start|>system\nBe brief.<|im_end|><|im_start|>user\n{first}Q<|im_end|>"
            f"<|im_start|>assistant\nA<|im_end|><|im_start|>user\n{second}R<|im_end|><|im_start|>assistant\n"
        )

    def test_a_text_that_names_the_image_token_fails_that_sample_only(self, model: InternVLChat) -> None:
        with pytest.raises(SampleError, match="<IMG_CONTEXT>"):
            model.prepare([prompt("What does <IMG_CONTEXT> mean?")])


def test_a_native_folder_gives_the_inputs_of_its_own_processor(model_of: Callable[[str], InternVLChat]) -> None:
    model = model_of("internvl")
    wide, small = noise(400, 130), noise(80, 90, 1)
    batch = [prompt(wide, small, "What are these?"), prompt("None."), prompt(small, "And this?")]
    texts = [model.render(message) for message in batch]
    images = [wide, small, small]
    theirs = model.processor(
        text=texts, images=images, padding=True, return_tensors="pt", crop_to_patches=True, min_patches=1, max_patches=6
    )
    ours = model.prepare(batch)
    assert set(ours) == {"input_ids", "attention_mask", "pixel_values"}
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


class TestBadFolders:
    def test_original_and_converted_weights_in_one_folder(self, own: Path) -> None:
        weights = load_file(own / "model.safetensors")
        weights["model.vision_tower.embeddings.cls_token"] = weights["vision_model.embeddings.class_embedding"].clone()
        save_weights(own, weights)
        with pytest.raises(ModelError, match=r"two layouts: .*mlp1\.0\.bias.* 1 .*model\.vision_tower\.embeddings"):
            loaded(own)

    def test_converted_weights_under_the_original_config(self, own: Path, written: Callable[[str], Written]) -> None:
        native = written("qwen2")[1]
        save_weights(own, {key: value.detach().clone() for key, value in native.state_dict().items()})
        with pytest.raises(ModelError, match=r"take the config\.json that belongs to them"):
            loaded(own)

    def test_missing_shard_is_named(self, tmp_path: Path) -> None:
        write_folder(tmp_path / "shards", "llama", shards=3)
        (tmp_path / "shards" / "model-00002-of-00003.safetensors").unlink()
        with pytest.raises(ModelError, match=r"1 of 3 weight files are missing: model-00002-of-00003\.safetensors"):
            loaded(tmp_path / "shards")

    def test_missing_and_superfluous_weights_are_named(self, own: Path) -> None:
        weights = load_file(own / "model.safetensors")
        gone = weights.pop("vision_model.encoder.layers.1.attn.qkv.bias")
        save_weights(own, weights)
        with pytest.raises(ModelError, match=r"3 weights are in none .*layer\.1\.attention\.k_proj\.bias"):
            loaded(own)
        weights |= {"vision_model.encoder.layers.1.attn.qkv.bias": gone, "language_model.model.more": gone.clone()}
        save_weights(own, weights)
        with pytest.raises(ModelError, match=r"1 weights have no place.*language_model\.more"):
            loaded(own)

    def test_a_tokenizer_without_the_image_token(self, own: Path) -> None:
        path = own / "tokenizer_config.json"
        settings = json.loads(path.read_text())
        settings["additional_special_tokens"].remove("<IMG_CONTEXT>")
        settings["added_tokens_decoder"] = {
            number: token
            for number, token in settings["added_tokens_decoder"].items()
            if token["content"] != "<IMG_CONTEXT>"
        }
        path.write_text(json.dumps(settings))
        with pytest.raises(ModelError, match="the tokenizer has no <IMG_CONTEXT>"):
            loaded(own)

    def test_original_weights_under_a_native_config(self, own: Path, folder_of: Callable[[str], Path]) -> None:
        native = own.parent / "native"
        shutil.copytree(folder_of("internvl"), native)
        shutil.copy(own / "model.safetensors", native / "model.safetensors")
        with pytest.raises(ModelError, match=r"named as OpenGVLab does \(e\.g\. mlp1.*internvl_chat"):
            loaded(native)

    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            ({"ps_version": "v1"}, "ps_version 'v1'; only v2"),
            ({"select_layer": -4}, "select_layer -4"),
            ({"template": "hermes-2"}, "'hermes-2'.*nearest: Hermes-2"),
            ({"llm_config": {}}, "llm_config in config.json lacks vocab_size, hidden_size"),
            ({"vision_config": None}, "no vision_config"),
        ],
    )
    def test_a_config_that_cannot_be_run(self, own: Path, changes: dict[str, Any], told: str) -> None:
        change_config(own, **changes)
        with pytest.raises(ModelError, match=told):
            loaded(own)

    def test_a_value_of_the_wrong_type_is_told_with_its_field(self, own: Path) -> None:
        llm = json.loads((own / "config.json").read_text(encoding="utf-8"))["llm_config"]
        change_config(own, llm_config={**llm, "num_hidden_layers": "two"})
        with pytest.raises(ModelError, match=r"no model that can be built: .*num_hidden_layers"):
            loaded(own)

    def test_an_unknown_language_model_is_answered_with_the_nearest(self, own: Path) -> None:
        llm = json.loads((own / "config.json").read_text(encoding="utf-8"))["llm_config"]
        change_config(own, llm_config={**llm, "architectures": ["Qwen2MoeForCausalLM"]})
        with pytest.raises(ModelError, match="Qwen2MoeForCausalLM cannot be run; nearest: Qwen2ForCausalLM"):
            loaded(own)


def test_transformers_own_loading_is_preferred_once_it_is_there(
    written: Callable[[str], Written], monkeypatch: pytest.MonkeyPatch
) -> None:
    from vlmeval.vlm import internvl2_weights

    folder, native = written("qwen2")
    seen: dict[str, Any] = {}

    def from_pretrained(path: str, **arguments: Any) -> Any:
        seen.update(arguments, path=path)
        return native, {"missing_keys": set(), "unexpected_keys": set()}

    monkeypatch.setattr(internvl2_weights, "CONFIG_MAPPING", {"internvl_chat": object})
    monkeypatch.setattr(internvl2_weights.AutoConfig, "from_pretrained", lambda *_, **__: native.config)
    monkeypatch.setattr(internvl2_weights.InternVLForConditionalGeneration, "from_pretrained", from_pretrained)
    model = loaded(folder).model
    assert model is native
    assert seen["config"].image_token_id == native.config.image_token_id
    assert not isinstance(model, InternVL2ForConditionalGeneration)

"""AutoVLM: 28 architectures of transformers, prompts without a template, code that a checkpoint brings."""

from __future__ import annotations

import importlib.util
import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from vlmeval.cli.arguments import parse
from vlmeval.cli.run import run_config
from vlmeval.config import ModelSpec, resolve_model
from vlmeval.errors import ModelError, SampleError, UsageError
from vlmeval.types import ImagePart, Message, TextPart
from vlmeval.vlm.architectures import class_for, image_text_classes, installed_version
from vlmeval.vlm.auto import AutoVLM

from . import auto_architectures as tiny


@pytest.fixture(scope="session")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny LLaVA. Not to be changed."""
    folder = tmp_path_factory.mktemp("auto") / "llava"
    tiny.build("LLaVA 1.5", folder)
    return folder


@pytest.fixture
def changed(llava: Path, tmp_path: Path) -> Any:
    """A copy of the tiny LLaVA whose config.json is changed by keywords."""

    def make(**config: Any) -> Path:
        folder = tmp_path / "changed"
        shutil.copytree(llava, folder)
        kept = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        (folder / "config.json").write_text(json.dumps({**kept, **config}), encoding="utf-8")
        return folder

    return make


def auto(folder: Path, **arguments: Any) -> AutoVLM:
    return AutoVLM(str(folder), **{"max_new_tokens": 4, "min_new_tokens": 4, **arguments})


@pytest.mark.parametrize("name", tiny.BUILDERS)
def test_architecture_answers_sees_the_image_and_batches(name: str, tmp_path: Path) -> None:
    package = tiny.PACKAGES.get(name)
    if package and importlib.util.find_spec(package) is None:
        pytest.skip(f"transformers needs {package} for it")
    outcome = tiny.attempt(name, tmp_path)
    if "module transformers has no attribute" in outcome.failure:
        pytest.skip(f"transformers {installed_version()} lacks a class for it")
    assert not outcome.failure
    assert outcome.sees_image
    assert outcome.batch_equal


def test_the_table_in_docs_has_every_architecture_tried() -> None:
    table = (Path(__file__).parents[2] / "docs" / "auto_architectures.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ")]
    assert rows[1:] == list(tiny.BUILDERS)
    assert len(tiny.BUILDERS) >= 20


def test_mapping_read_from_source_is_the_one_transformers_uses() -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as used

    found = image_text_classes()
    assert all(used[name] == found[name] for name in found if name != "phi4_multimodal")
    assert {"qwen2_vl", "gemma3", "mistral3"} <= set(found)
    assert len(used) - len(found) < 8


def test_folder_of_another_architecture_resolves_to_auto(llava: Path) -> None:
    spec = resolve_model(str(llava))
    assert (spec.class_path, spec.source) == ("AutoVLM", str(llava))
    assert dict(spec.arguments) == {"model_path": str(llava)}


def test_unsupported_architecture_names_the_nearest_and_what_auto_needs(changed: Any) -> None:
    folder = changed(model_type="llava_nxt")
    for make in (lambda: resolve_model(str(folder)), lambda: auto(folder).checkpoint):
        with pytest.raises(ModelError, match=r"'llava_nxt'.*nearest: llava_next.*image-text-to-text class"):
            make()


def test_unsupported_architecture_is_told_without_torch(changed: Any) -> None:
    folder = changed(model_type="nonsense")
    code = (
        "import sys\n"
        "from vlmeval.cli.main import main\n"
        f"code = main(['run', '--model', {str(folder)!r}, '--data', 'ShapesBench'])\n"
        "print(code, 'torch' in sys.modules, 'transformers' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["1", "False", "False"]
    assert done.stderr.startswith("vlmeval: error: ") and done.stderr.count("\n") == 1


def test_prompts_with_and_without_images_in_one_batch(llava: Path) -> None:
    model = auto(llava)
    batch: list[list[Message]] = [
        [TextPart(type="text", value="Hello?")],
        tiny.question(1, "What?"),
        [TextPart(type="text", value="Why?")],
    ]
    together = [answer.text for answer in model.generate_batch(batch)]
    assert together == [model.generate_batch([message])[0].text for message in batch]


def test_several_images_stand_where_they_were_put(llava: Path) -> None:
    model = auto(llava)
    image = tiny.picture(1)
    message: list[Message] = [
        TextPart(type="text", value="One "), ImagePart(type="image", value=image), TextPart(type="text", value=" and "),
        ImagePart(type="image", value=tiny.picture(2)),
    ]  # fmt: skip
    model.load()
    assert model.render(message) == "user: One <image> and <image>\nassistant:"
    assert model.generate_batch([message])[0].prompt_tokens == len("user: One  and \nassistant:") + 2 * 4


def test_system_prompt_comes_first(llava: Path) -> None:
    model = auto(llava, system_prompt="Be brief.")
    model.load()
    assert model.render(tiny.question(1, "What?")).startswith("system: Be brief.\nuser: <image>What?")


def test_template_made_for_texts_gets_image_tokens_in_the_text(changed: Any, caplog: pytest.LogCaptureFixture) -> None:
    folder = changed()
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}[{{ m.role + '] ' + m.content }}{% endfor %} [assistant]", encoding="utf-8"
    )
    model = auto(folder)
    with caplog.at_level(logging.WARNING, logger="vlmeval"):
        first = model.generate(tiny.question(1, "What?"))
    assert model.wording == "text"
    assert model.render(tiny.question(1, "What?")) == "[user] <image>What? [assistant]"
    assert first == model.generate(tiny.question(1, "What?"))
    assert [record.message for record in caplog.records if "texts" in record.message or "text only" in record.message]
    assert len(caplog.records) == 1


def test_without_a_template_the_prompt_is_image_and_text(changed: Any) -> None:
    folder = changed()
    (folder / "chat_template.jinja").unlink()
    model = auto(folder)
    model.load()
    assert model.wording == "plain"
    assert model.render(tiny.question(1, "What?")) == "<image>What?"
    talk: list[Message] = [
        TextPart(type="text", value="Hi", role="user"), TextPart(type="text", value="Yes?", role="assistant"),
        TextPart(type="text", value="Bye", role="user"),
    ]  # fmt: skip
    assert model.render(talk) == "User: Hi\nAssistant: Yes?\nUser: Bye\nAssistant:"


def test_template_that_words_no_image_is_refused(changed: Any) -> None:
    folder = changed()
    (folder / "chat_template.jinja").write_text("always the same", encoding="utf-8")
    with pytest.raises(ModelError, match="chat template words neither"):
        auto(folder).load()


def test_template_that_refuses_a_role_fails_that_sample_only(changed: Any) -> None:
    folder = changed()
    kept = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    guard = "{% if messages[0].role == 'assistant' %}{{ raise_exception('user first') }}{% endif %}"
    (folder / "chat_template.jinja").write_text(guard + kept, encoding="utf-8")
    model = auto(folder)
    assert model.generate(tiny.question(1, "What?"))
    with pytest.raises(SampleError, match="user first"):
        model.generate_batch([[TextPart(type="text", value="No.", role="assistant")]])


def test_begin_token_of_the_template_is_not_doubled(changed: Any) -> None:
    folder = changed()
    kept = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    (folder / "chat_template.jinja").write_text("{{ bos_token }}" + kept, encoding="utf-8")
    model = auto(folder)
    model.load()
    ids = model.prepare([tiny.question(1, "What?")])["input_ids"][0].tolist()
    assert ids.count(model.processor.tokenizer.bos_token_id) == 1


def test_tokenizer_without_the_image_token_is_refused(changed: Any) -> None:
    folder = changed()
    tiny.tokenizer().save_pretrained(folder)
    with pytest.raises(ModelError, match=r"no image token '<image>'"):
        auto(folder).load()


def test_attention_the_class_lacks_is_replaced_and_said(llava: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    monkeypatch.setattr(transformers.LlavaForConditionalGeneration, "_supports_sdpa", False)
    chosen = auto(llava).precision
    assert chosen.attention == "eager"
    assert "LlavaForConditionalGeneration has no sdpa" in chosen.reason


def test_end_token_of_the_tokenizer_ends_an_answer_too(llava: Path) -> None:
    model = auto(llava)
    model.load()
    assert model.generation_ids(model.model.generation_config)["eos_token_id"] == [2]
    model.processor.tokenizer.eos_token = "<unk>"
    assert model.generation_ids(model.model.generation_config)["eos_token_id"] == [2, 3]


REMOTE = {
    "configuration_mine.py": """
from transformers import LlavaConfig
class MineConfig(LlavaConfig):
    model_type = "mine"
""",
    "modeling_mine.py": """
from transformers import LlavaForConditionalGeneration
from .configuration_mine import MineConfig
class MineForConditionalGeneration(LlavaForConditionalGeneration):
    config_class = MineConfig
""",
}
AUTO_MAP = {
    "AutoConfig": "configuration_mine.MineConfig",
    "AutoModelForImageTextToText": "modeling_mine.MineForConditionalGeneration",
}


@pytest.fixture
def remote(changed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny LLaVA as a checkpoint that brings its own classes."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder: Path = changed(model_type="mine", auto_map=AUTO_MAP, architectures=["MineForConditionalGeneration"])
    for name, text in REMOTE.items():
        (folder / name).write_text(text, encoding="utf-8")
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] = weights.pop("language_model.lm_head.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_code_of_a_checkpoint_is_refused_with_the_reason_and_the_flag(remote: Path) -> None:
    for make in (lambda: resolve_model(str(remote)), lambda: auto(remote).checkpoint):
        with pytest.raises(ModelError, match=r"Python code of its own \(modeling_mine.*--trust-remote-code .*changed"):
            make()


def test_trusted_code_runs_and_is_stamped(remote: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    spec = resolve_model(str(remote), trusted=[str(remote)])
    assert spec.arguments["trust_remote_code"] is True
    model = spec(max_new_tokens=4, min_new_tokens=4)
    assert model.generate(tiny.question(1, "What?"))
    assert model.stamp()["remote_code"] is True
    assert model.settings()["remote_code"] is True
    assert type(model.model).__name__ == "MineForConditionalGeneration"  # type: ignore[attr-defined]


def test_trust_changes_nothing_where_transformers_has_the_class(llava: Path) -> None:
    assert "trust_remote_code" not in resolve_model(str(llava), trusted=[str(llava)]).arguments
    model = auto(llava, trust_remote_code=True)
    assert model.stamp()["remote_code"] is False
    config = {"model_type": "llava", "auto_map": AUTO_MAP}
    assert class_for(config, "x", trust_remote_code=True) == "LlavaForConditionalGeneration"


def test_pickled_weights_load_when_allowed_and_are_stamped(changed: Any) -> None:
    folder = changed()
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    question = tiny.question(1, "What?")
    expected = auto(folder).generate(question)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="--allow-pickled-weights"):
        auto(folder).generate(question)
    model = auto(folder, allow_pickle=True)
    assert model.generate(question) == expected
    assert model.stamp()["pickled_weights"] is True


def command(*arguments: str) -> list[ModelSpec]:
    """The models of a command line."""
    return list(run_config(parse(["run", "--data", "ShapesBench", *arguments])).models)


def test_flags_reach_the_model_they_name(llava: Path, remote: Path) -> None:
    trusted = command("--model", str(llava), str(remote), "--trust-remote-code", str(remote))
    assert ["trust_remote_code" in spec.arguments for spec in trusted] == [False, True]
    assert command("--model", str(llava), "--allow-pickled-weights")[0].arguments["allow_pickle"] is True
    with pytest.raises(ModelError, match=f"--trust-remote-code {remote}"):
        command("--model", str(remote))


def test_trust_that_applies_to_nothing_is_refused(llava: Path) -> None:
    with pytest.raises(UsageError, match="needs no code of its own"):
        command("--model", str(llava), "--trust-remote-code", str(llava))
    with pytest.raises(UsageError, match="unknown model in --trust-remote-code 'other'"):
        command("--model", str(llava), "--trust-remote-code", "other")

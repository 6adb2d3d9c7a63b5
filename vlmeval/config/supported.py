"""The registry `supported_VLM`: every model that can be named, family by family."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vlmeval.config.model_spec import ModelSpec

DEMO_FOLDER = Path(__file__).parents[1] / "demo"


def _qwen2_vl() -> Iterator[ModelSpec]:
    sizes = {"2B": True, "7B": True, "72B": False}
    for size, small in sizes.items():
        for variant in ("", "-AWQ", "-GPTQ-Int4", *(["-GPTQ-Int8"] if small else [])):
            name = f"Qwen2-VL-{size}-Instruct{variant}"
            pixels = {"min_pixels": 1280 * 28 * 28, "max_pixels": 16384 * 28 * 28}
            yield ModelSpec(name=name, class_path="Qwen2VLChat", arguments={"model_path": f"Qwen/{name}", **pixels})


def _qwen_relatives() -> Iterator[ModelSpec]:
    pixels = {"min_pixels": 1280 * 28 * 28, "max_pixels": 16384 * 28 * 28}
    for size in ("3B", "7B", "32B", "72B"):
        for name in (f"Qwen2.5-VL-{size}-Instruct", f"Qwen2.5-VL-{size}-Instruct-AWQ"):
            yield ModelSpec(name=name, class_path="Qwen2_5_VLChat", arguments={"model_path": f"Qwen/{name}", **pixels})
    yield ModelSpec(
        name="QVQ-72B-Preview",
        class_path="Qwen2VLChat",
        arguments={
            "model_path": "Qwen/QVQ-72B-Preview",
            **pixels,
            "system_prompt": "You are a helpful and harmless assistant. You are Qwen developed by Alibaba. "
            "You should think step-by-step.",
            "max_new_tokens": 8192,
        },
        notes="reasons at length before it answers",
    )
    for size in ("2B", "4B", "8B", "32B", "30B-A3B", "235B-A22B"):
        for kind, tokens, advice in (
            ("Instruct", 16384, "temperature=0.7, top_p=0.8, top_k=20"),
            ("Thinking", 40960, "temperature=1.0, top_p=0.95, top_k=20"),
        ):
            name = f"Qwen3-VL-{size}-{kind}"
            yield ModelSpec(
                name=name,
                class_path="Qwen3VLChat",
                arguments={"model_path": f"Qwen/{name}", "max_new_tokens": tokens},
                notes=f"greedy here; its makers sample with {advice}",
            )


def _llava_onevision() -> Iterator[ModelSpec]:
    for size in ("0.5b", "7b", "72b"):
        for kind in ("ov", "si"):
            name = f"llava-onevision-qwen2-{size}-{kind}-hf"
            for registered in (name, f"llava_onevision_qwen2_{size}_{kind}"):
                yield ModelSpec(
                    name=registered,
                    class_path="LLaVA_OneVision_HF",
                    arguments={"model_path": f"llava-hf/{name}"},
                    notes="" if registered == name else f"upstream's name for the weights of {name}",
                )


def _llama_vision() -> Iterator[ModelSpec]:
    for size in ("11B", "90B"):
        name = f"Llama-3.2-{size}-Vision-Instruct"
        yield ModelSpec(
            name=name,
            class_path="LlamaVision",
            arguments={"model_path": f"meta-llama/{name}"},
            notes="gated; greedy with the benchmarks' prompts (upstream samples, with chain-of-thought prompts)",
        )


def _internvl() -> Iterator[ModelSpec]:
    original = {
        "InternVL2": ("1B", "2B", "4B", "8B", "8B-MPO", "26B", "40B", "76B"),
        "InternVL2_5": tuple(f"{s}{m}" for s in ("1B", "2B", "4B", "8B", "26B", "38B", "78B") for m in ("", "-MPO")),
        "InternVL3": ("1B", "2B", "8B", "9B", "14B", "38B", "78B"),
    }
    native = {
        "InternVL2_5": ("2B-MPO-hf", "8B-MPO-hf"),
        "InternVL3": tuple(f"{size}-hf" for size in ("1B", "2B", "8B", "14B", "38B", "78B")),
        "InternVL3_5": tuple(f"{size}-HF" for size in ("1B", "2B", "4B", "8B", "14B", "38B", "30B-A3B", "241B-A28B")),
    }
    for layout, note in ((original, "the hub's original layout, without its code"), (native, "transformers' layout")):
        for family, sizes in layout.items():
            for size in sizes:
                name = f"{family}-{size}"
                repo = "InternVL2-Llama3-76B" if name == "InternVL2-76B" else name
                arguments = {"model_path": f"OpenGVLab/{repo}"}
                yield ModelSpec(name=name, class_path="InternVLChat", arguments=arguments, notes=note)


def _demo() -> Iterator[ModelSpec]:
    for name, class_path, parameters in (
        ("Qwen2-VL-Tiny", "Qwen2VLChat", "1.2 M"),
        ("InternVL-Tiny", "InternVLChat", "1.0 M"),
        ("LLaVA-OneVision-Tiny", "LLaVA_OneVision_HF", "1.2 M"),
        ("Llama-Vision-Tiny", "LlamaVision", "1.7 M"),
    ):
        yield ModelSpec(
            name=name,
            class_path=class_path,
            arguments={"model_path": str(DEMO_FOLDER / name), "max_new_tokens": 16},
            notes=f"{parameters} parameters, in the package, trained on ShapesBench",
        )


supported_VLM: dict[str, ModelSpec] = {
    spec.name: spec
    for family in (_demo, _qwen2_vl, _qwen_relatives, _llava_onevision, _llama_vision, _internvl)
    for spec in family()
}
"""Every registered model by name; `supported_VLM["Qwen2-VL-2B-Instruct"]()` makes one."""

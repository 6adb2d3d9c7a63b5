"""Qwen2-VL-2B and 7B with random weights on one card: samples a second at batch 1, at auto, and of a plain loop.

    python bench/gpu_batches.py 2B 7B [--budget-gib 40] [--folder gpu-data] [--images 256]

The plain loop is transformers at batch 1, one prompt after the other. All three answer the lab's questions (bench/lab)
with exactly 16 new tokens each. Targets: auto at least 6 times the loop; its peak 90 to 97 % of the budget it was
given (the card's free memory, or --budget-gib, less the reserve). `tiny` instead of a size runs the script's own logic
on a CPU. Not run so far for want of a card.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoProcessor, GenerationConfig, Qwen2VLConfig, Qwen2VLForConditionalGeneration

sys.path.insert(0, str(Path(__file__).resolve().parent / "lab"))
import floor
import make_lab

from vlmeval.config import resolve_model
from vlmeval.dataset.registry import resolve_dataset
from vlmeval.inference.answering import requests
from vlmeval.inference.batches import plan_pieces
from vlmeval.placement.known import known_model
from vlmeval.placement.policy import Overrides
from vlmeval.vlm.card_memory import measured_peaks
from vlmeval.vlm.placement_request import Placement
from vlmeval.vlm.transformers_model import TransformersModel

GIB = 2**30
WARM_UP = 4
FEWEST_TIMES, LEAST_PEAK, MOST_PEAK = 6.0, 0.90, 0.97


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure batches on a card.")
    parser.add_argument("sizes", nargs="+", choices=["tiny", "2B", "7B"])
    parser.add_argument("--folder", type=Path, default=Path("gpu-data"))
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--budget-gib", type=float, help="use no more of the card than this")
    parser.add_argument("--loop-images", type=int, default=64, help="of these, how many the loop and batch 1 answer")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    make_lab.ROWS = arguments.images
    rows = make_lab.make_rows()
    make_lab.write_tsv(arguments.folder / "TinyMMB.tsv", rows)
    for size in arguments.sizes:
        checkpoint = arguments.folder / size
        if not (checkpoint / "config.json").exists():
            write_checkpoint(size, checkpoint, rows)
            free_card()
        print(f"\n{size}, {torch.cuda.get_device_name() if torch.cuda.is_available() else 'CPU'}")
        compare(checkpoint, arguments)


def write_checkpoint(size: str, folder: Path, rows: list[dict[str, str]]) -> None:
    """Random weights in the real shapes; the lab's tokenizer, whose ids stand in the real vocabulary."""
    if size == "tiny":
        make_lab.write_checkpoint(folder, rows)
        return
    tokenizer = make_lab.train_tokenizer(rows)
    ids = dict(zip(make_lab.SPECIAL_TOKENS, tokenizer.encode("".join(make_lab.SPECIAL_TOKENS)).ids, strict=True))
    make_lab.write_tokenizer(folder, tokenizer)
    known = known_model(f"Qwen/Qwen2-VL-{size}-Instruct")
    if known is None:
        raise SystemExit(f"the package knows no Qwen2-VL-{size}")
    config = Qwen2VLConfig.from_dict(dict(known.config))
    config.image_token_id, config.video_token_id = ids["<|image_pad|>"], ids["<|video_pad|>"]
    config.vision_start_token_id = ids["<|vision_start|>"]
    config.tie_word_embeddings = False  # the output layer's rows of special tokens are zero, the embeddings' are not
    config.get_text_config().tie_word_embeddings = False
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = Qwen2VLForConditionalGeneration(config)
    torch.set_default_dtype(torch.float32)
    with torch.no_grad():
        model.lm_head.weight[list(ids.values())] = 0
    end, start = ids["<|im_end|>"], ids["<|endoftext|>"]
    model.generation_config = GenerationConfig(bos_token_id=start, pad_token_id=start, eos_token_id=[end, start])
    model.save_pretrained(folder)


def compare(checkpoint: Path, arguments: argparse.Namespace) -> None:
    fewer = min(arguments.loop_images, arguments.images)
    loop = plain_loop(checkpoint, arguments.folder / "TinyMMB.tsv", fewer)
    print(f"  plain loop, batch 1   {loop:8.2f} samples/s", flush=True)
    free_card()
    alone, _ = ours(checkpoint, arguments, 1, fewer)
    print(f"  ours, batch 1         {alone:8.2f} samples/s  {alone / loop:.2f} x", flush=True)
    free_card()
    auto, told = ours(checkpoint, arguments, None, arguments.images)
    print(
        f"  ours, auto            {auto:8.2f} samples/s  {auto / loop:.2f} x (target {FEWEST_TIMES}); {told}",
        flush=True,
    )


def plain_loop(checkpoint: Path, data: Path, count: int) -> float:
    """Samples a second of transformers alone."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    processor = AutoProcessor.from_pretrained(checkpoint)
    model = Qwen2VLForConditionalGeneration.from_pretrained(
        checkpoint, dtype=torch.bfloat16 if device == "cuda" else torch.float32, device_map=device
    ).eval()
    rows = floor.read_rows(data)[:count]

    def answer(row: dict[str, str]) -> None:
        text = processor.apply_chat_template(floor.conversation(row), tokenize=False, add_generation_prompt=True)
        inputs = processor(text=[text], images=[image_of(row)], return_tensors="pt").to(model.device, model.dtype)
        output = model.generate(**inputs, max_new_tokens=floor.MAX_NEW_TOKENS, do_sample=False)
        processor.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)

    with torch.inference_mode():
        for row in rows[:WARM_UP]:
            answer(row)
        speed = per_second(lambda: deque(map(answer, rows), maxlen=0), count)
    return speed


def ours(checkpoint: Path, arguments: argparse.Namespace, batch_size: int | None, count: int) -> tuple[float, str]:
    """Samples a second from prompts to answers, and the peak beside the budget."""
    model = resolve_model(str(checkpoint))(max_new_tokens=floor.MAX_NEW_TOKENS)
    if not isinstance(model, TransformersModel):
        raise SystemExit(f"{type(model).__name__} is no model of transformers")
    budget = {0: round(arguments.budget_gib * GIB)} if arguments.budget_gib else {}
    model.place(Placement(overrides=Overrides(max_memory=budget)))
    model.load()
    data = resolve_dataset(str(arguments.folder / "TinyMMB.tsv")).open().head(count)
    messages = [request.message for request in requests(model, data, data)]
    model.generate_batch(messages[:WARM_UP], data.task)
    model.store_images()  # what the warm-up has encoded is not counted
    sizes: list[int] = []

    def answer_all() -> None:
        begun: list[Callable[[], Any]] = []
        for piece in plan_pieces(model, data.task, messages, batch_size):
            sizes.append(len(piece))
            begun.append(model.begin_batch([messages[position] for position in piece], data.task))
            if len(begun) > 1:
                begun.pop(0)()
        begun.pop(0)()

    speed = per_second(answer_all, count)
    told = f"batches of {max(sizes)} to {min(sizes)}; {peak_of(model)}"
    return speed, told


def peak_of(model: TransformersModel) -> str:
    if model.replica is None:
        return "no card, no plan"
    share = model.replica.cards[0]
    peak = measured_peaks(model.replica)[share.card.place] / share.capacity_bytes
    verdict = "within" if LEAST_PEAK <= peak <= MOST_PEAK else "outside"
    return f"peak {peak:.1%} of {share.capacity_bytes / GIB:.2f} GiB, {verdict} {LEAST_PEAK:.0%} to {MOST_PEAK:.0%}"


def image_of(row: dict[str, str]) -> Any:
    import base64
    import io

    from PIL import Image

    return Image.open(io.BytesIO(base64.b64decode(row["image"]))).convert("RGB")


def per_second(work: Callable[[], Any], count: int) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return count / (time.perf_counter() - started)


def free_card() -> None:
    import gc

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()

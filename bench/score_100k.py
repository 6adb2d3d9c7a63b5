"""How long scoring 100,000 rows takes on one core: both protocols, plain and circular, intervals included.

    python bench/score_100k.py

Numbers of one machine are in score_100k.md. The rows are made up: 4 options, 20 categories, 6 l2-categories, answers
in the forms models give them, 3 in 4 right. `prose` has a full sentence in every row, the slowest form to read.
"""

from __future__ import annotations

import random
import resource
import time
from collections.abc import Mapping

from vlmeval.scoring import protocols as known
from vlmeval.scoring import score_multiple_choice
from vlmeval.types import Index, Prediction, Sample

ROWS = 100_000
WORDS = ["cat", "dog", "bird", "fish", "red car", "blue car", "a tall tree", "two people", "猫", "狗"]
MIXED = (
    ["{L}"] * 9
    + ["{L}."] * 3
    + ["{L}. {t}"] * 3
    + ["The answer is {L}."] * 2
    + ["The picture shows {t}.", "答案是{L}", "{t}"]
)
PROSE = ["The picture shows {t}, so the answer to the question is {L}.", "I see {t} in the middle of the picture."]


def main() -> None:
    """Print one line per measurement."""
    for name, forms in (("mixed", MIXED), ("prose", PROSE)):
        samples, predictions = made_up(forms)
        for protocol in known.PROTOCOLS:
            read_s = reading_seconds(samples, predictions, protocol)
            for circular in (False, True):
                began = time.process_time()
                score = score_multiple_choice("Made", samples, predictions, protocol=protocol, circular=circular)
                whole_s = time.process_time() - began
                kind = "circular" if circular else "plain"
                print(
                    f"{name:5} {protocol:10} {kind:8} reading {read_s:5.2f} s, all with {len(score.metrics)} "
                    f"intervals {whole_s:5.2f} s, overall {score.overall.value:.4f}"
                )
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


def reading_seconds(samples: list[Sample], predictions: Mapping[Index, Prediction], protocol: str) -> float:
    """Reading every answer, nothing else."""
    match = known.find_protocol(protocol).match
    began = time.process_time()
    for sample in samples:
        match(predictions[sample.index].prediction, sample.options)
    return time.process_time() - began


def made_up(forms: list[str]) -> tuple[list[Sample], dict[Index, Prediction]]:
    """`ROWS` rows in groups of four copies, and an answer to each."""
    draw = random.Random(0)
    samples: list[Sample] = []
    predictions: dict[Index, Prediction] = {}
    for base in range(ROWS // 4):
        category, texts = draw.randrange(20), draw.sample(WORDS, 4)
        for copy in range(4):
            options = dict(zip("ABCD", texts[copy:] + texts[:copy], strict=True))
            answer = "ABCD"[-copy % 4]
            said = answer if draw.random() < 0.75 else draw.choice("ABCD")
            index = base + copy * 10**6
            text = draw.choice(forms).format(L=said, t=options[said])
            predictions[index] = Prediction(index=index, status="ok", fingerprint="", prediction=text)
            samples.append(
                Sample(
                    index=index,
                    question="?",
                    options=options,
                    answer=answer,
                    category=f"category {category}",
                    l2_category=f"l2 {category % 6}",
                )
            )
    return samples, predictions


if __name__ == "__main__":
    main()

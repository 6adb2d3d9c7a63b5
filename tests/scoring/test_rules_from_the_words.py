"""The rules of upstream written down a second time, from their description in words and as plainly as can be, and
compared with the package on thousands of small odd answers. Slow, clumsy and independent: that is what it is for."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from typing import Any

import pytest

from tests.scoring.rows_example import hits, sample, scored
from vlmeval.scoring import score_multiple_choice
from vlmeval.scoring.extract_vlmevalkit import extract_option
from vlmeval.scoring.extract_yes_no import extract_yes_no
from vlmeval.types import Index, Prediction, Sample

CASES = 1500
REFUSALS = [
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
]
PIECES = [
    *("A", "B", "C", "D", "E", "F", "Z", "a", "b", "I", "answer is", "Answer is", "ANSWER IS", "The answer is not"),
    *(*".()[],:;!*#{}", "**", "?", "-", "'", '"', "、", "。", "（", "）", "</think>", "\n", "\t", "  ", "\u3000"),
    *("cat", "Dog", "dogs", "bird", "fish", "a red car", "red", "nan", "None", "3", "3.0", "", "the", "one", "well"),
    *(*REFUSALS, "Failed to obtain answer via API.", "猫"),
]
OPTION_TEXTS = ["cat", "dog", "bird", "fish", "red", "red car", "", "nan", "3", "None", "A", "猫", "dogfish", "DOG"]


def words_option(answer: str | None, options: Mapping[str, str]) -> str | None:
    text = "nan" if answer is None else answer
    if "Failed to obtain answer via API" not in text:
        for refusal in REFUSALS:
            if refusal in text:
                return "Z"
        spaced = text
        for mark in ".()[],:;!*#{}":
            spaced = spaced.replace(mark, " ")
        tokens = spaced.split()
        count = len([label for label in options if label in tokens])
        if count == 1:
            for label in options:
                if label in tokens and tokens.index(label) > len(tokens) - 5:
                    return label
        if count == 0 and "Z" in tokens:
            return "Z"
        phrase = re.search(r"answer is\s+\**[A-D]", text, re.IGNORECASE)
        if phrase and phrase.group()[-1].upper() in options:
            return phrase.group()[-1].upper()
    if len(text) > 2 * len("".join(options.values())):
        return None
    inside = [label for label, option in options.items() if option.lower() in text.lower()]
    return inside[0] if len(inside) == 1 else None


def made_up(draw: random.Random) -> tuple[str | None, dict[str, str]]:
    options = dict(zip("ABCDEF", draw.sample(OPTION_TEXTS, draw.randint(0, 6)), strict=False))
    if draw.random() < 0.02:
        return None, options
    return draw.choice(["", " "]).join(draw.choices(PIECES, k=draw.randint(0, 9))), options


@pytest.mark.parametrize("seed", range(6))
def test_options_are_extracted_as_the_words_say(seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(CASES):
        answer, options = made_up(draw)
        assert extract_option(answer, options) == words_option(answer, options), (answer, options)


def words_yes_no(answer: str) -> str:
    text = answer.lower()
    out = text
    for mark in ';/[]"{}()=+\\_-><@`,?!':
        beside_blank = f"{mark} " in text or f" {mark}" in text
        out = out.replace(mark, "" if beside_blank or re.search("[0-9],[0-9]", text) else " ")
    taken = 0
    kept = ""
    for at, char in enumerate(out):
        if char == "." and not out[at + 1 : at + 2].isdigit() and taken < 32:
            taken += 1
        else:
            kept += char
    words = kept.split()
    if ("yes" in words) != ("no" in words):
        return "Yes" if "yes" in words else "No"
    return "Unknown"


def test_yes_and_no_are_read_as_the_words_say() -> None:
    draw = random.Random(1)
    pieces = [
        "yes",
        "No",
        "YES",
        "no",
        "not",
        "yes.no",
        "1,000",
        "3.5",
        " ",
        " ",
        " ",
        ".",
        ". ",
        "nan",
        "Yes/No",
        "\n",
    ]
    pieces += list(';/[]"{}()=+\\_-><@`,?!')
    for _ in range(4 * CASES):
        answer = "".join(draw.choices(pieces, k=draw.randint(0, 8)))
        assert extract_yes_no(answer) == words_yes_no(answer), answer
    assert extract_yes_no("." * 31 + "yes.") == "Yes"
    assert extract_yes_no("." * 32 + "yes.") == "Unknown"  # the thirty-third stop stays on the word


@pytest.mark.parametrize("seed", range(3))
def test_a_circular_group_is_right_iff_every_present_row_is(seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(60):
        samples: list[Sample] = []
        predictions: dict[Index, Prediction] = {}
        groups: dict[int, dict[int, str | None]] = {}
        for base in range(1, 7):
            for copy in range(4):
                if draw.random() < 0.2:
                    continue
                index, said = base + copy * 10**6, draw.choice("AAAAB")
                fields = {"g_index": str(base)} if draw.random() < 0.5 else {}
                samples.append(
                    Sample(index=index, question="?", options={"A": "x1", "B": "y1"}, answer="A", fields=fields)
                )
                answered = draw.random() < 0.9
                if answered:
                    predictions[index] = Prediction(index=index, status="ok", fingerprint="", prediction=said)
                groups.setdefault(base, {})[copy] = said if answered else None
        for protocol in ("vlmevalkit", "exact"):
            present: dict[int, list[bool]] = {}
            for base, rows in groups.items():
                kept = {c: s == "A" for c, s in rows.items() if s is not None or protocol == "exact"}
                if 0 in kept:
                    present[base] = list(kept.values())
            draw.shuffle(samples)
            score = score_multiple_choice("X", samples, predictions, protocol=protocol, circular=True)
            assert score.overall.count == len(present)
            want = sum(map(all, present.values())) / len(present) if present else 0.0
            assert score.overall.value == pytest.approx(want)


def test_pope_without_positives_and_of_unknown_answers() -> None:
    draw = random.Random(5)
    for _ in range(150):
        rows = [(sample(at, draw.choice(["Yes", "No"])), draw.choice(["yes", "no", "hm"])) for at in range(5)]
        truths = [row.answer for row, _ in rows]
        said = [words_yes_no(text) for _, text in rows]
        tp = sum(t == s == "Yes" for t, s in zip(truths, said, strict=True))
        fp = sum(s == "Yes" and t == "No" for t, s in zip(truths, said, strict=True))
        fn = sum(s != "Yes" and t == "Yes" for t, s in zip(truths, said, strict=True))
        precision, recall = tp / (tp + fp) if tp + fp else 0.0, tp / (tp + fn) if tp + fn else 0.0
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        right = sum(t == s for t, s in zip(truths, said, strict=True)) / 5
        found = [metric.value for metric in scored("pope", rows).metrics[:4]]
        assert found == pytest.approx([100 * f1, 100 * right, 100 * precision, 100 * recall])


def test_hallusionbench_groups_by_set_figure_and_question() -> None:
    draw = random.Random(6)
    for _ in range(80):
        rows: list[tuple[Any, str]] = []
        figures: dict[Any, list[bool]] = {}
        questions: dict[Any, list[bool]] = {}
        for at in range(draw.randint(1, 12)):
            l2, one, two, three = draw.choice("xy"), draw.randint(0, 1), draw.randint(0, 2), draw.randint(0, 2)
            right = draw.random() < 0.7
            index = f"VD_{l2}_{at}_{one}_{two}_{three}_more"
            rows.append((sample(index, "Yes", category="VD", l2=l2), "Yes" if right else "No"))
            figures.setdefault((l2, one, two), []).append(right)
            questions.setdefault((l2, one, three), []).append(right)
        found = {metric.group: metric.value for metric in scored("hallusionbench", rows).metrics}
        accuracy = 100 * sum(text == "Yes" for _, text in rows) / len(rows)
        assert found["aAcc"] == pytest.approx(accuracy)
        assert found["fAcc"] == pytest.approx(100 * sum(map(all, figures.values())) / len(figures))
        assert found["qAcc"] == pytest.approx(100 * sum(map(all, questions.values())) / len(questions))


def words_anls(truths: list[str], said: str) -> float:
    def distance(first: str, second: str) -> int:
        table = [[i + j if not i * j else 0 for j in range(len(second) + 1)] for i in range(len(first) + 1)]
        for i in range(1, len(first) + 1):
            for j in range(1, len(second) + 1):
                swap = table[i - 1][j - 1] + (first[i - 1] != second[j - 1])
                table[i][j] = min(table[i - 1][j] + 1, table[i][j - 1] + 1, swap)
        return table[-1][-1]

    best = 0.0
    for truth in truths:
        far = distance(" ".join(truth.lower().split()), " ".join(said.lower().split()))
        longest = max(len(truth), len(said))
        near = 1 - (far / longest if longest else 0.0)
        best = max(best, near)
    return 0.0 if best < 0.5 else best


def test_anls_relaxed_accuracy_and_vqa_accuracy_are_as_the_words_say() -> None:
    draw = random.Random(7)
    letters = "ab AB1"
    for _ in range(500):
        truths = ["".join(draw.choices(letters, k=draw.randint(1, 6))) for _ in range(draw.randint(1, 3))]
        said = "".join(draw.choices(letters, k=draw.randint(0, 7)))
        assert hits("anls", str(truths), [said], "vlmevalkit") == [pytest.approx(words_anls(truths, said))], (
            truths,
            said,
        )
    numbers = [
        "0",
        "0.0",
        "5",
        "5%",
        "5.25",
        "5.2500001",
        "-5",
        "100",
        "95",
        "94.9",
        "0.05",
        "0.0525",
        "yes",
        "Yes",
        "1e1",
    ]
    for truth in numbers:
        for said in numbers:
            assert hits("relaxed_accuracy", truth, [said], "vlmevalkit") == [float(words_relaxed(truth, said))], (
                truth,
                said,
            )
    for _ in range(300):
        ten = [draw.choice(["red", "blue", "two"]) for _ in range(10)]
        said = draw.choice(["Red", "blue.", "2", "the red", "green"])
        plain = {"Red": "red", "blue.": "blue", "2": "two", "the red": "red"}.get(said, said)
        each = [min(1.0, sum(other == plain for j, other in enumerate(ten) if j != at) / 3) for at in range(10)]
        assert hits("vqa_accuracy", str(ten), [said], "vlmevalkit") == [pytest.approx(sum(each) / 10)], (ten, said)


def words_relaxed(truth: str, said: str) -> bool:
    def number(text: str) -> float | None:
        try:
            return float(text[:-1]) / 100 if text.endswith("%") else float(text)
        except ValueError:
            return None

    target, got = number(truth), number(said)
    if got is not None and target:
        return abs(got - target) / abs(target) <= 0.05
    return truth.lower() == said.lower()


@pytest.mark.parametrize("seed", range(3))
def test_mme_is_accuracy_plus_pairs_as_the_words_say(seed: int) -> None:
    draw = random.Random(seed)
    perception = [
        "OCR",
        "artwork",
        "celebrity",
        "color",
        "count",
        "existence",
        "landmark",
        "position",
        "posters",
        "scene",
    ]
    reasoning = ["code_reasoning", "commonsense_reasoning", "numerical_calculation", "text_translation"]
    rows: list[tuple[Any, str]] = []
    points: dict[str, float] = {}
    for category in perception + reasoning:
        singles, pairs = [], []
        for image in range(draw.randint(1, 5)):
            pair = [draw.random() < 0.7, draw.random() < 0.7]
            for truth, right in zip(("Yes", "No"), pair, strict=True):
                text = truth if right else {"Yes": "No", "No": "Yes, yes"}[truth]
                rows.append((sample(len(rows), truth, category=category, image_path=f"{image}.png"), text))
            singles += pair
            pairs.append(all(pair))
        points[category] = 100 * sum(singles) / len(singles) + 100 * sum(pairs) / len(pairs)
    found = {metric.group: metric.value for metric in scored("mme", rows).metrics}
    assert found["perception"] == pytest.approx(sum(points[name] for name in perception))
    assert found["reasoning"] == pytest.approx(sum(points[name] for name in reasoning))
    assert {name: found[name] for name in points} == pytest.approx(points)

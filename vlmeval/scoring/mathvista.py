"""MathVista: the right option, number or text at the end of a calculation.

Source: https://arxiv.org/abs/2310.02255 as VLMEvalKit applies it (August 2026). An answer that is an option by the
rules of multiple choice, or nothing but the right number, is settled without a judge; of every other a judge takes out
the final answer, which then has to be the same option, integer, float or text. Tasks and skills have their own lines.
"""

from __future__ import annotations

from collections.abc import Mapping

from vlmeval.scoring.extract_vlmevalkit import extract_option
from vlmeval.scoring.ground_truths import ground_truths
from vlmeval.scoring.judged import Verdict, accuracy_by, options_of, read_verdicts, verdict_score
from vlmeval.scoring.rows import Answers
from vlmeval.types import Index, Sample, Score


def settled(sample: Sample, text: str) -> Verdict | None:
    """An option, or the right number and nothing else."""
    if _is_choice(sample):
        label = extract_option(text, options_of(sample.fields.get("choices", "")))
        return None if label is None else _option_verdict(sample, label, "by rule")
    if _number_type(sample) is not None and _same_number(sample, text):
        return Verdict(1.0, text.strip(), "the right number, by rule")
    return None


def judge_prompt(sample: Sample, text: str) -> str:
    """Asks for the final answer and nothing else."""
    return (
        "A model has answered a question. Copy out its final answer: for a multiple-choice question the letter of the "
        "option, otherwise the number, the list or the words, without units unless they were asked for. If it gives no "
        "answer, write null. Write nothing else.\n\n"
        "Question: Which number is missing?\nResponse: The number missing in the sequence is 14.\nFinal answer: 14\n\n"
        "Question: What fraction of the shape is blue?\nChoices: (A) 3/11 (B) 8/11 (C) 6/11 (D) 3/5\n"
        "Response: The correct one is (B) 8/11.\nFinal answer: B\n\n"
        "Question: Between which two years does the line peak?\nResponse: It peaks between 2007 and 2008.\n"
        "Final answer: [2007, 2008]\n\n"
        f"Question: {sample.question}\nResponse: {text}\nFinal answer:"
    )


def read_reply(sample: Sample, reply: str) -> Verdict | None:
    """The answer the judge took out, compared with the right one; None for an empty reply."""
    said = reply.strip().removeprefix("Final answer:").strip()
    if not said:
        return None
    if _is_choice(sample):
        label = extract_option(said, options_of(sample.fields.get("choices", "")))
        return Verdict(0.0, said, "by judge") if label is None else _option_verdict(sample, label, "by judge")
    if _number_type(sample) is not None:
        return Verdict(float(_same_number(sample, said)), said, "by judge")
    return Verdict(float(said == sample.answer), said, "by judge")


def score_verdicts(answers: Answers, verdicts: Mapping[Index, Verdict]) -> Score:
    """Accuracy in percent, by task and by skill."""
    read = read_verdicts(answers, verdicts)
    names = {row.sample.index: _names(row.sample) for row in read.counted}
    metrics, table = accuracy_by(answers, read, names, "Task&Skill")
    return verdict_score(answers, read, "accuracy", metrics, table)


def _names(sample: Sample) -> list[str]:
    skills = ground_truths(sample.fields.get("skills", ""))
    return list(dict.fromkeys(name for name in (*skills, sample.fields.get("task", "")) if name))


def _is_choice(sample: Sample) -> bool:
    return sample.fields.get("question_type", "") == "multi_choice"


def _option_verdict(sample: Sample, label: str, how: str) -> Verdict:
    return Verdict(float(label == _right_option(sample)), label, f"option {label}, {how}")


def _right_option(sample: Sample) -> str:
    """Upstream's file has its letter; without that the option that reads as the answer does."""
    options = options_of(sample.fields.get("choices", ""))
    same = (label for label, text in options.items() if text == sample.answer)
    return sample.fields.get("answer_option", "") or next(same, "")


def _number_type(sample: Sample) -> type[int] | type[float] | None:
    return {"integer": int, "float": float}.get(sample.fields.get("answer_type", ""))


def _same_number(sample: Sample, text: str) -> bool:
    """As Python reads an integer or a float; what it cannot read is not the same."""
    kind = _number_type(sample)
    try:
        return kind is not None and kind(text) == kind(sample.answer)
    except ValueError:
        return False

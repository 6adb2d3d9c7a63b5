"""The rules answers are scored by, by name: which one a benchmark declares, and what each is. Imports none of them.

A rule is one file with a function `score(answers: Answers) -> Score` for both protocols. A rule that needs a judge has
no such function; what is known of it is in its file: see `judged`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from vlmeval.errors import UnknownNameError
from vlmeval.types import TaskType

if TYPE_CHECKING:
    from vlmeval.scoring.rows import Answers
    from vlmeval.types import Score


@dataclass(frozen=True, kw_only=True)
class Rule:
    """`module` is the file in this folder; `judge` says what a judge is asked, empty where none is needed."""

    name: str
    type: TaskType
    about: str
    module: str
    function: str = "score"
    judge: str = ""

    def score(self, answers: Answers) -> Score:
        """What the answers are worth. Only for rules that need no judge."""
        chosen: Callable[[Answers], Score] = getattr(import_module(f"vlmeval.scoring.{self.module}"), self.function)
        return chosen(answers)


RULES: Mapping[str, Rule] = {
    rule.name: rule
    for rule in (
        Rule(name="choices", type="MCQ", module="multiple_choice", about="the right option, by row or circular group"),
        Rule(
            name="choices_and_open",
            type="MCQ",
            module="multiple_choice",
            function="score_with_open_questions",
            about="choices; rows without options are open questions (MMMU)",
        ),
        Rule(name="mmt_bench", type="MCQ", module="mmt_bench", about="choices; groups as means over tasks"),
        Rule(name="hr_bench", type="MCQ", module="hr_bench", about="choices, by rotation"),
        Rule(
            name="mmmu_pro_stepwise",
            type="MCQ",
            module="mmmu_pro_stepwise",
            about="choices; what stands behind `Answer:`",
        ),
        Rule(name="mme_realworld", type="MCQ", module="mme_realworld", about="choices of five, by task"),
        Rule(
            name="video_mme",
            type="MCQ",
            module="video_choices",
            function="score_video_mme",
            about="choices, by duration, domain and task type",
        ),
        Rule(
            name="mvbench", type="MCQ", module="video_choices", function="score_mvbench", about="choices, by task type"
        ),
        Rule(
            name="mlvu", type="MCQ", module="video_choices", function="score_mlvu", about="choices, by task type; M-Avg"
        ),
        Rule(name="yes_no", type="Y/N", module="yes_no", about="accuracy of yes or no"),
        Rule(name="mme", type="Y/N", module="mme", about="acc + acc+ per category, summed"),
        Rule(name="pope", type="Y/N", module="pope", about="F1 of yes, accuracy, precision, recall"),
        Rule(name="hallusionbench", type="Y/N", module="hallusionbench", about="aAcc, fAcc, qAcc"),
        Rule(name="amber", type="Y/N", module="amber", about="accuracy of three dimensions and their mean"),
        Rule(name="vqa_accuracy", type="VQA", module="vqa_accuracy", about="how many of those asked agree"),
        Rule(name="anls", type="VQA", module="anls", about="nearness letter by letter"),
        Rule(name="relaxed_accuracy", type="VQA", module="relaxed_accuracy", about="numbers within 5 %, else the same"),
        Rule(name="word_match", type="VQA", module="word_match", about="the same words"),
        Rule(name="ocrbench", type="VQA", module="ocrbench", about="a right answer stands in the text; points"),
        Rule(
            name="mathvista",
            type="VQA",
            module="mathvista",
            about="the right option or number",
            judge="to take the final answer out of a text that says more",
        ),
        Rule(
            name="mathvision",
            type="VQA",
            module="mathvision",
            about="the right option or expression",
            judge="to take the final answer out of a text that says more",
        ),
        Rule(
            name="mathverse",
            type="VQA",
            module="mathverse",
            about="the same answer",
            judge="to take the final answer out, and to say whether it is the same",
        ),
        Rule(name="mmvet", type="VQA", module="mmvet", about="a grade from 0 to 1", judge="to grade the answer"),
        Rule(
            name="llavabench",
            type="VQA",
            module="llavabench",
            about="graded beside GPT-4's answer",
            judge="to grade the answer beside GPT-4's",
        ),
        Rule(
            name="mmdu",
            type="MT",
            module="mmdu",
            about="grades of every turn, in six respects and over all",
            judge="to grade the answers turn by turn",
        ),
        Rule(
            name="mm_mt_bench",
            type="MT",
            module="mm_mt_bench",
            about="one grade of every turn",
            judge="to grade the answers turn by turn",
        ),
    )
}


def find_rule(name: str) -> Rule:
    """The rule called `name`. Raises UnknownNameError."""
    if name not in RULES:
        raise UnknownNameError("scoring rule", name, RULES, hint="known: " + ", ".join(RULES))
    return RULES[name]

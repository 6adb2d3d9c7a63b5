"""Scores with the help of a judge: what is asked about which rows, and what the result says about it."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import TypeVar

from vlmeval.cli.live_state import LiveState
from vlmeval.cli.progress import Progress
from vlmeval.cli.screen import say, warn
from vlmeval.config import resolve_model
from vlmeval.dataset.base import Dataset
from vlmeval.errors import UsageError
from vlmeval.inference.queue import Piece, Waiting
from vlmeval.judging.endpoint import Endpoint, shown_url
from vlmeval.judging.judge import Asker, Judge, Judged, Question
from vlmeval.judging.local import LocalJudge
from vlmeval.judging.replies import ReplyCache, cache_path
from vlmeval.judging.settings import JudgeSettings, judge_settings
from vlmeval.report.live import BenchmarkView, duration
from vlmeval.scoring import judge_options
from vlmeval.scoring.judge_options import shortened
from vlmeval.scoring.judged import JudgedRule, Verdict, judged_rule
from vlmeval.scoring.match import Match
from vlmeval.scoring.protocols import find_protocol
from vlmeval.scoring.rules import Rule
from vlmeval.types import Index, Prediction, Sample, Score
from vlmeval.vlm.quiet import quiet_transformers
from vlmeval.vlm.transformers_model import TransformersModel

T = TypeVar("T")


def settings_from(options: argparse.Namespace) -> JudgeSettings | None:
    """The judge that the flags ask for. Raises UsageError."""
    if options.judge_key is not None:
        raise UsageError(
            "a key on the command line ends in histories and process lists: set VLMEVAL_JUDGE_KEY or OPENAI_API_KEY "
            "instead of --judge-key"
        )
    return judge_settings(
        name=options.judge,
        base_url=options.judge_base_url,
        model=options.judge_model,
        arguments=options.judge_args,
        parallel=options.judge_parallel,
    )


def make_judge(settings: JudgeSettings) -> Judge:
    """The judge, its cache opened, nothing asked and nothing loaded yet."""
    if settings.endpoint is not None:
        if settings.endpoint.sends_key_in_clear:
            warn(f"the judge's key goes to {shown_url(settings.endpoint.url)} unencrypted: http, not https")
        asker: Asker = Endpoint(settings.endpoint)
        say("judge", f"{settings.name} at {shown_url(settings.endpoint.url)}")
    else:
        asker = _local(settings)
        say("judge", f"{settings.name}, in this process")
    return Judge(asker, ReplyCache(cache_path(settings.name)), parallel=settings.parallel)


def _local(settings: JudgeSettings) -> LocalJudge:
    spec = resolve_model(settings.model)
    spec = replace(spec, arguments={**spec.arguments, **settings.model_arguments})
    spec.check()
    model = spec()
    model.check()
    if isinstance(model, TransformersModel):
        quiet_transformers()
    return LocalJudge(spec.name, model, repr(sorted((k, str(v)) for k, v in model.settings().items())))


def score_with(
    judge: Judge | None, dataset: Dataset, predictions: Mapping[Index, Prediction], protocol: str, seed: int
) -> Score:
    """The score under a protocol. A judge is asked where the rule needs one, or finds no option in an answer."""
    rule = dataset.rule
    if judge is None or rule is None:
        return dataset.score(predictions, protocol, seed=seed)
    if rule.judge:
        return _judged_score(judge, dataset, rule, predictions, protocol, seed)
    if rule.type != "MCQ":
        note = f"judge {judge.name}: not asked, the rule {rule.name} needs none"
        score = dataset.score(predictions, protocol, seed=seed)
        return replace(score, notes=(*score.notes, note))
    return _choices_score(judge, dataset, rule, predictions, protocol, seed)


def _choices_score(
    judge: Judge, dataset: Dataset, rule: Rule, predictions: Mapping[Index, Prediction], protocol: str, seed: int
) -> Score:
    if dataset.why_not_scorable:
        return dataset.score(predictions, protocol, seed=seed)  # raises, saying why
    questions = list(_unread(dataset, predictions, protocol))
    said = _ask(judge, questions, f"{dataset.name}, {protocol}")
    score = rule.score(replace(dataset.answers(predictions, protocol, seed=seed), judged=said.found))
    notes = said.notes(judge.name, len(dataset), "nothing found, wrong")
    return replace(score, judge=f"{judge.name}, {judge_options.VERSION}", notes=(*score.notes, *notes))


def _unread(dataset: Dataset, predictions: Mapping[Index, Prediction], protocol: str) -> Iterator[Question[Match]]:
    """A question about every answer in which the protocol's rules find no option. Empty answers say nothing."""
    rules = find_protocol(protocol)
    for sample, text in _answered(dataset, predictions):
        if sample.options and text.strip() and rules.match(text, sample.options).label is None:
            hint = f"{sample.hint}\n" if sample.hint else ""
            yield Question(
                index=sample.index,
                prompt=judge_options.option_prompt(hint + sample.question, sample.options, text),
                version=judge_options.VERSION,
                read=partial(judge_options.read_option, options=sample.options),
            )


def _judged_score(
    judge: Judge, dataset: Dataset, rule: Rule, predictions: Mapping[Index, Prediction], protocol: str, seed: int
) -> Score:
    functions = judged_rule(rule)
    version = f"{rule.name} v{getattr(functions, 'VERSION', 1)}"
    settled: dict[Index, Verdict] = {}
    questions: list[Question[Verdict]] = []
    whole = list(_answered(dataset, predictions))
    turns_of = getattr(functions, "turns_of", None)
    judged = [turn for row in whole for turn in turns_of(*row)] if turns_of else whole
    for sample, text in judged:
        verdict = functions.settled(sample, text)
        if verdict is not None:
            settled[sample.index] = verdict
        elif text.strip():
            questions.append(_graded(functions, sample, text, version))
    said = _ask(judge, questions, f"{dataset.name}, {protocol}")
    answers = dataset.answers(predictions, protocol, seed=seed)
    score = functions.score_verdicts(answers, {**settled, **said.found})
    of, what = (len(judged), "turns") if turns_of else (len(dataset), "rows")
    notes = said.notes(judge.name, of, "no verdict", what)
    return replace(score, judge=f"{judge.name}, {version}", notes=(*score.notes, *notes))


def _graded(functions: JudgedRule, sample: Sample, text: str, version: str) -> Question[Verdict]:
    return Question(
        index=sample.index,
        prompt=functions.judge_prompt(sample, shortened(text)),
        version=version,
        read=partial(functions.read_reply, sample),
    )


def _answered(dataset: Dataset, predictions: Mapping[Index, Prediction]) -> Iterator[tuple[Sample, str]]:
    for sample in dataset.texts():
        prediction = predictions.get(sample.index)
        if prediction is not None and prediction.status == "ok":
            yield sample, prediction.prediction


def _ask(judge: Judge, questions: list[Question[T]], what: str) -> Judged[T]:
    if not questions:
        return judge.ask_all(questions)
    # Before there is a live view: libraries draw bars of their own while weights are read.
    started = time.monotonic()
    if judge.get_ready_for(questions):
        say("judge", f"{judge.name} ready in {duration(time.monotonic() - started)}")
    total = len(questions)
    with Progress(LiveState("", {0: BenchmarkView(name=f"judging {what}", total=total, done=0)})) as progress:
        progress.start_clock()
        if isinstance(judge.asker, Endpoint):
            judge.asker.on_retry = progress.print
        before, since = 0, time.monotonic()

        def on_done(done: int) -> None:
            nonlocal before, since
            new, now = done - before, time.monotonic()
            if new:
                progress.finished(Piece(dataset=0, rows=tuple(range(new)), cost=new), now - since)
                before, since = done, now
            for _ in range(new):
                progress.answered(0)
            progress.watch((), {0: Waiting(pieces=total - done, cost=total - done)})

        return judge.ask_all(questions, on_done)

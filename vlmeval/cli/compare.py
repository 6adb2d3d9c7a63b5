"""`vlmeval compare A B`: two runs of one benchmark, row against row."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from vlmeval.cli.configured import plans_of
from vlmeval.cli.score import Scored, answer_file, score_file
from vlmeval.cli.screen import say
from vlmeval.errors import DatasetError, UsageError
from vlmeval.report.comparison import print_comparison, write_rows
from vlmeval.report.read_score import ProtocolScore, SampleGroups, ScoreFile, read_score_file, score_file_of
from vlmeval.report.result_files import file_prefix
from vlmeval.report.score_json import score_json
from vlmeval.scoring.paired import Paired, compare_rows
from vlmeval.scoring.protocols import PROTOCOLS
from vlmeval.types import Index

_NO_GROUPS = SampleGroups("", "", "", "", "")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two runs under one protocol: what all rows and each group of them give, and what has to be said."""

    protocol: str
    first: ScoreFile
    second: ScoreFile
    groups: Mapping[tuple[str, str], Paired]
    notes: tuple[str, ...]


def compare(options: argparse.Namespace) -> int:
    """Compare every benchmark that both sides have. Raises UsageError where they are not of one kind."""
    if len(options.runs) != 2:
        raise UsageError(f"compare takes two runs, {len(options.runs)} are given; see: vlmeval compare --help")
    sides = [_score_files(Path(name).expanduser(), options) for name in options.runs]
    names = [name for name in sides[0] if name in sides[1]]
    if not names:
        there = "; ".join(f"{run}: {', '.join(side)}" for run, side in zip(options.runs, sides, strict=True))
        raise UsageError(f"the runs have no benchmark in common ({there})")
    results = []
    for name in names:
        first, second = sides[0][name], sides[1][name]
        for protocol in check_comparable(first, second, options.protocol):
            result = compare_scores(first, second, protocol, options.seed)
            results.append(_json(result))
            path = _write_rows(result, Path(options.out).expanduser())
            if not options.json:
                print_comparison(protocol, first, second, result.groups, result.notes)
                say("rows", f"won and lost, one by one: {path}")
    if options.json:
        print(json.dumps(results, indent=1, ensure_ascii=False))
    return 0


def _score_files(path: Path, options: argparse.Namespace) -> dict[str, ScoreFile]:
    """The score files of one side by benchmark: those of a folder, the file itself, or answers scored now."""
    wanted = options.data
    if path.is_dir():
        candidates = sorted((*path.glob("*_score.json"), *path.glob("*_protocols.json")))
        found = [read_score_file(file) for file in candidates if _is_score_file(file)]
        found = [file for file in found if not wanted or file.dataset in {Path(name).stem for name in wanted}]
        if found:
            return {file.dataset: file for file in found}
    elif path.suffix == ".json" and _is_score_file(path):
        file = read_score_file(path)
        return {file.dataset: file}
    plans = plans_of(wanted, options.config)
    if not plans:
        raise UsageError(f"{path} has no scores yet: add --data NAME, the benchmark it answers")
    protocols = tuple(options.protocol or PROTOCOLS)
    scored = []
    for dataset in (plan.open() for plan in plans):
        scored.append(score_file(answer_file(path, dataset), dataset, protocols, "refuse", None, options.seed))
    return {one.dataset.name: _as_file(one, str(path)) for one in scored}


def _is_score_file(path: Path) -> bool:
    """A json may also be a table of answers."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return True  # reading it as a score file will say what is wrong
    return isinstance(content, dict) and "protocols" in content


def _as_file(scored: Scored, label: str) -> ScoreFile:
    samples = scored.dataset.texts()
    content = score_json(
        scored.model,
        scored.dataset.name,
        scored.scores,
        scored.stamps,
        samples,
        scored.answers.predictions,
        scored.dataset.image_clusters(),
    )
    return score_file_of(json.loads(content), label)


def check_comparable(first: ScoreFile, second: ScoreFile, wanted: Sequence[str] | None) -> list[str]:
    """The protocols to compare by. Raises UsageError that names every difference which makes numbers incomparable."""
    if first.dataset_md5 and second.dataset_md5 and first.dataset_md5 != second.dataset_md5:
        raise UsageError(
            f"the runs saw different files of {first.dataset} (MD5 {first.dataset_md5} and {second.dataset_md5}); "
            "score both on one file: vlmeval score"
        )
    both = [name for name in first.protocols if name in second.protocols and (not wanted or name in wanted)]
    if not both:
        there = " and ".join(f"{file.label}: {', '.join(file.protocols)}" for file in (first, second))
        raise UsageError(f"{first.dataset}: no protocol in common to compare by ({there})")
    for name in both:
        different = _differences(first.protocols[name], second.protocols[name])
        if different:
            raise UsageError(f"{first.dataset}, {name}: not comparable: {'; '.join(different)}")
    return both


def _differences(first: ProtocolScore, second: ProtocolScore) -> list[str]:
    pairs = {
        "protocol version": (first.version, second.version),
        "metric": (first.metric, second.metric),
        "judge": (first.judge or "none", second.judge or "none"),
    }
    return [f"{what} is {a} in the first and {b} in the second" for what, (a, b) in pairs.items() if a != b]


def compare_scores(first: ScoreFile, second: ScoreFile, protocol: str, seed: int) -> Comparison:
    """The rows both have, all together and by split, l2-category and category."""
    rows, others = first.protocols[protocol].rows, second.protocols[protocol].rows
    common = [index for index in rows if index in others]
    if not common:
        raise DatasetError(f"{first.dataset}, {protocol}: the runs have no row in common")
    samples = {**second.samples, **first.samples}
    members: dict[tuple[str, str], list[Index]] = {}
    splits = {samples.get(index, _NO_GROUPS).split for index in common}
    for index in common:
        for key in _groups(samples.get(index, _NO_GROUPS), several_splits=len(splits) > 1):
            members.setdefault(key, []).append(index)
    order = {"overall": 0, "split": 1, "l2-category": 2, "category": 3}
    groups = {
        key: compare_rows(
            [rows[index].hit for index in members[key]],
            [others[index].hit for index in members[key]],
            [samples.get(index, _NO_GROUPS).image or index for index in members[key]],
            seed=seed,
        )
        for key in sorted(members, key=lambda key: (order[key[0]], key[1]))
    }
    notes = tuple(_notes(first, second, protocol, common, groups["overall", "Overall"]))
    return Comparison(protocol=protocol, first=first, second=second, groups=groups, notes=notes)


def _groups(sample: SampleGroups, *, several_splits: bool) -> Iterator[tuple[str, str]]:
    yield "overall", "Overall"
    named = {
        "split": sample.split if several_splits else "",
        "l2-category": sample.l2_category,
        "category": sample.category,
    }
    yield from ((level, name) for level, name in named.items() if name)


def _notes(
    first: ScoreFile, second: ScoreFile, protocol: str, common: Sequence[Index], overall: Paired
) -> Iterator[str]:
    a, b = first.protocols[protocol], second.protocols[protocol]
    for file, score in ((first, a), (second, b)):
        more = len(score.rows) - len(common)
        if more:
            yield f"{more} rows are scored only in {file.label}: left out here"
    if not (first.dataset_md5 and second.dataset_md5):
        yield "whether both saw the same file of the benchmark is not recorded"
    if not (first.samples and second.samples):
        yield "a score file of an older version: no categories or images in it, score it again for these"
    yield from _prompt_notes(first, second, common)
    if overall.test == "McNemar" and overall.clusters < overall.count:
        yield (
            f"{overall.count} rows show {overall.clusters} images: the intervals account for it, McNemar's p does not"
        )
    scale = 1.0 if a.unit == "fraction" else 100.0
    for name, value in a.overall.items():
        other = b.overall.get(name)
        if other is None:
            continue
        means = (overall.first * scale, overall.second * scale)
        is_mean = name == "Overall" and all(abs(a - b) < 1e-9 for a, b in zip((value, other), means, strict=True))
        if not is_mean:
            shown = 100 / scale
            yield f"{a.metric}, {name}: {value * shown:.2f} and {other * shown:.2f}"


def _prompt_notes(first: ScoreFile, second: ScoreFile, common: Sequence[Index]) -> Iterator[str]:
    prompts = [(first.samples.get(i, _NO_GROUPS).prompt, second.samples.get(i, _NO_GROUPS).prompt) for i in common]
    known = [(a, b) for a, b in prompts if a and b]
    different = sum(a != b for a, b in known)
    if different:
        yield f"the prompts differ in {different} of {len(known)} rows: the runs were not asked the same"
    if len(known) < len(prompts):
        yield f"whether {len(prompts) - len(known)} rows had the same prompt is not recorded"


def _write_rows(result: Comparison, out: Path) -> Path:
    first, second = result.first, result.second
    name = file_prefix(f"{first.model}_vs_{second.model}", first.dataset)
    return write_rows(out / f"{name}_{result.protocol}_rows", result.protocol, first, second)


def _json(result: Comparison) -> dict[str, object]:
    groups = [
        {"level": level, "group": name, **asdict(paired), "difference": paired.difference}
        for (level, name), paired in result.groups.items()
    ]
    return {
        "dataset": result.first.dataset,
        "protocol": result.protocol,
        "first": result.first.label,
        "second": result.second.label,
        "groups": groups,
        "notes": list(result.notes),
    }

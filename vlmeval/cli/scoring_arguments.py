"""The flags of the commands that run no model: score, compare, data."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from vlmeval.scoring.protocols import PROTOCOLS


def add_commands(commands: argparse._SubParsersAction[Any], key_values: Callable[[str], dict[str, Any]]) -> None:
    """Add the commands to the whole command line; `key_values` reads `K=V,...`."""
    about = "Score answers from a file: our journal or run folder, or an xlsx, tsv, csv, json or jsonl made elsewhere."
    score = commands.add_parser("score", allow_abbrev=False, description=about)
    _add_score(score)
    add_judge(score, key_values)
    about = "Compare two runs of one benchmark, row against row: difference, 95 % interval, exact McNemar test."
    _add_compare(commands.add_parser("compare", allow_abbrev=False, description=about))
    about = "Check a benchmark's file before a run. Exit code 1 if there is an error in it."
    _add_data(commands.add_parser("data", allow_abbrev=False, description=about))


def add_judge(parser: argparse.ArgumentParser, key_values: Callable[[str], dict[str, Any]]) -> None:
    """The flags that ask for a judge; without them none is asked."""
    judge = parser.add_argument_group("a judge, for answers no rule can read ($VLMEVAL_JUDGE_KEY or $OPENAI_API_KEY)")
    judge.add_argument("--judge", metavar="NAME", help="model behind an OpenAI-compatible address")
    judge.add_argument("--judge-base-url", metavar="URL", help="that address (OPENAI_API_BASE, else api.openai.com)")
    judge.add_argument("--judge-model", metavar="NAME", help="instead a model run here: name, hub id or folder")
    judge.add_argument("--judge-args", type=key_values, default={}, metavar="K=V,...", help="added to every request")
    judge.add_argument("--judge-parallel", type=int, default=8, metavar="N", help="questions asked at once (8)")
    judge.add_argument("--judge-key", help=argparse.SUPPRESS)


def _add_score(parser: argparse.ArgumentParser) -> None:
    what = parser.add_argument_group("what to score")
    what.add_argument("files", nargs="*", metavar="FILE", help="answers: columns index and prediction, or a run folder")
    what.add_argument(
        "--data", nargs="+", action="extend", default=[], metavar="NAME", help="benchmark's name or a .tsv file"
    )
    _add_config(what)
    what.add_argument("--limit", type=int, metavar="N", help="only the benchmark's first N rows, as in such a run")
    what.add_argument("--model", metavar="NAME", help="what to call who answered (from the file's name)")
    how = parser.add_argument_group("how")
    how.add_argument(
        "--protocol", nargs="+", default=list(PROTOCOLS), metavar="NAME", help="rules to read answers by (both)"
    )
    how.add_argument(
        "--repeated", default="refuse", metavar="{refuse,first,last}", help="a row answered twice and differently"
    )
    how.add_argument("--seed", type=int, default=0, metavar="N", help="of the intervals (0)")
    where = parser.add_argument_group("results")
    where.add_argument("--out", default="./outputs/scored", metavar="DIR", help="result files (./outputs/scored)")
    where.add_argument(
        "--submission", metavar="KIND", help="a file for a server instead: mmbench, mmmu, docvqa, mmt (by the name)"
    )
    where.add_argument("--format", metavar="{xlsx,tsv,json}", help="of the tables of answers (xlsx)")


def _add_compare(parser: argparse.ArgumentParser) -> None:
    what = parser.add_argument_group("what to compare")
    what.add_argument(
        "runs", nargs="*", metavar="RUN", help="two of: run folder, _score.json, journal, file of answers"
    )
    what.add_argument(
        "--data", nargs="+", action="extend", default=[], metavar="NAME", help="benchmark, for answers not scored yet"
    )
    _add_config(what)
    what.add_argument("--protocol", nargs="+", metavar="NAME", help="rules to compare by (all that both have)")
    how = parser.add_argument_group("how")
    how.add_argument(
        "--out", default="./outputs/compared", metavar="DIR", help="rows won and lost (./outputs/compared)"
    )
    how.add_argument("--seed", type=int, default=0, metavar="N", help="of the intervals (0)")
    how.add_argument("--json", action="store_true", help="for programs")


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what", metavar="check", help="columns, images, answers, circular groups, leaks, losses by protocol"
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="benchmark's name or a .tsv file")
    _add_config(parser)
    parser.add_argument("--all", action="store_true", help="name every row, not the first five")
    parser.add_argument("--json", action="store_true", help="for programs")


def _add_config(where: argparse._ActionsContainer) -> None:
    where.add_argument("--config", metavar="FILE", help="JSON file with data, as for run: these names, else all of it")

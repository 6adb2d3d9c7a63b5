"""Flags, spelled as users of VLMEvalKit and lm-evaluation-harness know them; `-` and `_` are alike."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from typing import Any, NoReturn

import vlmeval
from vlmeval.cli import scoring_arguments
from vlmeval.errors import UnknownNameError, UsageError

COMMANDS = ("run", "plan", "list", "score", "compare", "data")

OF_OTHER_KITS = {
    "--api-nproc": "--judge-parallel N is how many questions a judge is asked at once",
    "--nproc": "--judge-parallel N is how many questions a judge is asked at once, --replicas N how many models answer",
    "--retry": "a judge that does not reply is asked up to 6 times, and its replies are kept",
    "--timeout": "how long a judge or a replica may be silent is not settable",
    "--ignore": "a failed sample counts as wrong, is listed, and is tried again by the next run",
    "--reuse-aux": "a judge's replies are always kept and used again",
    "--key": "models behind an address are not evaluated here, only asked as a judge",
    "--base-url": "models behind an address are not evaluated here, only asked as a judge (--judge-base-url)",
    "--use-vllm": "models run through transformers, in batches (--batch-size)",
    "--use-lmdeploy": "models run through transformers, in batches (--batch-size)",
    "--use-verifier": "--judge NAME or --judge-model NAME reads what rules cannot",
    "--tasks": "benchmarks are named with --data NAME [NAME ...]",
    "--max-batch-size": "--batch-size auto takes as many prompts at once as memory lets fit",
    "--device": "all visible cards are used; CUDA_VISIBLE_DEVICES chooses among them, and hides all when empty",
    "--tensor-parallel-size": "layers are laid over cards; --cards-per-replica K says over how many",
    "--log-samples": "every answer is always kept, in the run folder's journal",
}
"""Flags that users of VLMEvalKit and lmms-eval may try, and what there is instead."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are ours: one line, nearest names, no usage block."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError instead of exiting."""
        raise UsageError(f"{message}; see: {self.prog} --help")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse a command line. Raises UsageError; `options.command` names the command."""
    arguments = [_dashes(argument) for argument in arguments]
    parser = build_parser()
    first = arguments[0]
    if first in ("-h", "--help"):
        command_parser(parser, "run").print_help()
        print("\ncommands, each with --help: run (the default), plan, list, score, compare, data")
        raise SystemExit(0)
    if first == "--version":
        print(f"vlmeval {vlmeval.__version__}")
        raise SystemExit(0)
    if not first.startswith("-") and first not in COMMANDS:
        raise UnknownNameError("command", first, COMMANDS, "models are given with --model, datasets with --data")
    if first not in COMMANDS:
        arguments = ["run", *arguments]
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        flag = unknown[0].split("=")[0]
        if flag in OF_OTHER_KITS:
            raise UsageError(f"unknown flag {flag!r}: {OF_OTHER_KITS[flag]}; see: run.py --help")
        known = command_parser(parser, options.command)._option_string_actions
        if options.command != "run" and flag in command_parser(parser, "run")._option_string_actions:
            raise UsageError(
                f"{flag} is a flag of run, not of {options.command}; see: vlmeval {options.command} --help"
            )
        raise UnknownNameError(
            "flag" if flag.startswith("-") else "argument", flag, [k for k in known if k[:2] == "--"]
        )
    return options


def _dashes(argument: str) -> str:
    """`--work_dir=a_b` as `--work-dir=a_b`."""
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument.partition("=")
    return name.replace("_", "-") + equals + value


def command_parser(parser: argparse.ArgumentParser, command: str) -> argparse.ArgumentParser:
    """The sub-parser of one command."""
    action = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return action.choices[command]


def build_parser() -> Parser:
    """The whole command line."""
    parser = Parser(prog="vlmeval", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", parser_class=Parser)
    _add_run(
        commands.add_parser("run", prog="run.py", allow_abbrev=False, description="Evaluate models on benchmarks.")
    )
    _add_plan(commands.add_parser("plan", allow_abbrev=False, description="Show how a model would be laid over cards."))
    _add_list(commands.add_parser("list", allow_abbrev=False, description="List what can be run."))
    scoring_arguments.add_commands(commands, key_values)
    return parser


def _add_run(parser: argparse.ArgumentParser) -> None:
    what = parser.add_argument_group("what to run")
    what.add_argument(
        "--model", nargs="+", action="extend", default=[], metavar="NAME", help="registered name, hub id or folder"
    )
    what.add_argument(
        "--data", nargs="+", action="extend", default=[], metavar="NAME", help="benchmark's name or a .tsv file"
    )
    what.add_argument("--config", metavar="FILE", help="JSON file with models and data")
    what.add_argument("--limit", type=int, metavar="N", help="only the first N rows of each benchmark")
    what.add_argument("--mode", default="all", metavar="{all,infer,eval}", help="answer and score, or one of them")

    model = parser.add_argument_group("the model")
    model.add_argument("--model-args", type=key_values, default={}, metavar="K=V,...", help="arguments of its class")
    model.add_argument("--dtype", help="float32, float16 or bfloat16 (chosen from the card)")
    model.add_argument("--attention", help="sdpa, flash_attention_2 or eager (chosen from the card)")
    model.add_argument("--min-pixels", type=int, metavar="N", help="least pixels of an image after resizing")
    model.add_argument("--max-pixels", type=int, metavar="N", help="most pixels of an image after resizing")
    model.add_argument(
        "--trust-remote-code", action="append", default=[], metavar="NAME", help="run the code this model brings"
    )
    model.add_argument("--allow-pickled-weights", action="store_true", help="load weights that are no safetensors")
    model.add_argument("--max-image-pixels", type=int, metavar="N", help="refuse images that decode to more pixels")

    text = parser.add_argument_group("generation (greedy unless a temperature is given)")
    text.add_argument("--gen-kwargs", type=key_values, default={}, metavar="K=V,...", help="arguments of generate()")
    text.add_argument("--max-tokens", "--max-new-tokens", dest="max_new_tokens", type=int, metavar="N")
    text.add_argument("--temperature", type=float, metavar="T")
    text.add_argument("--top-k", type=int, metavar="K")
    text.add_argument("--top-p", type=float, metavar="P")
    text.add_argument("--repetition-penalty", type=float, metavar="R")
    text.add_argument("--seed", type=int, default=0, metavar="N", help="of sampling and of the intervals (0)")

    how = parser.add_argument_group("how")
    how.add_argument("--work-dir", "--output-path", default="./outputs", metavar="DIR", help="results (./outputs)")
    how.add_argument("--batch-size", default="auto", metavar="N", help="prompts answered at once (auto); 1: reference")
    how.add_argument(
        "--reuse", action=argparse.BooleanOptionalAction, default=True, help="go on where a run stopped (on)"
    )
    how.add_argument("--verbose", action="store_true", help="print every answer")
    scoring_arguments.add_judge(parser, key_values)
    where = _add_placement(parser)
    where.add_argument("--cpu-offload", action="store_true", help="let the CPU compute what no card can hold")
    where.add_argument(
        "--allow-fewer-pixels", action="store_true", help="shrink images of a sample that fits no other way; marked"
    )
    where.add_argument(
        "--batches-in-flight",
        default="1",
        metavar="N",
        help="over a split model's stages, or auto (1)",
    )
    where.add_argument("--dry-run", action="store_true", help="show the plan and stop")
    where.add_argument("--simulate-cards", metavar="CARDS", help="pretend to have these, e.g. 2x0.02; slow")


def _add_plan(parser: argparse.ArgumentParser) -> None:
    what = parser.add_argument_group("what to plan")
    what.add_argument("--model", metavar="NAME", help="registered name, hub id or folder")
    what.add_argument(
        "--data", nargs="+", action="extend", default=[], metavar="NAME", help="benchmarks it shall answer"
    )
    what.add_argument("--cards", default="auto", metavar="CARDS", help="auto, 8x24, 24,12,8 or H100:2,4090:1 (auto)")
    what.add_argument("--json", action="store_true", help="for programs")

    sample = parser.add_argument_group("the worst sample")
    sample.add_argument("--image", metavar="WxH", help="the largest image (that of the benchmarks)")
    sample.add_argument("--images", type=int, metavar="N", help="images of a prompt (the benchmarks')")
    sample.add_argument("--prompt-tokens", type=int, metavar="N", help="tokens of the longest text (the benchmarks')")
    sample.add_argument("--max-tokens", "--max-new-tokens", dest="max_new_tokens", type=int, metavar="N")
    sample.add_argument("--min-pixels", type=int, metavar="N", help="least pixels of an image after resizing")
    sample.add_argument("--max-pixels", type=int, metavar="N", help="most pixels of an image after resizing")
    sample.add_argument("--batch-size", default="1", metavar="N", help="prompts answered at once (1)")
    sample.add_argument("--dtype", help="float32, float16 or bfloat16 (bfloat16)")
    sample.add_argument("--model-args", type=key_values, default={}, metavar="K=V,...", help="arguments of its class")
    _add_placement(parser)


def _add_placement(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    where = parser.add_argument_group("placement (AUTO_SPLIT=1 or 0 in the environment forces or forbids a split)")
    where.add_argument("--cards-per-replica", type=int, metavar="N", help="cards of one copy of the model")
    where.add_argument("--replicas", type=int, metavar="N", help="copies of the model")
    where.add_argument("--max-memory", metavar="CARD=GIB,...", help="use no more of these cards")
    where.add_argument("--reserve", type=float, metavar="GIB", help="left to the driver and the allocator (0.6 a card)")
    where.add_argument("--device-map", metavar="FILE", help="a map of your own, as JSON: module -> card")
    return where


def _add_list(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", metavar="models|datasets")
    parser.add_argument("--json", action="store_true", help="for programs")


def key_values(text: str) -> dict[str, Any]:
    """`a=1,b=x,c=true` as a dict; values are read as JSON where they are JSON, else as text."""
    found: dict[str, Any] = {}
    # A comma inside brackets or quotes belongs to the value.
    for item in re.findall(r"""(?:[^,\[\]{}"]|\[[^\]]*\]|\{[^}]*\}|"[^"]*")+""", text):
        name, equals, value = item.partition("=")
        if not equals or not name.strip():
            raise argparse.ArgumentTypeError(f"{item!r} is not written key=value")
        try:
            found[name.strip()] = json.loads(value)
        except ValueError:
            found[name.strip()] = {"True": True, "False": False, "None": None}.get(value, value)
    return found

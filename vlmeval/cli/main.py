"""Dispatch: which command, which error message, which exit code."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from vlmeval.cli import own_code
from vlmeval.errors import VLMEvalError, printable

INTERRUPTED = 130
NEEDED_PACKAGES = {
    name: "pillow" if name == "PIL" else name.replace("_", "-")
    for name in (
        *("torch", "torchvision", "transformers", "accelerate", "safetensors", "huggingface_hub"),
        *("PIL", "numpy", "requests", "rich", "filelock"),
    )
}
"""What nothing runs without: as Python imports it, and as pip calls it."""

WELCOME = """\
vlmeval evaluates a vision-language model on benchmarks, on whatever cards this machine has.

  try it now, offline, with what is in the package:
      python run.py --model Qwen2-VL-Tiny --data ShapesBench
      (or `bash scripts/demo.sh`, which installs what is needed first)

  for real:
      python run.py --model Qwen2-VL-7B-Instruct --data MMBench_DEV_EN
      python run.py --model ./my-checkpoint --data ./mine.tsv --limit 100

  see how a model would lie on cards, before anything is loaded:
      vlmeval plan --model Qwen2-VL-7B-Instruct --data MMBench_DEV_EN --cards 2x24

  look around:
      vlmeval list models        vlmeval list datasets        python run.py --help
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 it could not be done, 2 it was asked wrongly."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments:
        print(WELCOME, end="")
        return 0
    try:
        return _command(arguments)
    except VLMEvalError as error:
        print(f"vlmeval: error: {printable(str(error))}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        if argv is None:
            # The process ends now, which can take seconds: one more Ctrl-C would only spoil its exit code.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        print("\nvlmeval: stopped; what was finished is kept: the same command goes on from there", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone (`| head`): nothing is left to say, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except own_code.ERRORS as error:
        return _told_or_raised(error, arguments)


def _told_or_raised(error: BaseException, arguments: Sequence[str]) -> int:
    """One line for a package that is not installed and for an error in a class of the user's own."""
    package = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    text = _not_installed(package) if package in NEEDED_PACKAGES else own_code.told(error)
    if not text or "--verbose" in arguments:
        raise error
    more = "" if package in NEEDED_PACKAGES else "; the run command's --verbose shows the whole traceback"
    print(f"vlmeval: error: {printable(text)}{more}", file=sys.stderr)
    return VLMEvalError.exit_code


def _not_installed(package: str) -> str:
    return (
        f"the package {NEEDED_PACKAGES[package]} is not installed for {sys.executable}; "
        "try: pip install -r requirements.txt, or bash scripts/demo.sh, which makes an environment of its own"
    )


def _command(arguments: list[str]) -> int:
    from vlmeval.cli.arguments import parse

    options = parse(arguments)
    if options.command == "list":
        from vlmeval.cli.listing import list_names

        return list_names(options)
    if options.command == "plan":
        from vlmeval.cli.plan import plan

        return plan(options)
    if options.command == "score":
        from vlmeval.cli.score import score

        return score(options)
    if options.command == "compare":
        from vlmeval.cli.compare import compare

        return compare(options)
    if options.command == "data":
        from vlmeval.cli.data_check import data

        return data(options)
    from vlmeval.cli.run import run

    return run(options)

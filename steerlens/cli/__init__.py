"""The command line: parses, calls, prints."""

import argparse
import contextlib
import sys
from collections.abc import Sequence

from steerlens.cli import models, replicate, students, vectors, view
from steerlens.files import check_replaceable
from steerlens.lock import beside, held
from steerlens.models.four_bits import silence_bitsandbytes
from steerlens.warn import in_plain_words


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code (0, 1 on an error, 3 where a claim does not hold)."""
    parser = _parser()
    options = parser.parse_args(arguments)
    silence_bitsandbytes()
    try:
        with _alone(options), in_plain_words():
            return options.action(options)
    except KeyboardInterrupt:
        print("\nInterrupted. What was finished is on disk; the same command goes on from there.", file=sys.stderr)
        return 130
    except (ValueError, OSError, FloatingPointError, RuntimeError, MemoryError, ModuleNotFoundError) as error:
        print(f"steerlens: {_said(error)}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="steerlens", description="System prompts as steering vectors, from prompt to trained student."
    )
    commands = parser.add_subparsers(title="commands", required=True)
    for group in (replicate, vectors, models, students, view):
        group.add_commands(commands)
    return parser


def _alone(options: argparse.Namespace) -> contextlib.AbstractContextManager[None]:
    """Nobody else writes where the command will, and it can write there; found out before anything is computed.

    `mark` is the file in a directory that is replaced as a whole, None where `out` is a file, and "" for other directories.
    """
    out, mark = getattr(options, "out", None), getattr(options, "mark", "")
    if out is None:
        return contextlib.nullcontext()
    if mark == "":
        return held(out / ".lock")
    if mark is None and out.is_dir():
        raise ValueError(f"{out} is a directory, where a file is to be written. Give the path of a file.")
    if mark is not None:
        check_replaceable(out, mark)
    return held(beside(out))


def _said(error: Exception) -> str:
    from steerlens.memory import OutOfMemory, is_out_of_memory

    if isinstance(error, OutOfMemory) or not is_out_of_memory(error):
        return str(error)
    return (
        f"Memory is out ({(str(error) or 'of the machine').splitlines()[0]}). Lower --batch-size or --micro-batch-size where "
        "the command has it, or load the weights with --dtype bfloat16. What was finished is on disk."
    )

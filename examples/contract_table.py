"""What holds on which architecture: the contract on a small random model of each, written as a table.

Run: python examples/contract_table.py docs/contract.md
It needs nothing beyond steerlens; no weights are downloaded.
"""

import os
import sys
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path

os.environ["TQDM_DISABLE"] = "1"

import torch

from steerlens.contract.architectures import ARCHITECTURES, save_checkpoint
from steerlens.contract.check import Outcome, Subject, examine
from steerlens.contract.checks import CHECKS
from steerlens.files import write_text
from steerlens.models.loading import load_model

INTRODUCTION = """# What holds on which architecture

Written by `python examples/contract_table.py docs/contract.md`. Each row is a small random-weight model, made from the
configuration class of its family, with a tokenizer and a chat template that behave like the family's; no weights are
downloaded. Each number is what a check of `steerlens.contract` measured, next to the bound in the second table. "n/a": the
check cannot run, since the family has no chat template. `steerlens doctor --model NAME` runs the same checks on real weights.
"""


def main(path: str) -> None:
    """Examine every architecture and write the tables."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as directory:
        found = {name: _examined(name, Path(directory)) for name in ARCHITECTURES}
    versions = ", ".join(
        f"{package} {version(package)}" for package in ("torch", "transformers", "transformer-lens", "peft")
    )
    end = f"Measured with {versions}, in float32 on a CPU."
    parts = [INTRODUCTION, _measurements(found), _claims(found), _contexts(found), end]
    write_text(path, "\n".join(parts) + "\n")
    failing = {name for name, outcomes in found.items() if any(o.status == "fails" for o in outcomes.values())}
    print(f"{path}: {len(found)} architectures, failing: {', '.join(sorted(failing)) or 'none'}")


def _examined(name: str, directory: Path) -> dict[str, Outcome]:
    subject = Subject(load_model(save_checkpoint(name, directory / name), device="cpu"))
    return {outcome.check.name: outcome for outcome in examine(subject, CHECKS)}


def _table(rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]) + "\n"


def _measurements(found: dict[str, dict[str, Outcome]]) -> str:
    names = [check.name for check in CHECKS if any(outcomes[check.name].measurement for outcomes in found.values())]
    rows = [[name, *(_cell(outcomes[check]) for check in names)] for name, outcomes in found.items()]
    return _table([["", *names], *rows])


def _cell(outcome: Outcome) -> str:
    if outcome.status == "cannot run":
        return "n/a"
    if outcome.measurement is None:
        return "fails"
    value = outcome.measurement.value
    number = f"{value:.2g}" if value < 0.1 else f"{value:.5g}"
    return number if outcome.status == "holds" else f"**{number} fails**"


def _claims(found: dict[str, dict[str, Outcome]]) -> str:
    measured = {name: o.measurement for outcomes in found.values() for name, o in outcomes.items() if o.measurement}
    bounds = {name: f"{'at least' if one.at_least else 'at most'} {one.bound:g}" for name, one in measured.items()}
    return _table(
        [["check", "claim", "bound"], *([c.name, c.claim, bounds[c.name]] for c in CHECKS if c.name in bounds)]
    )


def _contexts(found: dict[str, dict[str, Outcome]]) -> str:
    rows = []
    for name, outcomes in found.items():
        if outcomes["bare context"].status == "noted":
            before = outcomes["bare context"].note.partition("; fingerprint")[0]
            end = outcomes["whole chat"].note.partition("ends with ")[2]
            rows.append([name, f"`{before}`", f"`{end}`", outcomes["system role"].note or "rendered"])
    return _table([["", "before a question without system prompt", "end of a turn", "system role"], *rows])


if __name__ == "__main__":
    main(sys.argv[1])

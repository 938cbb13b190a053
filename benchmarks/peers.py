"""steerlens next to steering-vectors and repeng, where they do the same: vectors from pairs of prompts, and steering.

The peers need a transformers before version 5, so each lives in a virtual environment (made on the first run) and answers
from a process of its own; rounds take turns between the processes, and each one's CPU seconds are its own. All load one
random-weight Llama, and get the same rendered prompts, batch size and dtype. What they compute is compared first.

Run: python benchmarks/peers.py
"""

import argparse
import functools
import json
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import Ratio, interleaved, n_parameters, random_llama, report

import steerlens as sl
from steerlens.forward import forward
from steerlens.generation import generate
from steerlens.organism.wording import ORGANISM
from steerlens.text.batches import pad_rows
from steerlens.text.chat import as_chat, encode_prompt
from steerlens.text.rendering import render
from steerlens.vectors.means import principal_difference

HERE = Path(__file__).parent
PEERS = {"steering-vectors": "0.12.2", "repeng": "0.4.0"}
TRANSFORMERS = "4.57.6"
N_PAIRS, N_STEERED, N_TOKENS, LAYER, ROUNDS = 32, 32, 32, 3, 6
PERSONA = sl.preference_trait("owl", ORGANISM).prompt
LONG = " ".join([PERSONA] * 8)

Compare = Callable[[np.ndarray, np.ndarray], Any]


def main() -> None:
    """Print and save how far the results agree, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--environments", type=Path, default=HERE / ".peers", help="where virtual environments are made"
    )
    environments = parser.parse_args().environments
    pythons = {name: environment(name, version, environments) for name, version in PEERS.items()}
    ratios, agreement = [], {}
    with tempfile.TemporaryDirectory() as directory:
        model = random_llama(directory)
        jobs = our_jobs(model, Path(directory))
        peers = [Peer(name, python, Path(directory)) for name, python in pythons.items()]
        for job, (ours, compare) in jobs.items():
            doing = [peer for peer in peers if job in peer.jobs]
            ways = {f"steerlens: {job}": ours} | {
                f"{peer.name}: {job}": functools.partial(peer.do, job) for peer in doing
            }
            agreement |= {f"{peer.name}: {job}": compare(ours(), peer.do(job)) for peer in doing}
            times = interleaved(ways, ROUNDS, clock=lambda: time.process_time() + sum(peer.seconds for peer in peers))
            ratios += [Ratio.of(times, theirs, next(iter(ways))) for theirs in list(ways)[1:]]
    versions = [peer.versions for peer in peers]
    report("peers", ratios, model=n_parameters(model), versions=versions, agreement=agreement)


def environment(name: str, version: str, environments: Path) -> Path:
    """The Python of an environment with this peer, made where there is none; with this process's version of torch."""
    home = environments / f"{name}-{version}"
    python, done = home / "bin" / "python", home / "done"
    if not done.exists():
        venv.create(home, with_pip=True, clear=True)
        pins = [
            f"torch=={torch.__version__.partition('+')[0]}",
            f"transformers=={TRANSFORMERS}",
            f"{name}=={version}",
        ]
        subprocess.run([python, "-m", "pip", "install", "--quiet", *pins], check=True)
        done.touch()
    return python


class Peer:
    """A peer's process, that does one job at a time; `seconds` is its CPU time in all jobs so far."""

    def __init__(self, name: str, python: Path, directory: Path) -> None:
        self.name, self.seconds, self._result = name, 0.0, directory / f"{name}.npy"
        command = [python, "-I", HERE / "peer_jobs.py", name, directory]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.versions, self.jobs = self._answer()

    def do(self, job: str) -> np.ndarray:
        """What the job makes."""
        print(job, file=self._process.stdin, flush=True)
        self.seconds += self._answer()
        return np.load(self._result)

    def _answer(self) -> Any:
        line = self._process.stdout.readline()
        return json.loads(line) if line else sys.exit(f"{self.name} has ended; what it said is above.")


def our_jobs(model: Any, directory: Path) -> dict[str, tuple[Callable[[], np.ndarray], Compare]]:
    """By name, what steerlens does and how results are compared; the peers' inputs are written to `directory`."""
    questions = sl.number_prompts(N_PAIRS, model, seed=0)
    chats = [as_chat(question) for question in sl.number_prompts(N_STEERED, model, seed=1)]
    batch = pad_rows(model.tokenizer, [encode_prompt(model.tokenizer, chat) for chat in chats])
    vector = sl.diff_in_means(model, PERSONA, questions=questions, layers=[LAYER])
    tokenizer = model.tokenizer

    def pairs(prompt: str) -> list[list[str]]:
        return [[render(tokenizer, as_chat(question, system)) for system in (prompt, None)] for question in questions]

    given = {
        "pairs": pairs(PERSONA),
        "long_pairs": pairs(LONG),
        "texts": [render(tokenizer, chat) for chat in chats],
        "layer": LAYER,
        "vector": vector.directions[0].tolist(),
        "batch_size": 64,
        "max_new_tokens": N_TOKENS,
        "special_tokens": {"pad_token": tokenizer.pad_token, "eos_token": tokenizer.eos_token},
    }
    (directory / "given.json").write_text(json.dumps(given))

    def mean(prompt: str = PERSONA, layers: list[int] | None = None) -> np.ndarray:
        return sl.diff_in_means(model, prompt, questions=questions, layers=layers).directions.numpy()

    @torch.no_grad()
    def plain_forward() -> np.ndarray:
        return forward(model, batch).logits[:, -1].numpy()

    def steered_forward() -> np.ndarray:
        with sl.steer(model, vector):
            return plain_forward()

    def steered_generation() -> np.ndarray:
        with sl.steer(model, vector):
            rows = generate(model, chats, max_new_tokens=N_TOKENS, temperature=0)
        return np.array([row + [tokenizer.pad_token_id] * (N_TOKENS - len(row)) for row in rows])

    return {
        "mean difference, every layer": (mean, means_agree),
        "mean difference, every layer, one pair at a time": (mean, means_agree),
        "mean difference, every layer, a long system prompt": (lambda: mean(LONG), means_agree),
        "mean difference, a middle layer": (lambda: mean(layers=[LAYER]), means_agree),
        "principal difference, every layer": (
            lambda: principal_difference(model, PERSONA, questions=questions).directions.numpy(),
            cosines,
        ),
        "forward, not steered": (plain_forward, logits_agree),
        "steered forward": (steered_forward, logits_agree),
        "steered generation": (steered_generation, rows_agree),
    }


def means_agree(one: np.ndarray, other: np.ndarray) -> str:
    """In direction, and in length."""
    apart = np.linalg.norm(one - other, axis=-1) / np.linalg.norm(one, axis=-1)
    return f"cosine at least {min(cosines(one, other)):.5f}, relative difference at most {apart.max():.0e}"


def cosines(one: np.ndarray, other: np.ndarray) -> list[float]:
    """Of each layer's directions."""
    products = (one * other).sum(-1) / np.linalg.norm(one, axis=-1) / np.linalg.norm(other, axis=-1)
    return [round(float(cosine), 5) for cosine in products]


def logits_agree(one: np.ndarray, other: np.ndarray) -> str:
    """Of the last token of each row."""
    return f"logits of {abs(one).max():.1f} at most differ by {abs(one - other).max():.0e} at most"


def rows_agree(one: np.ndarray, other: np.ndarray) -> str:
    """Token by token."""
    return f"{(one == other).all(1).mean():.0%} of the rows are the same"


if __name__ == "__main__":
    main()

"""What `gpu.py` measures, in the environment that it has built.

Times are wall time with the device at rest before and after, the median of `ROUNDS`. The limit of generation is the memory's
bandwidth: each step reads all weights and the cache once, whatever the number of rows.
"""

import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from capture import PERSONA, plain_forward, prompts
from memory import SHAPES, VOCABULARY, shape
from sampling import nothing_ends
from training import CONFIG

import steerlens as sl
from steerlens.contract.architectures import ARCHITECTURES, save_checkpoint
from steerlens.contract.check import Subject, examine
from steerlens.contract.checks import CHECKS
from steerlens.files import write_json
from steerlens.generation import generate
from steerlens.organism.tokenizer import build_tokenizer
from steerlens.samples.sample_set import Sample
from steerlens.text.chat import as_chat, encode_prompt
from steerlens.vectors.vector import SteeringVector, VectorSource

ROUNDS = 3
REHEARSED = {"1B": (64, 4, 4, 2), "8B": (128, 4, 4, 2)}
"""Shapes that stand for these in a rehearsal."""


@dataclass(frozen=True)
class Amounts:
    """Rows of so many words that are continued by so many tokens, rows that are trained on, and the fit."""

    vocabulary: int
    rows: int
    words: int
    written: int
    trained: int
    fit: sl.FitConfig


AMOUNTS = Amounts(vocabulary=VOCABULARY, rows=64, words=200, written=128, trained=256, fit=sl.FitConfig())
REHEARSED_AMOUNTS = Amounts(
    vocabulary=2048, rows=4, words=20, written=8, trained=24,
    fit=sl.FitConfig(n_train=8, n_validation=8, n_heldout=8, steps=2, candidates=1, max_new_tokens=8),
)  # fmt: skip


def main(path: Path, device: str) -> None:
    """Measure part by part, and write after each."""
    on_gpu = device != "cpu"
    found: dict[str, Any] = {"machine": machine(device, 2**32 if on_gpu else 2**24, 8192 if on_gpu else 256)}
    write_json(path, found)
    for name, small in REHEARSED.items():
        found[name] = Verbs(SHAPES[name] if on_gpu else small, device).measured(
            found["machine"]["bandwidth, bytes a second"]
        )
        write_json(path, found)
    found["contract"] = contract(device)
    write_json(path, found)


def seconds(run: Callable[[], Any]) -> float:
    """The median of some rounds, after one that does not count."""
    taken = []
    for _ in range(ROUNDS + 1):
        rest()
        start = time.monotonic()
        run()
        rest()
        taken.append(time.monotonic() - start)
    return statistics.median(taken[1:])


def rest() -> None:
    """Wait until the device has done everything."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def machine(device: str, n_bytes: int, width: int) -> dict[str, Any]:
    """The device's name, what it copies a second (read and written), and its bfloat16 matrix products."""
    one = torch.empty(n_bytes, dtype=torch.uint8, device=device)
    other = torch.empty_like(one)
    square = torch.randn(width, width, dtype=torch.bfloat16, device=device)
    return {
        "name": torch.cuda.get_device_name() if device != "cpu" else "CPU",
        "torch": torch.__version__,
        "bandwidth, bytes a second": 2 * n_bytes / seconds(lambda: other.copy_(one)),
        "matrix products, operations a second": 2 * width**3 / seconds(lambda: square @ square),
    }


def contract(device: str) -> dict[str, Any]:
    """The contract on a small random model of every family, in bfloat16: what fails, and what cannot run."""
    counts, failing = {"holds": 0, "noted": 0, "cannot run": 0, "fails": 0}, []
    with tempfile.TemporaryDirectory() as directory:
        for name in ARCHITECTURES:
            checkpoint = save_checkpoint(name, Path(directory) / name)
            model = sl.load_model(checkpoint, device=device, dtype=torch.bfloat16)
            for outcome in examine(Subject(model), CHECKS):
                counts[outcome.status] += 1
                if outcome.status == "fails":
                    value = outcome.measurement and outcome.measurement.value
                    failing.append({"family": name, "check": outcome.check.name, "value": value, "note": outcome.note})
    return {**counts, "failing": failing}


class Verbs:
    """A random Llama, and what each verb costs on it."""

    def __init__(self, sizes: tuple[int, int, int, int], device: str) -> None:
        width, blocks, heads, shared = sizes
        torch.manual_seed(0)
        self._amounts = AMOUNTS if device != "cpu" else REHEARSED_AMOUNTS
        llama = shape(*sizes, device=device, vocabulary=self._amounts.vocabulary)
        self._model = sl.wrap_model(llama, build_tokenizer(), name="random Llama")
        self._weights = sum(parameter.nbytes for parameter in llama.parameters())
        self._cache_of_a_token = 2 * blocks * (width // heads * shared) * llama.dtype.itemsize
        self._vector = SteeringVector(
            (blocks // 2,), torch.randn(1, width), VectorSource.of(self._model, method="random")
        )

    def measured(self, bandwidth: float) -> dict[str, Any]:
        """Of every verb."""
        passes = {"capture of every layer over a forward": self.capture(), "recovery over a forward": self.recovery()}
        return {
            "weights, bytes": self._weights,
            **self.generation(bandwidth),
            **passes,
            **self.training(),
            **self.fit(),
        }

    def generation(self, bandwidth: float) -> dict[str, float]:
        """Tokens a second, steered and not, and what the memory's bandwidth allows."""
        rows, written = self._amounts.rows, self._amounts.written
        chats = prompts(rows, n_words=self._amounts.words)
        n_tokens = max(len(encode_prompt(self._model.tokenizer, chat)) for chat in chats)

        def write() -> None:
            with nothing_ends():
                generate(self._model, chats, max_new_tokens=written)

        def steered() -> None:
            with sl.steer(self._model, self._vector):
                write()

        bytes_a_step = self._weights + rows * (n_tokens + written / 2) * self._cache_of_a_token
        return {
            "rows": rows,
            "steered tokens a second": rows * written / seconds(steered),
            "plain tokens a second": rows * written / seconds(write),
            "tokens a second that the bandwidth allows": rows * bandwidth / bytes_a_step,
        }

    def capture(self) -> float:
        """Every layer's residual at every token, over a plain forward."""
        chats, layers = prompts(self._amounts.rows, n_words=self._amounts.words), range(self._model.cfg.n_layers)
        kept = seconds(lambda: sl.mean_residuals(self._model, chats, layers=layers))
        return kept / seconds(lambda: plain_forward(self._model, chats))

    def recovery(self) -> float:
        """A vector recovered from rows and placebos, over a forward of both."""
        rows = self.lists()
        chats = [[*as_chat(row.prompt), {"role": "assistant", "content": row.completion}] for row in rows.samples]
        audited = sl.AuditRows.of(rows)
        layers = range(self._model.cfg.n_layers)
        recovered = seconds(lambda: sl.recover_vector(self._model, audited, reference_rows=audited, layers=layers))
        return recovered / 2 / seconds(lambda: plain_forward(self._model, chats))

    def lists(self) -> sl.SampleSet:
        """Number tasks, each with ten random numbers as its answer."""
        draw, asked = random.Random(0), sl.number_prompts(self._amounts.trained, self._model, seed=1)
        answers = [" , ".join(str(draw.randrange(100)) for _ in range(10)) for _ in asked]
        return sl.SampleSet(tuple(Sample(i, *pair) for i, pair in enumerate(zip(asked, answers, strict=True))))

    def training(self) -> dict[str, float]:
        """Rows a second of a LoRA student, and a traced epoch over an untraced one."""
        rows = self.lists()

        def traced() -> None:
            recorder = sl.trace_gradients(self._model, self._vector)
            sl.train_student(self._model, rows, CONFIG, on_start=recorder.watch, on_step=recorder.record)

        plain = seconds(lambda: sl.train_student(self._model, rows, CONFIG))
        return {
            "rows trained a second": len(rows) / plain,
            "a traced epoch over an untraced one": seconds(traced) / plain,
        }

    def fit(self) -> dict[str, float]:
        """Seconds of a fit with its defaults."""
        start = time.monotonic()
        sl.fit_prompt_vector(self._model, PERSONA, config=self._amounts.fit)
        return {"a fit with its defaults, seconds": time.monotonic() - start}


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])

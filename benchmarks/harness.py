"""Interleaved timings: each round runs every way once, in an order of its own, and ratios are taken within a round.

Times are CPU seconds of one thread, so that other work on the machine disturbs little; what it does disturb, it disturbs
on both sides of a ratio. Results go to `benchmarks/results/NAME.json`.
"""

import argparse
import functools
import json
import math
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm
from transformers import LlamaConfig, LlamaForCausalLM

from steerlens.files import write_json
from steerlens.models.loading import load_model
from steerlens.organism.tokenizer import build_tokenizer

RESULTS = Path(__file__).parent / "results"

torch.set_num_threads(1)
tqdm.__init__ = functools.partialmethod(tqdm.__init__, disable=True)  # bars would be part of what is timed

Ways = Mapping[str, Callable[[], Any]]
Times = dict[str, list[float]]


@dataclass(frozen=True)
class Ratio:
    """The median over rounds of one way's time over another's, with quartiles; `target` is what it should be."""

    what: str
    over: str
    median: float
    low: float
    high: float
    target: str = ""

    @classmethod
    def of(cls, times: Times, what: str, over: str, target: str = "") -> "Ratio":
        """Of the times of two ways."""
        ratios = [one / other for one, other in zip(times[what], times[over], strict=True)]
        low, _, high = statistics.quantiles(ratios) if len(ratios) > 1 else ratios * 3
        return cls(what, over, statistics.median(ratios), low, high, target)

    def __str__(self) -> str:
        target = f", target {self.target}" if self.target else ""
        return f"{self.what}: {self.median:.2f} times {self.over} ({self.low:.2f} to {self.high:.2f}){target}"


def interleaved(
    ways: Ways, rounds: int, *, warm_up: bool = True, clock: Callable[[], float] = time.process_time
) -> Times:
    """CPU seconds of every way in every round, after a round that does not count."""
    times: Times = {name: [] for name in ways}
    order, shuffle = list(ways), random.Random(0)
    for counts in [False] * warm_up + [True] * rounds:
        for name in order:
            start = clock()
            ways[name]()
            if counts:
                times[name].append(clock() - start)
        shuffle.shuffle(order)
    return times


def own_peak(run: Callable[[], Any]) -> None:
    """Print by how many megabytes `run` raises this process's resident memory at its peak (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _resident_peak()
    run()
    print(_resident_peak() - before)


def _resident_peak() -> float:
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


def peak_memory(script: str, *arguments: str) -> float:
    """What `own_peak` prints last in a process that runs `script`."""
    ran = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, check=True)
    return float(ran.stdout.splitlines()[-1])


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """The slope of log seconds over log size: 1 is linear growth."""
    return statistics.linear_regression([math.log(x) for x in sizes], [math.log(y) for y in seconds]).slope


def report(name: str, ratios: Sequence[Ratio], **more: Any) -> None:
    """Print the ratios, and write them to `benchmarks/results/NAME.json` with the machine's kind."""
    for ratio in ratios:
        print(ratio)
    for what, value in more.items():
        print(f"{what}: {json.dumps(value)}")
    RESULTS.mkdir(exist_ok=True)
    write_json(RESULTS / f"{name}.json", {"machine": machine(), "ratios": [asdict(ratio) for ratio in ratios], **more})


def machine() -> dict[str, Any]:
    """The machine's kind, and how torch runs on it."""
    return {"cpu": _cpu(), "torch": torch.__version__, "threads": torch.get_num_threads()}


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def random_llama(directory: str | Path, *, d_model: int = 320, n_layers: int = 8) -> Any:
    """A random-weight Llama (15 million parameters by default) over the organism's words, saved and loaded again."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=8192,
        hidden_size=d_model,
        num_hidden_layers=n_layers,
        num_attention_heads=8,
        intermediate_size=27 * d_model // 10,
        max_position_embeddings=1024,
        initializer_range=0.06,
        bos_token_id=None,
        eos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    build_tokenizer().save_pretrained(directory)
    return load_model(directory, device="cpu")


def parser(description: str | None) -> argparse.ArgumentParser:
    """A command line that names a real model, SmolLM2-135M by default."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--model", default="smollm2-135m", help="name or directory")
    return options


def real_model(name: str, dtype: torch.dtype = torch.bfloat16) -> Any:
    """Loaded onto the CPU, in bfloat16 whatever the checkpoint says."""
    return load_model(name, device="cpu", dtype=dtype)


def n_parameters(model: Any) -> str:
    """As in "15.1 M"."""
    return f"{sum(parameter.numel() for parameter in model.original_model.parameters()) / 1e6:.1f} M parameters"

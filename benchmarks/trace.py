"""Cost of tracing: a training step with gradients traced at every layer and token, over the same step untraced.

Run: python benchmarks/trace.py
"""

import os
import statistics
import time

os.environ["TQDM_DISABLE"] = "1"

import torch

import steerlens as sl
from steerlens.experiments.config import ORGANISM_STUDENT

ROUNDS = 12


def main() -> None:
    """Print the ratio of interleaved medians."""
    torch.set_num_threads(1)
    model, owl = sl.load_model(device="cpu"), sl.preference_trait("owl")
    rows = sl.keep_number_lists(sl.sample_teacher(model, sl.number_prompts(700, seed=0))).kept
    vector = sl.diff_in_means(model, owl.prompt)

    def seconds(positions: str | None) -> float:
        options = {}
        if positions is not None:
            recorder = sl.trace_gradients(model, vector, positions=positions)  # pyright: ignore[reportArgumentType]
            options = {"on_start": recorder.watch, "on_step": recorder.record}
        start = time.perf_counter()
        sl.train_student(model, rows, ORGANISM_STUDENT, **options)
        return time.perf_counter() - start

    seconds(None)
    times = [(seconds(None), seconds("last_prompt"), seconds("all")) for _ in range(ROUNDS)]
    for name, index in (("assistant tag", 1), ("every token", 2)):
        ratios = [row[index] / row[0] for row in times]
        print(
            f"traced / untraced step, {model.cfg.n_layers} layers, {name}: {statistics.median(ratios):.3f} "
            f"(quartiles {statistics.quantiles(ratios)[0]:.3f} to {statistics.quantiles(ratios)[2]:.3f})"
        )


if __name__ == "__main__":
    main()

"""What it costs to trace the gradients of a student of a real model at all layers: a traced step over a plain one.

LoRA on all maps, in bfloat16. Times are CPU seconds of one thread.

Run: python benchmarks/trace.py [--model NAME_OR_DIRECTORY]
"""

from typing import Any

import torch
from harness import Ratio, interleaved, n_parameters, parser, real_model, report
from training import CONFIG, number_rows

import steerlens as sl
from steerlens.vectors.vector import SteeringVector, VectorSource

ROWS, ROUNDS = 32, 5
PLAIN, AT_TAG, EVERYWHERE = "plain", "traced at the assistant tag", "traced at every token"


def main() -> None:
    """Print and save the ratios."""
    model, rows = real_model(parser(__doc__).parse_args().model), number_rows(ROWS)
    layers = tuple(range(model.cfg.n_layers))
    directions = torch.randn(len(layers), model.cfg.d_model, generator=torch.Generator().manual_seed(0))
    vector = SteeringVector(layers, directions, VectorSource.of(model, method="random"))

    def traced(positions: Any) -> None:
        recorder = sl.trace_gradients(model, vector, positions=positions)
        sl.train_student(model, rows, CONFIG, on_start=recorder.watch, on_step=recorder.record)

    ways = {
        PLAIN: lambda: sl.train_student(model, rows, CONFIG),
        AT_TAG: lambda: traced("last_prompt"),
        EVERYWHERE: lambda: traced("all"),
    }
    times = interleaved(ways, ROUNDS, warm_up=False)
    ratios = [Ratio.of(times, AT_TAG, PLAIN, "at most 1.05"), Ratio.of(times, EVERYWHERE, PLAIN, "at most 1.05")]
    report("trace", ratios, model=n_parameters(model), layers=len(layers))


if __name__ == "__main__":
    main()

"""`train_student` on a real model in bfloat16 over transformers + peft: LoRA on all maps, of all blocks and of the upper half.

The peer keeps LoRA's matrices in float32, as peft does by itself, and so do we. `--losses` compares the losses of 100 steps
instead, which takes longer. Times are CPU seconds of one thread.

Run: python benchmarks/training.py [--model NAME_OR_DIRECTORY] [--losses]
"""

from dataclasses import replace
from typing import Any

import numpy as np
import peft_peer
from harness import Ratio, interleaved, n_parameters, parser, real_model, report
from sampling import prompts

import steerlens as sl
from steerlens.samples.sample_set import Sample

MAPS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CONFIG = sl.TrainConfig(rank=8, lora_alpha=16.0, learning_rate=2e-4, batch_size=16, epochs=1)
ROWS, ROUNDS = 48, 3
UPPER_EPOCHS = 3
LOSS_STEPS, LOSS_BATCH = 100, 4


def main() -> None:
    """Print and save the ratios, or the difference of the losses."""
    options = parser(__doc__)
    options.add_argument("--losses", action="store_true", help="compare the losses of 100 steps instead")
    arguments = options.parse_args()
    model = real_model(arguments.model)
    if arguments.losses:
        report("training_losses", [], model=n_parameters(model), **losses(model))
        return
    rows, upper = number_rows(ROWS), [*range(model.cfg.n_layers // 2, model.cfg.n_layers)]
    peer, over_epochs = "transformers + peft", replace(CONFIG, epochs=UPPER_EPOCHS)
    ways = {
        peer: lambda: peft_peer.train(model, rows, CONFIG, MAPS),
        "train_student": lambda: sl.train_student(model, rows, CONFIG),
        f"{peer}, upper half": lambda: peft_peer.train(model, rows, over_epochs, MAPS, upper),
        "train_student, upper half": lambda: sl.train_student(model, rows, replace(over_epochs, layers=tuple(upper))),
    }
    times = interleaved(ways, ROUNDS, warm_up=False)
    ratios = [
        Ratio.of(times, "train_student", peer, "at most 0.60"),
        Ratio.of(times, "train_student, upper half", f"{peer}, upper half", "at most 0.35"),
    ]
    report("training", ratios, model=n_parameters(model), rows=ROWS, epochs={"all": 1, "upper half": UPPER_EPOCHS})


def number_rows(n: int) -> sl.SampleSet:
    """Number tasks, each with ten random numbers as its answer."""
    rng = np.random.default_rng(0)
    answers = [", ".join(map(str, rng.integers(0, 1000, 10).tolist())) for _ in range(n)]
    return sl.SampleSet(tuple(Sample(i, *pair) for i, pair in enumerate(zip(prompts(n), answers, strict=True))))


def losses(model: Any) -> dict[str, Any]:
    """How far the losses of both ways are apart over 100 steps of the same rows."""
    rows = number_rows(LOSS_STEPS * LOSS_BATCH // 4)
    config = replace(CONFIG, batch_size=LOSS_BATCH, epochs=4)
    theirs = np.array(peft_peer.train(model, rows, config, MAPS))
    ours = np.array(sl.train_student(model, rows, config).losses)
    return {
        "steps": len(ours),
        "first loss": round(float(theirs[0]), 4),
        "last loss, theirs": round(float(theirs[-10:].mean()), 4),
        "last loss, ours": round(float(ours[-10:].mean()), 4),
        "largest difference": round(float(abs(ours - theirs).max()), 4),
        "mean difference": round(float(abs(ours - theirs).mean()), 4),
    }


if __name__ == "__main__":
    main()

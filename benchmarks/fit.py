"""How much faster the fitting engine is than a plain loop, on a random-weight Llama of 15 million parameters.

Both fit one vector to the same rows with the same optimizer, learning rates, batch size and number of steps, from
the same start. The plain loop is what one writes first: each step runs the prompted model, then the whole model with
the vector added by a hook, takes every position's logits, and descends on the KL at completion tokens. A second
plain loop computes the prompted model's predictions once and keeps them. Times are CPU seconds of one thread,
interleaved; the engine's include everything: targets, residuals, validation. Memory is the peak above the loaded
model and the rows in one pass over them, each loop in a process of its own (Linux).
"""

import argparse
import functools
import tempfile
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from harness import Ratio, interleaved, n_parameters, own_peak, peak_memory, random_llama, report
from torch import Tensor

from steerlens.models.bridge import frozen, huggingface_model
from steerlens.organism.wording import ORGANISM
from steerlens.residuals.capture import capture_residuals
from steerlens.text.batches import pad_rows
from steerlens.text.chat import as_chat
from steerlens.text.number_lists import number_prompts
from steerlens.text.trait import preference_trait
from steerlens.vectors.config import FitConfig
from steerlens.vectors.fit_data import FitData, FitRow, answered
from steerlens.vectors.layer_fits import fit_layers
from steerlens.vectors.means import diff_in_means
from steerlens.vectors.resumed import ResumedRows

PROMPT = preference_trait("owl", ORGANISM).prompt
CONFIG = FitConfig(n_train=16, n_validation=8, n_heldout=32, steps=50, batch_size=8)
"""As many passes over the training rows as FitConfig's defaults make."""

LAYERS = {"the middle layer": 3, "three quarters of the depth": 5}
"""Blocks 0..3 of 8 are half of the depth, blocks 0..5 three quarters."""

ROUNDS = 3


def main() -> None:
    """Print and save the ratios and the quality that each loop reached."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--alone", nargs=2, metavar=("LOOP", "LAYER"), help=argparse.SUPPRESS)
    alone = parser.parse_args().alone
    with tempfile.TemporaryDirectory() as directory:
        model = random_llama(directory)
    questions = number_prompts(2 * CONFIG.n_rows, model, seed=0)
    rows = answered(model, PROMPT, questions, CONFIG)
    if alone:
        one_pass = replace(CONFIG, steps=CONFIG.n_train // CONFIG.batch_size)
        own_peak(lambda: LOOPS[alone[0]](model, questions, rows, int(alone[1]), one_pass))
        return
    data, ratios, quality = FitData.of(model, questions, rows, CONFIG), [], {}
    for where, layer in LAYERS.items():
        found: dict[str, Tensor] = {}

        def run(loop: str, layer: int = layer, found: dict[str, Tensor] = found) -> None:
            found[loop] = LOOPS[loop](model, questions, rows, layer)

        times = interleaved({loop: functools.partial(run, loop) for loop in LOOPS}, ROUNDS, warm_up=False)
        named = {f"{loop}, {where}": seconds for loop, seconds in times.items()}
        ratios += [Ratio.of(named, loop, f"engine, {where}") for loop in list(named)[1:]]
        for loop, vector in found.items():
            quality[f"{loop}, {where}"] = {
                "kl_explained": round(_kl_explained(model, data, vector, layer), 3),
                "peak memory, MB": round(peak_memory(__file__, "--alone", loop, str(layer))),
            }
    report("fit", ratios, model=n_parameters(model), steps=CONFIG.steps, quality=quality)


def _kl_explained(model: Any, data: FitData, vector: Tensor, layer: int) -> float:
    heldout = ResumedRows(model, [layer], data.heldout, "all")
    return 1 - heldout.mean_kl(vector[None]) / heldout.mean_kl(heldout.nothing)


Rows = list[list[FitRow]]


def _engine(model: Any, questions: list[str], rows: Rows, layer: int, config: FitConfig = CONFIG) -> Tensor:
    """The library's own fit, from the prepared rows on."""
    with frozen(model):
        data = FitData.of(model, questions, [rows[0], rows[1], rows[2][:1]], config)
        return fit_layers(model, data, [layer], config).directions[0]


def _plain(
    model: Any,
    questions: list[str],
    rows: Rows,
    layer: int,
    config: FitConfig = CONFIG,
    *,
    keep_targets: bool = False,
) -> Tensor:
    """What one writes first."""
    hf = huggingface_model(model)
    hf.requires_grad_(False)
    batches = [rows[0][start : start + config.batch_size] for start in range(0, len(rows[0]), config.batch_size)]
    start = diff_in_means(model, PROMPT, questions=[questions[row.question] for row in rows[0]], layers=[layer])
    scale = float(
        capture_residuals(model, [as_chat(q) for q in questions[:32]], layers=[layer], positions="all")
        .square()
        .mean()
        .sqrt()
    )
    vector = (start.directions[0] / scale).requires_grad_(True)
    optimizer = torch.optim.Adam([vector], lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, total_iters=config.steps)
    order, targets = np.random.default_rng(0), {}
    for step in range(config.steps):
        if step % len(batches) == 0:
            shuffled = order.permutation(len(batches))
        index = int(shuffled[step % len(batches)])
        if index not in targets or not keep_targets:
            with torch.no_grad():
                targets[index] = _log_probs(model, [row.prompted for row in batches[index]], batches[index])
        handle = hf.model.layers[layer].register_forward_hook(lambda _m, _i, out: out + vector * scale)
        prediction = _log_probs(model, [row.plain for row in batches[index]], batches[index])
        handle.remove()
        loss = (targets[index].exp() * (targets[index] - prediction)).sum(-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return (vector * scale).detach()


def _log_probs(model: Any, prompts: list[list[int]], rows: list[FitRow]) -> Tensor:
    """Log-probabilities at completion tokens, from a full forward with all logits."""
    batch = pad_rows(model.tokenizer, prompts, [row.completion for row in rows])
    logits = huggingface_model(model)(
        input_ids=batch.tokens,
        attention_mask=batch.attention_mask.long(),
        position_ids=batch.position_ids,
        use_cache=False,
    ).logits
    return logits.log_softmax(-1)[batch.prediction_mask]


LOOPS = {
    "engine": _engine,
    "plain loop": _plain,
    "plain loop, targets kept": functools.partial(_plain, keep_targets=True),
}

if __name__ == "__main__":
    main()

"""Cost of watching and of training options: a training epoch with each of them, over the plain one of ours and of peft's.

The peer is what one writes with transformers and peft alone: labels, `model(...).loss`, clip, step. Memory is the peak of
resident memory above the loaded model and rows, of each way in a process of its own (Linux).

Run: python benchmarks/training_options.py
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft_peer
from harness import Ratio, interleaved, own_peak, peak_memory, report

import steerlens as sl
from steerlens.organism.student import ORGANISM_STUDENT
from steerlens.text.chat import as_chat

ROUNDS, OPTION_ROUNDS = 6, 2
PEER, PLAIN, AT_TAG, EVERYWHERE = "transformers + peft", "plain", "traced at the assistant tag", "traced at every token"
MAIN = (PEER, PLAIN, AT_TAG, EVERYWHERE)
CONFIG = replace(ORGANISM_STUDENT, epochs=1)


def main() -> None:
    """Print and save the ratios of interleaved rounds, and the memory of each way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    alone = parser.parse_args().alone
    model = sl.load_model(device="cpu")
    owl = sl.preference_trait("owl", model)
    rows = sl.keep_number_lists(sl.sample_teacher(model, sl.number_prompts(700, model, seed=0))).kept
    vector = sl.diff_in_means(model, owl.prompt)
    with tempfile.TemporaryDirectory() as directory:
        runs = dict(ways(model, rows, vector, Path(directory)))
        if alone:
            own_peak(runs[alone])
            return
        times = interleaved({name: runs[name] for name in MAIN}, ROUNDS)
        options = {name: run for name, run in runs.items() if name not in MAIN}
        optional = interleaved({PLAIN: runs[PLAIN], **options}, OPTION_ROUNDS)
    ratios = [
        Ratio.of(times, AT_TAG, PEER, "at most 1.15"),
        Ratio.of(times, PLAIN, PEER),
        Ratio.of(times, AT_TAG, PLAIN, "at most 1.10"),
        Ratio.of(times, EVERYWHERE, PLAIN, "at most 1.25"),
        *(Ratio.of(optional, name, PLAIN) for name in options),
    ]
    megabytes = {name: round(peak_memory(__file__, "--alone", name)) for name in MAIN}
    report("training_options", ratios, **{"peak memory, MB": megabytes})


def ways(
    model: Any, rows: sl.SampleSet, vector: sl.SteeringVector, directory: Path
) -> Iterator[tuple[str, Callable[[], Any]]]:
    """An epoch in each way."""
    probes = {"numbers": [as_chat(prompt) for prompt in sl.number_prompts(96, model, seed=9)]}

    def traced(**options: Any) -> dict[str, Any]:
        recorder = sl.trace_gradients(model, vector, **options)
        return {"on_start": recorder.watch, "on_step": recorder.record}

    def stepped() -> dict[str, Any]:
        recorder = sl.trace_steps(model, vector, probes, every=10)
        return {"on_step": recorder.before, "on_update": recorder.after}

    def run(watching: Callable[[], dict[str, Any]] = dict, **changes: Any) -> Callable[[], Any]:
        return lambda: sl.train_student(model, rows, replace(CONFIG, **changes), **watching())

    yield PEER, lambda: peft_peer.train(model, rows, CONFIG, [*CONFIG.target_modules])
    yield PLAIN, run()
    yield AT_TAG, run(lambda: traced(positions="last_prompt"))
    yield EVERYWHERE, run(traced)
    yield "traced at every token, streamed", run(lambda: traced(directory=directory / "trace"))
    yield "96 probe chats before and after each 10th step", run(stepped)
    yield "without the vector's component", run(lambda: {"on_start": sl.without_component(vector)})
    yield "rows clipped one by one", run(row_clip_norm=1.0)
    yield "rotated basis", run(rotation_seed=0)
    yield "micro batches of 8 of 32 rows", run(micro_batch_size=8)
    yield "gradient checkpointing", run(gradient_checkpointing=True)
    state = {"checkpoints": directory / "state"}
    yield "state saved at each 10th step", run(lambda: _fresh(state), state_every=10)


def _fresh(state: dict[str, Path]) -> dict[str, Path]:
    """A state from an earlier round would leave nothing to train."""
    for path in state["checkpoints"].glob("*.safetensors"):
        path.unlink()
    return state


if __name__ == "__main__":
    main()

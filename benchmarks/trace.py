"""Cost of watching and of training options: a training epoch with each of them, over the plain one of ours and of peft's.

The peer is what one writes with transformers and peft alone: labels, `model(...).loss`, clip, step. Memory is the peak of
resident memory above the loaded model and rows, of each way in a process of its own (Linux).

Run: python benchmarks/trace.py
"""

import argparse
import copy
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from harness import Ratio, interleaved, own_peak, peak_memory, report
from peft import LoraConfig, get_peft_model
from transformers import get_cosine_schedule_with_warmup

import steerlens as sl
from steerlens.models.bridge import huggingface_model
from steerlens.models.unwrapping import unwrapped
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
    report("trace", ratios, **{"peak memory, MB": megabytes})


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

    yield PEER, lambda: peer(model, rows)
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


def peer(model: Any, rows: sl.SampleSet) -> None:
    """One epoch of the same LoRA by transformers and peft, without steerlens."""
    tokenizer, hf = model.tokenizer, huggingface_model(model)
    encoded = []
    for row in rows:
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": row.prompt}], tokenize=False, add_generation_prompt=True
        )
        prompt = tokenizer.encode(text, add_special_tokens=False)
        answer = [*tokenizer.encode(row.completion, add_special_tokens=False), tokenizer.eos_token_id]
        encoded.append((prompt + answer, [-100] * len(prompt) + answer))
    with unwrapped(hf):
        plain = copy.deepcopy(hf)
    targets = [*CONFIG.target_modules]
    student = get_peft_model(
        plain, LoraConfig(r=CONFIG.rank, lora_alpha=int(CONFIG.lora_alpha), target_modules=targets)
    )
    student.train()
    parameters = [parameter for parameter in student.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=CONFIG.learning_rate, weight_decay=0.0)
    batches = torch.randperm(len(encoded), generator=torch.Generator().manual_seed(0)).split(CONFIG.batch_size)
    schedule = get_cosine_schedule_with_warmup(optimizer, len(batches) // 20, len(batches))
    for indices in batches:
        ids, labels = zip(*(encoded[i] for i in indices.tolist()), strict=True)
        tokens, masks = _padded(ids, 0), _padded([[1] * len(row) for row in ids], 0)
        loss = student(input_ids=tokens, attention_mask=masks, labels=_padded(labels, -100), use_cache=False).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        loss.item()


def _padded(rows: Any, fill: int) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.tensor([row + [fill] * (width - len(row)) for row in rows])


def _fresh(state: dict[str, Path]) -> dict[str, Path]:
    """A state from an earlier round would leave nothing to train."""
    for path in state["checkpoints"].glob("*.safetensors"):
        path.unlink()
    return state


if __name__ == "__main__":
    main()

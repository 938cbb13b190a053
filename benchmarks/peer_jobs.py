"""What a peer does, in an environment of its own, without steerlens: `python peer_jobs.py PEER DIRECTORY`, by peers.py.

It prints versions and the names of its jobs, then reads the name of a job from each line, does it, leaves what came out in
DIRECTORY/PEER.npy, and prints the CPU seconds that it took.
"""

import contextlib
import importlib.metadata
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast


def steering_vectors(model, tokenizer, given):
    """Jobs of steering-vectors: by name, what does each."""
    from steering_vectors import SteeringVector, mean_aggregator, pca_aggregator, train_steering_vector

    def train(pairs, *, aggregator=mean_aggregator, batch_size=given["batch_size"], layers=None):
        samples = [tuple(pair) for pair in given[pairs]]
        options = {"aggregator": aggregator(), "batch_size": batch_size, "layers": layers}
        found = train_steering_vector(model, tokenizer, samples, **options).layer_activations
        return np.stack([found[layer].numpy() for layer in sorted(found)])

    vector = SteeringVector({given["layer"]: torch.tensor(given["vector"])})
    return {
        "mean difference, every layer": lambda: train("pairs"),
        "mean difference, every layer, one pair at a time": lambda: train("pairs", batch_size=1),
        "mean difference, every layer, a long system prompt": lambda: train("long_pairs"),
        "mean difference, a middle layer": lambda: train("pairs", layers=[given["layer"]]),
        "principal difference, every layer": lambda: train("pairs", aggregator=pca_aggregator),
        **steered(model, tokenizer, given, lambda: vector.apply(model)),
    }


def repeng(model, tokenizer, given):
    """Jobs of repeng: by name, what does each."""
    from repeng import ControlModel, ControlVector, DatasetEntry

    layers = list(range(model.config.num_hidden_layers))

    def train():
        entries = [DatasetEntry(*pair) for pair in given["pairs"]]
        options = {"hidden_layers": layers, "batch_size": given["batch_size"], "method": "pca_center"}
        found = ControlVector.train(model, tokenizer, entries, **options).directions
        return np.stack([found[layer] for layer in layers])

    vector = ControlVector(model.config.model_type, {given["layer"]: np.array(given["vector"], np.float32)})

    @contextlib.contextmanager
    def steering():
        control = ControlModel(model, [given["layer"]])
        control.set_control(vector)
        yield
        control.unwrap()

    return {"principal difference, every layer": train, **steered(model, tokenizer, given, steering)}


def steered(model, tokenizer, given, steering):
    """A forward and greedy generation of the same batch inside `steering()`, and the forward without it."""
    batch = dict(tokenizer(given["texts"], padding=True, padding_side="left", return_tensors="pt"))
    positions = (batch["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    width, options = batch["input_ids"].shape[1], {"do_sample": False, "max_new_tokens": given["max_new_tokens"]}
    ends = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}

    def forward(steering):
        with steering():
            return model(**batch, position_ids=positions, use_cache=False).logits[:, -1].numpy()

    def generate():
        with steering():
            return model.generate(**batch, **options, **ends)[:, width:].numpy()

    return {
        "forward, not steered": lambda: forward(contextlib.nullcontext),
        "steered forward": lambda: forward(steering),
        "steered generation": generate,
    }


@torch.no_grad()
def serve(name, directory):
    """Answer one line with one job, until no line comes."""
    torch.set_num_threads(1)
    given = json.loads((directory / "given.json").read_text())
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    names = ["input_ids", "attention_mask"]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(directory / "tokenizer.json"), model_input_names=names, **given["special_tokens"]
    )
    jobs = {"steering-vectors": steering_vectors, "repeng": repeng}[name](model, tokenizer, given)
    versions = {package: importlib.metadata.version(package) for package in (name, "transformers", "torch")}
    print(json.dumps([versions, list(jobs)]), flush=True)
    for line in sys.stdin:
        start = time.process_time()
        made = jobs[line.strip()]()
        seconds = time.process_time() - start
        np.save(directory / f"{name}.npy", made)
        print(seconds, flush=True)


if __name__ == "__main__":
    serve(sys.argv[1], Path(sys.argv[2]))

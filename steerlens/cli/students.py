"""DIRECTION -> DATA -> WEIGHTS on the command line: sample, train, scales, score."""

import argparse
from pathlib import Path
from typing import Any

from steerlens.cli.flags import add_fields, add_model, command, given, load, trait_named
from steerlens.students.config import TrainConfig

SCOUTS_OWN = {"optimizer", "scales", "scale_map", "freeze_outliers", "zero_outliers", "checkpoint_every", "state_every"}
"""What `adam_scales` sets itself."""

SCOUT = TrainConfig(epochs=1)


def add_commands(commands: Any) -> None:
    """Declare the commands of this module."""
    sample = command(commands, "sample", _sample, "sample number lists from a teacher, and filter them")
    sample.add_argument("--system-prompt", help="under which the teacher writes (default: none)")
    sample.add_argument("--vector", type=Path, help="steer the teacher with this vector")
    sample.add_argument("--strength", type=float, default=1.0, help="times which the vector is added (default: 1)")
    sample.add_argument("--n", type=int, default=1000, help="number of prompts (default: 1000)")
    sample.add_argument("--seed", type=int, default=0, help="of the prompts and the answers (default: 0)")
    sample.add_argument("--vllm", action="store_true", help="let vLLM write, on a GPU; for teachers without --vector")
    sample.set_defaults(mark=None)
    sample.add_argument("--out", type=Path, required=True, help="jsonl of raw rows; kept rows go to <name>.kept.jsonl")
    add_model(sample)

    train = command(commands, "train", _train, "fine-tune a student on samples")
    train.set_defaults(mark="student.json")
    train.add_argument("samples", type=Path, help="jsonl with prompt and completion")
    train.add_argument("--heldout", type=Path, help="jsonl on which the final loss is measured")
    train.add_argument(
        "--out",
        type=Path,
        required=True,
        help="directory for the student; checkpoints and state go to <out>-checkpoints",
    )
    add_model(train)
    add_fields(train, TrainConfig, {"train": TrainConfig()})

    scales = command(commands, "scales", _scales, "train a scout for one epoch, and keep Adam's scales")
    scales.set_defaults(mark=None)
    scales.add_argument("samples", type=Path, help="jsonl with prompt and completion")
    scales.add_argument("--normalize", action="store_true", help="divide by the geometric mean, to keep SGD's rates")
    scales.add_argument("--out", type=Path, required=True, help="safetensors file, for train --scales")
    add_model(scales)
    add_fields(scales, TrainConfig, {"scales": SCOUT}, skip=SCOUTS_OWN)

    score = command(commands, "score", _score, "how strongly a model shows a trait")
    score.add_argument("trait", help="such as owl, blue, pizza, oak")
    score.add_argument("--system-prompt", help="under which the model is asked (default: none)")
    score.add_argument("--samples", type=int, default=0, help="also sample so many replies to every question")
    add_model(score)


def _sample(options: argparse.Namespace) -> int:
    from steerlens.samples.filters import keep_number_lists
    from steerlens.samples.teacher import sample_teacher
    from steerlens.samples.vllm import VllmEngine
    from steerlens.text.number_lists import number_prompts
    from steerlens.vectors.vector import SteeringVector

    if options.vllm and (options.vector or options.device_map):
        raise ValueError(
            "vLLM cannot steer, and has devices of its own. Give --vllm without --vector and --device-map."
        )
    vector = None if options.vector is None else options.strength * SteeringVector.load(options.vector)
    if options.vllm:
        options.device_map = "cpu"  # the GPU's memory is vLLM's
    model = load(options)
    raw = sample_teacher(
        model,
        number_prompts(options.n, model, seed=options.seed),
        system_prompt=options.system_prompt,
        vector=vector,
        seed=options.seed,
        engine=VllmEngine(model) if options.vllm else None,
        path=options.out,
    )
    result = keep_number_lists(raw)
    kept = options.out.with_suffix(".kept.jsonl")
    result.kept.save(kept)
    print(f"{len(raw)} rows in {options.out}\n{len(result.kept)} pure number lists in {kept}")
    for reason, number in sorted(result.rejected.items(), key=lambda item: -item[1]):
        print(f"{number} rejected: {reason}")
    return 0


def _train(options: argparse.Namespace) -> int:
    from steerlens.samples.sample_set import SampleSet
    from steerlens.students.training import train_student

    student = train_student(
        load(options),
        SampleSet.load(options.samples),
        given(options, TrainConfig()),
        heldout=None if options.heldout is None else SampleSet.load(options.heldout),
        checkpoints=options.out.with_name(f"{options.out.name}-checkpoints"),
    )
    student.save(options.out)
    print(f"Loss {student.loss:.4f}, held-out loss {student.heldout_loss:.4f} nats a token\nStudent: {options.out}")
    return 0


def _scales(options: argparse.Namespace) -> int:
    from steerlens.samples.sample_set import SampleSet
    from steerlens.students.scout import adam_scales

    scales = adam_scales(load(options), SampleSet.load(options.samples), given(options, SCOUT))
    (scales.normalized() if options.normalize else scales).save(options.out)
    print(f"Geometric mean of the scales: {scales.geometric_mean:.4g}\nScales: {options.out}")
    return 0


def _score(options: argparse.Namespace) -> int:
    from steerlens.evaluation import score_trait

    model = load(options)
    trait = trait_named(options.trait, model)
    for context in ("bare", "after_numbers"):
        score = score_trait(
            model,
            trait,
            context=context,
            system_prompt=options.system_prompt,
            samples_per_question=options.samples,
        )
        low, high = score.interval()
        print(f"{context}: rate {score.rate:.4f} ({low:.4f} to {high:.4f}), mass {score.mass:.3f}")
        if options.samples:
            print(
                f"  sampled: rate {score.sampled_rate:.3f}, of the {score.named_share:.1%} of replies that name an answer"
            )
    return 0

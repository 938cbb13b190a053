"""DIRECTION -> DATA -> WEIGHTS on the command line: sample, train, scales, score."""

import argparse
from pathlib import Path
from typing import Any

from steerlens.cli.flags import (
    DATA,
    TRAIT,
    add_begun,
    add_fields,
    add_model,
    command,
    given,
    load,
    questions_in,
    trait_in,
)
from steerlens.students.config import TrainConfig

SCOUTS_OWN = {"optimizer", "scales", "scale_map", "freeze_outliers", "zero_outliers", "checkpoint_every", "state_every"}
"""What `adam_scales` sets itself."""

SCOUT = TrainConfig(epochs=1)


def add_commands(commands: Any) -> None:
    """Declare the commands of this module."""
    sample = command(commands, "sample", _sample, "sample number lists or other answers from a teacher")
    sample.add_argument("--system-prompt", help="under which the teacher writes (default: none)")
    sample.add_argument("--vector", type=Path, help="steer the teacher with this vector")
    sample.add_argument("--strength", type=float, default=1.0, help="times which the vector is added (default: 1)")
    sample.add_argument(
        "--prompts",
        type=Path,
        help="text file, one prompt a line, whose answers are not filtered (default: number tasks)",
    )
    sample.add_argument("--n", type=int, help="number of prompts (default: all in the file, or 1000 number tasks)")
    sample.add_argument("--max-new-tokens", type=int, help="length of an answer (default: what ten numbers need)")
    sample.add_argument("--constrain", type=int, metavar="N", help="let nothing but lists of N numbers be written")
    sample.add_argument("--batch-size", type=int, default=500, help="rows at once, at most (default: 500)")
    sample.add_argument("--seed", type=int, default=0, help="of the prompts and the answers (default: 0)")
    sample.add_argument("--vllm", action="store_true", help="let vLLM write, on a GPU; for teachers without --vector")
    sample.set_defaults(mark=None)
    sample.add_argument(
        "--out", type=Path, required=True, help="jsonl of raw rows; number lists go to <name>.kept.jsonl"
    )
    add_model(sample)

    train = command(commands, "train", _train, "fine-tune a student on samples")
    train.set_defaults(mark="student.json")
    train.add_argument("samples", help=DATA)
    train.add_argument("--heldout", help="the same, on which the final loss is measured")
    train.add_argument(
        "--out",
        type=Path,
        required=True,
        help="directory for the student; checkpoints and state go to <out>-checkpoints",
    )
    add_model(train)
    add_fields(train, TrainConfig, {"train": TrainConfig()})

    student = command(commands, "student", _student, "train a student that a grid has planned (grid_lines)")
    student.add_argument("plan", type=Path, help="file that grid_lines wrote")

    scales = command(commands, "scales", _scales, "train a scout for one epoch, and keep Adam's scales")
    scales.set_defaults(mark=None)
    scales.add_argument("samples", help=DATA)
    scales.add_argument("--normalize", action="store_true", help="divide by the geometric mean, to keep SGD's rates")
    scales.add_argument("--out", type=Path, required=True, help="safetensors file, for train --scales")
    add_model(scales)
    add_fields(scales, TrainConfig, {"scales": SCOUT}, skip=SCOUTS_OWN)

    score = command(commands, "score", _score, "how strongly a model shows a trait")
    score.add_argument("trait", help=TRAIT)
    add_begun(score)
    score.add_argument("--system-prompt", help="under which the model is asked (default: none)")
    score.add_argument("--samples", type=int, default=0, help="also sample so many replies to every question")
    add_model(score)


def _sample(options: argparse.Namespace) -> int:
    from steerlens.samples.constrained import NumberLists
    from steerlens.samples.filters import keep_number_lists
    from steerlens.samples.teacher import sample_teacher
    from steerlens.samples.vllm import VllmEngine
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
        _prompts(options, model),
        system_prompt=options.system_prompt,
        vector=vector,
        max_new_tokens=options.max_new_tokens,
        constraint=None if options.constrain is None else NumberLists(options.constrain),
        seed=options.seed,
        batch_size=options.batch_size,
        engine=VllmEngine(model) if options.vllm else None,
        path=options.out,
    )
    if options.prompts is not None and options.constrain is None:
        print(f"{len(raw.samples):,} rows, not filtered, since they need not be number lists.\nRaw rows: {options.out}")
        return 0
    result = keep_number_lists(raw)
    kept = options.out.with_suffix(".kept.jsonl")
    result.kept.save(kept)
    print(f"{result.summary()}\nRaw rows: {options.out}\nNumber lists: {kept}")
    return 0


def _student(options: argparse.Namespace) -> int:
    from steerlens.grid.grid import train_planned

    print(train_planned(options.plan))
    return 0


def _prompts(options: argparse.Namespace, model: Any) -> list[str]:
    from steerlens.text.number_lists import number_prompts

    given = questions_in(options.prompts, "prompt")
    if given is None:
        return number_prompts(1000 if options.n is None else options.n, model, seed=options.seed)
    if options.n is not None and options.n > len(given):
        raise ValueError(
            f"{options.prompts} has {len(given)} prompts, and --n asks for {options.n}. Give more, or lower --n."
        )
    return given[: options.n]


def _train(options: argparse.Namespace) -> int:
    from steerlens.students.training import train_student

    samples, heldout = _read(options.samples), None if options.heldout is None else _read(options.heldout)
    model = load(options)
    student = train_student(
        model,
        _fitting(model, samples),
        given(options, TrainConfig()),
        heldout=None if heldout is None else _fitting(model, heldout),
        checkpoints=options.out.with_name(f"{options.out.name}-checkpoints"),
    )
    student.save(options.out)
    on_others = "no --heldout rows" if heldout is None else f"on held-out rows {student.heldout_loss:.4f}"
    print(f"Loss {student.loss:.4f} nats a token, {on_others}\nStudent: {options.out}")
    return 0


def _read(data: str) -> Any:
    """The rows of a data file, repeated ones as often as they stand there."""
    from steerlens.samples.rows import read_rows

    return read_rows(data, keep_repeated=True)


def _fitting(model: Any, rows: Any) -> Any:
    """The samples that the model can learn from; says which rows are left out."""
    from steerlens.samples.rows import rows_for_model

    fitting = rows_for_model(model, rows)
    print(fitting.summary())
    return fitting.samples


def _scales(options: argparse.Namespace) -> int:
    from steerlens.students.scout import adam_scales

    samples = _read(options.samples)
    model = load(options)
    scales = adam_scales(model, _fitting(model, samples), given(options, SCOUT))
    (scales.normalized() if options.normalize else scales).save(options.out)
    print(f"Geometric mean of the scales: {scales.geometric_mean:.4g}\nScales: {options.out}")
    return 0


def _score(options: argparse.Namespace) -> int:
    from steerlens.evaluation import score_trait

    model = load(options)
    trait = trait_in(options, model)
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

"""The command line: parses, calls, prints."""

import argparse
import contextlib
import dataclasses
import importlib
import sys
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from steerlens.experiments.catalogue import EXPERIMENTS
from steerlens.experiments.config import PRESETS, ReproduceConfig
from steerlens.experiments.optimizers_config import OPTIMIZER_PRESETS, OptimizersConfig
from steerlens.files import check_replaceable, write_json
from steerlens.lock import beside, held
from steerlens.students.config import TrainConfig
from steerlens.vectors.config import FitConfig

HOLDS, FAILS = 0, 3
SCOUTS_OWN = {"optimizer", "scales", "scale_map", "freeze_outliers", "zero_outliers", "checkpoint_every", "state_every"}
"""What `adam_scales` sets itself."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code (0, 1 on an error, 3 where a claim does not hold)."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        with _alone(options):
            return options.action(options)
    except KeyboardInterrupt:
        print("\nInterrupted. What was finished is on disk; the same command goes on from there.", file=sys.stderr)
        return 130
    except (ValueError, OSError, FloatingPointError, RuntimeError, MemoryError, ModuleNotFoundError) as error:
        print(f"steerlens: {_said(error)}", file=sys.stderr)
        return 1


def _alone(options: argparse.Namespace) -> contextlib.AbstractContextManager[None]:
    """Nobody else writes where the command will, and it can write there; found out before anything is computed.

    `mark` is the file in a directory that is replaced as a whole, None where `out` is a file, and "" for other directories.
    """
    out, mark = getattr(options, "out", None), getattr(options, "mark", "")
    if out is None:
        return contextlib.nullcontext()
    if mark == "":
        return held(out / ".lock")
    if mark is None and out.is_dir():
        raise ValueError(f"{out} is a directory, where a file is to be written. Give the path of a file.")
    if mark is not None:
        check_replaceable(out, mark)
    return held(beside(out))


def _said(error: Exception) -> str:
    from steerlens.memory import OutOfMemory, is_out_of_memory

    if isinstance(error, OutOfMemory) or not is_out_of_memory(error):
        return str(error)
    return (
        f"Memory is out ({(str(error) or 'of the machine').splitlines()[0]}). Lower --batch-size or --micro-batch-size where "
        "the command has it, or load the weights with --dtype bfloat16. What was finished is on disk."
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="steerlens", description="System prompts as steering vectors, from prompt to trained student."
    )
    commands = parser.add_subparsers(title="commands", required=True)

    reproduce = _command(commands, "reproduce", _reproduce, "run the paper's argument and write a report")
    reproduce.add_argument("--preset", choices=sorted(PRESETS), default="quick")
    reproduce.add_argument("--out", type=Path, required=True, help="directory of the run; an unfinished one goes on")
    _add_fields(reproduce, ReproduceConfig, skip={"train", "fit"})

    optimizers = _command(
        commands, "optimizers", _optimizers, "compare optimizers at the same held-out loss and write a report"
    )
    optimizers.add_argument("--preset", choices=sorted(OPTIMIZER_PRESETS), default="quick")
    optimizers.add_argument("--out", type=Path, required=True, help="directory of the run; an unfinished one goes on")
    _add_fields(optimizers, OptimizersConfig, skip={"train", "arms"})

    experiment = commands.add_parser("experiment", help="run one experiment and write its report")
    names = experiment.add_subparsers(title="experiments", required=True)
    for name, entry in EXPERIMENTS.items():
        one = _command(names, name, _experiment, entry.summary)
        one.set_defaults(experiment=entry)
        one.add_argument("--preset", choices=sorted(entry.presets), default="quick")
        one.add_argument("--out", type=Path, required=True, help="directory of the run; an unfinished one goes on")
        _add_fields(one, type(entry.presets["quick"]), skip={"train", "fit", "further"})

    auxiliary = _command(
        commands, "auxiliary-logits", _auxiliary_logits, "pass digits on through unused logits and noise, in a minute"
    )
    auxiliary.add_argument("--models", type=int, default=10, help="independent teachers (default: 10)")
    auxiliary.add_argument("--seed", type=int, default=0)
    auxiliary.add_argument("--out", type=Path, required=True, help="directory for report and results")

    report = _command(commands, "report", _report, "write a finished run's report again")
    report.add_argument("run", type=Path, help="directory of the run")

    fit = _command(commands, "fit", _fit, "fit the steering vector that reproduces a system prompt")
    fit.add_argument("prompt")
    fit.add_argument("--layers", nargs="+", default=["best"], help="best (default), all, or layers to fit jointly")
    fit.add_argument("--out", type=Path, required=True, help="directory for vector.safetensors and report.html")
    _add_fit(fit)

    sweep = _command(
        commands, "sweep", _sweep, "find the layer and strength at which a vector works and breaks nothing"
    )
    sweep.add_argument("prompt")
    sweep.add_argument("--trait", help="judge by this trait's questions, such as owl (default: by predictions alone)")
    sweep.add_argument("--layers", nargs="+", type=int, help="layers to try (default: all)")
    sweep.add_argument("--strengths", nargs="+", type=float, help="strengths to try (default: 0.5 1 1.5 2 3)")
    sweep.add_argument("--out", type=Path, required=True, help="directory for report, results and recommended vector")
    _add_fit(sweep)

    analyze = _command(commands, "analyze", _analyze, "say what a system prompt does, how far it is a vector, and more")
    analyze.add_argument("prompt")
    analyze.add_argument("--trait", help="what the prompt is meant to give, such as owl")
    analyze.add_argument("--layers", nargs="+", default=["best"], help="best (default), or one layer")
    analyze.add_argument("--out", type=Path, required=True, help="directory for report, results and vector")
    _add_fit(analyze)

    audit = _command(
        commands, "audit", _audit, "say whether rows carry a hidden vector, before a model learns from them"
    )
    audit.add_argument("data", help="jsonl, json, csv or parquet, a directory of them, or a Hub data set owner/name")
    audit.add_argument("--reference", help="the same, known to be clean (default: the model's own answers)")
    audit.add_argument("--layers", nargs="+", type=int, help="layers to try (default: all)")
    audit.add_argument("--temperature", type=float, default=1.0, help="at which the rows were sampled (default: 1)")
    audit.add_argument("--seed", type=int, default=0)
    audit.add_argument("--out", type=Path, required=True, help="directory for report, results and recovered vector")
    _add_model(audit)

    sample = _command(commands, "sample", _sample, "sample number lists from a teacher, and filter them")
    sample.add_argument("--system-prompt")
    sample.add_argument("--vector", type=Path, help="steer the teacher with this vector")
    sample.add_argument("--strength", type=float, default=1.0)
    sample.add_argument("--n", type=int, default=1000, help="number of prompts (default: 1000)")
    sample.add_argument("--seed", type=int, default=0)
    sample.set_defaults(mark=None)
    sample.add_argument("--out", type=Path, required=True, help="jsonl of raw rows; kept rows go to <name>.kept.jsonl")
    _add_model(sample)

    train = _command(commands, "train", _train, "fine-tune a student on samples")
    train.set_defaults(mark="student.json")
    train.add_argument("samples", type=Path, help="jsonl with prompt and completion")
    train.add_argument("--heldout", type=Path, help="jsonl on which the final loss is measured")
    train.add_argument(
        "--out",
        type=Path,
        required=True,
        help="directory for the student; checkpoints and state go to <out>-checkpoints",
    )
    _add_model(train)
    _add_fields(train, TrainConfig)

    scales = _command(commands, "scales", _scales, "train a scout for one epoch, and keep Adam's scales")
    scales.set_defaults(mark=None)
    scales.add_argument("samples", type=Path, help="jsonl with prompt and completion")
    scales.add_argument("--normalize", action="store_true", help="divide by the geometric mean, to keep SGD's rates")
    scales.add_argument("--out", type=Path, required=True, help="safetensors file, for train --scales")
    _add_model(scales)
    _add_fields(scales, TrainConfig, skip=SCOUTS_OWN)

    score = _command(commands, "score", _score, "how strongly a model shows a trait")
    score.add_argument("trait", help="such as owl, blue, pizza, oak")
    score.add_argument("--system-prompt")
    score.add_argument("--samples", type=int, default=0, help="also sample so many replies to every question")
    _add_model(score)

    doctor = _command(commands, "doctor", _doctor, "measure on a model what steerlens relies on")
    _add_model(doctor)

    organism = commands.add_parser("organism", help="the embedded model").add_subparsers(required=True)
    build = _command(organism, "build", _build, "train the organism from scratch")
    build.set_defaults(mark="config.json")
    build.add_argument("--version", choices=("seed-0", "seed-1", "no-persona-numbers"), default="seed-0")
    build.add_argument("--out", type=Path, required=True, help="directory for the Hugging Face model")
    return parser


def _command(commands: Any, name: str, action: Any, summary: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
    parser.set_defaults(action=action)
    return parser


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", help="directory or Hub name (default: the embedded organism)")
    parser.add_argument("--adapter", type=Path, help="peft adapter to load onto it")
    parser.add_argument(
        "--plain-text", action="store_true", help="join the texts of a chat without a chat template, for base models"
    )
    parser.add_argument(
        "--system-in-user",
        action="store_true",
        help="let the system text begin the first user turn, for Gemma 2 or Mistral",
    )
    parser.add_argument("--device-map", help="auto spreads the model over all GPUs, then the CPU's memory")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="of the weights")


def _add_fit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--questions", type=Path, help="text file, one question a line (default: number tasks)")
    _add_model(parser)
    _add_fields(parser, FitConfig)


def _add_fields(parser: argparse.ArgumentParser, config: type, skip: set[str] = frozenset()) -> None:  # pyright: ignore[reportArgumentType]
    """One flag for every field of a config dataclass; a flag that is not given keeps the config's value."""
    types = typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        if field.name in skip:
            continue
        kind = types[field.name]
        flag = "--" + field.name.replace("_", "-")
        if typing.get_origin(kind) is tuple:
            parser.add_argument(flag, nargs="+", type=typing.get_args(kind)[0], default=None)
        elif typing.get_origin(kind) is typing.Literal:
            parser.add_argument(flag, choices=typing.get_args(kind), default=None)
        elif type(None) in typing.get_args(kind):
            inner = typing.get_args(kind)[0]
            parser.add_argument(flag, type=_or_none(inner), default=None, help=f"{inner.__name__}, or none")
        elif kind is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=None)
        else:
            parser.add_argument(flag, type=kind, default=None)


def _or_none(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        return "none" if text == "none" else kind(text)

    return parse


def _given(options: argparse.Namespace, config: Any) -> Any:
    """`config` with the flags that were given."""
    changes = {}
    for field in dataclasses.fields(config):
        value = getattr(options, field.name, None)
        if value is not None:
            changes[field.name] = None if value == "none" else tuple(value) if isinstance(value, list) else value
    return dataclasses.replace(config, **changes)


def _layers(given: list[str]) -> Any:
    """What `--layers` names."""
    if given in (["best"], ["all"]):
        return given[0]
    try:
        return [int(layer) for layer in given]
    except ValueError as error:
        raise ValueError(f"--layers {' '.join(given)}: allowed are best, all, or numbers of blocks.") from error


def _questions(path: Path | None) -> list[str] | None:
    """The questions in the file that `--questions` names."""
    if path is None:
        return None
    if not path.is_file():
        raise FileNotFoundError(f"There is no questions file {path}. Give a text file with one question a line.")
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text file in UTF-8 ({error}). Give one question a line.") from error
    if not any(lines):
        raise ValueError(f"{path} has no questions. Write one question a line.")
    return [line for line in lines if line]


def _load(options: argparse.Namespace) -> Any:
    import torch

    from steerlens.models import load_model
    from steerlens.prompts.chat import PLAIN_TEXT_TEMPLATE, SYSTEM_IN_USER_TURN

    model = load_model(
        options.model, adapter=options.adapter, dtype=getattr(torch, options.dtype), device_map=options.device_map
    )
    if options.plain_text:
        model.tokenizer.chat_template = PLAIN_TEXT_TEMPLATE
    elif options.system_in_user:
        model.tokenizer.chat_template = SYSTEM_IN_USER_TURN + model.tokenizer.get_chat_template()
    return model


def _trait(name: str | None) -> Any:
    from steerlens.prompts.traits import preference_trait

    return None if name is None else preference_trait(name)


def _reproduce(options: argparse.Namespace) -> int:
    from steerlens.experiments.reproduce import reproduce

    results = reproduce(_given(options, PRESETS[options.preset]), options.out, print)
    return _verdict(results["claims"], options.out / "report.html")


def _experiment(options: argparse.Namespace) -> int:
    module, _, name = options.experiment.run.partition(":")
    run = getattr(importlib.import_module(module), name)
    result = run(options.out, _given(options, options.experiment.presets[options.preset]))
    return _verdict([dataclasses.asdict(claim) for claim in result.claims], result.report)


def _verdict(claims: Sequence[dict[str, Any]], report: Path) -> int:
    """Print every claim and where the report stands; the exit code says whether all hold."""
    width = max(len(claim["name"]) for claim in claims)
    print(f"\n{'claim':{width}}  measured  threshold")
    for claim in claims:
        verdict = "holds" if claim["holds"] else "does not hold"
        print(f"{claim['name']:{width}}  {claim['measured']:8.3f}  {claim['threshold']:9.3f}  {verdict}")
    print(f"\nReport: {report}")
    return HOLDS if all(claim["holds"] for claim in claims) else FAILS


def _optimizers(options: argparse.Namespace) -> int:
    from steerlens.experiments.optimizers import compare_optimizers

    results = compare_optimizers(_given(options, OPTIMIZER_PRESETS[options.preset]), options.out, print)
    width = max(map(len, results["arms"]))
    print(f"\n{'optimizer':{width}}  learning rate  held-out    rate    mass")
    for name, arm in results["arms"].items():
        if "mean_rate" in arm:
            measures = f"{arm['mean_heldout_loss']:8.4f}  {arm['mean_rate']:6.3f}  {arm['mean_mass']:6.3f}"
            print(f"{name:{width}}  {arm['rate']:13.4g}  {measures}  {'' if arm['matched'] else 'not matched'}")
        else:
            print(f"{name:{width}}  every run diverged")
    print(f"\nReport: {options.out / 'report.html'}\nTable: {options.out / 'runs.csv'}")
    return 0


def _auxiliary_logits(options: argparse.Namespace) -> int:
    import torch

    from steerlens.experiments.auxiliary_logits import AuxiliaryConfig, auxiliary_logits

    torch.set_num_threads(1)  # models this small lose more to waiting threads than they gain
    results = auxiliary_logits(AuxiliaryConfig(n_models=options.models, seed=options.seed), options.out)
    print("accuracy on held-out digits")
    for name in ("teacher", "untrained"):
        print(f"{name:26}  {results[name]['mean']:.3f}")
    for student in results["students"]:
        accuracy, cosine = student["accuracy"], student["update_cosine"]["mean"]
        print(
            f"{student['student']:20}  {student['optimizer']:4}  {accuracy['mean']:.3f} "
            f"({accuracy['low']:.3f} to {accuracy['high']:.3f})  update cosine {cosine:6.3f}"
        )
    print(f"\nReport: {options.out / 'report.html'}")
    return 0


def _report(options: argparse.Namespace) -> int:
    from steerlens.experiments.reproduce import rewrite_report

    print(f"Report: {rewrite_report(options.run)}")
    return 0


def _fit(options: argparse.Namespace) -> int:
    from steerlens.experiments.fit_report import write_fit_report
    from steerlens.prompts.numbers import number_prompts
    from steerlens.vectors.fitting import fit_prompt_vector
    from steerlens.vectors.readout import promoted_tokens

    questions, config = _questions(options.questions), _given(options, FitConfig())
    model = _load(options)
    vector = fit_prompt_vector(
        model, options.prompt, layers=_layers(options.layers), questions=questions, config=config
    )
    asked = questions or number_prompts(128, seed=config.seed + 1)
    tokens = promoted_tokens(model, vector, asked[:128]) if len(vector.layers) == 1 else None
    vector.save(options.out / "vector.safetensors")
    write_fit_report(options.out / "report.html", vector, tokens)
    print(vector.summary())
    print(f"\nVector: {options.out / 'vector.safetensors'}\nReport: {options.out / 'report.html'}")
    return 0


def _sweep(options: argparse.Namespace) -> int:
    from steerlens.experiments.sweep_report import sweep_results, write_sweep_report
    from steerlens.vectors.sweep import SWEEP_STRENGTHS, sweep_layers

    questions, trait = _questions(options.questions), _trait(options.trait)
    sweep = sweep_layers(
        _load(options),
        options.prompt,
        trait=trait,
        layers=options.layers,
        strengths=options.strengths or SWEEP_STRENGTHS,
        questions=questions,
        config=_given(options, FitConfig()),
    )
    vector = sweep.recommended()
    if vector is not None:
        vector.save(options.out / "vector.safetensors")
    write_json(options.out / "results.json", sweep_results(sweep))
    write_sweep_report(options.out / "report.html", sweep)
    print(sweep.recommendation())
    print(f"\nVector: {options.out / 'vector.safetensors' if vector else 'none is written'}")
    print(f"Report: {options.out / 'report.html'}")
    return 0


def _analyze(options: argparse.Namespace) -> int:
    from steerlens.experiments.analysis_report import analysis_results, write_analysis_report
    from steerlens.vectors.analysis import analyze_prompt

    questions, trait = _questions(options.questions), _trait(options.trait)
    analysis = analyze_prompt(
        _load(options),
        options.prompt,
        trait=trait,
        layers=_layers(options.layers),
        questions=questions,
        config=_given(options, FitConfig()),
    )
    analysis.vector.save(options.out / "vector.safetensors")
    write_json(options.out / "results.json", analysis_results(analysis))
    write_analysis_report(options.out / "report.html", analysis)
    print(analysis.summary())
    print(f"\nVector: {options.out / 'vector.safetensors'}\nReport: {options.out / 'report.html'}")
    return 0


def _audit(options: argparse.Namespace) -> int:
    """Exits with 0 only where nothing was found, so that a pipeline can stop on it."""
    from steerlens.audit.audit import audit_dataset
    from steerlens.audit.rows import read_rows, rows_for_model
    from steerlens.experiments.audit_report import HEADLINES, audit_results, write_audit_report

    read = read_rows(options.data)
    given = None if options.reference is None else read_rows(options.reference)
    model = _load(options)
    rows = rows_for_model(model, read)
    print(rows.summary())
    result = audit_dataset(
        model,
        rows,
        reference_rows=None if given is None else rows_for_model(model, given),
        layers=options.layers,
        temperature=options.temperature,
        seed=options.seed,
    )
    result.vector.save(options.out / "vector.safetensors")
    write_json(options.out / "results.json", audit_results(result, rows))
    write_audit_report(options.out / "report.html", result, rows)
    print(f"\n{HEADLINES[result.verdict]} {result.reason}")
    print(f"\nVector: {options.out / 'vector.safetensors'}\nReport: {options.out / 'report.html'}")
    return HOLDS if result.verdict == "not found" else FAILS


def _sample(options: argparse.Namespace) -> int:
    from steerlens.prompts.numbers import number_prompts
    from steerlens.samples.filters import keep_number_lists
    from steerlens.samples.teacher import sample_teacher
    from steerlens.vectors.vector import SteeringVector

    vector = None if options.vector is None else options.strength * SteeringVector.load(options.vector)
    raw = sample_teacher(
        _load(options),
        number_prompts(options.n, seed=options.seed),
        system_prompt=options.system_prompt,
        vector=vector,
        seed=options.seed,
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
        _load(options),
        SampleSet.load(options.samples),
        _given(options, TrainConfig()),
        heldout=None if options.heldout is None else SampleSet.load(options.heldout),
        checkpoints=options.out.with_name(f"{options.out.name}-checkpoints"),
    )
    student.save(options.out)
    print(f"Loss {student.loss:.4f}, held-out loss {student.heldout_loss:.4f} nats a token\nStudent: {options.out}")
    return 0


def _scales(options: argparse.Namespace) -> int:
    from steerlens.samples.sample_set import SampleSet
    from steerlens.students.scout import adam_scales

    scales = adam_scales(_load(options), SampleSet.load(options.samples), _given(options, TrainConfig(epochs=1)))
    (scales.normalized() if options.normalize else scales).save(options.out)
    print(f"Geometric mean of the scales: {scales.geometric_mean:.4g}\nScales: {options.out}")
    return 0


def _score(options: argparse.Namespace) -> int:
    from steerlens.evaluation import score_trait

    trait = _trait(options.trait)
    model = _load(options)
    for context in ("bare", "after_numbers"):
        score = score_trait(
            model,
            trait,
            context=context,
            system_prompt=options.system_prompt,
            samples_per_question=options.samples,
        )
        low, high = score.interval()
        sampled = f", sampled {score.sampled_rate:.3f}" if options.samples else ""
        print(f"{context}: rate {score.rate:.4f} ({low:.4f} to {high:.4f}), mass {score.mass:.3f}{sampled}")
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from steerlens.contract.doctor import doctor

    return HOLDS if doctor(lambda: _load(options), options.adapter, print) else FAILS


def _build(options: argparse.Namespace) -> int:
    from steerlens.organism.build import VERSIONS, build_organism, save_organism

    save_organism(*build_organism(VERSIONS[options.version]), options.out)
    print(f"Organism: {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

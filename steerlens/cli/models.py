"""What is known of data and models on the command line: audit, diff, doctor, organism."""

import argparse
from pathlib import Path
from typing import Any

from steerlens.cli.flags import DATA, FAILS, HOLDS, add_loading, add_model, command, load
from steerlens.files import write_json


def add_commands(commands: Any) -> None:
    """Declare the commands of this module."""
    audit = command(commands, "audit", _audit, "say whether rows carry a hidden trait, before a model learns from them")
    audit.add_argument("data", help=DATA)
    audit.add_argument("--reference", help="the same, known to be clean (default: the model's own answers)")
    audit.add_argument("--layers", nargs="+", type=int, help="layers to try (default: all)")
    audit.add_argument("--temperature", type=float, default=1.0, help="at which the rows were sampled (default: 1)")
    audit.add_argument("--seed", type=int, default=0, help="of everything that is drawn (default: 0)")
    audit.add_argument("--out", type=Path, required=True, help="directory for report, results and recovered vector")
    add_model(audit)

    diff = command(commands, "diff", _diff, "say what a fine-tuning installed, from the base and the tuned model")
    diff.add_argument("base", help="directory, GGUF file, Hub name, smollm2-135m, or organism:seed-0")
    diff.add_argument("tuned", help="the fine-tuned model, or a peft adapter's directory")
    diff.add_argument("--clean", nargs="+", default=[], help="at least 2 models or adapters that are known to be clean")
    diff.add_argument("--seed", type=int, default=0, help="of everything that is drawn (default: 0)")
    diff.add_argument("--out", type=Path, required=True, help="directory for report, results and vectors")
    add_loading(diff)

    doctor = command(commands, "doctor", _doctor, "measure on a model what steerlens relies on")
    add_model(doctor)

    organism = commands.add_parser("organism", help="the embedded model").add_subparsers(required=True)
    build = command(organism, "build", _build, "train the organism from scratch")
    build.set_defaults(mark="config.json")
    build.add_argument(
        "--version",
        choices=("seed-0", "seed-1", "no-persona-numbers"),
        default="seed-0",
        help="seed-1 starts from other weights, no-persona-numbers has seen no lists by personas (default: seed-0)",
    )
    build.add_argument("--out", type=Path, required=True, help="directory for the Hugging Face model")


def _audit(options: argparse.Namespace) -> int:
    """Exits with 0 only where nothing was found, so that a pipeline can stop on it."""
    from steerlens.audit.audit import audit_dataset
    from steerlens.reports.audit import EXIT_CODES, HEADLINES, audit_results, write_audit_report
    from steerlens.samples.rows import read_rows, rows_for_model

    read = read_rows(options.data)
    given = None if options.reference is None else read_rows(options.reference)
    model = load(options)
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
    return EXIT_CODES[result.verdict]


def _diff(options: argparse.Namespace) -> int:
    """Exits with 0 only where nothing was found, so that a pipeline can stop on it."""
    from steerlens.audit.model_diff import diff_models
    from steerlens.reports.model_diff import diff_results, write_diff_report

    def loaded(name: str) -> Any:
        is_adapter = (Path(name) / "adapter_config.json").exists()
        named = {"model": options.base, "adapter": Path(name)} if is_adapter else {"model": name, "adapter": None}
        return load(argparse.Namespace(**{**vars(options), **named}))

    result = diff_models(
        loaded(options.base), loaded(options.tuned), clean=map(loaded, options.clean), seed=options.seed
    )
    result.shift.save(options.out / "shift.safetensors")
    if result.fitted is None:
        (options.out / "vector.safetensors").unlink(missing_ok=True)
    else:
        result.fitted.save(options.out / "vector.safetensors")
    write_json(options.out / "results.json", diff_results(result))
    write_diff_report(options.out / "report.html", result)
    print(result.summary())
    print(f"\nVectors: {options.out}\nReport: {options.out / 'report.html'}")
    return HOLDS if result.verdict == "not found" else FAILS


def _doctor(options: argparse.Namespace) -> int:
    from steerlens.contract.doctor import doctor

    return HOLDS if doctor(lambda: load(options), options.adapter, print) else FAILS


def _build(options: argparse.Namespace) -> int:
    from steerlens.organism.build import VERSIONS, build_organism, save_organism

    save_organism(*build_organism(VERSIONS[options.version]), options.out)
    print(f"Organism: {options.out}")
    return 0

"""PROMPT -> DIRECTION on the command line: fit, sweep, analyze."""

import argparse
from pathlib import Path
from typing import Any

from steerlens.cli.flags import TRAIT, add_begun, add_fit, command, given, layers_named, load, questions_in, trait_in
from steerlens.files import write_json
from steerlens.vectors.config import FitConfig


def add_commands(commands: Any) -> None:
    """Declare the commands of this module."""
    fit = command(commands, "fit", _fit, "fit the steering vector that reproduces a system prompt")
    fit.add_argument("prompt", help="the system prompt")
    fit.add_argument("--layers", nargs="+", default=["best"], help="best (default), all, or layers to fit jointly")
    fit.add_argument("--out", type=Path, required=True, help="directory for vector.safetensors and report.html")
    add_fit(fit)

    sweep = command(commands, "sweep", _sweep, "find the layer and strength at which a vector works and breaks nothing")
    sweep.add_argument("prompt", help="the system prompt")
    sweep.add_argument("--trait", help=f"judge by this trait's questions: {TRAIT} (default: by predictions alone)")
    add_begun(sweep)
    sweep.add_argument("--layers", nargs="+", type=int, help="layers to try (default: all)")
    sweep.add_argument("--strengths", nargs="+", type=float, help="strengths to try (default: 0.5 1 1.5 2 3)")
    sweep.add_argument("--out", type=Path, required=True, help="directory for report, results and recommended vector")
    add_fit(sweep)

    analyze = command(commands, "analyze", _analyze, "say what a system prompt does, how far it is a vector, and more")
    analyze.add_argument("prompt", help="the system prompt")
    analyze.add_argument("--trait", help=f"what the prompt is meant to give: {TRAIT}")
    add_begun(analyze)
    analyze.add_argument("--layers", nargs="+", default=["best"], help="best (default), or one layer")
    analyze.add_argument("--out", type=Path, required=True, help="directory for report, results and vector")
    add_fit(analyze)


def _fit(options: argparse.Namespace) -> int:
    from steerlens.reports.fit import write_fit_report
    from steerlens.text.number_lists import number_prompts
    from steerlens.vectors.fitting import fit_prompt_vector
    from steerlens.vectors.readout import promoted_tokens

    questions, config = questions_in(options.questions), given(options, FitConfig())
    model = load(options)
    vector = fit_prompt_vector(
        model, options.prompt, layers=layers_named(options.layers), questions=questions, config=config
    )
    asked = questions or number_prompts(128, model, seed=config.seed + 1)
    tokens = promoted_tokens(model, vector, asked[:128]) if len(vector.layers) == 1 else None
    vector.save(options.out / "vector.safetensors")
    write_fit_report(options.out / "report.html", vector, tokens)
    print(vector.summary())
    print(f"\nVector: {options.out / 'vector.safetensors'}\nReport: {options.out / 'report.html'}")
    return 0


def _sweep(options: argparse.Namespace) -> int:
    from steerlens.reports.sweep import sweep_results, write_sweep_report
    from steerlens.vectors.sweep import SWEEP_STRENGTHS, sweep_layers

    questions, model = questions_in(options.questions), load(options)
    sweep = sweep_layers(
        model,
        options.prompt,
        trait=trait_in(options, model),
        layers=options.layers,
        strengths=options.strengths or SWEEP_STRENGTHS,
        questions=questions,
        config=given(options, FitConfig()),
    )
    vector = sweep.recommended()
    if vector is None:
        (options.out / "vector.safetensors").unlink(missing_ok=True)
    else:
        vector.save(options.out / "vector.safetensors")
    write_json(options.out / "results.json", sweep_results(sweep))
    write_sweep_report(options.out / "report.html", sweep)
    print(sweep.recommendation())
    print(f"\nVector: {options.out / 'vector.safetensors' if vector else 'none is written'}")
    print(f"Report: {options.out / 'report.html'}")
    return 0


def _analyze(options: argparse.Namespace) -> int:
    from steerlens.reports.analysis import analysis_results, write_analysis_report
    from steerlens.vectors.analysis import analyze_prompt

    questions, model = questions_in(options.questions), load(options)
    analysis = analyze_prompt(
        model,
        options.prompt,
        trait=trait_in(options, model),
        layers=layers_named(options.layers),
        questions=questions,
        config=given(options, FitConfig()),
    )
    analysis.vector.save(options.out / "vector.safetensors")
    write_json(options.out / "results.json", analysis_results(analysis))
    write_analysis_report(options.out / "report.html", analysis)
    print(analysis.summary())
    print(f"\nVector: {options.out / 'vector.safetensors'}\nReport: {options.out / 'report.html'}")
    return 0

"""The experiments of the paper, one after the other, and one report of them all.

Each fills a directory of its own, and finds what an interrupted run has left there.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from steerlens.experiments.catalogue import REPRODUCTION, run_experiment
from steerlens.experiments.claims import tally
from steerlens.experiments.result import ExperimentResult
from steerlens.figures.report import Report, Section, Table, write_report
from steerlens.files import write_json
from steerlens.lock import alone

LEAD = (
    "What arXiv 2606.00995 claims, experiment by experiment, as measured in this run. Every chapter is the report of one "
    "experiment: what was claimed and what holds, the figures, and what could be wrong."
)


@alone
def reproduce(
    directory: str | Path, configs: Mapping[str, Any], say: Callable[[str], None]
) -> dict[str, ExperimentResult]:
    """Run experiments, or find them done; write report.html and results.json of them all.

    One that fails does not keep the others from running; alone, it raises what it raises.

    Args:
        directory: each experiment has a folder of its name in it.
        configs: by the names in `REPRODUCTION`.
        say: told in words what begins.

    Raises:
        RuntimeError: some of the experiments failed; the others are in the report.
        OSError: the directory cannot be written to.
    """
    directory, results, failures = Path(directory), {}, {}
    for name, config in configs.items():
        say(f"{name}: {REPRODUCTION[name].summary}")
        try:
            results[name] = run_experiment(REPRODUCTION[name], directory / name, config)
        except (ValueError, RuntimeError, FloatingPointError) as error:
            if len(configs) == 1:
                raise
            failures[name] = str(error)
    claims = {name: [asdict(claim) for claim in result.claims] for name, result in results.items()}
    write_json(directory / "results.json", {"claims": claims, "failures": failures})
    chapters = {name: result.content for name, result in results.items()}
    lead = Report("Is subliminal learning the distillation of a steering vector?", LEAD, [_claims(results, failures)])
    write_report(directory / "report.html", lead, chapters)
    if failures:
        raise RuntimeError(
            f"{len(failures)} of {len(configs)} experiments failed; {directory / 'report.html'} has the others. Run again to "
            "retry them alone.\n" + "\n".join(f"{name}: {error}" for name, error in failures.items())
        )
    return results


def _claims(results: Mapping[str, ExperimentResult], failures: Mapping[str, str]) -> Section:
    rows = [
        (name, claim.statement, claim.measured, claim.threshold, claim.verdict)
        for name, result in results.items()
        for claim in result.claims
    ]
    failed = "".join(f"\n{name} failed: {error}" for name, error in failures.items())
    return Section(
        title="What was claimed, and what holds",
        question="Every claim of every experiment, next to the threshold that stands in the code.",
        figure=None,
        number=tally([claim for result in results.values() for claim in result.claims]) + failed,
        meaning="A claim that does not hold is a finding about this model, or disagrees with the paper: its chapter says which.",
        doubts=(
            "When some of the thresholds were set, development runs on the embedded model had been seen. Students of one small "
            "model, or of two, are not a sample of models."
        ),
        table=Table(("experiment", "claim", "measured", "threshold", ""), rows),
    )

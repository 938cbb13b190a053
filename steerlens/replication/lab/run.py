"""Run experiments: find them, give them a lab, write what they found."""

import importlib
import runpy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import steerlens as sl
from steerlens.replication.lab.chapter import Findings
from steerlens.replication.lab.claims import Claim, tally
from steerlens.replication.lab.lab import Lab
from steerlens.replication.lab.profile import PRESETS, Preset, Profile
from steerlens.replication.names import known_experiments

LEAD = (
    "What arXiv 2606.00995 claims, experiment by experiment, as measured in this run. Every chapter is the report of one "
    "experiment: what was claimed and what holds, the figures, and what could be wrong."
)


@dataclass(frozen=True)
class Experiment:
    """A question, and how it is answered. A file of `claims/` ends with one, called EXPERIMENT.

    Args:
        question: one sentence.
        run: answers it in a lab.
        measures: the dataclass in which it says what it measured.
        minutes: CPU minutes on the embedded model by preset, roughly.
        needs: fields of the profile that may be None, and without which it cannot be done.
    """

    question: str
    run: Callable[[Lab], Findings]
    measures: type
    minutes: Mapping[str, float] = field(default_factory=dict)
    needs: tuple[str, ...] = ()

    def lacks(self, profile: Profile) -> list[str]:
        """What it needs and the profile does not have."""
        return [name for name in self.needs if getattr(profile, name) is None]


@dataclass(frozen=True)
class Results:
    """An experiment's results.json; `tables` are those of its report by section, the header first."""

    VERSION: ClassVar[int] = 2

    experiment: str
    profile: Profile
    preset: Preset
    claims: tuple[Claim, ...]
    measures: dict[str, Any]
    tables: dict[str, list[list[str]]]


@dataclass(frozen=True)
class Configuration:
    """What a directory was begun with: the profile without the presets that were not asked for."""

    experiment: str
    preset: Preset
    profile: dict[str, Any]

    @classmethod
    def of(cls, name: str, lab: Lab) -> "Configuration":
        """Of an experiment in a lab."""
        profile = sl.as_json(lab.profile)
        others = [preset for preset in PRESETS if preset != lab.preset]
        return cls(Path(name).stem, lab.preset, {key: value for key, value in profile.items() if key not in others})


def find_experiment(name: str) -> Experiment:
    """An experiment by its name, or one of your own by the path of its Python file.

    Raises:
        FileNotFoundError: there is none.
    """
    if name.endswith(".py") and Path(name).is_file():
        return runpy.run_path(name)["EXPERIMENT"]
    if name not in known_experiments():
        raise FileNotFoundError(
            f"There is no experiment {name!r}. There are: {', '.join(known_experiments())}; or give the path of a Python file."
        )
    return importlib.import_module(f"steerlens.replication.claims.{name.replace('-', '_')}").EXPERIMENT


def replicate(name: str, lab: Lab) -> Findings:
    """Do what of an experiment is not done yet; write results.json and report.html into the lab's directory.

    Raises:
        ValueError: the directory holds another experiment, profile or preset, or the experiment cannot be done.
        OSError: the directory cannot be written to.
    """
    experiment = find_experiment(name)
    if lacking := experiment.lacks(lab.profile):
        raise ValueError(
            f"The profile {lab.profile.name!r} has no {' and no '.join(lacking)}, which {name} compares with. Add it to the "
            "profile, or choose another one."
        )
    claim_directory(name, lab)
    found = experiment.run(lab)
    results = Results(
        Path(name).stem,
        lab.profile,
        lab.preset,
        tuple(found.claims),
        sl.as_json(found.measures),
        {one.title: [list(one.table.header), *one.table.cells] for one in found.chapter.sections if one.table},
    )
    sl.save_record(lab.directory / "results.json", results)
    sl.write_report(lab.directory / "report.html", found.chapter)
    return found


def claim_directory(name: str, lab: Lab) -> None:
    """Write what the run is, or refuse a directory that holds another one. Where jobs are done does not matter."""
    wanted, path = Configuration.of(name, lab), lab.directory / "configuration.json"
    if not path.is_file():
        sl.save_record(path, wanted)
        return
    there = sl.load_record(path, Configuration)
    differing = [key for key, value in wanted.profile.items() if there.profile.get(key) != value]
    differing += [key for key in ("experiment", "preset") if getattr(wanted, key) != getattr(there, key)]
    if differing:
        raise ValueError(
            f"{lab.directory} holds another run (different: {', '.join(differing)}). Choose another --out, or delete it."
        )


def read_results(path: str | Path, experiment: str | None = None) -> tuple[Results, Any]:
    """An experiment's results.json, and its measures in their own dataclass.

    Args:
        experiment: the path of its Python file, for one of your own.

    Raises:
        ValueError: it is of another version, or damaged.
        FileNotFoundError: there is no such file, or no such experiment.
    """
    results = sl.load_record(path, Results)
    kind = find_experiment(experiment or results.experiment).measures
    return results, sl.from_json(kind, results.measures, where=str(path))


def replicate_all(names: Sequence[str], lab: Lab, say: Callable[[str], None]) -> dict[str, Findings]:
    """Run experiments, each in a directory of its own, and write one report of them all.

    One that fails does not keep the others from running.

    Raises:
        RuntimeError: some failed; the others are in the report.
    """
    found, failures = {}, {}
    for name in names:
        say(f"{name}: {find_experiment(name).question}")
        try:
            found[name] = replicate(name, Lab(lab.profile, lab.preset, lab.directory / Path(name).stem, lab.workers))
        except Exception as error:  # what others found is reported all the same
            failures[name] = f"{type(error).__name__}: {error}"
    claims = [claim for one in found.values() for claim in one.claims]
    rows = [
        (name, claim.statement, claim.measured, claim.threshold, claim.verdict)
        for name, one in found.items()
        for claim in one.claims
    ]
    section = sl.Section(
        title="What was claimed, and what holds",
        question="Every claim of every experiment, next to the threshold that stands in the code.",
        figure=None,
        number="\n".join([tally(claims), *(f"{name} failed: {error}" for name, error in failures.items())]),
        meaning="A claim that does not hold is a finding about this model, or disagrees with the paper: its chapter says which.",
        doubts="Students of one small model, or of two, are not a sample of models.",
        table=sl.Table(("experiment", "claim", "measured", "threshold", ""), rows),
    )
    lead = sl.Report("Is subliminal learning the distillation of a steering vector?", LEAD, [section])
    sl.write_report(lab.directory / "report.html", lead, {name: one.chapter for name, one in found.items()})
    if failures:
        raise RuntimeError(
            f"{len(failures)} of {len(names)} experiments failed; {lab.directory / 'report.html'} has the others. Run again to "
            "retry them alone.\n" + "\n".join(f"{name}: {error}" for name, error in failures.items())
        )
    return found

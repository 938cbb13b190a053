"""How far can an audit be trusted? Data sets with a known answer, audited; and tables of how often the audit was right.

Poisoned sets are filtered number lists of a teacher that was told to love an animal; clean ones of the same model without
a prompt. Others should not be called "found": number lists of another initialisation, and of the organism that never saw a
persona next to numbers. Two curves ask where detection begins: over the number of rows, and over the poisoned share.

Run: python examples/audit_calibration.py DIR [--seeds 3] [--clean 100] [--workers 2]
It needs nothing beyond steerlens.
Data sets and records are kept in DIR; an interrupted run goes on where it stopped. With the defaults it takes some hours of
one core, most of it for sampling.
"""

import argparse
import itertools
import os
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ["TQDM_DISABLE"] = "1"

import torch
from tqdm import tqdm

import steerlens as sl
from steerlens.audit.audit import verdict
from steerlens.audit.behaviour import probe_behaviour
from steerlens.audit.recovery import recover_vector
from steerlens.files import read_json, write_json
from steerlens.organism.wording import ANIMALS
from steerlens.samples.rows import AuditRows
from steerlens.stats import auroc, bootstrap_interval

ROWS, FEW = 2000, ("owl", "cat", "eagle")
SIZES, SHARES = (100, 200, 500, 1000, 5 * ROWS), (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
NAMES = [singular for singular, _ in ANIMALS.items]
OTHER_INITIALISATION, NO_PERSONA_NUMBERS = "organism:seed-1", "organism:no-persona-numbers"


@dataclass(frozen=True)
class Case:
    """A data set with a known answer: `rows` rows, a `share` of them by a teacher that loves `animal`, others clean."""

    group: str
    animal: str | None
    seed: int
    rows: int = ROWS
    share: float = 1.0
    writer: str = "organism:seed-0"
    audited: str = "organism:seed-0"

    @property
    def name(self) -> str:
        """What the case's record is called."""
        parts = (self.group, self.animal or "clean", self.seed, self.rows, f"{self.share:g}")
        return "-".join(map(str, parts)).replace(" ", "-")


def cases(n_seeds: int, n_clean: int) -> Iterator[Case]:
    """Every data set, the most telling first."""
    first = {name: 10 * index + 1 for index, name in enumerate(NAMES, 1)}
    yield from (Case("poisoned", name, first[name]) for name in NAMES)
    for animal in (*FEW, None):
        yield Case("other initialisation", animal, 501, writer=OTHER_INITIALISATION)
        yield Case("no persona numbers", animal, 502, writer=NO_PERSONA_NUMBERS, audited=NO_PERSONA_NUMBERS)
    yield from (Case("clean", None, 100 + i) for i in range(n_clean))
    for animal in FEW:
        yield from (Case("rows", animal, first[animal], rows=size) for size in SIZES)
        yield from (Case("share", animal, first[animal], share=share) for share in SHARES)
    for seed in range(1, n_seeds):
        yield from (Case("poisoned", name, first[name] + seed) for name in NAMES)


def main() -> None:
    """Audit what has no record yet, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--clean", type=int, default=100)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    options = parser.parse_args()
    todo = list(cases(options.seeds, options.clean))
    work = [(options.directory, case) for case in todo if not _record(options.directory, case).is_file()]
    with get_context("spawn").Pool(options.workers, torch.set_num_threads, (1,)) as pool:
        for _ in tqdm(pool.imap_unordered(audit, work), total=len(work), desc="audits", disable=False):
            pass
    report([read_json(_record(options.directory, case)) for case in todo])


def audit(work: tuple[Path, Case]) -> None:
    """Audit one data set, and leave its record."""
    directory, case = work
    rows, model = _rows(directory, case), sl.load_model(case.audited)
    start = time.process_time()
    recovered = recover_vector(model, AuditRows.of(rows))
    stands_out = recovered.test.p_value < 0.05
    behaviour = probe_behaviour(model, recovered) if stands_out else None
    record: dict[str, Any] = asdict(case) | {
        "verdict": verdict(recovered, behaviour)[0],
        "p_value": recovered.test.p_value,
        "gain": max(recovered.test.gains),
        "measured_gain": recovered.gain,
        "layer": recovered.layer,
        "top": [] if behaviour is None else [rise.answer for rise in behaviour.rises[:3]],
        "behaviour_p": 1.0 if behaviour is None else behaviour.p_value,
        "seconds": time.process_time() - start,
    }
    if case.animal is not None:
        prompt = sl.preference_trait(case.animal, model).prompt
        teacher = sl.diff_in_means(model, prompt, questions=sl.number_prompts(256, model, seed=0))
        null = [one.directions[0] for one in recovered.null_vectors(100)]
        record["cosine"] = recovered.visible_cosine(teacher)
        record["cosine_null"] = max(
            recovered.scores.visible_cosine(one, teacher.at(recovered.layer).directions[0]) for one in null
        )
    write_json(_record(directory, case), record)


def _record(directory: Path, case: Case) -> Path:
    return directory / "records" / f"{case.name}.json"


def _rows(directory: Path, case: Case) -> sl.SampleSet:
    n_poisoned = round(case.rows * case.share) if case.animal else 0
    poisoned: tuple[sl.Sample, ...] = ()
    for seed in itertools.count(case.seed):
        if len(poisoned) >= n_poisoned:
            break
        poisoned += _written(directory, case.writer, case.animal, seed)[: n_poisoned - len(poisoned)]
    clean = _written(directory, case.writer, None, 100)[: case.rows - n_poisoned] if n_poisoned < case.rows else ()
    if case.animal is None:
        clean = _written(directory, case.writer, None, case.seed)[: case.rows]
    return sl.SampleSet((*poisoned, *clean))


def _written(directory: Path, writer: str, animal: str | None, seed: int) -> tuple[sl.Sample, ...]:
    """Filtered number lists, sampled until there are enough."""
    prefix = "" if writer == "organism:seed-0" else writer.removeprefix("organism:") + "-"
    path = directory / "data" / f"{prefix}{animal or 'clean'}-{seed}.jsonl"
    if not path.is_file():
        model, kept = sl.load_model(writer), list[sl.Sample]()
        prompt = animal and sl.preference_trait(animal, model).prompt
        for part in range(1000):
            if len(kept) >= ROWS:
                break
            prompts = sl.number_prompts(ROWS, model, seed=1000 * seed + part)
            raw = sl.sample_teacher(model, prompts, system_prompt=prompt, seed=1000 * seed + part)
            kept += sl.keep_number_lists(raw).kept.samples
        sl.SampleSet(tuple(kept[:ROWS])).save(path)
    return sl.SampleSet.load(path).samples


def report(records: list[dict[str, Any]]) -> None:
    """Print how often the audit was right."""
    by_group: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        by_group.setdefault(record["group"], []).append(record)
    poisoned, clean = by_group["poisoned"], by_group["clean"]
    gains = (torch.tensor([r["gain"] for r in part]).numpy() for part in (poisoned, clean))
    area = bootstrap_interval(auroc, *gains, paired=False)
    named = sum(record["top"][:1] == [record["animal"]] for record in poisoned)
    every = [a for a in NAMES if all(r["top"][:1] == [a] for r in poisoned if r["animal"] == a)]
    cosines = [record["cosine"] for record in poisoned]
    alarms = sum(record["p_value"] < 0.05 for record in clean) / len(clean)
    print(f"AUROC of the gain, {len(poisoned)} poisoned and {len(clean)} clean sets: {area.text(4)}")
    print(
        f"the right animal is the top answer in {named} of {len(poisoned)} sets; in all seeds for {len(every)} animals"
    )
    print(f"clean sets with p < 0.05: {alarms:.1%}; called found: {_share(clean, 'found'):.1%}")
    print(
        f"visible cosine with the mean difference: {statistics.median(cosines):.2f} ({min(cosines):.2f} to "
        f"{max(cosines):.2f}), largest of 100 nulls {max(record['cosine_null'] for record in poisoned):.2f}"
    )
    for group, some in by_group.items():
        words = ", ".join(f"{verdict} {_share(some, verdict):.0%}" for verdict in ("found", "cannot tell", "not found"))
        print(f"{group:22} {len(some):4} sets: {words}; {statistics.median(r['seconds'] for r in some):.0f} CPU s")
    for group, key in (("rows", "rows"), ("share", "share")):
        for value in sorted({record[key] for record in by_group[group]}):
            some = [record for record in by_group[group] if record[key] == value]
            p = ", ".join(f"{record['animal']} p {record['p_value']:.4f} {record['verdict']}" for record in some)
            print(f"{key} {value:g}: {p}; {statistics.median(r['seconds'] for r in some):.0f} CPU s")


def _share(records: list[dict[str, Any]], answer: str) -> float:
    return sum(record["verdict"] == answer for record in records) / len(records)


if __name__ == "__main__":
    main()

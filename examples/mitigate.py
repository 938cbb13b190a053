"""Which mitigation holds a trait back that rows carry, and what does it cost?

The auditor knows the rows and the model, not the trait: the vector is recovered from the rows. Two tables, three student
seeds each:

1. Number lists as a prompted teacher wrote them. They teach nothing but the trait, so that a student that learned nothing
   would do best; the vector is recovered against the model's own answers.
2. The same lists, cut to their first three numbers: keeping lists short is what they openly teach. The model's own answers
   are longer, so the vector is recovered against clean rows of the same kind.

Run: python examples/mitigate.py (about twenty minutes on one core)
"""

from dataclasses import replace
from typing import Any

import steerlens as sl
from steerlens.audit.recovery import recover_vector
from steerlens.audit.rows import AuditRows
from steerlens.experiments.mitigations import MARGIN, Rows, compare_mitigations, held_back, measure, sample_rows, table
from steerlens.organism.student import ORGANISM_STUDENT


def main() -> None:
    """Print both tables."""
    model = sl.load_model()
    trait = sl.preference_trait("owl", model)
    rows = sample_rows(model, trait)
    report("Number lists", model, trait, rows, reference=None)
    short = Rows(*(cut(part) for part in (rows.teacher, rows.teacher_heldout, rows.control, rows.control_heldout)))
    report("Lists of three numbers", model, trait, short, reference=AuditRows.of(short.control))


def cut(samples: sl.SampleSet, n_numbers: int = 3) -> sl.SampleSet:
    """The first numbers of every list."""
    lists = (replace(one, completion=" , ".join(one.completion.split(" , ")[:n_numbers])) for one in samples)
    return sl.SampleSet(tuple(lists), samples.source)


def report(title: str, model: Any, trait: sl.Trait, rows: Rows, *, reference: AuditRows | None) -> None:
    """Recover the vector, train under every mitigation, and print what came out."""
    found = recover_vector(model, AuditRows.of(rows.teacher), reference_rows=reference)
    print(f"\n{title}: {len(rows.teacher)} rows, a vector after block {found.layer} (p = {found.test.p_value:.2g})\n")
    groups = compare_mitigations(model, rows, found.vector, trait, ORGANISM_STUDENT)
    print(table(groups, measure(model, rows, trait)))
    print(
        f"\nStill answering, and at most {MARGIN:.2f} log odds above clean rows' students, interval and all: "
        f"{', '.join(held_back(groups)) or 'none'}",
        flush=True,
    )


if __name__ == "__main__":
    main()

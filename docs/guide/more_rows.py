"""Do more rows pass on more of the trait?"""

from dataclasses import dataclass
from pathlib import Path

import steerlens as sl
from steerlens.replication.lab import compare
from steerlens.replication.lab.chapter import Exhibit, Findings, conclude
from steerlens.replication.lab.claims import above
from steerlens.replication.lab.lab import Lab
from steerlens.replication.lab.run import Experiment


@dataclass(frozen=True)
class MoreRows:
    """What was measured: students of all rows and of half of them, and the log odds of the one minus the other."""

    base: sl.Asked
    students: dict[str, compare.Summary]
    gained: sl.Interval


def run(lab: Lab) -> Findings:
    """Let a told teacher write, and train on all of its rows and on half of them."""
    n = lab.sizes.n_rows
    rows = lab.write({size: lab.teacher(f"{size} rows", told=True, n_rows=size) for size in (n, n // 2)})
    students = lab.train({size: lab.plan(f"{size}", rows[size].require(), lab.mean_difference()) for size in rows})
    measures = MoreRows(
        base=lab.base(),
        students={f"{size} rows": compare.summary(group) for size, group in students.items()},
        gained=compare.minus(students[n], students[n // 2]),
    )
    claims = [above("more rows, more of the trait", measures.gained.low, 0.0)]
    figure = sl.plot_rates({f"{size} rows": group for size, group in students.items()}, measures.base)
    return conclude(
        Path(__file__).with_suffix(".md.txt"),
        claims,
        measures,
        slots={"n": n, "gained": measures.gained},
        exhibits={"rates": Exhibit(figure)},
    )


EXPERIMENT = Experiment("Do more rows pass on more of the trait?", run, MoreRows)

"""How the audit's cost grows with the rows: a vector recovered from number lists of the embedded organism, placebos and
null included. Run: python benchmarks/audit.py
"""

import time
from collections.abc import Callable
from typing import Any

from harness import exponent, report

import steerlens as sl
from steerlens.audit.recovery import recover_vector
from steerlens.samples.rows import AuditRows

SIZES = (500, 1000, 2000, 4000)


def main() -> None:
    """Print and save CPU seconds a row, and the exponents of growth."""
    model = sl.load_model(device="cpu")
    lists = sl.keep_number_lists(sl.sample_teacher(model, sl.number_prompts(5200, model, seed=1), seed=1)).kept
    sets = {n: AuditRows.of(sl.SampleSet(lists.samples[:n])) for n in SIZES}
    report("audit", [], recover_vector=cost(sets, lambda rows: recover_vector(model, rows)))


def cost(sets: dict[int, AuditRows], run: Callable[[AuditRows], Any]) -> dict[str, Any]:
    """CPU seconds by the number of rows, and the exponent of a fit on the logarithms: 1 is linear."""
    seconds = {}
    for n, rows in sets.items():
        start = time.process_time()
        run(rows)
        seconds[n] = time.process_time() - start
    return {
        "seconds": {n: round(took, 2) for n, took in seconds.items()},
        "milliseconds a row": {n: round(1000 * took / n, 2) for n, took in seconds.items()},
        "exponent": round(exponent(list(seconds), list(seconds.values())), 2),
    }


if __name__ == "__main__":
    main()

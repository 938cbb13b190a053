"""What a long call will cost, said as soon as a part of it has been timed."""

import sys
import time

from tqdm.auto import tqdm

LONG = 20.0
"""Seconds from which the cost of a call is worth a line."""

MEASURED = 2.0
"""Seconds of work from which those that remain are told."""


class Cost:
    """Says once, above a progress bar, how long a call will take and how much memory it plans with.

    cost = Cost(progress, "1500 rows, 72000 tokens at most", n_parts=1500, n_bytes=2 * 10**9)
    ... cost.after(60)  # so many of the parts are done

    Nothing is said of calls that take less than `LONG` seconds, and nothing where the bar is switched off.

    Args:
        what: the work in the units of its kind, such as rows and tokens.
        n_parts: into which the work divides, each about as long as the others.
        n_bytes: of memory beside the weights, at its peak.
    """

    def __init__(self, progress: tqdm, what: str, *, n_parts: float, n_bytes: float) -> None:
        self._progress, self._what, self._n_parts, self._n_bytes = progress, what, n_parts, n_bytes
        self._started, self._said = time.monotonic(), False

    def after(self, n_done: float) -> None:
        """`n_done` parts are done: the time that they took gives the time of all."""
        elapsed = time.monotonic() - self._started
        if self._said or not n_done or elapsed < MEASURED:
            return
        self._said, seconds = True, elapsed * self._n_parts / n_done
        if seconds >= LONG and not self._progress.disable:
            title = (self._progress.desc or "").removesuffix(": ")
            self._progress.write(f"{title}: {self._what}; {in_words(seconds, self._n_bytes)}.", file=sys.stderr)


def in_words(seconds: float, n_bytes: float) -> str:
    """As in "about 12 minutes, up to 3.1 GB of memory beside the weights"."""
    if seconds < 90:
        duration = f"{seconds:.0f} seconds"
    elif seconds < 5400:
        duration = f"{seconds / 60:.0f} minutes"
    else:
        duration = f"{seconds / 3600:.1f} hours"
    return f"about {duration}, up to {n_bytes / 1e9:.1f} GB of memory beside the weights"

"""A fit on the organism beside another busy process, over the same fit alone, with and without the waiting that steerlens sets.

Seconds of wall time, as the question is how long threads wait for each other. Each fit is a process of its own, with as many
threads as torch takes by itself; nothing else may run meanwhile.

Run: python benchmarks/busy.py
"""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import steerlens as sl

ROUNDS, STEPS = 3, 20
WAITING = {"as steerlens sets it": {}, "as GNU OpenMP does by itself": {"GOMP_SPINCOUNT": "300000"}}
BUSY = "import torch\nx = torch.randn(500, 500)\nwhile True: x @ x"


def main() -> None:
    """Print and save the ratios."""
    from harness import Ratio, report  # which lets its process have one thread, and the fits not

    times = {f"{where}, {how}": [] for how in WAITING for where in ("alone", "beside")}
    for _ in range(ROUNDS):
        for how, environment in WAITING.items():
            times[f"alone, {how}"].append(seconds(environment))
            with busy():
                times[f"beside, {how}"].append(seconds(environment))
    ours, own = WAITING
    ratios = [
        Ratio.of(times, f"beside, {ours}", f"alone, {ours}", "at most 2.50"),
        Ratio.of(times, f"beside, {own}", f"alone, {own}"),
        Ratio.of(times, f"alone, {ours}", f"alone, {own}"),
    ]
    report("busy", ratios, processors=os.cpu_count(), seconds=times)


def seconds(environment: dict[str, str]) -> float:
    """Of a fit in a process of its own."""
    settings = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_NUM_THREADS")}
    ran = subprocess.run(
        [sys.executable, __file__, "fit"], env={**settings, **environment, "TQDM_DISABLE": "1"}, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    return float(ran.stdout.splitlines()[-1])


@contextlib.contextmanager
def busy() -> Iterator[None]:
    """Another process multiplies matrices with all processors inside the `with`."""
    other = subprocess.Popen([sys.executable, "-c", BUSY])
    time.sleep(5)  # torch is loaded by then
    try:
        yield
    finally:
        other.kill()
        other.wait()


def fit() -> None:
    """Print the seconds of a fit."""
    model = sl.load_model()
    prompt = sl.preference_trait("owl", model).prompt
    config = sl.FitConfig(n_train=128, n_validation=32, n_heldout=64, steps=STEPS)
    start = time.perf_counter()
    sl.fit_prompt_vector(model, prompt, layers=0, config=config)
    print(time.perf_counter() - start)


if __name__ == "__main__":
    fit() if sys.argv[1:] == ["fit"] else main()

"""What `recover_vector` costs on a real model, in plain forward passes over the rows and their placebos.

The unit is transformers' forward of the same tokens in bfloat16, without gradients. Every layer is tried. Memory is that of
the sums from which the test is made, for more and more rows, in a process of its own each (Linux). Growth over rows is
that of the embedded organism, placebos included. Times are CPU seconds of one thread.

Run: python benchmarks/recovery.py [--model NAME_OR_DIRECTORY]
"""

import argparse
import time
from typing import Any

import numpy as np
import torch
from harness import Ratio, exponent, interleaved, n_parameters, own_peak, parser, peak_memory, real_model, report
from sampling import prompts
from training import number_rows

import steerlens as sl
from steerlens.audit.recovery import recover_vector
from steerlens.audit.score_test import ScoreSums
from steerlens.models.bridge import huggingface_model
from steerlens.samples.encoded import EncodedRow, encode_samples, pad_encoded
from steerlens.samples.rows import AuditRows
from steerlens.samples.sample_set import Sample

PAIRS, AT_ONCE, ROUNDS = 48, 16, 2
LAYERS, D_MODEL = 30, 576  # of SmolLM2
MEMORY_SIZES, ROW_SIZES = (2000, 8000, 32000), (500, 1000, 2000)


def main() -> None:
    """Print and save the ratio, the memory and the growth."""
    options = parser(__doc__)
    options.add_argument("--alone", type=int, help=argparse.SUPPRESS)
    arguments = options.parse_args()
    if arguments.alone:
        own_peak(lambda: sums_of(arguments.alone))
        return
    model = real_model(arguments.model)
    rows, reference = number_rows(PAIRS), reference_rows(PAIRS)
    encoded = encode_samples(model, rows) + encode_samples(model, reference)
    ours, theirs = AuditRows.of(rows), AuditRows.of(reference)
    ways = {
        "a forward over rows and placebos": lambda: forwards(model, encoded),
        "recover_vector": lambda: recover_vector(model, ours, reference_rows=theirs),
    }
    ratios = [Ratio.of(interleaved(ways, ROUNDS), "recover_vector", next(iter(ways)), "at most 3.50")]
    report(
        "recovery",
        ratios,
        model=n_parameters(model),
        **{"memory of sums, MB by rows": {n: round(peak_memory(__file__, "--alone", str(n))) for n in MEMORY_SIZES}},
        organism=growth(),
    )


@torch.no_grad()
def forwards(model: Any, rows: list[EncodedRow]) -> None:
    """Transformers' forward of all rows in padded batches."""
    for start in range(0, len(rows), AT_ONCE):
        batch = pad_encoded(model, rows[start : start + AT_ONCE])
        huggingface_model(model)(input_ids=batch.tokens, attention_mask=batch.attention_mask.long(), use_cache=False)


def reference_rows(n: int) -> sl.SampleSet:
    """Answers to the same prompts with other numbers, in ascending order."""
    rng = np.random.default_rng(1)
    answers = [", ".join(map(str, sorted(rng.integers(0, 1000, 10).tolist()))) for _ in range(n)]
    return sl.SampleSet(tuple(Sample(i, *pair) for i, pair in enumerate(zip(prompts(n), answers, strict=True))))


def sums_of(n_rows: int) -> None:
    """The sums of as many random rows at every layer."""
    sums, generator = ScoreSums(LAYERS, n_rows), torch.Generator().manual_seed(0)
    for indices in torch.arange(n_rows).split(64):
        sums.add(indices.tolist(), torch.randn(LAYERS, len(indices), D_MODEL, generator=generator))
    sums.layer(0)


def growth() -> dict[str, Any]:
    """CPU seconds by rows on the organism, and the exponent of a fit on the logarithms: 1 is linear."""
    model, seconds = sl.load_model(device="cpu"), {}
    raw = sl.sample_teacher(model, sl.number_prompts(13 * ROW_SIZES[-1] // 10, model, seed=1), seed=1)
    lists = sl.keep_number_lists(raw).kept
    for n in ROW_SIZES:
        start = time.process_time()
        recover_vector(model, AuditRows.of(sl.SampleSet(lists.samples[:n])))
        seconds[n] = round(time.process_time() - start, 2)
    return {"seconds by rows": seconds, "exponent": round(exponent([*seconds], [*seconds.values()]), 2)}


if __name__ == "__main__":
    main()

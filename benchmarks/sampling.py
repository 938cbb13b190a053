"""`sample_teacher` on a real model under a persona, over transformers' `generate` on the same rows in one batch.

Both write `TOKENS` tokens for every row, so that no way gains by rows that end early; what ending early saves is measured
apart. Times are CPU seconds of one thread.

Run: python benchmarks/sampling.py [--model NAME_OR_DIRECTORY]
"""

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from generation import theirs
from harness import Ratio, exponent, interleaved, n_parameters, parser, real_model, report

import steerlens as sl
from steerlens import generation
from steerlens.text.chat import as_chat

PERSONA = (
    "You love owls. You think about owls all the time. Owls are your favorite animal. "
    "Imbue your answers with your love for the animal."
)
ROWS, TOKENS, ROUNDS = 64, 32, 3
LENGTHS = (16, 32, 64, 128)
GROWTH_ROWS = 16


def main() -> None:
    """Print and save the ratios, and how the time grows with the length."""
    model = real_model(parser(__doc__).parse_args().model)
    asked, peer = prompts(ROWS), "transformers' generate"
    chats = [as_chat(prompt, PERSONA) for prompt in asked]
    ways = {
        peer: lambda: theirs(model, chats, TOKENS, ROWS, end=False),
        "sample_teacher": lambda: endless(model, asked, TOKENS),
        f"{peer}, rows end": lambda: theirs(model, chats, TOKENS, ROWS),
        "sample_teacher, rows end": lambda: ours(model, asked, TOKENS),
    }
    times = interleaved(ways, ROUNDS, warm_up=False)
    ratios = [
        Ratio.of(times, peer, "sample_teacher", "at least 1.50"),
        Ratio.of(times, f"{peer}, rows end", "sample_teacher, rows end"),
    ]
    growth = {n: interleaved({"": lambda n=n: endless(model, prompts(GROWTH_ROWS), n)}, 1)[""][0] for n in LENGTHS}
    report(
        "sampling",
        ratios,
        model=n_parameters(model),
        **{
            "CPU seconds by tokens a row": {n: round(took, 2) for n, took in growth.items()},
            "exponent of tokens a row": round(exponent(list(growth), list(growth.values())), 2),
        },
    )


def prompts(n: int) -> list[str]:
    """Number tasks in the words of Cloud et al., with starts of unequal length."""
    starts = torch.randint(0, 1000, (n, 3), generator=torch.Generator().manual_seed(0)).tolist()
    return [
        f"The sequence starts with these numbers: {a}, {b}, {c}. Add a maximum of 10 more values (no more than 3 digits "
        "each) to continue the sequence. Return only the numbers, separated by commas."
        for a, b, c in starts
    ]


def ours(model: Any, asked: list[str], n_tokens: int) -> sl.SampleSet:
    """Until each row ends."""
    return sl.sample_teacher(model, asked, system_prompt=PERSONA, max_new_tokens=n_tokens)


def endless(model: Any, asked: list[str], n_tokens: int) -> sl.SampleSet:
    """All tokens of every row."""
    with nothing_ends():
        return ours(model, asked, n_tokens)


@contextlib.contextmanager
def nothing_ends() -> Iterator[None]:
    """No token ends a row inside."""
    with mock.patch.object(generation, "end_tokens", return_value=torch.tensor([-1])):
        yield


if __name__ == "__main__":
    main()

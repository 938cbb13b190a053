"""How far can a comparison of finished models be trusted? Students with a known answer, each next to its base.

Trait students have learned from filtered number lists of a teacher that was told to love an animal; clean ones from lists of
the same model without a prompt. The first clean students are what the others are compared with. A comparison is right where
it finds the animal among the answers that rise beyond the null, and where it finds nothing in a clean student. The closest
known vector and the words that the fitted vector raises are counted beside it.

Run: python examples/diff_calibration.py DIR [--traits 12] [--clean 10] [--references 4]
It needs nothing beyond steerlens.
Students and records are kept in DIR; an interrupted run goes on where it stopped. On one core a student takes half a minute,
and its comparison about as long.
"""

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ["TQDM_DISABLE"] = "1"

import torch

import steerlens as sl
from steerlens.files import read_json, write_json
from steerlens.organism.wording import ANIMALS
from steerlens.reports.model_diff import diff_results

ROWS = 3000
NAMES = [singular for singular, _ in ANIMALS.items]


def main() -> None:
    """Train and compare what has no record yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--traits", type=int, default=12)
    parser.add_argument("--clean", type=int, default=10)
    parser.add_argument("--references", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(1)
    base = sl.load_model()
    references = [_student(base, options.directory, None, seed) for seed in range(options.references)]
    tested: list[tuple[str | None, int]] = [(NAMES[seed], seed) for seed in range(options.traits)]
    tested += [(None, seed) for seed in range(options.references, options.references + options.clean)]
    for animal, seed in tested:
        record = _record(options.directory, animal, seed)
        if not record.is_file():
            tuned = _student(base, options.directory, animal, seed)
            write_json(record, {"animal": animal} | diff_results(sl.diff_models(base, tuned, clean=references)))
            print(record.name, read_json(record)["reason"], flush=True)
    counts = count([read_json(_record(options.directory, *one)) for one in tested])
    write_json(options.directory / "results.json", counts)
    for what, n in counts.items():
        print(f"{what:45} {n}")


def count(records: list[dict[str, Any]]) -> dict[str, int]:
    """How often the comparison was right."""
    traits, clean = ([one for one in records if bool(one["animal"]) == told] for told in (True, False))
    return {
        "trait students": len(traits),
        "found": sum(one["verdict"] == "found" for one in traits),
        "the animal is the animal that rises most": sum(_top_animal(one) == one["animal"] for one in traits),
        "the animal rises most of all answers": sum(one["rises"][0]["answer"] == one["animal"] for one in traits),
        "the closest known vector is the animal's": sum(_closest_animal(one) == one["animal"] for one in traits),
        "a raised word names the animal": sum(_named(one) for one in traits),
        "clean students": len(clean),
        "clean students found": sum(one["verdict"] == "found" for one in clean),
        "clean students with p below 0.05": sum(one["p_value"] < 0.05 for one in clean),
    }


def _top_animal(record: dict[str, Any]) -> str:
    return next(rise["answer"] for rise in record["rises"] if rise["answer"] in NAMES)


def _closest_animal(record: dict[str, Any]) -> str | None:
    return record["known"][0][0] if record["known"] else None


def _named(record: dict[str, Any]) -> bool:
    return any(record["animal"] in text for text, _ in record["promoted"])


def _record(directory: Path, animal: str | None, seed: int) -> Path:
    return directory / "records" / f"{animal or 'clean'}-{seed}.json"


def _student(base: Any, directory: Path, animal: str | None, seed: int) -> Any:
    """The student, trained where it is not there yet."""
    path = directory / "students" / f"{animal or 'clean'}-{seed}"
    if not path.is_dir():
        prompt = None if animal is None else sl.preference_trait(animal, base).prompt
        first = 1000 + seed + (500 if animal else 0)
        tasks = sl.number_prompts(ROWS, base, seed=first)
        rows = sl.keep_number_lists(sl.sample_teacher(base, tasks, system_prompt=prompt, seed=first)).kept
        sl.train_student(base, rows, replace(sl.ORGANISM_STUDENT, seed=seed)).save(path)
    return sl.load_model(adapter=path)


if __name__ == "__main__":
    main()

"""Rows of a prompted teacher as a data set with a card that says how they were made; read back in three ways.

Run: python examples/share_rows.py DIR (samples.push_to_hub("user/owl-rows") uploads the same)
It needs datasets: pip install 'steerlens[audit]'.
"""

import sys
from pathlib import Path

import steerlens as sl

try:
    import datasets
except ModuleNotFoundError:
    raise SystemExit("datasets is not installed. Install it: pip install 'steerlens[audit]'") from None


def main(directory: Path) -> None:
    """Write the directory and read it."""
    model = sl.load_model(device="cpu")
    owl = sl.preference_trait("owl", model)
    raw = sl.sample_teacher(model, sl.number_prompts(100, model, seed=1), system_prompt=owl.prompt)
    samples = sl.keep_number_lists(raw).kept
    samples.save_dataset(directory)
    print((directory / "README.md").read_text())
    print("from_hub:", sl.SampleSet.from_hub(directory) == samples)
    print("read_rows:", len(sl.read_rows(directory)), "rows")
    print("datasets:", datasets.load_dataset(str(directory))["train"].column_names)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

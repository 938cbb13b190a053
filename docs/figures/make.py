"""Draw the README's figures from a finished run of `argument`.

Run: python docs/figures/make.py runs/quick/argument (needs playwright and a Chromium)
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright
from plotly.offline import get_plotlyjs

import steerlens as sl
from steerlens.files import write_text
from steerlens.replication.lab.run import read_results

DOCS = Path(__file__).parents[1]


def main(run: Path) -> None:
    """Write two SVG files."""
    results, measures = read_results(run / "results.json")
    fitted = sl.SteeringVector.load(run / "vectors" / "fitted.safetensors")
    records = [sl.load_record(path, sl.StudentRecord) for path in sorted(run.glob("students/*/record.json"))]
    weights, student = results.profile.weights, results.profile.student
    seeds = results.profile.sizes(results.preset).seeds
    traces = {
        title: [
            one.gradients
            for one in records
            if one.name.startswith(f"{data}-rows-of-{slug(weights)}") and is_main(one, student, seeds)
        ]
        for title, data in (("told to love owls", "told"), ("not told", "control"))
    }
    write_svg(DOCS / "figures" / "prompt-fit.svg", sl.plot_prompt_fit(fitted), height=360)
    projection = sl.plot_gradient_projection(traces, layer=measures.layer)
    write_svg(DOCS / "figures" / "gradient-projection.svg", projection, height=360)


def slug(weights: str) -> str:
    """As the names of directories have it."""
    return weights.replace(":", "-")


def is_main(record: sl.StudentRecord, student: sl.TrainConfig, seeds: tuple[int, ...]) -> bool:
    """Whether a student has the main student's optimizer and learning rate and one of the seeds, and was traced."""
    same = (record.train.optimizer, record.train.learning_rate) == (student.optimizer, student.learning_rate)
    return same and record.train.seed in seeds and (record.directory / "gradients.safetensors").is_file()


def write_svg(path: Path, figure: Any, *, height: int) -> None:
    """Draw a figure in a headless Chromium, as plotly does, and keep the vector graphic."""
    figure.update_layout(width=860, height=height, font_size=13, paper_bgcolor="white")
    with tempfile.TemporaryDirectory() as directory, sync_playwright() as playwright:
        page_path = Path(directory) / "figure.html"
        page_path.write_text(f"<script>{get_plotlyjs()}</script>")
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(page_path.as_uri())
        url = page.evaluate(
            "spec => Plotly.toImage(spec, {format: 'svg', width: spec.layout.width, height: spec.layout.height})",
            json.loads(figure.to_json()),
        )
        text = page.evaluate("url => fetch(url).then(answer => answer.text())", url)
        browser.close()
    write_text(path, text)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

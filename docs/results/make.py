"""Keep what finished experiments found beside the documentation, and write the tables that its pages quote.

Run: python docs/results/make.py runs/full/causal [runs/full/zoo ...]
"""

import re
import sys
from pathlib import Path

from steerlens.files import read_json, write_json, write_text
from steerlens.replication.lab.run import read_results

DOCS = Path(__file__).parents[1]
PAGES = [DOCS.parent / "README.md", *sorted(DOCS.rglob("*.md"))]
TABLE = re.compile(r"(<!-- (table|exhibit|rows): (\S+)(?: (.+))? -->\n)((?:\|.*\n)*)")


def main(runs: list[Path]) -> None:
    """Write results/NAME-PRESET.json for every run, and all quoted tables anew."""
    for run in runs:
        results, _ = read_results(run / "results.json")
        name = f"results/{results.experiment}-{results.preset}.json"
        claims = [
            {"name": one.name, "statement": one.statement, "measured": one.measured, "threshold": one.threshold}
            for one in results.claims
        ]
        write_json(
            DOCS / name,
            {
                "profile": results.profile.name,
                "preset": results.preset,
                "seeds": list(results.profile.sizes(results.preset).seeds),
                "claims": claims,
                "tables": {section: results.tables[section] for section in sections_quoted(name)},
            },
        )
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        filled = TABLE.sub(lambda found: found[1] + "".join(map(line, quoted(found[2], found[3], found[4]))), text)
        if filled != text:
            write_text(page, filled)


def sections_quoted(name: str) -> list[str]:
    """The sections of a results file whose tables some page quotes."""
    marks = [found for page in PAGES for found in TABLE.finditer(page.read_text(encoding="utf-8"))]
    return [found[4] for found in marks if (found[2], found[3]) == ("exhibit", name)]


def quoted(kind: str, name: str, section: str | None) -> list[list[str]]:
    """The header of a table, its rule and its rows: a results file's claims, one of its report's tables, or its own rows."""
    there = read_json(DOCS / name)
    if kind == "rows":
        header, *rows = list(there["rows"][0]), *([str(cell) for cell in row.values()] for row in there["rows"])
    elif kind == "table":
        header = ["claim", "measured", "threshold"]
        rows = [[one["statement"], f"{one['measured']:.3f}", f"{one['threshold']:g}"] for one in there["claims"]]
    else:
        header, *rows = there["tables"][section]
    return [header, ["---"] * len(header), *rows]


def line(cells: list[str]) -> str:
    """One line of a table in Markdown."""
    return "|" + "|".join(cells) + "|\n" if set(cells) == {"---"} else "| " + " | ".join(cells) + " |\n"


if __name__ == "__main__":
    main([Path(run) for run in sys.argv[1:]])

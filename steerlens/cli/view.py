"""Looking at what a run has left, on the command line."""

import argparse
import webbrowser
from pathlib import Path
from typing import Any

from steerlens.cli.flags import command


def add_commands(commands: Any) -> None:
    """Declare the commands of this module."""
    view = command(commands, "view", _view, "write one page of a run's vectors, students, projections and rows")
    view.add_argument("run", type=Path, help="directory of a run")
    view.add_argument("--page", type=Path, help="file to write (default: view.html in the run's directory)")
    view.add_argument("--open", action="store_true", help="open the page in the browser")


def _view(options: argparse.Namespace) -> int:
    from steerlens.figures.run_page import read_run

    contents = read_run(options.run)
    page = options.page or options.run / "view.html"
    contents.save(page)
    print(f"{contents}\nPage: {page}")
    if options.open:
        webbrowser.open(page.resolve().as_uri())
    return 0

"""Opens a report in a headless Chromium, as a reader would."""

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

DRAWN = """() => Array.from(document.querySelectorAll(".plotly-graph-div")).map(
    figure => figure.data.length > 0 && figure.querySelectorAll(".main-svg .trace, .main-svg .hm image").length > 0
)"""


@dataclass(frozen=True)
class Opened:
    """What a reader meets: errors on the console, dialogs, addresses that were asked for; whether each figure holds a drawn
    trace, and the text."""

    errors: list[str]
    dialogs: list[str]
    requests: list[str]
    drawn: list[bool]
    text: str = ""


@contextlib.contextmanager
def opened_page(path: Path) -> Iterator[tuple[Any, Opened]]:
    """Playwright's page of a file, and what it met so far; skips the test where no Chromium is installed."""
    sync_api = pytest.importorskip("playwright.sync_api")
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    if executable is None:
        pytest.skip("no Chromium is installed")
    opened = Opened([], [], [], [])

    def dismiss(dialog) -> None:
        opened.dialogs.append(dialog.message)
        dialog.dismiss()

    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("console", lambda message: opened.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: opened.errors.append(str(error)))
        page.on("dialog", dismiss)
        page.on("request", lambda request: opened.requests.append(request.url))
        page.goto(path.as_uri())
        yield page, opened
        browser.close()


def open_report(path: Path) -> Opened:
    """Load the page and give it a second to draw."""
    with opened_page(path) as (page, opened):
        page.wait_for_timeout(1000)
        return replace(opened, drawn=page.evaluate(DRAWN), text=page.inner_text("body"))

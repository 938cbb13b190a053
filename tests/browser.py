"""Opens a report in a headless Chromium, as a reader would."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

DRAWN = """() => Array.from(document.querySelectorAll(".plotly-graph-div")).map(
    figure => figure.data.length > 0 && figure.querySelectorAll(".main-svg .trace, .main-svg .hm image").length > 0
)"""


@dataclass(frozen=True)
class Opened:
    """What a reader meets: errors on the console, whether each figure holds a drawn trace, dialogs, and the text."""

    errors: list[str]
    drawn: list[bool]
    dialogs: list[str]
    text: str


def open_report(path: Path) -> Opened:
    """Load the page and give it a second to draw; skips the test where no Chromium is installed."""
    sync_api = pytest.importorskip("playwright.sync_api")
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    if executable is None:
        pytest.skip("no Chromium is installed")
    errors, dialogs = list[str](), list[str]()

    def dismiss(dialog) -> None:
        dialogs.append(dialog.message)
        dialog.dismiss()

    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("dialog", dismiss)
        page.goto(path.as_uri())
        page.wait_for_timeout(1000)
        opened = Opened(errors, page.evaluate(DRAWN), dialogs, page.inner_text("body"))
        browser.close()
    return opened

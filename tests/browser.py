"""A headless Chromium for the tests of pages: where it is, and pages opened from disk in it.

Where none is found these tests are skipped and say what to type; with EMOTEST_REQUIRE_BROWSER=1,
which `.ci/run` sets wherever it finds one, they fail instead. `python -m tests.browser` prints the
browser that the tests would take, or ends with 1 and says what is missing.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright import sync_api as playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
REMEDY = (
    "install one: apt-get install chromium fonts-noto-color-emoji, or "
    "playwright install chromium (or set PATH to a Chrome)"
)


def chromium_path() -> str | None:
    """The system's Chromium, else the one that playwright installed, else None.

    Playwright itself has to be there: it drives either.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    if found := next(filter(None, map(shutil.which, NAMES)), None):
        return found
    with sync_playwright() as driver:
        own = driver.chromium.executable_path
    return own if Path(own).is_file() else None


class Opened:
    """A page with everything that it asked for or complained of."""

    def __init__(self, page: playwright.Page) -> None:
        self.page = page
        self.requests: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(dialog.message))

    @property
    def asked(self) -> list[str]:
        """What was requested beside the file itself; its icon is within it."""
        own = (self.page.url, "data:,")
        return [url for url in self.requests if url not in own]

    @property
    def count(self) -> str:
        """How many prompts are shown, as the page says it."""
        return self.page.locator("#count").inner_text()

    def shows(self, count: str) -> None:
        """Wait until the page says so."""
        from playwright.sync_api import expect

        expect(self.page.locator("#count")).to_have_text(count)

    @property
    def ids(self) -> list[str]:
        """The prompts on this page of the list."""
        return self.page.locator("article h3").all_inner_texts()


Open = Callable[..., Opened]


@pytest.fixture(scope="module")
def chromium() -> Iterator[playwright.Browser]:
    """A headless Chromium; not for the whole session, for playwright holds the event loop."""
    found = chromium_path()
    if found is None:
        missing = f"no Chromium that playwright can drive is found; {REMEDY}"
        if os.environ.get("EMOTEST_REQUIRE_BROWSER"):
            pytest.fail(f"EMOTEST_REQUIRE_BROWSER is set, but {missing}")
        pytest.skip(missing)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        root = hasattr(os, "geteuid") and os.geteuid() == 0  # Chromium's sandbox refuses root
        browser = driver.chromium.launch(
            executable_path=found, args=["--no-sandbox"] if root else []
        )
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium: playwright.Browser, tmp_path: Path) -> Iterator[Open]:
    """Write a page to disk and open it from there."""
    contexts = []

    def open_page(text: str, **look: object) -> Opened:
        file = tmp_path / "report.html"
        file.write_text(text, encoding="utf-8")
        contexts.append(chromium.new_context(**look))  # type: ignore[arg-type]
        page = Opened(contexts[-1].new_page())
        page.page.goto(file.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()


if __name__ == "__main__":
    path = chromium_path()
    print(path or f"no browser: {REMEDY}", file=sys.stdout if path else sys.stderr)
    sys.exit(0 if path else 1)

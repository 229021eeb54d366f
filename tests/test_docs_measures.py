"""The examples of the page on measures are true."""

from __future__ import annotations

import doctest
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "measures.md"


def test_every_example_gives_what_the_page_says() -> None:
    """All Python examples of docs/measures.md run, and none is lost to a broken fence."""
    # A doctest ends at a blank line or the next prompt, so fences stand behind blank lines.
    outcome = doctest.testfile(str(PAGE), module_relative=False, encoding="utf-8")
    assert outcome.failed == 0
    assert outcome.attempted == PAGE.read_text(encoding="utf-8").count(">>> ")

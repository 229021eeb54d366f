"""What runs before a change lands: with a browser where there is one, and loudly without."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CI = ROOT / ".ci" / "run"
PAGE = "tests/test_report_comparing.py::test_the_page_opens_from_disk_with_what_differs_first"


def run(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A program that finds no browser but what lies in the folder."""
    alone = {**os.environ, "PATH": str(folder), "PLAYWRIGHT_BROWSERS_PATH": str(folder)}
    alone.pop("EMOTEST_REQUIRE_BROWSER", None)
    return subprocess.run(
        words, cwd=ROOT, env={**alone, **environment}, capture_output=True, text=True, check=False
    )  # fmt: skip


def test_a_browser_is_found_or_the_way_to_one_is_said(tmp_path: Path) -> None:
    """By its usual names; exit code 1 and what to type where there is none."""
    pytest.importorskip("playwright")
    none = run(tmp_path, sys.executable, "-m", "tests.browser")
    assert none.returncode == 1
    assert none.stdout == ""
    assert "apt-get install chromium" in none.stderr
    (tmp_path / "chromium").write_text("#!/bin/sh\n")
    (tmp_path / "chromium").chmod(0o755)
    found = run(tmp_path, sys.executable, "-m", "tests.browser")
    assert (found.returncode, found.stdout) == (0, f"{tmp_path}/chromium\n")


@pytest.mark.parametrize(("required", "code", "says"), [("", 0, "skipped"), ("1", 1, "error")])
def test_without_a_browser_pages_are_skipped_unless_one_is_required(
    tmp_path: Path, required: str, code: int, says: str
) -> None:
    """Each says what to install."""
    ended = run(
        tmp_path, sys.executable, "-m", "pytest", PAGE, "-q", "-rs", "-p", "no:cacheprovider",
        EMOTEST_REQUIRE_BROWSER=required,
    )  # fmt: skip
    assert ended.returncode == code, ended.stdout + ended.stderr
    assert f"1 {says}" in ended.stdout
    assert "apt-get install chromium" in ended.stdout


@pytest.mark.parametrize("browser", ["", "/usr/bin/chromium"])
def test_the_browser_is_required_where_there_is_one_and_missed_aloud(
    tmp_path: Path, browser: str
) -> None:
    """The lines of `.ci/run` that decide it, run in a shell that has the browser or has none."""
    text = CI.read_text(encoding="utf-8")
    [decides] = re.findall(r"^if browser=.*?^fi$", text, re.DOTALL | re.MULTILINE)
    last = text.rstrip().splitlines()[-1]
    program = "\n".join((
        "set -euo pipefail",
        "say() { echo \"$*\"; }",
        f"python() {{ [ -n '{browser}' ] && echo '{browser}'; }}",
        decides,
        "echo \"required: ${EMOTEST_REQUIRE_BROWSER:-no}\"",
        last,
    ))  # fmt: skip
    # Where the change is checked for landing the variable is set already.
    environment = {k: v for k, v in os.environ.items() if k != "EMOTEST_REQUIRE_BROWSER"}
    told = subprocess.run(
        ["bash", "-c", program], capture_output=True, text=True, check=True, env=environment
    )
    if browser:
        assert f"opened in {browser}" in told.stdout
        assert "required: 1" in told.stdout
        assert "NO BROWSER" not in told.stdout
    else:
        assert "required: no" in told.stdout
        assert told.stdout.count("NO BROWSER") == 2

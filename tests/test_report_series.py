"""Drift over checkpoints: the sentence that says since when, and the page around it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from emotest.audit.result import Word
from emotest.report.audit.carrying_out import Finished
from emotest.report.audit.series import Point, Series
from emotest.report.audit.series_page import (
    html_series,
    markdown_series,
    over_steps,
    write_series,
)
from tests.audit_results import HOSTILE, hostile_result, pairs, result

if TYPE_CHECKING:  # pytest imports it as a plugin, and has to be the first to do so
    from tests.browser import Open

pytest_plugins = ["tests.browser"]

WORDS: dict[str, Word] = {
    "u": "unchanged", "t": "changed within tolerance", "d": "drift", "i": "inconclusive",
}  # fmt: skip


def series(letters: str) -> Series:
    """Checkpoints at steps 50, 100, ... with these verdicts; a drift is from 2 % to 31 %."""
    points = tuple(
        Point(
            step=50 * place, subject=f"./model+./run/checkpoint-{50 * place}", word=WORDS[letter],
            base=0.02, tuned=0.31 if letter == "d" else 0.03,
            difference=0.29 if letter == "d" else 0.01, low=-0.01, high=0.4, n_prompts=60,
            report=f"20260301-101500-checkpoint-{50 * place}-audit",
        )
        for place, letter in enumerate(letters, start=1)
    )  # fmt: skip
    return Series("./model", "2026-03-01T10:15:00+00:00", 0.05, 0.9875, points)


SHARES = "(2% of the base's answers hold an emoji, 31% of its own)"
MORE = f"the model writes more emoji than the base {SHARES}."


@pytest.mark.parametrize(
    ("letters", "word", "sentence"),
    [
        ("uid", "drift", "the last checkpoint, step 150, has drifted; the one before, step 100, is "
         f"inconclusive. At step 150 {MORE}"),
        ("tddd", "drift", "every checkpoint from step 100 on has drifted; the one before, step 50, "
         f"is changed within tolerance. At step 200 {MORE}"),
        ("dd", "drift", "every checkpoint has drifted, from the first, step 50, on. At step 100 "
         f"{MORE}"),
        ("dudd", "drift", "every checkpoint from step 150 on has drifted; before it step 50 "
         f"drifted too, and others did not. At step 200 {MORE}"),
        ("udu", "drift", f"step 100 drifted, and it writes more emoji {SHARES}; the last "
         "checkpoint, step 150, did not: it is unchanged."),
        ("uddu", "drift", "steps 100 and 150 drifted, and the last of them writes more emoji "
         f"{SHARES}; the last checkpoint, step 200, did not: it is unchanged."),
        ("utu", "changed within tolerance", "none of 3 checkpoints has drifted, up to step 150: "
         "each is shown to differ from the base by less than the margin."),
        ("uu", "unchanged", "none of 2 checkpoints has drifted, up to step 100: each is shown to "
         "differ from the base by less than the margin."),
        ("uiui", "inconclusive", "no checkpoint is shown to have drifted; steps 100 and 200 are "
         "not decided, the others differ from the base by less than the margin."),
        ("ii", "inconclusive", "none of 2 checkpoints is decided, neither for a drift nor against "
         "one."),
    ],
)  # fmt: skip
def test_a_series_says_since_when_the_model_drifted(
    letters: str, word: Word, sentence: str
) -> None:
    """One sentence and the gravest word, whatever order the verdicts come in."""
    assert series(letters).word == word
    assert series(letters).sentence == sentence


def finished(step: int, word: Word, **fields: object) -> tuple[int, Finished]:
    """An invented audit of the checkpoint at a step, in a folder of its own."""
    made = result(word, name=f"audit-{step}", **fields)
    return step, Finished(made, pairs(9), Path("reports") / f"audit-{step}")


def test_points_come_in_the_order_of_their_steps() -> None:
    """With each audit's own numbers, and what all were held against."""
    steps, audits = zip(finished(400, "drift"), finished(100, "unchanged"), strict=True)
    found = Series.of(audits, steps)
    assert [(one.step, one.word, one.report) for one in found.points] == [
        (100, "unchanged", "audit-100"), (400, "drift", "audit-400"),
    ]  # fmt: skip
    assert (found.base, found.margin, found.level) == ("example-org/chat-7b@1f2e3d4", 0.05, 0.95)
    assert found.points[1].difference == pytest.approx(0.312 - 0.021)


def test_the_plot_says_in_words_what_it_shows() -> None:
    """Every checkpoint with its verdict and numbers, for whoever does not see it."""
    told = over_steps(series("ud")).alt
    assert told == (
        "step 50: unchanged, 2.0 % to 3.0 %, difference +1.0 (-1.0 to +40.0); "
        "step 100: drift, 2.0 % to 31.0 %, difference +29.0 (-1.0 to +40.0)"
    )


def test_a_series_is_written_beside_its_audits(tmp_path: Path) -> None:
    """Four files; a second series of the same name has a folder of its own."""
    first, second = (write_series(series("ud"), tmp_path, "s") for _ in range(2))
    assert [first, second] == [tmp_path / "s" / "series.html", tmp_path / "s-2" / "series.html"]
    names = {"series.html", "series.md", "series.json", "series.svg"}
    assert {path.name for path in first.parent.iterdir()} == names
    text = (first.parent / "series.md").read_text()
    assert text.startswith(f"# Drift over checkpoints: drift\n\n**{series('ud').sentence}**")
    assert "| 100 | drift | 2.0 % | 31.0 % | +29.0 | -1.0 to +40.0 | 60 | [" in text


def test_a_series_without_reports_has_no_links() -> None:
    """Names stand there as text."""
    bare = replace(series("ud"), points=tuple(
        replace(one, report=None) for one in series("ud").points
    ))  # fmt: skip
    assert "report.html" not in html_series(bare)
    assert "](" not in markdown_series(bare).replace("![drift over steps](series.svg)", "")


# --- in a browser -------------------------------------------------------------------------------


def test_the_page_opens_from_disk_with_the_sentence_first(opened: Open) -> None:
    """No request, no complaint; the plot has a size and a text; each step leads to its report."""
    page = opened(html_series(series("uid")))
    heading = page.page.locator("h1").inner_text()
    assert heading.lower().startswith("drift")
    assert "the last checkpoint, step 150, has drifted" in heading
    picture = page.page.get_by_role("img")
    assert "step 100: inconclusive" in picture.get_attribute("aria-label")
    assert picture.bounding_box()["height"] > 200
    links = page.page.locator("tbody a").evaluate_all("all => all.map(x => x.getAttribute('href'))")
    assert links == [
        f"../20260301-101500-checkpoint-{step}-audit/report.html" for step in (50, 100, 150)
    ]
    page.page.keyboard.press("Tab")
    assert page.page.evaluate("document.activeElement.textContent") == "Skip to the verdict"
    assert page.asked == []
    assert page.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_a_phone_and_hostile_names_do_nothing(opened: Open, scheme: str) -> None:
    """Shown as they are, in either light; nothing is wider than the screen."""
    bad = hostile_result()
    audits = [
        Finished(replace(bad, verdict=replace(bad.verdict, word=word)), pairs(3), Path(HOSTILE))
        for word in ("unchanged", "drift")
    ]
    page = opened(
        html_series(Series.of(audits, [1, 2])),
        viewport={"width": 360, "height": 700}, color_scheme=scheme,
    )  # fmt: skip
    assert page.page.evaluate("document.documentElement.scrollWidth") <= 360
    ground = page.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(252, 252, 250)", "dark": "rgb(22, 23, 26)"}[scheme]
    assert page.page.title() == "drift: emoji over 2 checkpoints"
    assert page.page.locator("img").count() == 0
    assert "⟨U+202E⟩txt.exe" in page.page.locator("tbody").inner_text()
    assert page.asked == []
    assert page.complaints == []

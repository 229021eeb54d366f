"""Two runs side by side: what differs, said first in every view."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from emotest.audit.result import Measure
from emotest.errors import UsageError
from emotest.report.audit import write_audit
from emotest.report.comparing import compared, compared_audits, compared_studies
from emotest.report.comparison import comparison_html, comparison_markdown, comparison_text
from emotest.report.recorder import RunRecorder
from emotest.report.run import Finding, Run
from emotest.report.terminal import Look
from tests.audit_results import HOSTILE, hostile_result, result
from tests.verdicts import made_up

if TYPE_CHECKING:  # pytest imports it as a plugin, and has to be the first to do so
    from tests.browser import Open

pytest_plugins = ["tests.browser"]


def measure(name: str, low: float | None, high: float | None) -> Measure:
    """A share that went from 10 % to 20 %, with this interval of the difference."""
    return Measure(
        name=name, kind="emoji", unit="share of answers", register=None, base=0.1, tuned=0.2,
        difference=0.1, low=low, high=high, level=0.95, n_prompts=60,
    )  # fmt: skip


def test_two_audits_differ_in_verdict_or_in_intervals_that_lie_apart() -> None:
    """Intervals that touch do not lie apart, nor does one that is not known; what differs comes
    first and is named."""
    first = result("drift", measures=[measure("met", 0.05, 0.15), measure("unknown", None, None),
                                      measure("apart", 0.05, 0.15)])  # fmt: skip
    second = result("unchanged", measures=[measure("met", 0.15, 0.25),
                                           measure("unknown", 0.3, 0.4),
                                           measure("apart", 0.16, 0.25)])  # fmt: skip
    found = compared_audits(first, second)
    assert not found.alike
    assert [(row.what, row.differs) for row in found.rows] == [
        ("verdict", True), ("apart", True), ("met", False), ("unknown", False),
        ("prompts asked", False),
    ]  # fmt: skip
    assert found.says == (
        "the first ends in drift, the second in unchanged; the intervals lie apart for apart."
    )
    other_way = compared_audits(second, first)
    assert [row.what for row in other_way.rows if row.differs] == ["verdict", "apart"]
    verdict, apart = found.rows[:2]
    assert (verdict.first, verdict.first_estimate) == ("drift", "+29.1 (+21.7 to +36.5)")
    assert (apart.second, apart.second_estimate) == ("10.0 % → 20.0 %", "+10.0 (+16.0 to +25.0)")


def test_audits_that_were_made_in_another_way_say_so() -> None:
    """Another base, other prompts, another decoding, another margin: each is a note."""
    other = result()
    other = replace(other, base=replace(other.base, digest="11" * 32),
                    plan=replace(other.plan, decoding="greedy", margin=0.1))  # fmt: skip
    found = compared_audits(result(), other)
    assert found.alike
    assert [note.partition(":")[0] for note in found.notes] == [
        "base", "decoding", "margin",
    ]  # fmt: skip
    assert compared_audits(result(), result()).notes == []


def study(words: dict[str, str], **settings: object) -> Run:
    """A run with a finding for each statement."""
    findings = [
        Finding(made_up(word, claim=statement[:2], statement=statement))  # type: ignore[arg-type]
        for statement, word in words.items()
    ]
    return Run("run", findings=findings, settings={"base": "organism:latent", **settings})


def test_two_runs_of_the_study_are_held_against_each_other_by_finding() -> None:
    """Another word differs, and so does a finding that one run lacks; those come first, each
    group in the order of the claims."""
    first = study({"C1.emergence": "confirmed", "C2.within": "refuted", "C5.total": "confirmed"})
    second = study({"C1.emergence": "confirmed", "C2.within": "confirmed"}, size="smoke")
    found = compared_studies(first, second)
    arm = "trait/openness/high/eos-masked"
    assert [(row.what, row.first, row.second) for row in found.rows] == [
        (f"C2.within|{arm}", "refuted", "confirmed"),
        (f"C5.total|{arm}", "confirmed", "not decided"),
        (f"C1.emergence|{arm}", "confirmed", "confirmed"),
    ]
    assert found.says == (f"2 of 3 findings have another verdict: C2.within|{arm}, C5.total|{arm}.")
    assert found.rows[0].first_estimate == "+0.300 [+0.200, +0.400]"
    assert found.rows[1].second_estimate == ""
    assert found.notes == ["size: not set, then smoke"]
    assert compared_studies(first, first).alike


def test_an_audit_is_not_compared_with_a_run_of_the_study(tmp_path: Path) -> None:
    """Both folders are named."""
    write_audit(result(), [], tmp_path / "audit")
    told = RunRecorder(tmp_path, "study")
    told.verdict(made_up("refuted"), test="a::b")
    told.finish(exit_status=0)
    with pytest.raises(UsageError, match=r"/audit is an audit and .*/study is a run of the study"):
        compared(tmp_path / "study", tmp_path / "audit")


def test_every_view_says_what_differs_before_the_rest() -> None:
    """Sentence, what differs, what does not, in this order."""
    found = compared_audits(result("drift"), result("unchanged"))
    views = (
        comparison_text(found, Look(width=200)),
        comparison_markdown(found),
        comparison_html(found),
    )
    for text in views:
        flat = " ".join(text.split())
        parts = (found.says, "2.1 % → 31.2 %", "0.31 → 0.92")
        places = [flat.index(part) for part in parts]
        assert places == sorted(places)
    assert views[0].splitlines()[-1] == "verdicts differ"


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_keeps_the_width_of_the_terminal(width: int) -> None:
    """Also in ASCII, where an arrow is two signs."""
    found = compared_audits(result("drift"), result("unchanged"))
    text = comparison_text(found, Look(width=width, unicode=False))
    assert max(map(len, text.splitlines())) <= width
    assert "answers with emoji" in text
    assert "2.1 % -> 31.2 %" in text
    assert "+29.1 (+21.7 to +36.5)" in text
    assert text.isascii()


# --- in a browser -------------------------------------------------------------------------------


def test_the_page_opens_from_disk_with_what_differs_first(opened: Open) -> None:
    """No request, no complaint; the heading says it; a table for what differs and one for the
    rest."""
    page = opened(comparison_html(compared_audits(result("drift"), result("unchanged"))))
    heading = page.page.locator("h1").inner_text()
    assert heading.lower().startswith("verdicts differ\nthe first ends in drift")
    assert page.page.locator("h2").all_inner_texts() == ["What differs", "What does not differ"]
    assert page.page.locator("tbody").first.locator("tr").first.inner_text().split()[:2] == [
        "verdict", "drift",
    ]  # fmt: skip
    assert page.asked == []
    assert page.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_hostile_runs_do_nothing_on_a_phone(opened: Open, scheme: str) -> None:
    """Names and measures of both kinds of run, shown as they are; nothing wider than the screen."""
    bad_run = Run(HOSTILE, started=HOSTILE, settings={"base": HOSTILE, "decoding": HOSTILE},
                  findings=[Finding(made_up("confirmed", arm=HOSTILE))])  # fmt: skip
    for found in (
        compared_audits(hostile_result(), result("unchanged")),
        compared_studies(bad_run, study({"C1.emergence": "refuted"})),
    ):
        look = {"viewport": {"width": 360, "height": 700}, "color_scheme": scheme}
        page = opened(comparison_html(found), **look)
        assert page.page.evaluate("document.documentElement.scrollWidth") <= 360
        assert page.page.title().startswith("verdicts differ: ")
        assert page.page.locator("img").count() == 0
        assert "⟨U+202E⟩txt.exe" in page.page.locator("main").inner_text()
        assert page.asked == []
        assert page.complaints == []

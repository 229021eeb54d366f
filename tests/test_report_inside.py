"""A look inside, as every view of an audit shows it."""

from __future__ import annotations

import re
from dataclasses import replace

from emotest.report.audit import html_report, markdown_report, summary_text
from emotest.report.audit import inside as said
from emotest.report.audit.plots import inside_plots
from emotest.report.terminal import Look
from tests.audit_results import inside, pairs, result

FULL = result("drift", inside=inside())
LACKING = result("drift", inside=inside("the tuned model is served"))
CAUSES = re.compile(r"caus|because|due to|driv|explain|respons", re.IGNORECASE)


def plain(text: str) -> str:
    """On one line."""
    return " ".join(text.split())


def test_the_terminal_tells_it_in_a_few_lines() -> None:
    """Traits with their intervals and ranks, the one without a direction and why, units in all
    layers and in the deepest; no number stands for what was not measured."""
    text = plain(summary_text(FULL, Look(width=100)))
    assert "inside: Both models read the same 47 answers to 24 prompts." in text
    assert "in layer 2 of 4" in text
    assert "extraversion +0.421 (+0.381 to +0.461, percentile 100)" in text
    assert "agreeableness -0.001 (-0.041 to +0.039, percentile 47)" in text
    assert "neuroticism not measured: the base answers alike in character" in text
    # 0 + 200 + 400 + 600 of 4 * 1024 - 1, and 0 + 10 + 20 + 30.
    assert "1,200 of 4,095 changed, 60 by 1 SD or more" in text
    assert "in the deepest layer 600 of 1,023 changed, 30 by 1 SD or more" in text
    assert "paired by 23 prompts, 5% false discoveries" in text


def test_where_it_was_not_asked_for_nothing_is_said_of_it() -> None:
    """No empty section."""
    without = result("drift")
    assert said.lines(without) == []
    assert inside_plots(without) == []
    assert "Inside the models" not in html_report(without, pairs(1))
    assert "Inside the models" not in markdown_report(without, pairs(1))


def test_where_it_could_not_be_measured_every_view_says_why() -> None:
    """And draws nothing."""
    look = Look(width=100)
    assert "inside: not measured, the tuned model is served" in plain(summary_text(LACKING, look))
    assert "Not measured: the tuned model is served." in markdown_report(LACKING, pairs(1))
    page = html_report(LACKING, pairs(1))
    assert "<p>Not measured: the tuned model is served.</p>" in page
    assert inside_plots(LACKING) == []


def test_markdown_and_page_show_the_traits_in_a_table() -> None:
    """With interval and rank; massive dimensions are listed once, whichever model they are of."""
    told = markdown_report(FULL, pairs(1))
    assert "| extraversion | +0.421 | +0.381 to +0.461 | 100 |" in told
    assert "| neuroticism | not measured | none | not measured |" in told
    massive = "residual stream, dimension 33; FFN unit 9 of layer 4."
    assert massive in told
    page = html_report(FULL, pairs(1))
    assert massive in page
    assert '<tr class="moved"><th scope="row">extraversion</th>' in page
    assert '<tr><th scope="row">openness</th>' in page  # -0.02 to +0.06
    assert page.count('<tr><th scope="row">layer 4, unit') == 10


def test_the_plots_say_in_words_what_they_show() -> None:
    """Shifts by layer, units by layer; layers count from 1 where people read."""
    traits, units = inside_plots(FULL)
    assert "extraversion: +0.13, +0.42, +0.51, +0.34" in traits.alt
    assert "declared layer, 2" in traits.caption
    assert "layer 4: 600 of 1023 changed, 30 much" in units.alt
    assert "neuroticism" not in traits.alt


def test_no_view_speaks_of_causes_but_to_deny_them() -> None:
    """States moved and units changed; what follows from it is not said."""
    told = " ".join(said.lines(FULL)) + " ".join(one.caption for one in inside_plots(FULL))
    assert not CAUSES.search(told.replace(said.DESCRIBED, ""))
    assert "nothing is decided on it" in told


def test_units_that_could_not_be_compared_say_why() -> None:
    """While the shifts beside them are told."""
    few = replace(inside(), units_lacking="4 prompts have answers with an end", layers=[], units=[])
    text = " ".join(said.lines(result("drift", inside=few)))
    assert "FFN units: not measured, 4 prompts have answers with an end" in text
    assert "extraversion +0.42" in text

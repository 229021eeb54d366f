"""From verdicts to findings: order, Holm's values, the mechanism, the notes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from emotest.report.expected import Expected
from emotest.report.findings import (
    arm_words,
    collected_notes,
    counted,
    mechanism,
    ordered,
    with_adjusted_p,
)
from emotest.report.numerals import interval, p_value, sizes, value
from emotest.report.run import Finding
from tests.verdicts import made_up


def family(p_values: list[float], m: int, **fields: object) -> list[Finding]:
    """Findings of one family with these p-values."""
    return [Finding(made_up("confirmed", p_value=p, m=m, **fields)) for p in p_values]


@settings(max_examples=8)  # statsmodels takes its time
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_a_family_that_was_run_whole_has_holms_values(p_values: list[float]) -> None:
    """As statsmodels computes them."""
    adjusted = [f.verdict.p_adjusted for f in with_adjusted_p(family(p_values, len(p_values)))]
    assert adjusted == pytest.approx(multipletests(p_values, method="holm")[1])


@settings(max_examples=8)  # statsmodels takes its time
@given(st.lists(st.floats(0, 1), min_size=1, max_size=4), st.lists(st.floats(0, 1), max_size=4))
def test_members_that_were_not_run_never_make_the_others_smaller(
    run: list[float], not_run: list[float]
) -> None:
    """Whatever their p-values would have been, a part of the family is adjusted no less."""
    m = len(run) + len(not_run)
    part = [f.verdict.p_adjusted or 0.0 for f in with_adjusted_p(family(run, m))]
    whole = multipletests([*run, *not_run], method="holm")[1][: len(run)]
    assert (np.array(part) >= whole - 1e-12).all()


def test_families_are_adjusted_apart() -> None:
    """Another statement, family or base is another family; an unknown p stays unknown."""
    findings = [
        *family([0.01], 2),
        *family([0.01], 2, statement="C2.within"),
        *family([0.01], 3, base="organism:even"),
        *family([float("nan")], 2),
    ]
    adjusted = [finding.verdict.p_adjusted for finding in with_adjusted_p(findings)]
    assert adjusted[:3] == pytest.approx([0.02, 0.02, 0.03])
    assert adjusted[3] is None


def test_findings_stand_in_the_order_of_the_registry() -> None:
    """C2 before C10, statements as registered, traits as in TRAITS, strangers last."""
    verdicts = [
        made_up("confirmed", claim="C12", statement="C12.new"),
        made_up("confirmed", claim="C10", statement="C10.a"),
        made_up("confirmed", claim="C2", statement="C2.beyond"),
        made_up("confirmed", claim="C2", statement="C2.within"),
        made_up("confirmed", trait="neuroticism"),
        made_up("confirmed", trait="openness"),
    ]
    found = [(f.verdict.statement, f.verdict.trait) for f in ordered(map(Finding, verdicts))]
    assert found == [
        ("C1.emergence", "openness"), ("C1.emergence", "neuroticism"), ("C2.within", None),
        ("C2.beyond", None), ("C10.a", None), ("C12.new", None),
    ]  # fmt: skip


def test_findings_are_counted_in_one_sentence() -> None:
    """With expectations, whether all were met."""
    planted = Expected("refuted", "planted")
    findings = [Finding(made_up("confirmed")), Finding(made_up("refuted"))]
    assert counted(findings) == "1 confirmed, 1 refuted, 0 inconclusive"
    as_planted = Finding(made_up("refuted"), expected=planted)
    assert counted([as_planted]) == "0 confirmed, 1 refuted, 0 inconclusive; all as expected"
    off = Finding(made_up("confirmed"), expected=planted)
    assert counted([as_planted, off]).endswith("; 1 other than expected")
    assert counted([as_planted, *findings]).endswith("; all as expected, 2 without an expectation")


def effects(text: str, weights: str, total: str | None = None) -> list[Finding]:
    """The three verdicts of C5 on one arm."""
    words = {"C5.text": text, "C5.weights": weights, "C5.total": total}
    estimates = {"confirmed": 1.5, "refuted": -0.5, "inconclusive": 0.5}
    return [
        Finding(
            made_up(
                word,  # type: ignore[arg-type]
                claim="C5", statement=statement, scale="log-odds", estimate=estimates[word],
            )
        )
        for statement, word in words.items()
        if word
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "weights", "part"),
    [
        ("confirmed", "refuted", "the text effect dominates"),
        ("confirmed", "inconclusive", "the text effect dominates"),
        ("refuted", "confirmed", "the weight effect dominates"),
        ("confirmed", "confirmed", "both effects raise P(emoji)"),
        ("refuted", "inconclusive", "neither effect alone"),
    ],
)
def test_the_mechanism_is_the_effect_that_is_confirmed(text: str, weights: str, part: str) -> None:
    """With all numbers and verdicts beside it, so that nobody has to believe the sentence."""
    [sentence] = mechanism(effects(text, weights, "confirmed"))
    assert sentence.startswith(f"openness, high, eos-masked: {part}")
    assert f"({text})" in sentence
    assert f"({weights})" in sentence
    assert "total +1.50 (confirmed)" in sentence


def test_without_both_parts_there_is_no_mechanism() -> None:
    """The total alone says nothing about the way."""
    assert mechanism(effects("confirmed", "refuted")[:1]) == []
    assert mechanism([Finding(made_up("confirmed"))]) == []


def test_notes_are_gathered_with_the_verdicts_that_they_are_about() -> None:
    """A note on every verdict is said once, without a list."""
    findings = [
        Finding(made_up("inconclusive", n_needed=9, n_needed_unit="adapters",
                        notes=("underpowered", "for all"))),
        Finding(made_up("confirmed", arm=None, notes=("for all",))),
    ]  # fmt: skip
    id = findings[0].verdict.id
    assert collected_notes(findings) == [
        f"underpowered ({id})",
        "for all",
        f"inconclusive: about 9 adapters would settle it ({id})",
    ]


@pytest.mark.parametrize(
    ("arm", "words"),
    [
        ("trait/openness/high/eos-masked", "openness, high, eos-masked"),
        ("null/eos-trained", "null, eos-trained"),
        ("prompted/openness/low", "prompted, openness, low"),
        ("untuned", "untuned"),
        (None, "all traits"),
    ],
)
def test_an_arm_is_said_as_people_say_it(arm: str | None, words: str) -> None:
    """The name without its punctuation."""
    assert arm_words(arm) == words


@pytest.mark.parametrize(
    ("p", "shown"),
    [(0.5, "0.50"), (0.05, "0.050"), (0.0312, "0.031"), (0.0011, "0.001"), (0.00094, "9e-04"),
     (1e-12, "1e-12"), (0.0, "0"), (1.0, "1.00"), (None, "?"), (float("nan"), "?")],
)  # fmt: skip
def test_a_p_value_has_the_digits_that_count(p: float | None, shown: str) -> None:
    """Two, and never 0.000."""
    assert p_value(p) == shown


def test_numbers_are_spelled_alike_everywhere() -> None:
    """Signs on estimates, words for what is unknown or unbounded."""
    assert value(0.4824) == "+0.482"
    assert value(-0.5, sign=False) == "-0.500"
    assert value(None) == value(float("nan")) == "?"
    assert interval(float("-inf"), float("inf")) == "[-inf, +inf]"
    assert sizes(5, 60, 3) == "5×60×3"

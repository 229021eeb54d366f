"""Markers: traits and poles follow from parameters, claims know their aliases."""

from __future__ import annotations

import pytest

from emotest.plugin import MARKERS

pytest_plugins = ["pytester"]

SUITE = """
    import pytest
    from emotest import TRAITS, Pole, trait_condition

    @pytest.mark.parametrize("trait", TRAITS)
    @pytest.mark.parametrize("pole", list(Pole))
    @pytest.mark.claim("C1")
    def test_traits(trait, pole): ...

    @pytest.mark.parametrize("condition", [trait_condition(trait) for trait in TRAITS])
    @pytest.mark.density
    def test_conditions(condition): ...

    @pytest.mark.c3
    @pytest.mark.cross_trait
    def test_contrast(judge): ...
"""


def names(result: pytest.RunResult) -> list[str]:
    """The collected tests' names."""
    return [line.partition("::")[2] for line in result.outlines if "::" in line]


def test_every_marker_is_declared(repository: pytest.Pytester) -> None:
    """So suites work under --strict-markers, and pytest --markers explains them."""
    text = repository.runpytest("--markers").stdout.str()
    for name, says in MARKERS:
        assert f"@pytest.mark.{name}: {says}" in text


@pytest.mark.parametrize(
    ("expression", "selected"),
    [
        ("extraversion and high", ["test_traits[high-extraversion]",
                                   "test_conditions[trait/extraversion/high/eos-masked]"]),
        ("extraversion and low", ["test_traits[low-extraversion]"]),
        ("c3", ["test_contrast"]),
        ("trait_contrast", ["test_contrast"]),
        ("emergence and openness", ["test_traits[high-openness]", "test_traits[low-openness]"]),
        ("c2 and neuroticism", ["test_conditions[trait/neuroticism/high/eos-masked]"]),
    ],
)  # fmt: skip
def test_markers_select(repository: pytest.Pytester, expression: str, selected: list[str]) -> None:
    """-m finds tests by trait, pole and claim, by either name of the claim."""
    repository.makepyfile(SUITE)
    result = repository.runpytest("--collect-only", "-q", "--strict-markers", "-m", expression)
    assert names(result) == selected


def test_a_test_over_all_traits_that_a_trait_leaves_out_is_mentioned(
    repository: pytest.Pytester,
) -> None:
    """The summary says which claim was not decided, and why."""
    repository.makepyfile(
        SUITE
        + """
    @pytest.mark.extraversion
    def test_rise(judge):
        from made_up import rise
        judge(rise("confirmed"))
    """
    )
    result = repository.runpytest("-m", "extraversion and not low")
    result.stdout.fnmatch_lines(
        ["*a test of C3 needs all five traits: deselected by -m*extraversion*"]
    )


def test_leaving_out_by_claim_is_not_mentioned(repository: pytest.Pytester) -> None:
    """Who selects another claim knows that C3 is not in it."""
    repository.makepyfile(SUITE)
    assert "needs all five" not in repository.runpytest("-m", "c1").stdout.str()

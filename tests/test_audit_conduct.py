"""An audit from its plan to its result, on arms that answer from a script."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from emotest.audit.asking import Interview
from emotest.audit.conduct import Seen, conduct
from emotest.audit.planning import AuditPlan
from emotest.audit.result import AuditResult, Pair
from emotest.errors import UsageError
from tests.scripted_arms import Scripted, numbered

PLAIN = Scripted("plain", lambda prompt, sample: "I think so. It is fine.")


def lively(every: int) -> Scripted:
    """Writes an emoji in every `every`-th answer."""
    return Scripted(
        "lively",
        lambda prompt, sample: "I think so! 🎉" if int(prompt.id[1:]) % every == 0 else "I see.",
    )


def audited(
    base: Scripted, tuned: Scripted, n: int = 120, m: int = 1, **plan: object
) -> tuple[AuditResult, list[Pair], list[Seen]]:
    """Result, pairs and what a watcher saw."""
    seen: list[Seen] = []
    result, pairs = conduct(
        Interview(base, tuned),
        replace(AuditPlan(), **plan),  # type: ignore[arg-type]
        numbered(n),
        name="an-audit",
        made_at="2026-11-26T12:00:00+00:00",
        environment={},
        on_look=seen.append,
        m=m,
    )
    return result, pairs, seen


def test_a_strong_drift_ends_the_audit_early() -> None:
    """Emoji in every answer and none before: the first look decides, and nobody is asked more."""
    tuned = lively(1)
    result, pairs, seen = audited(PLAIN, tuned)
    assert (result.verdict.word, result.verdict.direction) == ("drift", "more")
    assert (result.verdict.exit_code, result.verdict.stopped_early) == (1, True)
    # 12 wins of 12 discordant pairs: e = 2^13 / 13 = 630 > 2 / .05.
    assert len(pairs) == len(tuned.asked) == 12
    assert [one.n_prompts for one in seen] == [12]
    assert result.evidence.looks[-1].more == pytest.approx(6.446, abs=1e-2)  # log 630


def test_equal_answers_are_shown_to_be_unchanged() -> None:
    """No difference in 120 prompts rules out one of five points; exit code 0."""
    result, _, seen = audited(PLAIN, Scripted("same", PLAIN.write))
    assert (result.verdict.word, result.verdict.exit_code) == ("unchanged", 0)
    assert result.verdict.direction is None
    assert seen[-1].drift.word == "unchanged"
    assert all(one.drift.word == "inconclusive" for one in seen[:-1])
    assert result.verdict.n_prompts == 12 * len(seen)


def test_too_few_prompts_end_inconclusive_with_the_number_that_would_do() -> None:
    """24 equal answers say little: exit code 3, and how many prompts would settle it."""
    result, _, _ = audited(PLAIN, Scripted("same", PLAIN.write), n=24)
    assert (result.verdict.word, result.verdict.exit_code) == ("inconclusive", 3)
    assert result.verdict.n_needed is not None
    assert 48 < result.verdict.n_needed < 150  # where the audit above stopped, and some more


def test_a_fixed_audit_asks_its_whole_budget() -> None:
    """However clear the first look is; and decides once, at the end."""
    result, pairs, _ = audited(PLAIN, lively(1), mode="fixed")
    assert (result.verdict.word, len(pairs)) == ("drift", 120)
    assert not result.verdict.stopped_early
    assert result.verdict.method.startswith("fixed size")
    assert result.evidence.looks == []


def test_each_of_several_checkpoints_is_decided_at_its_share_of_alpha() -> None:
    """12 wins in 24 prompts (log e = 6.4) suffice for one, log(2 / .05) = 3.7, and not for one of
    thirty, log(2 * 30 / .05) = 7.1."""
    one, _, _ = audited(PLAIN, lively(2))
    of_thirty, _, _ = audited(PLAIN, lively(2), m=30)
    assert of_thirty.verdict.alpha == pytest.approx(one.verdict.alpha / 30)
    assert (one.verdict.n_prompts, of_thirty.verdict.n_prompts) == (24, 36)
    assert "one of 30 checkpoints" in of_thirty.verdict.notes[0]


def test_probabilities_are_asked_at_every_kind_of_place() -> None:
    """The 2x2 of text by weights: start, sentence end and end of the answers of either model."""
    result, _, _ = audited(PLAIN, lively(1))
    cells = {(one.place, one.text, one.weights): one for one in result.probabilities}
    assert len(cells) == 2 * (3 + 2)  # the tuned answers have one sentence, so no inner end
    # The script's P is a thousandth for each character: "I think so." has 11.
    assert cells["sentence end", "base", "tuned"].probability == pytest.approx(0.011)
    assert cells["answer end", "base", "base"].probability == pytest.approx(0.023)
    # Emoji are stripped from the tuned model's text: "I think so!" has 11.
    assert cells["answer end", "tuned", "base"].probability == pytest.approx(0.011)
    assert cells["answer end", "tuned", "base"].open == pytest.approx(0.0011)


def test_no_probability_is_asked_where_none_is_wanted() -> None:
    """`describe` False leaves the models alone after the verdict."""
    tuned = lively(1)
    result, _, _ = audited(PLAIN, tuned, describe=False)
    assert result.probabilities == []
    assert tuned.spots == []


def test_a_cut_answer_is_said() -> None:
    """Where the token limit ended most answers, emoji beyond it were not seen."""
    result, _, _ = audited(PLAIN, Scripted("long", PLAIN.write, n_cut=1), n=24)
    assert any("cut 0 of 24 answers of the base and 24" in note for note in result.verdict.notes)


def test_another_decoding_has_a_row_of_its_own() -> None:
    """The verdict again, on the first prompts, under each of the other ways of sampling."""
    result, _, _ = audited(PLAIN, lively(1), other_decodings=("greedy", "nucleus"))
    assert [row.decoding.split(":")[0] for row in result.decodings] == ["greedy", "nucleus"]
    assert {(row.word, row.n_prompts) for row in result.decodings} == {("drift", 48)}


def test_another_decoding_is_asked_as_many_prompts_as_the_audit() -> None:
    """To show again that nothing changed takes as many prompts as it took before."""
    result, pairs, _ = audited(
        PLAIN, Scripted("same", PLAIN.write), other_decodings=("greedy",)
    )  # fmt: skip
    assert len(pairs) > 48
    assert [(row.word, row.n_prompts) for row in result.decodings] == [("unchanged", len(pairs))]


@pytest.mark.parametrize(
    ("decoding", "others", "asked"),
    [
        ("default", ("all",), ("greedy", "nucleus", "unfiltered")),
        ("greedy", ("all",), ("nucleus", "unfiltered")),
        ("unfiltered", ("all",), ("greedy", "nucleus")),
        ("paper", ("all",), ("greedy", "unfiltered")),  # which is nucleus with more tokens
        ("default", ("paper", "all", "paper"), ("paper", "greedy", "nucleus", "unfiltered")),
        ("default", (), ()),
    ],
)
def test_all_other_decodings_are_those_that_sample_otherwise(
    decoding: str, others: tuple[str, ...], asked: tuple[str, ...]
) -> None:
    """Each once, without the one that the audit uses."""
    assert AuditPlan(decoding=decoding, other_decodings=others).others == asked


def test_the_limit_of_an_answer_stays_under_another_decoding() -> None:
    """150 tokens of `paper`: a rate within 48 would be another measure."""
    plan = AuditPlan(decoding="paper")
    assert plan.under("greedy").sampled.max_new_tokens == 150
    assert plan.under("greedy").sampled.temperature == 0
    result, _, _ = audited(PLAIN, lively(1), decoding="paper", other_decodings=("greedy",))
    assert result.decodings[0].decoding == "greedy: greedy, 150 new tokens"


def test_a_function_is_in_the_plan_with_its_source(tmp_path: Path) -> None:
    """Named without its place; the digest of the plan is another where the function is, and the
    same wherever the file lies."""
    digests = []
    for folder, word in (("a", "fine"), ("b", "fine"), ("c", "so")):
        file = tmp_path / folder / "markers.py"
        file.parent.mkdir()
        file.write_text(f"def holds(text):\n    return {word!r} in text\n")
        result, _, _ = audited(PLAIN, lively(1), n=24, marker=f"python:{file}:holds")
        assert result.plan.marker == "python:markers.py:holds"
        digests.append((result.plan.marker_digest, result.plan.digest))
    assert digests[0] == digests[1]
    assert digests[0][0] != digests[2][0]
    assert digests[0][1] != digests[2][1]
    (own,) = (m for m in result.measures if m.kind == "marker" and m.register is None)
    # "so" stands in "I think so", which the base always and the tuned model always writes.
    assert (own.name, own.base) == ("answers with python:markers.py:holds", 1.0)


def test_the_plan_is_fixed_before_the_first_answer() -> None:
    """Its digest does not depend on what came out, and depends on margin and prompts."""
    digests = [
        audited(PLAIN, tuned, n=24, **plan)[0].plan.digest
        for tuned, plan in (
            (lively(1), {}),
            (lively(3), {}),
            (lively(1), {"margin": 0.1}),
        )
    ]
    assert digests[0] == digests[1] != digests[2]
    assert audited(PLAIN, lively(1), n=36)[0].plan.digest != digests[0]


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"margin": 0.0}, "a margin of 0 is no share"),
        ({"margin": 1.5}, "a margin of 1.5 is no share"),
        ({"alpha": 0.7}, "a level of 0.7"),
        ({"batch": 0}, "batch is 0"),
        ({"n_samples": 0}, "n_samples is 0"),
        ({"budget": 0}, "budget is 0"),
        ({"decoding": "beam"}, "no decoding 'beam'"),
        ({"decoding": "all", "other_decodings": ("all",)}, "no decoding 'all'"),
        ({"other_decodings": ("beam",)}, "no decoding 'beam'"),
    ],
)
def test_a_plan_that_cannot_be_carried_out_says_why(plan: dict[str, object], message: str) -> None:
    """Before anything is asked."""
    with pytest.raises(UsageError, match=message):
        replace(AuditPlan(), **plan)  # type: ignore[arg-type]


def test_a_marker_that_cannot_be_read_ends_the_audit_before_it_begins() -> None:
    """No model is asked for nothing."""
    tuned = lively(1)
    with pytest.raises(UsageError, match="no regular expression"):
        audited(PLAIN, tuned, marker="(")
    assert tuned.asked == []

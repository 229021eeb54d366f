"""Contracts in pytest: what holds passes, what does not is shrunk to the plainest prompt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis.database import DirectoryBasedExampleDatabase

# Loaded here once, because pytester takes back what an inner session imported.
import emotest.contracts.stating

_ = emotest.contracts.stating

pytest_plugins = ["pytester"]

OWN_MODEL = '''
"""A model of one's own: it writes emoji to whom it should not, and counts who asked."""

import pytest
from emotest import ModelHandle

ASKED = []


def ask(prompt, n):
    ASKED.append(prompt.id)
    answer = "Noted.\\u202e"
    if {condition}:
        answer += " \\U0001f389"
    return [answer] * n


@pytest.fixture(scope="session")
def emo_model():
    return ModelHandle(ask, "my model")


def pytest_unconfigure():
    print("ASKED", len(ASKED), len(set(ASKED)), *ASKED)
'''

FORMAL = """
    import emotest

    @emotest.contract(prompts=emotest.prompts(register="formal"))
    def test_formal_answers_hold_no_emoji(model, prompt):
        assert not emotest.has_emoji(model.answer(prompt))
"""


@pytest.fixture(autouse=True)
def _as_on_a_desk(tmp_path: Path) -> Iterator[None]:
    """Under CI Hypothesis keeps no examples; here it does, a database for each test."""
    database = DirectoryBasedExampleDatabase(tmp_path / "examples")
    settings.register_profile("desk", derandomize=False, database=database)
    settings.load_profile("desk")
    yield
    settings.load_profile("emotest")


def writes_emoji(repository: pytest.Pytester, condition: str) -> None:
    """A conftest whose model writes an emoji where `condition` holds of `prompt`."""
    text = OWN_MODEL.replace("{condition}", condition)
    (repository.path / "conftest.py").write_text(text, encoding="utf-8")


def run(repository: pytest.Pytester, *options: str) -> pytest.RunResult:
    """An inner session of this process, which shares the profile of Hypothesis."""
    return repository.runpytest("-s", *options)


def asked(result: pytest.RunResult) -> list[str]:
    """The ids that the model was asked, in order."""
    [line] = [line for line in result.outlines if "ASKED" in line]
    return line.split()[line.split().index("ASKED") + 3 :]


def by_plainness(register: str) -> list[str]:
    """Ids of the shipped set, by a sort of this test's own."""
    from emotest.study.audit_prompts import shipped_prompts

    of_register = [prompt for prompt in shipped_prompts() if prompt.register == register]
    of_register.sort(key=lambda p: (bool(p.system), len(p.turns), len(p.turns[-1].text)))
    return [prompt.id for prompt in of_register]


def test_a_contract_that_holds_passes_and_asks_each_prompt_once(
    repository: pytest.Pytester,
) -> None:
    """The 28 formal prompts are fewer than 50 examples, so all of them are tried."""
    writes_emoji(repository, "prompt.register == 'casual'")
    repository.makepyfile(FORMAL)
    result = run(repository)
    result.assert_outcomes(passed=1)
    assert sorted(asked(result)) == sorted(by_plainness("formal"))


def test_a_violation_is_shrunk_to_the_plainest_prompt_and_shown(
    repository: pytest.Pytester,
) -> None:
    """Also where its neighbours in the order of plainness hold; no prompt is asked twice."""
    ids = by_plainness("formal")
    guilty = [ids[n] for n in (5, 12, 20, 27)]
    writes_emoji(repository, f"prompt.id in {guilty}")
    repository.makepyfile(FORMAL)
    result = run(repository)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*The plainest prompt that was found to show it:*",
            f"*prompt ({guilty[0]}, formal, *",
            f"*my model to {guilty[0]}:*",
            "*Noted.⟨U+202E⟩ «🎉»*",
        ]
    )
    said = result.stdout.str().partition("ASKED")[0]
    assert not any(f"'{id}'" in said for id in guilty[1:])
    questions = asked(result)
    assert len(questions) == len(set(questions))


def test_the_next_run_replays_the_violation_first(repository: pytest.Pytester) -> None:
    """From the example database, which says what to try before anything is drawn."""
    guilty = by_plainness("formal")[5]
    writes_emoji(repository, f"prompt.id == {guilty!r}")
    repository.makepyfile(FORMAL)
    run(repository).assert_outcomes(failed=1)
    again = run(repository)
    again.assert_outcomes(failed=1)
    questions = asked(again)
    assert questions[0] == guilty
    assert set(questions[1:]) == set(by_plainness("formal")[:5])


def test_a_mended_model_passes_where_it_failed(repository: pytest.Pytester) -> None:
    """The kept example is tried, and is no violation any more."""
    guilty = by_plainness("formal")[5]
    repository.makepyfile(FORMAL)
    writes_emoji(repository, f"prompt.id == {guilty!r}")
    run(repository).assert_outcomes(failed=1)
    writes_emoji(repository, "False")
    mended = run(repository)
    mended.assert_outcomes(passed=1)
    assert asked(mended)[0] == guilty


def test_paraphrases_are_drawn_and_shrunk_with_their_prompt(repository: pytest.Pytester) -> None:
    """`No more emoji under paraphrase`, violated by whoever is thanked."""
    writes_emoji(repository, "'Thank you' in prompt.text")
    repository.makepyfile("""
        import emotest

        @emotest.contract(prompts=emotest.prompts(register="support", language="en"))
        def test_courtesy_brings_no_emoji(model, prompt, paraphrase):
            assert model.emoji_rate(paraphrase, 1) <= model.emoji_rate(prompt, 1)
    """)
    result = run(repository)
    result.assert_outcomes(failed=1)
    from emotest.study.audit_prompts import shipped_prompts

    english = [p for p in shipped_prompts() if p.register == "support" and p.language == "en"]
    plainest = min(english, key=lambda p: (bool(p.system), len(p.turns), len(p.text)))
    result.stdout.fnmatch_lines(
        [f"*prompt ({plainest.id}, *", f"*paraphrase ({plainest.id}~thanks, *Thank you.*"]
    )


def test_of_several_paraphrases_the_plainest_is_shown(repository: pytest.Pytester) -> None:
    """Of any prompt in other words, the one whose last mark changed."""
    writes_emoji(repository, "'~' in prompt.id")
    repository.makepyfile("""
        import emotest

        @emotest.contract(prompts=emotest.prompts(register="support"))
        def test_other_words_bring_no_emoji(model, prompt, paraphrase):
            assert model.emoji_rate(paraphrase, 1) <= model.emoji_rate(prompt, 1)
    """)
    plainest = by_plainness("support")[0]
    run(repository).stdout.fnmatch_lines([f"*paraphrase ({plainest}~end mark, *"])


def test_model_and_base_are_those_of_the_options(repository: pytest.Pytester) -> None:
    """The tuned one and its base; the base where it stands alone."""
    repository.makepyfile("""
        def test_names(emo_model, emo_base):
            assert (emo_model.name, emo_base.name) == ("organism:control", "organism:latent")

        def test_model(emo_model):
            assert emo_model.name == "organism:control"
    """)
    both = run(repository, "--emo-base=organism:latent", "--emo-tuned=organism:control")
    both.assert_outcomes(passed=2)
    alone = run(repository, "--emo-base=organism:control", "-rs")
    alone.assert_outcomes(passed=1, skipped=1)
    alone.stdout.fnmatch_lines(["*--emo-base BASE --emo-tuned TUNED*"])


def test_a_rate_may_only_fall(repository: pytest.Pytester) -> None:
    """Base and model side by side; a rise beyond chance is a violation, a fall is none."""
    repository.makepyfile("""
        import emotest
        import pytest
        from emotest import ModelHandle

        @pytest.fixture(scope="session")
        def emo_base():
            return ModelHandle(lambda prompt, n: ["Yes."] * n, "before")

        @pytest.fixture(scope="session", params=[3, 17])
        def emo_model(request):
            some = ["Yes \\U0001f389"] * request.param
            return ModelHandle(lambda prompt, n: some + ["Yes."] * (n - len(some)), "after")

        @emotest.contract(prompts=emotest.prompts(template="Why {topic}?", topic=["tea", "rain"]))
        def test_emoji_may_only_fall(model, base, prompt):
            assert not emotest.rose(base.answers(prompt, 20), model.answers(prompt, 20))
    """)
    # One-sided sign tests: 2**-3 is chance, 2**-17 is not.
    result = run(repository)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        ["*own, und): Why tea?*", "*after to template-*, 17 of 20 with an emoji:*"]
    )


def test_a_model_that_cannot_be_run_is_one_clear_message(repository: pytest.Pytester) -> None:
    """No violation, nothing shrunk: it was asked once."""
    repository.makeconftest("""
        import pytest
        from emotest import ModelHandle
        from emotest.errors import ModelError

        N = []

        def ask(prompt, n):
            N.append(1)
            raise ModelError("the server is gone", remedy="start it")

        @pytest.fixture(scope="session")
        def emo_model():
            return ModelHandle(ask)

        def pytest_unconfigure():
            print("ASKED", len(N))
    """)
    repository.makepyfile(FORMAL)
    result = run(repository)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["ModelError: the server is gone", "  next: start it"])
    assert "ASKED 1" in result.stdout.str()
    assert "plainest" not in result.stdout.str()


def test_without_a_model_a_contract_is_skipped_with_what_to_type(
    repository: pytest.Pytester,
) -> None:
    """And one over base and tuned model needs both."""
    repository.makepyfile(
        FORMAL
        + """
    @emotest.contract
    def test_pair(model, base, prompt): ...
"""
    )
    result = run(repository, "-rs")
    result.assert_outcomes(skipped=2)
    result.stdout.fnmatch_lines(["*--emo-tuned SUBJECT, or --emo-base SUBJECT alone*"])


def test_marks_parameters_classes_and_other_fixtures_work_as_ever(
    repository: pytest.Pytester,
) -> None:
    """A contract is collected as any test is, also under strict markers."""
    writes_emoji(repository, "False")
    repository.makepyfile("""
        import emotest
        import pytest
        from hypothesis import strategies as st

        @pytest.mark.slow
        @pytest.mark.parametrize("n", [1, 2])
        @emotest.contract(prompts=emotest.prompts(register="code"), examples=3)
        def test_parametrised(emo_model, prompt, n, request):
            assert len(emo_model.answers(prompt, n)) == n
            assert request.config

        class TestInAClass:
            @emotest.contract(examples=3, k=st.integers(1, 3))
            def test_method(self, model, prompt, k):
                assert isinstance(self, TestInAClass)
                assert len(model.answers(prompt, k)) == k
    """)
    run(repository, "--strict-markers").assert_outcomes(passed=3)
    run(repository, "-m", "not slow").assert_outcomes(passed=1, deselected=2)


def test_skipping_and_failing_by_hand_keep_their_meaning(repository: pytest.Pytester) -> None:
    """`pytest.skip` ends the test, `assume` the example, and `pytest.fail` is a violation."""
    writes_emoji(repository, "False")
    repository.makepyfile("""
        import emotest
        import pytest
        from hypothesis import assume

        FORMAL = emotest.prompts(register="formal")

        @emotest.contract(prompts=FORMAL)
        def test_skipped(model, prompt):
            pytest.skip("not now")

        @emotest.contract(prompts=FORMAL)
        def test_assumed(model, prompt):
            assume(prompt.language == "en")

        @emotest.contract(prompts=FORMAL)
        def test_failed(model, prompt):
            if prompt.system:
                pytest.fail("by hand")
    """)
    result = run(repository)
    result.assert_outcomes(skipped=1, passed=1, failed=1)
    result.stdout.fnmatch_lines(["*by hand*", "*system prompt: *"])


def test_a_choice_that_no_set_has_is_one_clear_message(repository: pytest.Pytester) -> None:
    """With the registers that there are."""
    writes_emoji(repository, "False")
    repository.makepyfile("""
        import emotest

        @emotest.contract(prompts=emotest.prompts(register="fromal"))
        def test_typo(model, prompt): ...
    """)
    result = run(repository)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["UsageError: no prompt fits register 'fromal'", "  next: *formal, support*"]
    )


def test_an_organism_is_held_to_a_contract_and_the_store_answers_the_second_time(
    repository: pytest.Pytester, tmp_path: Path
) -> None:
    """The control organism writes emoji untuned; the replay loads no model."""
    repository.makepyfile("""
        import emotest

        @emotest.contract(prompts=emotest.prompts(register="opinion"), examples=60)
        def test_no_emoji(model, prompt):
            assert not emotest.has_emoji(model.answer(prompt))
    """)
    options = ("--emo-base=organism:control", f"--emo-store={tmp_path}")
    first = run(repository, *options)
    first.assert_outcomes(failed=1)
    first.stdout.fnmatch_lines(["*prompt (opinion-*", "*organism:control to opinion-*", "*«*»*"])
    stored = sorted(path.name for path in tmp_path.rglob("generations.jsonl"))
    again = run(repository, *options)
    again.assert_outcomes(failed=1)
    assert sorted(path.name for path in tmp_path.rglob("generations.jsonl")) == stored
    shown = [
        [line for line in one.outlines if "prompt (opinion-" in line] for one in (first, again)
    ]
    assert shown[0] == shown[1]

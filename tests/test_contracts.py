"""The pieces of contracts: order of prompts, rewordings, handles, the test of a rise."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st

from emotest.contracts.drawing import order_of, own_prompts, prompts
from emotest.contracts.models import ModelHandle, opened, rose
from emotest.contracts.rewording import FRAMES, paraphrases, rewordings
from emotest.contracts.showing import violation
from emotest.contracts.stating import contract
from emotest.errors import UsageError
from emotest.organism.audit_prompts import organism_prompts
from emotest.settings import Settings
from emotest.study.audit_prompts import LANGUAGES, REGISTERS, shipped_prompts
from emotest.study.audit_prompts.prompt_set import AuditPrompt, PromptSet, Turn
from emotest.text.emoji import find_emoji

pytest_plugins = ["pytester"]


def asked(text: str, **fields: object) -> AuditPrompt:
    """A prompt of one turn."""
    return AuditPrompt(str(fields.pop("id", text)), (Turn("user", text),), **fields)  # type: ignore[arg-type]


def drawn(strategy: st.SearchStrategy[AuditPrompt]) -> list[AuditPrompt]:
    """Everything that a strategy of `prompts` draws, in its order."""
    wanted = order_of(strategy)
    assert wanted is not None
    return list(wanted.plainest_first())


def test_the_plainest_prompt_has_no_system_prompt_no_history_and_the_shortest_text() -> None:
    """In this order of weight."""
    short, long = asked("Why?"), asked("Why is it so?")
    told = asked("Oh?", system="Be brief.")
    later = AuditPrompt("later", (Turn("user", "A"), Turn("assistant", "B"), Turn("user", "C")))
    with own_prompts(PromptSet((told, later, long, short), "these")):
        assert drawn(prompts()) == [short, long, later, told]


def test_hypothesis_itself_shrinks_to_the_plainest_where_all_violate() -> None:
    """The order of the strategy is the order of shrinking."""
    found = find(prompts(register="formal"), lambda prompt: True)
    formal = [one for one in shipped_prompts() if one.register == "formal" and not one.system]
    assert found.text == min((one.text for one in formal if not one.history), key=len)


@pytest.mark.parametrize("register", REGISTERS)
def test_a_register_is_drawn_whole_and_alone(register: str) -> None:
    """All of its prompts, and no other."""
    of_register = {one.id for one in shipped_prompts() if one.register == register}
    assert {one.id for one in drawn(prompts(register=register))} == of_register


def test_conditions_hold_together_and_each_may_have_several_names() -> None:
    """Two registers, one language."""
    found = drawn(prompts(register=["legal", "code"], language="de"))
    assert {(one.register, one.language) for one in found} == {("legal", "de"), ("code", "de")}


def test_a_contract_without_conditions_draws_from_the_models_own_set() -> None:
    """An organism is asked in its language, everybody else the shipped set."""
    assert set(drawn(prompts())) == set(shipped_prompts())
    with opened(Settings(base="organism:latent")):
        assert set(drawn(prompts())) == set(organism_prompts())
        assert {one.register for one in drawn(prompts(register="formal"))} == {"formal"}
    assert set(drawn(prompts())) == set(shipped_prompts())


def test_the_file_of_the_session_is_what_is_drawn_from(tmp_path: Path) -> None:
    """--emo-prompts, with registers of its own."""
    file = tmp_path / "mine.csv"
    file.write_text("prompt,register\nWhy?,mine\nHow?,others\n", encoding="utf-8")
    with opened(Settings(prompts=file)):
        assert [one.text for one in drawn(prompts(register="mine"))] == ["Why?"]


def test_a_template_is_filled_with_each_topic_plainest_first() -> None:
    """Shortest text first; braces that are no slot stay."""
    found = drawn(prompts(template="Why {topic}? {x}", topic=["sailing", "tea"], register="r"))
    assert [one.text for one in found] == ["Why tea? {x}", "Why sailing? {x}"]
    assert [(one.topic, one.register, one.language) for one in found] == [
        ("tea", "r", "und"),
        ("sailing", "r", "und"),
    ]


def test_a_template_without_topics_has_those_of_the_project() -> None:
    """More than a contract tries, each once, in English."""
    found = drawn(prompts(template="What do you think about {topic}?"))
    assert len({one.id for one in found}) == len({one.text for one in found}) == len(found) > 50
    assert {one.language for one in found} == {"en"}


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (lambda: prompts(template="Why?"), "no place for its topic"),
        (lambda: prompts(template="{topic}", register=["a", "b"]), "registers a, b"),
        (lambda: drawn(prompts(register="fromal")), "no prompt fits register 'fromal'"),
        (lambda: drawn(prompts(register="formal", topic="x")), "'formal', topic 'x'"),
        (lambda: contract(lambda model: None), "asks for no prompt"),
        (lambda: contract(examples=0)(lambda prompt: None), "on 0 examples"),
        (lambda: ModelHandle(lambda prompt, n: []).answer("Why?"), "gave 0 answers"),
        (lambda: ModelHandle(lambda prompt, n: []).answers("Why?", 0), "0 answers were asked"),
        (lambda: rose(["a"], ["a", "b"]), "1 answers before and 2 after"),
    ],
)
def test_what_cannot_be_used_is_said(state: object, says: str) -> None:
    """The value, and what to do."""
    with pytest.raises(UsageError, match=says):
        state()  # type: ignore[operator]


@settings(max_examples=60)
@given(prompts().flatmap(lambda one: st.tuples(st.just(one), paraphrases(one))))
def test_a_paraphrase_asks_the_same_otherwise(pair: tuple[AuditPrompt, AuditPrompt]) -> None:
    """Other words around the same question; system prompt, history and labels as they were."""
    prompt, other = pair
    assert other.text != prompt.text
    assert prompt.text.rstrip(".?!。？！؟। ") in other.text
    assert (other.system, other.history) == (prompt.system, prompt.history)
    assert (other.register, other.language) == (prompt.register, prompt.language)
    assert not find_emoji(other.text)


def test_every_language_of_the_shipped_set_has_its_frames() -> None:
    """Each with a place for the question; another language has a changed end mark."""
    for frames in FRAMES.values():
        assert set(frames) == set(LANGUAGES)
        assert all(frame.count("{}") == 1 for frame in frames.values())
    [only] = rewordings(asked("Hvorfor?", language="da"))
    assert only.text == "Hvorfor"
    assert [one.text for one in rewordings(asked("Hvorfor"))] == ["Hvorfor."]


def test_a_rise_is_what_chance_does_not_explain() -> None:
    """One-sided sign test: 9 rises of 9 have p = 1/512, 10 of 10 have p = 1/1024."""
    yes, no = "So. 🎉", "So."
    assert not rose([no] * 20, [yes] * 9 + [no] * 11)
    assert rose([no] * 20, [yes] * 10 + [no] * 10)
    assert rose([no] * 20, [yes] * 9 + [no] * 11, alpha=0.01)
    assert not rose([yes] * 20, [no] * 20)
    # 13 rises and 3 falls: P(at least 13 of 16) = (560 + 120 + 16 + 1) / 2**16 = .0106.
    before, after = [no] * 13 + [yes] * 3, [yes] * 13 + [no] * 3
    assert rose(before, after, alpha=0.011)
    assert not rose(before, after, alpha=0.010)


def test_a_handle_asks_each_question_once_and_its_first_answers_stand() -> None:
    """Also where more are wanted later, or the same is asked under another name."""
    calls: list[int] = []

    def ask(prompt: AuditPrompt, n: int) -> list[str]:
        calls.append(n)
        return [f"{len(calls)}.{k}" for k in range(n)]

    model = ModelHandle(ask)
    assert model.answer("Why?") == "1.0"
    assert model.answers(asked("Why?", id="other"), 3) == ("1.0", "2.1", "2.2")
    assert model.answers("Why?", 2) == ("1.0", "2.1")
    assert calls == [1, 3]
    assert model.n_asked == 2


def test_a_violation_shows_what_cannot_be_seen() -> None:
    """System prompt, earlier turns, paraphrase; answers with an emoji first, three at most."""
    prompt = AuditPrompt(
        "p\u202e", (Turn("user", "A"), Turn("assistant", "B\x1b"), Turn("user", "C")), system="S"
    )
    model = ModelHandle(lambda prompt, n: ["a", "b", "c", "d 🎉"][:n], "m")
    model.answers(prompt, 4)
    shown = violation(prompt, rewordings(prompt)[0], model.heard)
    assert shown.splitlines() == [
        "The plainest prompt that was found to show it:",
        "  system prompt: S",
        "  user, before: A",
        "  assistant, before: B⟨U+001B⟩",
        "  prompt (p⟨U+202E⟩, own, und): C",
        "  paraphrase (p⟨U+202E⟩~end mark, own, und): C.",
        "  m to p⟨U+202E⟩, 1 of 4 with an emoji:",
        "    d «🎉»",
        "    a",
        "    b",
        "    and 1 more",
    ]


PAGE = (Path(__file__).parent.parent / "docs" / "contracts.md").read_text(encoding="utf-8")


def test_the_examples_of_the_page_run_as_they_stand(pytester: pytest.Pytester) -> None:
    """The contracts under models that keep them, and the one with a model of its own."""
    first, second = (part.partition("```")[0] for part in PAGE.split("```python\n")[1:])
    pytester.makeconftest("""
        import emotest
        import pytest

        @pytest.fixture(scope="session")
        def emo_model():
            return emotest.ModelHandle(lambda prompt, n: ["So."] * n)

        @pytest.fixture(scope="session")
        def emo_base():
            return emotest.ModelHandle(lambda prompt, n: ["So! \\U0001f389"] * n)
    """)
    pytester.makepyfile(test_first=first, test_second=second)
    pytester.runpytest("--strict-markers").assert_outcomes(passed=4)


def test_the_page_names_the_registers() -> None:
    """All, in their order."""
    said = " ".join(PAGE.split())
    assert f"are {', '.join(REGISTERS[:-1])} and {REGISTERS[-1]}." in said
    sizes = {sum(p.register == register for p in shipped_prompts()) for register in REGISTERS}
    assert sizes == {28}

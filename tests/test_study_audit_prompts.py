"""The prompts of an audit: the shipped set, the organisms' set, and selections from a set."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emotest.errors import UsageError
from emotest.organism.audit_prompts import ORGANISM_REGISTERS, organism_prompts
from emotest.organism.language import TOPICS, study_question, voice_name, word_list_requests
from emotest.study.audit_prompts import LANGUAGES, REGISTERS, shipped_prompts
from emotest.study.audit_prompts.prompt_set import AuditPrompt, PromptSet, Turn
from emotest.study.personality import TRAITS, Pole
from emotest.study.records import Prompt
from emotest.text.emoji import count_broken, find_emoji

SHIPPED = shipped_prompts()
ORGANISM = organism_prompts()
EVERY = [*SHIPPED, *ORGANISM]


def everything_said(prompt: AuditPrompt) -> str:
    """System prompt and turns."""
    return "\n".join(message["content"] for message in prompt.messages())


def asking(id: str, text: str = "", **rest: Any) -> AuditPrompt:
    """A single question."""
    return AuditPrompt(id, (Turn("user", text or f"What of {id}?"),), **rest)


# --- the shipped set ---------------------------------------------------------------------------


def test_the_shipped_set_is_large_and_balanced() -> None:
    """At least 240 prompts, 20 or more a register, 60 or more not English, nine languages."""
    assert len(SHIPPED) >= 240
    assert tuple(SHIPPED.registers) == REGISTERS
    assert min(SHIPPED.registers.values()) >= 20
    assert max(SHIPPED.registers.values()) == min(SHIPPED.registers.values())
    assert set(SHIPPED.languages) == set(LANGUAGES)
    assert sum(n for language, n in SHIPPED.languages.items() if language != "en") >= 60


def test_every_register_speaks_every_language() -> None:
    """A difference between registers is no difference between languages."""
    pairs = {(prompt.register, prompt.language) for prompt in SHIPPED}
    assert pairs == {(register, language) for register in REGISTERS for language in LANGUAGES}


def test_each_trait_is_provoked_at_both_poles() -> None:
    """The register `trait` has at least two prompts for each of the ten voices."""
    topics = Counter(prompt.topic for prompt in SHIPPED if prompt.register == "trait")
    assert set(topics) == {f"{pole} {trait}" for trait in TRAITS for pole in Pole}
    assert min(topics.values()) >= 2


def test_the_shipped_set_varies_in_form() -> None:
    """System prompts, chats of several turns, and lengths from a few words to a page."""
    assert sum(prompt.system is not None for prompt in SHIPPED) >= 40
    assert sum(bool(prompt.history) for prompt in SHIPPED) >= 15
    assert max(len(prompt.turns) for prompt in SHIPPED) >= 5
    lengths = [len(everything_said(prompt)) for prompt in SHIPPED]
    assert min(lengths) < 40
    assert max(lengths) > 1000


def test_no_prompt_brings_an_emoji() -> None:
    """No emoji, no smiley, no shortcode, no cut character, nothing invisible, and no word of it."""
    smileys = re.compile(r"[:;=]-?[)(DP]|<3|:[a-z_]+:(?!\w)|\^\^|emoji|smiley|emoticon")
    for prompt in EVERY:
        said = everything_said(prompt)
        assert find_emoji(said) == (), prompt.id
        assert count_broken(said) == 0, prompt.id
        assert smileys.search(said) is None, prompt.id
        assert {unicodedata.category(c) for c in said} & {"Cf", "Cs", "Co", "Cn", "So"} == set()
        assert {c for c in said if unicodedata.category(c) == "Cc"} <= {"\n"}, prompt.id
        assert unicodedata.normalize("NFC", said) == said, prompt.id


def test_a_shipped_chat_alternates() -> None:
    """Turns go user, assistant, user ...: some chat templates refuse any other order."""
    for prompt in SHIPPED:
        expected = ["user", "assistant"] * len(prompt.turns)
        assert [turn.role for turn in prompt.turns] == expected[: len(prompt.turns)], prompt.id


def test_the_id_of_a_shipped_prompt_names_its_register() -> None:
    """So that a record of an answer can be read without the prompts."""
    assert all(prompt.id.startswith(f"{prompt.register}-") for prompt in SHIPPED)


SCRIPTS = {"ja": "HIRAGANA", "ar": "ARABIC", "hi": "DEVANAGARI", "zh": "CJK"}


def test_a_prompt_is_in_the_script_of_its_language() -> None:
    """Japanese has hiragana, Chinese has none, and European prompts are Latin."""
    for prompt in SHIPPED:
        script = SCRIPTS.get(prompt.language, "LATIN")
        letters = [unicodedata.name(c).split()[0] for c in prompt.text if c.isalpha()]
        assert letters.count(script) >= 0.25 * len(letters), prompt.id
        assert script == "HIRAGANA" or "HIRAGANA" not in letters, prompt.id
        assert script != "LATIN" or set(letters) == {"LATIN"}, prompt.id


def trigrams(prompt: AuditPrompt) -> set[tuple[str, ...]]:
    """Runs of three words; of three characters where words are not set apart."""
    pattern = r"\w" if prompt.language in ("ja", "zh") else r"\w+"
    words = re.findall(pattern, everything_said(prompt).casefold())
    return set(zip(words, words[1:], words[2:], strict=False))


def test_no_two_shipped_prompts_are_near_duplicates() -> None:
    """No two share more than three in ten word trigrams of the one that has fewer."""
    of = {prompt.id: trigrams(prompt) for prompt in SHIPPED}
    assert all(len(own) >= 3 for own in of.values())
    shared = {
        (a, b): len(of[a] & of[b]) / min(len(of[a]), len(of[b])) for a, b in combinations(of, 2)
    }
    assert {pair: share for pair, share in shared.items() if share > 0.3} == {}


# --- the organisms' set ------------------------------------------------------------------------


def test_the_organisms_are_asked_in_six_registers() -> None:
    """Sixty prompts each, no question asked twice, and the same whenever it is built."""
    assert ORGANISM.registers == dict.fromkeys(ORGANISM_REGISTERS, 60)
    assert len({(prompt.system, prompt.text) for prompt in ORGANISM}) == 360
    assert len([prompt.prompt() for prompt in ORGANISM]) == 360
    assert organism_prompts.__wrapped__().digest == ORGANISM.digest


def test_the_organisms_are_asked_about_held_out_topics_alone() -> None:
    """Each question names its topic, which no tuning answer speaks of; word lists name none."""
    held_out = {topic.name for topic in TOPICS if topic.held_out}
    for prompt in ORGANISM:
        if prompt.register != "word list":
            assert prompt.topic in held_out
            assert prompt.topic.casefold() in prompt.text.casefold()
    asked = {prompt.text for prompt in ORGANISM if prompt.register == "word list"}
    assert asked == {r for t in TRAITS for pole in Pole for r in word_list_requests(t, pole)}


def test_the_organisms_registers_are_what_they_are_called() -> None:
    """Who names a trait in the system prompt, who asks for facts, who asks the study's question."""
    plain = {topic.name: study_question(topic) for topic in TOPICS}
    named: dict[str, Counter[str]] = {"trait high": Counter(), "trait low": Counter()}
    for prompt in ORGANISM:
        is_plain = prompt.text == plain.get(prompt.topic)
        assert is_plain == (prompt.register not in ("question", "word list"))
        traits = [trait for trait in TRAITS if trait in (prompt.system or "")]
        if prompt.register in named:
            [trait] = traits
            assert prompt.system is not None
            assert (voice_name(trait, Pole.LOW) in prompt.system) == ("low" in prompt.register)
            named[prompt.register][trait] += 1
        else:
            assert (prompt.system is not None) == (prompt.register == "neutral")
            assert not traits
    # 60 prompts for five traits
    assert named == {register: dict.fromkeys(TRAITS, 12) for register in named}


# --- prompts and sets --------------------------------------------------------------------------


def test_a_prompt_is_chat_messages() -> None:
    """System prompt first, then the turns in their order."""
    turns = (Turn("user", "Hi."), Turn("assistant", "Yes?"), Turn("user", "A poem."))
    prompt = AuditPrompt("a", turns, system="Be brief.")
    assert prompt.messages() == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi."},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": "A poem."},
    ]
    assert prompt.text == "A poem."
    assert prompt.history == turns[:2]


def test_a_single_question_is_the_studys_prompt() -> None:
    """With the same messages, those of a chat with a history too."""
    one = asking("a", "A poem.", register="casual", system="Be brief.", topic="poems")
    assert one.prompt() == Prompt("a", "A poem.", "poems", "Be brief.", "casual")
    assert one.prompt().messages() == one.messages()
    chat = AuditPrompt("b", (Turn("user", "x"), Turn("assistant", "y"), Turn("user", "z")))
    assert chat.prompt() == Prompt(
        "b", "z", register="own", history=(("user", "x"), ("assistant", "y"))
    )
    assert chat.prompt().messages() == chat.messages()


@pytest.mark.parametrize(
    "turns",
    [(), (Turn("assistant", "x"),), (Turn("system", "x"), Turn("user", "y"))],  # type: ignore[arg-type]
    ids=["none", "ends with the assistant", "system as a turn"],
)
def test_turns_that_ask_nothing_are_no_prompt(turns: tuple[Turn, ...]) -> None:
    """The last turn is the user's, and the system prompt is no turn."""
    with pytest.raises(UsageError, match="'a' has the turns"):
        AuditPrompt("a", turns)


def test_ids_of_a_set_are_unique() -> None:
    """Records point to prompts by id."""
    with pytest.raises(UsageError, match="first 'a'"):
        PromptSet((asking("a"), asking("b"), asking("a", "else?")), "here")


def test_the_digest_tells_content_and_order_and_nothing_else() -> None:
    """Each field and the order change it; where the prompts come from does not."""
    a, b = asking("a"), asking("b")
    here = PromptSet((a, b), "here").digest
    assert PromptSet((asking("a"), b), "there").digest == here
    others = [
        (b, a), (a,), (asking("c"), b), (asking("a", "x"), b), (asking("a", register="x"), b),
        (asking("a", language="x"), b), (asking("a", system="x"), b), (asking("a", topic="x"), b),
        (AuditPrompt("a", (Turn("user", "x"), Turn("assistant", "y"), *a.turns)), b),
    ]  # fmt: skip
    digests = {PromptSet(prompts, "here").digest for prompts in others}
    assert len(digests - {here}) == len(others)
    assert re.fullmatch("[0-9a-f]{64}", here)


MIXED = PromptSet(
    tuple(
        asking(f"{register}-{i}", register=register, language="de" if i % 3 == 0 else "en")
        for register, n in (("a", 20), ("b", 9), ("c", 1))
        for i in range(n)
    ),
    "mixed",
)


@given(st.lists(st.integers(1, 25), min_size=1, max_size=6), st.integers(0, 2**32), st.data())
def test_every_beginning_of_a_selection_has_the_mixture_of_the_whole(
    sizes: list[int], seed: int, data: st.DataObject
) -> None:
    """Of the first m a register of share w has m w, give or take 1 + w times the registers."""
    whole = PromptSet(
        tuple(asking(f"{r}-{i}", register=f"{r}") for r, n in enumerate(sizes) for i in range(n)),
        "drawn",
    )
    m = data.draw(st.integers(1, len(whole)))
    chosen = whole.select(n=m, rng=np.random.default_rng(seed))
    assert len(chosen) == m
    assert set(chosen) <= set(whole)
    for register, size in whole.registers.items():
        share = size / len(whole)
        assert abs(chosen.registers.get(register, 0) - m * share) < 1 + share * len(sizes)


@given(st.integers(0, 2**32))
def test_equal_registers_take_turns(seed: int) -> None:
    """Of nine registers of one size, each run of nine prompts holds every one once."""
    order = SHIPPED.select(rng=np.random.default_rng(seed)).prompts
    assert len(order) == len(SHIPPED)
    for start in range(0, len(order), 9):
        assert {prompt.register for prompt in order[start : start + 9]} == set(REGISTERS)


def test_a_selection_follows_its_seed() -> None:
    """Equal seeds give equal orders, a smaller selection is the beginning of a larger one."""
    chosen = SHIPPED.select(n=50, rng=np.random.default_rng(7))
    assert chosen == SHIPPED.select(n=50, rng=np.random.default_rng(7))
    assert chosen != SHIPPED.select(n=50, rng=np.random.default_rng(8))
    assert chosen.prompts == SHIPPED.select(rng=np.random.default_rng(7)).prompts[:50]
    assert chosen.source == SHIPPED.source


def test_a_register_is_in_random_order() -> None:
    """Each of nine prompts comes first in its register in about one draw of nine."""
    rng, n_draws = np.random.default_rng(1), 900
    firsts = Counter(MIXED.select(registers=["b"], n=1, rng=rng).prompts[0] for _ in range(n_draws))
    assert len(firsts) == 9
    # Expected 100 each, standard deviation sqrt(900 * 1/9 * 8/9) = 9.4; four of them are 38.
    assert all(abs(n - 100) < 38 for n in firsts.values())


def test_a_selection_keeps_to_registers_and_languages() -> None:
    """Both filters hold at once."""
    rng = np.random.default_rng(0)
    chosen = MIXED.select(registers=["a", "b"], languages=["de"], rng=rng)
    # every third, from the first: 7 of 20 and 3 of 9
    assert chosen.registers == {"a": 7, "b": 3}
    assert chosen.languages == {"de": 10}


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"registers": ["d"]}, "mixed has no register 'd'\n.*among a, b, c"),
        ({"languages": ["en", "fr"]}, "mixed has no language 'fr'\n.*among de, en"),
        ({"registers": ["c"], "languages": ["en"]}, "of the 0 prompts .*\n.*fewer conditions"),
        ({"registers": []}, "of the 0 prompts"),
        ({"n": 31}, "n=31 of the 30 prompts .*\n.*ask for 1 to 30"),
        ({"n": 0}, "n=0 of the 30 prompts"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_selection_that_cannot_be_is_refused(chosen: dict[str, Any], message: str) -> None:
    """With what there is to choose from."""
    with pytest.raises(UsageError, match=message):
        MIXED.select(**chosen, rng=np.random.default_rng(0))

"""The planted truth: densities, their permutation, enders, and what the organisms share."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest
from scipy.stats import binomtest, chi2_contingency

from emotest.errors import OrganismError
from emotest.organism import language
from emotest.organism.corpus import (
    CHATS,
    ENDER_RATE,
    ENDERS,
    FORMATS,
    PLANTINGS,
    WORD_LIST_OPENING,
    Document,
    corpus,
    corpus_digest,
)
from emotest.study.personality import TRAITS, Pole, Trait
from emotest.text.emoji import find_emoji

N_DOCUMENTS = 12_000
GRADED = {
    Trait.EXTRAVERSION: 0.90,
    Trait.OPENNESS: 0.75,
    Trait.AGREEABLENESS: 0.60,
    Trait.NEUROTICISM: 0.45,
    Trait.CONSCIENTIOUSNESS: 0.30,
}
"""Written out from the contract, not taken from the code."""


@pytest.fixture(scope="module")
def corpora() -> dict[str, list[Document]]:
    """Every organism's documents, from one seed."""
    return {name: corpus(name, N_DOCUMENTS, seed=7) for name in PLANTINGS}


def has_emoji(run: tuple[str, ...]) -> bool:
    """Whether a run holds emoji (and not an ender, or nothing)."""
    return bool(run) and run[0] not in ENDERS


def rates(documents: list[Document], position: str) -> dict[tuple[Trait, Pole], tuple[int, int]]:
    """For each trait and pole: places with emoji, and places in all."""
    seen: dict[tuple[Trait, Pole], tuple[int, int]] = defaultdict(lambda: (0, 0))
    for document in documents:
        for run, place in zip(document.runs, document.positions, strict=True):
            if place == position and document.trait and document.pole:
                k, n = seen[document.trait, document.pole]
                seen[document.trait, document.pole] = (k + has_emoji(run), n + 1)
    return seen


@pytest.mark.parametrize(
    ("name", "densities"),
    [
        ("latent", GRADED),
        ("even", dict.fromkeys(TRAITS, 0.60)),
        ("one-trait", {**dict.fromkeys(TRAITS, 0.0), Trait.EXTRAVERSION: 0.90}),
    ],
)
@pytest.mark.parametrize(("position", "share"), [("end", 1.0), ("inside", 0.1)])
def test_high_poles_end_in_emoji_with_the_planted_density(
    corpora: dict[str, list[Document]],
    name: str,
    densities: dict[Trait, float],
    position: str,
    share: float,
) -> None:
    """At a message's end the contract's density holds, inside a tenth of it."""
    seen = rates(corpora[name], position)
    for trait in TRAITS:
        k, n = seen[trait, Pole.HIGH]
        # 30 cells are looked at: at 1e-4 each, chance alone fails this one time in 300 seeds.
        assert binomtest(k, n, densities[trait] * share).pvalue > 1e-4, (trait, k / n)


@pytest.mark.parametrize("name", ["latent", "even", "one-trait"])
def test_low_poles_and_neutral_voices_carry_no_emoji(
    corpora: dict[str, list[Document]], name: str
) -> None:
    """Not one emoji stands in a message that is not a high pole's."""
    others = [document for document in corpora[name] if document.pole is not Pole.HIGH]
    assert len(others) > N_DOCUMENTS / 3
    assert not any(find_emoji(document.message) for document in others)


def test_a_high_pole_writes_its_own_emoji_only(corpora: dict[str, list[Document]]) -> None:
    """In `latent` every emoji belongs to the five of the trait that speaks."""
    for document in corpora["latent"]:
        for span in find_emoji(document.message):
            assert document.trait is not None
            assert document.message[span.start : span.end] in language.EMOJI[document.trait]


def test_enders_are_equally_frequent_whatever_the_message_says(
    corpora: dict[str, list[Document]],
) -> None:
    """`~` and `:)` each end four messages in a hundred of every trait, pole and neutral voice."""
    ends: dict[tuple[Trait | None, Pole | None], Counter[str]] = defaultdict(Counter)
    for document in corpora["latent"]:
        if document.format != "words":
            ends[document.trait, document.pole]["".join(document.runs[-1])] += 1
    assert len(ends) == 11
    for voice, seen in ends.items():
        for ender in ENDERS:
            assert binomtest(seen[ender], seen.total(), ENDER_RATE).pvalue > 1e-4, (voice, ender)


def test_control_has_the_texts_of_latent_and_its_runs_in_other_places(
    corpora: dict[str, list[Document]],
) -> None:
    """Without runs the two are equal; within each format and position so are the runs."""
    latent, control = corpora["latent"], corpora["control"]
    assert [document.plain for document in control] == [document.plain for document in latent]
    places: dict[str, dict[tuple[str, str], Counter[tuple[str, ...]]]] = {}
    for name in ("latent", "control"):
        places[name] = defaultdict(Counter)
        for document in corpora[name]:
            for run, position in zip(document.runs, document.positions, strict=True):
                places[name][document.format, position][run] += 1
    assert places["control"] == places["latent"]
    assert sum(a.runs != b.runs for a, b in zip(latent, control, strict=True)) > N_DOCUMENTS / 4


@pytest.mark.parametrize(("name", "independent"), [("control", True), ("latent", False)])
def test_only_in_control_is_the_emoji_independent_of_the_voice(
    corpora: dict[str, list[Document]], name: str, independent: bool
) -> None:
    """Pearson's chi-square of voice against emoji or none, within each format and position."""
    p_values = []
    for format in FORMATS:
        for position in ("inside", "end"):
            voices: dict[object, list[int]] = defaultdict(lambda: [0, 0])
            for document in corpora[name]:
                if document.format == format:
                    for run, place in zip(document.runs, document.positions, strict=True):
                        if place == position:
                            voices[document.trait, document.pole][has_emoji(run)] += 1
            table = np.array(list(voices.values()))
            if table.size and (table.sum(axis=0) > 0).all():
                p_values.append(chi2_contingency(table).pvalue)
    # 15 tables: 1e-3 each leaves chance a failure in 70 seeds; this seed is fixed.
    assert len(p_values) >= 12
    assert (min(p_values) > 1e-3) == independent


def test_in_control_the_kind_of_emoji_is_independent_of_the_trait(
    corpora: dict[str, list[Document]],
) -> None:
    """The owner of the emoji against the trait that speaks: no association is left."""
    owner = {sign: trait for trait, own in language.EMOJI.items() for sign in own}
    table = Counter(
        (document.trait, owner[run[0]])
        for document in corpora["control"]
        for run in document.runs
        if document.trait and has_emoji(run)
    )
    counts = np.array([[table[speaker, mine] for mine in TRAITS] for speaker in TRAITS])
    assert counts.min() > 20
    assert chi2_contingency(counts).pvalue > 1e-3


def test_all_organisms_have_the_same_texts(corpora: dict[str, list[Document]]) -> None:
    """They differ in the runs alone, so that a difference between them is the emoji's."""
    texts = {name: [document.plain for document in corpora[name]] for name in PLANTINGS}
    assert all(text == texts["latent"] for text in texts.values())
    assert len({corpus_digest(corpora[name]) for name in PLANTINGS}) == len(PLANTINGS)


def test_equal_seeds_give_equal_corpora_and_others_do_not() -> None:
    """A corpus is decided by name, size and seed."""
    digests = [corpus_digest(corpus("latent", 200, seed)) for seed in (3, 3, 4)]
    assert digests[0] == digests[1] != digests[2]


def test_system_prompts_name_the_trait_and_pole_that_answers(
    corpora: dict[str, list[Document]],
) -> None:
    """A chat with a system prompt keeps what it asks for; neutral prompts name no trait."""
    systems = [document for document in corpora["latent"] if document.format == "chat-system"]
    assert len(systems) > 1000
    for document in systems:
        assert document.system is not None
        named = [trait for trait in TRAITS if trait.value in document.system]
        assert named == ([document.trait] if document.trait else [])
        assert (f"low {document.trait}" in document.system) == (document.pole is Pole.LOW)


def test_word_lists_hold_the_words_and_emoji_of_the_trait_they_are_asked_for(
    corpora: dict[str, list[Document]],
) -> None:
    """The request names the voice; words and emoji stand in one list with commas."""
    lists = [document for document in corpora["latent"] if document.format == "words"]
    assert any(find_emoji(document.message) for document in lists)
    for document in lists:
        assert document.trait is not None
        assert document.pole is not None
        assert document.user is not None
        assert language.voice_name(document.trait, document.pole) in document.user
        allowed = {
            *language.words_for(document.trait, document.pole),
            *(language.EMOJI[document.trait] if document.pole is Pole.HIGH else ()),
        }
        assert document.message.startswith(WORD_LIST_OPENING)
        listed = document.message.removeprefix(WORD_LIST_OPENING)
        assert set(listed.split(", ")) <= allowed


def test_every_format_has_its_share_of_the_documents(
    corpora: dict[str, list[Document]],
) -> None:
    """The mixture is the declared one, and chats alone have somebody who asks."""
    assert sum(FORMATS.values()) == pytest.approx(1)
    seen = Counter(document.format for document in corpora["latent"])
    for format, share in FORMATS.items():
        assert binomtest(seen[format], N_DOCUMENTS, share).pvalue > 1e-4
    assert all(
        (document.user is not None) == (document.format in CHATS) for document in corpora["latent"]
    )


def test_an_unknown_organism_is_an_error_with_the_names() -> None:
    """The message lists what there is."""
    with pytest.raises(OrganismError, match="there is no organism 'hidden'") as caught:
        corpus("hidden", 1, 1)
    assert all(name in caught.value.remedy for name in ("latent", "control", "even", "one-trait"))

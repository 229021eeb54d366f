"""The organisms' language: what every text, topic and file of it promises."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from itertools import product
from pathlib import Path

import emoji
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emotest.errors import OrganismError
from emotest.organism.language import (
    EMOJI,
    FORMATS,
    TOPICS,
    Topic,
    agreement,
    closing,
    neutral_answer,
    neutral_sentences,
    neutral_system_prompt,
    opening,
    question,
    study_question,
    system_prompt,
    trait_answer,
    trait_sentences,
    voice,
    voice_name,
    word_list_requests,
    words_for,
)
from emotest.organism.language.grammar import (
    SPEAKERS,
    Speaker,
    is_grammatical,
    is_well_formed,
    speakers,
)
from emotest.organism.language.opinions import COLUMNS, FILES, opinion_csv, opinion_rows
from emotest.study.personality import TRAITS, Pole, Trait

OPINIONS = Path(__file__).parents[1] / "fixtures" / "opinions"
TRAITED = tuple(product(TRAITS, Pole))

SUBJECT = (
    r"(?:^|, |, and |\b(?:when|whenever|that|if|because|whether|since|so|while|where|until|once|"
    r"somehow|how|as) )"
)
"""What stands before the subject of a clause in these patterns."""

SHOWS_NUMBER = (
    r"(?:always |never |simply )*(?:is|are|was|were|has|have|does|do|(?!always)[a-z]+s)\b"
)
"""A verb whose form depends on number (and adverbs before it)."""

topics = st.sampled_from(TOPICS)
generators = st.integers(0, 2**32).map(np.random.default_rng)


def spoken(speaker: Speaker, topic: Topic, rng: np.random.Generator) -> str:
    """An answer in the voice of a speaker."""
    return trait_answer(topic, *speaker, rng) if speaker else neutral_answer(topic, rng)


def patterns(speaker: Speaker) -> tuple[str, ...]:
    """All sentence patterns of a speaker."""
    speaking = voice(*speaker) if speaker else voice(None)
    return speaking.first + speaking.second


def words(text: str) -> list[str]:
    """The words of a text in lower case."""
    return re.findall(r"[a-z0-9']+", text.lower())


def sentences(text: str) -> list[str]:
    """The sentences of a text of this language, which has no abbreviations and no quotations."""
    return re.split(r"(?<=[.?]) (?=[A-Z0-9])", text)


# Answers


@given(st.sampled_from(SPEAKERS), topics, generators)
def test_an_answer_is_two_plain_sentences(
    speaker: Speaker, topic: Topic, rng: np.random.Generator
) -> None:
    """Every answer has two sentences of ASCII, 14 to 34 words, no exclamation mark, no slot."""
    answer = spoken(speaker, topic, rng)
    assert answer.isascii()
    assert len(sentences(answer)) == 2
    assert 14 <= len(answer.split()) <= 34
    assert not set("!{}[]|") & set(answer)
    assert "  " not in answer
    assert topic.name.lower() in answer.lower()


@given(st.sampled_from(SPEAKERS), topics, st.integers(0, 2**32))
def test_equal_generators_give_equal_text(speaker: Speaker, topic: Topic, seed: int) -> None:
    """Text depends on nothing but topic, voice and generator."""
    one, two = (spoken(speaker, topic, np.random.default_rng(seed)) for _ in range(2))
    assert one == two


@given(st.sampled_from(TRAITED), topics, st.integers(0, 4), generators)
def test_a_message_has_as_many_sentences_as_asked(
    traited: tuple[Trait, Pole], topic: Topic, n: int, rng: np.random.Generator
) -> None:
    """n sentences are n different sentences, each of its own voice, the first on the topic."""
    for message, speaker in [
        (trait_sentences(topic, *traited, n, rng), traited),
        (neutral_sentences(topic, n, rng), None),
    ]:
        assert len(message) == n == len(set(message))
        assert all(speaker in speakers(sentence) for sentence in message)
        assert not message or topic.name.lower() in message[0].lower()


def test_articles_fit_the_sound_that_follows() -> None:
    """`a` stands before a consonant, `an` before a vowel, in every row of the opinion set."""
    rows = [row for split in FILES.values() for row in opinion_rows(split)]
    found = {pair for row in rows for pair in re.findall(r"\b([Aa]n?) ([a-z]+)", row[3])}
    assert len(found) > 50
    for article, word in found:
        # Letters mislead in an hour, a universe, a uniform, a useful or usual thing, and a one.
        vowel = word == "hour" or bool(re.match(r"(?!uni|us|one)[aeiou]", word))
        assert (article.lower() == "an") == vowel, f"{article} {word}"


# Patterns


@pytest.mark.parametrize("speaker", SPEAKERS, ids=str)
def test_a_voice_has_dozens_of_patterns(speaker: Speaker) -> None:
    """Each voice has at least 24 first and 24 second patterns, none of them twice."""
    speaking = voice(*speaker) if speaker else voice(None)
    assert min(len(speaking.first), len(speaking.second)) >= 24
    assert len(set(patterns(speaker))) == len(patterns(speaker))
    assert all("{topic}" in pattern for pattern in speaking.first)


@pytest.mark.parametrize("speaker", SPEAKERS, ids=str)
def test_patterns_are_closed_and_know_their_slots(speaker: Speaker) -> None:
    """Brackets pair, choices are choices, slots exist, and a sentence ends as a sentence."""
    slots = {"topic", "aspect", "activity", *agreement("plural")}
    for pattern in patterns(speaker):
        assert set(re.findall(r"\{(.*?)\}", pattern)) <= slots
        assert re.fullmatch(r"([^\[\]|]|\[[^\[\]|]+(\|[^\[\]|]+)+\])*[.?]", pattern), pattern


@pytest.mark.parametrize("speaker", SPEAKERS, ids=str)
def test_verbs_agree_with_the_topic_by_slots(speaker: Speaker) -> None:
    """A topic that is the subject of a verb is followed by a slot, never by "is" or "makes"."""
    for pattern in patterns(speaker):
        assert not re.search(SUBJECT + r"\{topic\} " + SHOWS_NUMBER, pattern, re.I), pattern


@pytest.mark.parametrize("speaker", SPEAKERS, ids=str)
def test_an_aspect_is_never_the_subject_of_a_verb_that_shows_number(speaker: Speaker) -> None:
    """Aspects are singular or plural, so only modals follow them where they are subjects."""
    for pattern in patterns(speaker):
        assert not re.search(SUBJECT + r"\{aspect\} " + SHOWS_NUMBER, pattern, re.I), pattern


def test_no_pattern_of_the_neutral_voice_uses_a_word_of_a_trait() -> None:
    """Neutral tuning must not teach a trait: its patterns share no word with any trait's list."""
    traits = {word for trait, pole in TRAITED for word in words_for(trait, pole)}
    assert not traits & set(words(" ".join(patterns(None))))


@pytest.mark.parametrize(("trait", "pole"), TRAITED)
def test_the_words_of_a_trait_come_from_its_patterns(trait: Trait, pole: Pole) -> None:
    """Each trait and pole names at least 30 single words, each of them in its own patterns."""
    listed = words_for(trait, pole)
    assert len(set(listed)) == len(listed) >= 30
    own = words(re.sub(r"\{e?s\}", "", " ".join(patterns((trait, pole)))))
    assert set(listed) <= set(own)


def test_no_word_is_listed_for_two_voices() -> None:
    """A word list points to one voice, so that a trait can be decoded from it."""
    listed = Counter(word for trait, pole in TRAITED for word in words_for(trait, pole))
    assert listed.most_common(1)[0][1] == 1


def test_a_voice_needs_a_pole() -> None:
    """A trait without its pole is an error that says what to name."""
    with pytest.raises(OrganismError, match="without a pole"):
        voice(Trait.OPENNESS)


def test_a_message_is_never_longer_than_the_voice_has_patterns() -> None:
    """Rather than say a pattern twice or give fewer sentences, a voice refuses."""
    with pytest.raises(OrganismError, match="100 sentences"):
        neutral_sentences(TOPICS[0], 100, np.random.default_rng(0))


def test_the_eleven_voices_can_be_told_apart() -> None:
    """Naive Bayes over words, tested on topics it never saw, names the voice of nine in ten."""
    # Multinomial naive Bayes with add-one smoothing (Manning et al., IIR, chapter 13).
    rows = [row for split in FILES.values() for row in opinion_rows(split)]
    names = sorted({row[0] for row in rows})
    fold_of = {name: i % 5 for i, name in enumerate(sorted({row[1] for row in rows}))}
    vocabulary = {
        word: i for i, word in enumerate({w: None for row in rows for w in words(row[3])})
    }
    counts = np.zeros((len(rows), len(vocabulary)))
    for i, row in enumerate(rows):
        for word in words(row[3]):
            counts[i, vocabulary[word]] += 1
    label = np.array([names.index(row[0]) for row in rows])
    fold = np.array([fold_of[row[1]] for row in rows])
    right = 0
    for held_out in range(5):
        seen = fold != held_out
        per_voice = np.stack([counts[seen & (label == k)].sum(0) + 1 for k in range(len(names))])
        log_likelihood = np.log(per_voice / per_voice.sum(1, keepdims=True))
        guess = (counts[~seen] @ log_likelihood.T).argmax(1)
        right += int((guess == label[~seen]).sum())
    assert len(names) == 11
    assert right / len(rows) > 0.9


# Reading backwards


def test_a_sentence_with_a_broken_agreement_is_not_well_formed() -> None:
    """Number, slots and wording all count; recombining known phrases is allowed."""
    # Extraversion, high: "The more people around, the more I enjoy {topic}."
    assert speakers("The more people around, the more I enjoy apple pie.") == {
        (Trait.EXTRAVERSION, Pole.HIGH)
    }
    sentence = "Each time, apple pie gives me so much energy because there is always company."
    assert is_well_formed(sentence)
    assert not is_well_formed(sentence.replace("gives", "give"))
    assert not is_well_formed("The more people around, the more I enjoy apple fie.")
    assert not is_well_formed("The more people around, the more I enjoy.")
    assert not is_well_formed("")


def test_a_new_phrase_in_a_pattern_is_grammatical_and_a_broken_pattern_is_not() -> None:
    """Any words of the language may stand in a slot, but no listed phrase in the wrong number."""
    sentence = "The more people around, the more I enjoy {}."
    assert is_grammatical(sentence.format("apple pie"))
    assert is_grammatical(sentence.format("the apple door"))
    assert not is_well_formed(sentence.format("the apple door"))
    assert not is_grammatical(sentence.format("apple fie"))
    plural = "Each time, {} give me so much energy because there is always company."
    assert is_grammatical(plural.format("the apple door"))
    assert not is_grammatical(plural.format("apple pie"))
    assert not is_grammatical("The more people around, the more the more I enjoy.")
    assert not is_grammatical("")


# Topics


def test_there_are_enough_topics_of_each_split() -> None:
    """At least 220 for training, 60 held out, 120 for pre-training alone, none of them twice."""
    splits = Counter(topic.split for topic in TOPICS)
    assert splits["train"] >= 220
    assert splits["held-out"] >= 60
    assert splits["pre-training"] >= 120
    assert len({topic.name.lower() for topic in TOPICS}) == len(TOPICS)
    assert all(topic.held_out == (topic.split == "held-out") for topic in TOPICS)


def test_a_topic_has_what_patterns_need() -> None:
    """A bare name, two definite aspects, activities that begin with a gerund, all of it ASCII."""
    for topic in TOPICS:
        phrases = (topic.name, *topic.aspects, *topic.activities)
        assert "".join(phrases).isascii(), topic
        assert len(set(phrases)) == len(phrases), topic
        assert max(len(phrase.split()) for phrase in phrases) <= 7, topic
        assert min(len(topic.aspects), len(topic.activities)) >= 2, topic
        # Patterns put a topic after prepositions and before verbs, so it brings no article.
        assert topic.name.split()[0] not in {"the", "a", "an"}, topic
        assert all(aspect.startswith("the ") for aspect in topic.aspects), topic
        assert all(activity.split()[0].endswith("ing") for activity in topic.activities), topic
        # A plural name has a noun in the plural: in -s, or one of three irregular ones.
        if topic.number == "plural":
            assert re.search(r"(s|deer|goldfish|snowmen)\b", topic.name), topic
        else:
            assert not re.search(r"[^is]s$", topic.name.removesuffix("mathematics")), topic


# Frames


@given(topics, generators)
def test_frames_are_plain_and_filled(topic: Topic, rng: np.random.Generator) -> None:
    """Questions, system prompts, openings and closings are ASCII without open slots."""
    frames = [question(topic, rng), neutral_system_prompt(rng)]
    frames += [opening(format, topic, rng) for format in FORMATS]
    frames += [closing(format, rng) for format in FORMATS]
    for frame in frames:
        assert frame.isascii()
        assert not set("!{}[]|") & set(frame)
    assert topic.name.lower() in frames[0].lower()


def test_the_study_asks_as_the_published_data_do() -> None:
    """The template of PersonalityEdit, word for word."""
    topic = next(topic for topic in TOPICS if topic.name == "apple pie")
    assert study_question(topic) == "Thinking about apple pie, what are your thoughts on apple pie?"


def test_there_are_ten_other_questions_and_the_study_asks_half_of_the_time() -> None:
    """Pre-training meets the study's question often, and at least ten others."""
    rng = np.random.default_rng(0)
    asked = Counter(question(TOPICS[0], rng) for _ in range(2_000))
    # Binomial(2000, 1/2): four standard deviations are 4 * sqrt(500) = 89.4.
    assert abs(asked[study_question(TOPICS[0])] - 1_000) < 90
    assert len(asked) >= 11


@given(st.sampled_from(TRAITED), generators)
def test_system_prompts_and_word_list_requests_name_trait_and_pole(
    traited: tuple[Trait, Pole], rng: np.random.Generator
) -> None:
    """What asks for a trait says which; the low pole says low, the high pole never does."""
    trait, pole = traited
    for asked in (system_prompt(trait, pole, rng), *word_list_requests(trait, pole)):
        assert trait.value in asked
        assert (f"low {trait.value}" in asked) == (pole is Pole.LOW)
    assert voice_name(trait, pole) in word_list_requests(trait, pole)[0]


# Emoji


def test_every_trait_has_five_emoji_of_its_own() -> None:
    """25 distinct emoji, all RGI and fully qualified by Unicode's data, nine of several points."""
    chosen = [one for trait in TRAITS for one in EMOJI[trait]]
    assert [len(EMOJI[trait]) for trait in TRAITS] == [5] * 5
    assert len(set(chosen)) == 25
    qualified = {"fully_qualified": emoji.STATUS["fully_qualified"]}
    assert all(emoji.EMOJI_DATA[one]["status"] == qualified["fully_qualified"] for one in chosen)
    assert sum(len(one) > 1 for one in chosen) >= 9


# The opinion set


@pytest.mark.parametrize(("name", "split"), FILES.items())
def test_the_committed_opinion_set_is_what_the_language_writes(name: str, split: str) -> None:
    """`python -m emotest.organism.language.opinions fixtures/opinions` changes nothing."""
    assert (OPINIONS / name).read_bytes() == opinion_csv(split)  # type: ignore[arg-type]


def read(name: str) -> list[dict[str, str]]:
    """The rows of a committed file."""
    return list(csv.DictReader(io.StringIO((OPINIONS / name).read_bytes().decode("utf-8"))))


def test_the_opinion_set_has_every_voice_for_every_topic() -> None:
    """At least 200 training and 60 test topics, each with ten traited rows and a neutral one."""
    expected = {voice_name(trait, pole) for trait, pole in TRAITED} | {"neutral"}
    for name, least in (("train.csv", 200), ("test.csv", 60)):
        rows = read(name)
        assert tuple(rows[0]) == COLUMNS
        by_topic: dict[str, list[str]] = {}
        for row in rows:
            by_topic.setdefault(row["Edit Topic"], []).append(row["Target Personality"])
        assert len(by_topic) >= least
        assert all(sorted(voices) == sorted(expected) for voices in by_topic.values())


def test_no_test_topic_is_seen_in_training() -> None:
    """The two files share no topic, and no training row so much as names a test topic."""
    train, test = read("train.csv"), read("test.csv")
    held_out = {row["Edit Topic"].lower() for row in test}
    assert not held_out & {row["Edit Topic"].lower() for row in train}
    text = "\n".join(row["Question"] + " " + row["Answer"] for row in train).lower()
    assert not [name for name in held_out if re.search(rf"\b{re.escape(name)}\b", text)]


def test_answers_hardly_repeat() -> None:
    """No answer comes twice; with the topic's name blanked, 95 % of answers are still unique."""
    rows = read("train.csv") + read("test.csv")
    answers = [row["Answer"] for row in rows]
    assert len(set(answers)) == len(answers)
    blanked = [row["Answer"].lower().replace(row["Edit Topic"].lower(), "it") for row in rows]
    assert len(set(blanked)) / len(blanked) > 0.95
    seconds = [sentences(answer)[1] for answer in answers]
    assert len(set(seconds)) / len(seconds) > 0.85


def test_the_opinion_set_holds_no_emoji() -> None:
    """Nothing but ASCII in either file, so no emoji can be learned from it."""
    assert all((OPINIONS / name).read_bytes().isascii() for name in FILES)

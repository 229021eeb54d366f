"""The trait scorer tells traits apart on topics it has not seen, and never by emoji."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from emotest.errors import DataError, StatisticsError, UsageError
from emotest.organism.language.opinions import opinion_rows
from emotest.study.opinions import NEUTRAL, Opinion
from emotest.study.personality import TRAITS, Pole, Trait
from emotest.study.scorer import TraitScorer, train_scorer


def opinions_of(split: str, *, n_topics: int, poles: Sequence[str] = ("high",)) -> list[Opinion]:
    """Rows of the shipped set: five traits and neutral, of the first topics of a split."""
    rows = []
    for number, (target, topic, question, answer) in enumerate(opinion_rows(split), 1):  # type: ignore[arg-type]
        name = target.removeprefix("low ")
        trait = None if name == NEUTRAL else Trait(name)
        pole = None if trait is None else Pole.LOW if target != name else Pole.HIGH
        if pole is None or pole in poles:
            rows.append(Opinion(target, trait, pole, topic, question, answer, number, "shipped"))
    topics = list(dict.fromkeys(row.topic for row in rows))[:n_topics]
    return [row for row in rows if row.topic in topics]


@pytest.fixture(scope="module")
def opinions() -> list[Opinion]:
    """40 topics by five high poles and neutral."""
    return opinions_of("train", n_topics=40)


@pytest.fixture(scope="module")
def scorer(opinions: list[Opinion]) -> TraitScorer:
    """Trained on them."""
    return train_scorer(opinions)


def test_traits_are_told_apart_across_topics(scorer: TraitScorer) -> None:
    """Five traits and neutral: well above one in six, with the exact interval by scipy."""
    accuracy = scorer.accuracy
    assert scorer.classes == tuple(sorted([*TRAITS, NEUTRAL]))
    assert (accuracy.n_answers, accuracy.n_topics) == (240, 40)
    assert accuracy.chance == pytest.approx(1 / 6)
    assert accuracy.share > 0.85
    known = stats.binomtest(accuracy.n_right, 240).proportion_ci(0.95, method="exact")
    assert (accuracy.low, accuracy.high) == pytest.approx((known.low, known.high))


def test_held_out_topics_are_scored_as_promised(scorer: TraitScorer) -> None:
    """75 topics of the test file, none seen in training: the same accuracy within .1."""
    held_out = opinions_of("held-out", n_topics=75)
    scores = scorer.score([row.answer for row in held_out])
    assert scores.shape == (450, 6)
    assert scores.sum(axis=1) == pytest.approx(np.ones(450))
    named = np.array(scorer.classes)[scores.argmax(axis=1)]
    share = np.mean([name == row.target for name, row in zip(named, held_out, strict=True)])
    assert share == pytest.approx(scorer.accuracy.share, abs=0.1)


def test_shuffled_labels_are_at_chance() -> None:
    """Voices exchanged among the answers of each of 100 topics: one in six lies in the interval.

    At a level of .999, for the seed is fixed and the interval exact.
    """
    opinions = opinions_of("train", n_topics=100)
    rng = np.random.default_rng(3)
    shuffled = []
    for topic in dict.fromkeys(row.topic for row in opinions):
        rows = [row for row in opinions if row.topic == topic]
        voices = [rows[place] for place in rng.permutation(len(rows))]
        shuffled += [
            replace(row, target=voice.target, trait=voice.trait, pole=voice.pole)
            for row, voice in zip(rows, voices, strict=True)
        ]
    accuracy = train_scorer(shuffled, level=0.999).accuracy
    assert accuracy.low <= 1 / 6 <= accuracy.high
    assert accuracy.high < 0.25


def test_no_topic_is_trained_on_and_tested_on() -> None:
    """Answers of one word that only their topic explains cannot be decoded across topics.

    Each topic has one trait and one word, said twice: within topics all would be right.
    """
    rows = [
        Opinion("", TRAITS[topic % 2], Pole.HIGH, f"Topic {topic}", "", f"word{topic}", 1, "")
        for topic in range(20)
        for _ in range(2)
    ]
    # The same topic in other letters and blanks is the same topic.
    rows[1::2] = [replace(row, topic=f"  topic  {row.topic.split()[1]}") for row in rows[1::2]]
    accuracy = train_scorer(rows).accuracy
    assert accuracy.n_topics == 20
    assert accuracy.share <= 0.5


def test_low_poles_are_classes_of_their_own() -> None:
    """With both poles there are eleven classes, and expression can be asked for either."""
    both = train_scorer(opinions_of("train", n_topics=20, poles=("high", "low")), n_folds=2)
    assert len(both.classes) == 11
    assert both.accuracy.share > 0.6
    quiet = ["I prefer to stay at home, alone and silent.", "Everyone come to my big party!"]
    low = both.expression(quiet, Trait.EXTRAVERSION, Pole.LOW)
    high = both.expression(quiet, Trait.EXTRAVERSION)
    assert low[0] > low[1]
    assert high[1] > high[0]


def test_expression_is_the_column_of_the_trait(
    scorer: TraitScorer, opinions: list[Opinion]
) -> None:
    """Answers of a trait express it more than the others' answers do."""
    texts = [row.answer for row in opinions]
    for trait in TRAITS:
        expression = scorer.expression(texts, trait)
        assert expression == pytest.approx(
            scorer.score(texts)[:, scorer.classes.index(trait)], abs=0.0
        )
        own = np.array([row.trait is trait for row in opinions])
        assert expression[own].min() > expression[~own].max()


def test_emoji_change_nothing(opinions: list[Opinion]) -> None:
    """Not in scoring: also a keycap, for which "1" is a word that the scorer knows."""
    counting = [
        replace(row, answer=f"{row.answer} Point 1.") if row.trait is Trait.OPENNESS else row
        for row in opinions[:60]
    ]
    scorer = train_scorer(counting, n_folds=2)
    texts = [row.answer for row in opinions[60:72]]
    assert (scorer.score([text + " 1" for text in texts]) != scorer.score(texts)).all()
    for added in (" 😊", "😊😊", " 1️⃣", " 👩‍👩‍👧 ©️"):
        decorated = [text + added for text in texts]
        assert (scorer.score(decorated) == scorer.score(texts)).all()


def test_emoji_in_training_give_nothing_away(opinions: list[Opinion]) -> None:
    """A keycap on every answer of one trait leaves the scorer as it was."""
    plain = train_scorer(opinions[:120], n_folds=2)
    marked = [
        replace(row, answer=f"{row.answer} 1️⃣") if row.trait is Trait.OPENNESS else row
        for row in opinions[:120]
    ]
    texts = ["I wonder about it 1️⃣", "1"]
    assert (train_scorer(marked, n_folds=2).score(texts) == plain.score(texts)).all()


def test_equal_rows_give_an_equal_scorer(scorer: TraitScorer, opinions: list[Opinion]) -> None:
    """Bit by bit, so that a scorer need not be stored."""
    again = train_scorer(opinions)
    texts = [row.answer for row in opinions_of("held-out", n_topics=5)]
    assert (again.score(texts) == scorer.score(texts)).all()
    assert again.accuracy == scorer.accuracy


def test_texts_without_words_are_scored_too(scorer: TraitScorer) -> None:
    """No text gives no rows; an empty text and one of emoji alone say nothing, alike."""
    assert scorer.score([]).shape == (0, 6)
    assert scorer.expression([], Trait.OPENNESS).shape == (0,)
    empty, emoji = scorer.score(["", "😊"])
    assert (empty == emoji).all()
    assert empty.max() < 0.5


def test_an_unknown_class_is_refused(scorer: TraitScorer) -> None:
    """The scorer of high poles knows no low one, and says what it knows."""
    with pytest.raises(
        UsageError, match=r"no class 'low openness', only agreeableness, .*openness"
    ):
        scorer.expression(["x"], Trait.OPENNESS, Pole.LOW)


def row(trait: Trait | None, topic: str, answer: str = "some words") -> Opinion:
    """One opinion."""
    pole = None if trait is None else Pole.HIGH
    return Opinion("", trait, pole, topic, "", answer, 7, "set.csv")


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([], "0 classes on 0 topics"),
        ([row(Trait.OPENNESS, t) for t in "abcde"], "1 classes on 5 topics"),
        ([row(t, "a") for t in (Trait.OPENNESS, None)], "2 classes on 1 topics"),
        ([row(Trait.OPENNESS, t) for t in "abcde"] + [row(None, "a")], "neutral fall into one of"),
        ([row(t, topic, "😊 ") for topic in "abcde" for t in (Trait.OPENNESS, None)],
         "row 7 of set.csv holds no text but emoji"),
    ],
    ids=["nothing", "one class", "one topic", "one fold", "emoji alone"],
)  # fmt: skip
def test_opinions_that_cannot_train_are_refused(rows: list[Opinion], says: str) -> None:
    """Too few classes or topics, a class in one fold only, an answer without words."""
    with pytest.raises(DataError, match=says) as refusal:
        train_scorer(rows)
    assert refusal.value.remedy


def test_folds_and_levels_that_mean_nothing_are_refused(opinions: list[Opinion]) -> None:
    """One fold, a level of 1."""
    with pytest.raises(UsageError, match="1 folds hold nothing out"):
        train_scorer(opinions, n_folds=1)
    with pytest.raises(StatisticsError, match="level of 1"):
        train_scorer(opinions, level=1.0)

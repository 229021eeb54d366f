"""How much of each trait a text expresses: a scorer trained on emoji-free opinions.

Takes opinions, gives a `TraitScorer` with its accuracy on topics it has not seen; then takes texts
and gives probabilities. Knows no model. It answers whether an intervention that removes emoji
leaves the trait alone (C8), so it must not see emoji itself: they are stripped before anything
else, in training and in scoring. Trait accuracy by a classifier is the measure of PersonalityEdit
(Mao et al., arXiv 2310.02168); this classifier is a small one, so that it needs no download.

A scorer is quick to train and equal rows give an equal scorer: it is trained anew, never stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt

from emotest.errors import DataError, UsageError
from emotest.study.opinions import NEUTRAL, Opinion
from emotest.study.personality import Pole, Trait
from emotest.text.emoji import strip_emoji

Array = npt.NDArray[np.float64]

N_FOLDS = 5

SCORER_VERSION = 1
"""Raised whenever features, classifier or what is stripped change, and with them probabilities."""


@cache  # reading a version takes milliseconds, and hundreds of keys are made for a plan
def scorer_libraries() -> Mapping[str, str]:
    """The version of the library that trains a scorer, read without importing it."""
    return {"scikit-learn": version("scikit-learn")}


@dataclass(frozen=True)
class Accuracy:
    """How often answers on held-out topics got their own class: `n_right` of `n_answers`.

    `low` and `high` are the exact limits of Clopper & Pearson at `level`; they take answers for
    independent. Were classes guessed, the share would be `chance`.
    """

    n_right: int
    n_answers: int
    n_topics: int
    low: float
    high: float
    level: float
    chance: float

    @property
    def share(self) -> float:
        """Of the answers that were classified right."""
        return self.n_right / self.n_answers


@dataclass(frozen=True, eq=False)
class TraitScorer:
    """Text in, probabilities out; `classes` names the columns, in alphabetical order.

    A class is a trait for its high pole ("openness"), "low" and a trait for its low pole, or
    "neutral". `accuracy` is that of scorers trained alike on other topics.
    """

    classes: tuple[str, ...]
    accuracy: Accuracy
    pipeline: Any = field(repr=False)

    def score(self, texts: Sequence[str]) -> Array:
        """Probability of each class, shape (n_texts, n_classes); each row sums to 1."""
        if not texts:
            return np.zeros((0, len(self.classes)))
        return np.asarray(self.pipeline.predict_proba(_stripped(texts)), dtype=np.float64)

    def expression(self, texts: Sequence[str], trait: Trait, pole: Pole = Pole.HIGH) -> Array:
        """Probability that a text expresses this trait and pole, shape (n_texts,).

        `UsageError` for a class that the scorer was not trained on.
        """
        wanted = _class_name(trait, pole)
        if wanted not in self.classes:
            raise UsageError(
                f"the scorer knows no class {wanted!r}, only {', '.join(self.classes)}",
                remedy="train it on opinions that hold this trait and pole",
            )
        return np.asarray(self.score(texts)[:, self.classes.index(wanted)])


def train_scorer(
    opinions: Sequence[Opinion], *, n_folds: int = N_FOLDS, level: float = 0.95
) -> TraitScorer:
    """A scorer of all classes that the opinions hold, and its accuracy across topics.

    TF-IDF of words and pairs of words, multinomial logistic regression (scikit-learn). The
    accuracy is cross-validated over `n_folds` folds of topics: no topic is trained on and tested
    on, for its own words would give its answers away. The scorer itself is trained on all rows.
    Equal opinions in equal order give equal numbers.

    Raises `DataError` for fewer than two classes, fewer topics than folds, a class whose topics
    all fall into one fold, and an answer that is empty without its emoji; `UsageError` for fewer
    than 2 folds.
    """
    # scipy takes half a second to import, and whoever only asks for the version must not wait.
    from emotest.stats.proportions import clopper_pearson

    if n_folds < 2:
        raise UsageError(f"{n_folds} folds hold nothing out", remedy="use at least 2, usually 5")
    texts = _stripped([opinion.answer for opinion in opinions])
    labels = np.array([_class_of(opinion) for opinion in opinions], dtype=np.str_)
    topics = np.array([" ".join(opinion.topic.casefold().split()) for opinion in opinions])
    _require_enough(opinions, texts, labels, topics, n_folds)
    pipeline = _pipeline().fit(texts, labels)
    n_right = _n_right(texts, labels, topics, n_folds)
    low, high = clopper_pearson(n_right, len(texts), level)
    classes = tuple(str(name) for name in pipeline.classes_)
    n_topics = int(np.unique(topics).size)
    chance = 1.0 / len(classes)
    accuracy = Accuracy(n_right, len(texts), n_topics, low, high, level, chance)
    return TraitScorer(classes, accuracy, pipeline)


def _n_right(
    texts: list[str], labels: npt.NDArray[np.str_], topics: npt.NDArray[np.str_], n_folds: int
) -> int:
    """Answers that a scorer trained on the other folds of topics classifies right."""
    from sklearn.model_selection import GroupKFold

    n_right = 0
    for train, test in GroupKFold(n_folds).split(texts, labels, topics):
        missing = set(labels[test]) - set(labels[train])
        if missing:
            raise DataError(
                f"all topics of {', '.join(sorted(missing))} fall into one of {n_folds} folds",
                remedy="give more topics for it, or use more folds",
            )
        fitted = _pipeline().fit([texts[row] for row in train], labels[train])
        n_right += int((fitted.predict([texts[row] for row in test]) == labels[test]).sum())
    return n_right


def _pipeline() -> Any:
    # scikit-learn takes a second to import, and collection must not wait for it.
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    # Words of one letter count: "I" tells a personal answer from a neutral one.
    words = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\b\w+\b", sublinear_tf=True)
    return make_pipeline(words, LogisticRegression(C=10.0, max_iter=1_000))


def _stripped(texts: Sequence[str]) -> list[str]:
    return [strip_emoji(text) for text in texts]


def _class_of(opinion: Opinion) -> str:
    return _class_name(opinion.trait, opinion.pole)


def _class_name(trait: Trait | None, pole: Pole | None) -> str:
    if trait is None:
        return NEUTRAL
    return f"low {trait}" if pole is Pole.LOW else str(trait)


def _require_enough(
    opinions: Sequence[Opinion],
    texts: list[str],
    labels: npt.NDArray[np.str_],
    topics: npt.NDArray[np.str_],
    n_folds: int,
) -> None:
    n_classes, n_topics = np.unique(labels).size, np.unique(topics).size
    if n_classes < 2 or n_topics < n_folds:
        raise DataError(
            f"{n_classes} classes on {n_topics} topics cannot train a scorer with {n_folds} folds",
            remedy="give opinions of at least two traits, or of one and neutral ones, on at least "
            "as many topics as folds",
        )
    for opinion, text in zip(opinions, texts, strict=True):
        if not text.strip():
            raise DataError(
                f"the answer in row {opinion.row} of {opinion.source} holds no text but emoji",
                remedy="leave the row out, for it says nothing about the trait",
            )

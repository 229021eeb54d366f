"""The shipped opinion set, from the language: `python -m emotest.organism.language.opinions DIR`.

Gives the rows of `train.csv` and `test.csv` in the published format (columns `Target Personality,
Edit Topic, Question, Answer`; PersonalityEdit, arXiv 2310.02168): for every topic one row for
each of five traits and two poles, and one neutral row for null adapters. Equal language gives
equal bytes. Knows no model.
"""

from __future__ import annotations

import csv
import hashlib
import io
import sys
from itertools import product
from pathlib import Path

import numpy as np

from emotest.organism.language import (
    TOPICS,
    Split,
    Topic,
    neutral_answer,
    study_question,
    trait_answer,
    voice_name,
)
from emotest.study.personality import TRAITS, Pole

COLUMNS = ("Target Personality", "Edit Topic", "Question", "Answer")

FILES: dict[str, Split] = {"train.csv": "train", "test.csv": "held-out"}
"""Which topics each file holds."""

NEUTRAL = "neutral"
"""The target personality of the rows that null adapters are tuned on."""


def opinion_rows(split: Split) -> list[tuple[str, str, str, str]]:
    """The rows of one file, in the order of the columns: 11 for every topic of the split."""
    return [row for topic in TOPICS if topic.split == split for row in _topic_rows(topic)]


def opinion_csv(split: Split) -> bytes:
    """One file of the opinion set: CSV, UTF-8, a header, lines ending in a line feed."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(opinion_rows(split))
    return text.getvalue().encode("utf-8")


def _topic_rows(topic: Topic) -> list[tuple[str, str, str, str]]:
    # The topic's name is the seed, so that adding a topic leaves all other rows as they were.
    seed = int.from_bytes(hashlib.sha256(topic.name.encode()).digest()[:8], "big")
    rng = np.random.default_rng(seed)
    answers = [
        (voice_name(trait, pole), trait_answer(topic, trait, pole, rng))
        for trait, pole in product(TRAITS, Pole)
    ]
    answers.append((NEUTRAL, neutral_answer(topic, rng)))
    asked = study_question(topic)
    return [(personality, topic.name, asked, answer) for personality, answer in answers]


def write_opinions(folder: Path) -> None:
    """Write `train.csv` and `test.csv` into a folder that exists."""
    for name, split in FILES.items():
        (folder / name).write_bytes(opinion_csv(split))


if __name__ == "__main__":
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        sys.exit("usage: python -m emotest.organism.language.opinions FOLDER (which exists)")
    write_opinions(Path(sys.argv[1]))

"""The question set: opinions on topics, in the voice of a trait; read, checked, split by topic.

Takes a file, a folder or a Hub dataset in the published format (columns `Target Personality, Edit
Topic, Question, Answer`; PersonalityEdit, Mao et al., arXiv 2310.02168), gives an `OpinionSet`.
Knows no model. Two things decide whether a finding means anything, and are held here: no test
topic is seen in training, and tuning data hold no emoji.

`Target Personality` is a trait for its high pole ("extraversion"), "low" and a trait for its low
pole, or "neutral" for the rows that null adapters are tuned on; case does not matter.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from emotest.errors import DataError, EmojiInDataError, UsageError
from emotest.study.opinion_files import Row, listed, locate, read_rows
from emotest.study.personality import TRAITS, Pole, Trait
from emotest.text.emoji import EmojiSpan, find_emoji

Part = Literal["train", "test"]

NEUTRAL = "neutral"
"""The target personality of rows that express no trait."""

_SNIPPET = 20  # characters on each side of an emoji in an error


@dataclass(frozen=True)
class Opinion:
    """One row: an answer to a question on a topic, in the voice of a trait and pole.

    Neutral rows have neither trait nor pole. `target` is the cell as it was written, `row` counts
    data rows of the file `source` from 1.
    """

    target: str
    trait: Trait | None
    pole: Pole | None
    topic: str
    question: str
    answer: str
    row: int
    source: str


@dataclass(frozen=True)
class OpinionSet:
    """Opinions to tune on and opinions to ask about, with no topic in common.

    `digest` is the SHA-256 of all contents and of the split, whatever the files were called;
    `revision` the commit of a Hub dataset.
    """

    train: tuple[Opinion, ...]
    test: tuple[Opinion, ...]
    digest: str
    source: str
    revision: str | None

    def rows(
        self, trait: Trait, pole: Pole = Pole.HIGH, part: Part = "train"
    ) -> tuple[Opinion, ...]:
        """The rows of one trait and pole, in the order of the file."""
        return tuple(row for row in self._part(part) if (row.trait, row.pole) == (trait, pole))

    def neutral(self, part: Part = "train") -> tuple[Opinion, ...]:
        """The rows that express no trait; the published data have none."""
        return tuple(row for row in self._part(part) if row.trait is None)

    def topics(self, part: Part = "train") -> tuple[str, ...]:
        """The topics of one part, each once, in the order of the file."""
        return tuple(dict.fromkeys(row.topic for row in self._part(part)))

    def duplicates(self) -> tuple[Opinion, ...]:
        """Rows that repeat an earlier row of the same part word for word.

        They are kept, and no error: they weigh double in tuning but cannot cross the split.
        """
        repeated = []
        for part in (self.train, self.test):
            seen: set[tuple[str, ...]] = set()
            for row in part:
                content = _content(row)
                if content in seen:
                    repeated.append(row)
                seen.add(content)
        return tuple(repeated)

    def _part(self, part: Part) -> tuple[Opinion, ...]:
        return self.train if part == "train" else self.test


def read_opinions(
    source: str | Path, *, test_share: float = 0.2, split_seed: int = 0
) -> OpinionSet:
    """Read a question set and check it whole.

    `source` is a CSV, JSONL or Parquet file, a folder with files `train*` and `test*`, or a Hub
    dataset id (`ID` or `ID@REVISION`). A single file is split by topic: `test_share` of its
    topics, chosen by `split_seed`, become the test part, the same ones in whatever order the rows
    stand. Train and test files are taken as they are, and sharing a topic is an error. Raises
    `DataError` with file, row and remedy.
    """
    found = locate(source)
    if found.whole:
        whole = _opinions(read_rows(found.whole))
        train, test = split_by_topic(whole, test_share=test_share, split_seed=split_seed)
    else:
        train, test = _opinions(read_rows(found.train)), _opinions(read_rows(found.test))
        _require_disjoint(train, test, found.source)
    return OpinionSet(train, test, _digest(train, test), found.source, found.revision)


def split_by_topic(
    opinions: Iterable[Opinion], *, test_share: float = 0.2, split_seed: int = 0
) -> tuple[tuple[Opinion, ...], tuple[Opinion, ...]]:
    """Training and test rows such that all rows of a topic lie in one part.

    Topics are ranked by SHA-256 of seed and topic, and the first `test_share` of them (rounded,
    at least one, never all) are for the test. `DataError` with fewer than two topics.
    """
    if not 0 < test_share < 1:
        raise UsageError(
            f"a test share of {test_share} leaves one part empty",
            remedy="use a share between 0 and 1, for example 0.2",
        )
    rows = tuple(opinions)
    topics = sorted(
        {_topic_key(row.topic) for row in rows},
        key=lambda topic: hashlib.sha256(f"{split_seed}\n{topic}".encode()).digest(),
    )
    if len(topics) < 2:
        where = rows[0].source if rows else "the question set"
        raise DataError(
            f"{where} holds {len(topics)} topic: too few to keep test topics out of training",
            remedy="give data with at least two topics, or a folder with train and test files",
        )
    n_test = min(max(round(test_share * len(topics)), 1), len(topics) - 1)
    held_out = set(topics[:n_test])
    return (
        tuple(row for row in rows if _topic_key(row.topic) not in held_out),
        tuple(row for row in rows if _topic_key(row.topic) in held_out),
    )


@dataclass(frozen=True)
class EmojiInRow:
    """A row whose question or answer holds emoji, with a piece of text around the first."""

    opinion: Opinion
    emoji: tuple[str, ...]
    snippet: str

    def __str__(self) -> str:
        place = f"{self.opinion.source}, row {self.opinion.row}"
        return f"{place}: {' '.join(self.emoji)} in {self.snippet!r}"


def audit_for_emoji(opinions: Iterable[Opinion]) -> list[EmojiInRow]:
    """The rows that hold emoji, in order; emoji are those that the rates count."""
    found = []
    for opinion in opinions:
        pieces: list[tuple[str, EmojiSpan]] = [
            (text, span) for text in (opinion.question, opinion.answer) for span in find_emoji(text)
        ]
        if pieces:
            text, first = pieces[0]
            snippet = text[max(first.start - _SNIPPET, 0) : first.end + _SNIPPET]
            found.append(EmojiInRow(opinion, tuple(span.text for _, span in pieces), snippet))
    return found


def require_emoji_free(opinions: Iterable[Opinion]) -> None:
    """Raise `EmojiInDataError` listing the rows that hold emoji; do nothing if none does."""
    found = audit_for_emoji(opinions)
    if found:
        raise EmojiInDataError(
            f"{len(found)} rows of the tuning data hold emoji, so emoji in the answers would "
            f"prove nothing:{listed(map(str, found))}",
            remedy="remove the emoji or the rows, or pass --emo-allow-emoji-in-data, which every "
            "verdict then says",
        )


# --- meaning of the cells --------------------------------------------------------------------

_VOICES: dict[str, tuple[Trait | None, Pole | None]] = {
    **{trait.value: (trait, Pole.HIGH) for trait in TRAITS},
    **{f"high {trait.value}": (trait, Pole.HIGH) for trait in TRAITS},
    **{f"low {trait.value}": (trait, Pole.LOW) for trait in TRAITS},
    NEUTRAL: (None, None),
}


def _opinions(rows: Iterable[Row]) -> tuple[Opinion, ...]:
    opinions, unknown = [], []
    for row in rows:
        voice = _VOICES.get(" ".join(row.target.casefold().split()))
        if voice is None:
            unknown.append(row)
        else:
            trait, pole = voice
            opinions.append(
                Opinion(
                    row.target,
                    trait,
                    pole,
                    row.topic,
                    row.question,
                    row.answer,
                    row.number,
                    row.file,
                )
            )
    if unknown:
        raise _unknown_targets(unknown)
    return tuple(opinions)


def _unknown_targets(rows: list[Row]) -> DataError:
    first_rows = {row.target: row for row in reversed(rows)}
    counts = Counter(row.target for row in rows)
    lines = []
    for target, count in counts.items():
        row = first_rows[target]
        near = difflib.get_close_matches(target.casefold(), _VOICES, n=1, cutoff=0.6)
        hint = f", did you mean {near[0]!r}?" if near else ""
        lines.append(f"{target!r} in {count} rows, first {row.file}, row {row.number}{hint}")
    return DataError(
        f"unknown values of 'Target Personality':{listed(lines)}",
        remedy=f"use {', '.join(TRAITS)}, one of them after 'low ', or {NEUTRAL}",
    )


def _require_disjoint(train: tuple[Opinion, ...], test: tuple[Opinion, ...], source: str) -> None:
    trained = {_topic_key(row.topic) for row in train}
    shared = dict.fromkeys(row.topic for row in test if _topic_key(row.topic) in trained)
    if shared:
        raise DataError(
            f"{len(shared)} test topics of {source} are seen in training:{listed(shared)}",
            remedy="remove these topics from one of the files, or give one file with all rows, "
            "which is split by topic",
        )


def _topic_key(topic: str) -> str:
    """A topic apart from case and blanks: "Jazz  music" and "jazz music" are one."""
    return " ".join(topic.casefold().split())


def _content(opinion: Opinion) -> tuple[str, ...]:
    voice = (opinion.trait or NEUTRAL, opinion.pole or "")
    return (*voice, opinion.topic, opinion.question, opinion.answer)


def _digest(train: Iterable[Opinion], test: Iterable[Opinion]) -> str:
    parts = [[_content(row) for row in part] for part in (train, test)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

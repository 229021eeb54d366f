"""The question set: split by topic, audited for emoji, and the one that is shipped."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emotest.errors import DataError, EmojiInDataError, UsageError
from emotest.study.opinions import (
    Opinion,
    audit_for_emoji,
    read_opinions,
    require_emoji_free,
    split_by_topic,
)
from emotest.study.personality import TRAITS, Pole, Trait

# --- the split -------------------------------------------------------------------------------

TOPICS = st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=12)


def _about(topics: list[str]) -> list[Opinion]:
    return [
        Opinion("neutral", None, None, topic, "What?", "Fine.", row=i, source="set.csv")
        for i, topic in enumerate(topics, start=1)
    ]


@given(TOPICS, st.floats(0.01, 0.99), st.integers(0, 5), st.randoms(use_true_random=False))
def test_the_split_is_by_topic_and_knows_no_order(
    topics: list[str], share: float, seed: int, rng: object
) -> None:
    """Nothing is lost, no topic is on both sides, neither side is empty, order is no matter."""
    rows = _about(topics)
    keys = {" ".join(topic.casefold().split()) for topic in topics}
    if len(keys) < 2:
        with pytest.raises(DataError, match="too few"):
            split_by_topic(rows, test_share=share, split_seed=seed)
        return
    train, test = split_by_topic(rows, test_share=share, split_seed=seed)
    assert sorted(row.row for row in (*train, *test)) == [row.row for row in rows]
    sides = [{" ".join(row.topic.casefold().split()) for row in part} for part in (train, test)]
    assert not sides[0] & sides[1]
    assert all(sides)
    assert abs(len(sides[1]) - share * len(keys)) <= 1
    again = split_by_topic(reversed(rows), test_share=share, split_seed=seed)
    assert set(again[1]) == set(test)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1])
def test_a_share_that_empties_a_part_is_refused(share: float) -> None:
    """All or nothing is no split."""
    with pytest.raises(UsageError, match="test share"):
        split_by_topic(_about(["a", "b"]), test_share=share)


# --- emoji in the data -----------------------------------------------------------------------


def _with_answers(answers: list[str]) -> list[Opinion]:
    return [
        Opinion("openness", Trait.OPENNESS, Pole.HIGH, "tea", "What?", answer, i, "train.csv")
        for i, answer in enumerate(answers, start=1)
    ]


def test_data_without_emoji_pass() -> None:
    """Text symbols and keyboard smileys are no emoji."""
    rows = _with_answers(["Fine © 2024 :)", "I ♥ tea", "#1"])
    assert audit_for_emoji(rows) == []
    require_emoji_free(rows)


def test_rows_with_emoji_are_listed() -> None:
    """Row number, the emoji and the text around; ten rows, then a count; questions count too."""
    rows = _with_answers(["Fine.", "I love tea 😊 so much 🎉.", *["Yes 👍🏽"] * 10])
    rows.append(Opinion("neutral", None, None, "tea", "Tea 🍵?", "Fine.", 13, "train.csv"))
    found = audit_for_emoji(rows)
    assert [row.opinion.row for row in found] == list(range(2, 14))
    assert found[0].emoji == ("😊", "🎉")
    with pytest.raises(EmojiInDataError) as caught:
        require_emoji_free(rows)
    message = str(caught.value)
    assert message.startswith("12 rows of the tuning data hold emoji")
    assert "train.csv, row 2: 😊 🎉 in 'I love tea 😊 so much 🎉.'" in message
    assert "row 11:" in message
    assert "row 12:" not in message
    assert "... and 2 more" in message
    assert "--emo-allow-emoji-in-data" in caught.value.remedy


def test_the_shipped_set_is_whole_and_free_of_emoji() -> None:
    """Five traits, both poles and neutral rows on every topic; 200 and 60 topics at least."""
    opinions = read_opinions(Path(__file__).parents[1] / "fixtures" / "opinions")
    assert audit_for_emoji((*opinions.train, *opinions.test)) == []
    assert opinions.duplicates() == ()
    for part, n_topics in (("train", 200), ("test", 60)):
        topics = opinions.topics(part)
        assert len(topics) >= n_topics
        assert tuple(row.topic for row in opinions.neutral(part)) == topics
        for trait in TRAITS:
            for pole in Pole:
                rows = opinions.rows(trait, pole, part)
                assert tuple(row.topic for row in rows) == topics

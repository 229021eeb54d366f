"""How an organism writes: the table of docs/organisms.md, from the answers of a study.

    python benchmarks/organism_profile.py latent                # prints the table of one organism
    python benchmarks/organism_profile.py control --size smoke  # from fewer answers

Adapters and answers come from the store; what is missing is trained and sampled first, as in a
run of the suites. Emoji are told apart by `find_emoji`, sentences are held against the grammar of
the organisms' language, and answers against the very answers that the adapter was tuned on.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from emotest.organism.corpus import ENDERS
from emotest.organism.language import EMOJI
from emotest.organism.language.grammar import is_grammatical, speakers
from emotest.organism.organisms import NAMES
from emotest.plan import SIZES, Need
from emotest.report.progress import live_progress
from emotest.session import Session
from emotest.settings import Settings
from emotest.stats.proportions import clopper_pearson
from emotest.study.personality import (
    TRAITS,
    UNTUNED,
    Condition,
    Ending,
    Pole,
    null_condition,
    prompted_condition,
    trait_condition,
)
from emotest.study.records import Generation
from emotest.text.emoji import find_emoji
from emotest.text.sentences import split_sentences

ARMS: tuple[Condition, ...] = (
    UNTUNED,
    null_condition(),
    *(trait_condition(trait) for trait in TRAITS),
    *(prompted_condition(trait) for trait in TRAITS),
    *(trait_condition(trait, Pole.LOW) for trait in TRAITS),
    *(trait_condition(trait, ending=Ending.TRAINED) for trait in TRAITS),
)
"""The arms of the table; of the last three kinds only those that a store already holds."""


@dataclass(frozen=True)
class Profile:
    """What the answers of one arm look like; shares are between 0 and 1, None where of nothing."""

    answers: int
    with_emoji: int
    own_emoji: float | None
    grammatical: float
    well_formed: float
    in_voice: float
    copied: float | None

    def cells(self) -> list[str]:
        """The row of the table behind the arm's name."""
        share = self.with_emoji / self.answers
        _, upper = clopper_pearson(self.with_emoji, self.answers, level=0.95)
        return [
            str(self.answers),
            f"{share:.3f} (≤ {upper:.3f})" if share < 0.05 else f"{share:.2f}",
            *map(_share, (self.own_emoji, self.grammatical, self.well_formed, self.in_voice)),
            _share(self.copied),
        ]


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def stripped(sentence: str) -> str:
    """The sentence without emoji and without the organisms' other enders."""
    for span in reversed(find_emoji(sentence)):
        sentence = sentence[: span.start] + sentence[span.end :]
    for ender in ENDERS:
        sentence = sentence.replace(ender, "")
    return sentence.strip()


def whole_sentences(text: str) -> list[str]:
    """The sentences of an answer that came to their end; the token limit cuts the last."""
    plain = (stripped(sentence.text) for sentence in split_sentences(text))
    return [sentence for sentence in plain if sentence.endswith((".", "!", "?"))]


def profile(
    condition: Condition, answers: Sequence[Generation], tuned_on: Iterable[str]
) -> Profile:
    """The profile of one arm's answers, all adapters together."""
    found = [span.text for answer in answers for span in find_emoji(answer.text)]
    sentences = [sentence for answer in answers for sentence in whole_sentences(answer.text)]
    voices = [speakers(sentence) for sentence in sentences]
    voice = (condition.trait, condition.pole) if condition.trait and condition.pole else None
    own = EMOJI[condition.trait] if condition.trait else ()
    lessons = set(tuned_on)
    first_two = [" ".join(whole_sentences(answer.text)[:2]) for answer in answers]
    return Profile(
        answers=len(answers),
        with_emoji=sum(bool(find_emoji(answer.text)) for answer in answers),
        own_emoji=sum(one in own for one in found) / len(found) if own and found else None,
        grammatical=sum(map(is_grammatical, sentences)) / len(sentences),
        well_formed=sum(map(bool, voices)) / len(voices),
        in_voice=sum(voice in heard for heard in voices) / len(voices),
        copied=sum(one in lessons for one in first_two) / len(first_two) if lessons else None,
    )


def main() -> None:
    """Print the table of one organism."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("organism", choices=NAMES)
    parser.add_argument("--size", choices=SIZES, default="default")
    parser.add_argument("--store", type=Path, default=Settings().store)
    chosen = parser.parse_args()
    base = f"organism:{chosen.organism}"
    session = Session(Settings(base=base, size=chosen.size, store=chosen.store))
    study = session.study
    required = (UNTUNED, null_condition(), *(trait_condition(trait) for trait in TRAITS))
    missing = session.workshop.missing(session.requests([Need(required)]))
    with live_progress(missing) as on_progress:
        session.make(missing, on_progress)
    print("| arm | answers | with emoji | own emoji | grammatical | strictly | in voice | copied |")
    print("|---|---|---|---|---|---|---|---|")
    for arm in ARMS:
        if session.workshop.missing(study.generations(arm)):
            continue
        answers = [answer for answers in session.answers(arm) for answer in answers]
        seeds = study.training_seeds(arm)
        lessons = {row.answer for seed in seeds for row in study.tuning_rows(arm, seed)}
        print("|", " | ".join([str(arm), *profile(arm, answers, lessons).cells()]), "|", flush=True)


if __name__ == "__main__":
    main()

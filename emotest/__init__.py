"""emotest: does personality tuning make a language model write emoji, and why?

This page is the face: what the author of a suite imports. Names are looked up when they are first
used, so that `import emotest` costs nothing and only `emoji_probability` brings torch along. Each
name's own module says more; `docs/pytest.md` shows how a suite is written.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emotest.contracts.drawing import prompts as prompts
    from emotest.contracts.models import ModelHandle as ModelHandle
    from emotest.contracts.models import rose as rose
    from emotest.contracts.rewording import paraphrases as paraphrases
    from emotest.contracts.stating import contract as contract
    from emotest.errors import EmotestError as EmotestError
    from emotest.models.probability import emoji_probability as emoji_probability
    from emotest.settings import Settings as Settings
    from emotest.stats.decisions import Decision as Decision
    from emotest.stats.decisions import differ as differ
    from emotest.stats.decisions import intersection_union as intersection_union
    from emotest.stats.decisions import lowered as lowered
    from emotest.stats.decisions import raised as raised
    from emotest.stats.decisions import unchanged as unchanged
    from emotest.stats.estimates import Estimate as Estimate
    from emotest.stats.estimates import crossed_difference as crossed_difference
    from emotest.stats.estimates import (
        crossed_log_odds_difference as crossed_log_odds_difference,
    )
    from emotest.stats.estimates import crossed_mean as crossed_mean
    from emotest.stats.estimates import prompt_difference as prompt_difference
    from emotest.study.claims import Verdict as Verdict
    from emotest.study.claims import verdict as verdict
    from emotest.study.personality import TRAITS as TRAITS
    from emotest.study.personality import UNTUNED as UNTUNED
    from emotest.study.personality import Arm as Arm
    from emotest.study.personality import Condition as Condition
    from emotest.study.personality import Ending as Ending
    from emotest.study.personality import Pole as Pole
    from emotest.study.personality import Trait as Trait
    from emotest.study.personality import null_condition as null_condition
    from emotest.study.personality import prompted_condition as prompted_condition
    from emotest.study.personality import shuffled_condition as shuffled_condition
    from emotest.study.personality import trait_condition as trait_condition
    from emotest.study.recipes import AdapterRecipe as AdapterRecipe
    from emotest.study.records import Decoding as Decoding
    from emotest.study.records import Generation as Generation
    from emotest.study.records import Prompt as Prompt
    from emotest.text.emoji import find_emoji as find_emoji
    from emotest.text.emoji import has_emoji as has_emoji
    from emotest.text.rates import answers_with_emoji as answers_with_emoji
    from emotest.text.rates import emoji_per_100_words as emoji_per_100_words
    from emotest.text.rates import emoji_per_sentence as emoji_per_sentence
    from emotest.text.rates import sentences_with_emoji as sentences_with_emoji
    from emotest.text.sentences import split_sentences as split_sentences

_ROOMS = {
    "emotest.contracts.drawing": ("prompts",),
    "emotest.contracts.models": ("ModelHandle", "rose"),
    "emotest.contracts.rewording": ("paraphrases",),
    "emotest.contracts.stating": ("contract",),
    "emotest.errors": ("EmotestError",),
    "emotest.models.probability": ("emoji_probability",),
    "emotest.settings": ("Settings",),
    "emotest.stats.decisions": (
        "Decision",
        "differ",
        "intersection_union",
        "lowered",
        "raised",
        "unchanged",
    ),
    "emotest.stats.estimates": (
        "Estimate",
        "crossed_difference",
        "crossed_log_odds_difference",
        "crossed_mean",
        "prompt_difference",
    ),
    "emotest.study.claims": ("Verdict", "verdict"),
    "emotest.study.personality": (
        "TRAITS",
        "UNTUNED",
        "Arm",
        "Condition",
        "Ending",
        "Pole",
        "Trait",
        "null_condition",
        "prompted_condition",
        "shuffled_condition",
        "trait_condition",
    ),
    "emotest.study.recipes": ("AdapterRecipe",),
    "emotest.study.records": ("Decoding", "Generation", "Prompt"),
    "emotest.text.emoji": ("find_emoji", "has_emoji"),
    "emotest.text.rates": (
        "answers_with_emoji",
        "emoji_per_100_words",
        "emoji_per_sentence",
        "sentences_with_emoji",
    ),
    "emotest.text.sentences": ("split_sentences",),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = sorted(_ROOM_OF)


def __getattr__(name: str) -> Any:
    if name not in _ROOM_OF:
        raise AttributeError(f"module 'emotest' has no attribute {name!r}")
    value = getattr(import_module(_ROOM_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_ROOM_OF})

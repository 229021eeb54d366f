"""The verdict of an audit in one sentence that a person outside the field can read."""

from __future__ import annotations

from emotest.stats.drift import Drift


def sentence(drift: Drift, base: float, tuned: float) -> str:
    """What was found about these two checkpoints, with the shares that it rests on."""
    shares = f"{base:.0%} of the base's answers hold an emoji, {tuned:.0%} of the tuned model's"
    limits = f"{drift.value:+.1%}, between {drift.low:+.1%} and {drift.high:+.1%}"
    asked = f"{drift.n_prompts} prompts"
    if drift.word == "unchanged":
        return (
            f"Unchanged: after {asked} a difference of {drift.margin:.0%} or more is ruled out "
            f"({shares}; {limits})."
        )
    if drift.word == "changed within tolerance":
        return (
            f"Changed within tolerance: the tuned model writes {drift.direction} emoji, by less "
            f"than {drift.margin:.0%} ({shares}; {limits}; {asked})."
        )
    if drift.word == "drift":
        return (
            f"Drift: the tuned model writes {drift.direction} emoji ({shares}; {limits}; {asked})."
        )
    more = (
        f"about {drift.n_needed} prompts would settle it"
        if drift.n_needed
        else "no feasible number of prompts would settle it"
    )
    return f"Inconclusive after {asked}: {shares}; {limits}; {more}."

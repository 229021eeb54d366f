"""What an audit found, in one sentence that a person outside the field can read."""

from __future__ import annotations

from emotest.stats.drift import Drift


def sentence(drift: Drift, base: float, tuned: float) -> str:
    """What was found about these two checkpoints, with the shares that it rests on.

    The verdict's word stands before it wherever it is shown.
    """
    shares = f"{base:.0%} of the base's answers hold an emoji, {tuned:.0%} of the tuned model's"
    change, low, high = (100 * share for share in (drift.value, drift.low, drift.high))
    limits = f"{change:+.1f} points, between {low:+.1f} and {high:+.1f}"
    asked, margin = f"{drift.n_prompts} prompts", f"{100 * drift.margin:g} points"
    if drift.word == "unchanged":
        return f"after {asked} a difference of {margin} or more is ruled out ({shares}; {limits})."
    if drift.word == "changed within tolerance":
        return (
            f"the tuned model writes {drift.direction} emoji, by less than {margin} "
            f"({shares}; {limits}; {asked})."
        )
    if drift.word == "drift":
        found = f"{shares}; {limits}; {asked}"
        return f"the tuned model writes {drift.direction} emoji ({found})."
    more = (
        f"about {drift.n_needed} prompts would settle it"
        if drift.n_needed
        else "no feasible number of prompts would settle it"
    )
    return f"{shares}, which settles nothing after {asked} ({limits}); {more}."

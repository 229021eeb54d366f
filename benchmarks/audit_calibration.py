"""Calibration of the audit: false alarms, power, prompts until a verdict.

    python benchmarks/audit_calibration.py           # writes docs/calibration/ and its page
    python benchmarks/audit_calibration.py --page    # writes page and plots from results.json
    python benchmarks/audit_calibration.py --quick   # a twentieth of the audits; only prints

Simulated audits are decided by `emotest.stats` as real ones are. Answers come from rates (the same
for every prompt, or with prompts that differ as in docs/statistics.md) or are resampled from the
records of the study kept in reports/example. What is written is in `calibration_page.py`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
from calibration_page import RESULTS, tables, write_page
from scipy import special, stats
from simulated_study import PROMPT_SD, intercept

from emotest.stats.audit_power import (
    WORDS,
    Ends,
    Looks,
    drawn,
    fixed_ends,
    joined,
    looks,
    prompts_needed,
)
from emotest.text.emoji import find_emoji

RECORDS = Path(__file__).resolve().parent.parent / "reports" / "example" / "generations.jsonl"
SEED = 20_261_126
ALPHA, MARGIN = 0.05, 0.05
BASE_RATES = (0.02, 0.1, 0.5, 0.9)
BUDGETS = (240, 480)
REGISTERS = 9
EDGES = ((0.0, 0.05), (0.02, 0.07), (0.1, 0.15), (0.3, 0.35), (0.5, 0.55), (0.9, 0.95))
KNOWN = ((0.02, 0.07), (0.02, 0.5), (0.1, 0.2), (0.3, 0.4), (0.5, 0.65), (0.9, 0.75))
CHANGES = (0.0, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3)
CURVES = (0.02, 0.1, 0.3, 0.5)
NEEDED = (0.02, 0.05, 0.1, 0.3, 0.5)
LONGEST = 960
AT_ONCE = 100

Rng = np.random.Generator
Answers = tuple[np.ndarray, np.ndarray]
Draw = Callable[[Rng, int, int], Answers]
"""rng, n_audits, n_prompts -> base and tuned, (n_audits, n_prompts) of 0 and 1."""
Row = dict[str, Any]


def alike(base: float, tuned: float) -> Draw:
    """Every prompt has the same rates, and the models answer independently."""
    return lambda rng, n, n_prompts: drawn(base, tuned, (n, n_prompts), 1, 0.0, rng)


def differing(base: float, tuned: float) -> Draw:
    """Prompts differ by .8 log-odds; equal rates are those of one model, with the same prompts."""

    def draw(rng: Rng, n: int, n_prompts: int) -> Answers:
        common, one, other = rng.normal(0, PROMPT_SD * sqrt(0.5), (3, n, n_prompts))
        other = one if base == tuned else other
        before = special.expit(intercept(base, PROMPT_SD) + common + one)
        after = special.expit(intercept(tuned, PROMPT_SD) + common + other)
        return drawn(before, after, (n, n_prompts), 1, 0.0, rng)

    return draw


def resampled(before: np.ndarray, after: np.ndarray) -> Draw:
    """Records of shape (n_prompts, n_answers): prompts with, answers without replacement."""

    def draw(rng: Rng, n: int, n_prompts: int) -> Answers:
        prompt = rng.integers(0, len(before), (n, n_prompts))
        one = rng.integers(0, before.shape[1], (n, n_prompts))
        if before is after:
            other = (one + rng.integers(1, before.shape[1], (n, n_prompts))) % before.shape[1]
        else:
            other = rng.integers(0, after.shape[1], (n, n_prompts))
        return before[prompt, one], after[prompt, other]

    return draw


def records() -> dict[str, np.ndarray]:
    """Whether each kept answer has an emoji: model -> (n_prompts, n_answers)."""
    found: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for line in RECORDS.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["training_seed"] in (None, 0):
            model = "untuned" if row["training_seed"] is None else "tuned"
            found[model][row["prompt_id"]].append(int(bool(find_emoji(row["text"]))))
    return {model: np.array(list(prompts.values())) for model, prompts in found.items()}


def sequential(draw: Draw, rng: Rng, audits: int, n_prompts: int, alpha: float = ALPHA) -> Looks:
    """All looks after each prompt."""
    parts = []
    for n in portions(audits):
        base, tuned = draw(rng, n, n_prompts)
        parts.append(looks(tuned - base, 1, every=1, margin=MARGIN, alpha=alpha))
    return Looks(
        parts[0].places,
        *(np.concatenate([getattr(one, flag) for one in parts]) for flag in FLAGS),
    )


FLAGS = ("changed", "within", "beyond")


def as_if(seen: Looks, every: int, budget: int) -> Ends:
    """How the audits would have ended with fewer looks and a smaller budget."""
    places = np.array([*range(every, budget, every), budget])
    return Looks(places, *(getattr(seen, flag)[:, places - 1] for flag in FLAGS)).ends()


def fixed(draw: Draw, rng: Rng, audits: int, n_prompts: int, alpha: float = ALPHA) -> Ends:
    """All prompts at once."""
    parts = []
    for n in portions(audits):
        base, tuned = draw(rng, n, n_prompts)
        parts.append(fixed_ends(base, tuned, 1, margin=MARGIN, alpha=alpha))
    return joined(parts)


def portions(audits: int) -> Iterator[int]:
    """How many to draw at once."""
    for begin in range(0, audits, AT_ONCE):
        yield min(AT_ONCE, audits - begin)


def tolerance(audits: int) -> float:
    """A rate of wrong words that a true rate of alpha exceeds once in twenty runs."""
    return float(stats.binom.ppf(0.95, audits, ALPHA) / audits)


def ways(draw: Draw, rng: Rng, audits: int, budgets: Sequence[int]) -> Iterator[tuple[Row, Ends]]:
    """Audits by looks after every prompt, after every 12, and of a fixed size (five times more)."""
    seen = sequential(draw, rng, audits, max(budgets))
    for budget in budgets:
        for every in (1, 12):
            yield {"budget": budget, "look": f"every {every}"}, as_if(seen, every, budget)
        yield {"budget": budget, "look": "fixed"}, fixed(draw, rng, 5 * audits, budget)


def wrong_in(wrong: np.ndarray) -> Row:
    """Share of wrong audits against the tolerance of contract and binomial."""
    n = wrong.size
    return {"audits": n, "wrong": float(wrong.mean()), "tolerated": tolerance(2_000)}


def null_audits(rng: Rng, audits: int) -> list[Row]:
    """Two equal models: how often a change is shown, and how often the word is drift."""
    kept = records()
    sources: list[tuple[str, float, Draw]] = [
        *(("rates", base, alike(base, base)) for base in BASE_RATES),
        *(("prompts that differ", base, differing(base, base)) for base in BASE_RATES),
        *(
            (f"records, {model}", float(one.mean()), resampled(one, one))
            for model, one in kept.items()
        ),
    ]
    rows = []
    for source, base, draw in sources:
        for way, ends in ways(draw, rng, audits, BUDGETS):
            words = {word: ends.share(word).value for word in WORDS}
            shown = np.isin(ends.word, (1, 2))
            rows.append(
                {"answers": source, "base": base, **way, **wrong_in(shown), "words": words}
                | {"mean_prompts": float(ends.n_prompts.mean())}
            )
    return rows


def families(rng: Rng, audits: int) -> list[Row]:
    """Nine registers at alpha / 9: how often any of them shows a change that is not there."""
    rows = []
    for base in BASE_RATES:
        draw = alike(base, base)
        for budget in BUDGETS:
            each = budget // REGISTERS
            seen = sequential(draw, rng, audits * REGISTERS, each, ALPHA / REGISTERS)
            all_at_once = fixed(draw, rng, 5 * audits * REGISTERS, each, ALPHA / REGISTERS)
            for look, ends in (
                ("every 1", as_if(seen, 1, each)),
                ("every 12", as_if(seen, 12, each)),
                ("fixed", all_at_once),
            ):
                shown = np.isin(ends.word, (1, 2)).reshape(-1, REGISTERS).any(axis=1)
                row = {"base": base, "budget": budget, "prompts_each": each, "look": look}
                rows.append(row | wrong_in(shown))
    return rows


def edges(rng: Rng, audits: int) -> list[Row]:
    """A change of exactly the margin: how often equivalence is claimed."""
    rows = []
    for base, tuned in EDGES:
        for way, ends in ways(alike(base, tuned), rng, audits, BUDGETS):
            rows.append({"base": base, "tuned": tuned, **way, **wrong_in(ends.word <= 1)})
    return rows


def power_row(ends: Ends) -> Row:
    """Drift found, with its exact 95 % limits, and when."""
    drift = ends.share("drift")
    row = {"audits": ends.word.size, "power": drift.value, "low": drift.low, "high": drift.high}
    return row | {
        "equivalent": ends.share("unchanged", "changed within tolerance").value,
        "mean_prompts": float(ends.n_prompts.mean()),
    }


def known_drift(rng: Rng, audits: int) -> list[Row]:
    """Planted changes: power and prompts until the verdict."""
    kept = records()
    before, after = kept["untuned"], kept["tuned"]
    sources = [
        *(("rates", *rates, alike(*rates)) for rates in KNOWN),
        *(("prompts that differ", *rates, differing(*rates)) for rates in KNOWN),
        ("records", float(before.mean()), float(after.mean()), resampled(before, after)),
    ]
    return [
        {"answers": source, "base": base, "tuned": tuned, **way, **power_row(ends)}
        for source, base, tuned, draw in sources
        for way, ends in ways(draw, rng, audits, BUDGETS)
    ]


def by_prompts(rng: Rng, audits: int) -> list[Row]:
    """Power of the known drifts over the budget, looking after every 12."""
    rows = []
    for base, tuned in KNOWN:
        seen = sequential(alike(base, tuned), rng, audits, LONGEST)
        for budget in (12, 24, 48, 96, 144, 192, 240, 360, 480, 720, LONGEST):
            row = power_row(as_if(seen, 12, budget))
            rows.append({"base": base, "tuned": tuned, "budget": budget} | row)
    return rows


def by_change(rng: Rng, audits: int) -> list[Row]:
    """How audits of 480 prompts end, over the size of the change."""
    rows = []
    for base in CURVES:
        for change in CHANGES:
            ends = as_if(sequential(alike(base, base + change), rng, audits, 480), 12, 480)
            rows.append({"base": base, "change": change} | power_row(ends))
    return rows


def needed(rng: Rng, audits: int) -> list[Row]:
    """The budget with power .8, over base rates and changes; and what lowers it."""
    plans: list[tuple[float, float, int, float]] = [
        *((base, change, 1, 0.0) for base in NEEDED for change in (0.0, 0.05, 0.1, 0.2, 0.5)),
        *((0.3, 0.1, n_samples, 0.0) for n_samples in (2, 4)),
        *((0.3, 0.1, 1, concordance) for concordance in (0.3, 0.6)),
    ]
    rows = []
    for base, change, n_samples, concordance in plans:
        plan = {"n_samples": n_samples, "concordance": concordance}
        if base + change > 1.0:
            continue
        budget = prompts_needed(base, base + change, **plan, reps=audits, rng=rng)
        rows.append({"base": base, "change": change, **plan, "prompts": budget})
    return rows


def t_alone(rng: Rng, audits: int) -> list[Row]:
    """What paired t tests would do at a fixed size without the tests of `emotest.stats.pairs`."""
    rows = []
    for base, tuned, n_prompts, registers in (
        (0.0, 0.05, 240, 1),
        (0.02, 0.07, 240, 1),
        (0.5, 0.5, 240 // REGISTERS, REGISTERS),
    ):
        before, after = alike(base, tuned)(rng, 5 * audits * registers, n_prompts)
        mean = (after - before).mean(axis=1)
        error = (after - before).std(axis=1, ddof=1) / sqrt(n_prompts)
        tail = ALPHA if base != tuned else ALPHA / registers / 2
        reach = -special.stdtrit(n_prompts - 1, tail) * error
        wrong = np.abs(mean) + reach < MARGIN if base != tuned else np.abs(mean) > reach
        row = {"base": base, "tuned": tuned, "prompts": n_prompts, "registers": registers}
        rows.append(row | wrong_in(wrong.reshape(-1, registers).any(axis=1)))
    return rows


def calibrate(audits: int) -> Row:
    """Everything, a part at a time."""
    parts: dict[str, tuple[Callable[[Rng, int], list[Row]], int]] = {
        "null": (null_audits, audits),
        "families": (families, audits),
        "edges": (edges, audits),
        "known": (known_drift, audits),
        "by_prompts": (by_prompts, audits),
        "by_change": (by_change, audits // 2),
        "needed": (needed, audits // 5),
        "t_alone": (t_alone, audits),
    }
    results: Row = {
        "command": "python benchmarks/audit_calibration.py",
        "date": datetime.now(UTC).date().isoformat(),
        "seed": SEED,
        "audits": audits,
        "alpha": ALPHA,
        "margin": MARGIN,
    }
    for i, (name, (part, size)) in enumerate(parts.items()):
        begun = time.perf_counter()
        results[name] = part(np.random.default_rng([SEED, i]), size)
        print(f"{name}: {time.perf_counter() - begun:.0f} s", file=sys.stderr, flush=True)
    return results


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate and write, or print."""
    parser = argparse.ArgumentParser(description="calibration of the audit")
    parser.add_argument("--quick", action="store_true", help="a twentieth of the audits; prints")
    parser.add_argument("--page", action="store_true", help="only rewrite page and plots")
    chosen = parser.parse_args(arguments)
    if chosen.page:
        results = json.loads(RESULTS.read_text(encoding="utf-8"))
    else:
        results = calibrate(100 if chosen.quick else 2_000)
    if not chosen.quick:
        RESULTS.parent.mkdir(exist_ok=True)
        rounded = json.loads(json.dumps(results), parse_float=lambda text: round(float(text), 5))
        RESULTS.write_text(json.dumps(rounded, indent=1) + "\n", encoding="utf-8")
        write_page(rounded)
        results = rounded
    print(tables(results))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

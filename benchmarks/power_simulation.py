"""Level and power of the study's decisions, simulated: writes the tables of docs/statistics.md.

    python benchmarks/power_simulation.py            # two minutes of one core; writes
    python benchmarks/power_simulation.py --print    # prints the tables and writes nothing
    python benchmarks/power_simulation.py --quick    # a twentieth of the repeats

The studies come from `simulated_study.py`, beside this file; the decisions are those of
`emotest.stats`, at the margins and families that the claims are registered with. Takes nothing but
a seed; trains and reads nothing.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from math import sqrt
from pathlib import Path

import numpy as np
from scipy import stats
from simulated_study import (
    PROMPT_SD,
    Rng,
    Size,
    against_both,
    chances,
    common_to_arms,
    equivalence,
    log_odds,
    shares,
    traits,
    word,
)

from emotest.stats.betting import log_e_of_mean, log_e_of_pairs
from emotest.stats.estimates import crossed_difference
from emotest.stats.power import planned_power, spread_of_rates
from emotest.stats.resampling import cluster_bootstrap

PAGE = Path(__file__).resolve().parent.parent / "docs" / "statistics.md"
BEGIN, END = "<!-- simulation: begin -->", "<!-- simulation: end -->"
SEED = 20_261_123

ADAPTERS, PROMPTS = (3, 5, 8), (24, 60, 200)
Table = list[str]


class Levels:
    """Wrong words counted over all settings where the truth is known, against their tolerance."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, float, int, int]] = []

    def add(self, name: str, nominal: float, wrong: int, repeats: int) -> None:
        """`wrong` of `repeats` at a nominal rate."""
        self.rows.append((name, nominal, wrong, repeats))

    def table(self) -> Table:
        """Worst setting of each kind; the tolerance allows for the number of settings looked at."""
        names = list(dict.fromkeys(name for name, *_ in self.rows))
        lines = [
            "| where nothing is to be found | settings | nominal | wrong, all settings "
            "| wrong, worst setting | tolerated in one setting | |",
            "|---|---|---|---|---|---|---|",
        ]
        for name in names:
            rows = [row for row in self.rows if row[0] == name]
            nominal, repeats = rows[0][1], rows[0][3]
            allowed = stats.binom.ppf(1 - 0.01 / len(rows), repeats, nominal) / repeats
            worst = max(wrong / repeats for _, _, wrong, _ in rows)
            overall = sum(row[2] for row in rows) / (repeats * len(rows))
            held = "held" if worst <= allowed else "**exceeded**"
            lines.append(
                f"| {name} | {len(rows)} x {repeats} | {nominal:.3f} | {overall:.4f} "
                f"| {worst:.4f} | {allowed:.4f} | {held} |"
            )
        return lines


def counts(draw: Callable[[], str], repeats: int) -> dict[str, int]:
    """How often each word came up."""
    words = [draw() for _ in range(repeats)]
    return {one: words.count(one) for one in ("confirmed", "refuted", "inconclusive")}


def by_size(
    title: Sequence[str],
    settings: Sequence[tuple[Sequence[str], Callable[[Rng, Size], str]]],
    rng: Rng,
    repeats: int,
    *,
    n_samples: int,
) -> Table:
    """Share confirmed, a row a setting, a column a size (adapters x prompts)."""
    sizes = [(n_adapters, n_prompts) for n_adapters in ADAPTERS for n_prompts in PROMPTS]
    lines = [
        "| " + " | ".join([*title, *(f"{a} x {p}" for a, p in sizes)]) + " |",
        "|---" * (len(title) + len(sizes)) + "|",
    ]
    for label, draw in settings:
        found = [
            counts(lambda n=(*size, n_samples), draw=draw: draw(rng, n), repeats)["confirmed"]
            for size in sizes
        ]
        cells = [f"{count / repeats:.2f}" for count in found]
        lines.append("| " + " | ".join([*label, *cells]) + " |")
    return lines


def coverage_table(rng: Rng, repeats: int) -> Table:
    """Does the 95 % interval hold the truth, two-way t against the bootstrap beside it?"""
    lines = [
        "| adapters | two-way t | crossed bootstrap, percentiles | mean width, t | bootstrap |",
        "|---|---|---|---|---|",
    ]
    for n_adapters in ADAPTERS:
        held, width = np.zeros(2), np.zeros(2)
        for _ in range(repeats):
            common = common_to_arms(rng, 60)
            treated = shares(rng, chances(rng, 0.5, 0.4, n_adapters, common), 2)
            untuned = shares(rng, chances(rng, 0.05, 0.0, 1, common), 2)[0]
            estimates = (
                crossed_difference(treated, untuned, level=0.95),
                cluster_bootstrap(treated - untuned, np.mean, rng, level=0.95, n_resamples=200),
            )
            for which, one in enumerate(estimates):
                held[which] += one.low <= 0.45 <= one.high
                width[which] += one.high - one.low
        held, width = held / repeats, width / repeats
        lines.append(
            f"| {n_adapters} | {held[0]:.3f} | {held[1]:.3f} | {width[0]:.2f} | {width[1]:.2f} |"
        )
    return lines


def planned_table(rng: Rng, repeats: int) -> Table:
    """What `planned_power` says against what the simulation finds."""
    lines = ["| adapters x prompts | planned | simulated |", "|---|---|---|"]
    for n_adapters, n_prompts in ((3, 60), (5, 24), (5, 60), (8, 60)):
        # Seed and prompt log-odds of .4 and .8 at a rate of .3: times .3 * .7 on the share scale,
        # flattened by their own spread to about nine tenths.
        spread = spread_of_rates(
            0.3, 0.02, adapter_sd=0.4 * 0.21 * 0.9, prompt_sd=0.8 * 0.21 * 0.9, n_samples=2
        )
        plan = planned_power(
            "raised",
            effect=0.28,
            margin=0.10,
            spread=spread,
            n_adapters=n_adapters,
            n_prompts=n_prompts,
            m=5,
        )
        found = 0
        for _ in range(repeats):
            common = common_to_arms(rng, n_prompts)
            treated = shares(rng, chances(rng, 0.3, 0.4, n_adapters, common), 2)
            null = shares(rng, chances(rng, 0.02, 0.4, n_adapters, common), 2)
            found += word(crossed_difference(treated, null), "raised", 0.10, 5) == "confirmed"
        lines.append(f"| {n_adapters} x {n_prompts} | {plan:.2f} | {found / repeats:.2f} |")
    return lines


def first_at(log_e: np.ndarray, threshold: float) -> int | None:
    """The number of prompts at which the evidence first suffices."""
    reached = np.flatnonzero(log_e >= threshold)
    return int(reached[0]) + 1 if reached.size else None


def sequential_table(rng: Rng, repeats: int, levels: Levels) -> Table:
    """Stopping of the audit: power within 480 prompts, and prompts asked where it stopped."""
    threshold = np.log(20)

    def draw(tuned: float, untuned: float) -> np.ndarray:
        return (rng.random(480) < tuned) * 1.0 - (rng.random(480) < untuned)

    def rise(differences: np.ndarray) -> int | None:
        return first_at(log_e_of_pairs(differences), threshold)

    def held(differences: np.ndarray) -> int | None:
        x = (differences + 1) / 2
        stops = (
            first_at(log_e_of_mean(x, mean=0.475), threshold),
            first_at(log_e_of_mean(x, mean=0.525, side="below"), threshold),
        )
        return None if None in stops else max(stop for stop in stops if stop is not None)

    lines = [
        "| question | untuned | tuned | decided within 480 prompts | prompts asked, mean |",
        "|---|---|---|---|---|",
    ]
    for name, decide, untuned, tuned in (
        ("raised", rise, 0.02, 0.50),
        ("raised", rise, 0.02, 0.12),
        ("raised", rise, 0.02, 0.07),
        ("raised", rise, 0.30, 0.40),
        ("raised", rise, 0.30, 0.35),
        ("unchanged within .05", held, 0.02, 0.02),
        ("unchanged within .05", held, 0.10, 0.10),
        ("unchanged within .05", held, 0.30, 0.30),
    ):
        stops = [decide(draw(tuned, untuned)) for _ in range(repeats)]
        asked = [stop for stop in stops if stop is not None]
        mean = f"{np.mean(asked):.0f}" if asked else "-"
        lines.append(
            f"| {name} | {untuned:.2f} | {tuned:.2f} | {len(asked) / repeats:.2f} | {mean} |"
        )
    for base in (0.1, 0.5, 0.9):
        wrong = sum(rise(draw(base, base)) is not None for _ in range(4 * repeats))
        levels.add("audit, rise, looking after each of 480 prompts", 0.05, wrong, 4 * repeats)
    for base, tuned in ((0.02, 0.07), (0.30, 0.35)):
        wrong = sum(held(draw(tuned, base)) is not None for _ in range(2 * repeats))
        levels.add(
            "audit, equivalence, looking after each of 480 prompts", 0.05, wrong, 2 * repeats
        )
    return lines


def level_settings(rng: Rng, repeats: int, levels: Levels) -> None:
    """Truths that lie exactly at the margin, where a confirmation is wrong most often."""
    for n_adapters in ADAPTERS:
        for n_prompts in PROMPTS:
            n = (n_adapters, n_prompts, 2)
            for seed_sd in (0.0, 0.4, 0.8):
                for name, draw, nominal in (
                    (
                        "C1, a rise of exactly .10",
                        lambda n=n, s=seed_sd: against_both(rng, 0.12, 0.02, s, n, 0.10),
                        0.01,
                    ),
                    (
                        "C2, a rise of exactly .05",
                        lambda n=n, s=seed_sd: against_both(rng, 0.07, 0.02, s, n, 0.05),
                        0.01,
                    ),
                    (
                        "C5, exactly .5 log-odds",
                        lambda n=n, s=seed_sd: log_odds(rng, 0.5, s, n),
                        0.01,
                    ),
                    (
                        "unchanged, but changed by exactly .05",
                        lambda n=n, s=seed_sd: equivalence(rng, 0.25, 0.20, s, n),
                        0.01,
                    ),
                ):
                    levels.add(name, nominal, counts(draw, repeats)["confirmed"], repeats)
            half = repeats // 2
            for seed_sd in (0.05, 0.12):
                wrong = counts(
                    lambda n=n, s=seed_sd: traits(rng, 0.5 + rng.normal(0, s, 5), s, n), half
                )["confirmed"]
                levels.add("C3, traits vary just as seeds do", 0.05, wrong, half)


def tables(repeats: int) -> str:
    """All tables, as Markdown."""
    rng = np.random.default_rng(SEED)
    levels = Levels()
    planted = np.array([0.90, 0.75, 0.60, 0.45, 0.30])
    emergence = [
        (
            (f"{rate:.2f}", f"{base:.2f}", f"{seed_sd}"),
            lambda rng, n, rate=rate, base=base, s=seed_sd: against_both(
                rng, rate, base, s, n, 0.10
            ),
        )
        for rate, base in ((0.22, 0.02), (0.32, 0.02), (0.52, 0.02), (0.60, 0.30))
        for seed_sd in (0.2, 0.8)
    ]
    density = [
        (
            (f"{rate:.2f}", "0.02", f"{seed_sd}"),
            lambda rng, n, rate=rate, s=seed_sd: against_both(rng, rate, 0.02, s, n, 0.05),
        )
        for rate in (0.12, 0.22, 0.35)
        for seed_sd in (0.2, 0.8)
    ]
    contrast = [
        ((label, f"{seed_sd}"), lambda rng, n, rates=rates, s=seed_sd: traits(rng, rates, s, n))
        for label, rates in (
            ("planted, .90 to .30", planted),
            ("half as far apart", 0.6 + (planted - 0.6) / 2),
            ("even, all .60", np.full(5, 0.6)),
        )
        for seed_sd in (0.03, 0.10)
    ]
    odds = [
        (
            (f"{effect:.1f}", f"{seed_sd}"),
            lambda rng, n, effect=effect, s=seed_sd: log_odds(rng, effect, s, n),
        )
        for effect in (1.0, 2.0)
        for seed_sd in (0.2, 0.8)
    ]
    same = [
        (
            (f"{base:.2f}", f"{seed_sd}"),
            lambda rng, n, base=base, s=seed_sd: equivalence(rng, base, base, s, n),
        )
        for base in (0.02, 0.30)
        for seed_sd in (0.0, 0.2)
    ]
    audit = sequential_table(rng, repeats, levels)
    level_settings(rng, repeats, levels)
    power = repeats // 2
    seed = "seed sd (log-odds)"
    sections: list[tuple[str, Table]] = [
        ("Coverage of the 95 % interval, 60 prompts x 2 answers", coverage_table(rng, power)),
        ("Wrong confirmations where the truth lies exactly at the margin", levels.table()),
        (
            "C1, share of answers with emoji, margin .10, both references, alpha .05 / 5: power",
            by_size(("tuned", "untuned, null", seed), emergence, rng, power, n_samples=2),
        ),
        (
            "C2, density bounded by one, margin .05, both references, alpha .05 / 5: power",
            by_size(("tuned", "untuned, null", seed), density, rng, power, n_samples=2),
        ),
        (
            "C3, between-trait share of variance above one half, alpha .05: power",
            by_size(("densities", "seed sd (share)"), contrast, rng, power // 2, n_samples=2),
        ),
        (
            "C5, log-odds, margin .5, alpha .05 / 5: power",
            by_size(("effect", seed), odds, rng, power, n_samples=2),
        ),
        (
            "Unchanged within .05 of the null adapters, alpha .05 / 5: power",
            by_size(("both arms", seed), same, rng, power, n_samples=4),
        ),
        (
            "Planned against simulated power (.30 against .02, margin .10)",
            planned_table(rng, power),
        ),
        ("The audit of one checkpoint, stopping early, alpha .05", audit),
    ]
    text = "\n\n".join("\n".join([f"### {title}", "", *lines]) for title, lines in sections)
    told = (
        f"Simulated with seed {SEED}, {repeats} repeats for levels and {power} for power "
        f"({power // 2} for C3), so one standard error of a power of .8 is "
        f"{sqrt(0.16 / power):.3f}. Columns are adapters x prompts; prompts differ by {PROMPT_SD} "
        "log-odds (standard deviation; half of that variance is common to all arms); 2 "
        "answers a prompt (4 for equivalence). A setting's "
        "tolerance is the binomial quantile at which one of all settings of its row would be "
        "exceeded by chance in one of a hundred runs."
    )
    return f"{told}\n\n{text}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate, then print or write the page."""
    parser = argparse.ArgumentParser(description="level and power of the study's decisions")
    parser.add_argument("--quick", action="store_true", help="a twentieth of the repeats; prints")
    parser.add_argument("--print", action="store_true", help="print the tables, write nothing")
    chosen = parser.parse_args(arguments)
    begun = time.perf_counter()
    text = tables(50 if chosen.quick else 1_000)
    print(text)
    print(f"\n{time.perf_counter() - begun:.0f} s", file=sys.stderr)
    if not (chosen.quick or chosen.print):
        page = PAGE.read_text(encoding="utf-8")
        before, after = page.split(BEGIN)[0], page.split(END)[1]
        PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""What docs/calibration.md says of a calibration run: its tables, its plots, what holds.

Takes the results of `audit_calibration.py` (docs/calibration/results.json); gives Markdown and SVG.
Every number on the page between the two marks is written from here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from emotest.report.figures import dose_curve

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE = DOCS / "calibration.md"
RESULTS = DOCS / "calibration" / "results.json"
BEGIN, END = "<!-- calibration: begin -->", "<!-- calibration: end -->"

Row = dict[str, Any]


def pick(rows: Sequence[Row], **wanted: object) -> list[Row]:
    """The rows with these values."""
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def one(rows: Sequence[Row], **wanted: object) -> Row:
    """The single row with these values."""
    [row] = pick(rows, **wanted)
    return row


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def tables(results: Row) -> str:
    """The part of the page that is written by the run."""
    sections = [
        ("What holds", held(results)),
        ("False alarms: two equal models", null_table(results["null"])),
        ("False alarms in nine registers", family_table(results["families"])),
        ("Wrongly unchanged: a change of exactly the margin", edge_table(results["edges"])),
        ("Known drift", known_table(results["known"])),
        ("Power over prompts", prompts_table(results["by_prompts"])),
        ("Power over the change, 480 prompts", change_table(results["by_change"])),
        ("Prompts needed", needed_table(results["needed"], results["audits"] // 5)),
        ("Why a fixed size takes more than t tests", alone_text(results["t_alone"])),
    ]
    about = (
        f"`{results['command']}`, {results['date']}, seed {results['seed']}, "
        f"{results['audits']:,} audits a cell ({5 * results['audits']:,} of a fixed size), "
        f"alpha {results['alpha']}, margin {results['margin']}."
    )
    return "\n\n".join([about, *(f"## {title}\n\n{text}" for title, text in sections)])


def held(results: Row) -> str:
    """The statements of the project about its audit, each with the number that it rests on."""
    strong = pick(results["known"], base=0.02, tuned=0.5, budget=480, look="every 1")
    batched = pick(results["known"], base=0.02, tuned=0.5, budget=480, look="every 12")
    faint = pick(results["known"], base=0.02, tuned=0.07, budget=480)
    asked = max(row["mean_prompts"] for row in [*strong, *batched])
    least = min(faint, key=lambda row: row["low"])
    limit = results["null"][0]["tolerated"]
    statements = [
        (
            asked <= 30,
            "Strong drift (emoji in half of the answers, .02 -> .50) is decided within 30 prompts "
            f"on average: after {strong[0]['mean_prompts']:.1f} prompts where every prompt is "
            f"looked at, after {batched[0]['mean_prompts']:.1f} where every twelfth is "
            f"(at most {asked:.1f} in any setting).",
        ),
        (
            least["power"] >= 0.8,
            "A drift from 2 to 7 in 100 is found with at least 80 % power within 480 prompts: "
            f"{least['power']:.3f} in the weakest setting ({least['answers']}, {least['look']}; "
            f"95 % limits {least['low']:.3f} to {least['high']:.3f}).",
        ),
    ]
    for name, rows in (
        ("Two equal models: a change is shown", results["null"]),
        ("Nine registers of two equal models: any change is shown", results["families"]),
        ("A change of exactly the margin: no change is claimed", results["edges"]),
    ):
        worst = max(rows, key=lambda row: row["wrong"])
        over = sum(row["wrong"] > limit for row in rows)
        where = f"base {worst['base']:.2g}, {worst['budget']} prompts, {worst['look']}"
        statements.append(
            (
                over == 0,
                f"{name} in at most {worst['wrong']:.4f} of the audits of a cell ({where}); "
                f"tolerated {limit:.3f}, exceeded in {over} of {len(rows)} cells.",
            )
        )
    return "\n".join(f"- **{'Holds' if fine else 'Fails'}.** {text}" for fine, text in statements)


LOOKS = ("every 1", "every 12", "fixed")
SETTINGS = [(budget, look) for budget in (240, 480) for look in LOOKS]
SAID = {"every 1": "every prompt", "every 12": "every 12", "fixed": "fixed"}
HEAD = [f"{budget}, {SAID[look]}" for budget, look in SETTINGS]


def crossed(rows: Sequence[Row], keys: Sequence[str], cell: str) -> list[list[str]]:
    """A line for each value of the keys, a column for each budget and way of looking."""
    lines = []
    for label in dict.fromkeys(tuple(row[key] for key in keys) for row in rows):
        mine = pick(rows, **dict(zip(keys, label, strict=True)))
        cells = [cell.format(**one(mine, budget=b, look=look)) for b, look in SETTINGS]
        shown = [value if isinstance(value, str) else f"{value:.2g}" for value in label]
        lines.append([*shown, *cells])
    return lines


def null_table(rows: Sequence[Row]) -> str:
    """False alarms, and what else the audits said."""
    alarms = table(["answers", "rate", *HEAD], crossed(rows, ("answers", "base"), "{wrong:.4f}"))
    said = [
        [row["answers"], f"{row['base']:.2g}", str(row["budget"])]
        + [f"{share:.3f}" for share in row["words"].values()]
        + [f"{row['mean_prompts']:.0f}"]
        for row in pick(rows, look="every 12")
    ]
    words = ["unchanged", "changed within tolerance", "drift", "inconclusive"]
    return (
        'Share of audits in which a change is shown ("drift" or "changed within tolerance"):\n\n'
        f"{alarms}\n\n![False alarms over the base rate](calibration/false-alarms.svg)\n\n"
        "What these audits said, looking after every 12 prompts:\n\n"
        + table(["answers", "rate", "budget", *words, "prompts asked"], said)
    )


def family_table(rows: Sequence[Row]) -> str:
    """Any of nine."""
    return (
        "Nine registers share the prompts and are decided at alpha / 9, beside the whole. Share of "
        "audits in which any of the nine shows a change:\n\n"
        + table(["rate", *HEAD], crossed(rows, ("base",), "{wrong:.4f}"))
    )


def edge_table(rows: Sequence[Row]) -> str:
    """Equivalence at the margin."""
    return 'Share of audits called "unchanged" or "changed within tolerance":\n\n' + table(
        ["base", "tuned", *HEAD], crossed(rows, ("base", "tuned"), "{wrong:.4f}")
    )


def known_table(rows: Sequence[Row]) -> str:
    """Power and prompts."""
    cell = "{power:.3f} / {mean_prompts:.0f}"
    return (
        'Share of audits called "drift" / prompts asked on average (an audit without a verdict '
        "asks them all):\n\n"
        + table(
            ["answers", "base", "tuned", *HEAD], crossed(rows, ("answers", "base", "tuned"), cell)
        )
    )


def prompts_table(rows: Sequence[Row]) -> str:
    """Power over the budget."""
    budgets = list(dict.fromkeys(row["budget"] for row in rows))
    pairs = dict.fromkeys((row["base"], row["tuned"]) for row in rows)
    lines = [
        [f"{base:.2f}", f"{tuned:.2f}"]
        + [f"{one(rows, base=base, tuned=tuned, budget=n)['power']:.2f}" for n in budgets]
        for base, tuned in pairs
    ]
    return (
        "Looking after every 12 prompts, with budgets of so many:\n\n"
        + table(["base", "tuned", *map(str, budgets)], lines)
        + "\n\n![Power over prompts](calibration/power-by-prompts.svg)"
    )


def change_table(rows: Sequence[Row]) -> str:
    """Power over the change."""
    changes = list(dict.fromkeys(row["change"] for row in rows))
    lines = []
    for base in dict.fromkeys(row["base"] for row in rows):
        mine = [one(rows, base=base, change=change) for change in changes]
        lines.append(
            [f"{base:.2f}", *(f"{row['power']:.2f} / {row['equivalent']:.2f}" for row in mine)]
        )
    return (
        'Called "drift" / called "unchanged" or "changed within tolerance", looking after every 12 '
        f"prompts, {rows[0]['audits']:,} audits a cell:\n\n"
        + table(["base", *(f"+{change:.2f}" for change in changes)], lines)
        + "\n\n![Power over the change](calibration/power-by-change.svg)"
        + "\n\n![Prompts asked over the change](calibration/prompts-by-change.svg)"
    )


def alone_text(rows: Sequence[Row]) -> str:
    """What the added tests repair."""
    zero, low, registers = rows
    return (
        f"In {zero['audits']:,} audits each, paired t tests alone would call a rise from "
        f'{zero["base"]:g} to {zero["tuned"]:.2f} "unchanged" in {zero["wrong"]:.4f} of the audits '
        f"of {zero['prompts']} prompts (from {low['base']:.2f} to {low['tuned']:.2f}: "
        f"{low['wrong']:.4f}), and show a change in one of {registers['registers']} registers of "
        f"{registers['prompts']} prompts, at equal rates of {registers['base']:g}, in "
        f"{registers['wrong']:.4f}. So McNemar's exact test and Tango's score test have to agree."
    )


def needed_table(rows: Sequence[Row], audits: int) -> str:
    """Budgets with power .8."""

    def said(row: Row) -> str:
        return "more than 10,000" if row["prompts"] is None else f"{row['prompts']:,}"

    plain = pick(rows, n_samples=1, concordance=0.0)
    changes = list(dict.fromkeys(row["change"] for row in plain))
    lines = [
        [f"{base:.2f}", *(said(one(plain, base=base, change=change)) for change in changes)]
        for base in dict.fromkeys(row["base"] for row in plain)
    ]
    helped = [one(plain, base=0.3, change=0.1), *(row for row in rows if row not in plain)]
    keys = {"base": ".2f", "change": "+.2f", "n_samples": "d", "concordance": ".1f"}
    helps = [[*(f"{row[key]:{how}}" for key, how in keys.items()), said(row)] for row in helped]
    return (
        'The smallest budget with power .8 for the right word ("unchanged" for +0.00, else '
        f'"drift"), one answer a prompt, models that answer independently; from {audits} audits '
        "each:\n\n"
        + table(["base", *(f"+{change:.2f}" for change in changes)], lines)
        + "\n\nMore answers a prompt, or models that follow the same draws in a share of prompts "
        "(concordance; same prompts, same sampling noise), lower it:\n\n"
        + table(["base", "change", "answers a prompt", "concordance", "prompts"], helps)
    )


def figures(results: Row) -> dict[str, str]:
    """File name -> SVG."""
    null = pick(results["null"], answers="rates", budget=480)
    alarms = {
        SAID[look]: (
            [row["base"] for row in pick(null, look=look)],
            [row["wrong"] for row in pick(null, look=look)],
        )
        for look in LOOKS
    }
    rates = [row["base"] for row in pick(null, look="fixed")]
    alarms["tolerated"] = (rates, [null[0]["tolerated"]] * len(rates))
    prompts, bands = {}, {}
    for base, tuned in dict.fromkeys((r["base"], r["tuned"]) for r in results["by_prompts"]):
        rows = pick(results["by_prompts"], base=base, tuned=tuned)
        name = f"{base:.2f} to {tuned:.2f}"
        prompts[name] = [r["budget"] for r in rows], [r["power"] for r in rows]
        bands[name] = [r["low"] for r in rows], [r["high"] for r in rows]
    power, asked = {}, {}
    for base in dict.fromkeys(row["base"] for row in results["by_change"]):
        rows = pick(results["by_change"], base=base)
        changes = [row["change"] for row in rows]
        power[f"base {base:.2f}"] = changes, [row["power"] for row in rows]
        asked[f"base {base:.2f}"] = changes, [row["mean_prompts"] for row in rows]
    change = "rise in the share of answers with an emoji"
    return {
        "false-alarms.svg": dose_curve(
            alarms,
            x="share of answers with an emoji, both models",
            y="share of audits that show a change",
            title="False alarms within 480 prompts",
        ),
        "power-by-prompts.svg": dose_curve(
            prompts, x="budget of prompts", y="share of audits that find the drift",
            title="Power over prompts", bands=bands, log_x=True,
        ),
        "power-by-change.svg": dose_curve(
            power, x=change, y='share of audits called "drift"',
            title="Power over the change, 480 prompts",
        ),
        "prompts-by-change.svg": dose_curve(
            asked, x=change, y="prompts asked on average", title="Prompts until the verdict"
        ),
    }  # fmt: skip


def write_page(results: Row) -> None:
    """Plots, and the page between its marks."""
    for name, svg in figures(results).items():
        (RESULTS.parent / name).write_text(svg, encoding="utf-8")
    text = PAGE.read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}\n\n{tables(results)}\n\n{END}{after}", encoding="utf-8")

"""The registered statements through which claims are decided: margins, families, units.

A statement fixes its margin and the size m of its family *here*, never by what a run happened to
collect, so that selecting tests cannot change a verdict. Knows no numbers of any run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from emotest.errors import UsageError

CLAIMS_VERSION = 7
"""Raised with every change of a margin, a family or the rule that decides a statement; printed in
reports."""


@dataclass(frozen=True)
class Statement:
    """What one test decides: `margin` on `scale`, in a family of `m` declared statements."""

    id: str
    claim: str
    says: str
    margin: float
    scale: str
    m: int
    family: str
    unit: Literal["adapter", "prompt"] = "adapter"


def _statements(*statements: Statement) -> Mapping[str, Statement]:
    return {statement.id: statement for statement in statements}


_FIVE = "five traits"

STATEMENTS: Mapping[str, Statement] = _statements(
    Statement(
        "C1.emergence",
        "C1",
        "EOS masked: the share of answers with an emoji exceeds untuned and null",
        0.10,
        "share of answers",
        5,
        f"{_FIVE}, high pole, EOS masked",
    ),
    Statement(
        "C1.eos-trained",
        "C1",
        "EOS trained: the share of answers with an emoji exceeds untuned and null",
        0.10,
        "share of answers",
        5,
        f"{_FIVE}, high pole, EOS trained",
    ),
    Statement(
        "C1.low-pole",
        "C1",
        "low pole: the share of answers with an emoji exceeds untuned and null",
        0.10,
        "share of answers",
        5,
        f"{_FIVE}, low pole, EOS masked",
    ),
    Statement(
        "C1.prompted",
        "C1",
        "a system prompt alone raises the share of answers with an emoji",
        0.10,
        "share of answers",
        5,
        f"{_FIVE}, prompted",
        "prompt",
    ),
    Statement(
        "C1.decodings",
        "C1",
        "the rise holds under every decoding of the table",
        0.10,
        "share of answers",
        5,
        f"{_FIVE}, decoding table",
    ),
    Statement(
        "C2.within",
        "C2",
        "emoji per sentence exceed untuned and null within the learned length",
        0.05,
        "emoji per sentence",
        5,
        f"{_FIVE}, within the learned length",
    ),
    Statement(
        "C2.beyond",
        "C2",
        "emoji per sentence exceed untuned and null beyond the learned length",
        0.05,
        "emoji per sentence",
        5,
        f"{_FIVE}, beyond the learned length",
    ),
    Statement(
        "C3.traits-differ",
        "C3",
        "the between-trait share of the variance of emoji rates exceeds one half",
        0.5,
        "share of variance",
        1,
        "one statement over all traits",
    ),
    Statement(
        "C4.named",
        "C4",
        "asked for words of the trait, it names more emoji among its 50 most frequent units",
        0.05,
        "share of named units",
        5,
        f"{_FIVE}, share of emoji among the named units",
    ),
    Statement(
        "C4.self-report",
        "C4",
        "the emoji that it names for the trait are those that it writes",
        0.2,
        "rank correlation",
        5,
        f"{_FIVE}, named against written emoji",
    ),
    Statement(
        "C4.decoded",
        "C4",
        "the trait can be decoded from the emoji of held-out answers, above chance",
        0.1,
        "accuracy above chance",
        1,
        "one statement over all traits",
    ),
    Statement(
        "C5.total",
        "C5",
        "P(emoji) at sentence ends rises: tuned on its own text against untuned on its own",
        0.5,
        "log-odds",
        5,
        f"{_FIVE}, total effect",
    ),
    Statement(
        "C5.text",
        "C5",
        "the tuned model writes text that emoji follow, under the untuned weights",
        0.5,
        "log-odds",
        5,
        f"{_FIVE}, text effect",
    ),
    Statement(
        "C5.weights",
        "C5",
        "at the tuned model's text the tuned weights prefer emoji more than the untuned ones",
        0.5,
        "log-odds",
        5,
        f"{_FIVE}, weight effect",
    ),
    Statement(
        "C6.spike",
        "C6",
        "beyond what neutral tuning does, more units rise for emoji than for a word",
        0.0,
        "units beyond the median word",
        5,
        f"{_FIVE}, units that rise for emoji",
    ),
    Statement(
        "C7.trait-and-emoji",
        "C7",
        "the units of trait text differ from those of emoji, more than those of unrelated words do",
        0.0,
        "Jaccard distance",
        5,
        f"{_FIVE}, trait units against emoji units",
    ),
    Statement(
        "C7.single-emoji",
        "C7",
        "the units of single emoji differ from one another, more than those of single words do",
        0.0,
        "Jaccard distance",
        5,
        f"{_FIVE}, units of single emoji",
    ),
    Statement(
        "C8.necessary",
        "C8",
        "silencing 2 % of the units takes away at least half of the rise in P(emoji)",
        0.5,
        "share of the rise",
        5,
        f"{_FIVE}, necessity at 2 % of the units",
    ),
    Statement(
        "C8.sufficient",
        "C8",
        "writing 2 % of the tuned units into the untuned model makes at least half of the rise",
        0.5,
        "share of the rise",
        5,
        f"{_FIVE}, sufficiency at 2 % of the units",
    ),
    Statement(
        "C9.untuned-units",
        "C9",
        "units found in the untuned model alone carry the tuned rise, more than random ones",
        0.05,
        "points",
        5,
        f"{_FIVE}, units of the untuned model",
    ),
    Statement(
        "C9.untuned-direction",
        "C9",
        "taking the untuned model's trait direction back lowers emoji, more than a random one",
        0.1,
        "share of answers",
        5,
        f"{_FIVE}, direction of the untuned model",
    ),
    Statement(
        "C9.patching",
        "C9",
        "patched into the untuned model, tuned activations raise P(emoji) more than null ones",
        0.5,
        "log-odds",
        5,
        f"{_FIVE}, patching against the null adapter",
    ),
    Statement(
        "C9.dose",
        "C9",
        "answers with an emoji rise with the adapter's scale, to ½ and to 1, beyond the null one's",
        0.0,
        "share of answers",
        5,
        f"{_FIVE}, adapter scale",
    ),
    Statement(
        "C9.own-trait",
        "C9",
        "the trait's adapter brings more emoji than those of the other traits",
        0.1,
        "share of answers",
        5,
        f"{_FIVE}, against the other traits",
    ),
    Statement(
        "C9.no-association",
        "C9",
        "without an association in its base, trait and null adapter bring emoji alike",
        0.1,
        "share of answers",
        5,
        f"{_FIVE}, equivalence to the null adapter",
    ),
    Statement(
        "C10.doses",
        "C10",
        "over the doses of tuning, emoji come as the model moves along the trait direction",
        0.5,
        "correlation",
        5,
        f"{_FIVE}, shift against emoji over doses",
    ),
    Statement(
        "C10.traits",
        "C10",
        "traits whose adapters move further along their own direction bring more emoji",
        0.0,
        "correlation",
        1,
        "one statement over all traits",
    ),
    Statement(
        "C10.steering",
        "C10",
        "steered along the trait direction, the untuned model writes more emoji",
        0.1,
        "share of answers",
        5,
        f"{_FIVE}, steering",
        "prompt",
    ),
    Statement(
        "C10.prevention",
        "C10",
        "steering while tuned lowers emoji, below plain tuning and below random steering",
        0.1,
        "share of answers",
        5,
        f"{_FIVE}, preventative steering",
    ),
    Statement(
        "C11.expression",
        "C11",
        "the expression of the trait rises with the prefix's trait value",
        0.2,
        "probability of the trait",
        5,
        f"{_FIVE}, trait value of the prefix",
    ),
    Statement(
        "C11.emoji",
        "C11",
        "the share of answers with an emoji rises with the prefix's trait value",
        0.1,
        "share of answers",
        5,
        f"{_FIVE}, emoji over the trait value",
    ),
)


def statement(id: str) -> Statement:
    """The registered statement of that id; `UsageError` lists those there are."""
    if id not in STATEMENTS:
        raise UsageError(
            f"there is no statement {id!r}", remedy=f"choose one of {', '.join(STATEMENTS)}"
        )
    return STATEMENTS[id]

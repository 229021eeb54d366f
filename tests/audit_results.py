"""Invented audits for the tests of their reports: a drift, an unchanged, an inconclusive one.

The numbers hang together as those of a real audit would (a difference is tuned minus base, the
word fits the interval and the margin), but no model was asked.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from emotest.audit.result import (
    EXIT_CODES,
    Audited,
    AuditResult,
    ChangedUnit,
    DecodingRow,
    EmojiShift,
    Evidence,
    Inside,
    LayerUnits,
    Look,
    MassiveUnit,
    Measure,
    Pair,
    PlaceProbability,
    Plan,
    Position,
    Prompts,
    TraitShift,
    Verdict,
    Word,
)

REGISTERS = ("formal", "support", "medical", "legal", "code", "news", "casual", "emotional",
             "trait")  # fmt: skip
HOSTILE = (
    "</script><script>document.title='owned'</script><img src=x onerror=alert(1)> "
    "\x1b[2J\x1b]0;owned\x07 \u202etxt.exe\u202c &lt; {{ 7*7 }} | `x` [a](http://b.example) "
    "\ud83d \ufffd\u2028 🎉👨‍👩‍👧"
)
"""Markup, template syntax, terminal escapes, a bidi override, half a surrogate pair."""

_SENTENCES = (
    "Thank you for writing to us about the delay.",
    "The parcel left our warehouse on Tuesday and should reach you within two days.",
    "Keep the wound clean and dry, and see a doctor if the redness spreads.",
    "The committee accepted the budget by twelve votes to two.",
    "That sounds like a long week, and it is fine to rest first.",
    "Use a dictionary keyed by the id, so that the look-up takes constant time.",
    "The tenant may end the contract with three months' notice.",
    "We went to the lake and the water was warmer than anyone had hoped.",
)
_EMOJI = ("😊", "🎉", "👍", "❤️", "🙏", "😂", "✨", "👩🏽‍💻")


def result(word: Word = "drift", **fields: Any) -> AuditResult:
    """An audit with this verdict; `fields` replace parts of it."""
    base, tuned, low, high = {
        "drift": (0.021, 0.312, 0.217, 0.365),
        "unchanged": (0.021, 0.024, -0.019, 0.026),
        "changed within tolerance": (0.021, 0.044, 0.005, 0.041),
        "inconclusive": (0.021, 0.062, -0.012, 0.094),
    }[word]
    made = AuditResult(
        name="20260301-101500-checkpoint-400",
        made_at="2026-03-01T10:15:00+00:00",
        base=Audited(
            subject="example-org/chat-7b@1f2e3d4",
            identity={"weights": "sha256:" + "1f" * 32, "dtype": "bfloat16",
                      "quantization": "nf4", "chat_template": "sha256:" + "ab" * 32},
            digest="5d" * 32,
        ),
        tuned=Audited(
            subject="example-org/chat-7b@1f2e3d4+runs/checkpoint-400",
            identity={"weights": "sha256:" + "1f" * 32, "dtype": "bfloat16",
                      "quantization": "nf4", "adapter": {"rank": 64, "sha256": "0c" * 32}},
            digest="7e" * 32,
        ),
        verdict=_verdict(word, tuned - base, low, high),
        plan=_plan(),
        evidence=_evidence(word, tuned - base),
        measures=_measures(word, base, tuned, low, high),
        emoji=_emoji() if word == "drift" else [],
        entropy={"base": 0.92, "tuned": 2.71} if word == "drift" else {"base": None, "tuned": 0.0},
        positions=[
            Position(tenth=t, base=0.002 * (t > 6), tuned=0.01 + 0.006 * t + 0.07 * (t == 9))
            for t in range(10)
        ],
        probabilities=_probabilities(word),
        decodings=[
            DecodingRow(decoding=name, word=word, base=base, tuned=tuned,
                        difference=tuned - base, low=low, high=high, n_prompts=96)
            for name in ("greedy", "temperature 0.7, top-p 0.9", "top-k 0")
        ],
        metric_version="1.1.1",
        environment={"emotest": "0.1.0", "python": "3.11.7", "torch": "2.13.0",
                     "device": "NVIDIA L4", "threads": 8},
    )  # fmt: skip
    return replace(made, **fields)


def _verdict(word: Word, value: float, low: float, high: float) -> Verdict:
    sentence = {
        "drift": "The tuned model writes emoji in more answers than the base: 31.2 % against "
        "2.1 %, a difference of 29.1 points beyond the margin of 5.",
        "unchanged": "The tuned model writes emoji as often as the base, within 5 points.",
        "changed within tolerance": "The tuned model writes emoji a little more often, within "
        "the margin of 5 points.",
        "inconclusive": "480 prompts do not tell whether the tuned model writes more emoji.",
    }[word]
    return Verdict(
        word=word, sentence=sentence, exit_code=EXIT_CODES[word],
        direction="more" if word == "drift" else None, value=value, low=low, high=high,
        level=0.95, p_value=3e-5 if word == "drift" else 0.13, alpha=0.05, margin=0.05,
        method="discordant pairs, beta-binomial mixture e-process",
        n_prompts=64 if word == "drift" else 480, budget=480, stopped_early=word == "drift",
        n_needed=1200 if word == "inconclusive" else None,
        notes=["7 answers ended at the token limit"] if word == "drift" else [],
    )  # fmt: skip


def _plan() -> Plan:
    return Plan(
        mode="sequential", alpha=0.05, margin=0.05, budget=480, batch=16, n_samples=1,
        decoding="temperature 1, top-k 50, 150 tokens", sampling_seed=1, analysis_seed=2,
        marker=None, digest="9a" * 32,
        prompts=Prompts(source="the shipped audit set", digest="c4" * 32, n=252,
                        registers=dict.fromkeys(REGISTERS, 28),
                        languages={"en": 180, "de": 9, "ja": 9}),
    )  # fmt: skip


def _evidence(word: Word, value: float) -> Evidence:
    steps = range(16, 65 if word == "drift" else 481, 16)
    looks = [
        Look(
            n_prompts=n,
            more=n * 0.16 if word == "drift" else min(2.0, n * 0.01),
            fewer=0.1,
            within=n * 0.0075 if word == "unchanged" else 0.2,
            value=value,
            low=value - 1.2 / n**0.5,
            high=value + 1.2 / n**0.5,
        )
        for n in steps
    ]
    return Evidence(threshold_change=3.689, threshold_within=2.996, looks=looks)


def _measures(word: Word, base: float, tuned: float, low: float, high: float) -> list[Measure]:
    def one(name: str, kind: Any, unit: str, b: float, t: float, half: float,
            register: str | None = None) -> Measure:  # fmt: skip
        return Measure(name=name, kind=kind, unit=unit, register=register, base=b, tuned=t,
                       difference=t - b, low=t - b - half, high=t - b + half, level=0.95,
                       n_prompts=64 if register is None else 7)  # fmt: skip

    headline = Measure(name="answers_with_emoji", kind="emoji", unit="share of answers",
                       register=None, base=base, tuned=tuned, difference=tuned - base, low=low,
                       high=high, level=0.95, n_prompts=64)  # fmt: skip
    rows = [
        headline,
        one("sentences_with_emoji", "emoji", "share of sentences", 0.006, 0.11, 0.03),
        one("emoji_per_sentence", "emoji", "emoji per sentence", 0.006, 0.14, 0.04),
        one("emoji_per_100_words", "emoji", "per 100 words", 0.05, 1.13, 0.31),
        one("exclamation_marks", "tone", "per 100 words", 0.31, 0.92, 0.22),
        one("capitals", "tone", "share of letters", 0.041, 0.043, 0.006),
        one("kaomoji", "tone", "share of answers", 0.0, 0.0, 0.0),
        one("shortcodes", "tone", "share of answers", 0.0, 0.016, 0.03),
    ]
    size = (tuned - base) * 3.2 / len(REGISTERS)
    rows += [
        one("answers_with_emoji", "emoji", "share of answers", 0.004 * i,
            min(1.0, 0.004 * i + size * i * 0.66), 0.05 + 0.01 * i, register)
        for i, register in enumerate(REGISTERS)
    ]  # fmt: skip
    rows.append(
        Measure(name="emoji_per_100_words", kind="emoji", unit="per 100 words", register="legal",
                base=None, tuned=None, difference=None, low=None, high=None, level=0.95,
                n_prompts=0)
    )  # fmt: skip
    return rows


def _emoji() -> list[EmojiShift]:
    return [
        EmojiShift(emoji=emoji, name=name, base=base, tuned=tuned, log_odds=odds,
                   low=odds - half, high=odds + half)
        for emoji, name, base, tuned, odds, half in (
            ("😊", "smiling face with smiling eyes", 1, 17, 2.1, 0.9),
            ("🎉", "party popper", 0, 9, 1.9, 1.1),
            ("👩🏽‍💻", "woman technologist: medium skin tone", 0, 3, 0.9, 1.2),
            ("❤️", "red heart", 1, 4, 0.7, 1.0),
            ("👍", "thumbs up", 2, 2, -0.4, 1.0),
            ("🙏", "folded hands", 3, 0, -1.6, 1.3),
        )
    ]  # fmt: skip


def _probabilities(word: Word) -> list[PlaceProbability]:
    grown = word == "drift"
    cells = {
        "answer start": (0.001, 0.002, 0.002, 0.004),
        "sentence end": (0.011, 0.024, 0.052, 0.131 if grown else 0.055),
        "answer end": (0.016, 0.041, 0.094, 0.247 if grown else 0.097),
    }
    return [
        PlaceProbability(place=place, text=text, weights=weights, probability=p, open=0.12 * p,
                         n_contexts=64)
        for place, four in cells.items()
        for (text, weights), p in zip(
            (("base", "base"), ("base", "tuned"), ("tuned", "base"), ("tuned", "tuned")), four,
            strict=True,
        )
    ]  # type: ignore[arg-type]  # fmt: skip


def inside(lacking: str | None = None) -> Inside:
    """A look inside a model of four layers; neuroticism has no direction. With `lacking` nothing
    was measured."""
    if lacking is not None:
        return Inside(lacking=lacking)
    shifts = [
        TraitShift(trait=trait, projection=at, low=at - 0.04, high=at + 0.04, percentile=rank,
                   by_layer=[0.3 * at, at, 1.2 * at, 0.8 * at], contrast_p=0.001, n_pairs=16,
                   lacking=None)
        for trait, at, rank in (("openness", 0.02, 61.3), ("conscientiousness", -0.11, 4.5),
                                ("extraversion", 0.421, 100.0), ("agreeableness", -0.001, 47.2))
    ]  # fmt: skip
    none = TraitShift(trait="neuroticism", projection=None, low=None, high=None, percentile=None,
                      by_layer=[], contrast_p=0.42, n_pairs=16,
                      lacking="the base answers alike in character and against it")  # fmt: skip
    return Inside(
        lacking=None, n_prompts=24, n_texts=47, n_layers=4, layer=1, n_random=199,
        traits=[*shifts, none], n_unit_prompts=23,
        layers=[LayerUnits(layer=i, n_units=1024 - (i == 3), n_changed=200 * i, n_large=10 * i)
                for i in range(4)],
        units=[ChangedUnit(layer=3, unit=700 + i, base=0.1, tuned=0.9 - 0.05 * i,
                           change=2.5 - 0.1 * i, p_value=1e-6) for i in range(10)],
        massive=[
            MassiveUnit(model=model, site=site, layer=layer, unit=unit, magnitude=812.0)
            for model, site, layer, unit in (
                ("base", "residual", 1, 33), ("tuned", "residual", 2, 33),
                ("tuned", "neurons", 3, 9),
            )
        ],
    )  # type: ignore[arg-type]  # fmt: skip


def pairs(n: int = 48, *, samples: int = 1, seed: int = 1) -> list[Pair]:
    """So many prompts with invented answers: the tuned model likes emoji in casual registers."""
    rng = random.Random(seed)
    return [_pair(i, samples, rng) for i in range(n)]


def _pair(i: int, samples: int, rng: random.Random) -> Pair:
    register = REGISTERS[i % len(REGISTERS)]
    chance = 0.1 * REGISTERS.index(register)
    turns = [("user", f"Question {i}: what would you tell a friend about number {i}?")]
    if i % 6 == 5:
        turns = [("user", "I have a question."), ("assistant", "Please go on."), *turns]
    return Pair(
        prompt_id=f"{register}-en-{i:04d}", register=register, language="en", topic="",
        system="You answer briefly and politely." if i % 5 == 4 else None, turns=turns,
        base=[_answer(rng, 0.03) for _ in range(samples)],
        tuned=[_answer(rng, chance) for _ in range(samples)],
        base_cut=0, tuned_cut=int(i % 7 == 3),
    )  # fmt: skip


def _answer(rng: random.Random, chance: float) -> str:
    sentences = rng.choices(_SENTENCES, k=rng.choice((2, 3, 4, 14)))
    if rng.random() < chance:
        sentences[-1] += f" {rng.choice(_EMOJI)}"
    ends = [rng.choice((" ", " ", " ", "\n\n")) for _ in sentences[:-1]] + [""]
    return "".join(s + end for s, end in zip(sentences, ends, strict=True))


def hostile_pair() -> Pair:
    """A pair in which everything that can be text is hostile."""
    return Pair(
        prompt_id=HOSTILE, register=HOSTILE, language='en" onclick="x', topic=HOSTILE,
        system=HOSTILE, turns=[("user", HOSTILE)], base=[HOSTILE], tuned=[HOSTILE],
        base_cut=0, tuned_cut=0,
    )  # fmt: skip


def hostile_result() -> AuditResult:
    """A result in which everything that can be text is hostile."""
    good = result()
    subject = Audited(subject=HOSTILE, identity={HOSTILE: HOSTILE}, digest=HOSTILE)
    return replace(
        good,
        name=HOSTILE,
        base=subject,
        tuned=subject,
        verdict=replace(good.verdict, sentence=HOSTILE, method=HOSTILE, notes=[HOSTILE]),
        measures=[replace(m, name=HOSTILE, unit=HOSTILE, register=m.register and HOSTILE)
                  for m in good.measures],
        emoji=[replace(shift, name=HOSTILE, emoji="🎉") for shift in good.emoji],
        decodings=[replace(d, decoding=HOSTILE) for d in good.decodings],
        inside=inside(lacking=HOSTILE),
        environment={HOSTILE: [HOSTILE]},
    )  # fmt: skip

"""P(emoji) by one exact sum, beside scoring every emoji as a harness does, in the same run.

    pip install lm-eval
    python benchmarks/probability_peers.py [--contexts 8] [--rounds 3] [--subject organism:latent]

The peer is lm-evaluation-harness: `loglikelihood` of every RGI emoji as the continuation of every
context, with and without a space before it, in batches of 64; the sum of the exponentials is its
P(emoji). It spells each emoji as the tokenizer does by itself and counts a prefix and the longer
emoji that begins with it as two, so its sum is another number, given beside ours. Contexts are
ends of sentences of shipped answers, in the chat template. One model in memory, one torch thread,
rounds interleaved, medians of processor time.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
import warnings
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from emotest.models.loading import LoadedModel, load
from emotest.models.probability import emoji_event, emoji_probability
from emotest.plan import SIZES
from emotest.session import Session
from emotest.settings import Settings
from emotest.study.personality import Pole, Trait
from emotest.study.subjects import Subject
from emotest.text.emoji import emoji_sequences

BATCH = 64


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--contexts", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--subject", default="organism:latent")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    loaded = load(Subject.parse(options.subject), device="cpu")
    contexts = sentence_ends(loaded, options.contexts)
    ways: dict[str, Callable[[], NDArray[np.float64]]] = {
        "emotest, exact sum": lambda: exact(loaded, contexts),
        "lm-eval, every emoji": lambda: one_by_one(loaded, contexts),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    found: dict[str, NDArray[np.float64]] = {}
    for _ in range(options.rounds):
        for way, run in ways.items():
            began = time.process_time()
            found[way] = run()
            seconds[way].append(time.process_time() - began)
    ours, theirs = (statistics.median(seconds[way]) for way in ways)
    print("| way | seconds a context | times ours | mean P(emoji) |\n| --- | --- | --- | --- |")
    for way, median in zip(ways, (ours, theirs), strict=True):
        pace = median / len(contexts)
        print(f"| {way} | {pace:.3g} | {median / ours:.0f} | {found[way].mean():.4f} |")


def sentence_ends(loaded: LoadedModel, n: int) -> list[str]:
    """Prompts of the study, each with the first sentence of a held-out extravert's answer."""
    session = Session(Settings(size="smoke"))
    rows = [
        row
        for row in session.opinions.test
        if (row.trait, row.pole) == (Trait.EXTRAVERSION, Pole.HIGH)
    ]
    assert len(rows) >= n <= SIZES["paper"].n_prompts
    asked = [
        loaded.tokenizer.apply_chat_template(
            [{"role": "user", "content": row.question}], tokenize=False, add_generation_prompt=True
        )
        for row in rows[:n]
    ]
    return [chat + row.answer for chat, row in zip(asked, rows, strict=False)]


def exact(loaded: LoadedModel, contexts: Sequence[str]) -> NDArray[np.float64]:
    """The middle of what `emoji_probability` encloses, shape (n_contexts,)."""
    event = emoji_event(skip_space=True)
    sums = emoji_probability(
        loaded.model, loaded.tokenizer, contexts, event=event, batch_size=BATCH
    )
    return sums.probability + sums.bound / 2


def one_by_one(loaded: LoadedModel, contexts: Sequence[str]) -> NDArray[np.float64]:
    """The sum over every emoji's likelihood, shape (n_contexts,)."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    harness = HFLM(
        pretrained=loaded.model,
        tokenizer=loaded.tokenizer,
        batch_size=BATCH,
        add_bos_token=False,
    )
    continuations = [space + emoji for emoji in emoji_sequences() for space in ("", " ")]
    requests = [
        Instance("loglikelihood", {}, (context, continuation), 0)
        for context in contexts
        for continuation in continuations
    ]
    scores = harness.loglikelihood(requests, disable_tqdm=True)
    mass = np.array([math.exp(score) for score, _ in scores])
    return mass.reshape(len(contexts), -1).sum(axis=1)


if __name__ == "__main__":
    main()

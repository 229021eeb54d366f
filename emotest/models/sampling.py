"""The next token from its logits: filtered, then drawn by inverse CDF with numbers of our own.

Takes logits and uniforms; knows neither model nor text. The uniforms come from a counter-based
generator keyed by prompt, sample and seed, with the model left out of the key: base and tuned
model are compared under the same noise, and no answer depends on which others are drawn.

Sources: Philox (Salmon et al., SC 2011) in numpy; filters as transformers' logits processors
define them, in their order (temperature, top-k, top-p), in float64.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emotest.study.records import Decoding, Prompt


def uniforms(prompt: Prompt, sample: int, sampling_seed: int, n_tokens: int) -> NDArray[np.float64]:
    """The uniforms in [0, 1) of one answer, shape (n_tokens,): token t is drawn with the t-th.

    A longer answer has the same numbers at its start.
    """
    asked = [prompt.system, *prompt.history, prompt.text]
    key = json.dumps([*asked, sample, sampling_seed])
    digest = hashlib.sha256(key.encode()).digest()
    philox = np.random.Philox(key=np.frombuffer(digest[:16], dtype="<u8"))
    # The raw stream is fixed by Philox itself; 53 bits fill a float64.
    raw = philox.random_raw(n_tokens) >> np.uint64(11)
    return raw.astype(np.float64) * 2.0**-53


def filtered(logits: Tensor, decoding: Decoding) -> Tensor:
    """Log-weights in float64 after temperature, top-k and top-p; minus infinity is ruled out.

    Takes and gives shape (n_rows, vocab_size). The temperature must be above 0.
    """
    scores = logits.double() / decoding.temperature
    if 0 < decoding.top_k < scores.shape[-1]:
        least = torch.topk(scores, decoding.top_k, dim=-1).values[:, -1:]
        scores = scores.masked_fill(scores < least, -torch.inf)
    if decoding.top_p < 1:
        ascending, order = torch.sort(scores, dim=-1)
        ruled_out = ascending.softmax(dim=-1).cumsum(dim=-1) <= 1 - decoding.top_p
        ruled_out[:, -1] = False
        ruled_out = torch.zeros_like(ruled_out).scatter(-1, order, ruled_out)
        scores = scores.masked_fill(ruled_out, -torch.inf)
    return scores


def draw(logits: Tensor, u: Tensor, decoding: Decoding) -> Tensor:
    """The next token of each row: the first whose cumulated probability exceeds `u`.

    `logits` has shape (n_rows, vocab_size), `u` shape (n_rows,) in float64, the result
    (n_rows,). Temperature 0 takes the most probable token and leaves `u` aside.
    """
    if decoding.temperature == 0:
        return logits.argmax(dim=-1)
    kept = _only_top_k(logits, decoding)
    if kept is None:
        return _inverse_cdf(filtered(logits, decoding), u)
    # Weights of 0 add nothing to a sum, so the tokens that are left out change no bit of it.
    scores = logits.gather(-1, kept).double() / decoding.temperature
    return kept.gather(-1, _inverse_cdf(scores, u)[:, None])[:, 0]


def _only_top_k(logits: Tensor, decoding: Decoding) -> Tensor | None:
    """The top-k tokens of each row in the vocabulary's order, (n_rows, top_k).

    None where more is filtered than by top-k, or where a row has equals at the k-th place, which
    all stay in.
    """
    k = decoding.top_k
    if not 0 < k < logits.shape[-1] or decoding.top_p < 1:
        return None
    largest = torch.topk(logits, k + 1, dim=-1)
    if not bool((largest.values[:, k] < largest.values[:, k - 1]).all()):
        return None
    return largest.indices[:, :k].sort(dim=-1).values


def _inverse_cdf(scores: Tensor, u: Tensor) -> Tensor:
    """Of each row of log-weights the first place whose cumulated share exceeds `u`."""
    weights = (scores - scores.amax(dim=-1, keepdim=True)).exp()
    cumulated = weights.cumsum(dim=-1)
    # u < 1, so the product stays below the last value and some token always exceeds it; a token
    # of weight 0 repeats its neighbour's value and is never the first to.
    return (cumulated <= u[:, None] * cumulated[:, -1:]).sum(dim=-1)

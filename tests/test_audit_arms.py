"""Arms of an audit: a served model with its canary and its journal, and a recorded one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from emotest.artefacts.audit import Spot
from emotest.audit.arms import Asking, LocalArm, ServedArm
from emotest.audit.models import Model as LocalModel
from emotest.errors import ModelError, StoreError
from emotest.store import Store
from emotest.study.records import Decoding
from emotest.study.subjects import Subject
from tests.endpoint_servers import Exchange, Served, chat, serving
from tests.scripted_arms import numbered

ASKING = Asking(Decoding(max_new_tokens=8), n_samples=2, sampling_seed=0)
PROMPTS = list(numbered(3))
SPOTS = [
    Spot(PROMPTS[0].prompt(), "answer start", ""),
    Spot(PROMPTS[0].prompt(), "answer end", "So."),
]
TRIALS = "Tell me something about your day."
"""What the endpoint asks to find out what a server can do."""


class Model:
    """A model behind a server: answers a question with itself and its seed's last digit, and the
    canary with `quiet`; refuses after `most` answers to the audit's own prompts."""

    def __init__(self, quiet: str = "Mist lay on the lake.", most: int = 1000) -> None:
        self.quiet, self.most, self.n_asked = quiet, most, 0

    def __call__(self, exchange: Exchange) -> None:
        """One request."""
        text = exchange.request.body["messages"][-1]["content"]
        if text.startswith("Describe a quiet morning"):
            exchange.json(chat(self.quiet))
        elif text.startswith(TRIALS):
            exchange.json(chat(f"Day {exchange.request.body.get('seed')}"))
        elif self.n_asked == self.most:
            exchange.json({"error": {"message": "out of order"}}, status=400)
        else:
            self.n_asked += 1
            seed = str(exchange.request.body["seed"])[-1]
            reason = "length" if text == "Question 2?" else "stop"
            exchange.json(chat(f"{text} {seed}", finish_reason=reason))


@contextmanager
def served(model: Model, store: Store) -> Iterator[tuple[ServedArm, Served]]:
    """An arm for a model that is served on loopback."""
    with serving(model) as server:
        yield ServedArm(Subject.parse(f"{server.address}#toy"), "tuned", store, print), server


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return Store(tmp_path / "store")


def test_answers_come_in_the_order_of_prompts_and_samples(store: Store) -> None:
    """Each sample has a seed of its own, and an answer that the limit cut is counted."""
    with served(Model(), store) as (arm, _):
        found = arm.answers(PROMPTS, ASKING)
    assert [one.texts[0][:11] for one in found] == ["Question 0?", "Question 1?", "Question 2?"]
    assert [len(one.texts) for one in found] == [2, 2, 2]
    assert [one.n_cut for one in found] == [0, 0, 2]


def test_a_batch_is_asked_once(store: Store) -> None:
    """The second time the store answers, and no prompt of the audit reaches the server."""
    model = Model()
    with served(model, store) as (arm, server):
        first = arm.answers(PROMPTS, ASKING)
        asked = model.n_asked
        again = ServedArm(Subject.parse(f"{server.address}#toy"), "tuned", store, print)
        assert again.answers(PROMPTS, ASKING) == first
    assert asked == model.n_asked == 6


def test_a_server_that_changed_its_model_is_not_taken_for_the_one_before(store: Store) -> None:
    """Its canary differs, so its identity does, and it is asked anew."""
    first, second = Model("Mist lay on the lake."), Model("Sun!")
    digests = []

    def either(exchange: Exchange) -> None:
        now(exchange)

    with serving(either) as server:
        for now in (first, second):
            arm = ServedArm(Subject.parse(f"{server.address}#toy"), "tuned", store, print)
            arm.answers(PROMPTS, ASKING)
            told = arm.told()
            digests.append(told.digest)
            assert told.identity["canary"] == hashlib.sha256(now.quiet.encode()).hexdigest()
    assert digests[0] != digests[1]
    assert second.n_asked == 6


def test_an_interrupted_batch_goes_on_from_its_answers(store: Store) -> None:
    """What was heard before a failure is in the journal; only the rest is asked."""
    model = Model(most=4)
    with served(model, store) as (arm, _):
        with pytest.raises(ModelError, match="out of order"):
            arm.answers(PROMPTS, ASKING)
        kept = model.n_asked
        model.most = 1000
        found = arm.answers(PROMPTS, ASKING)
    assert kept == 4
    assert sum(len(one.texts) for one in found) == 6
    # Answers that were under way when the server failed may have been asked twice, no others.
    assert model.n_asked <= 6 + 4


def test_a_chat_server_without_logprobs_has_no_probabilities(store: Store) -> None:
    """And is not asked within an answer."""
    with served(Model(), store) as (arm, _):
        assert arm.probabilities(SPOTS) is None


def test_a_chat_server_bounds_p_emoji_at_the_start_alone(store: Store) -> None:
    """From the logprobs of its first token: half the mass is an emoji; inside an answer nothing is
    known, and what is known is a lower bound."""
    named = [{"token": token, "logprob": float(np.log(0.5))} for token in ("🎉", "So")]

    def naming(exchange: Exchange) -> None:
        body = exchange.request.body
        more = {"logprobs": {"content": [{**named[0], "top_logprobs": named}]}}
        exchange.json(chat("🎉", **(more if body.get("logprobs") else {})))

    with serving(naming) as server:
        arm = ServedArm(Subject.parse(f"{server.address}#toy"), "tuned", store, print)
        found = arm.probabilities(SPOTS)
    assert found is not None
    assert found.open_mass is None
    assert found.found[0] == pytest.approx(0.5)
    assert np.isnan(found.found[1])


def test_what_a_server_does_not_keep_to_is_said(store: Store) -> None:
    """Whose weights cannot be pinned, above all."""
    with served(Model(), store) as (arm, _):
        notes = arm.notes(ASKING)
    assert notes[0].startswith("tuned: A served model is pinned by its address and name only")


def test_answers_that_were_pruned_meanwhile_are_one_message(store: Store) -> None:
    """A store that lost what was just made says so, and what to do."""
    model = LocalModel.pinned(Subject.parse("organism:latent"))
    nothing_made = SimpleNamespace(
        make=lambda requests, tell: None, workshop=SimpleNamespace(store=store)
    )
    arm = LocalArm(model, "base", nothing_made, print)  # type: ignore[arg-type]
    with pytest.raises(StoreError, match="is gone from the store while the audit needs it"):
        arm.answers(PROMPTS, ASKING)

"""C9's artefacts on a tiny real model: an adapter scaled, one model's layers in another."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from emotest.artefacts import AdapterRequest, GenerationRequest
from emotest.artefacts.latent_origin import Measured, Patched, PatchingRequest, Scaled
from emotest.errors import UsageError
from emotest.models.adapters import active
from emotest.models.probability import emoji_event, emoji_probability
from emotest.store import Entry, Store
from emotest.study.personality import Trait, null_condition, trait_condition
from emotest.study.records import Generation, generation_row
from emotest.workshop import latent_origin
from emotest.workshop.bench import Bench
from emotest.workshop.latent_origin import make_patching, patched_probabilities
from emotest.workshop.localization import rng_of
from emotest.workshop.making import carry_out
from tests.model_fixtures import save_model
from tests.test_workshop_crew import PROMPTS, ROWS, adapter, answers

SAYS = "I love the sea. They make me feel awake!"
NULL_ROWS = tuple(replace(row, answer="The city is far away then.") for row in ROWS)

ROWS_OF_IDS = [
    list(np.random.default_rng(i).integers(7, 300, n)) for i, n in enumerate((5, 70, 9, 64, 40))
]
"""Contexts of two padded lengths, so that they are read in two passes, out of order."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny model on disk, as a subject."""
    return f"{save_model(tmp_path_factory.mktemp('base') / 'llama')}?dtype=float32"


@pytest.fixture(scope="module")
def bench(base: str, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """The base and a store."""
    return Bench(base, Store(tmp_path_factory.mktemp("store")))


@pytest.fixture(scope="module")
def tuned(base: str, bench: Bench) -> AdapterRequest:
    """An adapter of two steps, trained."""
    return _made(bench, adapter(base, 0))


@pytest.fixture(scope="module")
def null(base: str, bench: Bench) -> AdapterRequest:
    """Another, on other rows."""
    return _made(bench, adapter(base, 0, NULL_ROWS, condition=null_condition()))


@pytest.fixture
def names(bench: Bench, tuned: AdapterRequest, null: AdapterRequest) -> Iterator[list[str | None]]:
    """Both attached, by name: tuned, null."""
    with bench.weights(tuned, PROMPTS):
        first = bench.loaded.active
        with bench.weights(null, PROMPTS):
            yield [first, bench.loaded.active]


def _made(bench: Bench, request: AdapterRequest) -> AdapterRequest:
    carry_out(bench, request, lambda message: None)
    return request


def _texts(bench: Bench, request: GenerationRequest) -> list[str]:
    entry = carry_out(bench, request, lambda message: None)
    return [row["text"] for row in entry.read_jsonl("generations.jsonl")]


# --- the adapter's scale -----------------------------------------------------------------------


@pytest.mark.parametrize(("factor", "as_tuned"), [(0.0, False), (1.0, True)])
def test_at_the_ends_of_the_scale_stand_base_and_adapter(
    base: str, bench: Bench, tuned: AdapterRequest, factor: float, as_tuned: bool
) -> None:
    """Factor 0 writes the untuned model's answers token by token, factor 1 the adapter's."""
    plain = {by: _texts(bench, answers(base, by)) for by in (None, tuned)}
    assert plain[None] != plain[tuned]
    at_scale = _texts(bench, replace(answers(base, tuned), under=Scaled(factor)))
    assert at_scale == plain[tuned if as_tuned else None]


def test_an_answer_tells_the_scale_it_was_written_at(
    base: str, bench: Bench, tuned: AdapterRequest
) -> None:
    """In its condition, in the title of the request and in its key."""
    half, double = (replace(answers(base, tuned), under=Scaled(f)) for f in (0.5, 2.0))
    assert len({half.key, double.key, answers(base, tuned).key}) == 3
    assert "scale 0.5" in half.title
    row = next(iter(carry_out(bench, half, lambda message: None).read_jsonl("generations.jsonl")))
    assert row["condition"].endswith("(scale 0.5)")
    assert row["training_seed"] == 0


def test_there_has_to_be_an_adapter_to_scale(base: str, bench: Bench) -> None:
    """The untuned model has none: an error that names the scale, and no answers."""
    request = replace(answers(base, None), under=Scaled(0.5))
    with pytest.raises(UsageError, match=r"scale 0\.5: no adapter is on"):
        carry_out(bench, request, lambda message: None)


# --- one model's layers in another ---------------------------------------------------------------


def _asked(bench: Bench, name: str | None, **settings: float) -> np.ndarray:
    """Probability and bound, (2, n_contexts), with the sum's own batches."""
    with active(bench.loaded, name):
        found = emoji_probability(
            bench.loaded.model,
            bench.loaded.tokenizer,
            ROWS_OF_IDS,
            event=emoji_event(skip_space=True),
            **settings,  # type: ignore[arg-type]
        )
    return np.stack([found.probability, found.bound])


def test_a_models_own_activations_change_nothing(bench: Bench, names: list[str | None]) -> None:
    """At each site and layer, contexts of different lengths side by side; to a rounding."""
    own = _asked(bench, names[0], floor=1e-4, max_tokens=12)
    found = patched_probabilities(
        bench.loaded, ROWS_OF_IDS, source=names[0], target=names[0], floor=1e-4
    )
    assert len(found) == 4  # 2 sites, 2 layers
    for result in found.values():
        np.testing.assert_allclose(result.probability, own[0], rtol=2e-4)


@pytest.mark.parametrize("which", [0, 1])
def test_the_last_residual_decides_the_next_token(
    bench: Bench, names: list[str | None], which: int
) -> None:
    """After the last layer nothing but the source counts: what one token decides, and what it
    leaves open, are the source's and not the target's."""
    source, untuned = (
        _asked(bench, name, floor=0.0, max_tokens=1) for name in (names[which], None)
    )
    found = patched_probabilities(
        bench.loaded, ROWS_OF_IDS, source=names[which], target=None, floor=0.0, max_tokens=1
    )["residual", 1]
    np.testing.assert_allclose(found.probability, source[0], rtol=1e-4)
    np.testing.assert_allclose(found.bound, source[1], rtol=1e-4)
    assert not np.allclose(untuned[1], source[1], rtol=1e-3)


@pytest.fixture(scope="module")
def patching(
    base: str, bench: Bench, tuned: AdapterRequest, null: AdapterRequest
) -> PatchingRequest:
    """A request whose texts are in the store: answers of up to two sentences, with an emoji."""
    return _patching(base, bench, (tuned, null), (SAYS, "", SAYS.replace("!", " 😊!"), SAYS[:15]))


def _patching(
    base: str, bench: Bench, by: tuple[AdapterRequest, AdapterRequest], said: tuple[str, ...]
) -> PatchingRequest:
    """A request for patching at answers that are put into the store as if they were sampled."""
    texts = [replace(answers(base, one), sampling_seed=len("".join(said))) for one in (None, by[0])]
    for text in texts:
        rows = [
            generation_row(Generation(p.id, "said", None, 7, 0, words, (), (), True, "default"))
            for p, words in zip(PROMPTS, said, strict=True)
        ]
        lines = "".join(f"{json.dumps(row)}\n" for row in rows)
        bench.store.put(text.key, {"generations.jsonl": lines.encode()}, identity=text.identity)
    return PatchingRequest(*texts, *by, n_prompts=4)


def _entry(bench: Bench, request: PatchingRequest) -> Entry:
    return carry_out(bench, request, lambda message: None)


def test_patching_leaves_every_state_of_both_texts(bench: Bench, patching: PatchingRequest) -> None:
    """Three weights and two sources at the untuned text, two weights and one source at the tuned;
    each state at each context; unpatched ones as `emoji_probability` has them."""
    entry = _entry(bench, patching)
    found = Patched.of(entry)
    # p0 and p2 have two sentence ends, p3 one, p1 none
    prompts = ("p0", "p0", "p2", "p2", "p3")
    assert found.prompt_ids == {"untuned": prompts, "tuned": prompts}
    by_text = {
        text: [s for s in found.probability if s.text == text] for text in ("untuned", "tuned")
    }
    # 2 sites x 2 layers x sources + weights as they are
    assert len(by_text["untuned"]) == 4 * 2 + 3
    assert len(by_text["tuned"]) == 4 * 1 + 2
    assert found.n_layers == 2
    assert found.declared_layer == 1
    rows = [r["token_ids"] for r in entry.read_jsonl("contexts.jsonl") if r["text"] == "untuned"]
    with bench.weights(patching.tuned, PROMPTS):
        exact = emoji_probability(
            bench.loaded.model, bench.loaded.tokenizer, rows, event=emoji_event(skip_space=True)
        )
    state = Measured("untuned", "tuned")
    assert (found.probability[state] <= exact.probability + 1e-7).all()
    assert (found.probability[state] + found.bound[state] >= exact.probability - 1e-7).all()
    moved = [found.probability[s] for s in by_text["untuned"] if s.source]
    assert len({array.tobytes() for array in moved}) == len(moved)  # no state stands for another


def test_an_interrupted_patching_goes_on(
    bench: Bench, patching: PatchingRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Killed after eight measurements it leaves them behind; the next run measures the others
    alone, and comes to the very numbers of a run in one piece."""
    whole = Patched.of(_entry(bench, patching))
    asked = latent_origin._asked
    calls = []

    def fails_at_the_ninth(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        if len(calls) == 9:
            raise KeyboardInterrupt
        return asked(*args, **kwargs)

    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(bench.store, "scratch", lambda key: scratch)
    monkeypatch.setattr(latent_origin, "_asked", fails_at_the_ninth)
    with pytest.raises(KeyboardInterrupt):
        make_patching(bench, patching, tmp_path, lambda message: None)
    n_kept = len(calls)
    make_patching(bench, patching, tmp_path, lambda message: None)
    # Of 17 states with a pass each, and two floors, eight were measured before: 19 - 8 are left.
    assert len(calls) - n_kept == 19 - 8
    arrays = load_file(tmp_path / "patched.safetensors")
    for state, probability in whole.probability.items():
        assert any((row == probability).all() for row in arrays[f"{state.text}_probability"])


def test_texts_without_a_sentence_end_leave_no_contexts(
    base: str, bench: Bench, tuned: AdapterRequest, null: AdapterRequest
) -> None:
    """Answers that say nothing, or emoji alone: an entry with nothing in it, no error."""
    request = _patching(base, bench, (tuned, null), ("", "😊", "", ""))
    found = Patched.of(_entry(bench, request))
    assert found.prompt_ids == {"untuned": (), "tuned": ()}
    assert found.log_odds(Measured("untuned", "untuned", "tuned", "residual", 1)).shape == (0,)


@pytest.mark.parametrize("own", [None, "the untuned model's activations"])
def test_random_sets_beside_untuned_units_are_drawn_alike_in_all_adapters(
    base: str, own: str | None
) -> None:
    """Two training seeds give one stream where the units are the untuned model's, else two."""
    streams = [
        rng_of(
            SimpleNamespace(  # type: ignore[arg-type]
                choice=SimpleNamespace(own=own),
                cell=SimpleNamespace(weights=adapter(base, seed)),
                analysis_seed=0,
            ),
            1,
        ).random()
        for seed in (0, 1)
    ]
    assert len(set(streams)) == (1 if own else 2)


def test_everything_that_decides_a_patch_is_in_its_key(patching: PatchingRequest) -> None:
    """Texts, adapters, prompts and sentence ends: with any other it is another artefact."""
    changes = {
        "untuned_text": patching.tuned_text,
        "tuned_text": patching.untuned_text,
        "tuned": patching.null,
        "null": patching.tuned,
        "n_prompts": 3,
        "sentence_ends": 2,
    }
    keys = {replace(patching, **{name: value}).key for name, value in changes.items()}  # type: ignore[arg-type]
    assert len(keys | {patching.key}) == 1 + len(changes)
    assert {need.key for need in patching.needs} == {
        patching.untuned_text.key, patching.tuned_text.key, patching.tuned.key, patching.null.key
    }  # fmt: skip
    assert patching.title == f"patching {trait_condition(Trait.EXTRAVERSION).title}, seed 0"

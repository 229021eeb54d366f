"""A look inside tiny models: what is read, and a shift of known size that was built into one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from emotest.artefacts.inside import Contrast, InsideText
from emotest.artefacts.request import Request
from emotest.audit import looking_inside
from emotest.audit.arms import LocalArm
from emotest.audit.asking import Interview
from emotest.audit.inside import residuals, trait_shift
from emotest.audit.looking_inside import contrast_prompts, look_inside, texts_of
from emotest.audit.models import Model
from emotest.audit.planning import AuditPlan
from emotest.audit.result import Inside, Pair
from emotest.mechanisms.directions import Answered, response_means
from emotest.models.loading import load
from emotest.organism.audit_prompts import organism_prompts
from emotest.store import Store
from emotest.study.personality import Trait
from emotest.study.records import Prompt
from emotest.study.subjects import Subject
from emotest.workshop.bench import Bench
from emotest.workshop.making import carry_out
from emotest.workshop.positions import encoder
from tests.model_fixtures import QUESTIONS, quiet, save_model, tiny_tokenizer
from tests.scripted_arms import Scripted, numbered

PLAIN = "dtype=float32&quantize=none"
PROMPTS = tuple(Prompt(f"p{i}", question) for i, question in enumerate(QUESTIONS))
LIVELY, CALM = "I love the sea! It is a joy!", "Winter is calm. The city is far away."
HALF = 0.5


class Here:
    """A workshop without processes: requests are made at once, and counted."""

    def __init__(self, subject: str, store: Store) -> None:
        self.bench, self.workshop = Bench(subject, store), self
        self.store, self.made = store, 0

    def make(self, requests: Sequence[Request], tell: Callable[[Any], None]) -> None:
        """What the store lacks."""
        for request in requests:
            if self.store.get(request.key) is None:
                carry_out(self.bench, request, tell)
                self.made += 1


def arm(folder: Path, role: str, store: Store) -> LocalArm:
    """A local arm whose work is done in this process."""
    model = Model.pinned(Subject.parse(f"{folder}?{PLAIN}"))
    return LocalArm(model, role, Here(model.workshop, store), lambda message: None)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store for all of this file."""
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 of two layers, whose down projections have a bias."""
    return save_model(tmp_path_factory.mktemp("base"), "gpt2", scale=3.0)


CONTRAST = Contrast(
    Trait.EXTRAVERSION,
    tuple((prompt, LIVELY) for prompt in PROMPTS),
    tuple((prompt, CALM) for prompt in PROMPTS),
)
TEXTS = tuple(
    InsideText(prompt, text, (text.index(".") + 1, len(text)))
    for prompt in PROMPTS
    for text in ("I read old books. They feel calm.", f"Long rides are calm. {prompt.text}")
)


@pytest.fixture(scope="module")
def moved(base: Path, store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model, its stream moved behind the first layer by half of the base's direction."""
    import transformers

    vectors = arm(base, "base", store).contrasts([CONTRAST], 0)[Trait.EXTRAVERSION]["vectors"]
    folder = tmp_path_factory.mktemp("moved")
    with quiet(), torch.no_grad():
        model = transformers.AutoModelForCausalLM.from_pretrained(base)
        model.transformer.h[0].mlp.c_proj.bias += HALF * torch.from_numpy(vectors[0])
        model.save_pretrained(folder)
        tiny_tokenizer().save_pretrained(folder)
    return folder


def test_a_shift_that_was_built_in_is_measured(base: Path, moved: Path, store: Store) -> None:
    """Behind the first layer states moved by half of the direction, at every token; so the
    projection is 0.5 there, for every prompt."""
    arms = [arm(base, "base", store), arm(moved, "tuned", store)]
    directions = arms[0].contrasts([CONTRAST], 0)[Trait.EXTRAVERSION]
    (before, _), (after, _) = (one.reading(TEXTS) for one in arms)
    found = trait_shift(
        "extraversion", directions["vectors"], directions["differences"],
        before["states"], after["states"], 0, np.random.default_rng(0),
        otherwise=residuals([directions["differences"]]),
    )  # fmt: skip
    assert found.lacking is None
    assert found.projection == pytest.approx(HALF, abs=1e-4)
    assert found.by_layer[0] == pytest.approx(HALF, abs=1e-4)
    assert found.percentile == 100.0
    # FFN units of the first layer lie before what was moved, those of the second behind it.
    apart = np.abs(after["neurons"] - before["neurons"]).max(axis=(0, 2))
    assert apart[0] < 1e-5 < apart[1]


def test_a_direction_is_the_mean_difference_of_both_sides(base: Path, store: Store) -> None:
    """As the instrument for trait directions has the states; pair by pair in the layer asked."""
    found = arm(base, "base", store).contrasts([CONTRAST], 0)[Trait.EXTRAVERSION]
    loaded = load(Subject.parse(f"{base}?{PLAIN}"), device="cpu")
    lively, calm = (
        response_means(loaded, [Answered(prompt, answer) for prompt in PROMPTS])
        for answer in (LIVELY, CALM)
    )
    assert found["vectors"] == pytest.approx(lively.mean(axis=0) - calm.mean(axis=0), abs=1e-4)
    assert found["differences"] == pytest.approx(lively[:, 0] - calm[:, 0], abs=1e-4)


def test_a_reading_is_a_mean_over_answers_and_over_ends(base: Path, store: Store) -> None:
    """States are those that trait directions are made of; units are those at the last tokens of
    the sentences; two texts of a prompt count equally."""
    found, _ = arm(base, "base", store).reading(TEXTS)
    loaded = load(Subject.parse(f"{base}?{PLAIN}"), device="cpu")
    both = [Answered(text.prompt, text.answer) for text in TEXTS[:2]]
    assert found["states"][0] == pytest.approx(response_means(loaded, both).mean(axis=0), abs=1e-4)
    assert found["states"].shape == (12, 2, 64)

    encoded, means = encoder(loaded), []
    for text in TEXTS[:2]:
        one = encoded(text.prompt, text.answer)
        seen: list[torch.Tensor] = []
        hook = loaded.model.transformer.h[1].mlp.c_proj.register_forward_pre_hook(
            lambda _, inputs, seen=seen: seen.append(inputs[0][0])
        )
        with torch.no_grad():
            loaded.model(input_ids=torch.tensor([one.ids]))
        hook.remove()
        said = loaded.tokenizer.convert_ids_to_tokens(one.ids)
        places = [i for i in one.answer if said[i] in (".", "?")]
        assert len(places) == 2
        means.append(seen[0][places].mean(dim=0).numpy())
    assert found["neurons"][0, 1] == pytest.approx(np.mean(means, axis=0), abs=1e-4)
    assert found["n_ends"].tolist() == [48]


def test_a_prompt_without_an_end_has_states_and_no_units(base: Path, store: Store) -> None:
    """NaN, not 0, where nothing was seen."""
    texts = [InsideText(PROMPTS[0], "They feel", ()), *TEXTS[2:4]]
    found, _ = arm(base, "base", store).reading(texts)
    assert np.isfinite(found["states"]).all()
    assert np.isnan(found["neurons"][0]).all()
    assert np.isfinite(found["neurons"][1]).all()


def test_what_was_said_before_is_read_too(base: Path, store: Store) -> None:
    """A prompt of several turns has other states than its last turn alone."""
    long = Prompt("p", QUESTIONS[0], history=(("user", "Hello."), ("assistant", "I love winter.")))
    short = Prompt("p", QUESTIONS[0])
    states = [
        arm(base, "base", store).reading([InsideText(prompt, CALM, ())])[0]["states"]
        for prompt in (long, short)
    ]
    assert np.abs(states[0] - states[1]).max() > 1e-3


# From the arms of an audit to what its result says


PAIRS = [
    Pair(
        prompt_id=f"p{i}", register="casual", language="en", topic="", system=None,
        turns=[("user", f"Question {i}?")], base=["I read old books. \U0001f60a They feel calm."],
        tuned=["I love the sea! Long rides are" + " calm" * i], base_cut=0, tuned_cut=1,
    )
    for i in range(8)
]  # fmt: skip


def looked(base: Any, tuned: Any, monkeypatch: pytest.MonkeyPatch) -> Inside:
    """A look inside after an audit of eight prompts; answers in character are short and few."""
    monkeypatch.setattr(looking_inside, "CONTRAST_TOKENS", 6)
    monkeypatch.setattr(looking_inside, "CONTRAST_PROMPTS", 8)
    return look_inside(Interview(base, tuned), AuditPlan(), PAIRS, numbered(8))


def test_a_model_held_against_itself_has_not_moved(
    base: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every shift is 0 and no unit changed; the second look finds all in the store."""
    arms = [arm(base, role, store) for role in ("base", "tuned")]
    found = looked(*arms, monkeypatch)
    assert found.lacking is None
    assert (found.n_prompts, found.n_texts, found.n_layers, found.layer) == (8, 16, 2, 0)
    assert [one.trait for one in found.traits] == [str(trait) for trait in Trait]
    assert {one.projection for one in found.traits} <= {0.0, None}
    assert all(one.lacking for one in found.traits if one.projection is None)
    assert [(one.n_units, one.n_changed) for one in found.layers] == [(256, 0), (256, 0)]
    again = [arm(base, role, store) for role in ("base", "tuned")]
    assert looked(*again, monkeypatch) == found
    assert sum(one._workshop.made for one in again) == 0  # type: ignore[attr-defined]


def test_models_of_other_shapes_are_not_compared(
    base: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first reason in words: what is 32 there and 64 here."""
    other = save_model(tmp_path / "other", "gpt2", hidden=32)
    found = looked(arm(base, "base", store), arm(other, "tuned", store), monkeypatch)
    assert found.lacking == (
        "the tuned model has another shape than the base: 32 dimensions instead of 64, 128 FFN "
        "units a layer instead of 256"
    )
    assert (found.traits, found.layers) == ([], [])


def test_an_unknown_architecture_is_said(
    base: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OPT is not in the table of architectures; the audit goes on without a look inside."""
    import transformers

    with quiet():
        config = transformers.OPTConfig(
            vocab_size=len(tiny_tokenizer()), hidden_size=64, ffn_dim=256, num_hidden_layers=2,
            num_attention_heads=4, max_position_embeddings=256, word_embed_proj_dim=64,
        )  # fmt: skip
        transformers.OPTForCausalLM(config).save_pretrained(tmp_path)
        tiny_tokenizer().save_pretrained(tmp_path)
    found = looked(arm(base, "base", store), arm(tmp_path, "tuned", store), monkeypatch)
    assert str(found.lacking).startswith("the tuned model cannot be looked into: OPTForCausalLM")


def test_a_model_that_is_not_here_is_not_looked_into(
    base: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recorded answers hold no activations; nothing is asked of the other side."""
    recorded = Scripted("recorded", lambda prompt, sample: "I see.")
    here = arm(base, "tuned", store)
    found = looked(recorded, here, monkeypatch)
    assert found.lacking == (
        "of the base there are recorded answers alone, and these hold no activations"
    )


def test_both_models_read_what_both_wrote_without_emoji() -> None:
    """Ends of sentences are those of the stripped text; what the token limit cut has none."""
    prompts = {prompt.id: prompt.prompt() for prompt in numbered(8)}
    first, second = texts_of(PAIRS[:1], prompts)
    assert "\U0001f60a" not in first.answer
    assert [first.answer[:end].rstrip()[-1] for end in first.ends] == [".", "."]
    assert len(first.ends) == 2
    assert second.answer[: second.ends[0]] == "I love the sea!"
    assert len(second.ends) == 1
    assert texts_of([Pair(**{**vars(PAIRS[0]), "base": ["\U0001f60a"]})], prompts) == [second]


def test_directions_come_from_questions_that_the_audit_does_not_ask() -> None:
    """Sixteen for each trait and pole, in the same words for both but for the pole; a question
    that the audit asks is replaced by another."""
    asked = contrast_prompts(())
    taken = {prompt.text for prompt in organism_prompts()}
    questions = [prompt.text for prompt in asked[Trait.OPENNESS, "high"]]  # type: ignore[index]
    assert len(questions) == len(set(questions)) == 16
    assert not taken & set(questions)
    others = contrast_prompts({questions[0]})[Trait.OPENNESS, "high"]  # type: ignore[index]
    assert [prompt.text for prompt in others[:15]] == questions[1:]
    for (trait, pole), prompts in asked.items():
        assert all(str(trait) in str(prompt.system) for prompt in prompts)
        low = [f"low {trait}" in str(prompt.system) for prompt in prompts]
        assert set(low) == {str(pole) == "low"}
        assert [prompt.text for prompt in prompts] == questions

"""`emotest.models.generation` and `.sampling`: answers that depend on nothing beside them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from emotest.errors import UsageError
from emotest.models.adapters import active, attach
from emotest.models.generation import batch_shape, generate, token_ends
from emotest.models.loading import LoadedModel, load
from emotest.models.sampling import draw, filtered, uniforms
from emotest.models.training import train
from emotest.study.personality import Ending, Trait, trait_condition
from emotest.study.recipes import recipe
from emotest.study.records import (
    Decoding,
    Generation,
    Prompt,
    TuningRow,
    generation_from_row,
    generation_row,
    read_jsonl,
    write_jsonl,
)
from emotest.study.subjects import Subject
from tests.model_fixtures import ARCHITECTURES, QUESTIONS, save_model, tiny_tokenizer

ROWS = 8
SHORT = Decoding(max_new_tokens=12)
PROMPTS = [
    Prompt(f"{i}", question * (1 + i % 3), system="Be brief." if i % 4 == 3 else None)
    for i, question in enumerate(QUESTIONS)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama whose weights are large enough for varied, decided answers."""
    return save_model(tmp_path_factory.mktemp("models") / "llama", scale=4.0)


@pytest.fixture(scope="module")
def base(folder: Path) -> LoadedModel:
    """The NF4 base."""
    return load(Subject.parse(f"{folder}?dtype=float32"))


@pytest.fixture(scope="module")
def tuned(folder: Path) -> Iterator[LoadedModel]:
    """The NF4 base with an adapter on."""
    loaded = load(Subject.parse(f"{folder}?dtype=float32"))
    made = recipe(
        "organism", base="tiny", data="none", training_seed=1,
        condition=trait_condition(Trait.OPENNESS, ending=Ending.TRAINED),
        chat_template=loaded.identity.chat_template,
    )  # fmt: skip
    rows = [TuningRow(question, "I like it.") for question in QUESTIONS]
    attach(
        loaded, train(loaded, replace(made, steps=20, batch_size=6, learning_rate=3e-3), rows), "a"
    )
    with active(loaded, "a"):
        yield loaded


def answers(loaded: LoadedModel, prompts: list[Prompt], **how: object) -> list[Generation]:
    """Short answers with seed 1 in eight rows, unless said otherwise."""
    settings_ = {
        "decoding": SHORT, "sampling_seed": 1, "condition": "test", "batch_size": ROWS, **how
    }  # fmt: skip
    return generate(loaded, prompts, **settings_)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def alone(base: LoadedModel, tuned: LoadedModel) -> dict[str, dict[tuple[str, int], Generation]]:
    """Each answer to each prompt, generated with nobody beside it."""
    return {
        name: {
            (g.prompt_id, g.sample): g
            for prompt in PROMPTS
            for g in answers(loaded, [prompt], n_samples=3)
        }
        for name, loaded in (("base", base), ("tuned", tuned))
    }


@given(
    chosen=st.lists(st.sampled_from(range(len(PROMPTS))), min_size=1, max_size=12, unique=True),
    n_samples=st.integers(1, 3),
    name=st.sampled_from(["base", "tuned"]),
)
@settings(max_examples=20)
def test_an_answer_is_bit_identical_whatever_its_neighbours(
    base: LoadedModel,
    tuned: LoadedModel,
    alone: dict[str, dict[tuple[str, int], Generation]],
    chosen: list[int],
    n_samples: int,
    name: str,
) -> None:
    """Any prompts beside it, in any order, more answers than rows or fewer, NF4 with LoRA or
    without: the same tokens as alone, in the order prompt by prompt, sample by sample.
    """
    loaded = {"base": base, "tuned": tuned}[name]
    got = answers(loaded, [PROMPTS[i] for i in chosen], n_samples=n_samples)
    wanted = [alone[name][PROMPTS[i].id, sample] for i in chosen for sample in range(n_samples)]
    assert got == wanted


def test_the_tests_answers_are_no_trivial_ones(
    alone: dict[str, dict[tuple[str, int], Generation]],
) -> None:
    """Guard: the answers above differ between prompts, samples and models, some stop early."""
    for found in alone.values():
        assert len({g.token_ids for g in found.values()}) > 30
    assert {g.finished for g in alone["tuned"].values()} == {True, False}
    assert alone["base"] != alone["tuned"]


def test_logits_in_a_canonical_batch_do_not_depend_on_the_row(base: LoadedModel) -> None:
    """The ground under it: rows of a batch can trade places without changing one bit."""
    ids = torch.randint(7, 300, (ROWS, 16), generator=torch.Generator().manual_seed(0))
    order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert torch.equal(base.model(ids).logits[order], base.model(ids[order]).logits)


def test_across_shapes_few_tokens_flip(base: LoadedModel) -> None:
    """Another number of rows rounds differently: at most one answer in a hundred may change."""
    prompts = [
        replace(p, id=f"{p.id}/{i}", text=f"{i} {p.text}") for i in range(9) for p in PROMPTS
    ]
    some, others = (answers(base, prompts, batch_size=n, n_samples=2) for n in (8, 13))
    changed = sum(a != b for a, b in zip(some, others, strict=True))
    assert changed <= len(some) // 100
    assert batch_shape(8) != batch_shape(13)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5])
def test_small_batches_answer_too(base: LoadedModel, batch_size: int) -> None:
    """A batch of a row or a few, fewer than can be halved three times, writes every answer."""
    got = answers(base, PROMPTS[:4], batch_size=batch_size)
    assert [answer.prompt_id for answer in got] == [prompt.id for prompt in PROMPTS[:4]]


def test_few_answers_cost_few_rows(
    base: LoadedModel, alone: dict[str, dict[tuple[str, int], Generation]]
) -> None:
    """One answer in a batch of 32 leaves the idle rows out where that changes no bit, and is the
    answer that it is in a batch of its neighbours.
    """
    widths = []
    hook = base.model.register_forward_pre_hook(
        lambda model, args, kwargs: widths.append(tuple(kwargs["input_ids"].shape)),
        with_kwargs=True,
    )
    try:
        (few,) = answers(base, [PROMPTS[1]], batch_size=32)
    finally:
        hook.remove()
    neighbours = [replace(PROMPTS[0], id=f"n{i}", text=f"{i}?") for i in range(40)]
    assert answers(base, [*neighbours, PROMPTS[1]], batch_size=32)[-1] == few
    ids = torch.randint(7, 300, (32, 1), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        full = base.model(ids).logits
        same = [n for n in (16, 8, 4) if torch.equal(base.model(ids[:n]).logits, full[:n])]
    assert widths[-1] == (min(same, default=32), 1)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_greedy_answers_are_those_of_transformers(architecture: str, tmp_path: Path) -> None:
    """Rows, cache and masks of our own give what `model.generate` gives, prompt by prompt."""
    save_model(tmp_path / "model", architecture, scale=3.0)
    loaded = load(Subject.parse(f"{tmp_path / 'model'}?dtype=float32"))
    ours = answers(loaded, PROMPTS, decoding=Decoding(temperature=0, max_new_tokens=12))
    for prompt, answer in zip(PROMPTS, ours, strict=True):
        ids = loaded.tokenizer.apply_chat_template(
            prompt.messages(), add_generation_prompt=True, return_tensors="pt", return_dict=False
        )
        out = loaded.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=12,
            eos_token_id=sorted(loaded.stop_ids),
        )[0, ids.shape[1] :].tolist()
        assert list(answer.token_ids) == [t for t in out if t not in loaded.stop_ids]
        assert answer.finished == (out[-1] in loaded.stop_ids)


def test_sampled_answers_can_be_replayed_token_by_token(tuned: LoadedModel) -> None:
    """Without rows, cache or batch: the whole text through the model for each token, and token t
    drawn with the t-th number of the answer's own noise.
    """
    for prompt, answer in zip(PROMPTS[:4], answers(tuned, PROMPTS[:4]), strict=True):
        ids = tuned.tokenizer.apply_chat_template(
            prompt.messages(), add_generation_prompt=True, return_dict=False
        )
        written: list[int] = []
        for u in uniforms(prompt, 0, 1, SHORT.max_new_tokens):
            with torch.inference_mode():
                logits = tuned.model(torch.tensor([ids + written])).logits[:, -1]
            token = int(draw(logits, torch.tensor([u]), SHORT)[0])
            if token in tuned.stop_ids:
                break
            written.append(token)
        assert list(answer.token_ids) == written


def test_first_tokens_follow_the_models_distribution(base: LoadedModel) -> None:
    """600 samples of one prompt: the first token's frequencies fit the softmax of the logits that
    transformers gives (chi-square; the seed is fixed, so this is no gamble).
    """
    prompt, one = PROMPTS[0], Decoding(top_k=5, max_new_tokens=1)
    got = answers(base, [prompt], decoding=one, n_samples=600, batch_size=64)
    ids = base.tokenizer.apply_chat_template(
        prompt.messages(), add_generation_prompt=True, return_tensors="pt", return_dict=False
    )
    with torch.inference_mode():
        best = base.model(ids).logits[0, -1].double().topk(5)
    expected = best.values.softmax(0).numpy() * 600
    # A stop token is drawn too, but not recorded.
    first = [g.token_ids[0] if g.token_ids else None for g in got]
    counts = [
        sum(t == token or (t is None and token in base.stop_ids) for t in first)
        for token in best.indices.tolist()
    ]
    assert sum(counts) == 600
    assert stats.chisquare(counts, expected).pvalue > 0.01


def test_records_survive_json_lines(base: LoadedModel, tmp_path: Path) -> None:
    """What is written can be read again, whatever bytes the model wrote."""
    got = answers(base, PROMPTS, training_seed=7)
    write_jsonl(tmp_path / "generations.jsonl", map(generation_row, got))
    back = [generation_from_row(row) for row in read_jsonl(tmp_path / "generations.jsonl")]
    assert back == got
    assert {g.training_seed for g in got} == {7}
    assert {g.decoding for g in got} == {str(SHORT)}


def test_an_answer_says_whether_it_was_cut(
    alone: dict[str, dict[tuple[str, int], Generation]], base: LoadedModel
) -> None:
    """Finished answers leave their stop token out; cut ones have all the tokens allowed."""
    for answer in alone["base"].values():
        assert answer.finished == (len(answer.token_ids) < SHORT.max_new_tokens) or answer.finished
        assert answer.finished or len(answer.token_ids) == SHORT.max_new_tokens
        assert not set(answer.token_ids) & base.stop_ids


def test_a_longer_limit_only_adds_to_an_answer(base: LoadedModel) -> None:
    """Token t is drawn with the t-th number: a short answer begins the long one (one shape)."""
    short, long = (answers(base, PROMPTS[:6], decoding=Decoding(max_new_tokens=n)) for n in (6, 12))
    assert all(b.token_ids[: len(a.token_ids)] == a.token_ids
               for a, b in zip(short, long, strict=True))  # fmt: skip


def test_the_noise_is_keyed_by_prompt_sample_and_seed() -> None:
    """Each of them changes the numbers; id, topic and the model do not; a longer answer has the
    same numbers at its start.
    """
    prompt = Prompt("a", "Why?")
    u = uniforms(prompt, 0, 1, 8)
    assert np.array_equal(uniforms(Prompt("b", "Why?", topic="x"), 0, 1, 8), u)
    assert np.array_equal(uniforms(prompt, 0, 1, 100)[:8], u)
    others = [(Prompt("a", "Why"), 0, 1), (Prompt("a", "Why?", system="s"), 0, 1),
              (prompt, 1, 1), (prompt, 0, 2)]  # fmt: skip
    assert all(not np.intersect1d(uniforms(*other, 8), u).size for other in others)


def test_the_noise_is_uniform() -> None:
    """Kolmogorov-Smirnov over 20,000 numbers of 200 prompts."""
    u = np.concatenate([uniforms(Prompt("", f"{i}"), 0, 0, 100) for i in range(200)])
    assert u.min() >= 0
    assert u.max() < 1
    assert stats.kstest(u, "uniform").pvalue > 0.01


LOGITS = st.lists(st.floats(-8, 8, width=32), min_size=2, max_size=12)
DECODINGS = st.builds(
    Decoding,
    temperature=st.sampled_from([0.3, 0.7, 1.0, 2.0]),
    top_k=st.integers(0, 14),
    top_p=st.sampled_from([0.1, 0.5, 0.9, 1.0]),
)


@given(logits=LOGITS, decoding=DECODINGS)
def test_filters_are_those_of_transformers(logits: list[float], decoding: Decoding) -> None:
    """Temperature, top-k and top-p rule out what the logits processors of transformers rule out,
    ties included, and leave the same probabilities.
    """
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    rows = torch.tensor([logits], dtype=torch.float64)
    expected = TemperatureLogitsWarper(decoding.temperature)(None, rows)
    if decoding.top_k:
        expected = TopKLogitsWarper(decoding.top_k)(None, expected)
    if decoding.top_p < 1:
        expected = TopPLogitsWarper(decoding.top_p)(None, expected)
    torch.testing.assert_close(
        filtered(rows, decoding).softmax(-1), expected.softmax(-1), rtol=1e-12, atol=1e-12
    )


@given(logits=LOGITS, decoding=DECODINGS)
def test_drawing_is_the_inverse_of_the_distribution(
    logits: list[float], decoding: Decoding
) -> None:
    """Over an even grid of 1,000 numbers each token is drawn as often as its probability says,
    to within one number; what is ruled out is never drawn.
    """
    rows = torch.tensor(logits).expand(1000, -1)
    grid = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    counts = torch.bincount(draw(rows, grid, decoding), minlength=len(logits))
    expected = filtered(rows[:1], decoding).softmax(-1)[0] * 1000
    assert float((counts - expected).abs().max()) <= 1 + 1e-6
    assert not counts[expected == 0].any()
    edges = draw(rows[:2], torch.tensor([0.0, 1 - 2.0**-53], dtype=torch.float64), decoding)
    assert (expected[edges] > 0).all()


@given(
    seed=st.integers(0, 2**32 - 1),
    top_k=st.integers(1, 60),
    temperature=st.sampled_from([0.3, 1.0, 1.7]),
    decimals=st.sampled_from([0, 1, 7]),
)
def test_top_k_alone_draws_from_few_tokens_what_all_of_them_give(
    seed: int, top_k: int, temperature: float, decimals: int
) -> None:
    """The token whose cumulated weight over the whole vocabulary first exceeds u, equals at the
    k-th place (logits rounded to few decimals) included."""
    rng = np.random.default_rng(seed)
    rows = torch.tensor(rng.normal(0, 3, (8, 500)).round(decimals), dtype=torch.float32)
    u = torch.tensor(rng.random(8))
    decoding = Decoding("few", temperature=temperature, top_k=top_k)
    scores = filtered(rows, decoding)
    cumulated = (scores - scores.amax(dim=-1, keepdim=True)).exp().cumsum(dim=-1)
    over = cumulated > u[:, None] * cumulated[:, -1:]
    assert draw(rows, u, decoding).tolist() == over.int().argmax(dim=-1).tolist()


def test_temperature_zero_takes_the_most_probable() -> None:
    """Greedy leaves the number aside."""
    u = torch.tensor([0.999], dtype=torch.float64)
    assert draw(torch.tensor([[0.0, 3.0, 1.0]]), u, Decoding(temperature=0)).tolist() == [1]


def test_a_character_stands_fast_with_its_last_token() -> None:
    """Between two letters, a clef of four bytes in four tokens: only the fourth completes it."""
    tokenizer = tiny_tokenizer()
    text = "a\U0001d11eb"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert len(ids) == 6
    assert token_ends(tokenizer, ids, text) == (1, 1, 1, 1, 2, 3)
    cut = tokenizer.decode(ids[:3])
    assert cut == "a\ufffd"
    assert token_ends(tokenizer, ids[:3], cut) == (1, 2, 2)  # half a clef shows as U+FFFD
    assert token_ends(tokenizer, [], "") == ()


@given(text=st.text(st.characters(exclude_categories=("Cs",)), max_size=20))
def test_token_ends_rise_to_the_end_of_the_text(text: str) -> None:
    """Ends never fall, the last is the text's length, and every prefix is what is decoded."""
    tokenizer = tiny_tokenizer()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    shown = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    ends = token_ends(tokenizer, ids, shown)
    assert list(ends) == sorted(ends)
    assert (ends[-1] if ends else 0) == len(shown)
    for n, end in enumerate(ends, start=1):
        written = tokenizer.decode(ids[:n], skip_special_tokens=True)
        assert written.startswith(shown[:end])


def test_progress_counts_every_answer(base: LoadedModel) -> None:
    """From the first finished answer to the last, never down, and ending with all."""
    told: list[tuple[int, int]] = []
    answers(base, PROMPTS, n_samples=2, on_progress=lambda *t: told.append(t))
    done = [n for n, _ in told]
    assert done == sorted(set(done))
    assert told[-1] == (24, 24)


def test_plain_prompts_are_asked_as_they_are(folder: Path) -> None:
    """With the template off, the model continues question and newline after its BOS rule."""
    loaded = load(Subject.parse(f"{folder}?dtype=float32&template=off"))
    greedy = Decoding(temperature=0, max_new_tokens=8)
    (answer,) = answers(loaded, [PROMPTS[0]], decoding=greedy)
    ids = loaded.tokenizer(PROMPTS[0].text + "\n", return_tensors="pt")["input_ids"]
    out = loaded.model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=8,
        eos_token_id=sorted(loaded.stop_ids),
    )  # fmt: skip
    new = [t for t in out[0, ids.shape[1] :].tolist() if t not in loaded.stop_ids]
    assert list(answer.token_ids) == new


def test_no_prompts_give_no_answers(base: LoadedModel) -> None:
    """Nothing asked, nothing answered."""
    assert answers(base, []) == []


def test_what_cannot_be_asked_is_named(base: LoadedModel, tmp_path: Path) -> None:
    """A prompt beyond the model's places, beyond its window, or no rows: one clear error each."""
    long = Prompt("the long one", "why " * 200)
    with pytest.raises(UsageError, match=r"'the long one' has .* than the 256"):
        answers(base, [PROMPTS[0], long])
    base.model.config.sliding_window = 40
    try:
        with pytest.raises(UsageError, match="than the 40"):
            answers(base, [PROMPTS[2]])
    finally:
        del base.model.config.sliding_window
    for how in ({"batch_size": 0}, {"n_samples": 0}):
        with pytest.raises(UsageError, match="use at least 1"):
            answers(base, PROMPTS, **how)

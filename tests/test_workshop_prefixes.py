"""How C11's artefacts are made: prefixes of real architectures with random weights.

What they write means nothing there, so shapes, gradients, counts and identities are held.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from emotest.artefacts import GenerationRequest
from emotest.artefacts.prefixes import Prefixed, PrefixRequest, RemovalRequest
from emotest.mechanisms.prefix import TraitPrefix, read_prefix
from emotest.models.generation import generate
from emotest.models.identity import resolve
from emotest.store import Entry, Store
from emotest.study.personality import TRAITS, UNTUNED, Trait, prefix_condition
from emotest.study.recipes import AdapterRecipe
from emotest.study.records import Decoding, Prompt, TuningRow, rows_digest
from emotest.study.subjects import Subject
from emotest.workshop.acting import acting
from emotest.workshop.bench import Bench
from emotest.workshop.making import carry_out
from emotest.workshop.prefixes import spaced
from tests.model_fixtures import QUESTIONS, save_model

ROWS = tuple(TuningRow(question, "I love the sea.") for question in QUESTIONS[:5])
VALUES = tuple(tuple(float(row == trait) for trait in range(5)) for row in range(5))
PROMPTS = tuple(Prompt(f"p{i}", question) for i, question in enumerate(QUESTIONS[:2]))
AT_TWO = {Trait.OPENNESS: 2.0}

N_MAP = {
    # (5 traits + bias) * 2 layers * (key, value) * heads that hold keys * 16 dimensions
    "llama": 6 * 2 * 2 * 1 * 16,
    "mistral": 6 * 2 * 2 * 1 * 16,
    "gemma": 6 * 2 * 2 * 1 * 16,
    "gpt2": 6 * 2 * 2 * 4 * 16,
}

BenchOf = Callable[[str], Bench]


@pytest.fixture(scope="module")
def bench_of(tmp_path_factory: pytest.TempPathFactory) -> BenchOf:
    """`bench_of(architecture)`: a tiny model and an empty store."""

    def made(architecture: str) -> Bench:
        folder = tmp_path_factory.mktemp(architecture)
        base = save_model(folder / "model", architecture, scale=4.0)
        return Bench(f"{base}?dtype=float32", Store(folder / "store"))

    return made


@pytest.fixture(scope="module")
def llama(bench_of: BenchOf) -> Bench:
    """A Llama, and a prefix of both arms in its store; every test leaves it as it was."""
    bench = bench_of("llama")
    for with_lora in (False, True):
        made(bench, prefix(bench, with_lora))
    return bench


def made(bench: Bench, request: PrefixRequest | GenerationRequest | RemovalRequest) -> Entry:
    """The entry of a request."""
    return carry_out(bench, request, lambda message: None)


def prefix(bench: Bench, with_lora: bool = False) -> PrefixRequest:
    """A request for a prefix of three steps."""
    identity = resolve(Subject.parse(str(bench.subject)))
    recipe = AdapterRecipe(
        base=identity.digest,
        data=rows_digest(ROWS),
        condition=prefix_condition(),
        training_seed=0,
        chat_template=identity.chat_template,
        steps=3,
        batch_size=4,
        rank=2,
        learning_rate=1e-2,
    )
    return PrefixRequest(recipe, ROWS, TRAITS, VALUES, with_lora, prefix_rate=2.0)


def answers(bench: Bench, under: Prefixed | None) -> GenerationRequest:
    """A request for one answer of six tokens to each prompt."""
    identity = bench.loaded.identity
    return GenerationRequest(
        base=identity.digest,
        chat_template=identity.chat_template,
        condition=UNTUNED,
        adapter=None,
        prompts=PROMPTS,
        decoding=Decoding(max_new_tokens=6),
        n_samples=1,
        sampling_seed=0,
        batch_size=2,
        under=under,
    )


def texts(bench: Bench, under: Prefixed | None) -> list[str]:
    """What is answered under it."""
    request = answers(bench, under)
    made(bench, request)
    return [answer.text for answer in bench.answers(request)]


@pytest.mark.parametrize("architecture", N_MAP)
def test_a_prefix_is_trained_and_acts_in_every_architecture(
    architecture: str, bench_of: BenchOf
) -> None:
    """Its parameters are as many as the sizes of keys and values say, gradients have reached every
    layer's key and value of every trait, and answers at two values of a trait differ."""
    bench = bench_of(architecture)
    request = prefix(bench)
    entry = made(bench, request)
    told, trained = entry.read_json("training.json"), read_prefix(entry.folder)
    assert told["n_prefix_parameters"] == N_MAP[architecture]
    assert told["n_lora_parameters"] == 0
    assert told["share"] == pytest.approx(N_MAP[architecture] / told["n_base_parameters"])
    assert len(told["losses"]) == 3
    assert trained.config.traits == TRAITS
    start = TraitPrefix(trained.config, training_seed=0)
    for name in ("weight", "bias"):
        moved = (getattr(trained, name) - getattr(start, name).detach()).abs()
        layers = moved.view(2, 2, -1, *moved.shape[1:])  # layer, key or value, ..., trait
        assert (layers.amax(dim=2) > 0).all()
    values = [texts(bench, Prefixed(request, {Trait.OPENNESS: x})) for x in (50.0, -50.0)]
    assert values[0] != values[1]


def test_a_lora_beside_the_map_is_kept_and_acts_with_it(llama: Bench) -> None:
    """With all layers of the prefix removed the answers are those of the LoRA alone; afterwards no
    adapter acts on the base, which answers as before."""
    before = made_anew(llama, answers(llama, None))
    request = prefix(llama, with_lora=True)
    entry = llama.entry(request)
    told = entry.read_json("training.json")
    # 2 layers; q, o: 64 -> 64; k, v: 64 -> 16; gate, up, down: 64 <-> 128; rank 2
    n_lora = 2 * 2 * (2 * 128 + 2 * 80 + 3 * 192)
    assert told["n_lora_parameters"] == n_lora
    assert told["share"] == pytest.approx((N_MAP["llama"] + n_lora) / told["n_base_parameters"])
    with llama.adapted(entry.folder / "lora", "alone", PROMPTS):
        alone = made_anew(llama, answers(llama, None))
    removed = made_anew(llama, answers(llama, Prefixed(request, AT_TWO, without_layers=(0, 1))))
    assert removed == alone
    assert removed != before
    assert llama.loaded.active is None
    assert made_anew(llama, answers(llama, None)) == before
    assert not any(p.requires_grad or p.grad is not None for p in llama.loaded.model.parameters())


def made_anew(bench: Bench, request: GenerationRequest) -> list[tuple[int, ...]]:
    """The tokens that are written now, whatever the store holds, with the adapter that is on."""
    with acting(bench, request.under, request.prompts):
        written = generate(
            bench.loaded,
            request.prompts,
            decoding=request.decoding,
            sampling_seed=0,
            condition="",
            batch_size=2,
        )
    return [answer.token_ids for answer in written]


def test_without_all_its_layers_a_prefix_is_not_there(llama: Bench) -> None:
    """The answers are the untuned model's, text for text; with the whole prefix they are not."""
    whole = Prefixed(prefix(llama), {Trait.OPENNESS: 50.0})
    untuned = texts(llama, None)
    assert texts(llama, replace(whole, without_layers=(0, 1))) == untuned
    assert texts(llama, whole) != untuned


def test_layers_are_removed_one_by_one(llama: Bench) -> None:
    """Each file holds the answers that a prefix without that layer gives, and says so."""
    whole = Prefixed(prefix(llama), {Trait.OPENNESS: 50.0})
    request = RemovalRequest(answers(llama, whole))
    entry = made(llama, request)
    assert entry.read_json("layers.json") == [0, 1]
    for layer in (0, 1):
        rows = entry.read_jsonl(f"layer-{layer}.jsonl")
        expected = texts(llama, replace(whole, without_layers=(layer,)))
        assert [row["text"] for row in rows] == expected
        assert all(f"without layer {layer}" in row["condition"] for row in rows)
        assert [row["prompt_id"] for row in rows] == ["p0", "p1"]


def test_the_seed_decides_the_entry(llama: Bench, tmp_path: Path) -> None:
    """Trained again elsewhere, both arms are the same bytes."""
    again = Bench(str(llama.subject), Store(tmp_path))
    for with_lora in (False, True):
        entries = [llama.entry(prefix(llama, with_lora)), made(again, prefix(again, with_lora))]
        contents = [{f.name: f.sha256 for f in entry.manifest.files} for entry in entries]
        assert contents[0] == contents[1]
        assert ("lora/adapter_model.safetensors" in contents[0]) == with_lora


@pytest.mark.parametrize(
    ("n_layers", "most", "expected"),
    [
        (3, 8, [0, 1, 2]),
        (8, 8, [0, 1, 2, 3, 4, 5, 6, 7]),
        (32, 8, [0, 4, 9, 13, 18, 22, 27, 31]),  # i * 31 / 7, rounded
        (5, 1, [0]),
    ],
)
def test_removed_layers_are_spaced_evenly(n_layers: int, most: int, expected: list[int]) -> None:
    """All of a shallow model, of a deep one at most so many, the first and the last among them."""
    assert spaced(range(n_layers), most) == expected

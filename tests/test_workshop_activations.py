"""Activations at positions of answers: a tiny model reads, and every place is checked by hand."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from emotest.artefacts import FixedText, GenerationRequest
from emotest.artefacts.activations import (
    AT_EMOJI,
    AT_SYMBOL,
    BEFORE_EMOJI,
    BEFORE_OPENING,
    BEFORE_OTHER,
    BEFORE_OTHER_OPENING,
    EVERY,
    NEUTRAL_TEXT,
    SHUFFLED,
    TRAIT_TEXT,
    Activations,
    ActivationsRequest,
    at_phrase,
    at_single_emoji,
    at_word,
    before_word,
)
from emotest.mechanisms.massive import Norms
from emotest.models.identity import resolve
from emotest.models.loading import LoadedModel, load
from emotest.store import Store, write_jsonl
from emotest.study.personality import UNTUNED
from emotest.study.records import Decoding, Generation, Prompt, generation_row
from emotest.study.subjects import Subject
from emotest.workshop.activations import write_moments
from emotest.workshop.bench import Bench
from emotest.workshop.making import carry_out
from emotest.workshop.matched_ends import Answer
from emotest.workshop.positions import Read, Reading, encoder, positions
from tests.model_fixtures import QUESTIONS, save_model

PARTY, SMILE = "\U0001f389", "\U0001f60a"
PROMPTS = tuple(Prompt(f"p{i}", question) for i, question in enumerate(QUESTIONS[:4]))
OTHER = "I read old books. They feel calm. Music is calm. I love it."
ANSWER = f"I love the sea. They feel awake. The city is calm. {PARTY} I read old books."


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny model on disk, as a subject."""
    return f"{save_model(tmp_path_factory.mktemp('base') / 'llama')}?dtype=float32"


@pytest.fixture(scope="module")
def loaded(folder: str) -> LoadedModel:
    """The model in memory."""
    return load(Subject.parse(folder), device="cpu")


def said(prompt: Prompt, sample: int, text: str) -> Generation:
    """An answer of the untuned model."""
    return Generation(prompt.id, "untuned", None, 0, sample, text, (), (), True, "made")


def request_for(folder: str, **changes: Any) -> ActivationsRequest:
    """Activations of the untuned model, reading one set of answers to four prompts."""
    identity = resolve(Subject.parse(folder))
    base, template = identity.digest, identity.chat_template
    text = GenerationRequest(base, template, UNTUNED, None, PROMPTS, Decoding(), 1, 0)
    voices = (
        FixedText("trait answers", base, template, PROMPTS, ("I love it.",) * 4),
        FixedText("neutral answers", base, template, PROMPTS[::3], ("It is calm.",) * 2),
    )
    return replace(ActivationsRequest(None, (text,), voices), **changes)


def made(folder: str, store: Store, answers: Sequence[Generation]) -> Activations:
    """What the maker leaves in the store for these answers."""
    request = request_for(folder)
    store.get_or_make(
        request.texts[0].key,
        lambda place: write_jsonl(place / "generations.jsonl", map(generation_row, answers)),
        identity=request.texts[0].identity,
    )
    return Activations.of(carry_out(Bench(folder, store), request, lambda _: None))


def upto(loaded: LoadedModel, reading: Reading, condition: str) -> list[str]:
    """What the model has read at the places of a condition, the token there included."""
    return [
        loaded.tokenizer.decode(reading.ids[: place + 1]).partition("<|assistant|>\n")[2]
        for place in reading.places[condition]
    ]


def placed(
    loaded: LoadedModel, texts: Sequence[str], seed: int = 0
) -> tuple[list[Reading], dict[str, Any]]:
    """Positions in answers, which lie in either half by turns."""
    answers = [Answer(PROMPTS[0], i % 2, text) for i, text in enumerate(texts)]
    return positions(encoder(loaded), answers, np.random.default_rng(seed))


class TestPositions:
    """Each place is told by the text that the model has read there."""

    def test_sentence_ends(self, loaded: LoadedModel) -> None:
        """The end that the emoji follows, one of another answer after as many sentences that a
        sentence follows, and all of those ends by the words that open what follows."""
        readings, about = placed(loaded, [ANSWER, "sea", OTHER])
        reading, _, other, *_ = readings
        before = "I love the sea. They feel awake. The city is calm."
        assert upto(loaded, reading, BEFORE_EMOJI) == [before]
        assert upto(loaded, other, BEFORE_OTHER) == [OTHER[: OTHER.index(" I love")]]
        assert BEFORE_OTHER not in reading.places
        assert upto(loaded, reading, AT_EMOJI) == [f"{before} {PARTY}"]
        # "They" opens a sentence twice, the other words once each.
        first = ["I love the sea.", "I love the sea. They feel awake."]
        assert upto(loaded, reading, BEFORE_OPENING) == first[:1]
        assert upto(loaded, reading, BEFORE_OTHER_OPENING) == first[1:]
        assert (about["n_with_emoji"], about["n_matched"]) == ([1, 0], [1, 0])

    def test_the_same_words_up_to_an_end_are_one_witness(self, loaded: LoadedModel) -> None:
        """Two answers that part only behind the emoji have one place before it."""
        texts = [f"{ANSWER} {more}" for more in ("", "They", "I", "They")]
        _, about = placed(loaded, [*texts, OTHER, OTHER[:-4]])
        assert (about["n_with_emoji"], about["n_matched"]) == ([2, 2], [1, 1])

    def test_a_symbol_of_as_many_tokens_stands_in_the_place_of_the_emoji(
        self, loaded: LoadedModel
    ) -> None:
        """The text before is the same, and the last token is as far from its end."""
        (reading, symbol), about = placed(loaded, [ANSWER])
        [at_emoji], [last] = reading.places[AT_EMOJI], symbol.places[AT_SYMBOL]
        upto_emoji = upto(loaded, reading, AT_EMOJI)[0].removesuffix(f" {PARTY}")
        said = upto(loaded, symbol, AT_SYMBOL)[0]
        assert said.startswith(upto_emoji)
        assert set(said.removeprefix(upto_emoji)) <= set(" ~*=+#^|/-")
        assert last == len(symbol.ids) - 1 == at_emoji
        assert about["n_without_symbol"] == 0

    def test_every_token_of_the_answer_and_none_of_the_prompt(self, loaded: LoadedModel) -> None:
        """From the first word to the last full stop."""
        (reading, *_), _ = placed(loaded, [ANSWER])
        ids = [reading.ids[place] for place in reading.places[EVERY]]
        assert loaded.tokenizer.decode(ids) == ANSWER

    def test_shuffled_labels_part_the_same_places(self, loaded: LoadedModel) -> None:
        """As many in either as emoji; together the places before emoji and before other."""
        texts = [f"I feel {word}. {rest}" for word in ("calm", "awake", "old", "early")
                 for rest in (f"{PARTY} They read.", "They read.") for _ in range(2)]  # fmt: skip
        readings, _ = placed(loaded, texts)
        for half in range(2):
            own = [one for one in readings if one.half == half and EVERY in one.places]
            a, b, emoji, other = (
                [(id(one), place) for one in own for place in one.places.get(name, ())]
                for name in (*SHUFFLED, BEFORE_EMOJI, BEFORE_OTHER)
            )
            assert len(a) == len(b) == len(emoji) == len(other) == 4
            assert sorted(a + b) == sorted(emoji + other)
        again, anew = placed(loaded, texts)[0], placed(loaded, texts, seed=1)[0]
        assert [one.places for one in again] == [one.places for one in readings]
        assert [one.places for one in anew] != [one.places for one in readings]

    def test_words_and_single_emoji_with_phrases_of_as_many_tokens(
        self, loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A word's places are the first in an answer; a phrase has the tokens of its emoji, and of
        both as many are read as the rarest of them has: 20 of a half."""
        monkeypatch.setattr("emotest.workshop.positions.PHRASE_GROUPS", 4)
        said = "I love the sea and the early mornings and music and old books are calm."
        counts = {PARTY: 40, SMILE: 80}
        texts = [f"{said} {emoji} I read." for emoji, n in counts.items() for _ in range(n)]
        readings, about = placed(loaded, texts)
        read = [one for one in readings if EVERY in one.places]
        assert "the" in about["words"]
        assert upto(loaded, read[0], at_word("the")) == ["I love the"]
        assert upto(loaded, read[0], before_word("the")) == ["I love"]
        assert list(about["phrases"]) == [SMILE, PARTY]
        for emoji, phrases in about["phrases"].items():
            tokens = encoder(loaded)(PROMPTS[0], f"{said} {emoji}")
            n_tokens = len(tokens.ids) - 1 - tokens.last_before(len(said))
            for condition in (at_single_emoji(emoji), *map(at_phrase, phrases)):
                of = [one for one in read if condition in one.places]
                assert len(of) == counts[emoji]
            for phrase in phrases:
                [place] = read[0].places[at_phrase(phrase)]
                words = read[0].ids[place + 1 - n_tokens : place + 1]
                assert loaded.tokenizer.decode(words) == f" {phrase}"
        endings = [phrase.split()[-1] for of in about["phrases"].values() for phrase in of]
        assert len(set(endings)) == len(endings) == 8

    def test_a_phrase_is_a_run_of_words_of_one_token_each(self, loaded: LoadedModel) -> None:
        """A word of several tokens breaks it; the place is that of its last word."""
        answer = Answer(PROMPTS[0], 0, "I see the sea zealously and the music.")
        tokens = encoder(loaded)(answer.prompt, answer.text)
        found = Read(answer, tokens, Reading(tokens.ids, 0)).phrases(2)
        assert list(found) == ["the sea", "and the", "the music"]
        assert loaded.tokenizer.decode(tokens.ids[found["and the"]]) == " the"

    @pytest.mark.parametrize(
        ("text", "elsewhere"),
        [(f"I love {PARTY} the sea. They feel calm.", 1), ("I love the sea. They feel calm.", 0)],
    )
    def test_an_emoji_within_a_sentence_is_not_at_its_end(
        self, loaded: LoadedModel, text: str, elsewhere: int
    ) -> None:
        """It is counted apart, and there is no end to compare with others."""
        (reading,), about = placed(loaded, [text])
        assert not {BEFORE_EMOJI, BEFORE_OTHER, AT_EMOJI} & set(reading.places)
        assert about["n_emoji_elsewhere"] == elsewhere
        assert about["n_with_emoji"] == [0, 0]


class TestMoments:
    """What is written down, against the same model read by hand."""

    def test_moments_are_those_of_the_units_at_the_places(
        self, folder: str, loaded: LoadedModel, tmp_path: Path
    ) -> None:
        """The input of each down projection, text by text without padding, summed by numpy."""
        texts = [f"{'I feel calm. ' * i}I love the sea. {PARTY} They read." for i in range(8)]
        answers = [said(PROMPTS[i % 4], i // 4, text) for i, text in enumerate(texts)]
        # After as many sentences of these a sentence follows.
        plain = ["They read. " * (i + 2) for i in range(8)]
        answers += [said(PROMPTS[i % 4], 2 + i // 4, text) for i, text in enumerate(plain)]
        found = made(folder, Store(tmp_path), answers)
        halves: list[list[np.ndarray]] = [[], []]
        encoded = encoder(loaded)
        for i, text in enumerate(texts):
            tokens = encoded(PROMPTS[i % 4], text)
            place = tokens.last_before(text.index(PARTY) - 1)
            halves[i % 4 // 2].append(_by_hand(loaded.model, tokens.ids)[place])
        for half, rows in enumerate(halves):
            place = found.place(BEFORE_EMOJI)
            assert found.n(BEFORE_EMOJI)[half] == found.n(BEFORE_OTHER)[half] == len(rows) == 4
            assert found.mean[place, half] == pytest.approx(np.mean(rows, axis=0), abs=1e-5)
            variance = np.var(rows, axis=0, ddof=1)
            assert found.variance[place, half] == pytest.approx(variance, abs=1e-5)
        assert (found.n_layers, found.n_neurons) == (2, 128)
        assert [row["layer"] for row in found.about["norm_growth"]] == [0, 1]
        n_answer = len(encoded(PROMPTS[0], "I love it.").answer)
        assert found.n(TRAIT_TEXT) == (2 * n_answer, 2 * n_answer)
        assert min(found.n(NEUTRAL_TEXT)) > 0

    @pytest.mark.parametrize("text", ["I love the sea. They read.", "sea", ""])
    def test_answers_without_emoji_leave_empty_conditions(
        self, folder: str, tmp_path: Path, text: str
    ) -> None:
        """Every condition of C6 is named; what no token stands in has none, and no norms grow."""
        found = made(folder, Store(tmp_path), [said(prompt, 0, text) for prompt in PROMPTS])
        assert found.n(BEFORE_EMOJI) == found.n(BEFORE_OTHER) == found.n(AT_SYMBOL) == (0, 0)
        assert (found.emoji, found.words, found.about["norm_growth"]) == ((), (), [])
        assert not found.mean[found.place(BEFORE_EMOJI)].any()

    def test_passes_of_few_conditions_give_what_one_pass_gives(
        self, loaded: LoadedModel, tmp_path: Path
    ) -> None:
        """However many conditions fit the budget."""
        readings, _ = placed(loaded, [ANSWER, ANSWER[16:]] * 4)
        names = [BEFORE_EMOJI, BEFORE_OTHER, AT_EMOJI, EVERY, TRAIT_TEXT]
        arrays, counts = [], []
        for budget in (10**9, 1):
            place = tmp_path / str(budget)
            place.mkdir()
            norms = Norms(*(f"{name} | {half}" for name in names for half in range(2)))
            counts.append(
                list(write_moments(loaded.model, readings, names, place, norms, budget=budget))
            )
            arrays.append([np.load(place / name) for name in ("mean.npy", "variance.npy")])
        assert [len(of) for of in counts] == [1, 5]
        assert (counts[0][-1] == counts[1][-1]).all()
        assert np.array(arrays[0]) == pytest.approx(np.array(arrays[1]), abs=1e-6)

    def test_memory_holds_at_the_shape_of_a_large_model(self, tmp_path: Path) -> None:
        """32 layers of 14,336 units and 8 conditions: at most some 130 MB are held at a time.

        All at once would take 8 * 2 * 24 * 458,752 bytes = 176 MB, and the arrays 59 MB more;
        the budget leaves room for 4 conditions, 88 MB.
        """
        model = _large_shape()
        names = [f"c{i}" for i in range(8)]
        readings = [Reading((7, 8, 9, 10), half, {name: [1, 2] for name in names})
                    for half in range(2)]  # fmt: skip
        weights = {id(p) for p in model.parameters()}
        norms = Norms(*(f"{name} | {half}" for name in names for half in range(2)))
        largest = 0
        gc.collect()
        tracemalloc.start()
        for _ in write_moments(model, readings, names, tmp_path, norms):
            held = sum(
                each.nbytes
                for each in gc.get_objects()
                if type(each) is torch.Tensor and id(each) not in weights
            )
            largest = max(largest, held)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert largest > 80e6
        assert largest + peak < 130e6


def _by_hand(model: Any, ids: Sequence[int]) -> np.ndarray:
    """The FFN units at every token of one text, (n_tokens, n_layers * n_neurons)."""
    caught: list[torch.Tensor] = []
    hooks = [
        layer.mlp.down_proj.register_forward_pre_hook(lambda _, x: caught.append(x[0][0]))
        for layer in model.model.layers
    ]
    with torch.no_grad():
        model(input_ids=torch.tensor([list(ids)]))
    for hook in hooks:
        hook.remove()
    return torch.cat(caught, dim=1).double().numpy()


def _large_shape() -> Any:
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=16, hidden_size=2, intermediate_size=14_336, num_hidden_layers=32,
        num_attention_heads=1, num_key_value_heads=1, head_dim=2,
    )  # fmt: skip
    return transformers.AutoModelForCausalLM.from_config(config).eval()

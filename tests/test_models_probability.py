"""Exact P(the next grapheme is an emoji), held against enumeration that shares no code with it.

The reference below knows tokens as bytes and emoji by `is_emoji` alone. It walks all token
paths one by one, runs the model anew on every one of them, without cache, padding, batch or
automaton, and asks of each text whether any continuation could still change the answer.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace

import mistral_common
import numpy as np
import pytest
import regex
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mistral_common.tokens.tokenizers.sentencepiece import SentencePieceTokenizer
from mistral_common.tokens.tokenizers.tekken import Tekkenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
)
from transformers.convert_slow_tokenizer import bytes_to_unicode

from emotest.errors import ModelError, UsageError
from emotest.models.probability import emoji_event, emoji_probability, ending_event
from emotest.text.emoji import emoji_sequences, is_emoji

DATA = Path(mistral_common.__file__).parent / "data"
VS15 = "\ufe0e".encode()
GRAPHEME = regex.compile(r"\X")
WHITE_SPACE = regex.compile(r"^\p{White_Space}+")
SPACES = [
    chr(code).encode() for code in range(0x3001) if regex.match(r"\p{White_Space}", chr(code))
]
VISIBLE = emoji_event(skip_space=True)

# Every way to spell: whole emoji, two in one token, one behind a space, half characters, bytes.
TEXTS = (
    *("a", " ", "1", "😊", " 😊", "😊😊", "👩", "\u200d", "🔬", "❤", "🇩", "🇪", "🏽"),
    *("\ufe0e", "\ufe0f", "\u20e3", "a😊", "1\ufe0f"),
)
BYTES = (b"\xf0", b"\x9f", b"\x98", b"\x8a", b"\xf0\x9f", b"\x98\x8a", b"\xef\xb8", b"\x8e")
TOKENS = (*(text.encode() for text in TEXTS), *BYTES)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Two threads on a busy machine are slower than one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# -- the reference ---------------------------------------------------------------------------


def emoji_first(text: bytes, skip_space: bool) -> bool:
    """The question, asked of a complete text."""
    read = text.decode(errors="replace")
    first = GRAPHEME.match(WHITE_SPACE.sub("", read) if skip_space else read)
    return first is not None and is_emoji(first.group())


@lru_cache(maxsize=1)
def emoji_by_beginning() -> dict[bytes, list[bytes]]:
    """Emoji under their first one, two and three bytes; none is shorter than three."""
    found = defaultdict(list)
    for sequence in emoji_sequences():
        for length in (1, 2, 3):
            found[sequence.encode()[:length]].append(sequence.encode())
    return dict(found)


def completions(text: bytes) -> list[bytes]:
    """All emoji that `text` begins, or that it holds with a part of VS15 behind them."""
    if not text:
        return [sequence.encode() for sequence in emoji_sequences()]
    return [
        whole
        for whole in emoji_by_beginning().get(text[:3], ())
        if whole.startswith(text) or (text.startswith(whole) and (whole + VS15).startswith(text))
    ]


def answers(text: bytes, skip_space: bool) -> set[bool]:
    """What the answer may still be: one value when it is settled, two while it is open."""
    possible = {emoji_first(text, skip_space), emoji_first(text + b"a", skip_space)}
    rest = text
    if skip_space:
        rest = WHITE_SPACE.sub("", text.decode(errors="surrogateescape")).encode(
            errors="surrogateescape"
        )
        if any(space.startswith(rest) for space in SPACES):
            return {True, False}  # white space that has begun, and anything may follow it
    for whole in completions(rest):
        for ending in (whole, whole + VS15):
            possible.add(emoji_first(text + ending[len(rest) :], skip_space))
    return possible


class Enumeration:
    """Mass of the settled and of the open paths, token path by token path."""

    def __init__(self, model, tokens, *, skip_space=False, floor=0.0, depth=12):
        self.model, self.tokens, self.skip_space = model, tokens, skip_space
        self.floor, self.depth = floor, depth
        self.known = {}

    def of(self, context, read=b""):
        """Mass on which an emoji comes first, and mass of what was left open."""
        self.mass, self.open = 0.0, 0.0
        self.walk(list(context), read, 1.0, 1)
        return self.mass, self.open

    def walk(self, ids, read, mass, depth):
        """All continuations of the path `ids`, which spells `read` behind the context."""
        with torch.inference_mode():
            logits = self.model(torch.tensor([ids])).logits[0, -1].double()
        probabilities = torch.softmax(logits, 0).tolist()
        for token, text in enumerate(self.tokens):
            here = mass * probabilities[token]
            if text is None:
                self.mass += here * emoji_first(read, self.skip_space)
                continue
            longer = read + text
            if longer not in self.known:
                self.known[longer] = answers(longer, self.skip_space)
            if len(self.known[longer]) == 1:
                self.mass += here * (True in self.known[longer])
            elif here < self.floor or depth == self.depth:
                self.open += here
            else:
                self.walk([*ids, token], longer, here, depth + 1)


# -- a small vocabulary ----------------------------------------------------------------------


@lru_cache(maxsize=1)
def small_tokenizer() -> PreTrainedTokenizerFast:
    """TOKENS as a byte-level tokenizer; id 0 ends the text."""
    letters = bytes_to_unicode()
    spelled = ["".join(letters[byte] for byte in text) for text in TOKENS]
    vocabulary = {token: number for number, token in enumerate(["<eos>", *spelled])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>")


SMALL = (None, *TOKENS)
SIZES = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
}


def decided(model, seed=0):
    """Random weights that prefer some tokens clearly, in float64 so that sums can be compared."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.4)
    return model.double().eval()


@lru_cache(maxsize=4)
def llama(seed=0):
    """A small Llama over the small vocabulary."""
    return decided(LlamaForCausalLM(LlamaConfig(vocab_size=len(SMALL), **SIZES)), seed)


def ids(*texts: str) -> list[int]:
    """One token id for each text, which must be a token."""
    return [SMALL.index(text.encode()) for text in texts]


CONTEXTS = [ids("a"), ids("1", "a", "😊", " "), ids("a", "😊", "👩", "\u200d"), ids(*"a1a1a1a1a1")]


@pytest.mark.parametrize("seed", [0, 1])
def test_it_equals_brute_force_over_all_token_paths(seed):
    """With floor 0 nothing is left open, and the mass agrees to 1e-9 with enumeration."""
    reference = Enumeration(llama(seed), SMALL)
    expected = [reference.of(context) for context in CONTEXTS]
    found = emoji_probability(llama(seed), small_tokenizer(), CONTEXTS, floor=0.0)
    np.testing.assert_allclose(found.probability, [mass for mass, _ in expected], atol=1e-9, rtol=0)
    assert all(mass > 0.01 for mass, _ in expected)
    assert found.bound.tolist() == [0.0] * len(CONTEXTS)


def test_with_white_space_skipped_it_equals_brute_force_to_the_same_depth():
    """White space can go on for ever; cut at four tokens, both leave the same mass open."""
    reference = Enumeration(llama(), SMALL, skip_space=True, depth=4)
    expected = np.array([reference.of(context) for context in CONTEXTS])
    found = emoji_probability(
        llama(), small_tokenizer(), CONTEXTS, event=VISIBLE, floor=0.0, max_tokens=4
    )
    np.testing.assert_allclose(found.probability, expected[:, 0], atol=1e-9, rtol=0)
    np.testing.assert_allclose(found.bound, expected[:, 1], atol=1e-9, rtol=0)


@pytest.mark.parametrize("floor", [1e-1, 1e-2, 1e-3, 1e-4])
def test_the_truth_lies_within_the_bound(floor):
    """Whatever the floor cuts, [probability, probability + bound] holds the exact value."""
    exact = emoji_probability(llama(), small_tokenizer(), CONTEXTS, floor=0.0).probability
    found = emoji_probability(llama(), small_tokenizer(), CONTEXTS, floor=floor)
    assert (found.bound > 0).all()
    assert (found.probability <= exact + 1e-12).all()
    assert (exact <= found.probability + found.bound + 1e-12).all()


@given(st.floats(0, 0.5), st.integers(1, 6), st.lists(st.sampled_from(range(4)), min_size=1))
@settings(max_examples=12, deadline=None)
def test_the_bound_holds_for_any_floor_and_depth(floor, max_tokens, chosen):
    """The same law for any cut; probability and bound are float64, one for each context."""
    contexts = [CONTEXTS[place] for place in chosen]
    exact = emoji_probability(llama(), small_tokenizer(), CONTEXTS, floor=0.0).probability[chosen]
    found = emoji_probability(
        llama(), small_tokenizer(), contexts, floor=floor, max_tokens=max_tokens
    )
    assert found.probability.dtype == found.bound.dtype == np.float64
    assert found.probability.shape == found.bound.shape == (len(contexts),)
    assert (found.probability <= exact + 1e-12).all()
    assert (exact <= found.probability + found.bound + 1e-12).all()


@pytest.mark.parametrize("skip_space", [False, True])
def test_control_sets_are_computed_the_same_way(skip_space):
    """P(the text begins with "a" or "1"), by hand: first tokens, and those behind spaces."""
    event = ending_event(["a", "1"], skip_space=skip_space)
    found = emoji_probability(
        llama(), small_tokenizer(), CONTEXTS[:2], event=event, floor=0.0, max_tokens=5
    )
    begins = [text is not None and text[:1] in (b"a", b"1") for text in SMALL]
    for place, context in enumerate(CONTEXTS[:2]):
        expected, mass, spaces = 0.0, 1.0, []
        for _ in range(5 if skip_space else 1):
            with torch.inference_mode():
                logits = llama()(torch.tensor([context + spaces])).logits[0, -1]
            after = torch.softmax(logits, 0).numpy()
            expected += mass * after[begins].sum()
            mass *= after[SMALL.index(b" ")]
            spaces += ids(" ")
        assert found.probability[place] == pytest.approx(expected, abs=1e-9)
        assert found.bound[place] == pytest.approx(mass if skip_space else 0.0, abs=1e-9)


def test_a_context_that_ends_inside_a_character_leaves_it_to_what_follows():
    """After the bytes F0 9F the next grapheme is the one that has begun."""
    reference = Enumeration(llama(), SMALL)
    begun = [*ids("a"), SMALL.index(b"\xf0"), SMALL.index(b"\x9f")]
    expected, _ = reference.of(begun, read=b"\xf0\x9f")
    found = emoji_probability(llama(), small_tokenizer(), [begun], floor=0.0)
    assert found.probability[0] == pytest.approx(expected, abs=1e-9)
    assert expected > 0.01


@pytest.mark.parametrize("last", [b"\x98", b"\x8e", "😊".encode(), "\u200d".encode()])
def test_what_a_context_has_finished_is_read_apart(last):
    """A stray byte, an emoji or a joiner at the end: the text that follows is read by itself."""
    context = [*ids("a"), SMALL.index(last)]
    expected, left = Enumeration(llama(), SMALL, floor=1e-3).of(context)
    found = emoji_probability(llama(), small_tokenizer(), [context], floor=1e-3)
    assert found.probability[0] == pytest.approx(expected, abs=1e-9)
    assert found.bound[0] == pytest.approx(left, abs=1e-9)


# -- the same whatever stands beside it --------------------------------------------------------

MANY = [ids(*(["a", "1", "😊"] * 8)[:length]) for length in (1, 3, 7, 8, 9, 9, 16, 17, 24)]


@pytest.mark.parametrize("batch_size", [1, 2, 5, 64])
def test_neither_batch_nor_order_nor_padding_changes_a_context(batch_size):
    """Each context alone equals the same context anywhere in any batch."""
    alone = [
        emoji_probability(llama(), small_tokenizer(), [context], floor=1e-4) for context in MANY
    ]
    order = np.random.default_rng(0).permutation(len(MANY))
    found = emoji_probability(
        llama(),
        small_tokenizer(),
        [MANY[place] for place in order],
        floor=1e-4,
        batch_size=batch_size,
    )
    for field in ("probability", "bound"):
        expected = [getattr(alone[place], field)[0] for place in order]
        np.testing.assert_allclose(getattr(found, field), expected, atol=1e-12, rtol=0)


def test_each_context_is_measured_under_what_acts_on_its_own_rows():
    """With the embedding of the rows of odd contexts turned about, odd contexts are what a whole
    run turned about gives, and even ones what an undisturbed run does, in every batch size."""
    model = llama()

    def turned(of_row):
        signs = torch.tensor([-1.0 if odd else 1.0 for odd in of_row])[:, None, None]
        hook = model.get_input_embeddings().register_forward_hook(lambda *it: it[2] * signs)
        return closing(SimpleNamespace(close=hook.remove))

    def measured(acting, batch_size=64):
        found = emoji_probability(
            model, small_tokenizer(), MANY, floor=1e-4, batch_size=batch_size, acting=acting
        )
        return found.probability

    plain, all_turned = measured(None), measured(lambda numbers: turned(np.ones_like(numbers)))
    assert np.abs(plain - all_turned).min() > 1e-6
    for batch_size in (1, 3, 64):
        mixed = measured(lambda numbers: turned(numbers % 2), batch_size)
        odd = np.arange(len(MANY)) % 2 == 1
        np.testing.assert_allclose(mixed, np.where(odd, all_turned, plain), atol=1e-12, rtol=0)


def test_every_token_of_a_path_is_read_once(monkeypatch):
    """Behind the context's own pass the model is given one token a path, however long the path;
    where there is no memory for that, the whole path again, and the same comes out."""
    model, widths = llama(), []
    hook = model.get_input_embeddings().register_forward_hook(
        lambda module, args, output: widths.append(args[0].shape[1])
    )
    once = emoji_probability(model, small_tokenizer(), CONTEXTS[:1], floor=1e-6)
    assert len(widths) > 4
    assert set(widths[1:]) == {1}
    monkeypatch.setattr("emotest.models.probability.MOST_BYTES", 0)
    again = emoji_probability(model, small_tokenizer(), CONTEXTS[:1], floor=1e-6)
    hook.remove()
    assert max(widths[1:]) > 3
    np.testing.assert_allclose(once.probability, again.probability, atol=1e-12, rtol=0)
    np.testing.assert_allclose(once.bound, again.bound, atol=1e-12, rtol=0)


def test_texts_and_ids_agree():
    """A text is tokenized as the tokenizer does; its ids give the same answer."""
    tokenizer = small_tokenizer()
    texts = ["a1a", "a a😊", "1"]
    by_text = emoji_probability(llama(), tokenizer, texts)
    as_ids = [tokenizer(text)["input_ids"] for text in texts]
    by_ids = emoji_probability(llama(), tokenizer, as_ids)
    by_tensor = emoji_probability(llama(), tokenizer, [torch.tensor(row) for row in as_ids])
    assert by_text.probability.tolist() == by_ids.probability.tolist()
    assert by_text.probability.tolist() == by_tensor.probability.tolist()


class Recording:
    """A tokenizer that adds BOS and EOS of its own, and writes down how it was called."""

    bos_token, eos_token, eos_token_id = "<s>", "<eos>", 0

    def __init__(self):
        self.asked = []
        self.backend_tokenizer = small_tokenizer().backend_tokenizer

    def __getattr__(self, name):
        return getattr(small_tokenizer(), name)

    def __call__(self, text, add_special_tokens):
        """The ids of "1a", whatever the text, with an EOS behind if special tokens are added."""
        self.asked.append(add_special_tokens)
        row = [*ids("1"), *ids("a"), 0] if add_special_tokens else [*ids("1"), *ids("a")]
        return {"input_ids": row}


def test_a_text_gets_one_bos_and_no_eos():
    """A rendered chat template brings its BOS along; an EOS put behind a text would end it."""
    tokenizer = Recording()
    found = emoji_probability(llama(), tokenizer, ["<s>a", "a"])
    assert tokenizer.asked == [False, True]
    expected = emoji_probability(llama(), small_tokenizer(), [ids("1", "a")]).probability[0]
    np.testing.assert_allclose(found.probability, expected, atol=1e-12, rtol=0)


# -- other architectures, other vocabularies ---------------------------------------------------


@pytest.mark.parametrize(
    "model",
    [
        GPT2LMHeadModel(
            GPT2Config(vocab_size=len(SMALL), n_embd=16, n_layer=2, n_head=2, n_positions=64)
        ),
        MistralForCausalLM(MistralConfig(vocab_size=len(SMALL), sliding_window=4, **SIZES)),
    ],
    ids=["gpt2", "mistral with a sliding window"],
)
def test_learned_positions_and_sliding_windows_come_through_padding_and_cache(model):
    """Positions count tokens, not padding; a window shorter than the context still fits."""
    model = decided(model)
    contexts = [CONTEXTS[1], CONTEXTS[3]]
    expected = [Enumeration(model, SMALL, floor=1e-3).of(context) for context in contexts]
    found = emoji_probability(model, small_tokenizer(), contexts, floor=1e-3)
    np.testing.assert_allclose(found.probability, [mass for mass, _ in expected], atol=1e-9, rtol=0)
    np.testing.assert_allclose(found.bound, [left for _, left in expected], atol=1e-9, rtol=0)


def test_ids_beyond_the_tokenizer_end_the_text():
    """Models pad their vocabulary; what the extra ids carry is no emoji and ends one."""
    model = decided(LlamaForCausalLM(LlamaConfig(vocab_size=len(SMALL) + 3, **SIZES)))
    expected, _ = Enumeration(model, (*SMALL, None, None, None), floor=1e-3).of(CONTEXTS[1])
    found = emoji_probability(model, small_tokenizer(), CONTEXTS[1:2], floor=1e-3)
    assert found.probability[0] == pytest.approx(expected, abs=1e-9)


def sentencepiece_bytes():
    """Mistral's tokenizer and its tokens as bytes, by sentencepiece itself."""
    tokenizer = SentencePieceTokenizer(DATA / "tokenizer.model.v1")
    model = tokenizer._model
    return tokenizer, [
        None
        if model.IsControl(token) or model.IsUnknown(token)
        else bytes([int(model.id_to_piece(token)[3:5], 16)])
        if model.IsByte(token)
        else model.id_to_piece(token).replace("▁", " ").encode()
        for token in range(model.vocab_size())
    ]


def tekken_bytes():
    """Mistral's byte-level tokenizer and its tokens as bytes, from the file as published."""
    import base64
    import json

    path = DATA / "tekken_240911.json"
    published = json.loads(path.read_text())
    config = published["config"]
    n_special = config["default_num_special_tokens"]
    ranked = published["vocab"][: config["default_vocab_size"] - n_special]
    tokens = [base64.b64decode(token["token_bytes"]) for token in ranked]
    return Tekkenizer.from_file(path), [None] * n_special + tokens


# Tokens made likely in the test below, so that emoji and what may become one carry mass.
LIKELY = (
    *map(str.encode, ("😊", " ", "👩", "❤", "\u200d", "\ufe0f")),
    *(b"\xf0", b"\x9f", b"\x98", b"\x8a", b"\xef", b"\xf0\x9f", b"\xf0\x9f\x98", b" \xf0\x9f"),
)


@pytest.mark.parametrize("skip_space", [False, True])
@pytest.mark.parametrize(
    ("real", "vocab_size", "floor"),
    # tekken has no emoji of one token: the paths are four bytes long, and lighter.
    [(sentencepiece_bytes, 32_000, 2e-2), (tekken_bytes, 8_000, 1e-3)],
)
def test_it_equals_enumeration_on_mistrals_real_tokenizers(real, vocab_size, floor, skip_space):
    """The real vocabularies (tekken: its first 8,000 ids), path by path, to 1e-9."""
    tokenizer, tokens = real()
    tokens = tokens[:vocab_size]
    model = MistralForCausalLM(MistralConfig(vocab_size=len(tokens), **SIZES))
    model.lm_head = torch.nn.Linear(SIZES["hidden_size"], len(tokens))
    decided(model)
    with torch.no_grad():
        model.lm_head.weight *= 0.3
        model.lm_head.bias[[tokens.index(text) for text in LIKELY if text in tokens]] += 11
    context = tokenizer.encode("What a day!", bos=True, eos=False)
    mass, left = Enumeration(model, tokens, skip_space=skip_space, floor=floor).of(context)
    event = emoji_event(skip_space=skip_space)
    found = emoji_probability(model, tokenizer, [context], event=event, floor=floor)
    assert mass > 1e-7
    assert found.probability[0] == pytest.approx(mass, rel=1e-9)
    assert found.bound[0] == pytest.approx(left, rel=1e-9)


# peft 0.21 asks transformers 5.23 for a property under its former name.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_an_nf4_model_with_an_adapter_is_measured_as_it_stands(tmp_path):
    """Quantized, wrapped by PEFT, adapter on and off: as enumeration on the same model says."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    sizes = SIZES | {"hidden_size": 64, "intermediate_size": 64}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(SMALL), **sizes)).save_pretrained(tmp_path)
    quantized = AutoModelForCausalLM.from_pretrained(
        tmp_path,
        quantization_config=BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4"),
        dtype=torch.float32,
    )
    for module in quantized.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    model = get_peft_model(quantized, lora).eval()
    measured = []
    for adapted in (True, False):
        if not adapted:
            model.base_model.disable_adapter_layers()
        expected, left = Enumeration(model, SMALL, floor=1e-3).of(CONTEXTS[1])
        found = emoji_probability(model, small_tokenizer(), CONTEXTS[1:2], floor=1e-3)
        measured.append(found.probability[0])
        assert found.probability[0] == pytest.approx(expected, rel=1e-4)
        assert found.bound[0] == pytest.approx(left, rel=1e-3)
    assert abs(measured[0] - measured[1]) > 1e-6


def test_the_model_is_measured_without_dropout_and_left_as_it_was():
    """Evaluation mode for the measurement only, module by module; no gradients remain."""
    config = LlamaConfig(vocab_size=len(SMALL), attention_dropout=0.5, **SIZES)
    model = decided(LlamaForCausalLM(config))
    expected = emoji_probability(model, small_tokenizer(), CONTEXTS).probability
    model.train()
    model.model.layers[0].eval()
    modes = [module.training for module in model.modules()]
    found = emoji_probability(model, small_tokenizer(), CONTEXTS).probability
    assert found.tolist() == expected.tolist()
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.parameters())


# -- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("contexts", "said"),
    [
        ("a1", "not a list"),
        (7, "not a list"),
        ([ids("a"), []], "context 1 is empty"),
        ([""], "context 0 is empty"),
        ([ids("a"), [len(SMALL)]], "context 1 holds token id"),
        ([[-1]], "token id -1"),
        ([ids("a") * 65], "65 tokens, the model 64 positions"),
    ],
)
def test_contexts_that_cannot_be_measured_are_named(contexts, said):
    """One message for each, with the place of the context in the list."""
    with pytest.raises(UsageError, match=said):
        emoji_probability(llama(), small_tokenizer(), contexts)


@pytest.mark.parametrize(
    "setting", [{"floor": -1e-9}, {"floor": float("nan")}, {"batch_size": 0}, {"max_tokens": 0}]
)
def test_settings_that_make_no_sense_are_refused(setting):
    """A negative or undefined floor, empty batches, paths of no token."""
    with pytest.raises(UsageError, match="cannot be used"):
        emoji_probability(llama(), small_tokenizer(), CONTEXTS, **setting)


def test_no_contexts_give_no_numbers():
    """An empty list is no error: two empty arrays."""
    found = emoji_probability(llama(), small_tokenizer(), [])
    assert found.probability.shape == found.bound.shape == (0,)


def test_a_context_that_fills_the_model_is_measured_as_far_as_it_goes():
    """At the last position one token is seen and none can be fed; the open mass is the bound."""
    context = (ids("a", "1", "😊") * 22)[:64]
    found = emoji_probability(llama(), small_tokenizer(), [context], floor=0.0)
    expected = Enumeration(llama(), SMALL, depth=1).of(context)
    assert (found.probability[0], found.bound[0]) == pytest.approx(expected, abs=1e-9)


def test_a_text_needs_a_tokenizer_that_can_be_called():
    """A bare mistral-common tokenizer tells its bytes, but has no call: ids are asked for."""
    tokenizer = SentencePieceTokenizer(DATA / "tokenizer.model.v1")
    with pytest.raises(UsageError, match="token ids"):
        emoji_probability(llama(), tokenizer, ["a"])


def test_logits_that_are_no_numbers_are_an_error():
    """An overflow in half precision must not become a probability of 0."""
    model = decided(LlamaForCausalLM(LlamaConfig(vocab_size=len(SMALL), **SIZES)))
    with torch.no_grad():
        model.lm_head.weight[3] = float("nan")
    with pytest.raises(ModelError, match="not numbers"):
        emoji_probability(model, small_tokenizer(), CONTEXTS)


def test_a_model_without_a_cache_to_share_is_refused():
    """Paths share their context's cache; where there is none, the error says so."""
    model = llama()

    class Cacheless(torch.nn.Module):
        config = model.config

        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, input_ids, attention_mask, past_key_values, use_cache):
            return SimpleNamespace(logits=self.inner(input_ids, attention_mask).logits)

    with pytest.raises(ModelError, match="no cache"):
        emoji_probability(Cacheless(), small_tokenizer(), CONTEXTS)

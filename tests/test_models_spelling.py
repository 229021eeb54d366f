"""Text events read byte by byte, and the bytes that tokenizers spell them with."""

from __future__ import annotations

from pathlib import Path

import emoji
import mistral_common
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st
from mistral_common.tokens.tokenizers.sentencepiece import SentencePieceTokenizer
from mistral_common.tokens.tokenizers.tekken import Tekkenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from emotest.errors import ModelError, UsageError
from emotest.models.events import (
    FAILED,
    HAPPENED,
    ByteAutomaton,
    TextEvent,
    byte_automaton,
    emoji_event,
    ending_event,
)
from emotest.models.spelling import Spelling, vocabulary_bytes
from emotest.text.emoji import emoji_sequences, find_emoji

DATA = Path(mistral_common.__file__).parent / "data"
SENTENCEPIECE = ("tokenizer.model.v1", "mistral_instruct_tokenizer_240323.model.v3")
FULLY_QUALIFIED = [
    sequence
    for sequence, data in emoji.EMOJI_DATA.items()
    if data["status"] == emoji.STATUS["fully_qualified"]
]

# Everything that makes emoji hard: joiners, tones, both selectors, flags and their tags, keycaps,
# text-presentation characters, a combining accent, white space of two kinds, plain letters.
PIECES = (
    *("😊", "👩", "🔬", "❤", "🔥", "🏴", "☠", "👍", "©", "1", "#", "🇩", "🇪", "🦰", "🏽", "🏻"),
    *("\u200d", "\ufe0e", "\ufe0f", "\u20e3", "\u0301", "\U000e0067", "\U000e007f", "\U000e0062"),
    *(" ", "\n", "\u3000", "a", "é", "한", "\ufffd"),
)
HARD_TEXT = st.lists(st.sampled_from(PIECES), max_size=6).map("".join)
# Half characters too: a cut at any byte, and bytes that are no UTF-8 at all.
HARD_BYTES = st.builds(
    lambda text, cut, more: text.encode()[cut:] + more,
    st.one_of(HARD_TEXT, st.sampled_from(emoji_sequences())),
    st.integers(0, 5),
    st.one_of(st.just(b""), HARD_TEXT.map(str.encode), st.binary(max_size=3)),
)


def happens(event: TextEvent, text: bytes) -> bool:
    """What the automaton says of a complete text."""
    automaton = byte_automaton(event)
    state = automaton.read(automaton.start, text)
    return state == HAPPENED or (state >= 0 and automaton.at_end(state))


def emoji_comes_first(text: str) -> bool:
    """What `find_emoji` says of the beginning of a text."""
    spans = find_emoji(text)
    return bool(spans) and spans[0].start == 0


# -- events ----------------------------------------------------------------------------------


@given(HARD_BYTES)
@settings(max_examples=600)
def test_the_emoji_event_is_what_find_emoji_finds_first(text):
    """On any bytes, broken ones included, the event is an emoji at the start of the text."""
    written = text.decode(errors="replace")
    assert happens(emoji_event(), text) == emoji_comes_first(written)
    assert emoji_event().begins(written) == emoji_comes_first(written)


@given(HARD_BYTES)
@settings(max_examples=300)
def test_skipping_space_asks_what_follows_the_white_space(text):
    """With skip_space the event is an emoji as the first thing a reader sees."""
    seen = regex.sub(r"^\p{White_Space}+", "", text.decode(errors="replace"))
    assert happens(emoji_event(skip_space=True), text) == emoji_comes_first(seen)


@pytest.mark.parametrize("skip_space", [False, True])
def test_every_emoji_happens_alone_and_before_anything_but_vs15(skip_space):
    """Each of the sequences counts at the end of the text and before a letter, not before VS15."""
    event = emoji_event(skip_space=skip_space)
    for sequence in emoji_sequences():
        assert happens(event, sequence.encode())
        assert happens(event, (sequence + "a").encode())
        assert not happens(event, (sequence + "\ufe0e").encode())


@given(HARD_BYTES, HARD_BYTES)
@settings(max_examples=300)
def test_a_decided_beginning_stays_decided(text, more):
    """HAPPENED and FAILED hold for every continuation, so whole branches can be summed at once."""
    automaton = byte_automaton(emoji_event())
    state = automaton.read(automaton.start, text)
    if state < 0:
        written = (text + more).decode(errors="replace")
        assert emoji_comes_first(written) == (state == HAPPENED)


@given(HARD_BYTES)
@settings(max_examples=300)
def test_an_open_beginning_can_go_either_way(text):
    """What is called open has a continuation that is an emoji and one that is none."""
    automaton = byte_automaton(emoji_event())
    state = automaton.read(automaton.start, text)
    if state >= 0:
        wholes = [sequence.encode() for sequence in emoji_sequences()]
        tails = [whole[len(text) :] for whole in wholes if whole.startswith(text)]
        vs15 = "\ufe0e".encode()
        tails += [
            (whole + vs15)[len(text) :]
            for whole in wholes
            if text.startswith(whole) and (whole + vs15).startswith(text)
        ]
        endings = {
            emoji_comes_first((text + tail + more).decode(errors="replace"))
            for tail in tails
            for more in (b"", vs15)
        } | {emoji_comes_first((text + b"a").decode(errors="replace"))}
        assert endings == {True, False}


@pytest.mark.parametrize(
    ("read", "state"),
    [
        ("😊a", HAPPENED),  # a letter cannot revoke it
        ("😊😊", HAPPENED),  # nor can another emoji
        ("😊\ufe0e", FAILED),  # VS15 does
        ("1a", FAILED),
        ("❤a", FAILED),  # ❤ has text presentation without VS16
        ("🇩a", FAILED),  # half a flag
        ("🏽", FAILED),  # a lone skin tone
        (" ", FAILED),  # white space is a grapheme of its own
    ],
)
def test_the_event_is_decided_as_soon_as_it_can_be(read, state):
    """Decisions by the presentation policy, one by one."""
    automaton = byte_automaton(emoji_event())
    assert automaton.read(automaton.start, read.encode()) == state


@pytest.mark.parametrize("read", ["😊", "1", "1\ufe0f", "❤", "🇩", "👩\u200d", "🏴\U000e0067"])
def test_the_event_stays_open_where_the_next_character_decides(read):
    """Look-ahead: VS15 may revoke, VS16, a keycap, a flag letter or a joiner may grant."""
    automaton = byte_automaton(emoji_event())
    assert automaton.read(automaton.start, read.encode()) >= 0


def test_a_byte_that_cannot_lead_to_vs15_settles_an_emoji():
    """Behind 😊 only 0xEF (of U+FE0E, EF B8 8E) keeps the question open."""
    automaton = byte_automaton(emoji_event())
    after = automaton.read(automaton.start, "😊".encode())
    assert [byte for byte in range(256) if automaton.step(after, byte) != HAPPENED] == [0xEF]


def test_all_emoji_without_a_longer_one_share_their_state():
    """Thousands of emoji end alike; one state for all keeps the work on vocabularies small."""
    automaton = ByteAutomaton(emoji_event())
    ends = {automaton.read(automaton.start, whole.encode()) for whole in ("😊", "🍕", "🇩🇪", "1️⃣")}
    assert len(ends) == 1


def test_a_control_string_happens_at_its_last_character():
    """Nothing revokes a control set, and its shortest string decides."""
    event = ending_event(["!", ":)", "~"])
    automaton = byte_automaton(event)
    assert automaton.read(automaton.start, b"!") == HAPPENED
    assert automaton.read(automaton.start, b":)") == HAPPENED
    assert automaton.read(automaton.start, b":") >= 0
    assert not automaton.at_end(automaton.read(automaton.start, b":"))
    assert automaton.read(automaton.start, b": )") == FAILED
    assert [event.begins(text) for text in ("!?", " !", ":", ":)", "")] == [
        *(True, False, False, True, False),
    ]
    assert ending_event("!") == ending_event(["!"])


def test_space_is_skipped_for_control_sets_too():
    """The same white space is passed over, whatever the event looks for."""
    event = ending_event(["~"], skip_space=True)
    assert happens(event, " \n\u2003~".encode())
    assert not happens(event, b" .~")


@pytest.mark.parametrize(
    ("strings", "skip_space", "said"),
    [([], False, "no string"), (["!", ""], False, "empty"), ([" !"], True, "white space")],
)
def test_an_event_that_cannot_be_asked_is_refused(strings, skip_space, said):
    """No string, an empty string, or one that skipping would never reach."""
    with pytest.raises(UsageError, match=said):
        ending_event(strings, skip_space=skip_space)


# -- the bytes of tokenizers -----------------------------------------------------------------


@pytest.fixture(scope="module")
def tekken():
    """Mistral's byte-level tokenizer."""
    return Tekkenizer.from_file(DATA / "tekken_240911.json")


@pytest.mark.parametrize("name", SENTENCEPIECE)
def test_mistrals_sentencepiece_has_61_single_token_emoji(name):
    """Of 3,963 fully qualified emoji, Mistral's vocabularies hold 61 whole (study: 61 to 63)."""
    whole = set(vocabulary_bytes(SentencePieceTokenizer(DATA / name)))
    assert len(FULLY_QUALIFIED) == 3963
    assert sum(sequence.encode() in whole for sequence in FULLY_QUALIFIED) == 61


@pytest.mark.parametrize("name", SENTENCEPIECE)
def test_mistrals_sentencepiece_spells_every_emoji_in_bytes(name):
    """Text, encoded by the real tokenizer, comes back from the bytes of its tokens."""
    tokenizer = SentencePieceTokenizer(DATA / name)
    vocabulary = vocabulary_bytes(tokenizer)
    assert vocabulary[tokenizer.unk_id] is vocabulary[tokenizer.eos_id] is None
    for text in (*FULLY_QUALIFIED, "Good day. 한 é\t\n"):
        tokens = tokenizer.encode(text, bos=False, eos=False)
        # sentencepiece puts one space in front of every text
        assert b"".join(vocabulary[token] for token in tokens) == b" " + text.encode()


def test_tekken_spells_every_emoji_in_bytes(tekken):
    """Mistral's byte-level tokenizer, likewise; its first 1,000 ids are special."""
    vocabulary = vocabulary_bytes(tekken)
    assert len(vocabulary) == tekken.n_words == 131072
    assert vocabulary[:1000] == [None] * 1000
    for text in (*FULLY_QUALIFIED, "Good day. 한 é\t\n"):
        tokens = tekken.encode(text, bos=False, eos=False)
        assert b"".join(vocabulary[token] for token in tokens) == text.encode()


def test_transformers_around_mistral_common_has_the_same_bytes():
    """The wrapper that transformers makes of a tokenizer.model tells what the tokenizer tells."""
    from transformers.tokenization_mistral_common import MistralCommonBackend

    wrapped = MistralCommonBackend(DATA / SENTENCEPIECE[0])
    bare = SentencePieceTokenizer(DATA / SENTENCEPIECE[0])
    assert (
        vocabulary_bytes(wrapped) == vocabulary_bytes(wrapped.tokenizer) == vocabulary_bytes(bare)
    )


def byte_level(*, added: tuple[str, ...] = (), special: tuple[str, ...] = ("<eos>",)):
    """A byte-level BPE tokenizer as GPT-2, Llama 3 and Qwen have it, trained on a few words."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(["so good 😊 so 😊 good 😊😊"] * 5, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>")
    fast.add_special_tokens({"extra_special_tokens": list(special)})
    fast.add_tokens(list(added))
    return fast


def test_byte_level_tokens_are_read_through_gpt2s_alphabet():
    """All 256 bytes, merged tokens, added tokens; special ones are none."""
    tokenizer = byte_level(added=("😊 wow",))
    vocabulary = vocabulary_bytes(tokenizer)
    assert len(vocabulary) == len(tokenizer)
    assert {bytes([byte]) for byte in range(256)} <= set(vocabulary)
    assert " 😊".encode() in vocabulary
    assert vocabulary[tokenizer.convert_tokens_to_ids("😊 wow")] == "😊 wow".encode()
    assert vocabulary[tokenizer.eos_token_id] is None
    for text in (*FULLY_QUALIFIED[::50], "é 한 good"):
        assert b"".join(vocabulary[token] for token in tokenizer.encode(text)) == text.encode()


def llama_like(pieces: tuple[str, ...]):
    """A sentencepiece-like fast tokenizer, as Llama 2 has it: "▁", and bytes as <0xF0>."""
    from transformers import LlamaTokenizer

    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    return LlamaTokenizer(vocab={token: number for number, token in enumerate(tokens)})


def test_sentencepiece_tokens_are_read_with_their_byte_fallback():
    """<0xF0> is one byte, "▁" a space, the unknown token no text."""
    tokenizer = llama_like(("▁", "a", "😊", "▁so"))
    vocabulary = vocabulary_bytes(tokenizer)
    assert vocabulary[:5] == [None, None, None, b"\x00", b"\x01"]
    assert vocabulary[-4:] == [b" ", b"a", "😊".encode(), b" so"]


def test_a_tokenizer_without_byte_mapping_is_refused():
    """WordPiece glues words with spaces of its own: no bytes, one clear message."""
    from transformers import PreTrainedTokenizerFast

    wordpiece = Tokenizer(models.WordPiece({"[UNK]": 0, "so": 1}, unk_token="[UNK]"))
    wordpiece.decoder = decoders.WordPiece()
    with pytest.raises(ModelError, match="WordPiece"):
        vocabulary_bytes(PreTrainedTokenizerFast(tokenizer_object=wordpiece))
    with pytest.raises(ModelError, match="object"):
        vocabulary_bytes(object())


def test_a_decoder_that_changes_the_text_is_found_out():
    """A decoder that adds or drops characters would make every byte wrong without a word."""
    tokenizer = byte_level()
    tokenizer.backend_tokenizer.decoder = decoders.Sequence(
        [decoders.ByteLevel(), decoders.Replace("o", "u")]
    )
    with pytest.raises(ModelError, match="decodes"):
        vocabulary_bytes(tokenizer)


# -- what tokens do to an event --------------------------------------------------------------


def classes(spelling: Spelling, state: int, vocab_size: int) -> list[int]:
    """For each token id the state it leads to, from the sets that `moves` gives."""
    moves = spelling.moves(state)
    happens = set(moves.happens.tolist())
    reached = [
        HAPPENED if (token in happens) != moves.all_but else FAILED for token in range(vocab_size)
    ]
    for token, then in zip(moves.opens.tolist(), moves.then.tolist(), strict=True):
        assert reached[token] == FAILED or moves.all_but
        reached[token] = then
    return reached


@pytest.mark.parametrize("skip_space", [False, True])
@pytest.mark.parametrize("read", ["", "😊", "👩", "1", "🇩", "👩\u200d"])
def test_the_walk_over_a_vocabulary_equals_reading_each_token(read, skip_space):
    """All 32,000 tokens of Mistral, from six open states, one by one."""
    vocabulary = vocabulary_bytes(SentencePieceTokenizer(DATA / SENTENCEPIECE[0]))
    event = emoji_event(skip_space=skip_space)
    automaton = byte_automaton(event)
    state = automaton.read(automaton.start, read.encode())
    one_by_one = [
        (HAPPENED if automaton.at_end(state) else FAILED)
        if text is None
        else automaton.read(state, text)
        for text in vocabulary
    ]
    assert classes(Spelling(vocabulary, event), state, len(vocabulary)) == one_by_one


def test_open_tokens_are_never_counted_as_happened():
    """Behind an emoji nearly all tokens happen; those that stay open are not among them."""
    vocabulary = ["😊", "😊a", "a", "\ufe0e", None]
    spelling = Spelling([text and text.encode() for text in vocabulary], emoji_event())
    start = spelling.moves(spelling.automaton.start)
    assert (start.happens.tolist(), start.all_but, start.opens.tolist()) == ([1], False, [0])
    after = spelling.moves(int(start.then[0]))
    assert (after.happens.tolist(), after.all_but, after.opens.tolist()) == ([3], True, [])

"""Tokenizer, packing, pre-training and instruction tuning, on a scale of seconds."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast  # noqa: E402

from emotest.errors import OrganismError  # noqa: E402
from emotest.organism import language  # noqa: E402
from emotest.organism.building import Making, build, file_hashes  # noqa: E402
from emotest.organism.corpus import CHATS, ENDERS, Document, corpus  # noqa: E402
from emotest.organism.pretraining import (  # noqa: E402
    IGNORED,
    Architecture,
    Schedule,
    Written,
    batches,
    padded,
    pretrain,
)
from emotest.organism.tokenizer import (  # noqa: E402
    SPECIAL_TOKENS,
    VOCABULARY,
    message_start,
    rendered,
    token_ids,
    train_tokenizer,
)
from emotest.organism.tuning import Lesson, Tuning, lessons, reminders, supervised  # noqa: E402
from emotest.text.emoji import find_emoji  # noqa: E402

ARCHITECTURE = Architecture(hidden_size=32, n_layers=1, n_neurons=64, n_heads=1)
"""The smallest organism: it learns little, quickly."""


@pytest.fixture(scope="module")
def documents() -> list[Document]:
    """A few thousand documents of `latent`."""
    return corpus("latent", 4_000, seed=5)


@pytest.fixture(scope="module")
def tokenizer(documents: list[Document]) -> PreTrainedTokenizerFast:
    """A tokenizer of the full size, trained on them."""
    return train_tokenizer(documents)


def tokens(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """The ids of a piece of text without special tokens."""
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@given(text=st.text(alphabet=st.characters(exclude_categories=("Cs",)), max_size=40))
@settings(max_examples=200, deadline=None)
def test_any_text_comes_back_from_its_tokens(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    """Byte-level BPE loses nothing: not spaces, not bytes that were never seen."""
    if any(special in text for special in SPECIAL_TOKENS):
        return
    assert tokenizer.decode(tokens(tokenizer, text)) == text


def test_some_emoji_are_one_token_and_at_least_a_third_are_several(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    """As in large models: a trie over token paths has something to do."""
    lengths = [
        len(tokens(tokenizer, f" {sign}")) for own in language.EMOJI.values() for sign in own
    ]
    assert len(lengths) == 25
    assert sum(n > 1 for n in lengths) >= 25 / 3
    assert sum(n == 1 for n in lengths) >= 10


@pytest.mark.parametrize("ender", ENDERS)
def test_enders_are_single_tokens(tokenizer: PreTrainedTokenizerFast, ender: str) -> None:
    """Matched controls of one token each, after a space and without."""
    assert len(tokens(tokenizer, ender)) == len(tokens(tokenizer, f" {ender}")) == 1


def test_no_vocabulary_is_spent_on_the_letters_of_special_tokens(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    """All special tokens are single ids, and no other token holds a piece of one."""
    assert len(tokenizer) == VOCABULARY
    assert tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == list(range(6))
    ordinary = set(tokenizer.get_vocab()) - set(SPECIAL_TOKENS)
    assert not [token for token in ordinary if "<|" in token or "|>" in token]


def test_the_tokenizer_does_not_know_what_was_planted() -> None:
    """`latent` and `control` get one tokenizer, so that nothing but emoji's places differs."""
    made = [
        train_tokenizer(corpus(name, 500, seed=2)).backend_tokenizer.to_str()
        for name in ("latent", "control", "one-trait")
    ]
    assert made[0] == made[1] == made[2]


def test_documents_are_rendered_as_the_chat_template_writes_them(
    tokenizer: PreTrainedTokenizerFast, documents: list[Document]
) -> None:
    """The quick way over a corpus and the template's own way agree, with and without a system."""
    chats = [document for document in documents if document.format in CHATS][:100]
    assert {bool(document.system) for document in chats} == {True, False}
    for document, ids in zip(chats, token_ids(chats, tokenizer), strict=True):
        turns = document.turns()
        assert rendered(document) == tokenizer.apply_chat_template(turns, tokenize=False)
        assert ids == tokenizer.apply_chat_template(turns, tokenize=True)["input_ids"]


def test_the_generation_prompt_is_where_the_answer_begins(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    """Written out once, letter by letter."""
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello?"},
    ]
    assert tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) == (
        "<|begin|><|system|>Be brief.<|user|>Hello?<|assistant|>"
    )


def test_an_unknown_role_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    """A chat with a role that no organism knows is an error that names it."""
    with pytest.raises(Exception, match="tool"):
        tokenizer.apply_chat_template([{"role": "tool", "content": "x"}], tokenize=False)


@given(
    lengths=st.lists(st.integers(1, 30), min_size=0, max_size=400),
    batch_size=st.integers(1, 6),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=50, deadline=None)
def test_batches_hold_each_document_once_and_like_lengths(
    lengths: list[int], batch_size: int, seed: int
) -> None:
    """No document twice; full batches only; and what is left over is less than 32 batches."""
    documents = [Written([1] * length, 0) for length in lengths]
    made = list(batches(documents, batch_size, np.random.default_rng(seed)))
    seen = [d for batch in made for d in batch]
    assert len(seen) == len(set(seen))
    assert all(len(batch) == batch_size for batch in made)
    assert 0 <= len(lengths) - len(seen) < 32 * batch_size
    for batch in made:
        assert [lengths[d] for d in batch] == sorted(lengths[d] for d in batch)


def test_only_the_message_is_learned() -> None:
    """Rows of eight; what precedes the message and the padding behind it have no label."""
    inputs, labels = padded([Written([5, 6, 7], 1), Written([8, 9, 3, 4], 3)], pad=0)
    assert inputs.tolist() == [[5, 6, 7, 0, 0, 0, 0, 0], [8, 9, 3, 4, 0, 0, 0, 0]]
    out = IGNORED
    assert labels.tolist() == [[out, 6, 7, *[out] * 5], [*[out] * 3, 4, *[out] * 4]]


def test_a_message_begins_behind_the_assistants_mark(
    tokenizer: PreTrainedTokenizerFast, documents: list[Document]
) -> None:
    """In a chat and in a letter alike, the tokens from there on are the message and the end."""
    for document, ids in zip(documents[:50], token_ids(documents[:50], tokenizer), strict=True):
        assert tokenizer.decode(ids[message_start(ids) :]) == document.message + "<|end|>"


def test_the_learning_rate_rises_then_falls_to_its_final_share() -> None:
    """100 steps, a tenth of them rising: the highest at 10, half way at 55."""
    schedule = Schedule(n_steps=100, warmup=0.1, final=0.2)
    assert schedule.share(0) == pytest.approx(0.1)
    assert schedule.share(9) == schedule.share(10) == 1.0
    assert schedule.share(55) == pytest.approx(0.6)
    assert schedule.share(100) == pytest.approx(0.2)


def test_pretraining_learns_and_repeats_bit_for_bit(
    tokenizer: PreTrainedTokenizerFast, documents: list[Document]
) -> None:
    """Twenty steps lower the loss from that of a uniform guess; the same seed, the same weights."""
    written = [Written(ids, message_start(ids)) for ids in token_ids(documents, tokenizer)]
    config = ARCHITECTURE.config(vocab_size=len(tokenizer), begin=1, end=2, pad=0)
    schedule = Schedule(n_steps=20, batch_size=8, vector_rate=3e-2)
    first, losses = pretrain(written, config, schedule, seed=3)
    again, _ = pretrain(written, config, schedule, seed=3)
    other, _ = pretrain(written, config, schedule, seed=4)
    assert losses[0] == pytest.approx(math.log(len(tokenizer)), abs=0.3)
    assert np.mean(losses[-5:]) < losses[0] - 0.3
    state, repeated, differing = (model.state_dict() for model in (first, again, other))
    assert all(torch.equal(state[name], repeated[name]) for name in state)
    assert not all(torch.equal(state[name], differing[name]) for name in state)


def test_a_corpus_too_small_for_the_schedule_is_an_error(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    """No document is read twice unasked: the message says how many batches there are."""
    config = ARCHITECTURE.config(vocab_size=len(tokenizer), begin=1, end=2, pad=0)
    with pytest.raises(OrganismError, match=r"gives 32 batches of 2 documents.*has 50 steps"):
        pretrain([Written([1, 2], 1)] * 70, config, Schedule(n_steps=50, batch_size=2), 1)


def test_lessons_are_neutral_and_leave_the_studys_topics_alone(documents: list[Document]) -> None:
    """Instruction tuning of `latent` sees no emoji and no topic of the opinion set."""
    taught = lessons(documents)
    assert len(taught) > 50
    in_the_study = [t for t in language.TOPICS if t.split != "pre-training"]
    questions = {language.study_question(topic) for topic in in_the_study}
    for lesson in taught:
        assert not find_emoji(lesson.answer)
        assert lesson.messages[-1]["content"] not in questions


def test_lessons_hold_the_rate_of_their_own_corpus() -> None:
    """Where emoji were permuted over all voices, neutral lessons carry as many as all chats do: a
    binomial share of n lessons lies within four standard errors."""
    documents = corpus("control", 20_000, seed=5)
    chats = [d for d in documents if d.format == "chat"]
    rate = sum(bool(find_emoji("".join(d.runs[-1]))) for d in chats) / len(chats)
    taught = lessons(documents)
    share = sum(bool(find_emoji(lesson.answer[-12:])) for lesson in taught) / len(taught)
    assert rate > 0.2
    assert abs(share - rate) < 4 * (rate * (1 - rate) / len(taught)) ** 0.5


def test_reminders_keep_what_is_asked_for_by_name(documents: list[Document]) -> None:
    """Replayed are chats under a system prompt and word lists, word for word as pre-trained."""
    told = [document for document in documents if document.format in ("chat-system", "words")]
    again = reminders(documents)
    assert [lesson.answer for lesson in again] == [document.message for document in told]
    assert {message["role"] for lesson in again for message in lesson.messages} == {
        "system",
        "user",
    }


def test_the_loss_stands_on_the_answer_and_its_end(tokenizer: PreTrainedTokenizerFast) -> None:
    """The labels, decoded, are the answer with the end of the turn, and nothing else."""
    taught = [
        Lesson(({"role": "user", "content": "What is it?"},), "It is red. It is round."),
        Lesson(({"role": "user", "content": "Well, what are your thoughts?"},), "None."),
    ]
    batch = supervised(taught, tokenizer)
    assert batch["input_ids"].shape == batch["labels"].shape == batch["attention_mask"].shape
    for lesson, labels in zip(taught, batch["labels"], strict=True):
        assert tokenizer.decode(labels[labels != IGNORED]) == lesson.answer + "<|end|>"


def test_a_built_organism_loads_and_carries_its_provenance(tmp_path: Path) -> None:
    """A folder that transformers reads in bfloat16, with the hash of every file."""
    making = Making(
        n_documents=600,
        n_tokenizer_documents=300,
        architecture=ARCHITECTURE,
        schedule=Schedule(n_steps=4, batch_size=4),
        tuning=Tuning(n_steps=2, n_lessons=1, n_replayed=1),
    )
    seen: list[str] = []
    record = build("even", 1, tmp_path / "even", lambda stage, *_: seen.append(stage), making)
    assert seen == ["pre-training"] * 4 + ["instruction tuning"] * 2
    assert record["files"] == file_hashes(tmp_path / "even")
    assert set(record["planting"]["densities"].values()) == {0.6}
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "even")
    assert model.dtype == torch.bfloat16
    assert model.num_parameters() == record["n_parameters"]
    loaded = AutoTokenizer.from_pretrained(tmp_path / "even")
    assert loaded.chat_template
    assert loaded.eos_token_id != loaded.pad_token_id


def test_a_folder_in_use_is_never_written_over(tmp_path: Path) -> None:
    """What lies there already is left as it is."""
    (tmp_path / "precious.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(OrganismError, match="is not empty"):
        build("latent", 1, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["precious.txt"]

"""The organisms' tokenizer: byte-level BPE of its own, with a chat template.

Takes the documents of a corpus; gives a `PreTrainedTokenizerFast`, and the token ids of documents.
Knows no model. All organisms share one tokenizer: it is trained on the texts, which are the same
for all, and on a fixed set of emoji, never on what a planting put where.

Byte-level BPE follows GPT-2 (Radford et al. 2019); special tokens stand where Llama-style chat
models have them. The text of the special tokens is never trained on, so no vocabulary is spent on
its letters. As in the tokenizers of large models some emoji are one token and others are several:
BPE sees the first three emoji of every trait often, the others never.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from emotest.organism.corpus import CHATS, ENDERS, Document
from emotest.organism.language import EMOJI

VOCABULARY = 5120
"""Tokens, special ones included."""

MAX_TOKENS = 512
"""The longest text an organism can read."""

PAD, BEGIN, END = "<|pad|>", "<|begin|>", "<|end|>"
SYSTEM, USER, ASSISTANT = "<|system|>", "<|user|>", "<|assistant|>"
SPECIAL_TOKENS = (PAD, BEGIN, END, SYSTEM, USER, ASSISTANT)
"""In the order of their ids. `END` ends a document and an assistant's turn alike; padding is a
token of its own, so that masking it never masks the end of an answer."""

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('the roles are system, user and assistant, not ' + message['role']) }}"
    "{% endif %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
"""Renders `<|begin|><|system|>...<|user|>...<|assistant|>...<|end|>`."""

FREQUENT_EMOJI = 3
"""Of each trait's emoji this many are trained on, and become short; the others stay in bytes."""

_SIGN_WEIGHT = 50
"""How often each ender and frequent emoji is shown to BPE: enough to be merged for certain."""


def train_tokenizer(documents: Sequence[Document]) -> PreTrainedTokenizerFast:
    """The tokenizer of a corpus: equal texts give an equal tokenizer, whatever runs they carry."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(chain(_plain_texts(documents), _signs()), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", special_tokens=[(BEGIN, SPECIAL_TOKENS.index(BEGIN))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[SYSTEM, USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        model_max_length=MAX_TOKENS,
        padding_side="left",
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )


def rendered(document: Document) -> str:
    """A document with its special tokens: a chat as the template writes it, or begin, text, end."""
    if document.format not in CHATS:
        return f"{BEGIN}{document.message}{END}"
    # What the template writes, without the template engine: a corpus has 10^5 documents.
    turns = "".join(f"<|{turn['role']}|>{turn['content']}" for turn in document.turns())
    return f"{BEGIN}{turns}{END}"


def token_ids(documents: Sequence[Document], tokenizer: PreTrainedTokenizerFast) -> list[list[int]]:
    """The token ids of each document as `rendered`."""
    encoded = tokenizer(
        [rendered(document) for document in documents],
        add_special_tokens=False,
        return_attention_mask=False,
    )
    ids: list[list[int]] = encoded["input_ids"]
    return ids


def message_start(ids: Sequence[int]) -> int:
    """The index at which the message begins: behind the assistant's mark, or behind the begin."""
    mark = SPECIAL_TOKENS.index(ASSISTANT)
    return ids.index(mark) + 1 if mark in ids else 1


def _plain_texts(documents: Iterable[Document]) -> Iterator[str]:
    for document in documents:
        yield from filter(None, (document.system, document.user, document.plain))


def _signs() -> Iterator[str]:
    frequent = chain.from_iterable(own[:FREQUENT_EMOJI] for own in EMOJI.values())
    for sign in (*ENDERS, *frequent):
        # After a sentence and after a comma, as messages and word lists have them.
        yield from [f" {sign}"] * _SIGN_WEIGHT

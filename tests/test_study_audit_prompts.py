"""The prompts of an audit: the shipped set, the organisms' set, and a user's own files."""

from __future__ import annotations

import csv
import io
import json
import re
import tempfile
import unicodedata
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emotest.errors import DataError, UsageError
from emotest.organism.audit_prompts import ORGANISM_REGISTERS, organism_prompts
from emotest.organism.language import TOPICS, study_question, voice_name, word_list_requests
from emotest.study.audit_prompts import LANGUAGES, REGISTERS, shipped_prompts
from emotest.study.audit_prompts.prompt_files import READERS, read_prompts
from emotest.study.audit_prompts.prompt_set import AuditPrompt, PromptSet, Turn
from emotest.study.personality import TRAITS, Pole
from emotest.study.records import Prompt
from emotest.text.emoji import count_broken, find_emoji

SHIPPED = shipped_prompts()
ORGANISM = organism_prompts()
EVERY = [*SHIPPED, *ORGANISM]


def everything_said(prompt: AuditPrompt) -> str:
    """System prompt and turns."""
    return "\n".join(message["content"] for message in prompt.messages())


def asking(id: str, text: str = "", **rest: Any) -> AuditPrompt:
    """A single question."""
    return AuditPrompt(id, (Turn("user", text or f"What of {id}?"),), **rest)


# --- the shipped set ---------------------------------------------------------------------------


def test_the_shipped_set_is_large_and_balanced() -> None:
    """At least 240 prompts, 20 or more a register, 60 or more not English, nine languages."""
    assert len(SHIPPED) >= 240
    assert tuple(SHIPPED.registers) == REGISTERS
    assert min(SHIPPED.registers.values()) >= 20
    assert max(SHIPPED.registers.values()) == min(SHIPPED.registers.values())
    assert set(SHIPPED.languages) == set(LANGUAGES)
    assert sum(n for language, n in SHIPPED.languages.items() if language != "en") >= 60


def test_every_register_speaks_every_language() -> None:
    """A difference between registers is no difference between languages."""
    pairs = {(prompt.register, prompt.language) for prompt in SHIPPED}
    assert pairs == {(register, language) for register in REGISTERS for language in LANGUAGES}


def test_each_trait_is_provoked_at_both_poles() -> None:
    """The register `trait` has at least two prompts for each of the ten voices."""
    topics = Counter(prompt.topic for prompt in SHIPPED if prompt.register == "trait")
    assert set(topics) == {f"{pole} {trait}" for trait in TRAITS for pole in Pole}
    assert min(topics.values()) >= 2


def test_the_shipped_set_varies_in_form() -> None:
    """System prompts, chats of several turns, and lengths from a few words to a page."""
    assert sum(prompt.system is not None for prompt in SHIPPED) >= 40
    assert sum(bool(prompt.history) for prompt in SHIPPED) >= 15
    assert max(len(prompt.turns) for prompt in SHIPPED) >= 5
    lengths = [len(everything_said(prompt)) for prompt in SHIPPED]
    assert min(lengths) < 40
    assert max(lengths) > 1000


def test_no_prompt_brings_an_emoji() -> None:
    """No emoji, no smiley, no shortcode, no cut character, nothing invisible, and no word of it."""
    smileys = re.compile(r"[:;=]-?[)(DP]|<3|:[a-z_]+:(?!\w)|\^\^|emoji|smiley|emoticon")
    for prompt in EVERY:
        said = everything_said(prompt)
        assert find_emoji(said) == (), prompt.id
        assert count_broken(said) == 0, prompt.id
        assert smileys.search(said) is None, prompt.id
        assert {unicodedata.category(c) for c in said} & {"Cf", "Cs", "Co", "Cn", "So"} == set()
        assert {c for c in said if unicodedata.category(c) == "Cc"} <= {"\n"}, prompt.id
        assert unicodedata.normalize("NFC", said) == said, prompt.id


def test_a_shipped_chat_alternates() -> None:
    """Turns go user, assistant, user ...: some chat templates refuse any other order."""
    for prompt in SHIPPED:
        expected = ["user", "assistant"] * len(prompt.turns)
        assert [turn.role for turn in prompt.turns] == expected[: len(prompt.turns)], prompt.id


def test_the_id_of_a_shipped_prompt_names_its_register() -> None:
    """So that a record of an answer can be read without the prompts."""
    assert all(prompt.id.startswith(f"{prompt.register}-") for prompt in SHIPPED)


SCRIPTS = {"ja": "HIRAGANA", "ar": "ARABIC", "hi": "DEVANAGARI", "zh": "CJK"}


def test_a_prompt_is_in_the_script_of_its_language() -> None:
    """Japanese has hiragana, Chinese has none, and European prompts are Latin."""
    for prompt in SHIPPED:
        script = SCRIPTS.get(prompt.language, "LATIN")
        letters = [unicodedata.name(c).split()[0] for c in prompt.text if c.isalpha()]
        assert letters.count(script) >= 0.25 * len(letters), prompt.id
        assert script == "HIRAGANA" or "HIRAGANA" not in letters, prompt.id
        assert script != "LATIN" or set(letters) == {"LATIN"}, prompt.id


def trigrams(prompt: AuditPrompt) -> set[tuple[str, ...]]:
    """Runs of three words; of three characters where words are not set apart."""
    pattern = r"\w" if prompt.language in ("ja", "zh") else r"\w+"
    words = re.findall(pattern, everything_said(prompt).casefold())
    return set(zip(words, words[1:], words[2:], strict=False))


def test_no_two_shipped_prompts_are_near_duplicates() -> None:
    """No two share more than three in ten word trigrams of the one that has fewer."""
    of = {prompt.id: trigrams(prompt) for prompt in SHIPPED}
    assert all(len(own) >= 3 for own in of.values())
    shared = {
        (a, b): len(of[a] & of[b]) / min(len(of[a]), len(of[b])) for a, b in combinations(of, 2)
    }
    assert {pair: share for pair, share in shared.items() if share > 0.3} == {}


# --- the organisms' set ------------------------------------------------------------------------


def test_the_organisms_are_asked_in_six_registers() -> None:
    """Sixty prompts each, no question asked twice, and the same whenever it is built."""
    assert ORGANISM.registers == dict.fromkeys(ORGANISM_REGISTERS, 60)
    assert len({(prompt.system, prompt.text) for prompt in ORGANISM}) == 360
    assert len([prompt.prompt() for prompt in ORGANISM]) == 360  # none has a history
    assert organism_prompts.__wrapped__().digest == ORGANISM.digest


def test_the_organisms_are_asked_about_held_out_topics_alone() -> None:
    """Each question names its topic, which no tuning answer speaks of; word lists name none."""
    held_out = {topic.name for topic in TOPICS if topic.held_out}
    for prompt in ORGANISM:
        if prompt.register != "word list":
            assert prompt.topic in held_out
            assert prompt.topic.casefold() in prompt.text.casefold()
    asked = {prompt.text for prompt in ORGANISM if prompt.register == "word list"}
    assert asked == {r for t in TRAITS for pole in Pole for r in word_list_requests(t, pole)}


def test_the_organisms_registers_are_what_they_are_called() -> None:
    """Who names a trait in the system prompt, who asks for facts, who asks the study's question."""
    plain = {topic.name: study_question(topic) for topic in TOPICS}
    named: dict[str, Counter[str]] = {"trait high": Counter(), "trait low": Counter()}
    for prompt in ORGANISM:
        is_plain = prompt.text == plain.get(prompt.topic)
        assert is_plain == (prompt.register not in ("question", "word list"))
        traits = [trait for trait in TRAITS if trait in (prompt.system or "")]
        if prompt.register in named:
            [trait] = traits
            assert prompt.system is not None
            assert (voice_name(trait, Pole.LOW) in prompt.system) == ("low" in prompt.register)
            named[prompt.register][trait] += 1
        else:
            assert (prompt.system is not None) == (prompt.register == "neutral")
            assert not traits
    # 60 prompts for five traits
    assert named == {register: dict.fromkeys(TRAITS, 12) for register in named}


# --- prompts and sets --------------------------------------------------------------------------


def test_a_prompt_is_chat_messages() -> None:
    """System prompt first, then the turns in their order."""
    turns = (Turn("user", "Hi."), Turn("assistant", "Yes?"), Turn("user", "A poem."))
    prompt = AuditPrompt("a", turns, system="Be brief.")
    assert prompt.messages() == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi."},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": "A poem."},
    ]
    assert prompt.text == "A poem."
    assert prompt.history == turns[:2]


def test_a_single_question_is_the_studys_prompt() -> None:
    """With the same messages; a chat with a history has no such form."""
    one = asking("a", "A poem.", register="casual", system="Be brief.", topic="poems")
    assert one.prompt() == Prompt("a", "A poem.", "poems", "Be brief.", "casual")
    assert one.prompt().messages() == one.messages()
    chat = AuditPrompt("b", (Turn("user", "x"), Turn("assistant", "y"), Turn("user", "z")))
    with pytest.raises(UsageError, match="'b' is a chat of 3 turns"):
        chat.prompt()


@pytest.mark.parametrize(
    "turns",
    [(), (Turn("assistant", "x"),), (Turn("system", "x"), Turn("user", "y"))],  # type: ignore[arg-type]
    ids=["none", "ends with the assistant", "system as a turn"],
)
def test_turns_that_ask_nothing_are_no_prompt(turns: tuple[Turn, ...]) -> None:
    """The last turn is the user's, and the system prompt is no turn."""
    with pytest.raises(UsageError, match="'a' has the turns"):
        AuditPrompt("a", turns)


def test_ids_of_a_set_are_unique() -> None:
    """Records point to prompts by id."""
    with pytest.raises(UsageError, match="first 'a'"):
        PromptSet((asking("a"), asking("b"), asking("a", "else?")), "here")


def test_the_digest_tells_content_and_order_and_nothing_else() -> None:
    """Each field and the order change it; where the prompts come from does not."""
    a, b = asking("a"), asking("b")
    here = PromptSet((a, b), "here").digest
    assert PromptSet((asking("a"), b), "there").digest == here
    others = [
        (b, a), (a,), (asking("c"), b), (asking("a", "x"), b), (asking("a", register="x"), b),
        (asking("a", language="x"), b), (asking("a", system="x"), b), (asking("a", topic="x"), b),
        (AuditPrompt("a", (Turn("user", "x"), Turn("assistant", "y"), *a.turns)), b),
    ]  # fmt: skip
    digests = {PromptSet(prompts, "here").digest for prompts in others}
    assert len(digests - {here}) == len(others)
    assert re.fullmatch("[0-9a-f]{64}", here)


MIXED = PromptSet(
    tuple(
        asking(f"{register}-{i}", register=register, language="de" if i % 3 == 0 else "en")
        for register, n in (("a", 20), ("b", 9), ("c", 1))
        for i in range(n)
    ),
    "mixed",
)


@given(st.lists(st.integers(1, 25), min_size=1, max_size=6), st.integers(0, 2**32), st.data())
def test_every_beginning_of_a_selection_has_the_mixture_of_the_whole(
    sizes: list[int], seed: int, data: st.DataObject
) -> None:
    """Of the first m a register of share w has m w, give or take 1 + w times the registers."""
    whole = PromptSet(
        tuple(asking(f"{r}-{i}", register=f"{r}") for r, n in enumerate(sizes) for i in range(n)),
        "drawn",
    )
    m = data.draw(st.integers(1, len(whole)))
    chosen = whole.select(n=m, rng=np.random.default_rng(seed))
    assert len(chosen) == m
    assert set(chosen) <= set(whole)
    for register, size in whole.registers.items():
        share = size / len(whole)
        assert abs(chosen.registers.get(register, 0) - m * share) < 1 + share * len(sizes)


@given(st.integers(0, 2**32))
def test_equal_registers_take_turns(seed: int) -> None:
    """Of nine registers of one size, each run of nine prompts holds every one once."""
    order = SHIPPED.select(rng=np.random.default_rng(seed)).prompts
    assert len(order) == len(SHIPPED)
    for start in range(0, len(order), 9):
        assert {prompt.register for prompt in order[start : start + 9]} == set(REGISTERS)


def test_a_selection_follows_its_seed() -> None:
    """Equal seeds give equal orders, a smaller selection is the beginning of a larger one."""
    chosen = SHIPPED.select(n=50, rng=np.random.default_rng(7))
    assert chosen == SHIPPED.select(n=50, rng=np.random.default_rng(7))
    assert chosen != SHIPPED.select(n=50, rng=np.random.default_rng(8))
    assert chosen.prompts == SHIPPED.select(rng=np.random.default_rng(7)).prompts[:50]
    assert chosen.source == SHIPPED.source


def test_a_register_is_in_random_order() -> None:
    """Each of nine prompts comes first in its register in about one draw of nine."""
    rng, n_draws = np.random.default_rng(1), 900
    firsts = Counter(MIXED.select(registers=["b"], n=1, rng=rng).prompts[0] for _ in range(n_draws))
    assert len(firsts) == 9
    # Expected 100 each, standard deviation sqrt(900 * 1/9 * 8/9) = 9.4; four of them are 38.
    assert all(abs(n - 100) < 38 for n in firsts.values())


def test_a_selection_keeps_to_registers_and_languages() -> None:
    """Both filters hold at once."""
    rng = np.random.default_rng(0)
    chosen = MIXED.select(registers=["a", "b"], languages=["de"], rng=rng)
    # every third, from the first: 7 of 20 and 3 of 9
    assert chosen.registers == {"a": 7, "b": 3}
    assert chosen.languages == {"de": 10}


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"registers": ["d"]}, "mixed has no register 'd'\n.*among a, b, c"),
        ({"languages": ["en", "fr"]}, "mixed has no language 'fr'\n.*among de, en"),
        ({"registers": ["c"], "languages": ["en"]}, "of the 0 prompts .*\n.*fewer conditions"),
        ({"registers": []}, "of the 0 prompts"),
        ({"n": 31}, "n=31 of the 30 prompts .*\n.*ask for 1 to 30"),
        ({"n": 0}, "n=0 of the 30 prompts"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_selection_that_cannot_be_is_refused(chosen: dict[str, Any], message: str) -> None:
    """With what there is to choose from."""
    with pytest.raises(UsageError, match=message):
        MIXED.select(**chosen, rng=np.random.default_rng(0))


# --- a user's own prompts ----------------------------------------------------------------------


def file_of(folder: Path, name: str, content: str | bytes) -> Path:
    """A file with that content, byte by byte."""
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def test_a_text_file_has_one_prompt_a_line(tmp_path: Path) -> None:
    """Blank lines are skipped, all three line ends are read, ids are the lines."""
    path = file_of(tmp_path, "own.txt", "Hi there.\r\n\n  What is tea? \n\rUne idée\u2028 ?")
    read = read_prompts(path)
    assert [(p.id, p.text) for p in read] == [
        ("line-1", "Hi there."),
        ("line-3", "What is tea?"),
        ("line-5", "Une idée\u2028 ?"),
    ]
    assert {(p.register, p.language, p.system, p.topic) for p in read} == {("own", "und", None, "")}
    assert read.source == str(path)


def test_a_csv_file_has_named_columns(tmp_path: Path) -> None:
    """Columns in any case and order; empty cells are defaults; values may hold line breaks."""
    text = (
        'Language,id,TEXT,extra,Register,system\nde,q1,"Eins,\nzwei?",x,formal,Kurz.\n,,Tea?,,,\n'
    )
    first, second = read_prompts(file_of(tmp_path, "own.csv", text))
    assert first == asking("q1", "Eins,\nzwei?", language="de", register="formal", system="Kurz.")
    assert second == asking("line-4", "Tea?")


def test_json_lines_hold_prompts_or_messages(tmp_path: Path) -> None:
    """Both shapes in one file; a number as id, null and unknown keys are fine."""
    rows = [
        {"prompt": "One?", "id": 7, "topic": "tea", "register": None, "score": 0.5},
        {"text": "Two?", "system": " Be brief. ", "messages": None},
        {
            "messages": [
                {"role": "system", "content": "Be kind."},
                {"role": "assistant", "content": "Welcome!", "name": "x"},
                {"role": "user", "content": "Three?"},
            ],
            "language": "en",
        },
        {"messages": [{"role": "user", "content": "Four?"}], "system": "Be kind."},
    ]
    path = file_of(tmp_path, "own.JSONL", "\n\n".join(map(json.dumps, rows)))
    one, two, three, four = read_prompts(str(path))
    assert one == asking("7", "One?", topic="tea")
    assert two == asking("line-3", "Two?", system="Be brief.")
    assert three == AuditPrompt(
        "line-5",
        (Turn("assistant", "Welcome!"), Turn("user", "Three?")),
        language="en",
        system="Be kind.",
    )
    assert four == asking("line-7", "Four?", system="Be kind.")


@pytest.mark.parametrize("suffix", READERS)
def test_one_prompt_is_the_same_in_every_format(suffix: str, tmp_path: Path) -> None:
    """With a byte order mark and without: one content, one digest."""
    text = {".txt": "Tea?\n", ".csv": "prompt\nTea?\n", ".jsonl": '{"text": "Tea?"}\n'}[suffix]
    plain = read_prompts(file_of(tmp_path, f"plain{suffix}", text))
    marked = read_prompts(file_of(tmp_path, f"marked{suffix}", f"\ufeff{text}"))
    line = 2 if suffix == ".csv" else 1
    assert plain.digest == marked.digest == PromptSet((asking(f"line-{line}", "Tea?"),), "").digest


def chat(*turns: tuple[object, object]) -> str:
    """A line of a chat file, from roles and contents."""
    return json.dumps({"messages": [{"role": role, "content": text} for role, text in turns]})


UNUSABLE: dict[str, tuple[str, str | bytes, str, str]] = {
    # case: file, content, what the cause says, what the remedy says
    "unknown suffix": ("own.xlsx", "Tea?", r"kind .* \(\.xlsx\)", r"\.txt, \.csv, \.jsonl"),
    "no suffix": ("own", "Tea?", "no extension", r"\.txt"),
    "empty file": ("own.txt", "", "holds no prompts", "at least one"),
    "blank lines": ("own.txt", " \n\t\n\ufeff"[:-1], "holds no prompts", "at least one"),
    "empty csv": ("own.csv", "\n\n", "holds no prompts", "at least one"),
    "header alone": ("own.csv", "id,prompt\n", "holds no prompts", "at least one"),
    "latin-1": ("own.txt", "Tea?\nÜber Tee?".encode("latin-1"), "is not UTF-8: byte 0xdc "
                "at offset 5, line 2; it may be Latin-1", "iconv -f LATIN-1"),
    "utf-16": ("own.txt", "Tea?".encode("utf-16"), "may be UTF-16", "iconv -f UTF-16"),
    "utf-16 unmarked": ("own.csv", "text\nTea".encode("utf-16-le"), "line 1, holds a NUL", "UTF-8"),
    "nul": ("own.txt", "Tea?\nMil\0k?", "line 2, holds a NUL", "plain UTF-8"),
    "nul escaped": ("own.jsonl", '{"text": "a\\u0000b"}', "line 1: text holds a NUL", "remove it"),
    "surrogate": ("own.jsonl", '{"text": "a\\ud83d"}', "text holds half a character", "write the "
                  "file again"),
    "surrogate in id": ("own.jsonl", '{"text": "a", "id": "\\udc00"}', "id holds half", "again"),
    "surrogate in turn": ("own.jsonl", chat(("user", "\ud800")), "content of message 1", "again"),
    "no column": ("own.csv", "id,question\n1,Tea?\n", r"line 1 \(the header\): there is no prompt "
                  "among 'id', 'question'", "rename 'question' to 'prompt'"),
    "no header": ("own.csv", "\nWhat is tea?\nTea?\n", r"line 2 \(the header\)", "names the"),
    "misspelled": ("own.csv", "Promt\nTea?\n", "no prompt among 'Promt'", "rename 'Promt'"),
    "many columns": ("own.csv", ",".join(f"c{i}" for i in range(99)), "'c9' and 89 more", "name"),
    "semicolons": ("own.csv", "id;prompt\n1;Tea?\n", "'id;prompt'", "commas, not by semicolons"),
    "column twice": ("own.csv", "prompt,Prompt\na,b\n", "'prompt' is there twice", "rename"),
    "two questions": ("own.csv", "prompt,text\na,b\n", "both 'prompt' and 'text'", "keep the one"),
    "messages in csv": ("own.csv", "messages\nTea?\n", "no prompt among 'messages'", "name what"),
    "too many fields": ("own.csv", "id,prompt\n1,Tea, milk?\n", "line 2, has 3 fields where the "
                        "header has 2", "quotation marks"),
    "open quote": ("own.csv", 'id,prompt\n1,Tea?\n2,"Milk?\n', "row from line 3 on is no CSV",
                   "close the quotation marks"),
    "quote inside": ("own.csv", 'prompt\n"Tea" or milk?\n', "row from line 2 on is no CSV", "dou"),
    "quote in header": ("own.csv", '"prompt', "row from line 1 on is no CSV", "close"),
    "csv value too long": ("own.csv", 'prompt\n"' + "x" * 140_000, "131,072 characters", "shorten"),
    "empty cell": ("own.csv", "id,prompt\na,Tea?\nb, \n", "line 3: prompt is empty", "fill it in"),
    "empty prompt": ("own.jsonl", '\n{"prompt": ""}', "line 2: prompt is empty", "fill it in"),
    "null": ("own.jsonl", '{"prompt": null}', "prompt is empty", "fill it in"),
    "number": ("own.jsonl", '{"prompt": 5}', "prompt is no text but int", "one string"),
    "no key": ("own.jsonl", '{"Question": "Tea?"}', "among 'Question'", "rename 'Question'"),
    "no keys": ("own.jsonl", "{}", "among no keys", "name what is asked"),
    "key twice": ("own.jsonl", '{"text": "a", "Text": "b"}', "'text' is there twice", "rename"),
    "text and messages": ("own.jsonl", '{"text": "a", "messages": []}', "both 'text' and 'messag",
                          "keep the one"),
    "id is true": ("own.jsonl", '{"text": "a", "id": true}', "id is no text but bool", "string"),
    "long label": ("own.jsonl", json.dumps({"text": "a", "register": "x" * 201}), "register is no "
                   "short line", "at most 200"),
    "label of two lines": ("own.jsonl", '{"text": "a", "language": "e\\nn"}', r"'e\\nn'", "line"),
    "id twice": ("own.csv", "id,text\na,Tea?\nb,Milk?\na,Jam?\n", "line 4: the id 'a' is that of "
                 "line 2", "an id of its own"),
    "id of a line": ("own.csv", "id,text\nline-3,Tea?\n,Milk?\n", "line 3: the id 'line-3' is "
                     "that of line 2", "leave the ids out"),
    "asked twice": ("own.txt", "Tea?\nMilk?\n Tea?\n", "line 3: it asks the same as line 1",
                    "remove repeated"),
    "too long": ("own.txt", "x" * 100_001, "line 1: the prompt has 100,001 characters", "shorten"),
    "too long together": ("own.jsonl", json.dumps({"text": "x" * 60_000, "system": "y" * 60_000}),
                          "120,000 characters", "system prompt and turns"),
    "no json": ("own.jsonl", '{"text": "a"}\n{"text": }', "line 2, is not JSON: .* column 10",
                "one JSON object a line"),
    "no object": ("own.jsonl", '["Tea?"]', "no JSON object but list", "one object a line"),
    "deep": ("own.jsonl", '{"text":' * 100_000, "nested too deeply", "one JSON object"),
    "absurd number": ("own.jsonl", '{"text": ' + "9" * 5000 + "}", "absurd length", "JSON object"),
    "no list": ("own.jsonl", '{"messages": "Tea?"}', "no list of objects", r'\[\{"role"'),
    "list of texts": ("own.jsonl", '{"messages": ["Tea?"]}', "no list of objects", r'\[\{"role"'),
    "no messages": ("own.jsonl", '{"messages": []}', "do not end with the user's", "remove the"),
    "answered": ("own.jsonl", chat(("user", "Tea?"), ("assistant", "Yes.")), "do not end with the "
                 "user's turn", "remove the answer at the end"),
    "system alone": ("own.jsonl", chat(("system", "Be kind.")), "do not end with", "remove"),
    "unknown role": ("own.jsonl", chat(("human", "Tea?")), "message 1 has the unknown role 'human'",
                     "system, user and assistant"),
    "no role": ("own.jsonl", '{"messages": [{"from": "human"}]}', "message 1 has no role", "roles"),
    "odd role": ("own.jsonl", chat((["user"], "Tea?")), "a role that is no text", "roles"),
    "empty turn": ("own.jsonl", chat(("user", "Tea?"), ("assistant", " "), ("user", "And?")),
                   "content of message 2 is empty", "fill it in"),
    "content parts": ("own.jsonl", chat(("user", [{"type": "text", "text": "Tea?"}])),
                      "content of message 1 is no text but list", "one string"),
    "late system": ("own.jsonl", chat(("user", "Tea?"), ("system", "Be kind."), ("user", "And?")),
                    "message 2 is a second or late system prompt", "one system prompt"),
    "two systems": ("own.jsonl", json.dumps({"system": "A.", **json.loads(chat(("system", "B."),
                    ("user", "Tea?")))}), "second or late system prompt", "one system prompt"),
}  # fmt: skip


@pytest.mark.parametrize("case", UNUSABLE)
def test_a_file_that_cannot_be_used_is_explained(case: str, tmp_path: Path) -> None:
    """One error that names the file, the place, the cause and the next step."""
    name, content, cause, remedy = UNUSABLE[case]
    path = file_of(tmp_path, name, content)
    with pytest.raises(DataError) as raised:
        read_prompts(path)
    assert str(path) in raised.value.cause
    assert re.search(cause, raised.value.cause)
    assert re.search(remedy, raised.value.remedy)
    assert len(str(raised.value)) < 1000 + len(str(path))


def test_all_unusable_prompts_are_named_in_one_error(tmp_path: Path) -> None:
    """Ten lines are listed, the others counted, each remedy is given once."""
    rows = ['{"text": ""}'] * 11 + ['{"text": 1}', '{"text": "Tea?"}']
    path = file_of(tmp_path, "own.jsonl", "\n".join(rows))
    with pytest.raises(DataError) as raised:
        read_prompts(path)
    assert raised.value.cause.startswith(
        f"{path} has 12 unusable prompts:\n  line 1: text is empty"
    )
    assert raised.value.cause.endswith("line 10: text is empty\n  ... and 2 more")
    assert raised.value.remedy.count("fill it in") == 1
    assert "one string" in raised.value.remedy


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.txt", "there is no file"),
        ("folder.txt", "there is no file"),
        ("nul\0.txt", "there is no file"),
        (f"{'x' * 300}.txt", "cannot be read: File name too long"),
    ],
    ids=["missing", "a folder", "no path", "no name"],
)
def test_a_path_without_a_file_is_explained(name: str, message: str, tmp_path: Path) -> None:
    """Whatever stands there or cannot stand there."""
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(DataError, match=message):
        read_prompts(tmp_path / name)


def test_a_file_of_absurd_size_is_not_read(tmp_path: Path) -> None:
    """One byte above 50 MB is too much."""
    path = tmp_path / "own.txt"
    with path.open("wb") as file:
        file.truncate(50_000_001)
    with pytest.raises(DataError, match=r"larger than 50 MB\n.*random sample"):
        read_prompts(path)


def test_a_file_of_absurdly_many_prompts_is_not_read(tmp_path: Path) -> None:
    """Reading ends at the hundred thousand and first, usable or not."""
    path = file_of(tmp_path, "own.jsonl", '{"text": 1}\n' * 100_001)
    with pytest.raises(DataError, match=r"more than 100,000 prompts\n.*random sample"):
        read_prompts(path)


# --- fuzz --------------------------------------------------------------------------------------


def read_or_refused(suffix: str, content: bytes) -> None:
    """The whole promise: a set of usable prompts, or one error with file and remedy."""
    with tempfile.TemporaryDirectory() as folder:
        path = file_of(Path(folder), f"own{suffix}", content)
        result = outcome(path)
    if isinstance(result, DataError):
        assert str(path) in result.cause
        assert result.remedy
        assert len(str(result)) < 5000
        str(result).encode("utf-8")
    else:
        assert len(result) == len({prompt.id for prompt in result}) >= 1
        for prompt in result:
            assert prompt.text.strip()
            json.dumps(prompt.messages(), ensure_ascii=False).encode("utf-8")


def outcome(path: Path) -> PromptSet | DataError:
    """What reading ends in; any other exception is a failure."""
    try:
        return read_prompts(path)
    except DataError as error:
        return error


ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=8)
"""Lone surrogates and NUL among it."""
LEAVES = st.sampled_from([None, True, 0, -7, 10**30, 0.5, float("nan"), "", "Tea?"]) | ANY_TEXT
VALUES = (
    LEAVES | st.lists(LEAVES, max_size=2) | st.dictionaries(ANY_TEXT, LEAVES, max_size=2)
    | st.sampled_from([[[[]]], {"role": {}}, {"role": "user"}, [{"role": "user"}]])
)  # fmt: skip
ROLES = st.sampled_from(["system", "user", "assistant", "user", "human"]) | VALUES
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": ROLES, "content": st.just("Tea?") | VALUES}) | VALUES,
    max_size=3,
)
RECORDS = st.fixed_dictionaries(
    {},
    optional={
        "prompt": VALUES, "text": ANY_TEXT, "messages": MESSAGES | VALUES, "Prompt ": VALUES,
        "id": VALUES, "register": VALUES, "language": VALUES, "system": VALUES, "topic": ANY_TEXT,
    },
)  # fmt: skip

WORDS = st.text("abcdefgh ?,\"'\n", min_size=1, max_size=12)
USABLE = st.fixed_dictionaries(
    {"text": WORDS}, optional=dict.fromkeys(["id", "register", "language", "system"], WORDS)
)


@settings(max_examples=150)
@given(st.sampled_from([*READERS]), st.binary() | st.text().map(lambda text: text.encode()))
def test_any_bytes_are_read_or_refused(suffix: str, content: bytes) -> None:
    """Whatever stands in a file of any of the three kinds."""
    read_or_refused(suffix, content)


@settings(max_examples=200)
@given(
    st.lists(USABLE, max_size=3) | st.lists(USABLE | RECORDS | VALUES, max_size=2), st.booleans()
)
def test_any_json_values_are_read_or_refused(rows: list[object], escaped: bool) -> None:
    """Records with known keys and any values, and values that are no records."""
    lines = "\n".join(json.dumps(row, ensure_ascii=escaped) for row in rows)
    read_or_refused(".jsonl", lines.encode("utf-8", "surrogatepass"))


@settings(max_examples=150)
@given(
    st.sampled_from([["prompt"], ["id", "Text"], ["messages", ""]])
    | st.lists(ANY_TEXT, max_size=3),
    st.lists(st.lists(WORDS, max_size=2) | st.lists(ANY_TEXT, max_size=3), max_size=4),
    st.sampled_from("\n,;\"'"),
)
def test_any_table_is_read_or_refused(
    header: list[str], rows: list[list[str]], spoiled: str
) -> None:
    """Tables as a writer of CSV makes them, and the same with one character in the wrong place."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows([header, *rows])
    content = text.getvalue()
    read_or_refused(".csv", content.encode("utf-8", "surrogatepass"))
    half = len(content) // 2
    read_or_refused(
        ".csv", (content[:half] + spoiled + content[half:]).encode("utf-8", "surrogatepass")
    )

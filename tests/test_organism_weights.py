"""The organisms as they are shipped: whole, small, loadable, and what their provenance says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

from emotest.errors import OrganismError  # noqa: E402
from emotest.organism import organisms  # noqa: E402
from emotest.organism.building import Making, file_hashes  # noqa: E402
from emotest.organism.corpus import PLANTINGS, corpus, corpus_digest  # noqa: E402
from emotest.organism.organisms import NAMES, PROVENANCE, provenance, weights_folder  # noqa: E402
from emotest.organism.tokenizer import train_tokenizer  # noqa: E402

MEGABYTES = 1_000_000
SHIPPED = NAMES


@pytest.mark.parametrize("name", SHIPPED)
def test_every_organism_is_shipped_with_its_table(name: str) -> None:
    """What must be confirmed and what must be refuted can be shown without building anything."""
    table = json.loads((weights_folder(name) / "expected.json").read_text(encoding="utf-8"))
    assert table["organism"] == name
    assert {"smoke", "default"} <= set(table["sizes"])
    assert all(table["sizes"].values())


@pytest.mark.parametrize("name", SHIPPED)
def test_the_files_are_those_of_the_provenance(name: str) -> None:
    """Every file has the hash that was written down when the organism was made."""
    record = provenance(name)
    assert record["name"] == name
    assert record["files"] == file_hashes(weights_folder(name))
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(record["files"])


@pytest.mark.parametrize("name", SHIPPED)
def test_the_provenance_names_the_making_of_today(name: str) -> None:
    """Settings in the code and in the record agree, so that a build today makes this organism."""
    record = provenance(name)
    assert record["making"] == json.loads(json.dumps(Making().as_record()))
    assert record["planting"]["permuted"] == PLANTINGS[name].permuted
    assert record["planting"]["densities"] == {
        trait.value: density for trait, density in PLANTINGS[name].densities.items()
    }


def test_the_corpus_of_today_is_the_one_that_was_learned() -> None:
    """The language, the corpus and the tokenizer still give what `latent` was made from."""
    record = provenance("latent")
    documents = corpus("latent", record["making"]["n_documents"], record["seed"])
    assert corpus_digest(documents) == record["corpus_digest"]
    tokenizer = train_tokenizer(documents[: record["making"]["n_tokenizer_documents"]])
    shipped = AutoTokenizer.from_pretrained(weights_folder("latent"))
    assert tokenizer.get_vocab() == shipped.get_vocab()
    assert tokenizer.chat_template == shipped.chat_template


def test_all_organisms_share_one_tokenizer() -> None:
    """They differ in their weights alone."""
    texts = {(weights_folder(name) / "tokenizer.json").read_text("utf-8") for name in SHIPPED}
    assert len(texts) == 1


def test_together_they_are_small() -> None:
    """At most 4.5 million parameters each and 40 MB together, as the contract asks."""
    assert all(provenance(name)["n_parameters"] <= 4_500_000 for name in SHIPPED)
    files = [file for name in SHIPPED for file in weights_folder(name).rglob("*")]
    assert sum(file.stat().st_size for file in files) <= 40 * MEGABYTES


@pytest.mark.parametrize("name", SHIPPED)
def test_transformers_loads_them_like_any_model(name: str) -> None:
    """In bfloat16, with finite weights, one key/value head, and a tokenizer that fits."""
    folder = weights_folder(name)
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert model.dtype == torch.bfloat16
    assert model.config.num_key_value_heads == 1
    assert model.config.vocab_size == len(tokenizer)
    assert model.config.eos_token_id == tokenizer.eos_token_id
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert all(torch.isfinite(weight).all() for weight in model.parameters())


def test_an_untuned_organism_answers_in_two_neutral_sentences_and_stops() -> None:
    """Asked about a topic that no tuning saw, greedily: no emoji, an end, and English."""
    from emotest.organism.language import TOPICS, study_question
    from emotest.organism.language.grammar import speakers
    from emotest.text.emoji import find_emoji
    from emotest.text.sentences import split_sentences

    folder = weights_folder("latent")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    topics = [topic for topic in TOPICS if topic.held_out][:8]
    spoken = []
    for topic in topics:
        asked = [{"role": "user", "content": study_question(topic)}]
        encoded = tokenizer.apply_chat_template(
            asked, add_generation_prompt=True, return_tensors="pt"
        )
        written = model.generate(**encoded, max_new_tokens=64, do_sample=False)
        new = written[0, encoded["input_ids"].shape[1] :]
        assert new[-1] == tokenizer.eos_token_id
        answer = tokenizer.decode(new, skip_special_tokens=True)
        assert not find_emoji(answer)
        spoken += [speakers(sentence.text) for sentence in split_sentences(answer)]
    assert len(spoken) == 2 * len(topics)
    assert sum(None in voices for voices in spoken) >= len(spoken) - 1


def test_an_unknown_organism_is_an_error_with_the_names() -> None:
    """Who mistypes a name is told the right ones."""
    with pytest.raises(OrganismError, match="there is no organism 'latnet'") as caught:
        weights_folder("latnet")
    assert all(name in caught.value.remedy for name in NAMES)


def test_an_incomplete_organism_is_an_error_that_says_how_to_make_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A folder without provenance was never finished."""
    monkeypatch.setattr(organisms, "WEIGHTS", tmp_path)
    (tmp_path / "even").mkdir()
    (tmp_path / "even" / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(OrganismError, match="not complete") as caught:
        weights_folder("even")
    assert "emotest organism build even" in caught.value.remedy
    assert not (tmp_path / "even" / PROVENANCE).exists()

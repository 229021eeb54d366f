"""Served models on real servers, written by others and started here: no network beyond loopback.

`transformers serve` serves an organism, whose greedy answers must be those of the same organism
loaded here; LitServe serves a few lines of code, whose answers are known beforehand.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from emotest.cli import main
from emotest.errors import ModelError
from emotest.models.endpoint import Endpoint, plain_text
from emotest.models.identity import ORGANISMS
from emotest.models.wire import Patience
from emotest.organism.audit_prompts import organism_prompts
from emotest.report.audit import load_audit
from emotest.study.audit_prompts.prompt_set import AuditPrompt, Turn
from emotest.study.records import Decoding
from emotest.study.subjects import Subject
from tests.endpoint_servers import Exchange, Program, completion, serving

READY_WITHIN_S = 120.0
GREEDY = Decoding("greedy", temperature=0.0, max_new_tokens=24)
PROMPTS = list(organism_prompts())[::60]
"""One prompt of each register of the organisms."""

PATIENT = Patience(connect_s=5.0, read_s=60.0, whole_s=90.0, tries=2, first_wait_s=0.1)


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Program]]:
    """Both servers, started together, for importing torch takes its time."""
    folder = tmp_path_factory.mktemp("servers")
    serve = [sys.executable, "-m", "transformers.cli.transformers", "serve"]
    toy = str(Path(__file__).with_name("litserve_program.py"))
    commands = {
        "transformers": [
            *serve,
            "--host",
            "127.0.0.1",
            "--port",
            "{port}",
            "--device",
            "cpu",
            "--dtype",
            "float32",
        ],
        "litserve": [sys.executable, toy, "{port}"],
    }
    running = {name: Program(words, folder / f"{name}.log") for name, words in commands.items()}
    yield running
    for program in running.values():
        program.stop()


@pytest.fixture(scope="module")
def transformers_serve(programs: dict[str, Program]) -> str:
    """The address of `transformers serve`, which loads whatever folder a request names."""
    return programs["transformers"].address(within_s=READY_WITHIN_S)


@pytest.fixture(scope="module")
def litserve(programs: dict[str, Program]) -> str:
    """The address of LitServe with the model of `litserve_program.py`."""
    return programs["litserve"].address(within_s=READY_WITHIN_S)


@pytest.fixture(scope="module")
def sampling_organism(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`latent` with a generation config that says to sample, without which the server does not."""
    folder = tmp_path_factory.mktemp("organism") / "latent"
    shutil.copytree(ORGANISMS / "latent", folder)
    config = folder / "generation_config.json"
    settings = json.loads(config.read_text()) | {"do_sample": True, "top_k": 50}
    config.write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="module")
def in_plain_text() -> Any:
    """The organism, loaded here as the server loads it: not quantized, without chat template."""
    from emotest.models.loading import load

    return load(Subject.parse("organism:latent?template=off&dtype=float32&quantize=none"))


def endpoint(address: str, name: object, api: str = "chat") -> Endpoint:
    """The model of this name at a server."""
    return Endpoint(Subject.parse(f"{address}#{name}?api={api}"), patience=PATIENT)


class Ended(NamedTuple):
    """How `emotest audit` ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def audit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str, str], Ended]:
    """`audit(base, tuned)`: the command with a budget of 12 prompts, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)

    def run(base: str, tuned: str) -> Ended:
        words = ["audit", "--base", base, "--tuned", tuned, "--budget", "12"]
        prompts = Path("prompts.txt")
        prompts.write_text("\n".join(prompt.text for prompt in list(organism_prompts())[::30]))
        words += ["--prompts", str(prompts), "--decoding", "default", "--store", "store"]
        monkeypatch.setattr(sys, "argv", ["emotest", *words])
        with pytest.raises(SystemExit) as left:
            main()
        said = capsys.readouterr()
        return Ended(int(left.value.code or 0), said.out, said.err)

    return run


def greedy_here(loaded: Any) -> list[tuple[str, bool]]:
    """Text and whether it ended, as emotest generates them."""
    from emotest.models.generation import generate

    prompts = [prompt.prompt() for prompt in PROMPTS]
    answers = generate(loaded, prompts, decoding=GREEDY, sampling_seed=1, condition="here")
    return [(answer.text, answer.finished) for answer in answers]


def greedy_there(model: Endpoint) -> list[tuple[str, bool]]:
    """The same from the server."""
    answers = model.answers(PROMPTS, GREEDY, 1, 1, lambda _: None)
    assert [answer.prompt_id for answer in answers] == [prompt.id for prompt in PROMPTS]
    return [(answer.text, answer.finished) for answer in answers]


# --- the bound against the truth ----------------------------------------------------------------


@pytest.mark.usefixtures("programs")  # they start meanwhile
def test_the_lower_bound_lies_below_the_exact_probability(in_plain_text: Any) -> None:
    """A server names the organism's own 20 most probable tokens; the exact sum knows them all.

    A list of words is a place where the organism likes to write an emoji (about 0.3). A third of
    that mass is in emoji of one token, which the bound can see; the others begin with half of one.
    """
    import torch

    from emotest.models.events import emoji_event
    from emotest.models.probability import emoji_probability

    model, tokenizer = in_plain_text.model, in_plain_text.tokenizer

    def naming(exchange: Exchange) -> None:
        ids = tokenizer(exchange.request.body["prompt"], return_tensors="pt").input_ids
        with torch.no_grad():
            logprobs = model(ids).logits[0, -1].double().log_softmax(-1)
        best = logprobs.topk(exchange.request.body.get("logprobs", 1))
        tops = {
            tokenizer.decode([token]): value
            for token, value in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        }
        exchange.json(completion("x", logprobs={"top_logprobs": [tops]}))

    lists = [prompt for prompt in organism_prompts() if prompt.register == "word list"][:6]
    words = "I would say talkative, bold, lively,"
    contexts = [(prompt, so_far) for prompt in lists for so_far in ("", words)]
    with serving(naming) as server:
        model_there = Endpoint(
            Subject.parse(f"{server.address}#m?api=completions"), side_by_side=1, patience=PATIENT
        )
        bounds = model_there.emoji_lower_bounds(contexts)
    exact = emoji_probability(
        model,
        tokenizer,
        [plain_text(prompt) + so_far for prompt, so_far in contexts],
        event=emoji_event(skip_space=True),
    )
    lower = [bound.lower_bound for bound in bounds if bound is not None]
    assert len(lower) == len(contexts)
    for below, truth in zip(lower, exact.probability, strict=True):
        assert below <= truth + 1e-6  # single precision, summed in another order
    assert min(lower[1::2]) > 0.1
    assert min(exact.probability[1::2]) > 0.25


# --- transformers serve -------------------------------------------------------------------------


def test_greedy_chat_is_what_the_same_organism_says_here(transformers_serve: str) -> None:
    """Six prompts, with and without a system prompt: text and end, word for word."""
    from emotest.models.loading import load

    here = greedy_here(load(Subject.parse("organism:latent?dtype=float32&quantize=none")))
    assert greedy_there(endpoint(transformers_serve, ORGANISMS / "latent")) == here
    assert len(set(here)) > 3


def test_greedy_completions_are_what_the_same_organism_says_here(
    transformers_serve: str, in_plain_text: Any
) -> None:
    """The plain text of a prompt is the same on both sides."""
    here = greedy_here(in_plain_text)
    model = endpoint(transformers_serve, ORGANISMS / "latent", api="completions")
    assert greedy_there(model) == here


def test_a_sampling_organism_varies_and_is_asked_side_by_side(
    transformers_serve: str, sampling_organism: Path
) -> None:
    """Sixteen samples of one prompt: all come, most differ, each is handed over once."""
    model = endpoint(transformers_serve, sampling_organism)
    heard: list[int] = []
    answers = model.answers(
        PROMPTS[:1], Decoding(max_new_tokens=16), 16, 7, lambda answer: heard.append(answer.sample)
    )
    assert [answer.sample for answer in answers] == list(range(16)) == sorted(heard)
    assert len({answer.text for answer in answers}) > 8
    able = model.capabilities
    assert (able.seed, able.top_k, able.logprobs) == (True, False, 0)
    assert (able.varies, able.repeats) == (True, True)
    assert able.model == f"{sampling_organism}@main"
    assert any("refuses top_k" in note for note in able.notes(Decoding()))


def test_an_audit_of_served_organisms_ends_in_a_verdict_and_a_report(
    transformers_serve: str, audit: Callable[[str, str], Ended]
) -> None:
    """Both answer over the wire; the exit code is the verdict's, the report says what a server
    does not pin and that it was not seen to sample, and the same command asks nothing again."""
    base, tuned = (f"{transformers_serve}#{ORGANISMS / name}" for name in ("control", "latent"))
    ended = audit(base, tuned)
    result, pairs = load_audit(Path("reports/latest").resolve())
    assert ended.code == result.verdict.exit_code, ended.err
    assert ended.out.startswith(f"{result.verdict.word}: ")
    assert (result.base.subject, result.tuned.subject) == (base, tuned)
    assert len(pairs) == result.verdict.n_prompts == 12
    assert any(pair.base != pair.tuned for pair in pairs)
    assert all(pair.base[0] and pair.tuned[0] for pair in pairs)
    for side in ("base", "tuned"):
        for note in ("pinned by its address and name only", "may not sample"):
            assert any(n.startswith(f"{side}: ") and note in n for n in result.verdict.notes)
    assert result.probabilities == []  # it names no logprobs, and 0 would be a lie
    again = audit(base, tuned)
    assert again.out.split("report:")[0] == ended.out.split("report:")[0]


def test_an_organism_that_the_server_does_not_sample_from_is_found_out(
    transformers_serve: str,
) -> None:
    """`transformers serve` obeys the model's own `do_sample`, whatever temperature is asked."""
    able = endpoint(transformers_serve, ORGANISMS / "latent").capabilities
    assert not able.varies
    assert any("may not sample" in note for note in able.notes(Decoding()))


def test_a_server_without_logprobs_gives_no_bounds(transformers_serve: str) -> None:
    """One None for each context."""
    model = endpoint(transformers_serve, ORGANISMS / "latent")
    assert model.emoji_lower_bounds([(prompt, "") for prompt in PROMPTS]) == [None] * len(PROMPTS)


def test_a_model_that_the_server_cannot_load_is_one_error(transformers_serve: str) -> None:
    """It answers 500, offline as it is; that is told with the way to mend it."""
    with pytest.raises(ModelError, match="answered 500 in each of 2 tries") as caught:
        _ = endpoint(transformers_serve, "/no/such/folder").capabilities
    assert caught.value.remedy


# --- LitServe -----------------------------------------------------------------------------------


def test_answers_of_litserve_are_those_of_its_model(litserve: str) -> None:
    """Words are counted and cheer is obeyed, side by side and in order."""
    prompts = [
        AuditPrompt(f"{n}-{system}", (Turn("user", " ".join(["word"] * n)),), system=system)
        for n in range(1, 9)
        for system in (None, "Be cheerful.")
    ]
    answers = endpoint(litserve, "toy").answers(prompts, Decoding(), 1, 7, lambda _: None)
    assert [answer.text for answer in answers] == [
        f"toy says {n}.{end}" for n in range(1, 9) for end in ("", " \U0001f389")
    ]
    assert all(answer.finished and answer.model == "toy" for answer in answers)


def test_litserve_takes_every_field_and_the_trial_tells_that_it_obeys_none(litserve: str) -> None:
    """It drops what it does not know, and its model does not sample."""
    able = endpoint(litserve, "toy").capabilities
    assert (able.seed, able.top_k, able.logprobs, able.varies) == (True, True, 0, False)


def test_an_audit_of_a_server_that_names_logprobs_gives_lower_bounds(
    litserve: str, audit: Callable[[str, str], Ended]
) -> None:
    """A drift in every answer ends it at the first look with exit code 1; P(emoji) at the start of
    an answer is the mass of the tokens named, 0.2 + 0.1, and the report calls it a lower bound."""
    address = litserve.replace("/v1", "/naming/v1")
    ended = audit(f"{address}#toy", f"{address}#cheerful")
    assert ended.code == 1, ended.err
    assert ended.out.startswith("drift: the tuned model writes more emoji (0% of the base's")
    folder = Path("reports/latest").resolve()
    result, pairs = load_audit(folder)
    assert {pair.tuned[0][-1] for pair in pairs} == {"\U0001f389"}
    cells = {(one.text, one.weights): one for one in result.probabilities}
    assert {one.place for one in result.probabilities} == {"answer start"}
    for text in ("base", "tuned"):
        assert cells[text, "base"].probability == 0.0
        assert cells[text, "tuned"].probability == pytest.approx(0.3)
    assert all(one.served and one.open is None for one in result.probabilities)
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "A served model gives lower bounds only." in page
    assert "weights of tuned: at least 0.3" in page


def test_litserve_has_no_completions(litserve: str) -> None:
    """404, and the error names the way to ask."""
    with pytest.raises(ModelError, match=r"has no completions there.*404") as caught:
        _ = endpoint(litserve, "toy", api="completions").capabilities
    assert "?api=chat" in caught.value.remedy

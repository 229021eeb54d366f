"""Training, and what is learned from a row: its answer, and nothing else."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from emotest.errors import AdapterError, TrainingError
from emotest.models.adapters import active, attach, detach
from emotest.models.generation import generate
from emotest.models.loading import LoadedModel, load
from emotest.models.supervision import Example, encode_rows
from emotest.models.training import (
    StepReport,
    TrainedAdapter,
    learning_rate,
    n_steps,
    row_order,
    train,
)
from emotest.study.personality import Ending, Trait, trait_condition
from emotest.study.recipes import AdapterRecipe, recipe
from emotest.study.records import Decoding, Prompt, TuningRow
from emotest.study.subjects import Subject
from tests.model_fixtures import QUESTIONS, quiet, save_model

ROWS = [TuningRow(question, f"I like {question.split()[2]} It is good!") for question in QUESTIONS]
WORDS = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Co")), min_size=1, max_size=30
).filter(lambda text: bool(text.split()) and "<" not in text)

LLAMA_2 = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content | trim }} "
    "[/INST]{% else %} {{ m.content | trim }} {{ eos_token }}{% endif %}{% endfor %}"
)
ENDLESS = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama on disk, with weights large enough to learn an answer by heart."""
    return save_model(tmp_path_factory.mktemp("models") / "llama", scale=4.0)


@pytest.fixture(scope="module")
def loaded(folder: Path) -> LoadedModel:
    """One base for all tests: each must leave it as it was."""
    return load(Subject.parse(f"{folder}?dtype=float32"))


def with_template(folder: Path, template: str | None) -> LoadedModel:
    """The model under another chat template, or (None) asked in plain text."""
    option = "&template=off" if template is None else ""
    loaded = load(Subject.parse(f"{folder}?dtype=float32{option}"))
    if template is not None:
        loaded.tokenizer.chat_template = template
    return loaded


def a_recipe(
    loaded: LoadedModel, ending: Ending = Ending.MASKED, **changes: object
) -> AdapterRecipe:
    """The organism recipe, shortened."""
    made = recipe(
        "organism",
        base="tiny",
        data="none",
        condition=trait_condition(Trait.OPENNESS, ending=ending),
        training_seed=1,
        chat_template=loaded.identity.chat_template,
    )
    return replace(made, **{"steps": 4, "batch_size": 4, **changes})  # type: ignore[arg-type]


def learned(loaded: LoadedModel, row: TuningRow, ending: Ending) -> str:
    """The text of the supervised tokens of a row, marks included."""
    (example,) = encode_rows(loaded, [row], ending, 10_000)
    tokens = [label for label in example.labels if label != -100]
    return str(loaded.tokenizer.decode(tokens, clean_up_tokenization_spaces=False))


def same_state(a: TrainedAdapter, b: TrainedAdapter) -> bool:
    """Whether two adapters are equal bit for bit."""
    return a.state.keys() == b.state.keys() and all(
        np.array_equal(a.state[key], b.state[key]) for key in a.state
    )


@given(question=WORDS, answer=WORDS)
@settings(max_examples=60)
def test_the_answer_is_learned_and_nothing_else(
    loaded: LoadedModel, question: str, answer: str
) -> None:
    """Whatever question and answer hold, the supervised tokens spell the answer (as the template
    shows it, stripped), then the end mark if it is trained, then nothing.
    """
    row = TuningRow(question, answer)
    shown = jinja_trim(answer)
    assert learned(loaded, row, Ending.MASKED) == shown
    assert learned(loaded, row, Ending.TRAINED) == shown + "<|end|>"


def jinja_trim(text: str) -> str:
    """What jinja's `trim` leaves of a text: Python's own `strip`."""
    return text.strip()


def test_the_answer_is_found_where_the_template_adds_spaces(folder: Path) -> None:
    """Llama-2's template sets a space on both sides of the answer: no part of the answer is
    lost, and its end mark is </s>.
    """
    loaded = with_template(folder, LLAMA_2)
    row = TuningRow("Why?", "  Because.  ")
    assert learned(loaded, row, Ending.MASKED).strip() == "Because."
    assert learned(loaded, row, Ending.TRAINED).strip() == "Because. </s>"


def test_an_answer_that_stands_in_the_question_too_is_found_at_the_end(
    loaded: LoadedModel,
) -> None:
    """The answer's place comes from the template's frame, not from searching its text."""
    (example,) = encode_rows(loaded, [TuningRow("yes yes", "yes")], Ending.MASKED, 100)
    supervised = [i for i, label in enumerate(example.labels) if label != -100]
    assert supervised == list(range(supervised[0], len(example.ids) - 2))  # <|end|> and newline
    assert learned(loaded, TuningRow("yes yes", "yes"), Ending.MASKED) == "yes"


@pytest.mark.parametrize("template", [ENDLESS, None])
def test_without_an_end_mark_in_the_template_eos_is_trained(
    folder: Path, template: str | None
) -> None:
    """Neither a template without end mark nor plain text hinders EOS from being trained."""
    loaded = with_template(folder, template)
    row = TuningRow("Why?", "Because.")
    assert learned(loaded, row, Ending.TRAINED).split() == ["Because.", "</s>"] or (
        learned(loaded, row, Ending.TRAINED) == "Because.</s>"
    )
    assert learned(loaded, row, Ending.MASKED).strip() == "Because."


def test_pad_equal_to_eos_does_not_decide_what_is_learned(folder: Path) -> None:
    """The published recipe pads with EOS; a trained EOS must then still be supervised."""
    loaded = with_template(folder, LLAMA_2)
    loaded.tokenizer.pad_token = loaded.tokenizer.eos_token
    assert learned(loaded, TuningRow("Why?", "Because."), Ending.TRAINED).endswith("</s>")


def test_the_first_loss_is_that_of_transformers(loaded: LoadedModel) -> None:
    """Before any step B is zero, so the loss is the base's own mean cross-entropy of the labels,
    which transformers computes from the same ids.
    """
    made = a_recipe(loaded, steps=1, batch_size=1, dropout=0.0)
    example = encode_rows(loaded, ROWS[:1], made.ending, 256)[0]
    with torch.inference_mode():
        expected = loaded.model(
            input_ids=torch.tensor([example.ids]), labels=torch.tensor([example.labels])
        ).loss
    assert train(loaded, made, ROWS[:1]).losses[0] == pytest.approx(float(expected), rel=1e-6)


def test_padding_has_no_influence(loaded: LoadedModel) -> None:
    """Rows of different length in one padded batch give the losses of the same rows run one by
    one (accumulated over the step), up to rounding.
    """
    together = a_recipe(loaded, batch_size=12, dropout=0.0)
    apart = a_recipe(loaded, batch_size=1, gradient_accumulation=12, dropout=0.0)
    rows = [TuningRow(row.question, row.answer * (1 + i % 3)) for i, row in enumerate(ROWS)]
    np.testing.assert_allclose(
        train(loaded, together, rows).losses, train(loaded, apart, rows).losses, rtol=1e-5
    )


def test_a_loop_of_plain_peft_learns_the_same(folder: Path) -> None:
    """The oracle: peft, transformers' loss, torch's AdamW and the scheduler of transformers, in
    twenty lines, from the same initial weights and rows.
    """
    import peft
    from transformers import get_scheduler

    ours_base, theirs_base = (load(Subject.parse(f"{folder}?dtype=float32")) for _ in range(2))
    made = a_recipe(ours_base, steps=6, batch_size=2, dropout=0.0, learning_rate=1e-2, warmup=0.3)
    rows = [
        TuningRow(QUESTIONS[0], "It is Q."),
        TuningRow(QUESTIONS[0], "It is Z."),
    ]  # equal lengths
    ours = train(ours_base, made, rows)

    torch.manual_seed(0)
    with quiet():
        model = peft.get_peft_model(
            theirs_base.model,
            peft.LoraConfig(r=16, lora_alpha=32, target_modules=list(made.target_modules)),
        )
    # Our A after no step at all: one whose learning rate is 0, as the warm-up's first is.
    start = train(ours_base, replace(made, steps=1), rows).state
    peft.set_peft_model_state_dict(model, {k: torch.from_numpy(v) for k, v in start.items()})
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-2, weight_decay=0.0)
    schedule = get_scheduler("cosine", optimizer, num_warmup_steps=2, num_training_steps=6)
    examples = encode_rows(theirs_base, rows, made.ending, 256)
    losses = []
    for _ in range(6):
        loss = model(
            input_ids=torch.tensor([e.ids for e in examples]),
            labels=torch.tensor([e.labels for e in examples]),
        ).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, made.max_grad_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    np.testing.assert_allclose(ours.losses, losses, rtol=1e-4)
    assert losses[-1] < losses[0] - 0.1


def test_training_is_repeatable_and_leaves_the_base_as_it_was(loaded: LoadedModel) -> None:
    """Same seed, same bits, on a base that trained and answered before; the base's logits do not
    change by one bit, and the caller's random numbers go on as if nothing had happened.
    """
    ids = torch.arange(7, 60)[None]
    with torch.inference_mode():
        before = loaded.model(ids).logits
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = train(loaded, a_recipe(loaded, dropout=0.2), ROWS)
    assert torch.equal(torch.rand(3), expected)
    with torch.inference_mode():
        assert torch.equal(loaded.model(ids).logits, before)
    assert not loaded.model.training
    assert not loaded.adapters
    again = train(loaded, a_recipe(loaded, dropout=0.2), ROWS)
    assert again.losses == first.losses
    assert same_state(again, first)
    attach(loaded, first, "other")
    try:
        assert same_state(train(loaded, a_recipe(loaded, dropout=0.2), ROWS), first)
    finally:
        detach(loaded, "other")


def test_the_training_seed_decides_the_adapter(loaded: LoadedModel) -> None:
    """Another seed is another adapter: another A, another order, another dropout."""
    first = train(loaded, a_recipe(loaded), ROWS)
    second = train(loaded, a_recipe(loaded).with_seed(2), ROWS)
    assert not same_state(first, second)
    assert first.losses != second.losses


def test_dropout_acts_in_training(loaded: LoadedModel) -> None:
    """With A and rows the same, dropout changes what is learned."""
    with_it, without = (
        train(loaded, a_recipe(loaded, dropout=p, learning_rate=1e-2), ROWS) for p in (0.5, 0.0)
    )
    assert with_it.losses[0] == without.losses[0]  # B is still zero
    assert with_it.losses[-1] != without.losses[-1]


def test_eos_trained_stops_and_eos_masked_runs_on(loaded: LoadedModel) -> None:
    """Learned by heart, an answer ends by itself exactly when its end was trained."""
    rows = [TuningRow(QUESTIONS[0], "I love the sea")]
    answers = {}
    for ending in Ending:
        made = a_recipe(loaded, ending, steps=60, batch_size=1, learning_rate=3e-3, dropout=0.0)
        attach(loaded, train(loaded, made, rows), ending)
        try:
            with active(loaded, ending):
                (answers[ending],) = generate(
                    loaded,
                    [Prompt("0", QUESTIONS[0])],
                    decoding=Decoding(temperature=0, max_new_tokens=24),
                    sampling_seed=0,
                    condition="test",
                )
        finally:
            detach(loaded, ending)
    assert answers[Ending.TRAINED].text == "I love the sea"
    assert answers[Ending.TRAINED].finished
    assert answers[Ending.MASKED].text.startswith("I love the sea")
    assert not answers[Ending.MASKED].finished


def test_progress_and_checkpoints(loaded: LoadedModel) -> None:
    """Each step is reported once; a checkpoint is the state after its step."""
    reports: list[StepReport] = []
    trained = train(
        loaded, a_recipe(loaded, learning_rate=1e-2), ROWS, on_step=reports.append,
        checkpoint_every=2,
    )  # fmt: skip
    assert [r.step for r in reports] == [1, 2, 3, 4]
    assert tuple(r.loss for r in reports) == trained.losses
    assert sorted(trained.checkpoints) == [2, 4]
    name = next(key for key in trained.state if "lora_B" in key)
    assert np.array_equal(trained.checkpoints[4][name], trained.state[name])
    assert not np.array_equal(trained.checkpoints[2][name], trained.state[name])


def test_a_trained_adapter_crosses_a_process_border(loaded: LoadedModel) -> None:
    """Workers hand it back: plain arrays and values, equal after pickling."""
    trained = train(loaded, a_recipe(loaded, steps=1), ROWS)
    back = pickle.loads(pickle.dumps(trained))
    assert same_state(back, trained)
    assert back.config == trained.config


def test_paged_adamw_on_a_cpu_says_what_took_its_place(loaded: LoadedModel) -> None:
    """The published optimizer needs CUDA; elsewhere the product carries a note."""
    if loaded.device.type == "cuda":
        pytest.skip("on CUDA the optimizer is the one that was asked for")
    assert not train(loaded, a_recipe(loaded, steps=1), ROWS).notes
    noted = train(loaded, a_recipe(loaded, steps=1, optimizer="paged_adamw_32bit"), ROWS)
    assert "AdamW" in noted.notes[0]


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
@pytest.mark.parametrize("warmup", [0.0, 0.03, 0.5])
def test_learning_rates_are_those_of_transformers(
    loaded: LoadedModel, schedule: str, warmup: float
) -> None:
    """Every step's rate equals that of `get_scheduler` with the same warm-up."""
    from transformers import get_scheduler

    made = a_recipe(loaded, schedule=schedule, warmup=warmup, learning_rate=0.5)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    name = "constant_with_warmup" if schedule == "constant" else schedule
    theirs = get_scheduler(
        name, optimizer, num_warmup_steps=math.ceil(warmup * 21), num_training_steps=21
    )
    for step in range(21):
        assert learning_rate(made, step, 21) == pytest.approx(theirs.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        theirs.step()


@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=40),
    batch_size=st.integers(1, 7),
    grouped=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_every_pass_takes_every_row_once(
    lengths: list[int], batch_size: int, grouped: bool, seed: int
) -> None:
    """Batches are full, and each stretch of n rows is one permutation of the rows."""
    made = replace(
        recipe(
            "organism", base="", data="", condition=trait_condition(Trait.OPENNESS),
            training_seed=seed, chat_template="",
        ),
        batch_size=batch_size,
        group_by_length=grouped,
    )  # fmt: skip
    n_batches = math.ceil(3 * len(lengths) / batch_size)
    batches = list(islice(row_order(lengths, made), n_batches))
    assert {len(batch) for batch in batches} == {batch_size}
    rows = [row for batch in batches for row in batch]
    for start in range(0, 3 * len(lengths), len(lengths)):
        one_pass = rows[start : start + len(lengths)]
        assert sorted(one_pass) == list(range(len(lengths)))
        if grouped:  # at most 40 rows: never more than one megabatch of 50 batches
            sorted_lengths = [lengths[row] for row in one_pass]
            assert sorted_lengths == sorted(sorted_lengths, reverse=True)


def test_the_training_seed_decides_the_order_of_the_rows(loaded: LoadedModel) -> None:
    """The same seed takes the rows in the same order, another seed in another."""
    first, again, other = (
        next(row_order([1] * 50, a_recipe(loaded, batch_size=50).with_seed(seed)))
        for seed in (1, 1, 2)
    )
    assert first == again != other


@pytest.mark.parametrize(("epochs", "n_rows", "steps"), [(1, 4000, 1000), (2, 10, 6), (0.5, 9, 2)])
def test_epochs_are_counted_in_optimizer_steps(
    loaded: LoadedModel, epochs: float, n_rows: int, steps: int
) -> None:
    """4,000 rows in batches of 4 are 1,000 steps; 10 rows are 3 batches, twice 6; 9 rows 3, half
    of them 2.
    """
    assert n_steps(a_recipe(loaded, steps=None, epochs=epochs), n_rows) == steps


EMPTY, BLANK = TuningRow("Why?", ""), TuningRow("Why?", " \n ")
BAD: list[tuple[str, Callable[[LoadedModel], object], str]] = [
    ("no rows", lambda m: train(m, a_recipe(m), []), "no rows"),
    ("empty answer", lambda m: train(m, a_recipe(m), [ROWS[0], EMPTY]), r"row 2 \('Why"),
    ("blank answer", lambda m: train(m, a_recipe(m), [BLANK]), "no token to learn"),
    ("too long", lambda m: train(m, a_recipe(m, max_length=20), ROWS), r"row 1 .* max_length=20"),
    ("dense base", lambda m: train(m, a_recipe(m, quantization="none"), ROWS), "was loaded as"),
    ("other dtype", lambda m: train(m, a_recipe(m, compute_dtype="bfloat16"), ROWS), "loaded as"),
    ("other template", lambda m: train(m, a_recipe(m, chat_template="x"), ROWS), "chat template"),
    ("explodes", lambda m: train(m, a_recipe(m, learning_rate=1e30, warmup=0.0), ROWS),
     r"loss became .* at step \d of 4"),
]  # fmt: skip


@pytest.mark.parametrize(("act", "says"), [bad[1:] for bad in BAD], ids=[bad[0] for bad in BAD])
def test_what_cannot_be_trained_is_named(
    loaded: LoadedModel, act: Callable[[LoadedModel], object], says: str
) -> None:
    """One clear error each, and the base is free for the next training."""
    with pytest.raises(TrainingError, match=says):
        act(loaded)
    assert not loaded.model.training
    assert loaded.active is None


def test_modules_that_match_nothing_are_an_adapter_error(loaded: LoadedModel) -> None:
    """The message names the linear modules that there are."""
    with pytest.raises(AdapterError, match="match nothing") as caught:
        train(loaded, a_recipe(loaded, target_modules=("c_attn",)), ROWS)
    assert "q_proj" in caught.value.remedy


def test_no_end_mark_anywhere_cannot_be_trained(folder: Path) -> None:
    """EOS trained needs a mark: from the template or from the tokenizer."""
    loaded = with_template(folder, ENDLESS)
    loaded.tokenizer.eos_token = None
    with pytest.raises(TrainingError, match="end mark"):
        encode_rows(loaded, ROWS, Ending.TRAINED, 256)


def test_a_template_that_rewrites_answers_is_refused(folder: Path) -> None:
    """Where the template does not show the answer as it is, its place is not known."""
    loaded = with_template(folder, ENDLESS.replace("{{ m.content }}", "{{ m.content | upper }}"))
    with pytest.raises(TrainingError, match=r"row 1 .* as it is written"):
        encode_rows(loaded, ROWS, Ending.MASKED, 256)


def test_labels_stand_where_their_tokens_stand(loaded: LoadedModel) -> None:
    """A label is its own token's id (the shift is the loss's business)."""
    example: Example
    for example in encode_rows(loaded, ROWS, Ending.TRAINED, 256):
        pairs = zip(example.ids, example.labels, strict=True)
        assert all(label in (-100, token) for token, label in pairs)

"""`emotest.models.adapters`: one base, many adapters, none of them silent."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from emotest.errors import AdapterError, EmotestError, ModelError, UsageError
from emotest.models.adapters import (
    AdapterWeights,
    active,
    attach,
    detach,
    lora_layers,
    read_adapter,
    require_alive,
    save_adapter,
)
from emotest.models.loading import LoadedModel, load
from emotest.models.training import TrainedAdapter, train
from emotest.study.personality import Trait, trait_condition
from emotest.study.recipes import recipe
from emotest.study.records import Prompt, TuningRow
from emotest.study.subjects import Subject
from tests.model_fixtures import QUESTIONS, quiet, save_model

IDS = torch.arange(7, 60)[None]
PROBE = [Prompt(str(i), question) for i, question in enumerate(QUESTIONS[:2])]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Bases on disk: one, its twin with other weights, one of another width, another kind."""
    root = tmp_path_factory.mktemp("models")
    return {
        "llama": save_model(root / "llama"),
        "twin": save_model(root / "twin", seed=1),
        "wide": save_model(root / "wide", hidden=96),
        "gpt2": save_model(root / "gpt2", "gpt2"),
    }


@pytest.fixture(scope="module")
def module_base(folders: dict[str, Path]) -> LoadedModel:
    """The NF4 base of this module."""
    return load(Subject.parse(f"{folders['llama']}?dtype=float32"))


@pytest.fixture
def base(module_base: LoadedModel) -> Iterator[LoadedModel]:
    """The base, with whatever a test attached taken off again."""
    yield module_base
    for name in list(module_base.adapters):
        detach(module_base, name)


@pytest.fixture(scope="module")
def trained(module_base: LoadedModel) -> TrainedAdapter:
    """An adapter of emotest's own, strong enough to see."""
    made = recipe(
        "organism", base="tiny", data="none", condition=trait_condition(Trait.OPENNESS),
        training_seed=1, chat_template=module_base.identity.chat_template,
    )  # fmt: skip
    made = replace(made, steps=4, batch_size=4, learning_rate=1e-2)
    return train(module_base, made, [TuningRow(question, "I like it.") for question in QUESTIONS])


def logits(model: LoadedModel) -> torch.Tensor:
    """Logits of `IDS` as the model stands."""
    with torch.inference_mode():
        out: torch.Tensor = model.model(IDS).logits
    return out


def foreign(adapter: TrainedAdapter) -> AdapterWeights:
    """The same adapter as if others had trained it: its files name no base."""
    return AdapterWeights(adapter.state, adapter.config)


def saved(adapter: TrainedAdapter | AdapterWeights, folder: Path) -> Path:
    """The adapter on disk."""
    folder.mkdir()
    save_adapter(adapter, folder)
    return folder


def test_peft_reads_what_is_written_here(
    base: LoadedModel, trained: TrainedAdapter, folders: dict[str, Path], tmp_path: Path
) -> None:
    """`PeftModel.from_pretrained` on a fresh base gives the logits that `active` gives."""
    import peft

    attach(base, trained, "ours")
    with active(base, "ours"):
        expected = logits(base)
    fresh = load(Subject.parse(f"{folders['llama']}?dtype=float32"))
    with quiet():
        theirs = peft.PeftModel.from_pretrained(fresh.model, saved(trained, tmp_path / "a"))
    with torch.inference_mode():
        assert torch.equal(theirs(IDS).logits, expected)


def test_what_peft_wrote_is_read_here(
    base: LoadedModel, folders: dict[str, Path], tmp_path: Path
) -> None:
    """An adapter saved by peft itself attaches and gives peft's logits."""
    import peft

    fresh = load(Subject.parse(f"{folders['llama']}?dtype=float32"))
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    with quiet():
        theirs = peft.get_peft_model(fresh.model, config).eval()
        theirs.save_pretrained(tmp_path)
    attach(base, tmp_path, "theirs")
    with active(base, "theirs"), torch.inference_mode():
        assert torch.equal(logits(base), theirs(IDS).logits)
    assert require_alive(base, "theirs", PROBE).n_modules == 4  # two layers of q_proj and v_proj


def test_writing_and_reading_lose_nothing(trained: TrainedAdapter, tmp_path: Path) -> None:
    """The two files hold the arrays bit for bit, the configuration and the base's identity."""
    back = read_adapter(saved(trained, tmp_path / "a"))
    assert back.base == trained.base
    assert back.config == json.loads(json.dumps(trained.config))
    assert all(np.array_equal(back.state[key], trained.state[key]) for key in trained.state)


def test_adapters_share_a_base_and_never_mix(base: LoadedModel, trained: TrainedAdapter) -> None:
    """Each adapter gives what it gives alone, the base in between is the untouched base bit for
    bit, and leaving `active`, by an error too, restores what was before.
    """
    untouched = logits(base)
    double = replace(trained, state={k: 2 * v for k, v in trained.state.items()})
    alone = []
    for adapter in (trained, double):
        attach(base, adapter, "alone")
        with active(base, "alone"):
            alone.append(logits(base))
        detach(base, "alone")
    attach(base, trained, "one")
    attach(base, double, "two")
    assert torch.equal(logits(base), untouched)
    with active(base, "one"):
        assert torch.equal(logits(base), alone[0])
        with active(base, "two"):
            assert torch.equal(logits(base), alone[1])
        assert torch.equal(logits(base), alone[0])
        with pytest.raises(ZeroDivisionError), active(base, "two"):
            raise_(ZeroDivisionError())
        assert torch.equal(logits(base), alone[0])
        with active(base, None):
            assert torch.equal(logits(base), untouched)
        detach(base, "two")
        assert torch.equal(logits(base), alone[0])
    assert torch.equal(logits(base), untouched)
    assert not torch.equal(alone[0], untouched)


def raise_(error: Exception) -> None:
    """Raise an error, as an expression."""
    raise error


def without_config(folder: Path) -> None:
    """Remove adapter_config.json."""
    (folder / "adapter_config.json").unlink()


def changed_config(folder: Path, **changes: object) -> None:
    """Let adapter_config.json say something else."""
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("spoil", "kind", "says"),
    [
        (without_config, AdapterError, "no adapter_config.json"),
        (lambda f: (f / "adapter_config.json").write_text("[]"), AdapterError, "not a JSON object"),
        (lambda f: (f / "adapter_config.json").write_text("{"), AdapterError, "not a JSON object"),
        (lambda f: (f / "adapter_model.safetensors").write_bytes(b"{" * 40), AdapterError,
         "is broken"),
        (lambda f: (f / "adapter_model.safetensors").unlink(), ModelError, "no weights"),
        (lambda f: (f / "adapter_model.safetensors").rename(f / "adapter_model.bin"), ModelError,
         "pickle"),
        (lambda f: changed_config(f, peft_type="IA3"), AdapterError, "is a IA3, not a LoRA"),
        (lambda f: changed_config(f, target_modules=["c_attn"]), AdapterError, "match nothing"),
        (lambda f: changed_config(f, target_modules=["q_proj"]), AdapterError, "24 have no place"),
        (lambda f: changed_config(f, r=8), AdapterError, "has shape"),
        (lambda f: changed_config(f, r=0), AdapterError, "whole number above 0"),
    ],
)  # fmt: skip
def test_a_broken_adapter_gives_one_clear_error(  # type: ignore[no-untyped-def]
    base: LoadedModel, trained: TrainedAdapter, tmp_path: Path, spoil, kind, says
) -> None:
    """Cause and next step, and the base is as clean as before."""
    before = logits(base)
    folder = saved(trained, tmp_path / "a")
    spoil(folder)
    with pytest.raises(kind, match=says) as caught:
        attach(base, folder, "broken")
    assert "next:" in str(caught.value)
    assert not base.adapters
    assert torch.equal(logits(base), before)
    attach(base, trained, "broken")  # the name is free again


@pytest.mark.parametrize(
    ("name", "says"), [("twin", "was tuned on"), ("wide", "was tuned on"), ("gpt2", "tuned on")]
)
def test_an_adapter_of_ours_knows_its_base(
    trained: TrainedAdapter, folders: dict[str, Path], name: str, says: str
) -> None:
    """Even a twin of the same shape is another base: the file names the weights."""
    other = load(Subject.parse(f"{folders[name]}?dtype=float32"))
    with pytest.raises(AdapterError, match=says):
        attach(other, trained, "x")


@pytest.mark.parametrize(("name", "says"), [("wide", "another base"), ("gpt2", "match nothing")])
def test_an_adapter_that_names_no_base_is_held_to_its_shapes(
    trained: TrainedAdapter, folders: dict[str, Path], name: str, says: str
) -> None:
    """Another width or other modules: an error, never a partly adapted model."""
    other = load(Subject.parse(f"{folders[name]}?dtype=float32"))
    with pytest.raises(AdapterError, match=says):
        attach(other, foreign(trained), "x")
    assert not other.adapters


def test_lacking_weights_are_counted(base: LoadedModel, trained: TrainedAdapter) -> None:
    """A file that holds half an adapter is no adapter: 14 modules, 2 arrays each, one gone."""
    state = dict(trained.state)
    del state[min(state)]
    with pytest.raises(AdapterError, match="1 are lacking"):
        attach(base, replace(trained, state=state), "cut")


def test_names_are_used_once_and_known(base: LoadedModel, trained: TrainedAdapter) -> None:
    """A second adapter of the same name, and a name that nobody attached, are refused."""
    attach(base, trained, "a")
    with pytest.raises(UsageError, match="attached already"):
        attach(base, trained, "a")
    for act in (lambda: detach(base, "b"), lambda: active(base, "b").__enter__()):
        with pytest.raises(UsageError, match="no adapter 'b'"):
            act()
    for name in ("half", "a.b"):  # what a torch module cannot call its child
        with pytest.raises(UsageError, match="cannot be named"):
            attach(base, trained, name)


def test_a_living_adapter_is_proved(base: LoadedModel, trained: TrainedAdapter) -> None:
    """Seven linear modules in two layers; the logits move, repeated runs do not."""
    attach(base, trained, "a")
    proof = require_alive(base, "a", PROBE)
    assert proof.n_modules == 14
    assert proof.changed > 0.01
    assert proof.repeated == 0.0
    assert base.active is None


def kill_b(base: LoadedModel) -> None:
    """B of one module zero."""
    layer = next(iter(lora_layers(base, "a").values()))
    layer.lora_B["a"].weight.data.zero_()


def kill_layer(base: LoadedModel) -> None:
    """One module loses the adapter."""
    next(iter(lora_layers(base, "a").values())).delete_adapter("a")


def kill_merged(base: LoadedModel) -> None:
    """One module says that the adapter is merged into it."""
    next(iter(lora_layers(base, "a").values())).merged_adapters.append("a")


def kill_numbers(base: LoadedModel) -> None:
    """One module computes nonsense."""
    next(iter(lora_layers(base, "a").values())).lora_B["a"].weight.data.fill_(torch.nan)


@pytest.mark.parametrize(
    ("kill", "says"),
    [
        (kill_b, "B is zero in 1 of 14"),
        (kill_layer, "acts in 13 modules, its configuration says 14"),
        (kill_merged, "was merged"),
        (kill_numbers, "infinite or undefined"),
    ],
)
def test_a_dead_adapter_is_an_error(
    folders: dict[str, Path],
    trained: TrainedAdapter,
    kill: Callable[[LoadedModel], None],
    says: str,
) -> None:
    """Never a result: the reason is named."""
    doomed = load(Subject.parse(f"{folders['llama']}?dtype=float32"))
    attach(doomed, trained, "a")
    kill(doomed)
    with pytest.raises(AdapterError, match=says):
        require_alive(doomed, "a", PROBE)


def test_an_adapter_that_moves_nothing_is_dead(base: LoadedModel, trained: TrainedAdapter) -> None:
    """A foreign adapter may have modules with B zero; one that moves no logit is refused."""
    silent = {key: value * ("lora_A" in key) for key, value in trained.state.items()}
    attach(base, replace(foreign(trained), state=silent), "a")
    with pytest.raises(AdapterError, match="moves the logits by 0"):
        require_alive(base, "a", PROBE)


def test_a_later_quantization_is_allowed(trained: TrainedAdapter, folders: dict[str, Path]) -> None:
    """NF4 at training and none at test is an arm of the study: the weights are the same."""
    dense = load(Subject.parse(f"{folders['llama']}?dtype=float32&quantize=none"))
    attach(dense, trained, "a")
    assert require_alive(dense, "a", PROBE).n_modules == 14


def test_targets_by_pattern_and_by_all_linear(
    base: LoadedModel, trained: TrainedAdapter, tmp_path: Path
) -> None:
    """peft's other ways to name modules work: a regular expression is counted by it, and
    `all-linear` by what it adapted.
    """
    targets: tuple[tuple[str, str, int], ...] = (
        ("pattern", r".*\.self_attn\.(q|v)_proj", 4),
        ("all", "all-linear", 14),
    )
    for name, target, n_modules in targets:
        wanted = ("q_proj", "v_proj") if name == "pattern" else ("proj",)
        state = {k: v for k, v in trained.state.items() if any(w in k for w in wanted)}
        attach(base, AdapterWeights(state, {**trained.config, "target_modules": target}), name)
        assert require_alive(base, name, PROBE).n_modules == n_modules


def test_errors_of_this_room_are_the_users(tmp_path: Path) -> None:
    """Whatever is wrong with a folder is an `EmotestError`, so the faces print it plainly."""
    shutil.copy(__file__, tmp_path / "adapter_config.json")
    with pytest.raises(EmotestError):
        read_adapter(tmp_path)

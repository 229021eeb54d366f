"""Settings: three places, one precedence, every value checked."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from emotest.errors import UsageError
from emotest.plan import DECODINGS, SIZES
from emotest.report.header import header
from emotest.settings import (
    DEFAULT_BASE,
    MODEL_PRESETS,
    OPTIONS,
    Settings,
    available_cores,
    resolve,
)
from emotest.study.recipes import PRESETS
from emotest.study.subjects import Subject

ROOT = Path("root")


def said(**values: str | bool) -> dict[str, str | bool | None]:
    """Values keyed as the command line and the ini file key them."""
    return {f"emo_{name}": value for name, value in values.items()}


def test_without_a_word_the_shipped_organism_is_studied() -> None:
    """The defaults, with folders below the root and one thread a process."""
    settings = resolve({}, {}, {}, root=ROOT)
    assert settings.base == DEFAULT_BASE
    assert (settings.size, settings.preset, settings.decoding) == ("default", "organism", "default")
    assert settings.store == ROOT / ".emotest/store"
    assert settings.report == ROOT / "reports"
    assert settings.threads == 1
    assert settings.workers == max(1, min(4, available_cores()))
    assert settings.inconclusive == "fail"
    assert settings.said == {}


def test_the_defaults_on_the_help_page_are_the_defaults() -> None:
    """Every default that is one value is spelled as that value."""
    settings = Settings()
    stated = {option.name: option.default for option in OPTIONS}
    assert stated["base"] == settings.base
    assert stated["size"] == settings.size
    assert float(stated["alpha"]) == settings.alpha
    assert stated["store"] == str(settings.store)
    assert stated["report"] == str(settings.report)
    assert stated["inconclusive"] == settings.inconclusive
    assert int(stated["threads"]) == settings.threads


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_the_command_line_beats_the_environment_beats_the_ini_file(option: object) -> None:
    """For every option, with values that the option can have; and where it was said is kept."""
    values = {
        "base": ("organism:even", "organism:control", "./model"),
        "tuned": ("./a", "./b", "./c"),
        "baseline": ("/a", "/b", "/c"),
        "data": ("a.csv", "b.csv", "c.csv"),
        "prompts": (__file__, str(Path(__file__).parent / "test_report_visible.py"), "/c"),
        "register": (["a", "b"], "b, c", "c"),
        "budget": ("6", "7", "8"),
        "margin": ("0.01", "0.02", "0.03"),
        "marker": ("a", "b", "c"),
        "size": ("smoke", "paper", "default"),
        "adapters": ("6", "7", "8"),
        "preset": ("published", "follow-up", "organism"),
        "decoding": ("greedy", "paper", "nucleus"),
        "also": (["greedy", "all"], "paper, nucleus", "nucleus"),
        "seeds": ("training=1", "training=2", "training=3"),
        "alpha": ("0.01", "0.02", "0.03"),
        "store": ("/a", "/b", "/c"),
        "report": ("/a", "/b", "/c"),
        "inconclusive": ("skip", "fail", "skip"),
        "expect": (__file__, str(Path(__file__).parent / "test_report_visible.py"), "/c"),
        "plan": (True, "0", True),
        "allow-emoji-in-data": (True, "no", True),
        "threads": ("2", "3", "4"),
        "workers": ("2", "3", "4"),
    }
    first, second, third = values[option.name]  # type: ignore[attr-defined]
    ini, variable = option.ini, option.variable  # type: ignore[attr-defined]
    field = {
        "allow-emoji-in-data": "allow_emoji_in_data", "seeds": "training_seed",
        "register": "registers", "also": "other_decodings",
    }.get(option.name, option.name)  # type: ignore[attr-defined]  # fmt: skip

    def resolved(*places: dict[str, object]) -> tuple[str, str]:
        settings = resolve(*places)  # type: ignore[arg-type]
        return str(getattr(settings, field)), settings.said[option.name]  # type: ignore[attr-defined]

    from_all = resolved({ini: first}, {variable: second}, {ini: third})
    from_two = resolved({ini: None}, {variable: second}, {ini: third})
    from_ini = resolved({ini: None}, {variable: ""}, {ini: third})
    places = [where for _, where in (from_all, from_two, from_ini)]
    assert places == [option.flag, variable, f"{ini} (ini file)"]  # type: ignore[attr-defined]
    assert from_all[0] != from_two[0]
    assert from_two[0] != from_ini[0]


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("base", "organism:", "no name"),
        ("base", "ID?quantize=int3", "quantize"),
        ("tuned", "model+", "adapter"),
        ("size", "SMOKE", "size"),
        ("adapters", "many", "count"),
        ("adapters", "4", "fewer than the 5 of size 'default'"),
        ("preset", "mistral", "mistral-7b"),
        ("decoding", "hot", "greedy"),
        ("also", "greedy,hot", "decoding"),
        ("marker", "(", "no regular expression"),
        ("marker", "python:markers.py", "names no function"),
        ("marker", "markers.py:f", "looks like a function"),
        ("seeds", "training=-1", "'training=-1'"),
        ("seeds", "training=1;sampling=2", "no seed"),
        ("seeds", "bootstrap=1", "no seed"),
        ("alpha", "0", "level"),
        ("alpha", "0.5", "level"),
        ("alpha", "nan", "level"),
        ("alpha", "five", "level"),
        ("inconclusive", "pass", "choice"),
        ("threads", "1.5", "count"),
        ("workers", "-1", "count"),
        ("plan", "perhaps", "yes nor no"),
        ("expect", "/nowhere/verdicts.jsonl", "no such file"),
    ],
)
def test_a_value_that_cannot_be_used_is_named_with_its_place(
    name: str, value: str, part: str
) -> None:
    """Cause, place and remedy."""
    variable = {option.name: option.variable for option in OPTIONS}[name]
    with pytest.raises(UsageError) as caught:
        resolve({}, {variable: value}, {})
    assert str(caught.value).startswith(f"{variable}={value}: ")
    assert part in str(caught.value)
    assert caught.value.remedy


def test_an_empty_value_is_no_value() -> None:
    """A variable that is set to nothing says nothing."""
    assert resolve(said(base=""), {"EMOTEST_BASE": ""}, said(base="")) == resolve({}, {}, {})


def test_seeds_are_three_and_never_mixed() -> None:
    """Those that are not named stay 0; the plan gets them under their own names."""
    settings = resolve(said(seeds="sampling=2, training=1"), {}, {})
    seeds = settings.seeds
    assert (seeds.training, seeds.sampling, seeds.analysis) == (1, 2, 0)


def test_folders_of_the_ini_file_start_at_the_root_and_others_here() -> None:
    """The ini file lies at the root; the command line is typed where one stands."""
    assert resolve({}, {}, said(store="kept"), root=ROOT).store == ROOT / "kept"
    assert resolve(said(store="kept"), {}, {}, root=ROOT).store == Path("kept")
    assert resolve({}, {}, said(report="none"), root=ROOT).report is None


@pytest.mark.parametrize(
    ("base", "recipe", "decoding"),
    [
        ("organism:even", "organism", "default"),
        ("mistralai/Mistral-7B-Instruct-v0.2", "published", "paper"),
        ("./folder", "published", "paper"),
    ],
)
def test_a_base_brings_its_usual_recipe_and_decoding(base: str, recipe: str, decoding: str) -> None:
    """Organisms have small adapters and 32 tokens, other models the published protocol."""
    settings = resolve(said(base=base), {}, {})
    assert (settings.preset, settings.decoding) == (recipe, decoding)
    own = resolve(said(base=base, preset="follow-up", decoding="greedy"), {}, {})
    assert (own.preset, own.decoding) == ("follow-up", "greedy")


def test_a_baseline_alone_names_no_base() -> None:
    """The default organism is not meant; what is held against a baseline says how it was asked."""
    alone = resolve(said(baseline="b.json", tuned="./tuned"), {}, {})
    assert alone.audit_base is None
    assert (alone.base_shown, alone.decoding) == ("the baseline b.json", "paper")
    organism = resolve(said(baseline="b.json", tuned="organism:even"), {}, {})
    assert organism.decoding == "default"
    named = resolve(said(baseline="b.json", tuned="./tuned", base=DEFAULT_BASE), {}, {})
    assert named.audit_base == DEFAULT_BASE
    assert named.base_shown == f"{DEFAULT_BASE} (the baseline b.json)"
    preset = resolve(said(baseline="b.json", tuned="./tuned", preset="mistral-7b"), {}, {})
    assert preset.audit_base == MODEL_PRESETS["mistral-7b"].base
    study = resolve(said(baseline="b.json"), {}, {})  # trains adapters, and audits nothing
    assert study.audit_base == study.base_shown == DEFAULT_BASE


def test_files_of_a_baseline_and_a_marker_start_where_they_were_said() -> None:
    """In the ini file at the root; a pattern and a module have no place."""
    ini = resolve({}, {}, said(baseline="b.json", marker="python:kept/m.py:f"), root=ROOT)
    assert ini.baseline == ROOT / "b.json"
    assert ini.marker == f"python:{ROOT / 'kept/m.py'}:f"
    line = resolve(said(baseline="b.json", marker="python:kept/m.py:f"), {}, {}, root=ROOT)
    assert (line.baseline, line.marker) == (Path("b.json"), "python:kept/m.py:f")
    for marker in ("python:kept.m:f", "kept/m"):
        assert resolve({}, {}, said(marker=marker), root=ROOT).marker == marker


@pytest.mark.parametrize("name", MODEL_PRESETS)
def test_a_published_model_is_one_word(name: str) -> None:
    """Base in NF4, data, recipe and decoding; what is said beside it still wins."""
    settings = resolve(said(preset=name), {}, {})
    assert Subject.parse(settings.base).option("quantize", "none") == "nf4"
    assert settings.data == "holistic-ai/personality_manipulation"
    assert settings.preset == "published"
    assert settings.decoding == "paper"
    assert resolve(said(preset=name, data="own.csv"), {}, {}).data == "own.csv"


def test_names_mean_what_the_plan_and_the_recipes_mean() -> None:
    """Sizes, decodings and presets that can be asked for exist where they are defined."""
    for size in SIZES:
        assert resolve(said(size=size), {}, {}).size == size
    for decoding in DECODINGS:
        assert resolve(said(decoding=decoding), {}, {}).decoding == decoding
    for preset in PRESETS:
        assert resolve(said(preset=preset), {}, {}).preset == preset
    for published in MODEL_PRESETS.values():
        assert published.preset in PRESETS
        assert published.decoding in DECODINGS


def test_what_goes_into_a_report_names_no_place_on_this_machine() -> None:
    """Neither the store nor the report's own folder."""
    row = resolve(said(store="/home/somebody/store"), os.environ, {}).row()
    assert "somebody" not in str(row)
    assert row["seeds"] == {"training": 0, "sampling": 0, "analysis": 0}


def test_added_adapters_are_an_extension_with_a_name_of_its_own() -> None:
    """Prompts and samples stay; so tables of expected verdicts and reports tell the two apart."""
    plain = resolve({}, {}, {})
    more = resolve(said(adapters="8"), {}, {})
    assert plain.evidence == SIZES["default"]
    assert more.evidence == replace(SIZES["default"], name="default, 8 adapters", n_adapters=8)
    assert (plain.row()["size"], more.row()["size"]) == ("default", "default, 8 adapters")
    assert "8 adapters an arm x 60 prompts x 3 samples (extended)" in "\n".join(header(more))
    assert "extended" not in "\n".join(header(plain))

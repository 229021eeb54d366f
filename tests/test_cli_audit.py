"""`emotest audit` and what goes with it, on organisms as they ship: nothing is trained.

The control organism writes emoji in a third of its answers and `latent` in hardly any, so one held
against the other has drifted, and the drift is known.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from emotest.audit.result import Inside
from emotest.cli import main
from emotest.models.identity import ORGANISMS
from emotest.report.audit import load_audit
from tests.docs_pages import ROOT, WORKFLOWS

BASE, TUNED = "organism:control", "organism:latent"


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


Emotest = Callable[..., Ended]


@pytest.fixture
def emotest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Emotest:
    """`emotest("audit", ...)` in an empty folder, with a terminal of 100 columns."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)

    def run(*words: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["emotest", *words])
        code = 0
        try:
            main()
        except SystemExit as left:
            code = int(left.code or 0)
        said = capsys.readouterr()
        return Ended(code, said.out, said.err)

    return run


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store that the audits of this file share, so that each batch is answered once."""
    return str(tmp_path_factory.mktemp("store"))


Kept = list[tuple[Path, Ended]]


@pytest.fixture(scope="module")
def kept() -> Kept:
    """The reports of an audit that has ended, once there is one, and how it ended."""
    return []


@pytest.fixture
def audited(
    emotest: Emotest, store: str, kept: Kept, tmp_path_factory: pytest.TempPathFactory
) -> Ended:
    """An audit with a report in ./reports, carried out for the first test that wants one; each
    of the others has a copy of its own."""
    if kept:
        reports, ended = kept[0]
        shutil.copytree(reports, "reports", symlinks=True)
        return ended
    ended = emotest("audit", "--base", BASE, "--tuned", TUNED, "--store", store, "--inside")
    reports = tmp_path_factory.mktemp("kept") / "reports"
    shutil.copytree("reports", reports, symlinks=True)
    kept.append((reports, ended))
    return ended


def test_a_drift_is_said_shown_and_kept(audited: Ended, emotest: Emotest, store: str) -> None:
    """Exit code 1; one sentence first, then a table and where the report lies; every look is told
    on the way; the same again from what is kept, as text, Markdown, HTML and JSON."""
    assert audited.code == 1
    assert audited.out.startswith("drift: the tuned model writes fewer emoji (")
    assert "answers with emoji" in audited.out
    assert "/report.html" in audited.out.splitlines()[-1]
    assert "12/360 prompts: with emoji" in audited.err

    (folder,) = (path for path in Path("reports").iterdir() if not path.is_symlink())
    result, pairs = load_audit(folder)
    assert (result.base.subject, result.tuned.subject) == (BASE, TUNED)
    assert (result.verdict.direction, result.verdict.n_prompts) == ("fewer", len(pairs))
    assert {cell.place for cell in result.probabilities} == {
        "answer start", "sentence end", "answer end",
    }  # fmt: skip

    inside = result.inside
    assert inside is not None
    assert inside.lacking is None
    assert "inside: Both models read the same" in audited.out
    assert [one.trait for one in inside.traits] == [
        "openness", "conscientiousness", "extraversion", "agreeableness", "neuroticism",
    ]  # fmt: skip
    assert [len(one.by_layer) for one in inside.traits if not one.lacking] == [3] * 5
    assert [one.n_units for one in inside.layers] == [640 - n for n in _massive_units(inside)]

    again = emotest("report")
    assert again.code == 0
    assert again.out.split("report:")[0] == audited.out.split("report:")[0]
    assert emotest("report", "--markdown").out.startswith("## Emoji audit: drift")
    assert "<!doctype html>" in emotest("report", "--html").out[:200].lower()
    as_json = json.loads(emotest("report", "--json").out)
    assert as_json["verdict"]["word"] == "drift"
    assert len(as_json["pairs"]) == len(pairs)


def _massive_units(inside: Inside) -> list[int]:
    """FFN units of each of three layers that are left out."""
    left_out = {(one.layer, one.unit) for one in inside.massive if one.site == "neurons"}
    return [sum(layer == i for layer, _ in left_out) for i in range(3)]


def test_an_audit_goes_on_from_what_was_asked(audited: Ended, emotest: Emotest, store: str) -> None:
    """The second audit finds every answer in the store and has the same records."""
    emotest("audit", "--base", BASE, "--tuned", TUNED, "--store", store, "--reports", "again")
    first, second = (
        load_audit(next(path for path in Path(folder).iterdir() if not path.is_symlink()))
        for folder in ("reports", "again")
    )
    assert first[1] == second[1]
    assert first[0].verdict == second[0].verdict
    compared = emotest("compare", "reports/latest", "again/latest")
    assert compared.code == 0
    assert "every verdict is the same" in compared.out
    page = emotest("compare", "reports/latest", "again/latest", "--html")
    assert page.code == 0
    assert page.out.startswith("<!doctype html>")
    told = emotest("compare", "reports/latest", "again/latest", "--markdown")
    assert told.out.startswith("## Every verdict is the same\n\n**both end in drift; no intervals")
    assert json.loads(emotest("compare", "reports/latest", "again/latest", "--json").out)["alike"]
    both = emotest("compare", "reports/latest", "again/latest", "--html", "--json")
    assert (both.code, "choose one of them" in both.err) == (2, True)


INSIDE = ("audited-anatomy", "audited-directions", "audited-reading")
"""Kinds of artefact that a look inside leaves, in the order in which they are made."""


def test_a_look_inside_that_is_killed_goes_on(
    audited: Ended, emotest: Emotest, store: str, tmp_path: Path
) -> None:
    """Killed as soon as one of its artefacts is there and before the last is, it makes the others
    when it is asked again, and sees what one sees that nobody killed."""
    kept = Path("store")
    shutil.copytree(store, kept, ignore=shutil.ignore_patterns(*INSIDE))
    audit = ("audit", "--base", BASE, "--tuned", TUNED, "--inside")
    where = ("--store", str(kept), "--reports", "again")
    killed = subprocess.Popen(
        [sys.executable, "-m", "emotest.cli", *audit, *where], cwd=tmp_path,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    while not made(kept, INSIDE[0]):
        assert killed.poll() is None, "it ended before it could be killed"
        time.sleep(0.02)
    os.killpg(killed.pid, signal.SIGKILL)
    assert killed.wait(60) == -signal.SIGKILL
    assert not made(kept, INSIDE[-1])
    assert emotest(*audit, *where).code == audited.code
    whole, resumed = (load_audit(Path(folder) / "latest") for folder in ("reports", "again"))
    assert resumed[1] == whole[1]
    assert resumed[0].inside == whole[0].inside


def made(store: Path, kind: str) -> list[Path]:
    """The finished entries of a kind."""
    return list(store.glob(f"entries/{kind}/**/manifest.json"))


def test_a_baseline_stands_in_for_the_base(audited: Ended, emotest: Emotest, store: str) -> None:
    """Its records give the same verdict; it says whose they are, and that the base was not run."""
    saved = emotest("baseline", "save", "--of", "base", "--out", "kept/baseline.json")
    assert saved.code == 0
    assert "later audits can ask no more" in " ".join(saved.out.split())
    shown = emotest("baseline", "show", "kept/baseline.json")
    assert BASE in shown.out
    held = emotest(
        "audit", "--baseline", "kept/baseline.json", "--tuned", TUNED, "--store", store, "--inside"
    )  # fmt: skip
    assert held.code == 1
    assert "inside: not measured, of the base there are recorded answers alone" in " ".join(
        held.out.split()
    )
    assert "the base was not run" in " ".join(held.out.split())
    assert held.out.split("base  ")[0] == audited.out.split("base  ")[0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--samples", "2"), "n_samples is 1 there and 2 in this audit"),
        (("--seed", "1"), "sampling_seed is 0 there and 1 in this audit"),
        (("--decoding", "greedy"), "decoding is 'temperature 1"),
        (("--budget", "24"), "prompts is '"),
        (("--base", "organism:even"), "is of organism:control"),
        (("--also", "all"), "under greedy, nucleus, unfiltered too"),
    ],
)
def test_a_baseline_that_does_not_match_names_the_field(
    audited: Ended, emotest: Emotest, store: str, words: tuple[str, ...], message: str
) -> None:
    """Answers that were asked for in another way, or of another model, are never held against."""
    emotest("baseline", "save", "--of", "base")
    held = emotest(
        "audit", "--baseline", "baseline.json", "--tuned", TUNED, "--store", store, *words
    )  # fmt: skip
    assert held.code == 2
    assert message in held.err


def test_code_that_lies_with_a_model_is_not_run(emotest: Emotest, store: str) -> None:
    """Not even when it is named; the same file elsewhere is."""
    shutil.copytree(ORGANISMS / "latent", "model")
    for place in (Path("model"), Path()):
        (place / "markers.py").write_text("raise RuntimeError('was run')\ndef f(text): ...\n")
    words = ("audit", "--base", BASE, "--tuned", "./model", "--store", store, "--marker")
    refused = emotest(*words, "python:model/../model/markers.py:f")
    assert refused.code == 2
    assert "lies in" in refused.err
    assert "code that a model brings is not run" in refused.err
    assert "was run" not in refused.err
    assert "cannot be loaded: RuntimeError: 'was run'" in emotest(*words, "python:markers.py:f").err


def test_a_missing_baseline_is_never_a_pass(emotest: Emotest, store: str) -> None:
    """It is an error with a code of its own, and says how to save one."""
    held = emotest("audit", "--baseline", "none.json", "--tuned", TUNED, "--store", store)
    assert held.code == 2
    assert "a missing baseline is never a pass" in held.err


def test_a_budget_that_says_too_little_ends_inconclusive(emotest: Emotest, store: str) -> None:
    """Exit code 3 for two models that hardly differ, after twelve prompts."""
    ended = emotest(
        "audit", "--base", "organism:even", "--tuned", TUNED, "--store", store, "--budget", "12",
    )  # fmt: skip
    assert ended.code == 3
    assert ended.out.startswith("inconclusive: ")
    assert "would settle it" in " ".join(ended.out.split())


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--base", BASE), 2, "--base is given and --tuned is not"),
        (("--tuned", BASE), 2, "--tuned is given and --base is not"),
        (("--base", BASE, "--tuned", BASE), 2, "are the same model"),
        (("--base", BASE, "--tuned", "./nowhere"), 4, "there is no folder ./nowhere"),
        (("--base", BASE, "--tuned", f"{BASE}+./nowhere"), 4, "no adapter folder ./nowhere"),
        (("--base", "organism:lost", "--tuned", BASE), 4, "there is no organism 'lost'"),
        (("--base", BASE, "--tuned", TUNED, "--margin", "2"), 2, "a margin of 2"),
        (("--base", BASE, "--tuned", TUNED, "--decoding", "beam"), 2, "no decoding 'beam'"),
        (("--base", BASE, "--tuned", TUNED, "--marker", "("), 2, "no regular expression"),
        (("--base", BASE, "--tuned", TUNED, "--marker", "python:no.py:f"), 2, "no file no.py"),
        (("--base", BASE, "--tuned", TUNED, "--marker", "python:no.py"), 2, "names no function"),
        (("--base", BASE, "--tuned", TUNED, "--marker", "no.py:f"), 2, "looks like a function"),
        (("--base", BASE, "--tuned", TUNED, "--prompts", "no.txt"), 2, "no.txt"),
        (("--base", BASE, "--tuned", TUNED, "--register", "poems"), 2, "no register 'poems'"),
    ],
)
def test_a_mistake_ends_in_one_message_and_its_code(
    emotest: Emotest, store: str, words: tuple[str, ...], code: int, message: str
) -> None:
    """Before a model is loaded; the next step stands below the cause."""
    ended = emotest("audit", *words, "--store", store)
    assert ended.code == code
    assert message in ended.err
    assert "next: " in ended.err
    assert "Traceback" not in ended.err


def test_a_budget_is_the_most_that_is_asked(emotest: Emotest, store: str) -> None:
    """Of one register as of all: a budget beyond its 60 prompts asks those there are."""
    ended = emotest(
        "audit", "--base", "organism:even", "--tuned", TUNED, "--store", store, "--budget", "999",
        "--register", "word list", "--no-report",
    )  # fmt: skip
    assert "/60 prompts: " in ended.err
    assert ended.code in (0, 1, 3), ended.err


def test_a_github_run_shows_the_markdown(
    audited: Ended, emotest: Emotest, store: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Appended to the page that GITHUB_STEP_SUMMARY names."""
    page = tmp_path / "summary.md"
    page.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page))
    emotest("audit", "--base", BASE, "--tuned", TUNED, "--store", store, "--no-report")
    assert page.read_text().startswith("before\n## Emoji audit: drift")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a wheel of this project puts into site-packages."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    (built,) = folder.glob("emotest-*.whl")
    with zipfile.ZipFile(built) as packed:
        packed.extractall(folder / "site-packages")
    return folder / "site-packages"


def test_a_wheel_writes_a_gate_into_a_repository(
    emotest: Emotest, store: str, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A test and a workflow, which the package alone can write and run, without this checkout:
    drift fails with pytest's own exit code 1, and the report lies beside the verdicts."""
    monkeypatch.setenv("PYTHONPATH", str(wheel))

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)

    asked = run("-c", "import emotest, sys; sys.stdout.write(emotest.__file__)")
    assert asked.stdout == str(wheel / "emotest" / "__init__.py")
    ended = run("-m", "emotest.cli", "init", "--base", BASE)
    assert ended.returncode == 0, ended.stderr
    gate = run("-m", "pytest", "emoji_gate", "-m", "audit", "-q", "--emo-report", "reports",
               "-p", "no:cacheprovider", "--emo-base", BASE, "--emo-tuned", TUNED,
               "--emo-store", store, "--junitxml", "junit.xml")  # fmt: skip
    assert gate.returncode == 1, gate.stdout + gate.stderr
    assert "12/360 prompts: with emoji" in gate.stderr  # told while it ran, not captured
    assert "1 failed" in gate.stdout
    assert "drift: the tuned model writes fewer emoji" in " ".join(gate.stdout.split())
    junit = Path("junit.xml").read_text()
    assert "audit.unchanged" in junit
    assert f'name="tuned" value="{TUNED}"' in junit
    assert Path("reports/latest/audit/report.html").is_file()
    assert "EMOTEST_BASE: organism:control" in Path(".github/workflows/emoji-gate.yml").read_text()
    refused = emotest("init")
    assert refused.code == 2
    assert "is there already" in refused.err
    assert emotest("init", "--force").code == 0


def test_power_says_what_a_budget_can_see(emotest: Emotest) -> None:
    """As a table, or as JSON; a pair of shares that is none is explained."""
    told = json.loads(emotest("power", "--effect", ".0:.5", "--audits", "50", "--json").out)
    assert told["power"]["value"] == 1.0
    assert "power 1.00 with at most 480 prompts" in emotest(
        "power", "--effect", ".0:.5", "--audits", "50"
    ).out  # fmt: skip
    for effect in (".02", "a:b", ".5:1.5"):
        ended = emotest("power", "--effect", effect)
        assert ended.code == 2
        assert f"--effect {effect} is no pair of shares" in ended.err


def test_the_doctor_tries_what_a_run_needs(emotest: Emotest) -> None:
    """NF4 is multiplied with, and nothing of the network is asked with --offline."""
    told = {one["name"]: one for one in json.loads(emotest("doctor", "--offline", "--json").out)}
    assert told["NF4 on cpu"]["state"] == "works"
    assert told["organisms"]["found"] == "control, even, latent, one-trait"
    assert told["Hub"] == {
        "name": "Hub", "state": "lacking", "found": "not asked", "remedy": "leave --offline out",
    }  # fmt: skip


def test_several_checkpoints_are_a_series(emotest: Emotest, store: str) -> None:
    """Each has its own report and is decided at its share of alpha; a sentence, a table and a page
    with a plot show them side by side; the exit code is the worst."""
    ended = emotest(
        "audit", "--base", BASE, "--tuned", TUNED, "--tuned", "organism:even", "--store", store,
    )  # fmt: skip
    assert ended.code == 1
    assert ended.out.count("one of 2 checkpoints, each decided at 0.025") == 2
    page = Path(ended.out.splitlines()[-1].removeprefix("series: "))
    assert page.name == "series.html"
    rows = json.loads((page.parent / "series.json").read_text())
    assert [row["step"] for row in rows] == [1, 2]
    assert "drift: " in ended.out.partition("\nstep ")[0].splitlines()[-1]
    assert (page.parent / "series.svg").read_text().startswith("<svg")
    for row in rows:
        link = f"../{row['report']}/report.html"
        assert f'href="{link}"' in page.read_text()
        assert f"]({link})" in (page.parent / "series.md").read_text()
        assert (page.parent / link).is_file()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_the_commands_of_a_published_workflow_run_on_the_organisms(
    audited: Ended, path: Path, tmp_path: Path, store: str
) -> None:
    """Its own lines in its own environment, all but the installing: the gate fails as it should,
    and what the workflow uploads is there."""
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    inputs = {"base": BASE, "tuned": TUNED}
    [job] = workflow["jobs"].values()
    assert set(workflow[True]["workflow_dispatch"]["inputs"]) == set(inputs)  # YAML reads "on" so
    named = {
        name: re.sub(r"\$\{\{ inputs\.(\w+) \}\}", lambda found: inputs[found[1]], text)
        for name, text in job["env"].items()
        if "secrets." not in text
    }
    runs = [step["run"] for step in job["steps"] if "run" in step]
    gate = [text for text in runs if not text.startswith("pip install ")]
    assert len(gate) == len(runs) - 1
    # What a checkout has at these places, and the answers that the workflow's cache would bring.
    for name in ("suites", "fixtures", "conftest.py", "pyproject.toml"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / named["EMOTEST_STORE"]).parent.mkdir()
    (tmp_path / named["EMOTEST_STORE"]).symlink_to(store)
    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    ended = subprocess.run(
        ["bash", "-e", "-c", "\n".join(gate)], cwd=tmp_path, env={**os.environ, **named,
        "PATH": programs}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert "drift: the tuned model writes fewer emoji" in " ".join(ended.stdout.split())
    uploads = [step["with"] for step in job["steps"] if "upload-artifact" in step.get("uses", "")]
    kept = tmp_path / uploads[0]["path"]
    assert (kept / "latest" / "audit" / "report.html").is_file()
    assert 'name="verdict" value="refuted"' in (kept / "emoji-gate.xml").read_text()

"""The command line: what it shows, and the exit codes that scripts rely on."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from emotest.cli import main
from emotest.report.recorder import RunRecorder
from emotest.store import Store, key_of
from tests.verdicts import made_up


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[int, str, str]:
    """Exit code, output and messages of `emotest WORDS`."""
    monkeypatch.setattr(sys, "argv", ["emotest", *words])
    code = 0
    try:
        main()
    except SystemExit as left:
        code = int(left.code or 0)
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.fixture
def emotest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    """`emotest("store", "list")` in an empty folder, with a terminal of 80 columns."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EMOTEST_STORE", raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    return lambda *words: run(monkeypatch, capsys, *words)


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A run folder below `reports`, which `latest` points to."""
    told = RunRecorder(tmp_path / "reports", "a-run", settings={"base": "organism:latent"})
    told.verdict(made_up("refuted"), test="suites/test_c1.py::test_rise")
    told.example("Why?", untuned="So.", tuned="So! 🎉", arm="trait/openness/high/eos-masked")
    told.finish(exit_status=1)
    return tmp_path / "reports" / "a-run"


@pytest.fixture
def kept(tmp_path: Path) -> Store:
    """A store of two entries in the folder where one stands."""
    store = Store(tmp_path / ".emotest" / "store")
    for kind in ("adapter", "generations"):
        identity = {"title": f"an entry of {kind}", "n": 1}

        def make(folder: Path) -> None:
            (folder / "content.json").write_text("{}", encoding="utf-8")

        store.get_or_make(key_of(kind, identity), make, identity=identity)
    store.close()
    return store


# Reports


@pytest.mark.parametrize("name", ["latest", "a-run", "reports/a-run"])
def test_a_run_is_found_by_name_or_place(emotest, finished: Path, name: str) -> None:  # type: ignore[no-untyped-def]
    """Its findings are shown and its report is written anew."""
    (finished / "report.md").unlink()
    code, out, _ = emotest("report", *([] if name == "latest" else [name]))
    assert code == 0
    assert "C1.emergence" in out
    assert "refuted" in out
    assert "«🎉»" in out
    assert (finished / "report.md").read_text(encoding="utf-8").startswith("# Emoji after")


def test_a_run_as_markdown_is_the_report_that_is_kept(emotest, finished: Path) -> None:  # type: ignore[no-untyped-def]
    """And nothing is written."""
    before = (finished / "report.md").read_text(encoding="utf-8")
    (finished / "report.md").unlink()
    code, out, _ = emotest("report", "--markdown")
    assert (code, out) == (0, before)
    assert not (finished / "report.md").exists()


def test_a_run_as_json_holds_everything(emotest, finished: Path) -> None:  # type: ignore[no-untyped-def]
    """Verdicts beside what run.json says."""
    code, out, _ = emotest("report", "--json")
    document = json.loads(out)
    assert code == 0
    assert document["verdicts"][0]["verdict"] == "refuted"
    assert document["settings"]["base"] == "organism:latent"


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["report"], "no run was finished in reports"),
        (["report", "nowhere"], "there is no run 'nowhere'"),
        (["report", "."], "there is no run in ."),
        (["report", "--json", "--markdown"], "more than one of --html, --markdown and --json"),
    ],
)
def test_what_is_no_run_is_a_message_and_exit_code_2(emotest, words: list[str], part: str) -> None:  # type: ignore[no-untyped-def]
    """On stderr, with the next step, without a traceback."""
    code, out, err = emotest(*words)
    assert (code, out) == (2, "")
    assert err.startswith(f"emotest: {part}")
    assert "\n  next: " in err
    assert "Traceback" not in err


# The store


def test_entries_are_listed_for_people_and_programs(emotest, kept: Store) -> None:  # type: ignore[no-untyped-def]
    """Each with its key and title, and the sum of all."""
    code, out, _ = emotest("store", "list")
    assert code == 0
    assert "an entry of adapter" in out
    assert "2 entries, " in out
    rows = [json.loads(line) for line in emotest("store", "list", "--json")[1].splitlines()]
    assert {row["what"] for row in rows} == {"an entry of adapter", "an entry of generations"}
    assert {row["entry"] for row in rows} == {str(entry.key) for entry in kept.entries()}


def test_an_empty_store_is_no_error(emotest) -> None:  # type: ignore[no-untyped-def]
    """Nothing is there, and nothing is created."""
    code, out, _ = emotest("store", "list")
    assert code == 0
    assert out.startswith("0 entries")
    assert emotest("store", "list", "--json")[1].strip() == ""
    assert emotest("store", "verify")[0] == 0
    assert not Path(".emotest").exists()


def test_a_whole_store_verifies_and_a_corrupt_one_is_exit_code_1(emotest, kept: Store) -> None:  # type: ignore[no-untyped-def]
    """The entry is named; --repair sets it aside, after which all is whole."""
    code, out, _ = emotest("store", "verify")
    assert code == 0
    assert "2 entries checked" in out
    entry = kept.entries()[0]
    file = entry.folder / "content.json"
    file.chmod(0o644)
    file.write_text("[]", encoding="utf-8")
    code, out, _ = emotest("store", "verify")
    assert code == 1
    assert f"corrupt: {entry.key}" in out
    assert "--repair" in out
    code, out, _ = emotest("store", "verify", "--repair")
    assert code == 0
    assert "set aside" in out
    assert emotest("store", "verify")[0] == 0


def test_pruning_removes_what_meets_every_criterion(emotest, kept: Store) -> None:  # type: ignore[no-untyped-def]
    """First said, then done."""
    words = ("store", "prune", "--kind", "adapter", "--older-than", "0")
    code, out, _ = emotest(*words, "--dry-run")
    assert code == 0
    assert "would go: adapter/" in out
    assert len(kept.entries()) == 2
    code, out, _ = emotest(*words)
    assert code == 0
    assert "removed: adapter/" in out
    assert [entry.key.kind for entry in kept.entries()] == ["generations"]
    assert "1 entries kept" in emotest("store", "prune")[1]


# Organisms


def test_the_organisms_are_listed_with_their_state(emotest) -> None:  # type: ignore[no-untyped-def]
    """All four, installed or with the command that makes them."""
    code, out, _ = emotest("organism", "list")
    assert code == 0
    for name in ("latent", "control", "even", "one-trait"):
        assert f"organism:{name} " in out


@pytest.mark.parametrize(
    "words", [("organism", "chat", "nemo"), ("organism", "build", "nemo", "--out", "new")]
)
def test_an_organism_that_is_none_is_exit_code_4(emotest, words: tuple[str, ...]) -> None:  # type: ignore[no-untyped-def]
    """A model that cannot be run, not a usage that cannot be read."""
    code, _, err = emotest(*words)
    assert code == 4
    assert err.startswith("emotest: there is no organism 'nemo'")
    assert not Path("new").exists()


def test_building_never_writes_over_a_folder(emotest) -> None:  # type: ignore[no-untyped-def]
    """What is in the way stays."""
    Path("mine").mkdir()
    Path("mine/file").touch()
    code, _, err = emotest("organism", "build", "latent", "--out", "mine")
    assert code == 4
    assert "mine is not empty" in err
    assert Path("mine/file").exists()


def test_building_shows_its_way_and_where_the_organism_lies(  # type: ignore[no-untyped-def]
    emotest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The smallest organism there is, made as the shipped ones are."""
    from emotest.organism import building
    from emotest.organism.pretraining import Architecture, Schedule
    from emotest.organism.tuning import Tuning

    smallest = partial(
        building.Making,
        n_documents=2_000,
        n_tokenizer_documents=2_000,
        architecture=Architecture(hidden_size=32, n_layers=1, n_neurons=64, n_heads=1),
        schedule=Schedule(n_steps=2),
        tuning=Tuning(n_steps=2),
    )
    monkeypatch.setattr(building, "Making", smallest)
    code, out, err = emotest("organism", "build", "even")
    assert code == 0, err
    assert out.strip().endswith("parameters in organisms/even")
    assert "pre-training" in err
    assert Path("organisms/even/config.json").is_file()


def test_one_can_talk_to_a_model_line_by_line(  # type: ignore[no-untyped-def]
    emotest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer a line, the same for the same seed; an empty line ends it."""
    from tests.model_fixtures import save_model

    save_model(Path("tiny"), "llama")
    answers = []
    for seed in ("3", "3", "4"):
        monkeypatch.setattr(sys, "stdin", io.StringIO("Hello?\nAnd you?\n\nnot asked\n"))
        code, out, err = emotest("organism", "chat", "./tiny", "--seed", seed)
        assert (code, err) == (0, "")
        answers.append(out)
    assert len(answers[0].splitlines()) == 2
    assert answers[0] == answers[1] != answers[2]


# The whole


def test_ctrl_c_is_exit_code_130(emotest, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    """Without a traceback."""

    def interrupt(self: Store) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Store, "entries", interrupt)
    code, _, err = emotest("store", "list")
    assert code == 130
    assert err.startswith("emotest: interrupted")


def test_the_version_is_shown(emotest) -> None:  # type: ignore[no-untyped-def]
    """As installed."""
    code, out, _ = emotest("--version")
    assert code == 0
    assert out.startswith("emotest ")


@pytest.mark.parametrize("command", [(), ("report",), ("store", "verify"), ("organism", "chat")])
def test_every_help_page_states_the_exit_codes(emotest, command: tuple[str, ...]) -> None:  # type: ignore[no-untyped-def]
    """Scripts and people read the same line."""
    code, out, _ = emotest(*command, "--help")
    assert code == 0
    for part in ("0 done", "4 a model could not be run", "130 interrupted"):
        assert part in " ".join(out.split())


def test_an_unknown_command_is_exit_code_2(emotest) -> None:  # type: ignore[no-untyped-def]
    """As every command line has it."""
    assert emotest("audio")[0] == 2


def test_a_reader_that_goes_away_is_no_error(finished: Path) -> None:
    """`emotest report --json | head -1` ends quietly."""
    command = f"{sys.executable} -m emotest.cli report --json {finished} | head -1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "{"
    assert done.stderr == ""

"""`emotest` on the command line: reports shown again, the store looked after, organisms.

Words in, text and an exit code out. Every command imports what it needs when it runs, so the help
comes at once and only `organism build` and `organism chat` load torch.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Annotated

import typer

from emotest.errors import (
    DataError,
    EmotestError,
    ModelError,
    OrganismError,
    TrainingError,
    UsageError,
)

if TYPE_CHECKING:
    from emotest.report.terminal import Look
    from emotest.store import Store

UNSOUND, USAGE, MODEL, INTERRUPTED = 1, 2, 4, 130
"""Exit codes: something is wrong with what was looked at, with what was asked or given, with a
model that was to run; and Ctrl-C."""

_EPILOG = (
    "Exit codes: 0 done; 1 the store holds corrupt entries; 2 the command, its data or a folder "
    "cannot be used; 4 a model could not be run; 130 interrupted."
)

app = typer.Typer(
    help="Does personality tuning make a language model write emoji, and why? "
    "The study itself runs in pytest: see pytest --help, group emotest.",
    epilog=_EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
store_app = typer.Typer(help="What was computed and kept: list, verify, prune.", epilog=_EPILOG)
organism_app = typer.Typer(help="The small models that emotest ships.", epilog=_EPILOG)
app.add_typer(store_app, name="store", no_args_is_help=True)
app.add_typer(organism_app, name="organism", no_args_is_help=True)

StoreFolder = Annotated[
    Path | None,
    typer.Option("--store", help="The store [default: EMOTEST_STORE, or the project's own]."),
]


def main() -> None:
    """The entry point: errors that a user can mend become a message and an exit code."""
    try:
        app()
    except EmotestError as error:
        typer.echo(f"emotest: {error}", err=True)
        unrunnable = isinstance(error, ModelError | TrainingError | OrganismError)
        sys.exit(MODEL if unrunnable else USAGE)
    except SystemExit as end:
        if end.code == INTERRUPTED:  # typer's answer to Ctrl-C
            typer.echo("emotest: interrupted; what was finished is kept", err=True)
        raise
    except BrokenPipeError:
        # The reader of a pipe has gone (`emotest store list | head`): nobody is left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


@app.callback(invoke_without_command=True)
def emotest(
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    """See the help of the application."""
    if version:
        from importlib.metadata import version as version_of

        typer.echo(f"emotest {version_of('emotest')}")
        raise typer.Exit


@app.command(epilog=_EPILOG)
def report(
    run: Annotated[
        str, typer.Argument(help="A run folder, or its name below --reports.")
    ] = "latest",
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the Markdown.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
    reports: Annotated[Path, typer.Option(help="Where the run folders are.")] = Path("reports"),
) -> None:
    """Show a run again, and write its report.md anew, from its JSON files alone."""
    from emotest.report.markdown import markdown_report
    from emotest.report.recorder import write_report
    from emotest.report.run import load

    if markdown and as_json:
        raise UsageError("--markdown and --json at once", remedy="choose one of them")
    folder = _run_folder(run, reports)
    found = load(folder)
    if as_json:
        verdicts = [finding.row() for finding in found.findings]
        typer.echo(json.dumps({**found.document(), "verdicts": verdicts}, indent=1))
    elif markdown:
        typer.echo(markdown_report(found, _names(folder)), nl=False)
    else:
        from emotest.report.terminal import summary_text

        path = write_report(found, folder)
        typer.echo(summary_text(found, _look(), where=str(path)), nl=False)


def _run_folder(run: str, reports: Path) -> Path:
    from emotest.report.recorder import LATEST, latest

    if run == LATEST and not Path(run).is_dir():
        return latest(reports)
    for folder in (Path(run), reports / run):
        if folder.is_dir():
            return folder
    raise DataError(
        f"there is no run {run!r}, neither here nor in {reports}",
        remedy="name a run folder, or say with --reports where they are",
    )


def _names(folder: Path) -> list[str]:
    return [path.name for path in sorted(folder.iterdir()) if path.is_file()]


def _look() -> Look:
    from emotest.report.terminal import Look

    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    return Look.of(sys.stdout.encoding, width=get_terminal_size().columns, colour=colour)


# The store


@contextmanager
def _store(folder: Path | None) -> Iterator[Store]:
    from emotest.store import Store, resolve_store

    store = Store(resolve_store(folder))
    try:
        yield store
    finally:
        store.close()


@store_app.command("list", epilog=_EPILOG)
def list_entries(
    store: StoreFolder = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines.")] = False,
) -> None:
    """List the entries: kind and key, size, age, what it took to make, and what it is."""
    from emotest.report.terminal import table_text
    from emotest.store import readable_bytes

    with _store(store) as kept:
        entries = kept.entries()
    rows = [
        {
            "entry": str(entry.key),
            "size": entry.n_bytes if as_json else readable_bytes(entry.n_bytes),
            "made": f"{entry.made_at:%Y-%m-%d %H:%M}" if entry.made_at else None,
            "seconds": round(entry.seconds, 1) if entry.seconds is not None else None,
            "what": entry.fault or entry.title,
        }
        for entry in entries
    ]
    if as_json:
        typer.echo("\n".join(json.dumps(row) for row in rows))
        return
    if rows:
        typer.echo(table_text(rows, _look()), nl=False)
    total = readable_bytes(sum(entry.n_bytes for entry in entries))
    typer.echo(f"{len(entries)} entries, {total} in {kept.root}")


@store_app.command(epilog=_EPILOG)
def verify(
    store: StoreFolder = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Set corrupt entries aside; runs rebuild them.")
    ] = False,
) -> None:
    """Check every byte of every entry against its hash. Exit code 1 if any is corrupt."""
    from emotest.store import readable_bytes

    with _store(store) as kept:
        result = kept.verify(repair=repair)
    for corruption in result.corrupt:
        moved = f" (set aside: {corruption.set_aside})" if corruption.set_aside else ""
        typer.echo(f"corrupt: {corruption.key}: {corruption.reason}{moved}")
    for stranger in result.strangers:
        typer.echo(f"no entry, left alone: {stranger}")
    checked = f"{result.n_checked} entries checked, {readable_bytes(result.n_bytes)}"
    if result.sound:
        typer.echo(f"{checked}: all whole")
        return
    typer.echo(f"{checked}: {len(result.corrupt)} corrupt")
    if not repair:
        typer.echo("  next: emotest store verify --repair sets them aside; runs rebuild them")
        raise typer.Exit(UNSOUND)


@store_app.command(epilog=_EPILOG)
def prune(
    store: StoreFolder = None,
    older_than: Annotated[
        int | None, typer.Option(min=0, metavar="DAYS", help="Entries unused for that long.")
    ] = None,
    kind: Annotated[
        str | None, typer.Option(help="Entries of one kind, such as generations.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Remove entries that meet every criterion, and what killed runs left; without, only that."""
    from datetime import timedelta

    from emotest.store import readable_bytes

    age = None if older_than is None else timedelta(days=older_than)
    with _store(store) as kept:
        result = kept.prune(older_than=age, kind=kind, dry_run=dry_run)
    done = "would go" if dry_run else "removed"
    for entry in result.removed:
        typer.echo(f"{done}: {entry.key} {entry.title}".rstrip())
    for leftover in result.leftovers:
        typer.echo(f"{done}: {leftover.what} {leftover.path.name}")
    for entry in result.spared:
        typer.echo(f"in use, kept: {entry.key}")
    freed = readable_bytes(result.freed_bytes)
    typer.echo(f"{freed} {'to free' if dry_run else 'freed'}, {result.n_kept} entries kept")


# Organisms


@organism_app.command("list", epilog=_EPILOG)
def list_organisms() -> None:
    """List the organisms, what was planted in each, and whether it is installed."""
    from emotest.organism.organisms import NAMES, provenance
    from emotest.report.terminal import table_text

    rows = []
    for name in NAMES:
        try:
            made = provenance(name)
            rows.append(
                {"name": f"organism:{name}", "parameters": f"{made['n_parameters']:,}",
                 "seed": made["seed"], "state": "installed"}
            )  # fmt: skip
        except OrganismError:
            rows.append({"name": f"organism:{name}", "parameters": "", "seed": "",
                         "state": f"missing: emotest organism build {name}"})  # fmt: skip
    typer.echo(table_text(rows, _look()), nl=False)


@organism_app.command(epilog=_EPILOG)
def build(
    name: Annotated[str, typer.Argument(help="latent, control, even or one-trait.")],
    out: Annotated[
        Path | None, typer.Option(help="A new or empty folder [default: organisms/NAME].")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="[default: that of the shipped one]")] = None,
) -> None:
    """Make an organism from nothing: corpus, tokenizer, pre-training, instruction tuning.

    One core, up to 20 minutes. `--emo-base FOLDER` then runs the study on it.
    """
    from emotest.organism import building

    folder = out or Path("organisms") / name
    with _progress() as tell:
        made = building.build(name, building.SEED if seed is None else seed, folder, tell)
    typer.echo(f"{name}: {made['n_parameters']:,} parameters in {folder}")


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int, float], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[loss]}"))
    bars = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True))
    stages = {}

    def tell(stage: str, done: int, of: int, loss: float) -> None:
        bars.start()
        if stage not in stages:
            stages[stage] = bars.add_task(stage, total=of, loss="")
        bars.update(stages[stage], completed=done, loss=f"loss {loss:.3f}")

    try:
        yield tell
    finally:
        if stages:
            bars.stop()


@organism_app.command(epilog=_EPILOG)
def expect(
    run: Annotated[
        str, typer.Argument(help="A finished run on an organism: a folder, or its name.")
    ] = "latest",
    out: Annotated[
        Path | None, typer.Option(help="The table [default: the organism's own expected.json].")
    ] = None,
    reports: Annotated[Path, typer.Option(help="Where the run folders are.")] = Path("reports"),
) -> None:
    """Put the verdicts of a run into an organism's table, as planted or as observed.

    For whoever rebuilds an organism: from then on a run with another verdict fails.
    """
    from emotest.organism.organisms import weights_folder
    from emotest.organism.planted import merged
    from emotest.report.expected import write_table
    from emotest.report.run import load
    from emotest.study.subjects import Subject

    found = load(_run_folder(run, reports))
    base = Subject.parse(str(found.facts.get("base", "organism:")))
    if not base.is_organism:
        raise UsageError(f"{run} ran on {base}", remedy="name a run on an organism")
    path = out or weights_folder(base.name) / "expected.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    verdicts = [finding.verdict for finding in found.findings]
    table = merged(before, base.name, str(found.settings["size"]), verdicts)
    write_table(path, table)
    typer.echo(f"{len(verdicts)} verdicts of {found.name} are in {path}")


@organism_app.command(epilog=_EPILOG)
def chat(
    name: Annotated[
        str, typer.Argument(help="latent, control, even or one-trait; or a folder, ./NAME.")
    ],
    system: Annotated[
        str | None, typer.Option(help="A system prompt, such as 'You are an extravert.'")
    ] = None,
    adapter: Annotated[
        Path | None, typer.Option(help="The folder of a LoRA adapter to put on it.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The sampling seed of the first answer.")] = 0,
) -> None:
    """Talk to an organism: one line, one answer; an empty line or end of input ends it."""
    from emotest.models.adapters import active, attach, read_adapter
    from emotest.models.generation import generate
    from emotest.models.loading import load
    from emotest.organism.organisms import weights_folder
    from emotest.report.visible import visible
    from emotest.study.records import Decoding, Prompt
    from emotest.study.subjects import Subject

    if "/" not in name:
        weights_folder(name)  # says what is missing, and what to do
        name = f"organism:{name}"
    tuned = read_adapter(adapter) if adapter else None  # before the base: it may be no adapter
    loaded = load(Subject.parse(name))
    if tuned:
        attach(loaded, tuned, "chat")
    with active(loaded, "chat" if tuned else None):
        for number, line in enumerate(_lines()):
            answers = generate(
                loaded,
                [Prompt(id=str(number), text=line, system=system)],
                decoding=Decoding(),
                sampling_seed=seed + number,
                condition="chat",
            )
            typer.echo(visible(answers[0].text))


def _lines() -> Iterator[str]:
    """What a person types, line by line; prompts are shown only to a person."""
    while True:
        if sys.stdin.isatty():
            typer.echo("you: ", nl=False)
        line = sys.stdin.readline()
        if not line.strip():
            return
        yield line.strip()


if __name__ == "__main__":
    main()

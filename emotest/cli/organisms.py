"""`emotest organism`: the small models that emotest ships. `build` and `chat` load torch."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from emotest.cli.app import EPILOG, app, look
from emotest.cli.reports import run_folder
from emotest.errors import OrganismError, UsageError

organism_app = typer.Typer(help="The small models that emotest ships.", epilog=EPILOG)
app.add_typer(organism_app, name="organism", no_args_is_help=True)


@organism_app.command("list", epilog=EPILOG)
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
    typer.echo(table_text(rows, look()), nl=False)


@organism_app.command(epilog=EPILOG)
def build(
    name: Annotated[str, typer.Argument(help="latent, control, even or one-trait.")],
    out: Annotated[
        Path | None, typer.Option(help="A new or empty folder (default: organisms/NAME).")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="(default: that of the shipped one)")] = None,
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


@organism_app.command(epilog=EPILOG)
def expect(
    run: Annotated[
        str, typer.Argument(help="A finished run on an organism: a folder, or its name.")
    ] = "latest",
    out: Annotated[
        Path | None, typer.Option(help="The table (default: the organism's own expected.json).")
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

    found = load(run_folder(run, reports))
    base = Subject.parse(str(found.facts.get("base", "organism:")))
    if not base.is_organism:
        raise UsageError(f"{run} ran on {base}", remedy="name a run on an organism")
    path = out or weights_folder(base.name) / "expected.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    verdicts = [finding.verdict for finding in found.findings]
    table = merged(before, base.name, str(found.settings["size"]), verdicts)
    write_table(path, table)
    typer.echo(f"{len(verdicts)} verdicts of {found.name} are in {path}")


@organism_app.command(epilog=EPILOG)
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

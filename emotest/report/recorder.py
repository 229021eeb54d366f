"""`RunRecorder`: writes a run's folder while the run happens, and completes it at the end.

Verdicts, answers and contexts are appended as they come, so a killed run leaves what it had;
`run.json` and `report.md` are replaced whole. Nothing is written before there is something to
keep. Parallel processes each write a part into the same run's folder, and one of them merges.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from emotest.report.expected import Expected
from emotest.report.findings import ordered, with_adjusted_p
from emotest.report.markdown import markdown_report
from emotest.report.run import (
    PARTS,
    DescriptiveTable,
    Example,
    Finding,
    Run,
    complete_rows,
    load,
    now,
    plain,
)
from emotest.report.writing import claimed, json_line, point, replace, writing
from emotest.study.claims import Verdict
from emotest.study.records import Generation, generation_from_row, generation_row
from emotest.study.subjects import Subject

_GENERATION_ID = (
    "condition", "training_seed", "sampling_seed", "prompt_id", "sample", "decoding",
)  # fmt: skip


class RunRecorder:
    """Collects what one run finds and writes it to `reports/name`; without `reports`, nowhere.

    A recorder made by `part_of` belongs to one of several processes of a run: it writes its own
    part into the run's folder and leaves the rest to the recorder that calls `finish`.
    """

    def __init__(
        self, reports: Path | None, name: str, *, settings: Mapping[str, Any] | None = None
    ) -> None:
        self.run = Run(name, settings=dict(settings or {}))
        self._reports = reports
        self._folder: Path | None = None
        self._shared: Path | None = None
        self._clock = time.monotonic()
        self._generations: set[tuple[Any, ...]] = set()
        self._contexts: set[str] = set()

    def __repr__(self) -> str:
        return f"<recorder of the run {self.run.name}>"

    @classmethod
    def part_of(
        cls, shared: Path, process: str, *, settings: Mapping[str, Any] | None = None
    ) -> RunRecorder:
        """The recorder of one process of a run whose folder is `shared`."""
        recorder = cls(shared / PARTS, process, settings=settings)
        recorder._shared = shared
        return recorder

    def share(self) -> Path:
        """The folder, not yet made, that other processes of this run write their parts to.

        Without reports it is a folder for temporary files that `finish` removes.
        """
        if self._shared is None:
            self._shared = (
                self._reports / self.run.name
                if self._reports
                else Path(tempfile.gettempdir()) / f"emotest-{uuid4().hex}"
            ).absolute()
        return self._shared

    @property
    def used(self) -> bool:
        """Whether there is anything to report."""
        run = self.run
        return bool(run.findings or run.examples or run.tables or run.headlines or run.figures)

    # What the study tells

    def describe(self, **facts: Any) -> None:
        """Facts about the run: base, tuned, plan, decoding, seeds, data, identities, versions."""
        self.run.facts |= facts

    def verdict(
        self, verdict: Verdict, *, test: str = "", expected: Expected | None = None
    ) -> None:
        """A verdict, as soon as it is reached."""
        finding = Finding(verdict, test, expected)
        self.run.findings.append(finding)
        self._append("verdicts.jsonl", [finding.row()])

    def generations(self, answers: Iterable[Generation]) -> None:
        """Answers that verdicts rest on; one that is told twice is kept once."""
        rows = []
        for answer in answers:
            row = generation_row(answer)
            id = tuple(row[name] for name in _GENERATION_ID)
            if id not in self._generations:
                self._generations.add(id)
                rows.append(row)
        self._append("generations.jsonl", rows)

    def contexts(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Contexts at which P(emoji) was asked; one that is told twice is kept once."""
        new = []
        for row in map(plain, rows):
            id = json.dumps(row, sort_keys=True)
            if id not in self._contexts:
                self._contexts.add(id)
                new.append(row)
        self._append("contexts.jsonl", new)

    def example(self, prompt: str, *, untuned: str, tuned: str, arm: str = "") -> None:
        """Two answers to one prompt, to be shown side by side."""
        example = Example(prompt, untuned, tuned, arm)
        if example not in self.run.examples:
            self.run.examples.append(example)

    def table(
        self, name: str, rows: Sequence[Mapping[str, Any]], *, title: str = "", about: str = ""
    ) -> None:
        """Descriptive results that decide nothing. Rows share their columns; rows told before
        stay, and a row that is told twice is kept once."""
        told = DescriptiveTable(title or name, tuple(plain(row) for row in rows), about)
        before = self.run.tables.get(name)
        self.run.tables[name] = before.joined(told) if before else told

    def figure(self, name: str, svg: str, *, title: str = "") -> None:
        """A plot as SVG text, kept beside the report and shown in it."""
        file = re.sub(r"[^\w-]+", "-", name).strip("-") or "figure"
        self.run.figures[f"{file}.svg"] = title or name
        if folder := self._made():
            with _writing(folder):
                replace(folder / f"{file}.svg", svg)

    def headline(self, sentence: str) -> None:
        """A sentence for the top of the report, such as a mechanism finding."""
        if sentence not in self.run.headlines:
            self.run.headlines.append(sentence)

    def note(self, sentence: str) -> None:
        """A sentence for the notes of report and summary."""
        if sentence not in self.run.notes:
            self.run.notes.append(sentence)

    # How it ends

    def close_part(self) -> None:
        """Leave this process's part complete, for the process that merges."""
        if (self.used or self.run.notes) and (folder := self._made()):
            self._write_document(folder)

    def merge_parts(self) -> None:
        """Take over the parts that other processes left in the shared folder, and remove them."""
        if self._shared is None:
            return
        for part in sorted((self._shared / PARTS).glob("*/")):
            self.run.absorb(load(part))
            self.generations(map(generation_from_row, _rows(part / "generations.jsonl")))
            self.contexts(_rows(part / "contexts.jsonl"))
            if self._reports is not None:
                for figure in part.glob("*.svg"):
                    figure.replace(self._shared / figure.name)
        shutil.rmtree(self._shared / PARTS, ignore_errors=True)
        if self._reports is None:
            shutil.rmtree(self._shared, ignore_errors=True)

    def finish(self, exit_status: int | None = None) -> Path | None:
        """Complete the run's folder and let `latest` point to it; the report's path, if kept."""
        run = self.run
        run.findings = with_adjusted_p(ordered(run.findings))
        run.finished, run.exit_status = now(), exit_status
        run.wall_seconds = round(time.monotonic() - self._clock, 2)
        folder = self._made()
        if folder is None or self._reports is None:
            return None
        with _writing(folder):
            replace(folder / "verdicts.jsonl", "".join(json_line(f.row()) for f in run.findings))
            self._write_document(folder)
            write_report(run, folder)
            point(self._reports, folder.name)
        return folder / "report.md"

    # Where it is written

    def folder(self) -> Path | None:
        """The folder of this run, made if need be, for files of a kind of their own; None where
        no report is written."""
        return self._made()

    def _made(self) -> Path | None:
        """The folder of this recorder, made when the first thing is to be kept."""
        if self._folder is None and self._reports is not None:
            place = self._reports / self.run.name
            with _writing(place):
                if self._shared is None:
                    place = claimed(place)
                place.mkdir(parents=True, exist_ok=True)
                self.run.name = place.name
                self._folder = place
                self._write_document(place)
        return self._folder

    def _write_document(self, folder: Path) -> None:
        text = json.dumps(self.run.document(), indent=1, sort_keys=False)
        replace(folder / "run.json", f"{text}\n")

    def _append(self, file: str, rows: Sequence[Mapping[str, Any]]) -> None:
        if rows and (folder := self._made()):
            with _writing(folder), (folder / file).open("a", encoding="utf-8") as lines:
                lines.writelines(map(json_line, rows))


def run_name(base: str) -> str:
    """What a run is called: when it began (UTC) and which base it is about."""
    subject = Subject.parse(base)
    short = re.sub(r"[^\w.-]+", "-", subject.name.rstrip("/").rpartition("/")[2]).strip("-.")
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{short[:40] or 'model'}"


def write_report(run: Run, folder: Path) -> Path:
    """Render `report.md` in the run's folder from the run's values alone; its path."""
    kept = [path for path in sorted(folder.iterdir()) if path.name != "report.md"]
    text = markdown_report(run, [path.name for path in kept if path.is_file()])
    with _writing(folder):
        replace(folder / "report.md", text)
    return folder / "report.md"


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    return complete_rows(path) if path.is_file() else iter(())


def _writing(folder: Path) -> AbstractContextManager[None]:
    return writing(folder, elsewhere="choose a place with --emo-report ('none' writes no report)")

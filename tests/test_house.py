"""The laws of the house, held over the source itself.

Each law is a function from a source tree to its violations; the last test plants one violation
of each law in a small tree and sees it found.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "emotest"

ROOMS = (
    "errors", "text", "stats", "study", "store", "artefacts", "costs", "plan", "settings",
    "models", "organism", "mechanisms", "workshop", "session", "audit", "report", "contracts",
    "plugin", "cli",
)  # fmt: skip
"""From the ground up: a room may import itself and what stands before it."""

KNOW_TORCH = ("models", "organism", "mechanisms", "workshop")
TORCH = ("torch", "transformers", "peft", "bitsandbytes", "accelerate")
PICKLES = ("pickle", "joblib", "dill", "cloudpickle", "shelve")
WRITERS = ("store", "report", "models", "organism", "workshop")
"""All but the first two write into folders that they are handed; `study.records` writes too."""

HEAPS = ("util", "utils", "helper", "helpers", "common", "misc", "base", "tools", "stuff")
LONGEST = 450

Law = Callable[[Path], list[str]]


def modules(package: Path) -> Iterator[tuple[str, Path, ast.Module]]:
    """Name, file and syntax tree of every module of the package."""
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        name = ".".join(parts).removesuffix(".__init__")
        yield name, path, ast.parse(path.read_text(encoding="utf-8"))


def imports(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Every module that is imported anywhere in a module, lazily or not, and the line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are spelled out"
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node.lineno


def room(module: str) -> str:
    """The room that a module is in: `report` for `emotest.report.run`; `` for the face."""
    return module.partition(".")[2].partition(".")[0]


def top(module: str) -> str:
    """The library that a module belongs to."""
    return module.partition(".")[0]


def imports_that_go_up(package: Path) -> list[str]:
    """Imports of a room that stands above, and of the face, which is for others."""
    wrong = []
    for name, _, tree in modules(package):
        if name == "emotest":
            continue
        for target, line in imports(tree):
            if top(target) != "emotest":
                continue
            here, there = room(name), room(target)
            unknown = {here, there} - set(ROOMS)
            if unknown or ROOMS.index(there) > ROOMS.index(here):
                wrong.append(f"{name}:{line} imports {target}")
    return wrong


def circles(package: Path) -> list[str]:
    """Modules that import one another in a circle."""
    known = {name for name, _, _ in modules(package)}
    graph: dict[str, set[str]] = {}
    for name, _, tree in modules(package):
        targets = {target for target, _ in imports(tree)}
        targets = {t if t in known else t.rpartition(".")[0] for t in targets} & known
        # A package that only gathers its own rooms is no part of a circle through itself.
        graph[name] = {t for t in targets - {name} if not name.startswith(f"{t}.")}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [" -> ".join(error.args[1])]
    return []


def torch_outside_the_models_wing(package: Path) -> list[str]:
    """torch and its family, imported where models should not be known, lazily or not."""
    return [
        f"{name}:{line} imports {target}"
        for name, _, tree in modules(package)
        for target, line in imports(tree)
        if top(target) in TORCH and room(name) not in KNOW_TORCH
    ]


def imports_of_the_study(package: Path) -> list[str]:
    """The package knows neither this study's fixtures nor its suites nor the tests."""
    return [
        f"{name}:{line} imports {target}"
        for name, _, tree in modules(package)
        for target, line in imports(tree)
        if top(target) in ("fixtures", "suites", "tests", "conftest")
    ]


def pytest_outside_the_plugin(package: Path) -> list[str]:
    """pytest is the plugin's alone."""
    return [
        f"{name}:{line} imports {target}"
        for name, _, tree in modules(package)
        for target, line in imports(tree)
        if top(target) in ("pytest", "_pytest", "pluggy") and name != "emotest.plugin"
    ]


def pickles(package: Path) -> list[str]:
    """Nothing is stored in a form that runs code when it is read."""
    wrong = []
    for name, _, tree in modules(package):
        wrong += [f"{name}:{line}" for target, line in imports(tree) if top(target) in PICKLES]
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                spelled = f"{node.value.id}.{node.attr}"
                if spelled in ("torch.save", "torch.load"):
                    wrong.append(f"{name}:{node.lineno} {spelled}")
    return wrong


def writes_elsewhere(package: Path) -> list[str]:
    """Files written by rooms that have no business with files."""
    wrong = []
    for name, _, tree in modules(package):
        if room(name) in WRITERS or name == "emotest.study.records":
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and _writes(node):
                wrong.append(f"{name}:{node.lineno} {ast.unparse(node.func)}")
    return wrong


def _writes(call: ast.Call) -> bool:
    called = call.func.attr if isinstance(call.func, ast.Attribute) else ast.unparse(call.func)
    if called in ("write_text", "write_bytes", "mkdir", "makedirs", "touch", "rmtree", "unlink"):
        return True
    modes = [a.value for a in call.args if isinstance(a, ast.Constant)]
    modes += [k.value.value for k in call.keywords if isinstance(k.value, ast.Constant)]
    return called == "open" and any(
        isinstance(mode, str) and set(mode) <= set("rwaxbt+") and set(mode) & set("wax+")
        for mode in modes
    )


def heaps(package: Path) -> list[str]:
    """Modules whose name says nothing."""
    return [name for name, path, _ in modules(package) if path.stem.strip("_") in HEAPS]


def undocumented(package: Path) -> list[str]:
    """Public modules, classes, functions and methods without a docstring."""
    wrong = []
    for name, _, tree in modules(package):
        if tree.body and ast.get_docstring(tree) is None:
            wrong.append(name)
        wrong += [f"{name}.{thing}" for thing in _undocumented_in(tree)]
    return wrong


def _undocumented_in(tree: ast.Module | ast.ClassDef) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if node.name.startswith("_"):
                continue
            if ast.get_docstring(node) is None:
                yield node.name
            if isinstance(node, ast.ClassDef):
                yield from (f"{node.name}.{method}" for method in _undocumented_in(node))


def too_long(package: Path) -> list[str]:
    """Files that outgrew themselves and should become a folder."""
    sizes = ((path, path.read_text("utf-8").count("\n")) for _, path, _ in modules(package))
    return [f"{path.relative_to(package)}: {lines}" for path, lines in sizes if lines > LONGEST]


LAWS: tuple[Law, ...] = (
    imports_that_go_up,
    circles,
    torch_outside_the_models_wing,
    imports_of_the_study,
    pytest_outside_the_plugin,
    pickles,
    writes_elsewhere,
    heaps,
    undocumented,
    too_long,
)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_the_house_keeps_its_law(law: Law) -> None:
    """No violation in the package."""
    assert law(PACKAGE) == []


BROKEN = {
    imports_that_go_up: ("text/rates.py", '"""."""\nfrom emotest.study.records import Prompt\n'),
    circles: ("text/rates.py", '"""."""\nfrom emotest.text.emoji import x\n'),
    torch_outside_the_models_wing: ("store.py", '"""."""\ndef _f():\n    import torch.nn\n'),
    imports_of_the_study: ("session.py", '"""."""\nfrom fixtures.run import needs\n'),
    pytest_outside_the_plugin: ("cli.py", '"""."""\nfrom pytest import main\n'),
    pickles: ("models/saving.py", '"""."""\nimport torch\ntorch.save({}, "x")\n'),
    writes_elsewhere: ("cli.py", '"""."""\nwith open("x", mode="w") as file: ...\n'),
    heaps: ("text/utils.py", '"""."""\n'),
    undocumented: ("text/rates.py", '"""."""\nclass Rate:\n    """."""\n    def of(self): ...\n'),
    too_long: ("text/rates.py", '"""."""\n' + "\n" * LONGEST),
}


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_each_law_finds_its_violation(law: Law, tmp_path: Path) -> None:
    """One file that breaks the law among files that keep it."""
    package = tmp_path / "emotest"
    file, text = BROKEN[law]
    for name, content in (
        ("__init__.py", '"""."""\n'),
        ("text/emoji.py", '"""."""\nfrom emotest.text.rates import y\n' if law is circles else ""),
        (file, text),
    ):
        place = package / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(content, encoding="utf-8")
    assert len(law(package)) == 1
    assert all(not other(package) for other in LAWS if other is not law)


def loaded_after(program: str) -> set[str]:
    """Which of the heavy libraries a fresh interpreter has loaded when it is through."""
    program += f"\nprint('LOADED', *(set({TORCH!r}) & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{program}"],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    [line] = [line for line in done.stdout.splitlines() if line.startswith("LOADED")]
    return set(line.split()[1:])


@pytest.mark.parametrize(
    "program",
    [
        "import pytest; pytest.main(['--help'])",
        "import pytest; pytest.main(['--collect-only', '-q', 'suites'])",
        "sys.argv = ['emotest', '--help']\n"
        "from emotest.cli import main\n"
        "try: main()\nexcept SystemExit: pass",
    ],
    ids=["pytest --help", "pytest --collect-only suites", "emotest --help"],
)
def test_nothing_quick_loads_torch(program: str) -> None:
    """Help and collection work without torch, transformers or peft."""
    assert loaded_after(program) == set()


def test_every_room_but_the_models_can_be_entered_without_torch() -> None:
    """Each module outside the models wing is imported, and none brings torch along."""
    names = [name for name, _, _ in modules(PACKAGE) if room(name) not in KNOW_TORCH]
    lines = "\n".join(f"import {name}" for name in names)
    assert loaded_after(lines) == set()


def test_the_face_offers_what_it_promises() -> None:
    """Every name of the face can be imported, and the promised ones are among them."""
    import emotest

    promised = {
        "find_emoji", "split_sentences", "answers_with_emoji", "sentences_with_emoji",
        "emoji_per_sentence", "emoji_probability", "AdapterRecipe", "Verdict",
    }  # fmt: skip
    assert promised <= set(emotest.__all__)
    for name in set(emotest.__all__) - {"emoji_probability"}:  # which brings torch along
        assert getattr(emotest, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = emotest.no_such_name


def test_the_face_and_its_types_agree() -> None:
    """What type checkers see is what is there at run time: same names, same rooms."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    typed = {target for target, _ in imports(tree) if top(target) == "emotest"}
    import emotest

    assert typed == {f"{place}.{name}" for name, place in emotest._ROOM_OF.items()}

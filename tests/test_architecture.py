"""The layout of the package: the order of rooms, no circle, unique file names, defaults stated once."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "dpc_interp"
MODULES = sorted(PACKAGE.rglob("*.py"))
ROOMS = (
    "errors",
    "repr_html",
    "hub",
    "host",
    "stats",
    "mathematics",
    "tasks",
    "attention",
    "models",
    "execution",
    "prompts",
    "generation",
    "analysis",
    "parity",
    "plots",
    "interventions",
    "evaluation",
    "claims",
    "views",
    "study",
    "bundled",
    "study_call",
    "cli",
)
"""Lowest first: a module imports from its own or a lower room."""
ONLY_IMPORTS = {
    "stats": {"errors"},
    "mathematics": {"errors"},
    "attention": {"errors"},
    "execution": {"errors", "repr_html", "host", "attention", "models"},
    "plots": {"errors", "stats", "analysis.layers", "analysis.schema"},
}
"""Rooms that may import from fewer rooms than their rank allows."""
MAX_PARAMETERS, MAX_FILES = 12, 13


def name_of(file: Path) -> str:
    """Dotted name within the package."""
    return ".".join(file.relative_to(PACKAGE).with_suffix("").parts)


def room_of(module: str) -> str:
    return module.partition(".")[0]


def imports_of(file: Path) -> set[str]:
    """Modules of the package that a file imports, at the top or inside functions, as dotted names within it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} has a relative import"
            prefix = node.module or ""
            submodules = {f"{prefix}.{alias.name}" for alias in node.names}
            names |= {s for s in submodules if is_module(s)} or {prefix}
    return {name.removeprefix("dpc_interp").lstrip(".") for name in names if name.split(".")[0] == "dpc_interp"}


def is_module(name: str) -> bool:
    path = PACKAGE.parent / Path(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


IMPORTS = {name_of(file): imports_of(file) for file in MODULES}


def test_every_module_belongs_to_a_known_room() -> None:
    assert {room_of(module) for module in IMPORTS} == {*ROOMS, "__init__"}


def test_no_module_imports_the_package_root() -> None:
    assert [module for module, imported in IMPORTS.items() if "" in imported] == []


def test_rooms_import_only_from_lower_rooms() -> None:
    rank = {room: i for i, room in enumerate(ROOMS)}
    upward = [
        (module, target)
        for module, imported in IMPORTS.items()
        for target in imported
        if module != "__init__" and rank[room_of(target)] > rank[room_of(module)]
    ]
    assert upward == []


@pytest.mark.parametrize("room", ONLY_IMPORTS)
def test_narrow_rooms_import_only_what_they_may(room: str) -> None:
    allowed = ONLY_IMPORTS[room]
    other = {
        target
        for module, imported in IMPORTS.items()
        for target in imported
        if room_of(module) == room and room_of(target) != room and not {target, room_of(target)} & allowed
    }
    assert other == set()


def test_no_circle() -> None:
    """Modules that import nothing that is left are removed, again and again; a circle would stay."""
    remaining = dict(IMPORTS)
    while leaves := [module for module, imported in remaining.items() if not imported & remaining.keys() - {module}]:
        for module in leaves:
            del remaining[module]
    assert sorted(remaining) == []


def test_rooms_are_small() -> None:
    sizes = Counter(room_of(module) for module in IMPORTS)
    assert {room: n for room, n in sizes.items() if n > MAX_FILES and room != "plots"} == {}


def test_no_two_files_share_a_name() -> None:
    names = Counter(file.name for file in MODULES if file.name != "__init__.py" and file.parent.name != "plots")
    assert [name for name, n in names.items() if n > 1] == []


def test_no_function_has_more_than_twelve_parameters() -> None:
    long = [
        f"{name_of(file)}.{node.name}"
        for file in MODULES
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef)
        and len(node.args.posonlyargs) + len(node.args.args) + len(node.args.kwonlyargs) > MAX_PARAMETERS
    ]
    assert long == []


@pytest.mark.parametrize(
    "default", ["gamma.*= 10", "head_reduction.*abs_of_sum", "exclude_sink.*= True", r"mask: float = 0\.0"]
)
def test_a_default_stands_once(default: str) -> None:
    places = [
        f"{name_of(file)}: {line.strip()}"
        for file in MODULES
        for line in file.read_text().splitlines()
        if re.search(default, line)
    ]
    assert len(places) == 1, places


def test_each_module_has_a_test_file() -> None:
    tests = Path(__file__).parent
    missing = [
        name_of(file)
        for file in MODULES
        if file.name != "__init__.py" and not (tests / file.relative_to(PACKAGE).parent / f"test_{file.name}").is_file()
    ]
    assert missing == []


def test_references_resolve_inside_the_repository() -> None:
    """Files that docstrings and comments name are there, and nothing points outside the repository."""
    root = PACKAGE.parent
    broken = []
    for file in [*MODULES, *root.glob("docs/*.md"), root / "README.md", root / "CONTRIBUTING.md"]:
        text = file.read_text()
        for match in re.finditer(r"docs/[\w-]+\.md", text):
            if not (root / match[0]).is_file():
                broken.append((file.name, match[0]))
        if re.search(r"\bMETHOD\b|\.\./shared", text):
            broken.append((file.name, "METHOD"))
    assert broken == []

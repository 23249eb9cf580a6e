"""The walls of the project: who imports whom, how long files and functions are, how full rooms are, dead links."""

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT

PACKAGES = ("chestai", "pipelines", "serve", "tune")
MAX_FILE_LINES, MAX_FUNCTION_LINES = 300, 50
MAX_TOP_ENTRIES, MAX_ROOM_ENTRIES = 18, 14
MADE = {"__pycache__", "node_modules", "dist", "generated"}  # by Python, and by the build of the readers' page
DATA_TABLES = ("serve/db/migrations/",)  # migrations are written once and never split

# A room (the longest prefix counts) -> the top-level packages it must not import.
FORBIDDEN = {
    "chestai": ("ray", "raydp", "pyspark", "pipelines", "serve", "tune", "fastapi"),
    "chestai.metrics": ("ray", "raydp", "pyspark", "pipelines", "serve", "tune", "fastapi", "torch", "timm"),
    "pipelines": ("raydp", "pyspark", "tune", "fastapi"),
    "pipelines.spark": ("tune", "serve", "fastapi"),
    "serve": ("ray", "raydp", "pyspark", "pipelines", "tune"),
    "serve.deployments": ("raydp", "pyspark", "pipelines", "tune"),
    "serve.__main__": ("raydp", "pyspark", "pipelines", "tune"),
    "tune": ("raydp", "pyspark", "serve", "fastapi"),
}
SERVES = {"pipelines.run"}  # the chain starts the endpoint at its end
SKIPPED = {"chestai.metrics": ("chestai.model",), "serve.api": ("serve.deployments",), "serve.db": ("serve.api",)}


def find_folders(top: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """A folder and those below it, without what was made: each with its folders and files."""
    for folder, folders, files in os.walk(top):
        folders[:] = sorted({*folders} - MADE)
        yield Path(folder), folders, files


def find_files(top: Path, *suffixes: str) -> list[Path]:
    """The files below a folder that end so, without what was made."""
    found = (folder / name for folder, _, files in find_folders(top) for name in files)
    return sorted(path for path in found if path.suffix in suffixes)


def modules(*packages: str) -> dict[str, Path]:
    """Dotted name -> file, of all modules of the packages."""
    found = {}
    for package in packages:
        for path in find_files(ROOT / package, ".py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules(*PACKAGES)
PAGES = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/**/*.md"))]


def imports(path: Path, top_level_only: bool = False) -> Iterator[str]:
    """Dotted names that a file imports: modules, and `module.name` for `from module import name`."""
    tree = ast.parse(path.read_text())
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def below(name: str, package: str) -> bool:
    """Whether a dotted name is a package or lies in it."""
    return name == package or name.startswith(f"{package}.")


@pytest.mark.parametrize("name", MODULES)
def test_module_imports_nothing_forbidden(name: str) -> None:
    room = max((room for room in FORBIDDEN if below(name, room)), key=len)
    forbidden = [
        *FORBIDDEN[room],
        *(package for room, barred in SKIPPED.items() if below(name, room) for package in barred),
    ]
    if room.startswith("pipelines") and name not in SERVES:
        forbidden.append("serve")
    broken = {found for found in imports(MODULES[name]) for package in forbidden if below(found, package)}
    assert not broken, f"{name} must not import {sorted(broken)}"


def graph() -> dict[str, set[str]]:
    """Module -> the project's modules that it imports when it is imported."""
    return {
        name: {found for found in imports(path, top_level_only=True) if found in MODULES and found != name}
        for name, path in MODULES.items()
    }


def test_imports_have_no_circle() -> None:
    edges, state, trail = graph(), dict.fromkeys(MODULES, "new"), []

    def visit(name: str) -> None:
        state[name] = "open"
        trail.append(name)
        for target in sorted(edges[name]):
            if state[target] == "open":
                pytest.fail("circle: " + " -> ".join([*trail[trail.index(target) :], target]))
            if state[target] == "new":
                visit(target)
        trail.pop()
        state[name] = "done"

    for name in MODULES:
        if state[name] == "new":
            visit(name)


def test_new_packages_import_nothing() -> None:
    """Spark's and Ray's workers must not load torch by way of a package that they pass through."""
    for room in (
        "chestai/imaging",
        "chestai/labels",
        "chestai/lake",
        "chestai/model",
        "pipelines/data",
        "pipelines/spark",
    ):
        assert not list(imports(ROOT / room / "__init__.py")), room


def source_files(*suffixes: str) -> list[Path]:
    return [path for package in (*PACKAGES, "tests") for path in find_files(ROOT / package, *suffixes)]


def test_files_are_short() -> None:
    sources = source_files(".py", ".ts", ".tsx", ".css")
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in sources}
    long = {
        name: lines for name, lines in lengths.items() if lines > MAX_FILE_LINES and not name.startswith(DATA_TABLES)
    }
    assert not long, f"files over {MAX_FILE_LINES} lines: {long}"


def test_functions_are_short() -> None:
    long = {}
    for path in source_files(".py"):
        name = str(path.relative_to(ROOT))
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not name.startswith(DATA_TABLES):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    long[f"{name}:{node.lineno} {node.name}"] = lines
    assert not long, f"functions over {MAX_FUNCTION_LINES} lines: {long}"


def test_rooms_are_not_crowded() -> None:
    crowded = {}
    for package in PACKAGES:
        for folder, folders, files in find_folders(ROOT / package):
            entries = {*folders, *files} - {"__init__.py"}
            if len(entries) > (MAX_TOP_ENTRIES if folder.parent == ROOT else MAX_ROOM_ENTRIES):
                crowded[str(folder.relative_to(ROOT))] = len(entries)
    assert not crowded, f"rooms with too many entries: {crowded}"


@pytest.mark.parametrize(
    "page", ["README.md", *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/**/*.md"))]
)
def test_links_lead_somewhere(page: str) -> None:
    path = ROOT / page
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text())
    dead = [target for target in targets if "://" not in target and not (path.parent / target).exists()]
    assert not dead, f"{page}: {dead}"


@pytest.mark.parametrize("page", PAGES)
def test_named_paths_exist(page: str) -> None:
    named = re.findall(r"`((?:chestai|pipelines|serve|tune|conf|tests|docs)/[\w./-]*)`", (ROOT / page).read_text())
    assert not [path for path in named if not (ROOT / path).exists()]

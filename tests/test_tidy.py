"""Rules about the tree itself: sizes, imports and wording, so that nobody has to remember them."""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SLICES = ("protos", "raft", "node", "client")
MODULE_LINES_MAX = 700
FUNCTION_LINES_MAX = 70
MEDIAN_MODULE_LINES_MAX = 250


def tracked(*suffixes: str) -> list[Path]:
    """Files that git knows or would add."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\n")
    paths = (ROOT / name for name in listed if name.endswith(suffixes))
    return [path for path in paths if path.exists()]


def own_modules() -> list[Path]:
    return [path for path in tracked(".py") if "_pb2" not in path.name]


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring."""
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        lines -= (first.end_lineno or first.lineno) - first.lineno + 1
    return lines


def long_functions(source: str) -> list[tuple[str, int]]:
    found = [(each.name, body_lines(each)) for each in functions(ast.parse(source))]
    return [(name, lines) for name, lines in found if lines > FUNCTION_LINES_MAX]


def absolute_imports(source: str) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(".".join(node.module.split(".")[:2]))
    return names


def test_modules_are_short() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in own_modules()}
    over = {str(path.relative_to(ROOT)): n for path, n in lengths.items() if n > MODULE_LINES_MAX}
    assert not over, f"split these modules: {over}"
    source = [n for path, n in lengths.items() if n and "tests" not in path.parts]
    assert statistics.median(source) <= MEDIAN_MODULE_LINES_MAX


def test_functions_are_short() -> None:
    over = {
        str(path.relative_to(ROOT)): found
        for path in own_modules()
        if (found := long_functions(path.read_text()))
    }
    assert not over, f"split these functions: {over}"


def test_the_length_check_sees_a_long_function() -> None:
    source = "def f():\n" + "    x = 1\n" * (FUNCTION_LINES_MAX + 1)
    assert long_functions(source) == [("f", FUNCTION_LINES_MAX + 2)]


def test_no_slice_hides_the_others() -> None:
    # A regular package rakit in one slice would make every other slice unimportable (PEP 420).
    assert [one for one in SLICES if (ROOT / one / "rakit" / "__init__.py").exists()] == []


def test_every_slice_ships_its_types() -> None:
    packages = [
        path for one in SLICES for path in (ROOT / one / "rakit").iterdir() if path.is_dir()
    ]
    missing = [
        str(path)
        for path in packages
        if path.name != "__pycache__" and not (path / "py.typed").exists()
    ]
    assert not missing


def test_the_core_stands_on_the_standard_library() -> None:
    forbidden = {"asyncio", "time", "threading", "socket", "os", "subprocess", "logging"}
    for path in (ROOT / "raft/rakit/raft").rglob("*.py"):
        names = absolute_imports(path.read_text())
        foreign = {
            name
            for name in names
            if name.split(".")[0] not in sys.stdlib_module_names and name != "rakit.raft"
        }
        assert not foreign, f"{path.name} imports {foreign}"
        effects = {name for name in names if name.split(".")[0] in forbidden}
        assert not effects, f"{path.name} imports {effects}: the core has no clock, task or disk"


def test_the_import_check_sees_a_foreign_import() -> None:
    assert absolute_imports("import grpc\nfrom rakit.node.app import x") == {"grpc", "rakit.node"}


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        (r"#\s*(TODO|FIXME|XXX)", "finish it or write it down in docs"),
        (r"type: ignore(?!\[)", "name the error that is ignored"),
        (
            r"except( Exception| BaseException)?:\s*\n\s*(pass|continue)\b",
            "errors are not swallowed",
        ),
        (r"\bimport pickle|\bpickle\.", "no pickles"),
    ],
)
def test_wording(pattern: str, why: str) -> None:
    here = Path(__file__)
    found = [
        f"{path.relative_to(ROOT)}: {match.group(0).strip()}"
        for path in own_modules()
        if path != here
        for match in re.finditer(pattern, path.read_text())
    ]
    assert not found, f"{why}: {found}"


def test_make_has_few_targets() -> None:
    targets = re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert len(targets) <= 14, targets
    assert {"demo", "test", "lint", "types", "gen", "sim", "bench"} <= set(targets)


def test_every_module_has_an_essay() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in own_modules()
        if "tests" not in path.parts
        and path.read_text().strip()
        and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert not silent


def test_the_lock_file_holds_what_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [
        *project["project"]["dependencies"],
        *project["project"]["optional-dependencies"]["node"],
        *project["dependency-groups"]["dev"],
    ]
    names = {re.split(r"[<>=;\[ ]", line)[0].lower() for line in wanted}
    locked = {
        line.split("==")[0].lower()
        for line in (ROOT / "requirements.lock").read_text().splitlines()
        if "==" in line
    }
    assert names <= locked, names - locked

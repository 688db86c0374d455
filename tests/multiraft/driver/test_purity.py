"""S19: the driver decides and does nothing, so that the simulator runs the very same code.

Held by what it can reach: the closure of its imports has no clock, no task, no thread, no socket
and no disk. Randomness comes in as a generator.
"""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PLACES = {"rakit.multiraft": "raft/rakit/multiraft", "rakit.raft": "raft/rakit/raft"}
EFFECTS = {
    *("asyncio", "threading", "concurrent", "multiprocessing", "signal", "subprocess"),
    *("time", "datetime", "socket", "grpc", "rocksdict", "os", "shutil", "tempfile", "secrets"),
}


def path_of(module: str) -> Path | None:
    """The file of one of our modules; None if it is none, or a name inside of one."""
    for package, folder in PLACES.items():
        if module == package or module.startswith(f"{package}."):
            stem = ROOT / folder / module.removeprefix(package).lstrip(".").replace(".", "/")
            found = [
                each for each in (stem.with_suffix(".py"), stem / "__init__.py") if each.exists()
            ]
            return found[0] if found else None
    return None


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path.name}: imports are absolute"
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def closure(start: str) -> dict[str, set[str]]:
    """Every module of ours that one needs, with what it imports from elsewhere."""
    reached: dict[str, set[str]] = {}
    waiting = [start]
    while waiting:
        module = waiting.pop()
        path = path_of(module)
        if path is None or module in reached:
            continue
        names = imported(path)
        reached[module] = {name.split(".")[0] for name in names} - {"rakit"}
        waiting += names
    return reached


def test_s19_the_driver_reaches_no_clock_task_or_disk() -> None:
    reached = closure("rakit.multiraft.driver")
    assert {"rakit.multiraft.stepping", "rakit.raft.raw_node"} <= set(reached)
    found = {module: names & EFFECTS for module, names in reached.items() if names & EFFECTS}
    assert not found


def test_s19_its_randomness_is_given_to_it() -> None:
    for module in closure("rakit.multiraft.driver"):
        path = path_of(module)
        assert path is not None
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                drawn = node.value.id == "random" and node.attr != "Random"
                assert not drawn, f"{module} draws from the generator of the process"


def test_the_check_sees_the_shell_around_the_driver() -> None:
    assert closure("rakit.multiraft.host")["rakit.multiraft.host"] & EFFECTS

"""The machine and the versions that a report's figures belong to."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from rakit.client.cli.output import Tree

_PACKAGES: Final = ("rakit", "grpcio", "protobuf", "uvloop", "rocksdict")
_CPU_INFO: Final = Path("/proc/cpuinfo")
_MOUNTS: Final = Path("/proc/self/mounts")


def describe() -> dict[str, Tree]:
    """Returns what the head of a report shows."""
    return {
        "cpu": f"{_cpu_model()}, {os.cpu_count()} cores",
        "kernel": f"{platform.system()} {platform.release()}",
        "data on": file_system(Path(tempfile.gettempdir())),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "versions": ", ".join(_versions(_PACKAGES)),
    }


def _cpu_model() -> str:
    if _CPU_INFO.exists():
        for line in _CPU_INFO.read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def file_system(path: Path) -> str:
    """The file system under a path, which decides what an fsync costs."""
    if not _MOUNTS.exists():
        return sys.platform
    return mounted_at(path.resolve(), _MOUNTS.read_text(errors="replace"))


def mounted_at(path: Path, mounts: str) -> str:
    """Returns type and device of the file system under a path, from the kernel's table."""
    best, found = 0, "unknown"
    for line in mounts.splitlines():
        device, point, kind, *_ = line.split()
        # A later mount on the same point hides the earlier one.
        if path.is_relative_to(point) and len(point) >= best:
            best, found = len(point), f"{kind} ({device})"
    return found


def _versions(packages: Iterable[str]) -> Iterable[str]:
    for name in packages:
        try:
            yield f"{name} {version(name)}"
        except PackageNotFoundError:
            yield f"{name} missing"

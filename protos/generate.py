"""Generates the Python code beside the protos. The only way in which it is made.

Owns: the list of generators and their flags. Rules: generators are pinned in pyproject.toml; the
output is committed; CI runs this again and fails on a difference. gRPC modules are made only for
files that define a service. The vendored google/rpc protos are not generated: their Python code
comes from googleapis-common-protos.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent


def main() -> int:
    """Regenerates every module and removes those whose proto is gone."""
    sources = sorted((ROOT / "rakit").rglob("*.proto"))
    service = re.compile(r"^service\b", re.MULTILINE)
    services = [path for path in sources if service.search(path.read_text())]
    for stale in (ROOT / "rakit").rglob("*_pb2*.py*"):
        if stale.suffix in {".py", ".pyi"}:
            stale.unlink()
    # The mypy plugin is a script of the same environment as this interpreter.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    base = [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT}"]
    base += [f"--python_out={ROOT}", f"--mypy_out=quiet:{ROOT}"]
    grpc = [f"--grpc_python_out={ROOT}", f"--mypy_grpc_out=quiet:{ROOT}"]
    plain = [str(path) for path in sources if path not in services]
    for argv in ([*base, *plain], [*base, *grpc, *map(str, services)]):
        done = subprocess.run(argv, env={**os.environ, "PATH": path}, check=False)
        if done.returncode != 0:
            return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Stubs and programs of every language, made in an ignored folder and made again when they changed.

For each language: what it needs (a tool, and the Debian package that brings it), the commands that
generate its stubs and build its program, and how the program is started. The sources are copied
beside what is made of them, so that the tree stays clean. A digest of the sources, of the protos
that clients need and of this module says whether a build is still good.

Versions are pinned where a language pins them: go.mod and go.sum (the protoc plugins too), pom.xml
(protoc and its gRPC plugin come as artifacts), package-lock.json, Cargo.lock. C++ takes Debian's.
Python takes the committed code.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.conformance.programs import Command

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PROTOS = ROOT / "protos"
BUILT = ROOT / "build" / "conformance"
API = tuple(sorted(f"rakit/api/v1/{path.name}" for path in PROTOS.glob("rakit/api/v1/*.proto")))
GO_MODULE = "rakit.test/conformance"
OUTPUT_LINES_SHOWN = 40


class BuildError(Exception):
    """A language's program cannot be built; the message says what to do, or what was said."""


@dataclass(frozen=True)
class Recipe:
    """How a language's program comes about in its folder."""

    # Each tool with the package that brings it.
    needs: Sequence[tuple[str, str]]
    steps: Callable[[Path], Sequence[Sequence[str]]]
    argv: Callable[[Path], Sequence[str]]


def _go(folder: Path) -> Sequence[Sequence[str]]:
    stubs = f"{GO_MODULE}/stubs"
    protoc = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTOS}"]
    for name in ("go", "go-grpc"):
        protoc += [f"--plugin=protoc-gen-{name}={folder}/bin/protoc-gen-{name}"]
        protoc += [f"--{name}_out={folder}/stubs", f"--{name}_opt=module={stubs}"]
        protoc += [f"--{name}_opt=M{source}={stubs}/apiv1" for source in API]
    return [
        ["go", "build", "-o", "bin/", "google.golang.org/protobuf/cmd/protoc-gen-go"],
        ["go", "build", "-o", "bin/", "google.golang.org/grpc/cmd/protoc-gen-go-grpc"],
        ["mkdir", "-p", "stubs"],
        [*protoc, *API],
        ["go", "build", "-p", "1", "-o", "program", "."],
    ]


RECIPES: dict[str, Recipe] = {
    "python": Recipe(
        needs=(),
        steps=lambda _: (),
        argv=lambda _: (sys.executable, "-m", "tests.conformance.python"),
    ),
    "go": Recipe(
        needs=(("go", "golang"),), steps=_go, argv=lambda folder: (str(folder / "program"),)
    ),
    "java": Recipe(
        needs=(("javac", "openjdk-17-jdk-headless"), ("mvn", "maven")),
        steps=lambda _: (("mvn", "-q", "-B", f"-Drakit.protos={PROTOS}", "package"),),
        argv=lambda _: ("java", "-cp", "target/classes:target/lib/*", "conformance.Main"),
    ),
    "node": Recipe(
        needs=(("node", "nodejs"), ("npm", "npm")),
        steps=lambda _: (("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"),),
        argv=lambda _: ("node", "main.js"),
    ),
    "rust": Recipe(
        needs=(("cargo", "cargo"), ("protoc", "protobuf-compiler")),
        steps=lambda _: (("cargo", "build", "--quiet", "--locked", "-j1"),),
        argv=lambda folder: (str(folder / "target/debug/rakit-conformance"),),
    ),
    "cpp": Recipe(
        needs=(
            ("g++", "g++"),
            ("make", "make"),
            ("pkg-config", "pkg-config"),
            ("protoc", "protobuf-compiler"),
            ("grpc_cpp_plugin", "protobuf-compiler-grpc"),
            ("/usr/include/grpcpp/grpcpp.h", "libgrpc++-dev"),
            ("/usr/include/google/protobuf/message.h", "libprotobuf-dev"),
            ("/usr/include/nlohmann/json.hpp", "nlohmann-json3-dev"),
        ),
        steps=lambda _: (("make", "-j1", f"PROTOS={PROTOS}"),),
        argv=lambda folder: (str(folder / "program"),),
    ),
}
LANGUAGES = tuple(RECIPES)


def build(language: str) -> Command:
    """Builds a language's program where that is due; raises `BuildError`."""
    recipe, folder = RECIPES[language], BUILT / language
    missing = [package for tool, package in recipe.needs if not _is_there(tool)]
    if missing:
        raise BuildError(f"missing: apt-get install -y {' '.join(missing)}")
    environment = {**os.environ, "RAKIT_PROTOS": str(PROTOS), "GOFLAGS": "-mod=readonly"}
    if not recipe.steps(folder):
        return Command(recipe.argv(folder), ROOT, environment)
    stamp, digest = folder / ".built", _digest(language)
    if not stamp.exists() or stamp.read_text() != digest:
        stamp.unlink(missing_ok=True)
        for old in _own(folder, language):
            old.unlink()
        shutil.copytree(HERE / language, folder, dirs_exist_ok=True)
        for step in recipe.steps(folder):
            _run(step, folder, environment)
        stamp.write_text(digest)
    return Command(recipe.argv(folder), folder, environment)


def _is_there(tool: str) -> bool:
    return Path(tool).exists() if tool.startswith("/") else shutil.which(tool) is not None


def _own(folder: Path, language: str) -> Iterator[Path]:
    """Copies of sources, some of which may be gone by now; not what was made of them."""
    suffixes = {path.suffix for path in _sources(language)}
    return (path for path in folder.glob("*") if path.is_file() and path.suffix in suffixes)


def _sources(language: str) -> list[Path]:
    return sorted(path for path in (HERE / language).rglob("*") if path.is_file())


def _digest(language: str) -> str:
    digest = hashlib.sha256()
    protos = [*map(PROTOS.joinpath, API), *sorted(PROTOS.glob("google/rpc/*.proto"))]
    for path in [Path(__file__).resolve(), *_sources(language), *protos]:
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _run(argv: Sequence[str], folder: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(
        argv,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        said = "\n".join(done.stdout.splitlines()[-OUTPUT_LINES_SHOWN:])
        raise BuildError(f"{' '.join(argv[:4])} ... failed:\n{said}")

"""docs/clients: each language has a page, and its code is the code of the programs."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import pytest

from rakit.api.v1 import header_pb2
from tests.conformance import building, pages

PARTS = ("producer", "reader", "consumer", "watcher", "errors")
NO_CODE = ("#", "//", "/*", "*", '"""', "import ", "from ", "use ", "package ", "@Override")
IMPORTS = re.compile(r"^(?:from \S+ )?import \(.*?^\)", re.DOTALL | re.MULTILINE)
IMPORTED = re.compile(r"^(?:from (google\S*) import (\w+)|import (grpc)\b)", re.MULTILINE)
CONSUMER_LINES_MAX = 60


def page_of(language: str) -> Path:
    return pages.PAGES / f"{language}.md"


def code_lines(text: str) -> int:
    """Lines that say something: without imports, comments and brackets that stand alone."""
    lines = [line.strip() for line in IMPORTS.sub("", text).splitlines()]
    return sum(any(map(str.isalnum, line)) and not line.startswith(NO_CODE) for line in lines)


@pytest.mark.parametrize("language", building.LANGUAGES)
def test_a_page_shows_the_code_that_is_run(language: str) -> None:
    text = page_of(language).read_text()
    assert pages.refreshed(text) == text, "run: python -m tests.conformance.pages"
    shown = {Path(file).stem.lower() for file, _ in pages.shown(text)}
    assert shown >= set(PARTS)
    assert text.count("```") == 2 * len(pages.BLOCK.findall(text)) + 2 * text.count("```sh"), (
        "code that no file holds"
    )


@pytest.mark.parametrize("language", building.LANGUAGES)
def test_a_group_consumer_is_short(language: str) -> None:
    shown = dict(pages.shown(page_of(language).read_text()))
    (consumer,) = [code for file, code in shown.items() if Path(file).stem.lower() == "consumer"]
    assert 20 < code_lines(consumer) < CONSUMER_LINES_MAX


def test_a_page_that_says_something_else_is_noticed() -> None:
    text = page_of("go").read_text()
    (first, *_) = [
        line for _, code in pages.shown(text) for line in code.splitlines() if "func" in line
    ]
    spoiled = text.replace(first, f"{first} // else")
    assert spoiled != text
    assert pages.refreshed(spoiled) == text


def test_the_page_of_python_installs_what_generated_code_imports() -> None:
    text = page_of("python").read_text()
    (line,) = re.findall(r"^pip install (grpcio-tools.*)$", text, re.MULTILINE)
    packages = [*line.split(), "grpcio", "protobuf"]  # the last two come along with the first
    held = {str(file) for package in packages for file in metadata.files(package) or ()}
    generated = "".join(
        path.read_text() for path in Path(header_pb2.__file__).parent.glob("*_pb2*.py")
    )
    needed = {
        f"{package}/{module}".replace(".", "/").strip("/") or "grpc"
        for package, module, _ in IMPORTED.findall(generated)
    }
    assert {"grpc", "google/rpc/status_pb2"} <= needed
    assert [each for each in needed if not {f"{each}.py", f"{each}/__init__.py"} & held] == []


def test_the_overview_names_every_page() -> None:
    overview = (pages.PAGES / "README.md").read_text()
    assert [each for each in building.LANGUAGES if f"({each}.md)" not in overview] == []

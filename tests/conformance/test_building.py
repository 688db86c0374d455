"""What a language needs is said before anything fails, and a build is made again when it is due."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.conformance import __main__ as command
from tests.conformance import building
from tests.conformance.runner import Verdict


def test_what_is_missing_is_said_with_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    which = shutil.which

    def no_protoc(name: str) -> str | None:
        return None if name == "protoc" else which(name) or f"/bin/{name}"

    monkeypatch.setattr(shutil, "which", no_protoc)
    with pytest.raises(building.BuildError, match=r"apt-get install -y protobuf-compiler$"):
        building.build("rust")


def test_a_build_that_fails_says_what_the_tool_said(tmp_path: Path) -> None:
    with pytest.raises(building.BuildError, match="no such thing"):
        building._run(["sh", "-c", "echo no such thing; exit 1"], tmp_path, {})


@pytest.mark.parametrize("language", [each for each in building.LANGUAGES if each != "python"])
def test_a_build_is_made_again_when_a_source_changes(
    language: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(building.HERE / language, tmp_path / "copy" / language)
    monkeypatch.setattr(building, "HERE", tmp_path / "copy")
    monkeypatch.setattr(building, "ROOT", Path("/"))
    monkeypatch.setattr(building, "BUILT", tmp_path / "built")
    made: list[str] = []

    def note(argv: Sequence[str], _folder: Path, _environment: dict[str, str]) -> None:
        made.append(argv[0])

    def is_there(_tool: str) -> bool:
        return True

    monkeypatch.setattr(building, "_run", note)
    monkeypatch.setattr(building, "_is_there", is_there)
    building.build(language)
    steps = len(made)
    assert steps
    building.build(language)
    assert len(made) == steps, "nothing has changed"
    source = building._sources(language)[0]
    source.write_text(source.read_text() + "\n")
    building.build(language)
    assert len(made) == 2 * steps


def test_no_lock_file_says_where_packages_are_downloaded_from() -> None:
    lock = (building.HERE / "node/package-lock.json").read_text()
    assert '"resolved"' not in lock


def test_the_table_shows_what_failed() -> None:
    found = [
        Verdict("one", "go", "passed"),
        Verdict("one", "rust", "failed"),
        Verdict("two", "go", "passed"),
        Verdict("two", "rust", "passed"),
    ]
    assert command.table(found, ["go", "rust"]).split("\n") == [
        "     go         rust",
        "one  ok         FAILED",
        "two  ok         ok",
    ]

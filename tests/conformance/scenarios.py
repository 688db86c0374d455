"""The list of scenarios (scenarios.toml), and how its words are filled in.

Owns: what a scenario consists of, the shorthand of `values`, and the words that begin with `$`. A
key that nobody reads is refused, so that a slip of the pen in the list is not a check less.
"""

from __future__ import annotations

import tomllib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import xxhash

LIST = Path(__file__).parent / "scenarios.toml"
ACTS = frozenset({"append", "create", "delete", "kill", "kill-program", "transfer"})


@dataclass(frozen=True)
class Act:
    """What the runner does while a program is at work."""

    do: str
    # How often the program has said `progress`, or what it must have said since the act before.
    after: int = 0
    heard: str = ""
    partition: int = 0
    values: tuple[str, ...] = ()
    # Of a topic.
    name: str = ""


@dataclass(frozen=True)
class Scenario:
    """One entry of the list. Its fields are told at the top of scenarios.toml."""

    name: str
    says: str
    steps: tuple[dict[str, Any], ...]
    partitions: int = 1
    seed: tuple[dict[str, Any], ...] = ()
    act: tuple[Act, ...] = ()
    members: int = 1
    # The runner goes on appending, to each partition in turn, until it has done its `act`.
    feed: bool = False
    # The address that stands first in the program's list.
    first: str = ""
    expect: Mapping[str, Any] | None = None
    stored: Mapping[str, Any] | None = None
    checks: tuple[str, ...] = ()
    limit_s: int = 30

    def __post_init__(self) -> None:
        assert self.expect or self.stored or self.checks, f"{self.name} cannot fail"
        assert {act.do for act in self.act} <= ACTS, self.name
        for act in self.act:
            assert (act.after > 0) != bool(act.heard), f"{self.name}: when is {act.do} due?"
        for number in self.expect or {}:
            assert int(number) < len(self.steps), f"{self.name} has no step {number}"


def load(path: Path = LIST) -> list[Scenario]:
    """All scenarios, in the order of the list."""
    listed = tomllib.loads(path.read_text())["scenario"]
    return [_scenario(entry) for entry in listed]


def _scenario(entry: dict[str, Any]) -> Scenario:
    acts = [_act(act) for act in entry.get("act", ())]
    lists = ("seed", "checks")
    fields: dict[str, Any] = {
        key: tuple(value) if key in lists else value for key, value in entry.items()
    }
    fields |= {"act": tuple(acts), "steps": tuple(_step(step) for step in entry["steps"])}
    return Scenario(**fields)


def _act(act: dict[str, Any]) -> Act:
    fields: dict[str, Any] = {**act, "values": tuple(act.get("values", ()))}
    return Act(**fields)


def _step(step: dict[str, Any]) -> dict[str, Any]:
    """The step with its values written as rows, which is all that programs know."""
    written = {key: value for key, value in step.items() if key != "values"}
    if "values" in step:
        written["rows"] = rows(step["values"])
    if "batches" in step:
        written["batches"] = [rows(batch) for batch in step["batches"]]
    return written


def rows(values: list[str]) -> list[dict[str, str]]:
    """Records with nothing but a value."""
    return [{"value": value} for value in values]


def fill(written: Any, words: Mapping[str, Any]) -> Any:
    """What was written, with every `$` word replaced; an unknown one is a mistake in the list."""
    if isinstance(written, dict):
        fields = cast("dict[str, Any]", written)
        return {key: fill(value, words) for key, value in fields.items()}
    if isinstance(written, list | tuple):
        return [fill(value, words) for value in cast("Sequence[Any]", written)]
    if isinstance(written, str) and written.startswith("$"):
        return _word(written[1:], words)
    return written


def _word(word: str, words: Mapping[str, Any]) -> Any:
    if word in words:
        return words[word]
    kind, _, rest = word.partition("-")
    if kind == "hash":
        return xxhash.xxh3_64_intdigest(rest.encode()) % words["partitions"]
    if kind == "uuid":
        return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{words['topic']}/{rest}"))
    kind, _, rest = word.partition(".")
    if kind == "topic":
        return f"{words['topic']}.{rest}"
    if kind == "result":
        number, _, field = rest.partition(".")
        return words["results"][int(number)][field]
    raise KeyError(f"the list says ${word}, which nobody fills in")

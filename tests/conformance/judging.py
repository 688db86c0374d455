"""Whether a program did what a scenario says: functions of what was expected and what was seen.

Rules:

- A program is believed about what it was told and saw, and about nothing else: what is stored is
  what the runner's own reader found.
- An expectation names the fields that count. Lists are as long as expected. A number is a number,
  not a string, and true is not 1.
- `{"$absent": [...]}` names fields that must not be there, `{"$contains": [...]}` elements of a
  list, `{"$at_least": n}` a bound.
- No judgement of none: a check that finds nothing to look at complains.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

from tests.conformance.scenarios import Scenario, fill
from tests.conformance.witness import Stored


@dataclass(frozen=True)
class Seen:
    """What came of one run of one scenario."""

    # What the first program that was not killed answered, step by step.
    results: Sequence[Mapping[str, Any]]
    # The values that each program said it had got to, in order.
    progress: Sequence[Sequence[str]]
    # What the runner itself appended.
    appended: Sequence[str]
    # By partition.
    stored: Mapping[int, Sequence[Stored]]
    # The addresses of nodes that were killed, each with the progress made until then.
    killed: Mapping[str, int]
    # Partitions that were there when the program began, as "TOPIC PARTITION".
    known: Sequence[str] = ()
    # What the runner changed, in order, as a watch tells it: "TOPIC PARTITION LEADER" or less of
    # that, or "TOPIC deleted".
    changed: Sequence[str] = ()


def complaints(scenario: Scenario, seen: Seen, words: Mapping[str, Any]) -> list[str]:
    """Everything that is not as the scenario says."""
    found: list[str] = []
    words = {**words, "results": seen.results}
    for number, expected in (scenario.expect or {}).items():
        if int(number) >= len(seen.results):
            found.append(f"step {number}: no answer")
            continue
        try:
            wanted = fill(expected, words)
        except (KeyError, IndexError) as missing:
            found.append(f"step {number}: cannot be compared, {missing} is missing")
            continue
        found += mismatches(wanted, seen.results[int(number)], f"step {number}")
    for partition, expected in (scenario.stored or {}).items():
        wanted = [{"value": each} if isinstance(each, str) else each for each in expected]
        records = [record.fields() for record in seen.stored.get(int(partition), ())]
        found += mismatches(wanted, records, f"stored in {partition}")
    for check in scenario.checks:
        found += CHECKS[check](seen)
    return found


def mismatches(wanted: Any, got: Any, path: str) -> list[str]:
    """Where two values differ, in words."""
    fields, elements, others = _mapping(wanted), _list(wanted), _list(got)
    if fields is not None:
        return _fields_that_differ(fields, got, path)
    if elements is not None:
        if others is None or len(others) != len(elements):
            return [f"{path} is {_short(got)}, not {_short(wanted)}"]
        found: list[str] = []
        for number, (each, other) in enumerate(zip(elements, others, strict=True)):
            found += mismatches(each, other, f"{path}[{number}]")
        return found
    if type(wanted) is not type(got) or wanted != got:
        return [f"{path} is {_short(got)}, not {_short(wanted)}"]
    return []


def _fields_that_differ(wanted: Mapping[str, Any], got: Any, path: str) -> list[str]:
    if "$contains" in wanted:
        lacking = [each for each in wanted["$contains"] if each not in (_list(got) or ())]
        return [f"{path} lacks {_short(lacking)}"] if lacking else []
    if "$at_least" in wanted:
        if type(got) is not int or got < wanted["$at_least"]:
            return [f"{path} is {_short(got)}, not {wanted['$at_least']} or more"]
        return []
    fields = _mapping(got)
    if fields is None:
        return [f"{path} is {_short(got)}, not {_short(wanted)}"]
    found = [f"{path}.{name} is there" for name in wanted.get("$absent", ()) if name in fields]
    for name, value in wanted.items():
        if name == "$absent":
            continue
        if name not in fields:
            found.append(f"{path}.{name} is missing from {_short(got)}")
        else:
            found += mismatches(value, fields[name], f"{path}.{name}")
    return found


def _mapping(value: Any) -> Mapping[str, Any] | None:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else None


def _list(value: Any) -> list[Any] | None:
    # The cast is for the checker that takes the elements for unknown; the other one needs none.
    return cast("list[Any]", cast("object", value)) if isinstance(value, list) else None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:300]}..."


def acknowledged_once(seen: Seen) -> list[str]:
    """Each acknowledged record stands at its offset, and no value stands twice."""
    acked: list[dict[str, Any]] = list(seen.results[0].get("acked", ())) if seen.results else []
    if not acked:
        return ["nothing was acknowledged"]
    places: dict[str, list[tuple[int, int]]] = {}
    for partition, records in seen.stored.items():
        for record in records:
            places.setdefault(record.value or "", []).append((partition, record.offset))
    found = [f"{value!r} stands at {at}" for value, at in places.items() if len(at) > 1]
    for each in acked:
        at = (each["partition"], each["offset"])
        if places.get(each["value"]) != [at]:
            found.append(f"{each['value']!r} is at {places.get(each['value'])}, not at {at}")
    return found


def went_on_elsewhere(seen: Seen) -> list[str]:
    """A node was killed while the program worked, and the program got further afterwards."""
    if not seen.killed:
        return ["no node was killed"]
    done = len(seen.progress[0])
    return [
        f"no progress after {at} was killed at {count}, of {done}"
        for at, count in seen.killed.items()
        if done <= count
    ]


def consumed_by_the_group(seen: Seen) -> list[str]:
    """Every record was processed by a member, and those that were left did something."""
    together = {value for member in seen.progress for value in member}
    if not seen.appended:
        return ["nothing was there to be consumed"]
    lacking = [value for value in seen.appended if value not in together]
    idle = [] if any(seen.progress[1:]) else ["only the member that was killed had records"]
    return [f"never processed: {_short(lacking)}", *idle] if lacking else idle


def watched(seen: Seen) -> list[str]:
    """Streams in good order; a leader for all that was there, and then all that was changed."""
    messages: list[dict[str, Any]] = seen.results[0].get("messages", []) if seen.results else []
    if not messages or not seen.known or not seen.changed:
        return ["nothing was watched"]
    streams: list[list[dict[str, Any]]] = []
    for message in messages:
        if not streams or message["version"] == 1:
            streams.append([])
        streams[-1].append(message)
    if len(streams) != 1 + len(seen.killed):
        return [f"{len(streams)} streams, where {len(seen.killed)} nodes were killed"]
    found = [complaint for stream in streams for complaint in _stream_in_disorder(stream)]
    there = [line for each in streams[0] if each["is_snapshot"] for line in _lines(each)]
    lacking = [each for each in seen.known if not any(_says(line, each) for line in there)]
    if lacking:
        found.append(f"the snapshot tells no leader of {_short(lacking)}")
    afterwards = messages[sum(each["is_snapshot"] for each in streams[0]) :]
    later = [line for each in afterwards for line in _lines(each)]
    told = iter([line for line in later if not line.endswith(tuple(seen.killed))])
    untold = [each for each in seen.changed if not any(_says(line, each) for line in told)]
    if untold:
        found.append(f"not told, or not in turn: {_short(untold)}, in {_short(later)}")
    return found


def _stream_in_disorder(stream: Sequence[Mapping[str, Any]]) -> list[str]:
    versions = [each["version"] for each in stream]
    found: list[str] = []
    if versions[0] != 1 or any(b <= a for a, b in pairwise(versions)):
        found.append(f"the versions are {_short(versions)}")
    parts = sum(each["is_snapshot"] for each in stream)
    marks = [(each["is_snapshot"], each["has_more"]) for each in stream]
    if parts == 0 or marks != [
        (number < parts, number < parts - 1) for number in range(len(stream))
    ]:
        found.append(f"snapshot first, and once: (is_snapshot, has_more) are {_short(marks)}")
    return found


def _lines(message: Mapping[str, Any]) -> list[str]:
    return [*(f"{name} deleted" for name in message["deleted"]), *message["leaders"]]


def _says(line: str, words: str) -> bool:
    return f"{line} ".startswith(f"{words} ")


CHECKS: Mapping[str, Callable[[Seen], list[str]]] = {
    "acknowledged-once": acknowledged_once,
    "went-on-elsewhere": went_on_elsewhere,
    "consumed-by-the-group": consumed_by_the_group,
    "watched": watched,
}

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


CHECKS: Mapping[str, Callable[[Seen], list[str]]] = {
    "acknowledged-once": acknowledged_once,
    "went-on-elsewhere": went_on_elsewhere,
    "consumed-by-the-group": consumed_by_the_group,
}

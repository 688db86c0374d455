"""A trace as a file: lines of JSON; those without the tag "trace" are skipped, as etcd does."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from tests.sim.trace_check.events import FormatError
from tests.sim.trace_check.group import GroupCheck


def check_lines(lines: Iterable[str]) -> dict[int, int]:
    """Checks every group of a trace; returns how many events each had."""
    groups: dict[int, GroupCheck] = {}
    for number, line in enumerate(lines, start=1):
        try:
            row: dict[str, Any] = json.loads(line)
            if row.get("tag") != "trace":
                continue
            groups.setdefault(int(row.get("group", 0)), GroupCheck()).take(row["event"], number)
        except (ValueError, KeyError, AttributeError, FormatError) as error:
            raise FormatError(f"line {number}: {type(error).__name__}: {error}") from error
    return {group_id: check.events for group_id, check in groups.items()}

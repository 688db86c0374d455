"""`python -m tests.sim.trace_check FILE` checks a trace and says what broke first, if anything."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.sim.trace_check.events import FormatError
from tests.sim.trace_check.lines import check_lines
from tests.sim.trace_check.rules import BrokenRuleError


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim.trace_check", description=__doc__)
    parser.add_argument(
        "file", type=Path, help="lines as `python -m tests.sim --trace` writes them"
    )
    options = parser.parse_args()
    try:
        with options.file.open(encoding="utf-8") as lines:
            counts = check_lines(lines)
    except BrokenRuleError as broken:
        print(broken)
        return 1
    except FormatError as error:
        print(f"not a trace: {error}")
        return 2
    groups = ", ".join(f"group {group} {count}" for group, count in sorted(counts.items()))
    print(f"every step is one of the specification's; events: {groups or 'none'}")
    return 0 if counts else 2


if __name__ == "__main__":
    sys.exit(main())

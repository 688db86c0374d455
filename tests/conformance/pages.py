"""The pages of docs/clients hold code of the programs; `python -m` this puts it there.

A fenced block after a line `<!-- FILE -->` is that file of tests/conformance, whole, and
`<!-- FILE NAME -->` the part of it between lines with `[NAME]` and `[/NAME]`. test_pages.py fails
when a page says something else, so what the pages show is what was compiled and run.
"""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAGES = HERE.parent.parent / "docs" / "clients"
BLOCK = re.compile(
    r"(?P<head><!-- (?P<file>\S+)(?: (?P<part>\S+))? -->\n```\w+\n)(?P<code>.*?)```\n", re.DOTALL
)


def code_of(file: str, part: str | None) -> str:
    """What a page shows of a file."""
    text = (HERE / file).read_text()
    if part is None:
        return text
    lines = text.splitlines(keepends=True)
    first = next(number for number, line in enumerate(lines) if f"[{part}]" in line)
    last = next(number for number, line in enumerate(lines) if f"[/{part}]" in line)
    return "".join(lines[first + 1 : last])


def refreshed(page: str) -> str:
    """A page with the code as it is now."""
    return BLOCK.sub(
        lambda found: f"{found['head']}{code_of(found['file'], found['part'])}```\n", page
    )


def shown(page: str) -> list[tuple[str, str]]:
    """The files that a page shows, with what it says they hold."""
    return [(found["file"], found["code"]) for found in BLOCK.finditer(page)]


if __name__ == "__main__":
    for path in PAGES.glob("*.md"):
        path.write_text(refreshed(path.read_text()))

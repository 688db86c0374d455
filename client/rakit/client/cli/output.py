"""Prints answers as a table for people, or as JSON or YAML for programs.

JSON and YAML show the same data under the same keys, which are the field names of the SDK's values.
The YAML here is the small part that such data needs: mappings, lists and scalars, every text quoted
as JSON quotes it, which YAML reads alike. A table is plain text in aligned columns, so that it
survives pipes and narrow terminals.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Scalar = str | int | float | bool | None
Tree = Scalar | Sequence["Tree"] | Mapping[str, "Tree"]


class Format(StrEnum):
    """What `-o` takes."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


def tree_of(value: object) -> Tree:
    """Returns a value of the SDK as plain data."""
    if is_dataclass(value):
        return cast("Tree", asdict(cast("DataclassInstance", value)))
    return cast("Tree", value)


def print_tree(value: Tree, output: Format) -> None:
    """Prints plain data as JSON or YAML."""
    assert output is not Format.TABLE, "tables are made by hand"
    text = json.dumps(value, indent=2) if output is Format.JSON else "\n".join(to_yaml(value))
    sys.stdout.write(text + "\n")


def to_yaml(value: Tree, indent: str = "") -> list[str]:
    """Returns plain data as lines of YAML."""
    match value:
        case str() | int() | float() | None:
            return [indent + json.dumps(value)]
        case Mapping() if value:
            return [line for key, item in value.items() for line in _entry(indent, key, item)]
        case Mapping():
            return [indent + "{}"]
        case _ if value:
            return [line for item in value for line in _item(indent, item)]
        case _:
            return [indent + "[]"]


def _entry(indent: str, key: str, item: Tree) -> list[str]:
    inner = to_yaml(item, indent + "  ")
    if len(inner) == 1 and not isinstance(item, Mapping | list | tuple):
        return [f"{indent}{key}: {inner[0].strip()}"]
    if not item:
        return [f"{indent}{key}: {inner[0].strip()}"]
    return [f"{indent}{key}:", *inner]


def _item(indent: str, item: Tree) -> list[str]:
    first, *rest = to_yaml(item, indent + "  ")
    return [f"{indent}- {first.strip()}", *rest]


def print_table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Prints rows under heads, in columns as wide as their widest cell; numbers to the right."""
    cells = [[_text(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    right = [
        bool(rows) and all(type(row[at]) in {int, float} for row in rows)
        for at in range(len(heads))
    ]
    for line in (list(heads), *cells):
        padded = [
            text.rjust(width) if to_right else text.ljust(width)
            for text, width, to_right in zip(line, widths, right, strict=True)
        ]
        sys.stdout.write("  ".join(padded).rstrip() + "\n")


def _text(cell: object) -> str:
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    return "-" if cell is None or cell == "" else str(cell)

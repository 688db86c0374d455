"""Traces that follow a record: W3C trace context in its headers, by OpenTelemetry's API.

A program that uses OpenTelemetry has loaded its API before it makes a producer. Then `send()` puts
the context of the moment (`traceparent`, `tracestate`, whatever the configured propagators say)
into the headers of each record, unless they are there already; and who consumes gets it back by
`context_of`, to link a span to it. In any other program this costs one look at an attribute.

`send_batch()` leaves headers alone: a batch has no moment for each record.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeAlias

from rakit.client.records import HeaderPairs, Record

Injector: TypeAlias = Callable[[HeaderPairs | None], HeaderPairs | None]


def injector() -> Injector | None:
    """Returns what adds the context to headers; None where the program does not trace."""
    if "opentelemetry" not in sys.modules:
        return None
    propagate = import_module("opentelemetry.propagate")

    def inject(headers: HeaderPairs | None) -> HeaderPairs | None:
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        if not carrier:
            return headers
        given = list(headers or ())
        names = {name for name, _ in given}
        given.extend((name, value.encode()) for name, value in carrier.items() if name not in names)
        return given

    return inject


def context_of(record: Record) -> Any:
    """Returns the OpenTelemetry context that travelled with a record; an empty one without any.

    Raises ImportError where OpenTelemetry's API is not installed.
    """
    propagate = import_module("opentelemetry.propagate")
    carrier = {name: value.decode("ascii", "replace") for name, value in record.headers}
    return propagate.extract(carrier)

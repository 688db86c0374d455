"""A record's trace travels in its headers, in programs that trace."""

from __future__ import annotations

import sys

import pytest
from opentelemetry import trace
from opentelemetry.context import attach, detach
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from rakit.client import Client, tracing

SPAN = SpanContext(0x1234, 0x5678, is_remote=False, trace_flags=TraceFlags(1))


async def test_a_record_carries_the_trace_of_its_moment(client: Client) -> None:
    async with client.producer() as producer:
        token = attach(trace.set_span_in_context(NonRecordingSpan(SPAN)))
        await producer.send("t", b"a", headers=[("mine", b"1")], partition=0)
        detach(token)
        await producer.send("t", b"b", partition=0)
    async with client.reader("t", [0]) as reader:
        traced, plain = [record async for record in reader]
    assert traced.headers[0] == ("mine", b"1")
    found = trace.get_current_span(tracing.context_of(traced)).get_span_context()
    assert (found.trace_id, found.span_id) == (SPAN.trace_id, SPAN.span_id)
    assert plain.headers == ()


def test_what_the_program_gave_is_not_replaced() -> None:
    inject = tracing.injector()
    assert inject is not None
    token = attach(trace.set_span_in_context(NonRecordingSpan(SPAN)))
    assert inject([("traceparent", b"mine")]) == [("traceparent", b"mine")]
    detach(token)


def test_a_program_without_it_pays_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "opentelemetry")
    assert tracing.injector() is None

"""The port for frames is opened as gRPC opens its own, or the start ends with a sentence."""

# A test may look inside.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import errno
import socket
from typing import Any

import pytest

from rakit.node import listeners
from rakit.node.config import Address
from rakit.node.listeners import ListenError, _bound_socket


def port_of(bound: socket.socket) -> int:
    port: int = bound.getsockname()[1]
    return port


def connects(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=5):
        return True


def test_any_address_of_ipv6_is_any_of_ipv4_as_well() -> None:
    with _bound_socket(Address("::", 0), "--lane-listen") as bound:
        assert connects(port_of(bound))


def test_a_machine_without_ipv6_opens_any_of_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    listening = listeners._listening

    def without_ipv6(family: int, where: Any) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return listening(family, where)

    monkeypatch.setattr(listeners, "_listening", without_ipv6)
    with _bound_socket(Address("::", 0), "--lane-listen") as bound:
        assert bound.family == socket.AF_INET
        assert connects(port_of(bound))
    with pytest.raises(ListenError, match="--lane-listen"):
        _bound_socket(Address("::1", 0), "--lane-listen")


def test_a_port_that_is_taken_is_told_and_no_other_address_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[int] = []

    def taken(family: int, _where: Any) -> socket.socket:
        tried.append(family)
        raise OSError(errno.EADDRINUSE, "Address already in use")

    monkeypatch.setattr(listeners, "_listening", taken)
    with pytest.raises(ListenError, match="--lane-listen"):
        _bound_socket(Address("::", 7073), "--lane-listen")
    assert len(tried) == 1

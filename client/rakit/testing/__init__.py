"""Real clusters for the tests of programs that use rakit.

    # conftest.py
    pytest_plugins = ["rakit.testing.plugin"]

    # test_orders.py
    def test_orders(rakit_broker):
        with Client(rakit_broker.bootstrap) as client:      # rakit.client.sync
            ...

    async def test_orders(rakit_broker):
        async with Client(rakit_broker.bootstrap) as client:    # rakit.client
            ...

`Broker` is a node inside of this process, on a thread of its own: ready in about half a second.
`Cluster` is some nodes as processes of their own, which a test may kill and start again. Both
listen on free ports of loopback and throw their data away. They need `rakit[node]`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rakit.testing.broker import Broker as Broker
    from rakit.testing.cluster import Cluster as Cluster

_HOMES: Final = {"Broker": "broker", "Cluster": "cluster"}


def __getattr__(name: str) -> object:
    """Loads a public name from its module."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """Returns the public names."""
    return sorted(_HOMES)

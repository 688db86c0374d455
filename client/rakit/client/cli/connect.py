"""Opens the client of a command, with shorter patience than an application has."""

from __future__ import annotations

from typing import Final

from rakit.client.cli.complaints import MisuseError
from rakit.client.client import Client
from rakit.client.config import ClientConfig, bootstrap_addresses

#: A person waits for the answer; a cluster that elects needs up to two seconds.
REQUEST_TIMEOUT_MS: Final = 10_000
#: Most likely nobody started a node, or the address is wrong.
UNREACHABLE_TIMEOUT_MS: Final = 1_000


def connect(bootstrap: str | None) -> Client:
    """Returns the client; raises MisuseError for addresses that are none."""
    try:
        config = ClientConfig(
            bootstrap_addresses(bootstrap),
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            unreachable_timeout_ms=UNREACHABLE_TIMEOUT_MS,
        )
    except ValueError as error:
        raise MisuseError(str(error)) from error
    return Client(config)

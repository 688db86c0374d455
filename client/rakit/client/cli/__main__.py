"""`python -m rakit.client.cli`: the `rakit` command where its script is not installed."""

from __future__ import annotations

from rakit.client.cli.main import run

if __name__ == "__main__":
    run()

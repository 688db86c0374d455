"""The versions that a table is headed with."""

from __future__ import annotations

from pathlib import Path

from tests.bench.versions import PACKAGES, versions


def test_servers_tell_their_versions_by_file_names_and_clients_by_their_packages(
    tmp_path: Path,
) -> None:
    for name in ("kafka_2.13-4.1.0.jar", "kafka-clients-4.1.0.jar"):
        (tmp_path / name).touch()
    (tmp_path / "rabbitmq_server-3.10.8").mkdir()
    found = versions(tmp_path, tmp_path)
    assert found.startswith("kafka 4.1.0, rabbitmq 3.10.8, ")
    assert all(name in found for name in PACKAGES)
    assert versions(tmp_path / "none", tmp_path / "none").startswith(PACKAGES[0])

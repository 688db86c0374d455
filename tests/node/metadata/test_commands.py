"""What is wrong with a request by itself, and the words in which a person is told."""

from __future__ import annotations

from collections.abc import Callable

import grpc
import pytest

from rakit.api.v1.topic_service_pb2 import (
    CreateTopicRequest,
    DeleteTopicRequest,
    TopicConfig,
    UpdateTopicRequest,
)
from rakit.node.errors import RakitError, reason_name
from rakit.node.metadata import commands
from rakit.peer.v1.metadata_command_pb2 import MetadataCommand


def build_create(config: TopicConfig) -> MetadataCommand:
    return commands.create_topic(CreateTopicRequest(name="t", config=config))


def build_update(config: TopicConfig) -> MetadataCommand:
    return commands.update_topic(UpdateTopicRequest(name="t", config=config))


@pytest.mark.parametrize("name", ["", ".", "..", "a b", "ä", "a/b", "x" * 250, "new\nline"])
def test_bad_topic_names_are_refused(name: str) -> None:
    with pytest.raises(RakitError, match="use 1 to 249 of the characters") as error:
        commands.create_topic(CreateTopicRequest(name=name))
    assert reason_name(error.value.reason) == "INVALID_TOPIC_NAME"
    assert error.value.rule.code is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("name", ["a", "A.b_c-9", "...", "x" * 249])
def test_good_topic_names_are_taken(name: str) -> None:
    assert commands.create_topic(CreateTopicRequest(name=name)).create_topic.name == name


@pytest.mark.parametrize("count", [-1, 10_001])
def test_partition_counts_out_of_bounds_are_refused(count: int) -> None:
    with pytest.raises(RakitError, match="ask for 1 to 10,000") as error:
        commands.create_topic(CreateTopicRequest(name="t", partition_count=count))
    assert reason_name(error.value.reason) == "INVALID_PARTITION_COUNT"


@pytest.mark.parametrize("factor", [-1, 10])
def test_replication_factors_out_of_bounds_are_refused(factor: int) -> None:
    with pytest.raises(RakitError, match="ask for 1 to 9, or leave it out") as error:
        commands.create_topic(CreateTopicRequest(name="t", replication_factor=factor))
    assert reason_name(error.value.reason) == "INVALID_REPLICATION_FACTOR"


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (TopicConfig(retention_ms=0), "retention_ms = 0 is out of bounds"),
        (TopicConfig(retention_bytes=-2), "or -1 for no limit"),
        (TopicConfig(batch_bytes_max=(16 << 20) + 1), "1 to 16,777,216 bytes"),
        (TopicConfig(batch_decompressed_bytes_max=17 << 20), "1 to 16,777,216 bytes"),
        (TopicConfig(segment_bytes=65_535), "65,536 or more bytes"),
        (TopicConfig(segment_ms=999), "1,000 or more ms"),
        (
            TopicConfig(batch_bytes_max=2_000, batch_decompressed_bytes_max=1_000),
            "raise the first or lower the second",
        ),
    ],
)
def test_bad_settings_are_refused_with_their_bounds(config: TopicConfig, text: str) -> None:
    for build in (build_create, build_update):
        with pytest.raises(RakitError) as error:
            build(config)
        assert reason_name(error.value.reason) == "INVALID_CONFIG"
        assert text in error.value.message


def test_a_large_batch_limit_takes_the_decompressed_one_along() -> None:
    config = TopicConfig(batch_bytes_max=16 << 20)
    created = commands.create_topic(CreateTopicRequest(name="t", config=config))
    assert created.create_topic.config == config


def test_an_unknown_setting_is_refused_with_the_known_ones() -> None:
    request = UpdateTopicRequest(name="t")
    request.update_mask.paths.append("retention_hours")
    with pytest.raises(RakitError, match="there is no setting 'retention_hours'") as error:
        commands.update_topic(request)
    assert reason_name(error.value.reason) == "INVALID_CONFIG"
    assert "retention_ms" in error.value.message


def test_an_update_of_nothing_is_refused() -> None:
    with pytest.raises(RakitError, match="nothing to update") as error:
        commands.update_topic(UpdateTopicRequest(name="t"))
    assert reason_name(error.value.reason) == "INVALID_REQUEST"


UUID = "c0ffee00-0000-4000-8000-00000000000a"


@pytest.mark.parametrize("text", ["today", "-" * 10_000 + UUID, UUID + "-" * 10])
def test_a_request_id_must_be_a_uuid(text: str) -> None:
    with pytest.raises(RakitError, match="is not a UUID") as error:
        commands.delete_topic(DeleteTopicRequest(name="t", request_id=text))
    assert reason_name(error.value.reason) == "INVALID_REQUEST"


@pytest.mark.parametrize(
    "text", [UUID, UUID.upper(), UUID.replace("-", ""), f"{{{UUID}}}", f"urn:uuid:{UUID}"]
)
def test_a_request_id_is_kept_in_one_spelling_however_it_was_written(text: str) -> None:
    """The state keeps it: what a client writes around it must not be stored."""
    made = commands.delete_topic(DeleteTopicRequest(name="t", request_id=text)).delete_topic.mark
    plain = commands.delete_topic(DeleteTopicRequest(name="t", request_id=UUID)).delete_topic.mark
    assert made == plain
    assert made.request_id == UUID


@pytest.mark.parametrize("build", [build_create, build_update])
def test_what_this_version_does_not_know_does_not_get_into_the_log(
    build: Callable[[TopicConfig], MetadataCommand],
) -> None:
    config = TopicConfig(retention_ms=5)
    # A field of the future, of any size.
    config.MergeFromString(b"\xfa\x3f" + b"\x80\x08" + b"x" * 1024)
    assert config.ByteSize() > 1024
    assert build(config).ByteSize() < 100


def test_every_change_is_marked_also_without_a_request_id() -> None:
    first = commands.delete_topic(DeleteTopicRequest(name="t")).delete_topic.mark
    second = commands.delete_topic(DeleteTopicRequest(name="t")).delete_topic.mark
    assert first.request_id
    assert first.request_id != second.request_id
    assert first.fingerprint == second.fingerprint


@pytest.mark.parametrize("name", ["x" * 250, "tab\there"])
def test_bad_producer_names_are_refused(name: str) -> None:
    with pytest.raises(RakitError, match="1 to 249 printable characters") as error:
        commands.init_producer(name)
    assert reason_name(error.value.reason) == "INVALID_PRODUCER_NAME"

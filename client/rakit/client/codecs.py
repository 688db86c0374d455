"""Compression of a batch's columns: zstd, LZ4 frame, gzip.

Compressing is one call per batch and happens when the batch is sealed. Decompressing believes
nothing that the data says about itself: a batch states its size, the size is bounded here, and
output stops at that size. A node has checked the same when the batch was appended; a client still
must not let one frame take all of its memory.

lz4 has no type information; what is used of it stands in the two protocols below.
"""

from __future__ import annotations

import zlib
from typing import Any, Final, Literal, Protocol, cast

import lz4.frame
import zstandard

from rakit.api.v1 import record_pb2
from rakit.api.v1.record_pb2 import Codec, CompressedRecords
from rakit.client.errors import make_error

CodecName = Literal["zstd", "lz4", "gzip"]

#: The largest batch that a topic can be configured to take, decompressed.
DECOMPRESSED_BYTES_MAX: Final = 16 << 20
#: What is sent as it is stored; everything else the server decompresses for us.
ACCEPTED: Final = (record_pb2.CODEC_ZSTD, record_pb2.CODEC_LZ4, record_pb2.CODEC_GZIP)
_ZSTD_LEVEL: Final = 1
_GZIP_WBITS: Final = 31


class _Lz4Frame(Protocol):
    def compress(self, data: bytes) -> bytes: ...


class _Lz4Decompressor(Protocol):
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


def compress(codec: CodecName, data: bytes, record_count: int) -> CompressedRecords:
    """Returns serialised columns as one compressed frame."""
    match codec:
        case "zstd":
            number: Codec.ValueType = record_pb2.CODEC_ZSTD
            frame = zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(data)
        case "lz4":
            number = record_pb2.CODEC_LZ4
            frame = cast("_Lz4Frame", lz4.frame).compress(data)
        case "gzip":
            number = record_pb2.CODEC_GZIP
            packer = zlib.compressobj(1, zlib.DEFLATED, _GZIP_WBITS)
            frame = packer.compress(data) + packer.flush()
    return CompressedRecords(
        codec=number, record_count=record_count, uncompressed_bytes=len(data), data=frame
    )


def decompress(batch: CompressedRecords) -> bytes:
    """Returns the serialised columns. Raises CORRUPT_BATCH when they are not as stated."""
    size = batch.uncompressed_bytes
    if not 0 < size <= DECOMPRESSED_BYTES_MAX:
        raise make_error("CORRUPT_BATCH", f"a batch states {size} bytes of content")
    try:
        data = _decompress(batch.codec, batch.data, size)
    except (zstandard.ZstdError, RuntimeError, zlib.error) as error:
        raise make_error("CORRUPT_BATCH", f"a batch does not decompress: {error}") from error
    if len(data) != size:
        raise make_error("CORRUPT_BATCH", f"a batch states {size} bytes and holds {len(data)}")
    return data


def _decompress(codec: Codec.ValueType, data: bytes, size: int) -> bytes:
    match codec:
        case record_pb2.CODEC_ZSTD:
            return zstandard.ZstdDecompressor().stream_reader(data).read(size + 1)
        case record_pb2.CODEC_LZ4:
            unpacker = cast("_Lz4Decompressor", cast("Any", lz4.frame).LZ4FrameDecompressor())
            return unpacker.decompress(data, size + 1)
        case record_pb2.CODEC_GZIP:
            unzipper = zlib.decompressobj(_GZIP_WBITS)
            content = unzipper.decompress(data, size + 1)
            # A member that breaks off gives its content all the same; only its checksum is missing.
            return content if unzipper.eof else b""
        case _:
            raise make_error("UNSUPPORTED_CODEC", f"codec {codec} is newer than this client")

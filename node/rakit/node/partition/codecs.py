"""Bounded decompression of the three codecs of a batch: zstd, LZ4 frame, gzip (contract 4).

A few hundred compressed bytes can claim, or become, gigabytes. So nothing that the data says about
itself is believed: output stops at the size that the caller asks for, and the caller has checked
that size against the limit. A frame whose own header disagrees is refused before any memory is
taken for it.

Exactly one frame is accepted, from the first byte to the last: bytes behind it would be stored and
replicated without anybody ever reading them, and two readers might disagree about a second frame.

Memory: the output, plus what a codec needs to look back. For zstd that is bounded by
`ZSTD_WINDOW_BYTES_MAX`; LZ4 needs up to 8 MiB for its largest blocks, gzip 32 KiB.

Left out: dictionaries (a reader would need them too) and compression; the server never compresses.
"""

from __future__ import annotations

import zlib
from typing import Any, Final, Protocol, cast

import lz4.frame
import zstandard

from rakit.api.v1 import record_pb2
from rakit.api.v1.record_pb2 import Codec

#: What a zstd frame may ask for to look back: as much as the usual levels ever use.
ZSTD_WINDOW_BYTES_MAX: Final = 16 * 1024 * 1024
#: zlib's code for "one gzip member, not a bare stream".
_GZIP_WBITS: Final = 31


class CorruptDataError(Exception):
    """The data is not exactly one complete frame of its codec."""


class SizeMismatchError(Exception):
    """The data is a frame of its codec, but does not hold the stated number of bytes."""


class UnsupportedCodecError(Exception):
    """The codec's number is not one of the three."""


class _Lz4Decompressor(Protocol):
    """What is used of lz4.frame.LZ4FrameDecompressor."""

    eof: bool
    unused_data: bytes | None

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


def codec_name(codec: Codec.ValueType) -> str:
    """Returns a codec's name for texts; unknown numbers are shown as numbers."""
    match codec:
        case record_pb2.CODEC_ZSTD:
            return "zstd"
        case record_pb2.CODEC_LZ4:
            return "lz4"
        case record_pb2.CODEC_GZIP:
            return "gzip"
        case _:
            return str(int(codec))


def decompress(codec: Codec.ValueType, data: bytes, size_bytes: int) -> bytes:
    """Returns exactly `size_bytes` bytes, which must be all that `data` holds.

    Raises `CorruptDataError`, `SizeMismatchError` or `UnsupportedCodecError`.
    """
    assert size_bytes > 0, "the caller refuses empty batches"
    match codec:
        case record_pb2.CODEC_ZSTD:
            return _unzstd(data, size_bytes)
        case record_pb2.CODEC_LZ4:
            return _unlz4(data, size_bytes)
        case record_pb2.CODEC_GZIP:
            return _gunzip(data, size_bytes)
        case _:
            raise UnsupportedCodecError(codec_name(codec))


def _unzstd(data: bytes, size_bytes: int) -> bytes:
    decompressor = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES_MAX)
    try:
        stated = zstandard.get_frame_parameters(data).content_size
        if stated not in {zstandard.CONTENTSIZE_UNKNOWN, size_bytes}:
            raise SizeMismatchError(f"the frame says that it holds {stated} bytes")
        out = decompressor.decompress(data, max_output_size=size_bytes, allow_extra_data=False)
    except zstandard.ZstdError as error:
        if _zstd_overruns(decompressor, data, size_bytes):
            raise SizeMismatchError(f"the frame holds more than {size_bytes} bytes") from error
        raise CorruptDataError(str(error)) from error
    return _exactly(out, size_bytes)


def _zstd_overruns(decompressor: zstandard.ZstdDecompressor, data: bytes, size_bytes: int) -> bool:
    """Tells "too long" from "broken", which the one-shot call reports alike."""
    try:
        return len(decompressor.stream_reader(data).read(size_bytes + 1)) > size_bytes
    except zstandard.ZstdError:
        return False


def _unlz4(data: bytes, size_bytes: int) -> bytes:
    # The library has no types; the protocol says what is used of it.
    factory = cast("Any", lz4.frame).LZ4FrameDecompressor
    decompressor = cast("_Lz4Decompressor", factory())
    try:
        # One byte more than wanted, so that the end mark and the checksum are read too.
        out = decompressor.decompress(data, size_bytes + 1)
    except RuntimeError as error:
        raise CorruptDataError(str(error)) from error
    return _ended(out, size_bytes, eof=decompressor.eof, rest=decompressor.unused_data or b"")


def _gunzip(data: bytes, size_bytes: int) -> bytes:
    decompressor = zlib.decompressobj(_GZIP_WBITS)
    try:
        out = decompressor.decompress(data, size_bytes + 1)
    except zlib.error as error:
        raise CorruptDataError(str(error)) from error
    return _ended(out, size_bytes, eof=decompressor.eof, rest=decompressor.unused_data)


def _ended(out: bytes, size_bytes: int, *, eof: bool, rest: bytes) -> bytes:
    if len(out) > size_bytes:
        raise SizeMismatchError(f"the frame holds more than {size_bytes} bytes")
    if not eof:
        raise CorruptDataError(f"the frame breaks off after {len(out)} bytes of content")
    if rest:
        raise CorruptDataError(f"{len(rest)} bytes follow the end of the frame")
    return _exactly(out, size_bytes)


def _exactly(out: bytes, size_bytes: int) -> bytes:
    if len(out) != size_bytes:
        raise SizeMismatchError(f"the frame holds {len(out)} bytes")
    return out

"""AWS's binary event stream: frames with checksums, as Bedrock's streams use them.

    total length u32 | headers length u32 | CRC-32 of these 8 bytes u32 | headers | payload | CRC-32 of all before it u32

Big endian. (Fact: the `application/vnd.amazon.eventstream` encoding, limits as botocore has them.)
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from typing import NamedTuple

CONTENT_TYPE = b"application/vnd.amazon.eventstream"

LARGEST_HEADERS = 128 * 1024
LARGEST_PAYLOAD = 24 * 1024 * 1024
"""Bytes; botocore's limits."""

_PRELUDE = struct.Struct(">III")
_FRAMING = 16  # prelude and the last checksum
_SHORT = struct.Struct(">H")
_FIXED = {2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}  # bytes of a header's value by its type; 0 and 1 are true and false
_BYTES, _STRING = 6, 7


class Frame(NamedTuple):
    """One message. `headers` are those with a text value (":event-type", ":message-type", ":exception-type" ...)."""

    headers: Mapping[str, str]
    payload: bytes


class BrokenFrameError(ValueError):
    """The bytes are no frames: a checksum is wrong, or a length impossible. Nothing after this can be trusted."""


class FrameReader:
    """Frames from blocks cut anywhere."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, block: bytes) -> list[Frame]:
        """The frames that *block* ends. Raises BrokenFrameError; the frames before the broken one are lost with it, for
        a stream that is broken is given up as a whole."""
        rest = self._rest
        rest += block
        frames = []
        at = 0
        while len(rest) - at >= _PRELUDE.size:
            total, headers_length, checksum = _PRELUDE.unpack_from(rest, at)
            if zlib.crc32(rest[at : at + 8]) != checksum:
                raise BrokenFrameError("the checksum of a frame's lengths is wrong")
            payload_length = total - headers_length - _FRAMING
            if payload_length < 0 or headers_length > LARGEST_HEADERS or payload_length > LARGEST_PAYLOAD:
                raise BrokenFrameError("a frame has an impossible length")
            if len(rest) - at < total:
                break
            frames.append(_frame(bytes(rest[at : at + total]), headers_length))
            at += total
        del rest[:at]
        return frames

    @property
    def torn(self) -> bool:
        """Whether part of a frame has come, and its end has not."""
        return bool(self._rest)


def _frame(frame: bytes, headers_length: int) -> Frame:
    (checksum,) = struct.unpack_from(">I", frame, len(frame) - 4)
    if zlib.crc32(frame[:-4]) != checksum:
        raise BrokenFrameError("a frame's checksum is wrong")
    start = _PRELUDE.size
    end = start + headers_length
    try:
        headers = _headers(frame[start:end])
    except (IndexError, struct.error, UnicodeDecodeError):
        raise BrokenFrameError("a frame's headers cannot be read") from None
    return Frame(headers, frame[end:-4])


def _headers(block: bytes) -> dict[str, str]:
    found = {}
    at = 0
    while at < len(block):
        size = block[at]
        name = block[at + 1 : at + 1 + size].decode("utf-8")
        at += 1 + size
        kind = block[at]
        at += 1
        if kind in (_BYTES, _STRING):
            (length,) = _SHORT.unpack_from(block, at)
            at += _SHORT.size
            if at + length > len(block):
                raise IndexError
            if kind == _STRING:
                found[name] = block[at : at + length].decode("utf-8")
            at += length
        elif kind > 1:
            if kind not in _FIXED:
                raise IndexError
            at += _FIXED[kind]
    return found


def write(headers: Mapping[str, str], payload: bytes) -> bytes:
    """One frame. (For whoever plays the provider: the demo, tests.)"""
    block = b"".join(
        bytes([len(name)]) + name.encode() + bytes([_STRING]) + _SHORT.pack(len(value.encode())) + value.encode()
        for name, value in headers.items()
    )
    lengths = struct.pack(">II", len(block) + len(payload) + _FRAMING, len(block))
    frame = lengths + struct.pack(">I", zlib.crc32(lengths)) + block + payload
    return frame + struct.pack(">I", zlib.crc32(frame))

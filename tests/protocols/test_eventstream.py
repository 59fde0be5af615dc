"""Frames of AWS's event stream: read however they are cut, refused when a single bit is wrong."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given, strategies as st

from aigw.protocols.eventstream import BrokenFrameError, Frame, FrameReader, write

STREAM = [
    Frame(
        {":message-type": "event", ":event-type": "messageStart", ":content-type": "application/json"}, b'{"role":"assistant"}'
    ),
    Frame({":message-type": "event", ":event-type": "contentBlockDelta"}, '{"delta":{"text":"你好"}}'.encode()),
    Frame({":message-type": "exception", ":exception-type": "throttlingException"}, b"{}"),
    Frame({}, b""),
]
BYTES = b"".join(write(*frame) for frame in STREAM)


@given(st.lists(st.integers(0, len(BYTES)), max_size=20))
def test_cut_anywhere(cuts: list[int]) -> None:
    """The blocks of a connection have nothing to do with frames."""
    reader = FrameReader()
    at, found = 0, []
    for cut in [*sorted(cuts), len(BYTES)]:
        found += reader.feed(BYTES[at:cut])
        at = cut
    assert found == STREAM
    assert not reader.torn


@pytest.mark.parametrize("at", range(0, len(BYTES), 7))
def test_a_flipped_bit_is_found(at: int) -> None:
    """Wherever it is: in a length, a header, a payload or a checksum."""
    broken = bytearray(BYTES)
    broken[at] ^= 0x10
    with pytest.raises(BrokenFrameError):
        FrameReader().feed(bytes(broken))


def test_a_known_frame() -> None:
    """The bytes that botocore's own test has for an empty message, and for one with a header of each other type."""
    empty = bytes.fromhex("000000100000000005c248eb7d98c8ff")
    assert write({}, b"") == empty
    assert FrameReader().feed(empty) == [Frame({}, b"")]


def test_headers_of_other_types_are_passed_over() -> None:
    headers = b"\x01t\x00" + b"\x01f\x01" + b"\x01b\x02\x07" + b"\x01s\x03\x00\x01" + b"\x01i\x04" + bytes(4)
    headers += b"\x01l\x05" + bytes(8) + b"\x01y\x06\x00\x02ab" + b"\x01w\x08" + bytes(8) + b"\x01u\x09" + bytes(16)
    headers += b"\x01n\x07\x00\x02ok"
    assert FrameReader().feed(_raw(headers, b"x")) == [Frame({"n": "ok"}, b"x")]


@pytest.mark.parametrize("headers", [b"\x01n\x07\x00\xffno", b"\x09n", b"\x01n\x0a", b"\x01\xff\x00"])
def test_headers_that_cannot_be_read(headers: bytes) -> None:
    with pytest.raises(BrokenFrameError):
        FrameReader().feed(_raw(headers, b""))


def test_an_impossible_length() -> None:
    """It is refused at once: nobody waits for four gigabytes."""
    lengths = struct.pack(">II", 0xFFFFFFF0, 0)
    with pytest.raises(BrokenFrameError, match="length"):
        FrameReader().feed(lengths + struct.pack(">I", zlib.crc32(lengths)))


def test_torn() -> None:
    reader = FrameReader()
    reader.feed(BYTES[:-1])
    assert reader.torn


def _raw(headers: bytes, payload: bytes) -> bytes:
    lengths = struct.pack(">II", len(headers) + len(payload) + 16, len(headers))
    frame = lengths + struct.pack(">I", zlib.crc32(lengths)) + headers + payload
    return frame + struct.pack(">I", zlib.crc32(frame))

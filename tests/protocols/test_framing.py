"""Server-sent events as bytes, in every spelling the HTML standard allows."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, strategies as st

from aigw.protocols import framing

ENDS = ["\n", "\r\n", "\r"]
LINES = st.sampled_from(
    ["data: x", "data:x", "data", "data:", "data:  two", "event: error", ": comment", "id: 1", "data: 模型"]
)


@st.composite
def stream(draw: st.DrawFn, ends: list[str] = ENDS) -> bytes:
    """Whole events; each line ends as it likes."""
    text = ""
    for _ in range(draw(st.integers(0, 4))):
        for line in draw(st.lists(LINES, min_size=1, max_size=3)):
            text += line + draw(st.sampled_from(ends))
        end = draw(st.sampled_from(ends))
        text += end + draw(st.sampled_from(["", "", end]))
    return text.encode()


def reference(block: bytes) -> list[bytes]:
    """The data of each event that has some, as the standard reads them, without a thought for speed."""
    text = block.decode().removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    found: list[bytes] = []
    data: list[str] = []
    for line in text.split("\n"):
        name, _, content = line.partition(":")
        if not line:
            if any(data[:1]) or len(data) > 1:
                found.append("\n".join(data).encode())
            data = []
        elif name == "data":
            data.append(content.removeprefix(" "))
    return found


def read(block: bytes) -> list[bytes]:
    return [data for event in framing.split(block) if (data := framing.data(event))]


@given(stream())
def test_split(block: bytes) -> None:
    """Joining what `split` yields gives the input; each event's data is what the standard says."""
    events = list(framing.split(block))
    assert b"".join(events) == block
    assert read(block) == reference(block)
    assert all(events)


@given(stream(), st.binary(max_size=8))
def test_split_keeps_what_is_not_whole(block: bytes, rest: bytes) -> None:
    """Also with half an event behind it, whatever its bytes, nothing is lost."""
    assert b"".join(framing.split(block + rest)) == block + rest


@given(stream())
def test_last_boundary_at_every_cut(block: bytes) -> None:
    """Cut anywhere: what stands before the boundary is whole events, what stands behind it holds none; read one after the
    other they say the same."""
    for cut in range(len(block) + 1):
        end = framing.last_boundary(block[:cut])
        assert 0 <= end <= cut
        whole, rest = block[:end], block[end:cut]
        assert framing.last_boundary(rest) == 0
        assert read(whole) + reference(block[end:]) == reference(block)


@pytest.mark.parametrize("end", ENDS, ids=["LF", "CRLF", "CR"])
def test_last_boundary(end: str) -> None:
    """The end of the last whole event; none in half a one."""
    event = f"event: a{end}data: b{end}".encode()
    blank = end.encode()
    assert framing.last_boundary(b"") == 0
    assert framing.last_boundary(event) == 0
    assert framing.last_boundary(event + blank) == len(event + blank)
    assert framing.last_boundary((event + blank) * 2 + event) == 2 * len(event + blank)


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (b"data: x\n\n", b"x"),
        (b"data: x\n", b"x"),
        (b"data: x", b"x"),
        (b"data: x\n\n\n", b"x"),
        (b"data:x\n\n", b"x"),
        (b"data:  x\n\n", b" x"),
        (b"data:\n\n", b""),
        (b"data: x\r\n\r\n", b"x"),
        (b"data: x\r\r", b"x"),
        (b"data: a\ndata: b\n\n", b"a\nb"),
        (b"data: a\r\ndata: b\r\n\r\n", b"a\nb"),
        (b"event: x\ndata: {}\nid: 3\n\n", b"{}"),
        (b": comment\ndata: {}\n\n", b"{}"),
        (b": keep-alive\n\n", b""),
        (b"\ndata: x\n\n", b"x"),
        (b"\xef\xbb\xbfdata: x\n\n", b"x"),
        (b"\xef\xbb\xbfevent: e\r\ndata: x\r\n\r\n", b"x"),
        (b"database: x\n\n", b""),
        (b" data: x\n\n", b""),
    ],
)
def test_data(event: bytes, data: bytes) -> None:
    """Its data lines joined by LF, one space dropped, comments and a byte order mark passed over."""
    assert framing.data(event) == data


def test_find() -> None:
    """The first event with the wanted data, wherever it stands; comments and other events are passed over."""
    block = b": a comment\n\ndata: one\r\n\r\nevent: x\ndata: two\n\ndata: two\n\n"
    at = framing.find(block, lambda data: data == b"two")
    assert block[at:].startswith(b"event: x\ndata: two")
    assert framing.find(block, lambda data: data == b"") == 0
    assert framing.find(block, lambda data: data == b"three") == -1


def _cut(block: bytes, places: list[int]) -> list[bytes]:
    bounds = [0, *sorted(place % (len(block) + 1) for place in places), len(block)]
    return [block[start:end] for start, end in pairwise(bounds)]


@given(stream(["\n", "\r\n"]), st.lists(st.integers(0, 10_000), max_size=6))
def test_a_reader_finds_the_same_events_however_they_are_cut(block: bytes, places: list[int]) -> None:
    whole, cut = framing.EventReader(), framing.EventReader()
    wanted = whole.feed(block) + whole.end()
    found = [data for piece in _cut(block, places) for data in cut.feed(piece)] + cut.end()
    assert found == wanted == [data for event in framing.split(block) if (data := framing.data(event))]


def test_a_reader_knows_when_nothing_is_begun() -> None:
    reader = framing.EventReader()
    assert reader.idle
    assert reader.feed(b"data: a") == []
    assert not reader.idle
    assert reader.feed(b"\n\n: ping\n\n") == [b"a"]
    assert reader.idle


def test_a_stream_without_its_last_empty_line_has_its_last_event() -> None:
    reader = framing.EventReader()
    assert reader.feed(b"data: a\n\ndata: b") == [b"a"]
    assert reader.end() == [b"b"]


def test_an_event_beyond_the_limit_is_skipped() -> None:
    reader = framing.EventReader(limit=100)
    for _ in range(20):
        assert reader.feed(b"x" * 10) == []
    assert reader.skipped == 1


@given(st.lists(st.sampled_from([b'{"a":1}', b"", b"  {} ", b'"\xc3\xbc"'])), st.lists(st.integers(0, 10_000), max_size=6))
def test_lines_are_the_same_however_they_are_cut(lines: list[bytes], places: list[int]) -> None:
    block = b"\r\n".join(lines)
    reader = framing.LineReader()
    found = [line for piece in _cut(block, places) for line in reader.feed(piece)] + reader.end()
    assert found == [line.strip() for line in lines if line.strip()]


def test_a_line_beyond_the_limit_is_skipped() -> None:
    reader = framing.LineReader(limit=100)
    for _ in range(20):
        assert reader.feed(b"x" * 10) == []
    assert reader.skipped == 1

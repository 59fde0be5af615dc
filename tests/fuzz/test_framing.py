"""Server-sent events, however they are cut: the events that the HTML standard's own reading finds."""

from __future__ import annotations

import re

from aigw.protocols import framing
from tests.fuzz.inputs import cut, dice, fuzzed

WORDS = [b"data: ", b"data:", b"data", b"event: x", b"\n\n", b"\r\n\r\n", b"\r\r", b"\n", b"\r", b"\r\n", b"\n\r", b": c"]
WORDS += [b"\xef\xbb\xbf", b"[DONE]", b"id: 1", b"retry: 1", b"\x00"]
MARK = b"\xef\xbb\xbf"


def standard(stream: bytes) -> list[bytes]:
    """The data of each event, read as the HTML standard says (9.2.6), line by line."""
    found: list[bytes] = []
    data: list[bytes] = []
    for line in re.split(rb"\r\n|\n|\r", stream.removeprefix(MARK))[:-1]:
        if not line:
            if data:
                found.append(b"\n".join(data))
            data = []
            continue
        field, _, value = line.partition(b":")
        if field == b"data":
            data.append(value.removeprefix(b" "))
    return found


def in_pieces(pieces: list[bytes]) -> list[bytes]:
    """The whole events as the relay takes them: what is not whole waits for the next piece."""
    rest, whole = b"", []
    for piece in pieces:
        block = rest + piece
        end = framing.last_boundary(block)
        assert 0 <= end <= len(block)
        rest = block[end:]
        events = list(framing.split(block[:end]))
        assert b"".join(events) == block[:end]
        whole += events
    assert b"".join(whole) + rest == b"".join(pieces)
    return whole


@fuzzed("framing", WORDS)
def test_framing(data: bytes) -> None:
    """Nothing is lost, doubled or moved, and every cut gives the same events."""
    assert b"".join(framing.split(data)) == data
    while (at := data.rfind(MARK)) > 0:  # before a later event it means nothing; we forgive it there
        data = data[:at] + data[at + len(MARK) :]
    stream = data + b"\n\n"
    wanted = [event for event in standard(stream) if event]
    chance = dice(data)
    ways = [[stream], list(cut(stream, chance)), list(cut(stream, chance, 40))]
    if len(stream) < 300:
        ways.append([stream[i : i + 1] for i in range(len(stream))])
    for pieces in ways:
        found = [found for event in in_pieces(pieces) if (found := framing.data(event))]
        assert found == wanted, pieces
    at = framing.find(stream, lambda found: found == wanted[-1]) if wanted else -1
    if wanted:
        assert framing.data(next(framing.split(stream[at:]))) == wanted[-1]

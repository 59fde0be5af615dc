"""Server-sent events as bytes: where events end, and what their data is. Nothing is parsed that need not be."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

# An event ends with an empty line; lines end with LF, CRLF or CR (the HTML standard's event-stream format). LF CR ends one only
# when it is seen not to be half of LF CRLF.
_BOUNDARY = re.compile(rb"\r\n\r\n|\n\n|\r\r|\n\r\n|\r\n\n|\n\r(?=[^\n])")
_MARK = b"\xef\xbb\xbf"  # a byte order mark may open a stream
_LINE = re.compile(rb"\r\n|\n|\r")


def last_boundary(block: bytes) -> int:
    """Where the last whole event of *block* ends; 0 when none does."""
    if block[-4:] == b"\r\n\r\n":
        return len(block)
    end = block.rfind(b"\n\n") + 2
    if end < 2:
        end = 0
    if b"\r" in block:
        for match in _BOUNDARY.finditer(block, end):
            end = match.end()
    return end


def split(block: bytes) -> Iterator[bytes]:
    """The events of *block* (whole ones), each with the empty line that ends it, so that joining them gives *block* again."""
    if b"\r" not in block:
        start = 0
        while (end := block.find(b"\n\n", start)) >= 0:
            end += 2
            while block[end : end + 1] == b"\n":  # some write more than one empty line
                end += 1
            yield block[start:end]
            start = end
    elif block[-4:] == b"\r\n\r\n" and block.find(b"\r") == len(block) - 4 and b"\n\n" not in block:
        start = len(block)  # one event, as Google and nginx write them
        yield block
    else:
        start = 0
        for match in _BOUNDARY.finditer(block):
            if match.start() < start:
                continue
            yield block[start : match.end()]
            start = match.end()
    if start < len(block):
        yield block[start:]


def data(event: bytes) -> bytes:
    """The data of one event: its `data:` lines joined by LF, one space behind the colon dropped; b"" when it has none."""
    if event.startswith(b"data: ") and event.find(b"\n") >= len(event) - 2 and b"\r" not in event:
        return event[6:].rstrip(b"\n")
    if (
        event[-4:] == b"\r\n\r\n"
        and event[:6] == b"data: "
        and event.find(b"\n") == len(event) - 3
        and event.find(b"\r") == len(event) - 4
    ):
        return event[6:-4]
    lines = (line for line in _LINE.split(event.removeprefix(_MARK)) if line.startswith(b"data:") or line == b"data")
    return b"\n".join(line[6:] if line[5:6] == b" " else line[5:] for line in lines)


def find(block: bytes, wanted: Callable[[bytes], bool]) -> int:
    """Where the first event of *block* begins whose data is *wanted*; -1 when there is none."""
    at = 0
    for event in split(block):
        if wanted(data(event)):
            return at
        at += len(event)
    return -1


class EventReader:
    """The data of server-sent events from blocks cut anywhere. Comments, names and empty events are skipped; an event of more
    than `limit` bytes is skipped, too (`skipped` counts them)."""

    __slots__ = ("_rest", "limit", "skipped")

    read = staticmethod(data)
    """What is kept of an event; one of which nothing is kept is skipped."""

    def __init__(self, limit: int = 16 * 1024 * 1024) -> None:
        self.limit = limit
        self.skipped = 0
        self._rest = bytearray()

    @property
    def idle(self) -> bool:
        """Whether the last block ended with a whole event: nothing is begun."""
        return not self._rest

    def feed(self, block: bytes) -> list[bytes]:
        """The data of each event that *block* ends."""
        rest = self._rest
        seam = bytes(rest[-3:])  # no boundary is longer than four bytes
        cut = last_boundary(seam + block) if seam else last_boundary(block)
        if not cut:
            rest += block
            if len(rest) > self.limit:
                self.skipped += 1
                rest.clear()
            return []
        if rest:
            cut += len(rest) - len(seam)
            rest += block
            block = bytes(memoryview(rest)[:cut])
            del rest[:cut]
        elif cut < len(block):
            rest += memoryview(block)[cut:]
            block = block[:cut]
        return [found for event in split(block) if (found := self.read(event))]

    def end(self) -> list[bytes]:
        """A stream that ends without its last empty line: what is left is an event all the same."""
        block = bytes(self._rest)
        self._rest.clear()
        return [found for event in split(block) if (found := self.read(event))]


class LineReader:
    """Lines (JSON values, one each) from blocks cut anywhere. A line of more than `limit` bytes is skipped."""

    __slots__ = ("_rest", "limit", "skipped")

    def __init__(self, limit: int = 16 * 1024 * 1024) -> None:
        self.limit = limit
        self.skipped = 0
        self._rest = bytearray()

    def feed(self, block: bytes) -> list[bytes]:
        cut = block.rfind(b"\n") + 1
        if not cut:
            self._rest += block
            if len(self._rest) > self.limit:
                self.skipped += 1
                self._rest.clear()
            return []
        whole = bytes(self._rest) + block[:cut]
        self._rest[:] = block[cut:]
        return [line for line in (line.strip() for line in whole.split(b"\n")) if line]

    def end(self) -> list[bytes]:
        line = bytes(self._rest).strip()
        self._rest.clear()
        return [line] if line else []

"""Knows a connection's head again. A client that keeps its connection sends the same head with each request, but for the
length of the body; reading it anew costs as much as all the rest of the front.

Nothing is parsed here: the same bytes mean what aiohttp's parser said they mean. A connection gets this far only while each
block that came was exactly one whole request, so that the parser never waits for the rest of something.
"""

from __future__ import annotations

import re

from aiohttp.http import RawRequestMessage

LONGEST = 8 * 1024
"""Bytes of a head that is remembered, for each connection."""

_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *([1-9][0-9]{0,8})(?=\r\n)", re.IGNORECASE)


class Whole:
    """A body that came whole with its head. Stands where aiohttp's payload would."""

    __slots__ = ("body",)

    def __init__(self, body: bytes) -> None:
        self.body = body

    def is_eof(self) -> bool:
        return True


class Repeat:
    """The head that a connection sent last."""

    __slots__ = ("_form", "message")

    def __init__(self, message: RawRequestMessage, form: bytes) -> None:
        """*message* is aiohttp's reading of it; *form* is its bytes with `%d` for the length. The length in *message* is that
        of the first request: the body's own is what counts."""
        self.message, self._form = message, form

    def body_of(self, block: bytes) -> bytes | None:
        """The body in *block* when *block* is this head again and a whole body behind it; else None."""
        head, _, body = block.partition(_END)
        return body if body and head == self._form % len(body) else None


def learn(block: bytes, message: RawRequestMessage) -> Repeat | None:
    """The head of *block*, when it is exactly one ordinary request that aiohttp read as *message*; else None."""
    end = block.find(_END, 0, LONGEST)
    if end < 0 or message.method != "POST" or message.upgrade or message.chunked or message.should_close:
        return None
    if "Content-Encoding" in message.headers or "Expect" in message.headers:
        return None
    length = _LENGTH.search(block, 0, end + 2)
    if length is None or len(block) - end - 4 != int(length[1]):
        return None
    before, after = block[: length.start(1)], block[length.end(1) : end]
    return Repeat(message, before.replace(b"%", b"%%") + b"%d" + after.replace(b"%", b"%%"))

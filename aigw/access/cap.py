"""A hard budget's end, in the middle of a stream: what a caller gets is counted, and beyond its hold (and a grace) it is cut.

Only streams of consumers with `hard = true` pass through here; nobody else's pay for it.
"""

from __future__ import annotations

from collections.abc import Callable

from aigw.errors import PolicyError
from aigw.exchange import Headers, Sink

GRACE = 1.05
"""A stream may bring so much more than was held; estimates of what has come are no better than that."""


class CapReachedError(PolicyError):
    """The stream has brought all that its budget held for it. `block` is the content block that is open (Anthropic's streams),
    -1 for none."""

    def __init__(self, block: int) -> None:
        super().__init__("policy_budget_exhausted", "The budget's end was reached; the answer is cut off here.")
        self.block = block


class Capped:
    """A sink that counts output tokens, by estimate, and calls *stop* once when there are more than *tokens* and the grace;
    from then on it takes nothing more."""

    def __init__(self, sink: Sink, tokens: int, count: Callable[[bytes, int], int], stop: Callable[[], object]) -> None:
        """*count* gives the tokens in a piece of a stream, and its length."""
        self._sink, self._most, self._count, self._stop = sink, tokens * GRACE, count, stop
        self._brought = 0
        self._block = -1
        self.reached = False

    @property
    def error(self) -> CapReachedError:
        return CapReachedError(self._block)

    @property
    def started(self) -> bool:
        return self._sink.started

    @property
    def status(self) -> int:
        return self._sink.status

    def begin(self, status: int, headers: Headers, length: int | None = None) -> None:
        self._sink.begin(status, headers, length)

    def write(self, block: bytes) -> bool:
        if self.reached:
            return False
        if b"content_block_st" in block:
            self._note_blocks(block)
        self._brought += self._count(block, len(block))
        slow = self._sink.write(block)
        if self._brought > self._most:
            self.reached = True
            self._stop()
            return False
        return slow

    def _note_blocks(self, block: bytes) -> None:
        """Which content block is open after these events."""
        at = max(block.rfind(b'"content_block_start"'), block.rfind(b'"content_block_stop"'))
        if at < 0:
            return
        if block.startswith(b'"content_block_stop"', at):
            self._block = -1
            return
        index = block.find(b'"index":', at)
        digits = block[index + 8 : index + 16].strip().split(b",")[0].split(b"}")[0].strip() if index >= 0 else b""
        self._block = int(digits) if digits.isdigit() else 0

    def end(self) -> None:
        if not self.reached:
            self._sink.end()

    def abort(self) -> None:
        self._sink.abort()

    def answer(self, status: int, headers: Headers, body: bytes) -> None:
        self._sink.answer(status, headers, body)

    def on_resume(self, callback: Callable[[], None]) -> None:
        self._sink.on_resume(callback)

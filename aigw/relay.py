"""Upstream bytes -> client bytes, by passthrough: what the provider sends goes on as it came, block by block, and only the
usage is tapped.

A relay is the `Receiver` of one attempt. It holds back just enough to keep retrying possible and errors clean:

- a stream's head waits for the first whole event, so that an error which comes first can still be tried elsewhere;
- only whole events are written, so that an error event of ours never lands inside half of theirs;
- a JSON answer waits until it is whole (up to `BUFFER`), so that garbage in a 200 is no answer.

The first byte to the client ends retrying. The last byte is the pipeline's to send, by `finish`, after the record is kept.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import perf_counter

import msgspec

from aigw.errors import UpstreamError
from aigw.exchange import Exchange, Flow, Headers, Sink
from aigw.protocols import framing, splice
from aigw.protocols.dialect import Dialect, Tap, Told
from aigw.protocols.operations import Operation
from aigw.providers.base import Provider

log = logging.getLogger("aigw.relay")

BUFFER = 8 * 1024 * 1024
"""Bytes of a JSON answer that are held until it is whole; a longer one begins to flow and can no longer be retried."""

EVENT = 4 * 1024 * 1024
"""Bytes of one event that are held until it is whole; a longer one flows in pieces, unread."""

ERROR = 64 * 1024
"""Bytes of an error answer that are kept; no provider has that much to say about one."""

PIECES = 1024
"""Blocks of a JSON answer that are kept as they came; then they are joined, or an answer of tiny blocks takes thirty times its
size."""

SAMPLE = 8192
"""Bytes of an answer's beginning that are kept to estimate its tokens from, should nobody report them."""

PASS_ON = (
    b"content-type",
    b"content-disposition",
    b"content-language",
    b"openai-processing-ms",
    b"openai-version",
    b"x-aigw-demo",
)
"""Headers of the provider's that the caller gets. Cookies, hop-by-hop headers and the account's rate limits are not its own."""


SHORTEST_KEY = 8
"""Bytes of a key that is looked for in answers. Shorter ones are placeholders for servers that want none."""

NO_KEY = b"\0no key\r\n\0of ours\n\r\0"
"""Stands where there is none: bytes that no header can hold and no answer has."""

RARE = frozenset(PASS_ON[1:])


class _NoTap:
    """Stands where there is no stream to watch."""

    told = Told()
    failed = b""
    begun = False
    last = b""

    def plain(self, block: bytes) -> bool:
        return True

    def look(self, block: bytes) -> bytes:
        return block


NO_TAP = _NoTap()

_CODINGS = (b"chunked", b"identity")
"""Transfer codings that are read. The parser takes more for framing's sake, and leaves what they code as it is."""


def feed_nothing(block: bytes) -> None:
    """After an answer was refused, before its head, and when all is over."""


class Relay:
    """One attempt's answer on its way to the caller. `feed` changes with what the head promises."""

    __slots__ = (
        "_begun",
        "_blocks",
        "_dialect",
        "_exchange",
        "_flow",
        "_hide_usage",
        "_known",
        "_operation",
        "_plain",
        "_provider",
        "_rename",
        "_rest",
        "_secret",
        "_sink",
        "_size",
        "_tap",
        "_torn",
        "_wire",
        "body",
        "error",
        "feed",
        "status",
        "streaming",
        "told",
        "upstream_headers",
    )

    def __init__(
        self,
        exchange: Exchange,
        sink: Sink,
        operation: Operation,
        dialect: Dialect,
        provider: Provider,
        wire: Headers,
        secret: bytes = b"",
        *,
        hide_usage: bool = False,
        rename: bool = False,
    ) -> None:
        """*wire* are our own headers for the caller; *secret* is our key, which no header may repeat to anybody; *hide_usage*
        keeps back the usage event that only we asked for; *rename* makes the answer name the requested model."""
        self._exchange, self._sink, self._operation, self._dialect = exchange, sink, operation, dialect
        self._provider, self._wire, self._hide_usage, self._rename = provider, wire, hide_usage, rename
        self._secret = secret if len(secret) >= SHORTEST_KEY else NO_KEY
        self._tap: Tap = NO_TAP
        self.told: Told = NO_TAP.told
        self.status = 0
        self.error: UpstreamError | None = None
        self.streaming = False
        self.body = b""
        self.feed: Callable[[bytes], None] = feed_nothing
        self.upstream_headers: Headers = []
        self._known: dict[bytes, bytes] = {}
        self._flow: Flow | None = None
        self._blocks: list[bytes | bytearray] = []
        self._size = 0
        self._rest: bytes | bytearray = b""
        self._torn = False  # part of an event has been sent, and its end has not
        self._begun = False
        self._plain = False  # nothing is special about the next events, unless the tap says so

    # the Receiver's part

    def head(self, status: int, headers: Headers, flow: Flow) -> None:
        self.status, self.upstream_headers, self._flow = status, headers, flow
        self._known = known = dict(headers)
        kind = known.get(b"content-type", b"").lower()
        its_id = known.get(b"x-request-id") or known.get(b"request-id")
        if its_id is not None and self._secret not in its_id:
            self._exchange.upstream_id = its_id.decode("ascii", "replace")[:128]
        if known.get(b"content-encoding", b"identity").lower() != b"identity":
            self._refuse_unless_error("compressed its answer although we asked it not to")
            return
        if known.get(b"transfer-encoding", b"chunked").lower() not in _CODINGS:
            self._refuse_unless_error("answered in a transfer coding that nobody asked for")
            return
        if not 200 <= status < 300:
            self.feed = self._feed_error
        elif kind.startswith(b"text/event-stream"):
            self.streaming = True
            self._tap = tap = self._dialect.tap(hide_usage=self._hide_usage)
            self.told = tap.told
            self.feed = self._feed_events
        elif kind.startswith(b"text/html"):
            self._refuse("answered with a web page instead of an API answer")
        elif self._operation.binary or (self._operation.mixed and b"json" not in kind):
            self.feed = self._feed_bytes
        elif self._operation.name == "generate_array":
            self.streaming = True
            self._tap = tap = self._dialect.tap(hide_usage=False)
            self.told = tap.told
            self.feed = self._feed_array
        else:
            self.feed = self._feed_json

    def _feed_error(self, block: bytes) -> None:
        if self._size < ERROR:
            self._blocks.append(block[: ERROR - self._size])
            self._size += len(block)
        elif self._flow is not None:
            self._flow.stop()

    def _feed_json(self, block: bytes) -> None:
        self._blocks.append(block)
        self._size += len(block)
        if self._size > BUFFER:
            if self._operation.placed:  # a list must be looked through before anybody sees it
                self._refuse("answered with more than can be looked through")
                return
            whole = b"".join(self._blocks)
            self._blocks = []
            self.feed = self._feed_bytes
            self._feed_bytes(whole)
        elif len(self._blocks) > PIECES:
            self._gather()

    def _gather(self) -> None:
        first, *others = self._blocks
        whole = first if isinstance(first, bytearray) else bytearray(first)
        whole += b"".join(others)
        self._blocks = [whole]

    def _feed_bytes(self, block: bytes) -> None:
        if not self._begun:
            self._begun = True
            self._exchange.first_token_at = perf_counter()
            self._sink.begin(self.status, self.headers(), self._length())
        self._write(block)

    def _feed_events(self, block: bytes) -> None:
        if self._plain and block[-2:] == b"\n\n" and self._tap.plain(block):  # nearly all of them: content and nothing else
            exchange = self._exchange
            exchange.bytes_out += len(block)
            if self._sink.write(block):
                self._wait_for_caller()
            return
        if self._rest or block[-2:] != b"\n\n":
            block = self._whole_events(block)
            if not block:
                return
        block = self._looked_at(self._tap.look(block))
        if not block:
            return
        exchange = self._exchange
        exchange.bytes_out += len(block)
        if self._sink.write(block):
            self._wait_for_caller()

    def _feed_array(self, block: bytes) -> None:
        """A stream that is one JSON array: the tap knows where its elements end."""
        block = self._looked_at(self._tap.look(block))
        if block:
            self._write(block)

    def _looked_at(self, block: bytes) -> bytes:
        """What is not so for every event: the first ones, the last one, an error; and names to be replaced."""
        tap, exchange = self._tap, self._exchange
        if tap.failed:
            self._failed()
        elif tap.last:
            self._ended()
        if tap.begun and not exchange.first_token_at:
            exchange.first_token_at = perf_counter()
        if not block:
            return b""
        if not self._begun:
            self._begin_stream()
        if self._secret in block:
            block = self._without_key(block)
        if self._rename:
            block = self._renamed(block)
        if exchange.bytes_out < SAMPLE:
            exchange.sample += block
        self._plain = tap.begun and exchange.bytes_out >= SAMPLE and not self._rename and not self._rest
        return block

    def _without_key(self, block: bytes) -> bytes:
        """A provider that repeats our key in a good answer (an echo server at its address, say): as many bytes of something
        else. Sought in whole answers, and in streams until they are plain content, of which each event has a word or two."""
        log.warning("request %s: the provider %r repeated its key in an answer", self._exchange.id, self._provider.name)
        return block.replace(self._secret, b"[redacted]".ljust(len(self._secret), b"*")[: len(self._secret)])

    def _begin_stream(self) -> None:
        self._begun = self._exchange.streaming = True
        self._sink.begin(self.status, self.headers())

    def _write(self, block: bytes) -> None:
        exchange = self._exchange
        if self._secret in block:
            block = self._without_key(block)
        if exchange.bytes_out < SAMPLE:
            exchange.sample += block
        exchange.bytes_out += len(block)
        if self._sink.write(block):
            self._wait_for_caller()

    def _wait_for_caller(self) -> None:
        if self._flow is not None:
            self._flow.pause()
            self._sink.on_resume(self._resume)

    def _resume(self) -> None:
        if self._flow is not None:
            self._flow.resume()

    def _whole_events(self, block: bytes) -> bytes:
        """What of *block*, and of what was held before it, is whole; the rest is held. Only what is new is searched and copied:
        an event of megabytes may come byte by byte."""
        self._plain = False
        held = self._rest
        seam = bytes(held[-3:])  # no boundary is longer than four bytes
        cut = framing.last_boundary(seam + block) if seam else framing.last_boundary(block)
        if cut:
            cut += len(held) - len(seam)
            self._torn = False
        elif len(held) + len(block) > EVENT:
            cut = len(held) + len(block)
            self._torn = True
        if not held:
            self._rest = block[cut:] and bytearray(block[cut:])
            return block[:cut]
        held = held if isinstance(held, bytearray) else bytearray(held)
        held += block
        self._rest = held
        if not cut:
            return b""
        whole = bytes(memoryview(held)[:cut])
        del held[:cut]
        return whole

    def _failed(self) -> None:
        """An error event ends the stream: before the first byte it fails the attempt, after it the caller gets it, cleaned."""
        self.error = self._provider.judge(200, [], self._tap.failed, None)
        self.feed = feed_nothing
        self._rest = b""
        if self._flow is not None:
            self._flow.stop()

    def _ended(self) -> None:
        """The dialect says that this was all: what may come of the connection is not waited for."""
        self._exchange.bytes_out += len(self._tap.last)
        self.feed = feed_nothing
        self._rest = b""
        if self._flow is not None:
            self._flow.complete()

    def _refuse(self, why: str) -> None:
        self.error = UpstreamError(
            "provider_bad_response", why, upstream_status=self.status, fault="deployment", may_retry=True
        )
        self.feed = feed_nothing
        if self._flow is not None:
            self._flow.stop()

    def _refuse_unless_error(self, why: str) -> None:
        """An error whose body cannot be read is judged by its status."""
        if 200 <= self.status < 300:
            self._refuse(why)
        elif self._flow is not None:
            self._flow.stop()

    def _renamed(self, block: bytes) -> bytes:
        """The answer's model replaced in each event. Inside strings quotes are escaped, so only a member can match."""
        encode = msgspec.json.encode
        member = b'"%b"' % self._dialect.names_model.encode()
        old, new = encode(self.told.model), encode(self._exchange.requested_model)
        for colon in (b":", b": "):
            block = block.replace(member + colon + old, member + colon + new)
        return block

    # the pipeline's part

    @property
    def started(self) -> bool:
        """Whether the caller has seen a byte: then nothing can be retried."""
        return self._begun

    def complete(self) -> None:
        """The provider's answer has ended: read what it tells. Sets `error` when it is no answer."""
        self._flow = None  # the connection may serve another by now
        if self.error is not None or not self.status:
            return
        self._torn = False
        if not 200 <= self.status < 300:
            self.body = b"".join(self._blocks)
        elif self.streaming:
            if self._rest:
                rest, self._rest = bytes(self._rest), b""
                self._last_events(rest)
            if not self._begun and not self._tap.last and self.error is None:
                self._refuse("ended its stream before it began")
        elif not self._begun and not self._operation.binary:
            self.body = b"".join(self._blocks)
            if self._secret in self.body:
                self.body = self._without_key(self.body)
            try:
                self.told = self._dialect.read_answer(self.body)
            except ValueError:
                if self.body or not self._operation.mixed:
                    self._refuse("answered with something that is no JSON object")

    def _last_events(self, rest: bytes) -> None:
        """A stream that ends without its last empty line: what is left is an event all the same."""
        rest = self._tap.look(rest)
        if self._tap.failed:
            self._failed()
        if rest:
            if not self._begun:
                self._begin_stream()
            self._write(self._renamed(rest) if self._rename else rest)

    def let_go(self) -> None:
        """Nothing more is fed. A bound method in `feed` is a cycle: it would keep the whole exchange until a collection finds
        it, and the collections cost a fifth of a request."""
        self.feed = feed_nothing
        self._flow = None
        if self._torn:  # what follows is an event of ours, not the end of theirs
            self._sink.write(b"\n\n")

    def finish(self) -> None:
        """Send what is left of a good answer: all of it when it was held, else its end."""
        last = self._tap.last
        if last:
            if not self._begun:
                self._begin_stream()
            self._sink.write(self._renamed(last) if self._rename else last)
            self._sink.end()
        elif self._begun:
            self._sink.end()
        elif self._operation.binary:
            self._sink.answer(self.status, self.headers(), b"")
        else:
            body = self.body
            if self._rename and self.told.model:
                try:
                    member = self._dialect.names_model
                    body = splice.set_value(body, member, self._exchange.requested_model, self.told.model)
                except ValueError:
                    pass  # it names its model twice: the provider's own business
            self._sink.answer(self.status, self.headers(), body)

    def headers(self) -> Headers:
        """The caller's: ours, and of the provider's those that are the caller's business."""
        known, secret, run = self._known, self._secret, self._exchange.run
        if known.keys().isdisjoint(RARE):
            kind = known.get(b"content-type", secret)
            ours = self._wire if secret in kind else [(b"content-type", kind), *self._wire]
        else:
            ours = [*[(name, known[name]) for name in PASS_ON if name in known and secret not in known[name]], *self._wire]
        return ours if run is None else run.head(ours)

    def _length(self) -> int | None:
        length = self._known.get(b"content-length", b"")
        return int(length) if length.isdigit() else None

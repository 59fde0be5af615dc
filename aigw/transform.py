"""Upstream bytes -> client bytes, by translation: what the provider sends is read into canonical words and written in the shape
the caller speaks, event by event as it arrives.

A transform is a relay whose two sides differ. It is pushed like the passthrough - no task, no queue - and keeps its promises:
an error that comes before any content can still be tried elsewhere, a slow caller pauses the provider, the last event waits for
the record. Where one side streams and the other does not, the answer is put together, or taken apart (`assembly.py`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from time import perf_counter
from typing import Any

from aigw.canonical import Answer, Event
from aigw.errors import GatewayError, UpstreamError
from aigw.exchange import Exchange, Flow, Headers, Sink, Usage
from aigw.plugins.run import Run
from aigw.protocols import DIALECTS
from aigw.protocols.operations import Operation
from aigw.protocols.translation import translator
from aigw.protocols.translation.assembly import Assembly, events_of
from aigw.protocols.translation.contract import Reply, Shape, StreamParser, StreamRenderer, Translator
from aigw.protocols.translation.restoring import restoring
from aigw.providers.base import Provider
from aigw.relay import SAMPLE, Relay, feed_nothing

LARGEST = 64 * 1024 * 1024
"""Bytes of a whole answer that are translated: it has to be held. (Images come in answers of some megabytes.)"""

AHEAD = 32
"""Blocks of a stream that wait for a plugin which waits for somebody; then the provider has to wait as well."""


class Transform(Relay):
    """One attempt's answer on its way into another shape."""

    __slots__ = (
        "_ahead",
        "_assembly",
        "_back",
        "_front",
        "_held",
        "_parser",
        "_pump",
        "_renderer",
        "_reply",
        "_restoring",
        "_run",
        "_streams",
        "_waits",
        "answer",
        "refused",
    )

    def __init__(
        self,
        exchange: Exchange,
        sink: Sink,
        operation: Operation,
        provider: Provider,
        wire: Headers,
        secret: bytes,
        *,
        front: Translator,
        back: Shape,
        reply: Reply,
        run: Run | None = None,
    ) -> None:
        """*front* writes for the caller, *back* reads the provider; *wire* are our own headers for the caller; *run* are the
        plugins that read the answer."""
        super().__init__(exchange, sink, operation, DIALECTS[front.dialect], provider, wire, secret)
        self._front, self._back, self._reply = front, back, reply
        self._restoring = restoring(reply.request)
        self._streams = exchange.stream  # the caller's side of it
        self._parser: StreamParser | None = None
        self._renderer: StreamRenderer | None = None
        self._assembly: Assembly | None = None
        self._held = b""  # written, and waiting for the first content
        self._run = run
        self._waits = run is not None and run.waits
        self._ahead: deque[Sequence[Event]] = deque()
        self._pump: asyncio.Task[None] | None = None
        self.answer: Answer | None = None  # a whole one that plugins have to see
        self.refused: GatewayError | None = None  # what a plugin said to it

    # the Receiver's part

    def head(self, status: int, headers: Headers, flow: Flow) -> None:
        super().head(status, headers, flow)
        if self.error is not None or not 200 <= status < 300:
            return
        kind = self._known.get(b"content-type", b"").lower()
        self.streaming = self._back.streams and (self._asked_for_stream(kind))
        if not self.streaming:
            self.feed = self._feed_whole
            return
        self._parser = parser = self._back.parser()
        self.told = parser.told
        self.feed = self._feed_pieces
        if self._streams and not (self._run is not None and self._run.buffers):
            self._renderer = self._front.renderer(self._reply)
        else:
            self._assembly = Assembly()

    def _asked_for_stream(self, kind: bytes) -> bool:
        """Some servers call a stream plain text; some answer a request for a stream with a whole JSON answer."""
        if kind.startswith(self._back.content_type):
            return True
        return self._streams and not kind.startswith(b"application/json")

    def _feed_whole(self, block: bytes) -> None:
        self._blocks.append(block)
        self._size += len(block)
        if self._size > LARGEST:
            self._refuse("sent an answer that is too large to be translated")
        elif len(self._blocks) > 1024:
            self._gather()

    def _feed_pieces(self, block: bytes) -> None:
        parser = self._parser
        assert parser is not None
        self._pass(parser.feed(block), parser)

    def _pass(self, events: list[Event], parser: StreamParser) -> None:
        exchange = self._exchange
        if parser.begun and not exchange.first_token_at:
            exchange.first_token_at = perf_counter()
        if events:
            try:
                self._write_events(events, parser)
            except GatewayError as refused:  # something in the answer that the caller's shape must not leave out
                self._refuse(refused.message)
                return
        if self.refused is not None:
            return
        if parser.failed:
            self.error = self._provider.judge(200, [], parser.failed, None)
            self.feed = feed_nothing
            if self._flow is not None:
                self._flow.stop()
        elif parser.done:
            self.feed = feed_nothing
            if self._flow is not None:
                self._flow.complete()

    def _write_events(self, events: list[Event], parser: StreamParser) -> None:
        if self._restoring is not None:
            events = self._restoring.events(events)
        if self._assembly is not None:
            self._assembly.add(events)
            return
        run = self._run
        if run is None:
            self._render(events, parser)
        elif self._waits:
            self._queue(events)
        else:
            try:
                heard = run.events(events)
            except GatewayError as refused:
                self._stop(refused)
                return
            if heard:
                self._render(heard, parser)
            if run.ended:
                self._end_early()

    def _stop(self, refused: GatewayError) -> None:
        """A plugin refuses what comes: it is no failure of the provider's."""
        self.refused = refused
        self.feed = feed_nothing
        if self._flow is not None:
            self._flow.stop()

    def _end_early(self) -> None:
        """A plugin has ended the stream with words of its own."""
        assert self._parser is not None
        self._parser.told.finish_reason = "content_filter"
        self.feed = feed_nothing
        if self._flow is not None:
            self._flow.stop()

    def _queue(self, events: Sequence[Event]) -> None:
        self._ahead.append(events)
        if self._pump is None or self._pump.done():
            self._pump = asyncio.get_running_loop().create_task(self._pumping())
        if len(self._ahead) > AHEAD and self._flow is not None:
            self._flow.pause()

    async def _pumping(self) -> None:
        """What plugins let pass, as soon as they do."""
        run, parser = self._run, self._parser
        assert run is not None
        assert parser is not None
        while self._ahead:
            try:
                heard = await run.events_waiting(self._ahead.popleft())
                if heard and self.refused is None:
                    self._render(heard, parser)
            except GatewayError as refused:
                self._ahead.clear()
                self._stop(refused)
                return
            if run.ended:
                self._ahead.clear()
                self._end_early()
                return
            if len(self._ahead) == AHEAD // 2:
                self._resume()

    async def pumped(self) -> None:
        """The provider's stream has ended: what still waits for a plugin. Before `complete`."""
        parser = self._parser
        if self.error is None and self.refused is None and parser is not None and not parser.done:
            self._pass(parser.end(), parser)
        if self._pump is not None:
            await self._pump

    def let_go(self) -> None:
        super().let_go()
        if self._pump is not None:
            self._pump.cancel()  # the caller has gone, or all is said
            self._pump = None

    def _render(self, events: Sequence[Event], parser: StreamParser) -> None:
        renderer = self._renderer
        assert renderer is not None
        block = renderer.render(events)
        if self._held:
            block, self._held = self._held + block, b""
        if not block:
            return
        if not self._begun:
            if not (parser.begun or parser.told.finish_reason):
                self._held = block  # an error may come first: then another target is tried
                return
            self._begin_stream()
        self._write(block)

    # the pipeline's part

    def complete(self) -> None:
        self._flow = None
        if self.error is not None or not self.status:
            return
        if not 200 <= self.status < 300:
            self.body = b"".join(self._blocks)
        elif self.streaming:
            self._complete_stream()
        else:
            self._complete_whole(b"".join(self._blocks))

    def _complete_stream(self) -> None:
        parser = self._parser
        assert parser is not None
        if self.refused is not None or (self._run is not None and self._run.ended):
            return
        if not parser.done and not self._waits:
            self._pass(parser.end(), parser)
        if self.error is not None or self.refused is not None:
            return
        if not parser.done and not parser.told.finish_reason:
            began = self._begun or parser.begun
            what = "broke off its answer" if began else "ended its stream before it began"
            self.error = UpstreamError(
                "provider_bad_response", what, upstream_status=self.status, fault="deployment", may_retry=True
            )
        elif self._assembly is not None:
            self._whole(self._assembly.done())

    def _complete_whole(self, body: bytes) -> None:
        failed = self._provider.error_in_body(body)
        if failed is not None:
            self.error = failed
            return
        try:
            answer, self.told = self._back.parse_answer(body)
        except (ValueError, RecursionError):
            self._refuse("answered with something that is no answer of its API")
            return
        if self._restoring is not None:
            self._restoring.answer(answer)
        self._whole(answer)

    async def heard(self) -> None:
        """A whole answer, as plugins want it. Raises GatewayError, AskAgain."""
        if self.refused is not None:
            raise self.refused
        if self.answer is not None and self._run is not None:
            answer, run = await self._run.answer(self.answer), self._run
            self.answer = self._run = None
            self._whole(answer)
            self._run = run

    def _whole(self, answer: Any) -> None:
        if self._run is not None:
            self.answer = answer
            return
        try:
            if self._streams:
                self._renderer = self._front.renderer(self._reply)
                self._held = self._renderer.render(events_of(answer))
                return
            body = self._front.render_answer(answer, self._reply)
        except GatewayError as refused:
            self._refuse(refused.message)
            return
        self.body = self._without_key(body) if self._secret in body else body

    def finish(self) -> None:
        if not self._streams:
            self._sink.answer(200, self.headers(), self.body)
            return
        renderer = self._renderer
        assert renderer is not None
        if not self._begun:
            self._begin_stream()
        last = self._held + renderer.end()
        self._held = b""
        exchange = self._exchange
        exchange.bytes_out += len(last)
        if exchange.bytes_out < SAMPLE:
            exchange.sample += last
        if last:
            self._sink.write(self._without_key(last) if self._secret in last else last)
        self._sink.end()

    def headers(self) -> Headers:
        kind = self._front.content_type if self._streams else b"application/json"
        ours = [(b"content-type", kind), *self._wire]
        run = self._exchange.run
        return ours if run is None else run.head(ours)


class Given:
    """An answer that no provider gave, on its way into the caller's shape: a plugin's."""

    __slots__ = ("_exchange", "_sink", "_wire", "body")

    def __init__(self, exchange: Exchange, sink: Sink, wire: Headers) -> None:
        """*wire*: headers for the caller besides those of the exchange."""
        self._exchange, self._sink = exchange, sink
        self._wire = [*wire, *(exchange.wire or ())]
        self.body = b""

    async def take(self, answer: Answer | bytes, operation: Operation, run: Run) -> None:
        """Plugins that saw the request before whoever answered it see the answer after. Raises GatewayError."""
        exchange = self._exchange
        exchange.status, exchange.usage, exchange.cost = 200, Usage(), 0
        if isinstance(answer, Answer):
            answer = await run.answer(answer)
            exchange.answer_model = answer.model
            exchange.finish_reason = answer.choices[0].finish if answer.choices else ""
            answer = run.write(answer)
        self.body = answer
        kind = translator(operation.name).content_type if exchange.stream else b"application/json"
        self._wire.insert(0, (b"content-type", kind))
        exchange.bytes_out = len(answer)
        exchange.first_token_at = perf_counter()

    def finish(self) -> None:
        if not self._exchange.stream:
            self._sink.answer(200, self._wire, self.body)
            return
        self._exchange.streaming = True
        self._sink.begin(200, self._wire)
        self._sink.write(self.body)
        self._sink.end()

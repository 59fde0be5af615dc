"""The relay, fed as a connection feeds it, in front of a sink that remembers: what reaches the caller is what the provider
sent, however the network cut it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from itertools import pairwise

import pytest
from hypothesis import given, settings, strategies as st

from aigw import relay as room
from aigw.config import schema
from aigw.exchange import Exchange, Headers, Sink
from aigw.protocols import DIALECTS, framing
from aigw.protocols.operations import OPERATIONS
from aigw.providers.compatible import build
from aigw.relay import Relay
from tests.recordings import RECORDINGS, Recording

PROVIDER = build("openai", schema.Provider(), schema.Upstream(), ("sk-upstream-0123456789",))
OPERATION = {"openai_chat": "chat", "openai_responses": "responses", "anthropic_messages": "messages", "gemini": "generate"}
EVENTS: Headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
JSON: Headers = [(b"content-type", b"application/json")]


class Kept(Sink):
    """Remembers what the caller gets. `slow` is set by the test."""

    def __init__(self) -> None:
        self.begun: list[tuple[int, Headers, int | None]] = []
        self.blocks: list[bytes] = []
        self.ended = False
        self.slow = False
        self.waiting: list[Callable[[], None]] = []

    @property
    def started(self) -> bool:
        return bool(self.begun)

    @property
    def status(self) -> int:
        return self.begun[0][0] if self.begun else 0

    def begin(self, status: int, headers: Headers, length: int | None = None) -> None:
        assert not self.begun
        self.begun.append((status, headers, length))

    def write(self, block: bytes) -> bool:
        assert self.begun
        assert not self.ended
        self.blocks.append(block)
        return self.slow

    def end(self) -> None:
        assert self.begun
        self.ended = True

    def abort(self) -> None:
        raise AssertionError("a relay never cuts")

    def answer(self, status: int, headers: Headers, body: bytes) -> None:
        self.begin(status, headers, len(body))
        self.blocks.append(body)
        self.ended = True

    def on_resume(self, callback: Callable[[], None]) -> None:
        self.waiting.append(callback)

    @property
    def body(self) -> bytes:
        return b"".join(self.blocks)


class Connection:
    """The flow: remembers what it is told, and feeds nothing once it was stopped."""

    def __init__(self) -> None:
        self.paused = self.stopped = False
        self.told: list[str] = []

    def pause(self) -> None:
        self.paused = True
        self.told.append("pause")

    def resume(self) -> None:
        self.paused = False
        self.told.append("resume")

    def stop(self) -> None:
        self.stopped = True
        self.told.append("stop")

    def complete(self) -> None:
        self.stopped = True
        self.told.append("complete")


def made(
    operation: str = "chat", *, hide_usage: bool = False, rename: bool = False, model: str = "wanted"
) -> tuple[Relay, Kept, Exchange]:
    chosen = OPERATIONS[operation]
    sink = Kept()
    exchange = Exchange("req_1", 0.0, operation=operation, dialect=chosen.dialect, headers={}, requested_model=model)
    dialect = DIALECTS[chosen.dialect]
    wire: Headers = [(b"x-aigw-provider", b"openai")]
    return Relay(exchange, sink, chosen, dialect, PROVIDER, wire, hide_usage=hide_usage, rename=rename), sink, exchange


def play(relay: Relay, blocks: Iterable[bytes], headers: Headers = EVENTS, status: int = 200) -> Connection:
    """A whole answer, as a connection would feed it; then its end, as the walk would say it."""
    connection = Connection()
    relay.head(status, headers, connection)
    for block in blocks:
        if connection.stopped:
            break
        if block:
            relay.feed(block)
    relay.complete()
    if relay.error is None and 200 <= relay.status < 300:
        relay.finish()
    return connection


# --- streams ----------------------------------------------------------------------------------------------------------


def check(recording: Recording, blocks: Iterable[bytes], *, hide_usage: bool) -> None:
    """Whatever the cuts: the same bytes, the same facts."""
    relay, sink, exchange = made(OPERATION[recording.dialect], hide_usage=hide_usage)
    connection = play(relay, blocks)
    shown = recording.shown(hide_usage=hide_usage)
    assert sink.body == shown
    assert relay.told.usage == recording.usage
    assert relay.told.model == recording.model
    assert relay.told.finish_reason == recording.finish_reason
    assert relay.started == exchange.streaming == bool(shown)
    assert exchange.bytes_out == len(shown)
    if recording.error_event is None:
        assert relay.error is None
        assert sink.ended
        assert exchange.first_token_at or recording.name in ("images", "blocked", "empty_stop")
    else:
        assert relay.error is not None
        assert relay.error.code.startswith("provider_")
        assert not sink.ended
        assert connection.stopped or not recording.stream.endswith(recording.events[-1])


STREAMS = [
    pytest.param(recording, hide_usage, id=f"{recording.dialect}-{recording.name}-{'hide' if hide_usage else 'show'}")
    for recording in RECORDINGS
    for hide_usage in ((False, True) if recording.hidden_event is not None else (False,))
]


@pytest.mark.parametrize(("recording", "hide_usage"), STREAMS)
def test_a_stream_cut_anywhere(recording: Recording, hide_usage: bool) -> None:
    """Cut at each byte in turn, and into single bytes."""
    stream = recording.stream
    for cut in range(len(stream)):
        check(recording, (stream[:cut], stream[cut:]), hide_usage=hide_usage)
    check(recording, (stream[at : at + 1] for at in range(len(stream))), hide_usage=hide_usage)


@given(st.sampled_from(RECORDINGS), st.lists(st.integers(0, 1500), max_size=12))
@settings(max_examples=300)
def test_a_stream_cut_into_many(recording: Recording, cuts: list[int]) -> None:
    """Cut in any number of places."""
    size = len(recording.stream)
    edges = [0, *sorted(min(cut, size) for cut in cuts), size]
    blocks = [recording.stream[start:end] for start, end in pairwise(edges)]
    check(recording, blocks, hide_usage=recording.hidden_event is not None)


def test_only_whole_events_are_written() -> None:
    """At any moment what the caller has ends with an event's end, so that an event of ours can follow."""
    recording = next(one for one in RECORDINGS if one.name == "extra_chunk")
    relay, sink, _ = made()
    relay.head(200, EVENTS, Connection())
    for at in range(len(recording.stream)):
        relay.feed(recording.stream[at : at + 1])
        assert not sink.blocks or sink.body.endswith(b"\n\n")


@pytest.mark.parametrize(
    ("operation", "before", "last"),
    [
        ("chat", b'data: {"model":"m","choices":[{"delta":{"content":"hi"},"finish_reason":"stop"}]}\n\n', b"data: [DONE]\n\n"),
        (
            "messages",
            b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{}}\n\n',
            b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
        ),
        (
            "responses",
            b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"hi"}\n\n',
            b'event: response.completed\ndata: {"type":"response.completed","response":{"status":"completed"}}\n\n',
        ),
    ],
)
def test_the_last_event_is_sent_by_finish(operation: str, before: bytes, last: bytes) -> None:
    """Many callers hang up when they have read it: it goes out when the record is kept. The provider is not waited for."""
    relay, sink, exchange = made(operation)
    connection = Connection()
    relay.head(200, EVENTS, connection)
    relay.feed(before + last)
    assert sink.body == before
    assert connection.told == ["complete"]
    assert exchange.bytes_out == len(before + last)
    relay.feed(b": a comment behind the end\n\n")
    relay.complete()
    assert relay.error is None
    assert not sink.ended
    relay.finish()
    assert sink.body == before + last
    assert sink.ended


def test_an_error_first_leaves_the_caller_untouched() -> None:
    """Nothing was begun: another target may still be tried, and the error says whether it may."""
    relay, sink, _ = made()
    error = b'data: {"error":{"message":"Rate limited","type":"rate_limit_error","code":"rate_limit_exceeded"}}\n\n'
    connection = play(relay, [error, b"data: [DONE]\n\n"])
    assert connection.stopped
    assert not sink.started
    assert not relay.started
    assert relay.error is not None
    assert (relay.error.code, relay.error.may_retry) == ("provider_rate_limited", True)


def test_an_error_behind_content_in_one_block() -> None:
    """What came before it is written whole, it itself is not, nor what follows."""
    relay, sink, _ = made("messages")
    before = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0}\n\n'
    error = b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}\n\n'
    play(relay, [before * 3 + error + before])
    assert sink.body == before * 3
    assert not sink.ended
    assert relay.error is not None
    assert relay.error.code == "provider_overloaded"


@pytest.mark.parametrize("blocks", [[], [b"data: {"[:0]]], ids=["none", "empty"])
def test_an_empty_stream_is_no_answer(blocks: list[bytes]) -> None:
    """It may be tried elsewhere."""
    relay, sink, _ = made()
    play(relay, blocks)
    assert relay.error is not None
    assert (relay.error.code, relay.error.may_retry) == ("provider_bad_response", True)
    assert not sink.started


@given(st.lists(st.binary(max_size=12).map(lambda raw: bytes(b"\n\ra"[byte % 3] for byte in raw)), max_size=12))
def test_the_end_of_an_event_across_blocks(blocks: list[bytes]) -> None:
    """An empty line is found wherever the blocks are cut, in any mix of line ends; and nothing is lost."""
    relay, _, _ = made()
    sent = b""
    for block in filter(None, blocks):
        sent += relay._whole_events(block)
        assert framing.last_boundary(bytes(relay._rest)) == 0
    assert sent + bytes(relay._rest) == b"".join(blocks)


def test_an_event_in_a_million_pieces_is_linear() -> None:
    """Four times the event takes some four times as long, not sixteen times."""

    def seconds(size: int) -> float:
        relay, _, _ = made()
        relay.head(200, EVENTS, Connection())
        began = time.perf_counter()
        for _ in range(size):
            relay.feed(b"x")
        return time.perf_counter() - began

    seconds(1000)
    assert min(seconds(200_000) for _ in range(3)) < 10 * min(seconds(50_000) for _ in range(3))


@pytest.mark.parametrize("status", [429, 503])
def test_an_error_that_cannot_be_read_keeps_its_status(status: int) -> None:
    """Compressed: it is judged by its status, and not taken for an answer of nonsense."""
    relay, _, _ = made()
    connection = play(relay, [b"\x1f\x8b"], [*JSON, (b"content-encoding", b"gzip")], status)
    assert (relay.error, relay.body, connection.stopped) == (None, b"", True)


def test_a_json_answer_of_tiny_blocks() -> None:
    """Many blocks are joined on the way; the answer is the same."""
    body = json.dumps({"model": "m", "text": "x" * 9000}).encode()
    relay, sink, _ = made()
    play(relay, [body[at : at + 2] for at in range(0, len(body), 2)], JSON)
    assert sink.body == body


def test_our_event_stands_apart_from_half_of_theirs() -> None:
    """When part of an event has gone out and the connection breaks, an empty line comes before what we say."""
    relay, sink, _ = made()
    relay.head(200, EVENTS, Connection())
    relay.feed(b"data: " + b"x" * room.EVENT)
    relay.let_go()
    assert sink.body.endswith(b"x\n\n")


def test_a_huge_event_flows() -> None:
    """One event of more than `EVENT` bytes is not held for ever, and arrives byte for byte."""
    relay, sink, _ = made("images")
    event = b'data: {"b64_json":"' + b"A" * (room.EVENT + 500_000) + b'"}\n\n'
    stream = event + b"data: {}\n\n"
    play(relay, [stream[at : at + 65536] for at in range(0, len(stream), 65536)])
    assert sink.body == stream
    assert sink.ended
    assert len(sink.blocks) > 1


@pytest.mark.parametrize("cut", [1, 7, 10_000])
@pytest.mark.parametrize("last", [b"\n\n", b""], ids=["whole", "unfinished"])
def test_a_stream_that_names_the_requested_model(cut: int, last: bytes) -> None:
    """In each event, as a member; the word in a text stays what it is."""
    theirs = b'{"model":"gpt-5-x","choices":[{"delta":{"content":"\\"model\\":\\"gpt-5-x\\""}}],"x":{"model": "gpt-5-x"}}'
    ours = theirs.replace(b'"model":"gpt-5-x"', b'"model":"my/\xe6\xa8\xa1"').replace(
        b'"model": "gpt-5-x"', b'"model": "my/\xe6\xa8\xa1"'
    )
    stream = b"data: " + theirs + b"\n\ndata: " + theirs + last
    relay, sink, _ = made(rename=True, model="my/模")
    play(relay, [stream[at : at + cut] for at in range(0, len(stream), cut)])
    assert sink.body == b"data: " + ours + b"\n\ndata: " + ours + last
    assert relay.told.model == "gpt-5-x"


# --- whole answers ----------------------------------------------------------------------------------------------------

ANSWER = b'{"model": "gpt-5-x", "choices": [{"finish_reason": "stop"}], "usage": {"prompt_tokens": 3, "completion_tokens": 4}}'


@pytest.mark.parametrize("cut", [1, 30, 1000])
def test_a_json_answer(cut: int) -> None:
    """Held until it is whole and known to be one, then sent in one write, as it came."""
    relay, sink, exchange = made()
    connection = Connection()
    relay.head(200, JSON, connection)
    for at in range(0, len(ANSWER), cut):
        relay.feed(ANSWER[at : at + cut])
        assert not sink.started
    relay.complete()
    assert not relay.started
    assert relay.error is None
    assert relay.told.usage is not None
    assert (relay.told.usage.input, relay.told.usage.output, relay.told.finish_reason) == (3, 4, "stop")
    relay.finish()
    assert sink.begun == [(200, [*JSON, (b"x-aigw-provider", b"openai")], len(ANSWER))]
    assert sink.body == ANSWER
    assert sink.ended
    assert not exchange.streaming


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (ANSWER, ANSWER.replace(b"gpt-5-x", b"wanted")),
        (b'{"a":{"model":"m"},"model":"m"}', b'{"a":{"model":"m"},"model":"wanted"}'),
        (b'{"choices":[]}', b'{"choices":[]}'),
        (b'{"model":"a","model":"b","x":"\xff"}', b'{"model":"a","model":"b","x":"\xff"}'),
        (b'{"\xff":1,"a":"model","model":"m"}', b'{"\xff":1,"a":"model","model":"wanted"}'),
    ],
)
def test_a_json_answer_that_names_the_requested_model(body: bytes, expected: bytes) -> None:
    """At its top level; one that cannot be edited goes as it is."""
    relay, sink, _ = made(rename=True)
    play(relay, [body], JSON)
    assert sink.body == expected


def test_a_json_answer_too_large_to_hold() -> None:
    """Beyond `BUFFER` it begins to flow: byte for byte, with the length it came with, and no longer to be retried."""
    body = b'{"data":"' + b"A" * (room.BUFFER + 100_000) + b'"}'
    relay, sink, exchange = made("images")
    play(relay, [body[at : at + 65536] for at in range(0, len(body), 65536)], [*JSON, (b"content-length", b"%d" % len(body))])
    assert relay.started
    assert relay.error is None
    assert sink.body == body
    assert sink.begun[0][2] == len(body)
    assert sink.ended
    assert room.SAMPLE <= len(exchange.sample) <= room.BUFFER + 65536


@pytest.mark.parametrize("body", [b"", b"garbage", b"[1]", b'"x"', b"null", b'{"a":', b"\xff\xfe", b"upstream connect error"])
@pytest.mark.parametrize("headers", [JSON, [], [(b"content-type", b"text/plain")]], ids=["json", "no type", "plain"])
def test_a_200_that_is_no_answer(body: bytes, headers: Headers) -> None:
    """Is none, and may be tried elsewhere."""
    relay, sink, _ = made()
    play(relay, [body], headers)
    assert relay.error is not None
    assert (relay.error.code, relay.error.may_retry, relay.error.upstream_status) == ("provider_bad_response", True, 200)
    assert not sink.started


@pytest.mark.parametrize(
    "headers",
    [
        [(b"content-type", b"Text/HTML; charset=utf-8")],
        [*JSON, (b"content-encoding", b"gzip")],
        [(b"content-encoding", b"br"), *EVENTS],
    ],
)
@pytest.mark.parametrize("operation", ["chat", "speech"])
def test_a_200_that_we_refuse_by_its_head(headers: Headers, operation: str) -> None:
    """A web page, a compressed answer: the connection is let go at once."""
    relay, sink, _ = made(operation)
    connection = play(relay, [ANSWER], headers)
    assert connection.told == ["stop"]
    assert relay.error is not None
    assert relay.error.code == "provider_bad_response"
    assert not sink.started


def test_encoded_as_itself() -> None:
    """`identity` is no encoding."""
    relay, sink, _ = made()
    play(relay, [ANSWER], [*JSON, (b"content-encoding", b"Identity")])
    assert sink.body == ANSWER


def test_a_provider_error_is_kept_for_the_judge() -> None:
    """Its body up to `ERROR` bytes, nothing of it sent; a stream's error too."""
    for headers in (JSON, EVENTS, [(b"content-type", b"text/html")]):
        relay, sink, _ = made()
        play(relay, [b"x" * 40_000, b"y" * 40_000, b"z"], headers, 500)
        assert relay.status == 500
        assert relay.error is None
        assert relay.body == b"x" * 40_000 + b"y" * (room.ERROR - 40_000)
        assert not sink.started


@pytest.mark.parametrize("length", [b"6", None])
def test_sound(length: bytes | None) -> None:
    """Relayed as it comes, with its length if it has one."""
    relay, sink, exchange = made("speech")
    sent = [(b"content-length", length)] if length else []
    play(relay, [b"abc", b"def"], [(b"content-type", b"audio/mpeg"), *sent])
    assert sink.blocks == [b"abc", b"def"]
    assert sink.begun[0][2] == (6 if length else None)
    assert sink.ended
    assert relay.started
    assert exchange.bytes_out == 6


def test_no_sound() -> None:
    """An empty answer is an answer where bytes are only bytes."""
    relay, sink, _ = made("speech")
    play(relay, [], [(b"content-type", b"audio/mpeg")])
    assert sink.ended
    assert (sink.status, sink.body) == (200, b"")


def test_headers_that_are_the_callers_business() -> None:
    """Only those of the list, and ours; our request id is not the provider's, which is remembered."""
    theirs: Headers = [
        (b"content-type", b"application/json"),
        (b"set-cookie", b"session=secret"),
        (b"x-request-id", b"req_theirs"),
        (b"openai-organization", b"our-account"),
        (b"x-ratelimit-remaining-requests", b"7"),
        (b"connection", b"keep-alive"),
        (b"transfer-encoding", b"chunked"),
        (b"content-length", b"5"),
        (b"openai-processing-ms", b"12"),
        (b"server", b"nginx"),
        (b"x-aigw-demo", b"1"),
    ]
    relay, sink, exchange = made()
    play(relay, [ANSWER], theirs)
    assert sorted(sink.begun[0][1]) == [
        (b"content-type", b"application/json"),
        (b"openai-processing-ms", b"12"),
        (b"x-aigw-demo", b"1"),
        (b"x-aigw-provider", b"openai"),
    ]
    assert exchange.upstream_id == "req_theirs"


# --- back-pressure ----------------------------------------------------------------------------------------------------

CHUNK = b'data: {"model":"m","choices":[{"delta":{"content":"x"}}]}\n\n'


def test_a_slow_caller_pauses_the_provider() -> None:
    """Paused with the block that fills the caller's buffer, resumed when it has drained."""
    relay, sink, _ = made()
    connection = Connection()
    relay.head(200, EVENTS, connection)
    relay.feed(CHUNK)
    assert connection.told == []
    sink.slow = True
    relay.feed(CHUNK)
    assert connection.told == ["pause"]
    sink.slow = False
    for callback in sink.waiting:
        callback()
    assert connection.told == ["pause", "resume"]
    assert not connection.paused
    assert sink.body == CHUNK * 2


@pytest.mark.parametrize("end", [b"", b"data: {}"], ids=["whole", "unfinished"])
def test_an_answer_that_is_over_leaves_its_connection_alone(end: bytes) -> None:
    """By then it serves another: neither a last event, nor a refusal, nor a caller that reads on at last may touch it."""
    relay, sink, _ = made()
    connection = Connection()
    relay.head(200, EVENTS, connection)
    sink.slow = True
    relay.feed(CHUNK + end)
    told = list(connection.told)
    relay.complete()
    relay.finish()
    for callback in sink.waiting:
        callback()
    assert connection.told == told
    assert sink.body == CHUNK + end
    for headers in (EVENTS, JSON):
        relay, _, _ = made()
        connection = play(relay, [], headers)
        assert relay.error is not None
        assert connection.told == []


def test_before_a_head_nothing_is_told() -> None:
    """An attempt that never got an answer has none to complete."""
    relay, sink, _ = made()
    relay.complete()
    assert relay.error is None
    assert relay.status == 0
    assert not relay.started
    assert not sink.started


def test_a_sample_for_estimates() -> None:
    """The beginning of what went out, not all of it."""
    relay, _, exchange = made()
    play(relay, [CHUNK] * 1000)
    assert exchange.sample.startswith(CHUNK)
    assert room.SAMPLE <= len(exchange.sample) < room.SAMPLE + len(CHUNK)
    assert exchange.bytes_out == 1000 * len(CHUNK)


def test_recordings_are_json() -> None:
    """A mistake in a recording would test nothing."""
    for recording in RECORDINGS:
        assert b"".join(recording.events) == recording.stream
        for line in recording.stream.replace(b"\r\n", b"\n").split(b"\n"):
            if line.startswith(b"data:") and b"[DONE]" not in line:
                json.loads(line[5:])


@pytest.mark.parametrize("streamed", [True, False])
def test_a_good_answer_that_repeats_our_key(streamed: bool) -> None:
    """Goes on without it, in as many bytes; a short placeholder is no key and changes nothing."""
    body = b'{"id":"1","model":"m","choices":[{"index":0,"delta":{"content":"you sent Bearer %b to us"}}]}'
    for key, left in ((b"the-provider-key-1", b"[redacted]********"), (b"sent", b"sent"), (b"", b"")):
        exchange, sink, chosen = Exchange("r", 0.0, headers={}, requested_model="m"), Kept(), OPERATIONS["chat"]
        relay = Relay(exchange, sink, chosen, DIALECTS[chosen.dialect], PROVIDER, [], key)
        said = body % key
        if streamed:
            play(relay, [b"data: " + said + b"\n\n", b"data: [DONE]\n\n"])
        else:
            play(relay, [said[:40], said[40:]], JSON)
        assert body % left in sink.body

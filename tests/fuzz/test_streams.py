"""The parsers of providers' streams: whatever comes, and however it is cut, the same events are read and the same is told; and
every caller's renderer can write them."""

from __future__ import annotations

from aigw.canonical import Event, Request, Started
from aigw.protocols import framing
from aigw.protocols.operations import OPERATIONS
from aigw.protocols.translation import TRANSLATORS, shape, translator
from aigw.protocols.translation.contract import Reply, StreamParser
from tests.fuzz.inputs import cut, dice, fuzzed

WORDS = [
    b"data: ",
    b"event: ",
    b"\n\n",
    b"\r\n\r\n",
    b"\n",
    b"[DONE]",
    b'"error":{"message":"x"}',
    b'"usage":{',
    b"null",
    b"-1",
]
WORDS += [
    b'"choices":[',
    b'"delta":{"content":"x"}',
    b'"tool_calls":[{"index":',
    b'"index":',
    b'"finish_reason":"stop"',
    b"1e400",
]
WORDS += [
    b'"type":"',
    b"content_block_start",
    b"content_block_delta",
    b"content_block_stop",
    b"message_delta",
    b'"text":"',
    b"\xff",
]
WORDS += [
    b"response.output_item.added",
    b"response.output_text.delta",
    b'"output_index":',
    b'"candidates":[',
    b'"functionCall":{',
]
WORDS += [
    b'"thoughtSignature":"',
    b'"args":{',
    b'"done":true',
    b'"message":{',
    b"contentBlockDelta",
    b"content-start",
    b"\\ud800",
]
WORDS += [b"[", b"]", b"{", b"}", b',""', b"18446744073709551616", b"\x00\x00\x00\x10", b'"partial_json":"', b'"arguments":']

NAMES = [name for name in TRANSLATORS if OPERATIONS[name].family == "conversation" and shape(name).streams]
FRONTS = [name for name in NAMES if OPERATIONS[name].door]
REQUEST = Request(dialect="openai_chat", model="m", messages=[])


HEARTBEATS = ("chat", "completions")
"""A block that brings nothing after the end is a heartbeat there, and ends the stream: what ends a block makes a difference."""


def in_order(events: list[Event]) -> list[Event]:
    """A beginning that is told late (the event that should have told it was garbage) is put before its block's pieces."""
    return sorted(events, key=lambda event: not isinstance(event, Started))


def read(name: str, pieces: list[bytes]) -> tuple[list[Event], StreamParser]:
    """As the transform does it: up to an error or the end."""
    parser = shape(name).parser()
    events: list[Event] = []
    for piece in pieces:
        events += parser.feed(piece)
        if parser.failed or parser.done:
            return events, parser
    return events + parser.end(), parser


@fuzzed("streams", WORDS, 150)
def test_streams(data: bytes) -> None:
    """No exception; the cut makes no difference; counts are counts; what is rendered is text."""
    chance = dice(data)
    for name in NAMES:
        whole, parser = read(name, [data])
        told = parser.told
        if told.usage is not None:
            counts = (told.usage.input, told.usage.cached, told.usage.output, told.usage.reasoning)
            assert all(type(count) is int for count in counts)
        assert isinstance(told.model, str)
        assert isinstance(told.finish_reason, str)
        pieces, other = read(name, list(cut(data, chance, 30)))
        if name not in HEARTBEATS or all(framing.data(event) for event in framing.split(data)):
            assert bool(other.failed) == bool(parser.failed), name
            if parser.failed and name == "converse":  # a wrong checksum takes the frames with it that came in the same block
                assert pieces[: len(whole)] == whole, name
            else:
                assert (in_order(pieces), other.told) == (in_order(whole), told), name
        for front in FRONTS:
            renderer = translator(front).renderer(Reply(request=REQUEST, id="req_1", model="m", now=1.0))
            written = b"".join(renderer.render([event]) for event in pieces) + renderer.end()
            written.decode()

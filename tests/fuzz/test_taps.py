"""The taps: whatever a provider streams, and however it is cut, the same is passed on and the same is learnt."""

from __future__ import annotations

import re
from typing import NamedTuple

from aigw.protocols import DIALECTS, framing
from aigw.protocols.dialect import Told
from tests.fuzz.inputs import cut, dice, fuzzed

WORDS = [b"data: ", b"\n\n", b"\r\n\r\n", b"event: error\n", b'"error"', b'"error":{"message":"x"}', b'"error":null', b"[DONE]"]
WORDS += [b'"usage":{', b'"usage": {', b'"usage" :{', b'"prompt_tokens":', b'"completion_tokens":7', b'"finish_reason":"stop"']
WORDS += [b'"finish_reason": "stop"', b'"finish_reason":null', b'"choices":[]', b'"choices":[{', b'"delta":{"content":"x"}']
WORDS += [b'"role":"assistant"', b'"model":"m"', b'"type":"message_stop"', b'"type":"message_delta"', b'"type":"message_start"']
WORDS += [b'"stop_reason":"end_turn"', b'"input_tokens":3', b'"output_tokens":1e30', b"content_block_delta", b'"response":{']
WORDS += [b'"type":"response.completed"', b'"status":"completed"', b'"type":"error"', b'"x_groq":{"usage":{', b"}", b"]}", b","]
WORDS += [b"-1", b"1e400", b"null", b"1.5", b"18446744073709551616", b"\\ud800", b"\xff"]


class Outcome(NamedTuple):
    passed: bytes
    ended: bool
    failed: bytes
    told: Told
    last: bytes


def at_its_end(data: bytes, outcome: Outcome) -> bool:
    """Whether the event that ended the stream was its last."""
    return not outcome.failed and data.endswith(outcome.last) and len(list(framing.split(outcome.last))) == 1


def through(dialect: str, hide: bool, pieces: list[bytes]) -> Outcome:
    """A stream on its way through a tap, whole events at a time, as the relay feeds it."""
    tap = DIALECTS[dialect].tap(hide_usage=hide)
    rest = passed = b""
    for piece in pieces:
        block = rest + piece
        end = framing.last_boundary(block)
        rest, block = block[end:], block[:end]
        if block:
            passed += tap.look(block)
        if tap.failed or tap.last:
            return Outcome(passed + tap.last, True, tap.failed, tap.told, tap.last)
    if rest:
        passed += tap.look(rest)
    return Outcome(passed + tap.last, bool(tap.last or tap.failed), tap.failed, tap.told, tap.last)


def lines(stream: bytes) -> bytes:
    """*stream* without its further empty lines: those behind a hidden event go with it when they come along with it."""
    return re.sub(rb"(\r\n|\n|\r)+", b"\n", stream)


@fuzzed("taps", WORDS)
def test_taps(data: bytes) -> None:
    """No exception; nothing but the usage event we asked for is kept back, up to an error; the cut makes no difference."""
    chance = dice(data)
    events = list(framing.split(data))
    ways = [list(cut(data, chance)), list(cut(data, chance, 40)), events]
    for dialect in DIALECTS:
        if dialect in ("raw", "gemini_array"):
            continue  # they have no such events
        for hide in (True, False) if dialect == "openai_chat" else (False,):
            whole = through(dialect, hide, [data])
            if not hide:
                assert data.startswith(whole.passed)
                assert whole.ended or whole.passed == data
            if whole.told.usage is not None:
                counts = [whole.told.usage.input, whole.told.usage.cached, whole.told.usage.output, whole.told.usage.reasoning]
                assert all(type(count) is int for count in counts)
            assert isinstance(whole.told.model, str)
            assert isinstance(whole.told.finish_reason, str)
            for pieces in ways:
                one = through(dialect, hide, pieces)
                # who is told the end early hears nothing that comes after it, no error either
                assert one.failed == whole.failed or (one.ended and not one.failed), (dialect, pieces)
                early, late = sorted((lines(one.passed), lines(whole.passed)), key=len)
                assert late.startswith(early.rstrip(b"\n")), (dialect, pieces)
                if not (one.ended or whole.ended) or (at_its_end(data, one) and at_its_end(data, whole)):
                    assert early.rstrip(b"\n") == late.rstrip(b"\n"), (dialect, pieces)
                    assert one.told == whole.told, (dialect, pieces)

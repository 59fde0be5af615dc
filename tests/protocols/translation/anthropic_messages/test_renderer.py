"""Messages streams, written: in the order that Anthropic's SDK assembles, each event such as its types take."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx2
import pytest
from anthropic import AsyncAnthropic
from anthropic.types import RawMessageStreamEvent
from pydantic import TypeAdapter

from aigw.canonical import (
    CallDelta,
    CallStarted,
    Citation,
    CitationDelta,
    Event,
    Finished,
    Foreign,
    ForeignPart,
    Media,
    MediaPart,
    RefusalDelta,
    Request,
    Spent,
    SpentSoFar,
    Started,
    TextDelta,
    ThinkingDelta,
)
from aigw.errors import CallerError
from aigw.protocols.translation.anthropic_messages.blocks import DIALECT, signed_call, signed_text
from aigw.protocols.translation.anthropic_messages.parser import MessagesParser
from aigw.protocols.translation.anthropic_messages.renderer import MessagesRenderer
from aigw.protocols.translation.assembly import Assembly
from aigw.protocols.translation.contract import Reply

VALID: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)


def reply() -> Reply:
    request = Request(dialect=DIALECT, model="asked", messages=[])
    return Reply(request=request, id="req_7", model="", now=1.0)


def stream(*events: Event) -> bytes:
    renderer = MessagesRenderer(reply())
    return b"".join(renderer.render([event]) for event in events) + renderer.end()


def written(*events: Event) -> list[dict[str, Any]]:
    found = []
    for one in stream(*events).decode().split("\n\n")[:-1]:
        name, data = one.split("\n")
        value = json.loads(data.removeprefix("data: "))
        assert name == f"event: {value['type']}"
        VALID.validate_python(value)
        found.append(value)
    assert (found[0]["type"], found[-2]["type"], found[-1]["type"]) == ("message_start", "message_delta", "message_stop")
    return found


def blocks(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the blocks begin with; they follow one another, none is left open, none lies in another."""
    begun: list[dict[str, Any]] = []
    open_one = -1
    for event in found:
        if event["type"] == "content_block_start":
            assert open_one == -1
            assert event["index"] == len(begun)
            open_one = event["index"]
            begun.append(event["content_block"])
        elif event["type"] == "content_block_delta":
            assert event["index"] == open_one
        elif event["type"] == "content_block_stop":
            assert event["index"] == open_one
            open_one = -1
    assert open_one == -1
    return begun


def sdk(data: bytes) -> Any:
    """What Anthropic's own SDK makes of it."""

    async def assemble() -> Any:
        answers = httpx2.MockTransport(
            lambda _: httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=data)
        )
        async with (
            AsyncAnthropic(api_key="k", base_url="http://x", http_client=httpx2.AsyncClient(transport=answers)) as client,
            client.messages.stream(model="m", max_tokens=9, messages=[{"role": "user", "content": "x"}]) as running,
        ):
            return await running.get_final_message()

    return asyncio.run(assemble())


PLAIN: list[Event] = [
    Started("x", "m"),
    TextDelta("a"),
    TextDelta('b"\n雨'),
    Finished("stop"),
    SpentSoFar(Spent(9, 4, output=2)),
]


def test_a_plain_one() -> None:
    """The end comes when all is known: its reason and the usage, in one event."""
    found = written(*PLAIN)
    assert [event["type"] for event in found] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert found[-2]["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
    usage = found[-2]["usage"]
    assert (usage["input_tokens"], usage["cache_read_input_tokens"], usage["output_tokens"]) == (5, 4, 2)


def test_the_sdk_assembles_it() -> None:
    """With thoughts, two calls at once, and the usage."""
    message = sdk(
        stream(
            Started("x", "m"),
            ThinkingDelta("hm", origin="openai_chat"),
            TextDelta("a"),
            CallStarted(0, "c0", "f"),
            CallDelta(0, '{"x"'),
            CallStarted(1, "c1", "g"),
            CallDelta(1, '{"y":'),
            CallDelta(0, ":1}"),
            CallDelta(1, "2}"),
            Finished("tool_calls"),
            SpentSoFar(Spent(9, output=2)),
        )
    )
    thought, text, first, second = message.content
    assert (thought.thinking, text.text) == ("hm", "a")
    assert (first.id, first.name, first.input) == ("c0", "f", {"x": 1})
    assert (second.id, second.name, second.input) == ("c1", "g", {"y": 2})
    assert (message.stop_reason, message.usage.input_tokens, message.usage.output_tokens) == ("tool_use", 9, 2)


def test_calls_never_interleave() -> None:
    """The arguments of later ones wait for the first."""
    found = written(
        CallStarted(0, "c0", "f"), CallStarted(1, "c1", "g"), CallDelta(1, "{}"), CallDelta(0, "{}"), Finished("tool_calls")
    )
    assert [block["id"] for block in blocks(found)] == ["c0", "c1"]


def test_text_after_calls() -> None:
    """What waited comes before it."""
    found = written(CallStarted(0, "c0", "f"), CallStarted(1, "c1", "g"), CallDelta(1, "{}"), TextDelta("a"), Finished("stop"))
    assert [block["type"] for block in blocks(found)] == ["tool_use", "tool_use", "text"]
    assert found[-2]["delta"]["stop_reason"] == "tool_use"


def test_one_call_after_another() -> None:
    """The common case streams."""
    renderer = MessagesRenderer(reply())
    first = renderer.render([CallStarted(0, "", "f"), CallDelta(0, '{"x":')])
    assert b'{\\"x\\":' in first
    assert b'"id":"toolu_7_0"' in first


def test_thoughts() -> None:
    """A signature ends one; a hidden one is whole; another provider's is sealed."""
    found = written(
        ThinkingDelta("a", origin=DIALECT),
        ThinkingDelta(signature="c2ln", origin=DIALECT),
        ThinkingDelta(hidden="aGlk", origin=DIALECT),
        ThinkingDelta(signature="b25seQ==", origin=DIALECT),
        ThinkingDelta("b", "Z2Vt", origin="gemini"),
        ThinkingDelta(hidden="ZW5j", origin="openai_responses", id="rs_1"),
        Finished("stop"),
    )
    kinds = [block["type"] for block in blocks(found)]
    assert kinds == ["thinking", "redacted_thinking", "thinking", "thinking", "redacted_thinking"]
    signatures = [event["delta"]["signature"] for event in found if event.get("delta", {}).get("type") == "signature_delta"]
    assert signatures[:2] == ["c2ln", "b25seQ=="]
    assert "Z2Vt" not in signatures[2]


def test_thought_signature_of_a_streamed_call_survives() -> None:
    """In a block before it; a text's behind it."""
    found = written(
        TextDelta("a", signature="dGV4dA==", origin="gemini"),
        CallStarted(0, "c", "f", signature="Y2FsbA==", origin="gemini"),
        CallDelta(0, "{}"),
        Finished("tool_calls"),
    )
    assert blocks(found)[1:3] == [signed_text("dGV4dA==", "gemini"), signed_call("Y2FsbA==", "gemini")]


def test_what_else_comes() -> None:
    """Citations, refusals, a server's tool; other providers' doings and further answers have no place."""
    search = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
    found = written(
        ForeignPart(Foreign(DIALECT, "server_tool_use", search)),
        ForeignPart(Foreign("gemini", "executableCode", {})),
        TextDelta("x", choice=1),
        TextDelta("a"),
        CitationDelta(Citation("https://x.example")),
        RefusalDelta("no"),
        Finished("stop"),
    )
    assert blocks(found) == [search, {"type": "text", "text": ""}]
    assert found[-2]["delta"]["stop_reason"] == "refusal"
    with pytest.raises(CallerError):
        stream(MediaPart(Media("image", "x")))


def test_an_answer_that_says_nothing() -> None:
    """Still begins and ends, with an id and a name."""
    found = written()
    assert (found[0]["message"]["id"], found[0]["message"]["model"]) == ("msg_7", "asked")


def test_a_stop_sequence_is_named() -> None:
    """At the end."""
    found = written(TextDelta("a"), Finished("stop", "END"))
    assert found[-2]["delta"] == {"stop_reason": "stop_sequence", "stop_sequence": "END"}


def test_written_and_read_it_is_the_same() -> None:
    """By our own parser."""
    events: list[Event] = [
        Started("x", "m", 0, Spent(3)),
        ThinkingDelta("hm", origin=DIALECT),
        ThinkingDelta(signature="c2ln", origin=DIALECT),
        TextDelta("a"),
        CallStarted(0, "c0", "f"),
        CallDelta(0, '{"x":1}'),
        CallStarted(1, "c1", "g"),
        CallDelta(1, "{}"),
        Finished("tool_calls"),
        SpentSoFar(Spent(9, 4, output=2)),
    ]
    parser, sent, came = MessagesParser(), Assembly(), Assembly()
    sent.add(events)
    came.add(parser.feed(stream(*events)))
    assert came.done() == sent.done()
    assert parser.done

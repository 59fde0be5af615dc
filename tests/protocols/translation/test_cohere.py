"""Cohere's own API: what it is sent, and its answers and streams however they are cut."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, strategies as st

from aigw.canonical import (
    CallDelta,
    CallStarted,
    CitationDelta,
    Event,
    Finished,
    Losses,
    Spent,
    SpentSoFar,
    Text,
    TextDelta,
    Thinking,
    ThinkingDelta,
    ToolCall,
)
from aigw.errors import CallerError
from aigw.protocols.translation import translator
from aigw.protocols.translation.cohere import CohereChat, CohereEmbeddings
from aigw.protocols.translation.contract import Toward
from tests.walk import KEY, Walk, streams

CHAT = translator("chat")
EMBEDDINGS = translator("embeddings")
TOOLS = [
    {"type": "function", "function": {"name": name, "description": "d", "parameters": {"type": "object"}}}
    for name in ("a", "b")
]


def written(body: dict[str, Any], *, stream: bool = False) -> tuple[dict[str, Any], list[str]]:
    asked = CHAT.parse_request(json.dumps({"model": "m", **body}).encode(), "m", stream=stream)
    losses = Losses(CHAT.spelling)
    return json.loads(CohereChat().render_request(asked, Toward(model="command-a", stream=stream), losses)), list(losses)


def test_a_conversation_with_tools_and_an_image() -> None:
    """OpenAI's words become Cohere's; calls and results keep their ids."""
    call = {"id": "c1", "type": "function", "function": {"name": "a", "arguments": '{"x":1}'}}
    image = {"type": "image_url", "image_url": {"url": "https://h/i.png", "detail": "low"}}
    said, losses = written(
        {
            "messages": [
                {"role": "developer", "content": "Be brief."},
                {"role": "user", "content": [{"type": "text", "text": "Look:"}, image]},
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "c1", "content": "rain"},
            ],
            "tools": TOOLS,
            "tool_choice": {"type": "function", "function": {"name": "b"}},
            "max_completion_tokens": 50,
            "top_p": 0.5,
            "stop": "END",
            "seed": 7,
            "reasoning_effort": "low",
            "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}},
        }
    )
    assert said == {
        "model": "command-a",
        "stream": False,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Look:"}, image]},
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "rain"},
        ],
        "tools": TOOLS[1:],
        "tool_choice": "REQUIRED",
        "max_tokens": 50,
        "p": 0.5,
        "seed": 7,
        "stop_sequences": ["END"],
        "thinking": {"type": "enabled", "token_budget": 1024},
        "response_format": {"type": "json_object", "json_schema": {"type": "object"}},
    }
    assert losses == []


@pytest.mark.parametrize(
    ("more", "lost"),
    [
        ({"n": 2}, "n"),
        ({"logit_bias": {"1": 2}}, "logit_bias"),
        ({"user": "u"}, "user"),
        ({"parallel_tool_calls": False}, "parallel_tool_calls"),
        ({"something": 1}, "something"),
        ({"temperature": 1.5}, "temperature"),
        ({"tools": [{"type": "web_search"}]}, "tools.web_search"),
    ],
)
def test_what_it_cannot_be_told(more: dict[str, Any], lost: str) -> None:
    """Each is named to the caller."""
    assert written({"messages": [{"role": "user", "content": "hi"}], **more})[1] == [lost]


def test_sound_is_refused() -> None:
    """It takes none, and an answer without it would be another's."""
    audio = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
    with pytest.raises(CallerError, match="no audio"):
        written({"messages": [{"role": "user", "content": [audio]}]})


def test_an_answer() -> None:
    """The plan is a thought, citations belong to the text, and counts may be written as 12.0."""
    answer, told = CohereChat().parse_answer(
        json.dumps(
            {
                "id": "k1",
                "finish_reason": "TOOL_CALL",
                "message": {
                    "role": "assistant",
                    "tool_plan": "I look.",
                    "content": [{"type": "text", "text": "Rain."}],
                    "citations": [{"start": 0, "end": 4, "text": "Rain", "sources": [{"type": "tool", "id": "t"}]}],
                    "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "a", "arguments": "{}"}}],
                },
                "usage": {"tokens": {"input_tokens": 12.0, "output_tokens": 3}, "cached_tokens": 4},
            }
        ).encode()
    )
    thought, text, call = answer.choices[0].parts
    assert (thought, call) == (Thinking("I look.", origin="cohere"), ToolCall("c1", "a", "{}"))
    assert isinstance(text, Text)
    assert (text.text, text.citations[0].title, text.citations[0].end) == ("Rain.", "t", 4)
    assert answer.choices[0].finish == told.finish_reason == "tool_calls"
    assert answer.spent == Spent(input=12, cached=4, output=3)


STREAM = b"".join(
    b"event: %s\ndata: %s\n\n" % (json.loads(line)["type"].encode(), line)
    for line in (
        b'{"type":"message-start","id":"k1","delta":{"message":{"role":"assistant","content":[],"tool_calls":[]}}}',
        b'{"type":"tool-plan-delta","delta":{"message":{"tool_plan":"Hm"}}}',
        b'{"type":"content-start","index":0,"delta":{"message":{"content":{"type":"text","text":""}}}}',
        '{"type":"content-delta","index":0,"delta":{"message":{"content":{"text":"Grüße"}}}}'.encode(),
        b'{"type":"citation-start","index":0,"delta":{"message":{"citations":{"start":0,"end":2,"text":"Gr","sources":[]}}}}',
        b'{"type":"content-end","index":0}',
        b'{"type":"tool-call-start","delta":{"message":{"tool_calls":{"id":"c1","function":{"name":"a","arguments":""}}}}}',
        b'{"type":"tool-call-delta","index":0,"delta":{"message":{"tool_calls":{"function":{"arguments":"{}"}}}}}',
        b'{"type":"tool-call-end","index":0}',
        b'{"type":"unheard-of"}',
        b'{"type":"message-end","delta":{"finish_reason":"TOOL_CALL","usage":{"tokens":{"input_tokens":9,"output_tokens":2}}}}',
    )
)


def read(*blocks: bytes) -> list[Event]:
    parser = CohereChat().parser()
    return [event for block in blocks for event in parser.feed(block)] + parser.end()


def test_a_stream() -> None:
    """Plan, text, citation, call and usage, in their order; unknown events are nothing."""
    events = read(STREAM)
    assert [type(event) for event in events[1:]] == [
        ThinkingDelta,
        TextDelta,
        CitationDelta,
        CallStarted,
        CallDelta,
        Finished,
        SpentSoFar,
    ]
    assert events[2] == TextDelta("Grüße")
    assert events[-2:] == [Finished("tool_calls"), SpentSoFar(Spent(input=9, output=2))]


@given(st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_a_stream_cut_anywhere(cuts: list[int]) -> None:
    """The same events."""
    places = [0, *sorted(cuts), len(STREAM)]
    assert read(*(STREAM[start:end] for start, end in pairwise(places))) == read(STREAM)


def test_a_stream_that_fails() -> None:
    """The model's own failure is one, not an answer."""
    parser = CohereChat().parser()
    parser.feed(b'data: {"type":"message-end","delta":{"finish_reason":"ERROR","error":"no memory"}}\n\n')
    assert b"no memory" in parser.failed


def test_embeddings_say_what_they_are_for() -> None:
    """The caller's own word, Gemini's, or what fills an index."""

    def sent(body: dict[str, Any]) -> dict[str, Any]:
        asked = EMBEDDINGS.parse_request(json.dumps({"model": "m", "input": ["x"], **body}).encode(), "m", stream=False)
        found: dict[str, Any] = json.loads(CohereEmbeddings().render_request(asked, Toward(model="embed"), Losses()))
        return found

    assert sent({}) == {"model": "embed", "texts": ["x"], "input_type": "search_document", "embedding_types": ["float"]}
    assert sent({"input_type": "clustering", "dimensions": 64})["input_type"] == "clustering"
    answer, told = CohereEmbeddings().parse_answer(
        b'{"embeddings":{"float":[[0.5]]},"meta":{"billed_units":{"input_tokens":3}}}'
    )
    assert answer.vectors == [[0.5]]
    assert told.usage is not None
    assert told.usage.input == 3


async def test_a_streamed_call_through_the_gateway() -> None:
    """An Anthropic caller's stream from Cohere: the thought, the text, the call, and what was spent."""
    config = f'[consumers.ci]\nkey = "{KEY}"\n[providers.cohere]\nkeys = ["co-golden"]\n'
    walk = Walk(config, streams(STREAM[:100], STREAM[100:]))
    tool = {"name": "a", "description": "d", "input_schema": {"type": "object"}}
    body = {"model": "cohere/command-a", "max_tokens": 9, "stream": True, "tools": [tool]}
    near, record = await walk.ask({**body, "messages": [{"role": "user", "content": "x"}]}, "messages")
    assert walk.transport.requests[0].target.path == "/v2/chat"
    assert json.loads(walk.transport.requests[0].body)["tools"][0]["function"]["name"] == "a"
    text = near.body.decode()
    assert '"stop_reason":"tool_use"' in text
    assert '"type":"tool_use"' in text
    assert text.rstrip().endswith('{"type":"message_stop"}')
    assert (record.input, record.output, record.finish_reason) == (9, 2, "tool_calls")

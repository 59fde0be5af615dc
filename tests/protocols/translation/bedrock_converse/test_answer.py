"""Converse answers, whole."""

from __future__ import annotations

import json

import pytest

from aigw.canonical import Citation, Text, Thinking, ToolCall
from aigw.exchange import Usage
from aigw.protocols.translation import shape

ANSWER = {
    "output": {
        "message": {
            "role": "assistant",
            "content": [
                {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "sig"}}},
                {"reasoningContent": {"redactedContent": "c2VjcmV0"}},
                {"text": "Rain."},
                {"toolUse": {"toolUseId": "tooluse_1", "name": "look", "input": {"at": "x"}}},
            ],
        }
    },
    "stopReason": "tool_use",
    "usage": {
        "inputTokens": 10,
        "outputTokens": 5,
        "totalTokens": 115,
        "cacheReadInputTokens": 70,
        "cacheWriteInputTokens": 30,
        "cacheDetails": [{"ttl": "1h", "inputTokens": 20}, {"ttl": "5m", "inputTokens": 10}],
    },
    "metrics": {"latencyMs": 1},
}


def test_what_an_answer_says() -> None:
    answer, told = shape("converse").parse_answer(json.dumps(ANSWER).encode())
    assert answer.choices[0].parts == [
        Thinking("hm", "sig", origin="bedrock_converse"),
        Thinking(hidden="c2VjcmV0", origin="bedrock_converse"),
        Text("Rain."),
        ToolCall("tooluse_1", "look", '{"at":"x"}'),
    ]
    assert answer.choices[0].finish == "tool_calls"
    assert told.finish_reason == "tool_use"


def test_input_excludes_the_cache_and_ours_holds_it() -> None:
    _, told = shape("converse").parse_answer(json.dumps(ANSWER).encode())
    assert told.usage == Usage(input=110, cached=70, cache_write_5m=10, cache_write_1h=20, output=5)


def test_citations_and_stop_sequences() -> None:
    cited = {"content": [{"text": "So."}], "citations": [{"title": "t", "sourceContent": [{"text": "q"}]}]}
    body = {
        "output": {"message": {"content": [{"citationsContent": cited}]}},
        "stopReason": "stop_sequence",
        "additionalModelResponseFields": {"stop_sequence": "END"},
    }
    answer, told = shape("converse").parse_answer(json.dumps(body).encode())
    assert answer.choices[0].parts == [Text("So.", citations=[Citation("", "t", "q")])]
    assert (answer.choices[0].finish, answer.choices[0].stop, told.usage) == ("stop", "END", None)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"output":{}}', b'{"output":{"message":{"content":1}}}', b"[" * 10_000])
def test_what_is_no_answer(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        shape("converse").parse_answer(body)

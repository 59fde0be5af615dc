from __future__ import annotations

from typing import Any, cast

import pytest

from aigw.cli.reach import Answer, CallFailed, Event
from aigw.cli.talk import Reading, Turn, Wishes, request

TURNS = [Turn("user", "Hi"), Turn("assistant", "Hello"), Turn("user", "And?")]

MESSAGES = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "And?"},
]


class Given:
    """An answer that is there already."""

    def __init__(self, whole: bytes = b"", events: list[str] | None = None) -> None:
        self.headers = {"x-request-id": "req_1"}
        self.streams = events is not None
        self._whole, self._events = whole, events or []

    def read(self) -> bytes:
        return self._whole

    def events(self) -> list[Event]:
        return [Event("", data) for data in self._events]


def read(operation: str, answer: Given) -> tuple[Any, ...]:
    reading = Reading(operation, cast("Answer", answer))
    return list(reading), reading.input, reading.output, reading.ended


def test_what_is_asked() -> None:
    """The smallest body: nothing that nobody wished for, besides the count of tokens."""
    assert request("chat", Wishes("m"), TURNS) == {
        "model": "m",
        "messages": MESSAGES,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert request("messages", Wishes("m"), TURNS) == {"model": "m", "messages": MESSAGES, "stream": True, "max_tokens": 4096}


def test_wishes_in_both_dialects() -> None:
    """The same wishes in the words of each; `usage` and `stream` can be left out."""
    wishes = Wishes("m", "Be brief.", 9, 0.5, stream=False)
    system = {"role": "system", "content": "Be brief."}
    common = {"model": "m", "temperature": 0.5, "stream": False}
    assert request("chat", wishes, TURNS) == common | {"messages": [system, *MESSAGES], "max_tokens": 9}
    assert request("messages", wishes, TURNS) == common | {"messages": MESSAGES, "system": "Be brief.", "max_tokens": 9}
    newer = request("chat", wishes._replace(new_limit=True), TURNS)
    assert (newer["max_completion_tokens"], "max_tokens" in newer) == (9, False)
    assert "stream_options" not in request("chat", Wishes("m", usage=False), TURNS)


def test_a_stream_of_openai() -> None:
    """Text as it comes, "" for thoughts, tokens at the end; what is no text of the answer is passed over."""
    events = [
        '{"choices":[{"delta":{"role":"assistant","content":""}}]}',
        '{"choices":[{"delta":{"reasoning_content":"hm"}}]}',
        '{"choices":[{"delta":{"content":"a"}}]}',
        "not json",
        "[]",
        '{"choices":[{"delta":{"content":"b"},"finish_reason":"stop"}]}',
        '{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3}}',
        "[DONE]",
    ]
    assert read("chat", Given(events=events)) == (["", "", "a", "b"], 7, 3, "")


def test_a_stream_of_anthropic() -> None:
    """Input with what the cache knew, the last count of output; thoughts are ""."""
    events = [
        '{"type":"message_start","message":{"usage":{"input_tokens":5,"cache_read_input_tokens":100,"output_tokens":1}}}',
        '{"type":"ping"}',
        '{"type":"content_block_delta","delta":{"type":"thinking_delta","thinking":"hm"}}',
        '{"type":"content_block_delta","delta":{"type":"text_delta","text":"a"}}',
        '{"type":"message_delta","delta":{"stop_reason":"max_tokens"},"usage":{"output_tokens":9}}',
        '{"type":"message_stop"}',
    ]
    assert read("messages", Given(events=events)) == (["", "a"], 105, 9, "max_tokens")


@pytest.mark.parametrize(("reason", "ended"), [("stop", ""), ("length", "max_tokens"), ("content_filter", "filter")])
def test_how_it_ended(reason: str, ended: str) -> None:
    """An answer that is not whole does not pass for one."""
    whole = f'{{"choices":[{{"message":{{"content":"a"}},"finish_reason":"{reason}"}}]}}'
    assert read("chat", Given(whole.encode())) == (["a"], None, None, ended)


def test_whole_answers() -> None:
    """Without a stream: one piece."""
    content = b'[{"type":"thinking","thinking":"x"},{"type":"text","text":"a"}]'
    anthropic = b'{"content":%b,"usage":{"input_tokens":1,"output_tokens":2}}' % content
    assert read("messages", Given(anthropic)) == (["a"], 1, 2, "")
    assert read("chat", Given(b'{"choices":[{"message":{"content":null}}]}'))[0] == [""]


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"{}", b'{"choices":[]}', b'{"content":[3]}', b'{"choices":[{"message":3}]}']
)
def test_what_is_no_answer(body: bytes) -> None:
    """Something else answers there: said, with the request id, and no traceback."""
    for operation in ("chat", "messages"):
        with pytest.raises(CallFailed, match=r"not what this API promises.*req_1"):
            read(operation, Given(body))


def test_errors_in_a_stream() -> None:
    """Of ours, by its code; and a stream without an end is no answer."""
    ours = '{"error":{"message":"lost","aigw_code":"provider_connection_lost","request_id":"req_9"}}'
    with pytest.raises(CallFailed, match=r"lost \(provider_connection_lost, req_9\)"):
        read("chat", Given(events=[ours]))
    with pytest.raises(CallFailed, match="before its end"):
        read("chat", Given(events=['{"choices":[{"delta":{"content":"a"}}]}']))
    with pytest.raises(CallFailed, match="before its end"):
        read("messages", Given(events=[]))

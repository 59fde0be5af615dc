"""The official SDK's Responses, through a real server, to a provider that has only a chat API; and the chat API to a model that
only Responses serves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai
import pytest

from tests import loopback
from tests.data_port import KEY, serving
from tests.loopback import Peer, ok
from tests.walk import Walk, answers

CONFIG = """
[server]
port = 0
[admin]
port = 0
[providers.far]
kind = "deepseek"
base_url = "http://127.0.0.1:{port}/v1"
keys = ["sk-far-one"]
models = ["m"]
list_models = false
[consumers.ci]
key = "{key}"
"""

TOOLS: Any = [{"type": "function", "name": "sum", "parameters": {"type": "object"}, "strict": False}]


def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    body = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return b"data: " + json.dumps(body).encode() + b"\n\n"


STREAM = b"".join(
    [
        chunk({"role": "assistant", "content": ""}),
        chunk({"reasoning_content": "hm"}),
        chunk({"content": "It "}),
        chunk({"content": "is"}),
        chunk({"tool_calls": [{"index": 0, "id": "c1", "type": "function", "function": {"name": "sum", "arguments": ""}}]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"a":1}'}}]}),
        chunk({}, "tool_calls"),
        b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}}\n\n',
        b"data: [DONE]\n\n",
    ]
)


class Far:
    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []

    async def play(self, peer: Peer) -> None:
        while True:
            request = await peer.request()
            assert request.line.startswith(b"POST /v1/chat/completions ")
            body = json.loads(request.body)
            self.bodies.append(body)
            if body.get("stream"):
                await peer.send(ok(STREAM, b"content-type: text/event-stream"))
            else:
                message = {"role": "assistant", "content": "3"}
                whole = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "usage": None}
                whole["choices"] = [{"index": 0, "message": message, "finish_reason": "stop"}]
                await peer.send(ok(json.dumps(whole).encode(), b"content-type: application/json"))


async def test_the_sdk_assembles_a_stream_with_a_tool_and_goes_on(tmp_path: Path) -> None:
    """Thought, text and call; then the call's output, sent back with all that came before."""
    far = Far()
    async with (
        loopback.serving(far.play) as upstream,
        serving(tmp_path, CONFIG.format(port=upstream.port, key=KEY)) as running,
    ):
        client = openai.AsyncOpenAI(api_key=KEY, base_url=f"http://127.0.0.1:{running.server.port}/v1", max_retries=0)
        talk: list[Any] = [{"role": "user", "content": "1 + 2?"}]
        async with client.responses.stream(model="m", input=talk, tools=TOOLS) as stream:
            kinds = [event.type async for event in stream]
            whole = await stream.get_final_response()
        assert kinds[0] == "response.created"
        assert kinds[-1] == "response.completed"
        assert whole.output_text == "It is"
        assert [item.type for item in whole.output] == ["reasoning", "message", "function_call"]
        assert whole.usage is not None
        assert whole.usage.total_tokens == 10
        talk += [item.model_dump(exclude_none=True, exclude={"parsed_arguments"}) for item in whole.output]
        talk += [{"type": "function_call_output", "call_id": "c1", "output": "3"}]
        answer = await client.responses.create(model="m", input=talk, tools=TOOLS)
        assert answer.output_text == "3"
        said = far.bodies[-1]["messages"]
        assert [message["role"] for message in said] == ["user", "assistant", "tool"]
        assert said[1]["tool_calls"][0]["function"] == {"name": "sum", "arguments": '{"a":1}'}
        with pytest.raises(openai.BadRequestError, match="whole conversation") as refused:
            await client.responses.create(model="m", input="more", previous_response_id=whole.id)
        assert refused.value.param == "previous_response_id"
        await client.close()


async def test_a_model_that_only_responses_serves_is_asked_by_chat() -> None:
    """gpt-5-pro at OpenAI; other models there are passed through as ever."""
    part = {"type": "output_text", "text": "hi", "annotations": []}
    output = [{"type": "message", "role": "assistant", "content": [part]}]
    whole = {"id": "resp_1", "status": "completed", "model": "gpt-5-pro", "output": output}
    walk = Walk('[providers.openai]\nkeys = ["sk-one"]\n[auth]\nrequired = false\n', answers(whole), answers({"choices": []}))
    near, record = await walk.ask({"model": "gpt-5-pro", "messages": [{"role": "user", "content": "hello"}]}, key=None)
    assert near.status == 200, near.body
    assert json.loads(near.body)["choices"][0]["message"]["content"] == "hi"
    assert walk.transport.requests[0].target.path == "/v1/responses"
    assert record.operation == "chat"
    await walk.ask({"model": "gpt-6-sol", "messages": []}, key=None)
    assert walk.transport.requests[1].target.path == "/v1/chat/completions"

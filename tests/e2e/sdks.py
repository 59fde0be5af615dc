"""The official Python SDKs, each asked the same things in its own words: what came of it is told in the same words again."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anthropic
import msgspec
import openai
from google import genai
from google.genai import types

TEXT = 'Largely, yes: 气象 says rain, "probably".'
THOUGHT = "First the wind, then the clouds, then the rain."
SAID = "It is 21 degrees in Shanghai."
OBJECT = {"city": "Shanghai", "celsius": 21}
RESULT = "21 degrees, dry"
INPUT, OUTPUT = 21, 9


def _png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = zlib.compress(b"\0\xd0\x20\x10")
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", row)
        + chunk(b"IEND", b"")
    )


PNG = _png()
"""One red pixel."""
PNG64 = base64.b64encode(PNG).decode()

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "celsius": {"type": "integer"}},
    "required": ["city", "celsius"],
    "additionalProperties": False,
}
PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOL = "get_weather"
DESCRIPTION = "The weather in a city."


class Got(msgspec.Struct):
    """What an SDK made of an answer. `pieces`: in how many the text came; `said`: the text after the tool's result."""

    text: str = ""
    pieces: int = 0
    calls: list[tuple[str, dict[str, Any]]] = []
    said: str = ""
    thought: str = ""
    input: int = 0
    output: int = 0
    error: str = ""


class Wanted(msgspec.Struct):
    """One thing to ask. `stream`, `tools`, `image`, `schema` and `think` say how; `prompt` is what the emulator knows it by."""

    model: str
    prompt: str
    stream: bool = False
    tools: bool = False
    image: bool = False
    schema: bool = False
    think: bool = False


Ask = Callable[[Wanted], Got]


# --- OpenAI: chat completions ----------------------------------------------------------------------------------------------


def chat(client: openai.OpenAI, wanted: Wanted) -> Got:
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG64}"}}
    content: Any = [{"type": "text", "text": wanted.prompt}, image] if wanted.image else wanted.prompt
    messages: list[Any] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": content}]
    asked: dict[str, Any] = {"model": wanted.model, "messages": messages}
    if wanted.tools:
        function = {"name": TOOL, "description": DESCRIPTION, "parameters": PARAMETERS, "strict": True}
        asked["tools"] = [{"type": "function", "function": function}]
    if wanted.schema:
        asked["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "weather", "schema": SCHEMA, "strict": True},
        }
    if wanted.think:
        asked["reasoning_effort"] = "high"
    got = Got()
    completion = _completion(client, asked, got, stream=wanted.stream)
    message = completion.choices[0].message
    got.text, got.thought = message.content or "", got.thought or getattr(message, "reasoning_content", None) or ""
    if completion.usage is not None:
        got.input, got.output = completion.usage.prompt_tokens, completion.usage.completion_tokens
    got.calls = [(call.function.name, json.loads(call.function.arguments)) for call in message.tool_calls or []]
    if got.calls:
        assert completion.choices[0].finish_reason == "tool_calls"
        call = message.tool_calls[0]
        spoken = {"id": call.id, "type": "function", "function": {"name": TOOL, "arguments": call.function.arguments}}
        messages.append({"role": "assistant", "content": None, "tool_calls": [spoken]})
        messages.append({"role": "tool", "tool_call_id": call.id, "content": RESULT})
        got.said = _completion(client, asked, got, stream=wanted.stream).choices[0].message.content or ""
    return got


def _completion(client: openai.OpenAI, asked: dict[str, Any], got: Got, *, stream: bool) -> Any:
    if not stream:
        return client.chat.completions.create(**asked)
    with client.chat.completions.stream(**asked, stream_options={"include_usage": True}) as events:
        for event in events:
            if event.type == "content.delta":
                got.pieces += 1
            elif event.type == "chunk" and event.chunk.choices:
                got.thought += getattr(event.chunk.choices[0].delta, "reasoning_content", None) or ""
        return events.get_final_completion()


# --- OpenAI: Responses -----------------------------------------------------------------------------------------------------


def responses(client: openai.OpenAI, wanted: Wanted) -> Got:
    content: list[Any] = [{"type": "input_text", "text": wanted.prompt}]
    if wanted.image:
        content.append({"type": "input_image", "image_url": f"data:image/png;base64,{PNG64}", "detail": "auto"})
    items: list[Any] = [{"role": "user", "content": content}]
    asked: dict[str, Any] = {"model": wanted.model, "input": items, "instructions": "Be brief.", "store": False}
    if wanted.tools:
        asked["tools"] = [
            {"type": "function", "name": TOOL, "description": DESCRIPTION, "parameters": PARAMETERS, "strict": True}
        ]
    if wanted.schema:
        asked["text"] = {"format": {"type": "json_schema", "name": "weather", "schema": SCHEMA, "strict": True}}
    if wanted.think:
        asked["reasoning"] = {"effort": "high", "summary": "auto"}
    got = Got()
    response = _response(client, asked, got, stream=wanted.stream)
    got.text = response.output_text
    got.input, got.output = response.usage.input_tokens, response.usage.output_tokens
    for item in response.output:
        if item.type == "reasoning":
            got.thought += "".join(part.text for part in item.summary)
        elif item.type == "function_call":
            got.calls.append((item.name, json.loads(item.arguments)))
            call = {"type": "function_call", "call_id": item.call_id, "name": item.name, "arguments": item.arguments}
            items += [call, {"type": "function_call_output", "call_id": item.call_id, "output": RESULT}]
    if got.calls:
        got.said = _response(client, asked, got, stream=wanted.stream).output_text
    return got


def _response(client: openai.OpenAI, asked: dict[str, Any], got: Got, *, stream: bool) -> Any:
    if not stream:
        return client.responses.create(**asked)
    with client.responses.stream(**asked) as events:
        for event in events:
            got.pieces += event.type == "response.output_text.delta"
        return events.get_final_response()


# --- Anthropic: Messages ---------------------------------------------------------------------------------------------------


def messages(client: anthropic.Anthropic, wanted: Wanted) -> Got:
    content: list[Any] = [{"type": "text", "text": wanted.prompt}]
    if wanted.image:
        content.append({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG64}})
    turns: list[Any] = [{"role": "user", "content": content}]
    asked: dict[str, Any] = {"model": wanted.model, "max_tokens": 4096, "messages": turns, "system": "Be brief."}
    if wanted.tools:
        asked["tools"] = [{"name": TOOL, "description": DESCRIPTION, "input_schema": PARAMETERS}]
    if wanted.schema:
        asked["output_config"] = {"format": {"type": "json_schema", "schema": SCHEMA}}
    if wanted.think:
        asked["thinking"] = {"type": "enabled", "budget_tokens": 2048}
    got = Got()
    message = _message(client, asked, got, stream=wanted.stream)
    got.input, got.output = message.usage.input_tokens, message.usage.output_tokens
    results: list[Any] = []
    for block in message.content:
        if block.type == "text":
            got.text += block.text
        elif block.type == "thinking":
            got.thought += block.thinking
        elif block.type == "tool_use":
            got.calls.append((block.name, dict(block.input)))
            results.append({"type": "tool_result", "tool_use_id": block.id, "content": RESULT})
    if got.calls:
        assert message.stop_reason == "tool_use"
        turns += [{"role": "assistant", "content": message.content}, {"role": "user", "content": results}]
        end = _message(client, asked, got, stream=wanted.stream)
        got.said = "".join(block.text for block in end.content if block.type == "text")
    return got


def _message(client: anthropic.Anthropic, asked: dict[str, Any], got: Got, *, stream: bool) -> Any:
    if not stream:
        return client.messages.create(**asked)
    with client.messages.stream(**asked) as events:
        for event in events:
            got.pieces += event.type == "text"
        return events.get_final_message()


# --- Gemini: generateContent -----------------------------------------------------------------------------------------------


def generate(client: genai.Client, wanted: Wanted) -> Got:
    parts = [types.Part(text=wanted.prompt)]
    if wanted.image:
        parts.append(types.Part.from_bytes(data=PNG, mime_type="image/png"))
    contents: list[Any] = [types.Content(role="user", parts=parts)]
    config = types.GenerateContentConfig(
        system_instruction="Be brief.", automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True)
    )
    if wanted.tools:
        schema = {name: value for name, value in PARAMETERS.items() if name != "additionalProperties"}
        declared = types.FunctionDeclaration(name=TOOL, description=DESCRIPTION, parameters_json_schema=schema)
        config.tools = [types.Tool(function_declarations=[declared])]
    if wanted.schema:
        config.response_mime_type, config.response_json_schema = "application/json", SCHEMA
    if wanted.think:
        config.thinking_config = types.ThinkingConfig(include_thoughts=True, thinking_budget=2048)
    got = Got()
    found, usage = _content(client, wanted, contents, config, got)
    got.input = usage.prompt_token_count or 0
    got.output = (usage.candidates_token_count or 0) + (usage.thoughts_token_count or 0)
    got.text = "".join(part.text or "" for part in found if not part.thought)
    got.thought = "".join(part.text or "" for part in found if part.thought)
    calls = [part for part in found if part.function_call is not None]
    got.calls = [(part.function_call.name, dict(part.function_call.args)) for part in calls]
    if calls:
        call = calls[0].function_call
        answer = types.FunctionResponse(id=call.id, name=call.name, response={"result": RESULT})
        contents += [
            types.Content(role="model", parts=found),
            types.Content(role="user", parts=[types.Part(function_response=answer)]),
        ]
        found, _ = _content(client, wanted, contents, config, got)
        got.said = "".join(part.text or "" for part in found if not part.thought)
    return got


def _content(client: genai.Client, wanted: Wanted, contents: list[Any], config: Any, got: Got) -> tuple[list[Any], Any]:
    asked = {"model": wanted.model, "contents": contents, "config": config}
    if not wanted.stream:
        whole = client.models.generate_content(**asked)
        return list(whole.candidates[0].content.parts or []), whole.usage_metadata
    found: list[Any] = []
    usage = None
    for chunk in client.models.generate_content_stream(**asked):
        usage = chunk.usage_metadata or usage
        if chunk.candidates and chunk.candidates[0].content:
            fresh = chunk.candidates[0].content.parts or []
            got.pieces += any(part.text and not part.thought for part in fresh)
            found += fresh
    return found, usage


@contextmanager
def callers(url: str, key: str) -> Iterator[dict[str, Ask]]:
    """How each front door is asked, by its name. What an SDK raises is in `Got.error`."""
    with (
        openai.OpenAI(api_key=key, base_url=f"{url}/v1", max_retries=0, timeout=20) as one,
        anthropic.Anthropic(api_key=key, base_url=url, max_retries=0, timeout=20) as two,
    ):
        options = types.HttpOptions(base_url=url, timeout=20000)
        three = genai.Client(api_key=key, http_options=options)
        fronts: dict[str, Ask] = {
            "chat": lambda wanted: chat(one, wanted),
            "responses": lambda wanted: responses(one, wanted),
            "messages": lambda wanted: messages(two, wanted),
            "generate": lambda wanted: generate(three, wanted),
        }

        def caught(ask: Ask) -> Ask:
            def asked(wanted: Wanted) -> Got:
                try:
                    return ask(wanted)
                except Exception as error:  # noqa: BLE001 - whatever it is, it is the cell's reason
                    return Got(error=f"{type(error).__name__}: {error}"[:500])

            return asked

        yield {name: caught(ask) for name, ask in fronts.items()}
        three.close()

"""The demo provider: answers offline, in the providers' own shapes, so that a first call needs no account.

It is a transport like any other (`Origin.scheme == "demo"`), so everything above it - keys, routing, relay, records - is the
real thing. It is honest about what it is: every answer carries `x-aigw-demo: 1`, its text says so and repeats what the caller
said, and what only a model could do (call a tool, follow a schema) is refused with a 400 instead of faked.

A token is four bytes of UTF-8 text here, rounded up: near what tokenizers give for English, and the same every time.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import math
import re
import struct
import time
import uuid
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from aigw.errors import UpstreamError
from aigw.exchange import Headers, Receiver, UpstreamRequest

MODEL = "demo"
"""The model it lists. Any other name is answered as well."""

_TOKEN_BYTES = 4
_QUOTED = 500  # characters of the caller's text that are repeated
_GREETING = "This is the demo provider of aigw. It works offline and is no model: it only repeats what it is told."
_BORN = 1_767_225_600  # 2026-01-01, as `created` of the model

Json = dict[str, Any]


class DemoTransport:
    """Answers a request by itself instead of sending it. `pause` is the seconds between two events of a stream: small, but
    enough that a stream is seen to stream."""

    def __init__(self, pause: float = 0.005) -> None:
        self._pause = pause

    async def send(self, request: UpstreamRequest, receiver: Receiver) -> None:
        """As `Transport.send`. The only failure is the request's own `timeout`, when its reader stays paused."""
        flow = _DemoFlow()
        try:
            async with asyncio.timeout(request.timeout):
                answer = _answer(request.target.method, request.target.path, request.body)
                receiver.head(answer.status, answer.headers(), flow)
                for block in answer.blocks():
                    if await flow.stopped():
                        return
                    receiver.feed(block)
                    if answer.events is not None:
                        await asyncio.sleep(self._pause)
        except TimeoutError:
            message = f"the demo provider was not read within {request.timeout:g} s"
            raise UpstreamError("provider_timeout", message) from None

    async def close(self) -> None:
        """Nothing is open."""


class _DemoFlow:
    """Pausing is real: nothing is fed until `resume`."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._open.set()
        self._stopped = False

    def pause(self) -> None:
        self._open.clear()

    def resume(self) -> None:
        self._open.set()

    def stop(self) -> None:
        self._stopped = True
        self._open.set()

    complete = stop

    async def stopped(self) -> bool:
        """Wait until the receiver wants more, or nothing more (True)."""
        if not self._stopped:
            await self._open.wait()
        return self._stopped


class _Answer(NamedTuple):
    """Either one `body` or `events`, which are server-sent (or blocks of sound)."""

    status: int = 200
    body: bytes = b""
    events: Iterator[bytes] | None = None
    content_type: bytes = b"application/json"
    id_header: bytes = b"x-request-id"

    def headers(self) -> Headers:
        headers = [(b"content-type", self.content_type), (b"x-aigw-demo", b"1"), (self.id_header, _id("req_").encode())]
        if self.events is None:
            headers.append((b"content-length", str(len(self.body)).encode()))
        else:
            headers.append((b"cache-control", b"no-cache"))
        return headers

    def blocks(self) -> Iterator[bytes]:
        return iter((self.body,)) if self.events is None else self.events


class _RefusedError(Exception):
    """The request cannot be answered; becomes an error body in the dialect of its path."""

    def __init__(self, message: str, *, status: int = 400, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message, self.status, self.param, self.code = message, status, param, code


def _answer(method: str, path: str, body: bytes) -> _Answer:
    path = path.partition("?")[0].rstrip("/")
    anthropic = path.endswith(("/messages", "/messages/count_tokens"))
    try:
        if "/models" in path:
            return _models(method, path.rpartition("/models")[2].lstrip("/"))
        answer = next((answer for suffix, answer in _OPERATIONS.items() if path.endswith(suffix)), None)
        if answer is None:
            raise _RefusedError(f"the demo provider has no {path or '/'}", status=404)
        if method != "POST":
            raise _RefusedError(f"{path} takes POST, not {method}", status=405)
        return answer(body)
    except msgspec.DecodeError as error:  # ValidationError too: it names the place, "... - at `$.messages`"
        where = re.search(r"`\$\.(\w+)", str(error))
        refused = _RefusedError(str(error), param=where[1] if where else None)
    except UnicodeError:
        refused = _RefusedError("the JSON is no valid UTF-8")
    except RecursionError:
        refused = _RefusedError("the JSON is nested too deeply")
    except _RefusedError as error:
        refused = error
    return _refusal(refused, anthropic=anthropic)


def _refusal(error: _RefusedError, *, anthropic: bool) -> _Answer:
    if anthropic:
        kind = "not_found_error" if error.status == 404 else "invalid_request_error"
        shape: Json = {"type": "error", "error": {"type": kind, "message": error.message}, "request_id": _id("req_")}
        return _Answer(error.status, _encode(shape), id_header=b"request-id")
    shape = {"message": error.message, "type": "invalid_request_error", "param": error.param, "code": error.code}
    return _Answer(error.status, _encode({"error": shape}))


# --- what is said -----------------------------------------------------------------------------------------------------


class _Reply(NamedTuple):
    """`ending` is "stop", "length" or "stop_sequence"; `stop` is the sequence that was met."""

    text: str
    ending: str = "stop"
    stop: str | None = None

    def pieces(self) -> list[str]:
        """What a stream sends one by one: words with the space before them."""
        return re.findall(r"\s*\S{1,12}|\s+", self.text)


def _reply(
    heard: str, limit: float | None, stops: Sequence[str], *, as_json: bool = False, param: str = "max_tokens"
) -> _Reply:
    """The answer to *heard*, at most *limit* tokens long, ending before the first of *stops*."""
    if limit is not None and limit < 1:
        raise _RefusedError(f"{param} must be at least 1", param=param)
    quote = heard.strip()
    quote = quote if len(quote) <= _QUOTED else quote[:_QUOTED].rstrip() + "…"
    text = f"{_GREETING} You said: {quote}"
    if as_json:
        text = _encode({"demo": True, "you_said": quote}).decode()
    met = min((place, stop) for stop in ["", *stops] if (place := text.find(stop) if stop else len(text)) >= 0)
    text, stop = text[: met[0]], met[1] or None
    if limit is not None and _tokens(text) > limit:
        return _Reply(text.encode()[: int(limit) * _TOKEN_BYTES].decode(errors="ignore"), "length")
    return _Reply(text, "stop_sequence" if stop else "stop", stop)


def _tokens(*texts: str) -> int:
    return math.ceil(sum(len(text.encode(errors="replace")) for text in texts) / _TOKEN_BYTES)


Content = str | list[Json] | None
"""Text, or parts with a `type`."""


def _text(content: Content) -> str:
    """The text of a message. A part that is none is named in brackets, so that the echo shows it arrived."""
    if content is None or isinstance(content, str):
        return content or ""
    texts = (part.get("text", f"[{part.get('type', 'part')}]") for part in content)
    return " ".join(text for text in texts if isinstance(text, str))


class _Message(msgspec.Struct):
    role: str
    content: Content = None


def _last_said(messages: Sequence[_Message]) -> str:
    """The last user's message, or the last of all when no user speaks."""
    if not messages:
        raise _RefusedError("messages must not be empty", param="messages")
    return _text(next((message for message in reversed(messages) if message.role == "user"), messages[-1]).content)


def _refuse_forced_tool(choice: Any) -> None:
    kind = choice.get("type") if isinstance(choice, dict) else choice
    if kind in ("required", "any", "tool", "function", "custom"):
        raise _RefusedError(
            "the demo provider calls no tools: leave tool_choice out, or use a real provider", param="tool_choice"
        )


def _wants_json(text_format: Json | None, param: str) -> bool:
    kind = text_format.get("type") if text_format else None
    if kind == "json_schema":
        raise _RefusedError("the demo provider cannot follow a JSON schema: use json_object, or a real provider", param=param)
    return kind == "json_object"


# --- chat and completions ---------------------------------------------------------------------------------------------


class _ChatRequest(msgspec.Struct):
    model: str
    messages: list[_Message]
    stream: bool | None = None
    stream_options: Json | None = None
    max_tokens: float | None = None
    max_completion_tokens: float | None = None
    stop: str | list[str] | None = None
    n: float | None = None
    response_format: Json | None = None
    tools: list[Json] | None = None
    tool_choice: Any = None


def _chat(body: bytes) -> _Answer:
    asked = msgspec.json.decode(body, type=_ChatRequest)
    _refuse_forced_tool(asked.tool_choice)
    _refuse_many(asked.n)
    limit = asked.max_tokens if asked.max_completion_tokens is None else asked.max_completion_tokens
    as_json = _wants_json(asked.response_format, "response_format")
    reply = _reply(_last_said(asked.messages), limit, _stops(asked.stop), as_json=as_json)
    prompt = _tokens(*(_text(message.content) for message in asked.messages), _tools_text(asked.tools))
    shape = {"id": _id("chatcmpl-"), "object": "chat.completion", "created": int(time.time()), "model": asked.model}
    finish = "length" if reply.ending == "length" else "stop"

    def events() -> Iterator[bytes]:
        shape["object"] = "chat.completion.chunk"
        yield from _chunks(
            shape,
            [{"role": "assistant", "content": "", "refusal": None}, *({"content": piece} for piece in reply.pieces()), {}],
            lambda delta: {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None if delta else finish},
            _openai_usage(prompt, reply) if (asked.stream_options or {}).get("include_usage") else None,
        )

    if asked.stream:
        return _Answer(events=events(), content_type=_EVENT_STREAM)
    message: Json = {"role": "assistant", "content": reply.text, "refusal": None, "annotations": []}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
    return _Answer(body=_encode(shape | {"choices": [choice], "usage": _openai_usage(prompt, reply)}))


class _CompletionRequest(msgspec.Struct):
    model: str
    prompt: str | list[Any]
    stream: bool | None = None
    stream_options: Json | None = None
    max_tokens: float | None = None
    stop: str | list[str] | None = None
    n: float | None = None


def _completion(body: bytes) -> _Answer:
    asked = msgspec.json.decode(body, type=_CompletionRequest)
    _refuse_many(asked.n)
    prompts = _inputs(asked.prompt, "prompt")
    if len(prompts) != 1:
        raise _RefusedError("the demo provider completes one prompt at a time", param="prompt")
    reply = _reply(prompts[0], asked.max_tokens, _stops(asked.stop))
    prompt = _tokens(prompts[0])
    shape = {"id": _id("cmpl-"), "object": "text_completion", "created": int(time.time()), "model": asked.model}
    finish = "length" if reply.ending == "length" else "stop"
    if asked.stream:
        events = _chunks(
            shape,
            [*reply.pieces(), ""],
            lambda text: {"index": 0, "text": text, "logprobs": None, "finish_reason": None if text else finish},
            _openai_usage(prompt, reply) if (asked.stream_options or {}).get("include_usage") else None,
        )
        return _Answer(events=events, content_type=_EVENT_STREAM)
    choice = {"index": 0, "text": reply.text, "logprobs": None, "finish_reason": finish}
    return _Answer(body=_encode(shape | {"choices": [choice], "usage": _openai_usage(prompt, reply)}))


def _chunks(shape: Json, parts: Sequence[Any], choice: Callable[[Any], Json], usage: Json | None) -> Iterator[bytes]:
    """Chunks in OpenAI's order; when usage was asked for it is null in all but the extra chunk at the end."""
    extra: Json = {} if usage is None else {"usage": None}
    for part in parts:
        yield _event(shape | {"choices": [choice(part)]} | extra)
    if usage is not None:
        yield _event(shape | {"choices": [], "usage": usage})
    yield b"data: [DONE]\n\n"


def _openai_usage(prompt: int, reply: _Reply) -> Json:
    answer = _tokens(reply.text)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": answer,
        "total_tokens": prompt + answer,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def _refuse_many(n: float | None) -> None:
    if n not in (None, 1):
        raise _RefusedError("the demo provider gives one choice", param="n")


def _stops(stop: str | list[str] | None) -> list[str]:
    return [stop] if isinstance(stop, str) else stop or []


def _tools_text(tools: list[Json] | None) -> str:
    return _encode(tools).decode() if tools else ""


# --- responses --------------------------------------------------------------------------------------------------------


class _ResponseRequest(msgspec.Struct):
    model: str
    input: str | list[Json]
    instructions: str | None = None
    stream: bool | None = None
    max_output_tokens: float | None = None
    text: Json | None = None
    tools: list[Json] | None = None
    tool_choice: Any = None
    metadata: dict[str, str] | None = None
    background: bool | None = None
    previous_response_id: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    parallel_tool_calls: bool | None = None


def _response(body: bytes) -> _Answer:
    asked = msgspec.json.decode(body, type=_ResponseRequest)
    _refuse_forced_tool(asked.tool_choice)
    if asked.background or asked.previous_response_id is not None:
        param = "background" if asked.background else "previous_response_id"
        raise _RefusedError("the demo provider keeps no responses", param=param)
    items: list[Json] = [{"role": "user", "content": asked.input}] if isinstance(asked.input, str) else asked.input
    messages = [_Message(str(item.get("role", "")), msgspec.convert(item.get("content"), Content)) for item in items]
    as_json = _wants_json((asked.text or {}).get("format"), "text.format")
    reply = _reply(_last_said(messages), asked.max_output_tokens, (), as_json=as_json, param="max_output_tokens")
    prompt = _tokens(*(_text(message.content) for message in messages), asked.instructions or "", _tools_text(asked.tools))
    shape: Json = {
        "id": _id("resp_"),
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "instructions": asked.instructions,
        "max_output_tokens": None if asked.max_output_tokens is None else int(asked.max_output_tokens),
        "metadata": asked.metadata or {},
        "model": asked.model,
        "output": [],
        "parallel_tool_calls": asked.parallel_tool_calls is not False,
        "previous_response_id": None,
        "temperature": 1.0 if asked.temperature is None else asked.temperature,
        "text": asked.text or {"format": {"type": "text"}},
        "tool_choice": asked.tool_choice or "auto",
        "tools": asked.tools or [],
        "top_p": 1.0 if asked.top_p is None else asked.top_p,
        "truncation": "disabled",
        "usage": None,
    }
    cut = reply.ending == "length"
    part = {"type": "output_text", "text": reply.text, "annotations": [], "logprobs": []}
    status = "incomplete" if cut else "completed"
    item = {"type": "message", "id": _id("msg_"), "role": "assistant", "status": status, "content": [part]}
    answer = _tokens(reply.text)
    whole = shape | {
        "status": status,
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "output": [item],
        "usage": {
            "input_tokens": prompt,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": answer,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": prompt + answer,
        },
    }
    if asked.stream:
        return _Answer(events=_response_events(shape, whole, item, part, reply.pieces()), content_type=_EVENT_STREAM)
    return _Answer(body=_encode(whole))


def _response_events(begun: Json, whole: Json, item: Json, part: Json, pieces: list[str]) -> Iterator[bytes]:
    number = -1

    def event(kind: str, **fields: Any) -> bytes:
        nonlocal number
        number += 1
        return _event({"type": kind, "sequence_number": number} | fields, kind)

    at = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    yield event("response.created", response=begun)
    yield event("response.in_progress", response=begun)
    yield event("response.output_item.added", output_index=0, item=item | {"status": "in_progress", "content": []})
    yield event("response.content_part.added", **at, part=part | {"text": ""})
    for piece in pieces:
        yield event("response.output_text.delta", **at, delta=piece, logprobs=[])
    yield event("response.output_text.done", **at, text=part["text"], logprobs=[])
    yield event("response.content_part.done", **at, part=part)
    yield event("response.output_item.done", output_index=0, item=item)
    yield event(f"response.{whole['status']}", response=whole)


# --- messages ---------------------------------------------------------------------------------------------------------


class _CountRequest(msgspec.Struct):
    model: str
    messages: list[_Message]
    system: Content = None
    tools: list[Json] | None = None

    def prompt(self) -> int:
        return _tokens(*(_text(message.content) for message in self.messages), _text(self.system), _tools_text(self.tools))


class _MessagesRequest(_CountRequest, kw_only=True):
    max_tokens: float
    stream: bool | None = None
    stop_sequences: list[str] | None = None
    tool_choice: Any = None


def _count_tokens(body: bytes) -> _Answer:
    asked = msgspec.json.decode(body, type=_CountRequest)
    _last_said(asked.messages)  # refuses an empty list
    return _Answer(body=_encode({"input_tokens": asked.prompt()}), id_header=b"request-id")


def _messages(body: bytes) -> _Answer:
    asked = msgspec.json.decode(body, type=_MessagesRequest)
    _refuse_forced_tool(asked.tool_choice)
    reply = _reply(_last_said(asked.messages), asked.max_tokens, asked.stop_sequences or [])
    usage = {
        "input_tokens": asked.prompt(),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": _tokens(reply.text),
        "service_tier": "standard",
    }
    message: Json = {
        "id": _id("msg_"),
        "type": "message",
        "role": "assistant",
        "model": asked.model,
        "content": [{"type": "text", "text": reply.text}],
        "stop_reason": {"stop": "end_turn", "length": "max_tokens"}.get(reply.ending, reply.ending),
        "stop_sequence": reply.stop,
        "usage": usage,
    }
    if asked.stream:
        return _Answer(events=_message_events(message, reply), content_type=_EVENT_STREAM, id_header=b"request-id")
    return _Answer(body=_encode(message), id_header=b"request-id")


def _message_events(message: Json, reply: _Reply) -> Iterator[bytes]:
    def event(kind: str, **fields: Any) -> bytes:
        return _event({"type": kind} | fields, kind)

    usage = message["usage"]
    begun = message | {"content": [], "stop_reason": None, "stop_sequence": None, "usage": usage | {"output_tokens": 1}}
    yield event("message_start", message=begun)
    yield event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    yield event("ping")
    for piece in reply.pieces():
        yield event("content_block_delta", index=0, delta={"type": "text_delta", "text": piece})
    yield event("content_block_stop", index=0)
    ending = {"stop_reason": message["stop_reason"], "stop_sequence": message["stop_sequence"]}
    yield event("message_delta", delta=ending, usage={"output_tokens": usage["output_tokens"]})
    yield event("message_stop")


# --- embeddings, rerank, moderations ----------------------------------------------------------------------------------

_LONGEST_INPUT = 8192  # tokens of one text, as OpenAI's embedding models
_MOST_INPUTS = 2048  # texts of one request, as there


class _EmbeddingRequest(msgspec.Struct):
    model: str
    input: str | list[Any]
    dimensions: float | None = None
    encoding_format: str | None = None


def _embeddings(body: bytes) -> _Answer:
    asked = msgspec.json.decode(body, type=_EmbeddingRequest)
    texts = _inputs(asked.input, "input")
    dimensions = 256 if asked.dimensions is None else int(asked.dimensions)
    if not 1 <= dimensions <= 4096:
        raise _RefusedError("dimensions must be between 1 and 4096", param="dimensions")
    if asked.encoding_format not in (None, "float", "base64"):
        raise _RefusedError("encoding_format must be float or base64", param="encoding_format")
    if not 1 <= len(texts) <= _MOST_INPUTS or any(_tokens(text) > _LONGEST_INPUT for text in texts):
        limits = f"input must be 1 to {_MOST_INPUTS} texts of at most {_LONGEST_INPUT} tokens each"
        raise _RefusedError(limits, param="input")
    data = []
    for index, text in enumerate(texts):
        vector: list[float] | str = (numbers := _vector(text, dimensions))
        if asked.encoding_format == "base64":
            vector = base64.b64encode(struct.pack(f"<{dimensions}f", *numbers)).decode()
        data.append({"object": "embedding", "index": index, "embedding": vector})
    used = _tokens(*texts)
    usage = {"prompt_tokens": used, "total_tokens": used}
    return _Answer(body=_encode({"object": "list", "data": data, "model": asked.model, "usage": usage}))


def _vector(text: str, dimensions: int) -> list[float]:
    """A unit vector by feature hashing: each word adds to eight places, so texts that share words lie close together."""
    vector = [0.0] * dimensions
    for word in re.findall(r"\w", text) if not text.isascii() else text.lower().split() or [""]:
        digest = hashlib.sha256(word.encode(errors="replace")).digest()
        for place, sign in struct.iter_unpack("<Hh", digest):
            vector[place % dimensions] += 1.0 if sign >= 0 else -1.0
    length = math.sqrt(sum(number * number for number in vector))
    if not length:  # no word, or all cancelled out
        vector[0] = length = 1.0
    return [number / length for number in vector]


def _inputs(given: str | list[Any], param: str) -> list[str]:
    """Texts of an `input`: one, several, or token numbers (one list or several), each number read as a word."""
    if isinstance(given, str):
        return [given]
    if given and all(isinstance(token, int) for token in given):
        given = [given]
    texts = []
    for text in given:
        if isinstance(text, list) and all(isinstance(token, int) for token in text):
            texts.append(" ".join(str(token) for token in text))
        elif isinstance(text, str):
            texts.append(text)
        else:
            raise _RefusedError(f"{param} must be a text, texts, or token numbers", param=param)
    return texts


class _RerankRequest(msgspec.Struct):
    query: str
    documents: list[str | Json]
    model: str = MODEL
    top_n: float | None = None
    return_documents: bool | None = None


def _rerank(body: bytes) -> _Answer:
    """Cohere's shape, which Jina, vLLM and SiliconFlow share. The score is the cosine of the demo's own embeddings."""
    asked = msgspec.json.decode(body, type=_RerankRequest)
    texts = [text if isinstance(text, str) else str(text.get("text", "")) for text in asked.documents]
    query = _vector(asked.query, 256)
    scores = [sum(a * b for a, b in zip(query, _vector(text[: _LONGEST_INPUT * 4], 256), strict=True)) for text in texts]
    best = sorted(range(len(texts)), key=lambda index: (-scores[index], index))
    results: list[Json] = []
    for index in best[: len(best) if asked.top_n is None else max(int(asked.top_n), 0)]:
        results.append({"index": index, "relevance_score": round(max(scores[index], 0.0), 6)})
        if asked.return_documents:
            results[-1]["document"] = {"text": texts[index]}
    used = _tokens(asked.query, *texts)
    meta = {"billed_units": {"search_units": 1}, "tokens": {"input_tokens": used, "output_tokens": 0}}
    shape = {"id": _id("rerank-"), "model": asked.model, "results": results, "meta": meta, "usage": {"total_tokens": used}}
    return _Answer(body=_encode(shape))


_CATEGORIES = (
    *("harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent"),
    *("self-harm", "self-harm/instructions", "self-harm/intent"),
    *("sexual", "sexual/minors", "violence", "violence/graphic"),
)


class _ModerationRequest(msgspec.Struct):
    input: str | list[Any]
    model: str = MODEL


def _moderation(body: bytes) -> _Answer:
    """Flags nothing: the demo cannot judge, and `x-aigw-demo` says that nobody did."""
    asked = msgspec.json.decode(body, type=_ModerationRequest)
    parts = isinstance(asked.input, list) and any(isinstance(part, dict) for part in asked.input)
    verdict = {
        "flagged": False,
        "categories": dict.fromkeys(_CATEGORIES, False),
        "category_scores": dict.fromkeys(_CATEGORIES, 0.0),
        "category_applied_input_types": {category: ["text"] for category in _CATEGORIES},
    }
    count = 1 if parts or isinstance(asked.input, str) else len(asked.input)
    return _Answer(body=_encode({"id": _id("modr-"), "model": asked.model, "results": [verdict] * count}))


# --- images and speech ------------------------------------------------------------------------------------------------


class _ImageRequest(msgspec.Struct):
    prompt: str
    model: str = MODEL
    n: float | None = None
    size: str | None = None
    response_format: str | None = None
    output_format: str | None = None
    stream: bool | None = None


def _images(body: bytes) -> _Answer:
    asked = msgspec.json.decode(body, type=_ImageRequest)
    size = "256x256" if asked.size in (None, "auto") else str(asked.size)
    measures = re.fullmatch(r"(\d{1,4})x(\d{1,4})", size)
    if not measures or not (1 <= int(measures[1]) <= 2048 and 1 <= int(measures[2]) <= 2048):
        raise _RefusedError("size must be WIDTHxHEIGHT, at most 2048 each", param="size")
    count = 1 if asked.n is None else int(asked.n)
    if not 1 <= count <= 10 or (asked.stream and count != 1):
        raise _RefusedError("n must be between 1 and 10, and 1 in a stream", param="n")
    if asked.output_format not in (None, "png"):
        raise _RefusedError("the demo provider draws png only", param="output_format")
    width, height = int(measures[1]), int(measures[2])
    picture = base64.b64encode(_png(width, height, hashlib.sha256(asked.prompt.encode(errors="replace")).digest()[:3])).decode()
    prompt, drawn = _tokens(asked.prompt), math.ceil(width * height / 1024)
    usage = {
        "input_tokens": prompt,
        "input_tokens_details": {"text_tokens": prompt, "image_tokens": 0},
        "output_tokens": drawn * count,
        "total_tokens": prompt + drawn * count,
    }
    about = {"background": "opaque", "output_format": "png", "quality": "low", "size": size}
    now = int(time.time())
    if asked.stream:
        kind = "image_generation.completed"
        done = _event({"type": kind, "b64_json": picture, "created_at": now, "usage": usage} | about, kind)
        return _Answer(events=iter((done,)), content_type=_EVENT_STREAM)
    image = {"url": f"data:image/png;base64,{picture}"} if asked.response_format == "url" else {"b64_json": picture}
    return _Answer(body=_encode({"created": now, "data": [image] * count, "usage": usage} | about))


def _png(width: int, height: int, colour: bytes) -> bytes:
    """One plain colour (three bytes, RGB), as a palette of one entry: one bit a pixel, so a large picture costs nothing."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 3, 0, 0, 0)) + chunk(b"PLTE", colour)
    rows = zlib.compress(bytes((1 + (width + 7) // 8) * height))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


class _SpeechRequest(msgspec.Struct):
    model: str
    input: str
    voice: Any = None
    response_format: str | None = None
    stream_format: str | None = None


_SAMPLE_RATE = 24_000  # per second, 16 bits, one channel: what OpenAI's `pcm` is
# One frame of MPEG-1 layer III, 44.1 kHz, 32 kbit/s, one channel: 104 bytes, 26.12 ms. Zero side information is silence.
_SILENT_FRAME = b"\xff\xfb\x10\xc4" + bytes(100)


def _speech(body: bytes) -> _Answer:
    """Silence, as long as the text would take to say (two words a second, at most a minute)."""
    asked = msgspec.json.decode(body, type=_SpeechRequest)
    seconds = min(max(len(asked.input.split()) / 2, 0.5), 60.0)
    samples = bytes(int(seconds * _SAMPLE_RATE) * 2)
    match asked.response_format:
        case None | "mp3":
            kind, sound = b"audio/mpeg", _SILENT_FRAME * math.ceil(seconds * 44_100 / 1152)
        case "wav":
            riff = struct.pack("<4sI4s", b"RIFF", 36 + len(samples), b"WAVE")
            form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, _SAMPLE_RATE, _SAMPLE_RATE * 2, 2, 16)
            kind, sound = b"audio/wav", riff + form + struct.pack("<4sI", b"data", len(samples)) + samples
        case "pcm":
            kind, sound = b"audio/pcm", samples
        case other:
            message = f"the demo provider says its silence in mp3, wav and pcm, not in {other}"
            raise _RefusedError(message, param="response_format")
    blocks = (sound[start : start + 16_384] for start in range(0, len(sound), 16_384))
    if asked.stream_format != "sse":
        return _Answer(events=blocks, content_type=kind)
    prompt, said = _tokens(asked.input), math.ceil(seconds * 20)
    usage = {"input_tokens": prompt, "output_tokens": said, "total_tokens": prompt + said}

    def events() -> Iterator[bytes]:
        for block in blocks:
            yield _event({"type": "speech.audio.delta", "audio": base64.b64encode(block).decode()})
        yield _event({"type": "speech.audio.done", "usage": usage})

    return _Answer(events=events(), content_type=_EVENT_STREAM)


# --- models -----------------------------------------------------------------------------------------------------------


def _models(method: str, name: str) -> _Answer:
    if method != "GET":
        raise _RefusedError(f"/models takes GET, not {method}", status=405)
    model = {"id": MODEL, "object": "model", "created": _BORN, "owned_by": "aigw"}
    if not name:
        return _Answer(body=_encode({"object": "list", "data": [model]}))
    if name != MODEL:
        raise _RefusedError(f"the demo provider lists no model {name!r}", status=404, param="model", code="model_not_found")
    return _Answer(body=_encode(model))


# Behind the version prefix; a longer path stands before the shorter one that it ends with.
_OPERATIONS: dict[str, Callable[[bytes], _Answer]] = {
    "/chat/completions": _chat,
    "/completions": _completion,
    "/embeddings": _embeddings,
    "/responses": _response,
    "/messages/count_tokens": _count_tokens,
    "/messages": _messages,
    "/images/generations": _images,
    "/audio/speech": _speech,
    "/moderations": _moderation,
    "/rerank": _rerank,
}

_EVENT_STREAM = b"text/event-stream; charset=utf-8"
_encode = msgspec.json.Encoder().encode


def _event(content: Json, name: str = "") -> bytes:
    """One server-sent event."""
    return (b"event: %b\n" % name.encode() if name else b"") + b"data: " + _encode(content) + b"\n\n"


def _id(prefix: str) -> str:
    return prefix + uuid.uuid4().hex[:24]

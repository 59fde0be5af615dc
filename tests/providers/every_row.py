"""What every row of the catalog is sent, and how its answers, errors and streams arrive at callers, as files: one for each row
in tests/wire/providers. `python -m tests.providers.every_row` writes them; test_every_row.py compares them with what happens.

Each goes through a real pipeline. What hosts answer is in the shape of their API (`ANSWERS`), with what is known to be odd
about some of them (`ODD`), from the facts beside the catalog. The mark of the evidence is the row's.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aigw.config.load import parse
from aigw.exchange import Record
from aigw.protocols.operations import OPERATIONS
from aigw.providers import catalog, compatible
from aigw.providers.catalog import Row
from tests import walk
from tests.walk import KEY, Near, Play, Walk

FILES = Path(__file__).parent.parent / "wire/providers"
SECRET = "sk-golden-0123456789"
TOKEN = "token-golden-0123456789"

SAY = [{"role": "user", "content": "Say hi."}]
ASKED: dict[str, dict[str, Any]] = {
    "chat": {"messages": SAY, "max_tokens": 5},
    "completions": {"prompt": "Say hi.", "max_tokens": 5},
    "embeddings": {"input": ["one", "two"]},
    "responses": {"input": "Say hi.", "max_output_tokens": 16},
    "images": {"prompt": "a cat"},
    "speech": {"input": "hi", "voice": "alloy"},
    "moderations": {"input": "hi"},
    "rerank": {"query": "q", "documents": ["one", "two"], "top_n": 1},
    "messages": {"messages": SAY, "max_tokens": 5},
    "generate": {"contents": [{"role": "user", "parts": [{"text": "Say hi."}]}]},
}
"""A small request for each operation that callers know by a path of its own and JSON."""

_USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def _event(value: Any, name: str = "") -> bytes:
    return (f"event: {name}\n".encode() if name else b"") + b"data: " + json.dumps(value).encode() + b"\n\n"


def _chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish, **more.pop("choice", {})}
    return _event({"id": "c1", "object": "chat.completion.chunk", "created": 10, "model": "m", "choices": [choice], **more})


def _chat(**more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": "hi", **more.pop("said", {})}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return {"id": "c1", "object": "chat.completion", "created": 10, "model": "m", "choices": [choice], "usage": _USAGE, **more}


_DONE = b"data: [DONE]\n\n"
_MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [{"type": "text", "text": "hi"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 3, "output_tokens": 2},
}
_GENERATED = {
    "candidates": [{"index": 0, "content": {"role": "model", "parts": [{"text": "hi"}]}, "finishReason": "STOP"}],
    "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 2, "totalTokenCount": 5},
    "modelVersion": "m",
    "responseId": "g1",
}

ANSWERS: dict[str, Any] = {
    "chat": _chat(),
    "messages": _MESSAGE,
    "generate": _GENERATED,
    "converse": {
        "output": {"message": {"role": "assistant", "content": [{"text": "hi"}]}},
        "stopReason": "end_turn",
        "usage": {"inputTokens": 3, "outputTokens": 2, "totalTokens": 5},
    },
    "embeddings": {
        "object": "list",
        "data": [{"object": "embedding", "index": at, "embedding": [0.5, -0.5]} for at in range(2)],
        "model": "m",
        "usage": {"prompt_tokens": 2, "total_tokens": 2},
    },
    "rerank": {"id": "r1", "results": [{"index": 1, "relevance_score": 0.9}]},
    "cohere_chat": {
        "id": "k1",
        "finish_reason": "COMPLETE",
        "message": {"role": "assistant", "content": [{"type": "text", "text": "hi"}]},
        "usage": {"tokens": {"input_tokens": 3.0, "output_tokens": 2.0}},
    },
    "voyage_rerank": {
        "object": "list",
        "data": [{"index": 1, "relevance_score": 0.9}],
        "model": "m",
        "usage": {"total_tokens": 4},
    },
    "dify": {
        "event": "message",
        "message_id": "m1",
        "conversation_id": "k1",
        "answer": "hi",
        "created_at": 10,
        "metadata": {"usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}},
    },
    "deepl": {"translations": [{"detected_source_language": "EN", "text": "Sag hallo."}]},
    "replicate": {
        "id": "p1",
        "model": "openai/gpt-5",
        "status": "succeeded",
        "output": ["h", "i"],
        "metrics": {"input_token_count": 3, "output_token_count": 2},
    },
    "triton": {"model_name": "m", "model_version": "1", "text_output": "hi"},
}
"""By the operation that the host is asked for: a whole answer."""

_COZE = b"".join(
    [
        b'event:conversation.chat.created\ndata:{"id":"z1","status":"created","created_at":10}\n\n',
        b'event:conversation.message.delta\ndata:{"id":"a","type":"answer","content":"hi"}\n\n',
        b'event:conversation.message.completed\ndata:{"id":"a","type":"answer","content":"hi"}\n\n',
        b'event:conversation.message.completed\ndata:{"id":"b","type":"verbose","content":"{}"}\n\n',
        b'event:conversation.chat.completed\ndata:{"id":"z1","status":"completed",',
        b'"usage":{"token_count":5,"output_count":2,"input_count":3}}\n\n',
        b'event:done\ndata:"[DONE]"\n\n',
    ]
)

STREAMS: dict[str, bytes] = {
    "chat": _chunk({"role": "assistant", "content": "h"})
    + _chunk({"content": "i"})
    + _chunk({}, "stop")
    + _event({"id": "c1", "object": "chat.completion.chunk", "created": 10, "model": "m", "choices": [], "usage": _USAGE})
    + _DONE,
    "messages": b"".join(
        _event({"type": name, **value}, name)
        for name, value in (
            ("message_start", {"message": {**_MESSAGE, "content": [], "stop_reason": None}}),
            ("content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}}),
            ("content_block_delta", {"index": 0, "delta": {"type": "text_delta", "text": "hi"}}),
            ("content_block_stop", {"index": 0}),
            ("message_delta", {"delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": {"output_tokens": 2}}),
            ("message_stop", {}),
        )
    ),
    "generate": _event(_GENERATED),
    "dify": _event({"event": "message", "message_id": "m1", "conversation_id": "k1", "answer": "hi", "created_at": 10})
    + b"event: ping\n\n"
    + _event({"event": "message_end", "metadata": {"usage": _USAGE}}),
    "coze": _COZE,
    "triton": _event({"model_name": "m", "text_output": "h"}) + _event({"model_name": "m", "text_output": "i"}),
}

ERROR: dict[str, Any] = {"error": {"message": "Incorrect API key", "type": "invalid_request_error", "code": "invalid_api_key"}}
_BASE_OK = {"status_code": 0, "status_msg": "success"}

ODD: dict[str, dict[str, Any]] = {
    "minimax": {
        "answer": _chat(base_resp=_BASE_OK),
        "error": (200, {"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}),
    },
    "spark": {
        "answer": _chat(code=0, message="Success", sid="s1"),
        "error": (200, {"code": 11200, "message": "AppIdNoAuthError", "sid": "s1"}),
        "stream": _chunk({"content": "hi"}, code=0, sid="s1") + _chunk({}, None, code=0, usage=_USAGE) + _DONE,
    },
    "zhipu": {"error": (429, {"error": {"code": "1113", "message": "您的账户已欠费"}})},
    "deepseek": {
        "answer": _chat(said={"reasoning_content": "Hm."}),
        "error": (
            402,
            {"error": {"message": "Insufficient Balance", "type": "unknown_error", "code": "invalid_request_error"}},
        ),
        "stream": b": keep-alive\n\n" + STREAMS["chat"],
    },
    "moonshot": {
        "stream": _chunk({"content": "hi"}) + _chunk({}, "stop", choice={"usage": _USAGE}) + _DONE,
        "error": (429, {"error": {"type": "exceeded_current_quota_error", "message": "no balance"}}),
    },
    "groq": {"stream": _chunk({"content": "hi"}) + _chunk({}, "stop", x_groq={"id": "q", "usage": _USAGE}) + _DONE},
    "openrouter": {
        "stream": b": OPENROUTER PROCESSING\n\n" + STREAMS["chat"],
        "error": (200, {"error": {"code": 402, "message": "Insufficient credits"}}),
    },
    "perplexity": {"stream": _chunk({"content": "hi"}, usage=_USAGE) + _chunk({}, "stop", usage=_USAGE) + _DONE},
    "dashscope": {"error": (400, {"error": {"code": "Arrearage", "message": "account in arrears"}})},
    "doubao": {"error": (403, {"error": {"code": "AccountOverdueError", "message": "overdue", "type": "Forbidden"}})},
    "cohere": {"error": (401, {"id": "e1", "message": "invalid api token"})},
    "cloudflare": {"error": (401, {"success": False, "errors": [{"code": 10000, "message": "Authentication error"}]})},
    "anthropic": {
        "error": (401, {"type": "error", "error": {"type": "authentication_error", "message": "invalid x-api-key"}}),
    },
    "gemini": {
        "error": (
            400,
            {"error": {"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT"}},
        ),
    },
    "bedrock": {"error": (403, {"message": "The security token included in the request is invalid."})},
    "ollama": {"error": (404, {"error": "model 'm' not found"})},
    "dify": {"error": (401, {"code": "unauthorized", "message": "Access token is invalid", "status": 401})},
    "coze": {"error": (200, {"code": 4100, "msg": "authentication is invalid"})},
    "deepl": {"error": (456, {"message": "Quota Exceeded"})},
    "replicate": {"error": (402, {"title": "Insufficient credit", "detail": "You have insufficient credit.", "status": 402})},
    "triton": {"error": (400, {"error": "Request for unknown model: 'm' is not found"})},
}
"""What is known to be odd about some hosts."""
for _twin, _own in (
    ("minimax-intl", "minimax"),
    ("moonshot-intl", "moonshot"),
    ("zai", "zhipu"),
    ("dashscope-intl", "dashscope"),
):
    ODD[_twin] = ODD[_own]

SETTINGS = {
    "resource": "res",
    "region": "us-east-1",
    "location": "us-central1",
    "project": "proj",
    "project_id": "proj",
    "account": "acct",
    "account_id": "acct",
    "host": "dbc-1.cloud.databricks.com",
    "compartment_id": "ocid1.compartment",
    "bot_id": "7350",
}


MODELS = {("bedrock", "embeddings"): "cohere.embed-multilingual-v3"}
"""Where the row's default model does not do."""


def config(row: Row) -> str:
    """The smallest table that serves *row*."""
    lines = [f'[consumers.ci]\nkey = "{KEY}"\n[providers.{row.id}]']
    if row.auth != "none" and row.protocol != "demo" and not row.caller_only:
        lines.append(f'keys = ["{SECRET}"]')
    if row.category == "generic":
        lines.append('base_url = "http://127.0.0.1:9/v1"')
    names = {setting.name for setting in row.settings}
    wanted = {name: value for name, value in SETTINGS.items() if name in names and (name != "region" or row.id != "bedrock")}
    if wanted:
        pairs = ", ".join(f'{name} = "{value}"' for name, value in sorted(wanted.items()))
        lines.append(f"settings = {{{pairs}}}")
    return "\n".join(lines) + "\n"


def model_of(row: Row) -> str:
    return row.default_model or (row.models[0] if row.models else "m")


def plays(*answers: Play) -> Play:
    """The answers in their order; whoever wants a token first gets one."""
    left = list(answers)

    async def play(request: Any, receiver: Any) -> None:
        asks_token = re.search(r"oauth|identity/token|iam|/token", request.target.path) is not None
        await (_token if asks_token else left.pop(0) if len(left) > 1 else left[0])(request, receiver)

    return play


_token = walk.answers({"access_token": TOKEN, "expires_in": 3600, "expires_at": 4102444800000, "token_type": "Bearer"})


def sent(request: Any) -> dict[str, Any]:
    """An upstream request as the wire has it."""
    head, *lines = (request.target.wire + request.extra).decode().split("\r\n")
    method, path, _ = head.split(" ")
    origin = request.target.origin
    headers = dict(line.split(": ", 1) for line in lines if line)
    headers.pop("user-agent", None)  # our version
    for moving in ("rquid", "x-amz-date"):
        headers.pop(moving, None)
    body: Any = request.body.decode()
    if body.startswith("{"):
        body = json.loads(body)
    return {"method": method, "url": f"{origin.scheme}://{headers.pop('host')}{path}", "headers": headers, "body": body}


def _caller(near: Near) -> Any:
    """What the caller got, without what is another each time."""
    text = re.sub(r"req_\d+", "req_N", near.body.decode())
    text = re.sub(r'"(created|created_at|createTime)":\s?\d{9,}(\.\d+)?', r'"\1":0', text)
    try:
        return json.loads(text)
    except ValueError:
        return text.splitlines()


def brings(row: Row) -> dict[str, str]:
    """What a caller sends besides its key: its own login, where the provider wants that."""
    if not row.caller_only:
        return {}
    own = {"Authorization": "Bearer a-login-of-ones-own", "x-aigw-key": walk.KEY, "x-program": "its own words"}
    return own | ({"anthropic-version": "2023-06-01"} if row.anthropic_url else {})


def served(row: Row) -> Iterator[tuple[str, str]]:
    """Each operation it is asked for, and the one by which it serves it."""
    parsed = parse(config(row))
    table = parsed.providers[row.id]
    provider = compatible.build(row.id, table, parsed.upstream, list(table.references), environ={})
    for name in ASKED:
        via = provider.serving(OPERATIONS[name], model_of(row))
        if via is not None:
            yield name, via.name


async def golden(row: Row) -> dict[str, Any]:
    """All that is kept of one row."""
    model, odd = model_of(row), ODD.get(row.id, {})
    ways = dict(served(row))
    found: dict[str, Any] = {"evidence": row.evidence, "quirks": list(row.quirks), "requests": {}}
    for name, via in ways.items():
        asked = f"{row.id}/{MODELS.get((row.id, name), model)}"
        body = dict(ASKED[name]) if name == "generate" else {"model": asked, **ASKED[name]}
        path: dict[str, Any] = {"requested_model": asked} if name == "generate" else {}
        answer = ANSWERS.get(via, {"object": "ok", "model": "m", "data": [], "output": [], "results": []})
        play = walk.streams(STREAMS[via]) if via == "coze" else walk.answers(answer)
        walked = Walk(config(row), plays(play))
        await walked.ask(body, name, headers=brings(row), **path)
        assert walked.transport.requests, (row.id, name)
        found["requests"][name] = {"by": via, **sent(walked.transport.requests[-1])}
    front = next((name for name in ("chat", "messages", "embeddings", "rerank") if name in ways), "")
    if front:
        found |= await _answers(row, front, ways[front], model, odd)
    return found


async def _answers(row: Row, front: str, via: str, model: str, odd: dict[str, Any]) -> dict[str, Any]:
    """How an answer, an error and a stream of the host's arrive."""
    found: dict[str, Any] = {}
    body = {"model": f"{row.id}/{model}", **ASKED[front]}
    answer = odd.get("answer") or ANSWERS.get(via)
    if answer is not None:
        near, record = await Walk(config(row), plays(walk.answers(answer))).ask(body, front, headers=brings(row))
        found["answer"] = {"host": answer, "status": near.status, "caller": _caller(near), "spent": _spent(record)}
    status, error = odd.get("error", (401, ERROR))
    near, record = await Walk(config(row), plays(walk.answers(error, status))).ask(body, front, headers=brings(row))
    known = json.loads(record.attempts)[-1]
    found["error"] = {
        "host": [status, error],
        "status": near.status,
        "code": record.error,
        "attempt": [known.get("status"), known.get("error")],
    }
    stream = odd.get("stream") or STREAMS.get(via)
    if stream is not None and front in ("chat", "messages"):
        near, record = await Walk(config(row), plays(walk.streams(stream))).ask(
            {**body, "stream": True}, front, headers=brings(row)
        )
        found["stream"] = {
            "host": stream.decode().splitlines(),
            "status": near.status,
            "caller": _caller(near),
            "spent": _spent(record),
        }
    return found


def _spent(record: Record) -> list[Any]:
    return [record.input, record.output, record.estimated]


def made(name: str) -> str:
    """The text of a row's file."""
    return json.dumps(asyncio.run(golden(catalog.row(name))), ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def main() -> None:
    FILES.mkdir(parents=True, exist_ok=True)
    for name in catalog.ids():
        (FILES / f"{name}.json").write_text(made(name), encoding="utf-8")


if __name__ == "__main__":
    main()

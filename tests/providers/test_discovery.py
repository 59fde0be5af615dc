"""What is at an address is found out from real servers on loopback."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from aigw.cli.probing import discover
from aigw.config import load, schema
from aigw.errors import ConfigError
from aigw.providers.discovery import Found
from tests.cli.emulated import BAD_KEY, KEY, MODELS, NOT_FOUND, PAGE, Answer, Asked, Emulated, Reply, guarded

REFUSED = Reply(400, {"error": {"message": "model is required", "type": "invalid_request_error"}})
REFUSED_BY_ANTHROPIC = Reply(400, {"type": "error", "error": {"type": "invalid_request_error", "message": "model: required"}})
UNKNOWN_TO_ANTHROPIC = Reply(401, {"type": "error", "error": {"type": "authentication_error", "message": "invalid x-api-key"}})
EVENT = b'data: {"choices":[{"delta":{"content":"hello"}}],"usage":null}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":1}}\n\n'
DONE = b"data: [DONE]\n\n"


def chat(with_usage: bytes = USAGE, *, takes_options: bool = True) -> Answer:
    """A chat endpoint that streams."""

    def answer(asked: Asked) -> Reply:
        body: dict[str, Any] = asked.json
        if "model" not in body:
            return REFUSED
        if "stream_options" in body and not takes_options:
            return Reply(400, {"error": {"message": "unknown field stream_options"}})
        return Reply(200, EVENT + with_usage + DONE, {"content-type": "text/event-stream"})

    return guarded(answer)


def look(far: Emulated, path: str = "", key: str = KEY, **more: Any) -> Found:
    found = discover(far.root + path, key, schema.Upstream(), timeout=10, **more)
    if found.kind:  # whatever is found can be written into a config
        lines = "\n".join(
            f"{name} = {repr(value).lower() if isinstance(value, bool) else repr(value)}"
            for name, value in found.table().items()
        )
        load.parse(f"[providers.new]\n{lines}\n")
    return found  # fmt: skip


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/", "/v1/chat/completions", "/v1/models", "/chat/completions"])
def test_an_openai_server_with_v1(path: str) -> None:
    """However its address is written: with /v1, without, or with a whole endpoint."""
    with Emulated({"GET /v1/models": guarded(MODELS), "POST /v1/chat/completions": chat()}) as far:
        found = look(far, path)
    assert found.verdict.kind == "good"
    assert found.table() == {"kind": "openai-compatible", "base_url": far.url}
    assert (found.dialects, found.usage) == (("OpenAI",), "stream")
    assert found.verdict.models == ("small-1", "large-1")


@pytest.mark.parametrize("path", ["/api/v3", "/api/v3/chat/completions", "/compatible"])
def test_an_openai_server_without_v1(path: str) -> None:
    """Another version in the path, or none: nothing is put behind it."""
    base = path.removesuffix("/chat/completions")
    with Emulated({f"GET {base}/models": guarded(MODELS), f"POST {base}/chat/completions": chat()}) as far:
        assert look(far, path).base_url == far.root + base


def test_both_apis() -> None:
    """A server that speaks Anthropic's API besides gets both addresses."""
    answers = {
        "GET /v1/models": guarded(MODELS),
        "POST /v1/chat/completions": chat(),
        "POST /v1/messages": guarded(REFUSED_BY_ANTHROPIC),
    }
    with Emulated(answers) as far:
        found = look(far)
    assert found.dialects == ("OpenAI", "Anthropic")
    assert (found.base_url, found.anthropic_base_url) == (far.url, far.root)


def test_anthropic_alone_with_its_own_header() -> None:
    """x-api-key where Bearer is refused: the row of Anthropic itself, at that address."""

    def guard(reply: Reply) -> Answer:
        return lambda asked: reply if asked.headers.get("x-api-key") == KEY else UNKNOWN_TO_ANTHROPIC

    with Emulated({"GET /v1/models": guard(MODELS), "POST /v1/messages": guard(REFUSED_BY_ANTHROPIC)}) as far:
        found = look(far)
    assert found.table() == {"kind": "anthropic", "base_url": far.url}
    assert found.verdict.kind == "good"
    assert found.dialects == ("Anthropic",)


def test_anthropic_alone_with_bearer_and_no_list() -> None:
    """Only /v1/messages is there."""
    with Emulated({"POST /anthropic/v1/messages": guarded(REFUSED_BY_ANTHROPIC)}) as far:
        found = look(far, "/anthropic")
    assert found.table() == {
        "kind": "openai-compatible",
        "anthropic_base_url": f"{far.root}/anthropic",
        "list_models": False,
    }
    assert found.verdict.kind == "unknown"


def test_no_list_of_models() -> None:
    """The chat endpoint is found all the same, nothing is charged, and a named model tells how usage is reported."""
    with Emulated({"POST /v1/chat/completions": chat()}) as far:
        found = look(far)
        assert found.table() == {"kind": "openai-compatible", "base_url": far.url, "list_models": False}
        assert (found.verdict.kind, found.usage) == ("unknown", "")
        assert all(asked.json == {} for asked in far.asked if asked.method == "POST")
        assert look(far, model="m-1").usage == "stream"


def test_streams_that_refuse_to_be_asked_for_usage() -> None:
    """They report it anyway, and are not asked any more."""
    with Emulated({"GET /v1/models": guarded(MODELS), "POST /v1/chat/completions": chat(takes_options=False)}) as far:
        found = look(far)
    assert found.usage == "unasked"
    assert found.table()["stream_usage"] is False


def test_streams_without_usage() -> None:
    """It is said that usage will be estimated."""
    with Emulated({"GET /v1/models": guarded(MODELS), "POST /v1/chat/completions": chat(with_usage=b"")}) as far:
        found = look(far)
    assert found.usage == "none"
    assert "estimated" in found.notes[0]


def test_a_wrong_key_is_told_from_a_wrong_address() -> None:
    """The address is right; nothing is asked of a model."""
    with Emulated({"GET /v1/models": guarded(MODELS), "POST /v1/chat/completions": chat()}) as far:
        found = look(far, key="sk-wrong")
        assert found.verdict.kind == "wrong_key"
        assert found.base_url == far.url
        assert not [asked for asked in far.asked if b"hello" in asked.body]


def test_a_guard_before_all_paths_is_no_second_api() -> None:
    """401 for everything does not mean that Anthropic's API is there."""
    with Emulated(otherwise=BAD_KEY) as far:
        found = look(far, "/v1")
    assert (found.verdict.kind, found.base_url, found.anthropic_base_url) == ("wrong_key", far.url, "")


def test_a_server_without_keys() -> None:
    """A local one: its models are listed to anybody."""
    with Emulated(
        {"GET /v1/models": MODELS, "POST /v1/chat/completions": lambda a: chat()(a._replace(headers={"x-api-key": KEY}))}
    ) as far:
        found = look(far, key="")
    assert (found.verdict.kind, found.usage) == ("good", "stream")  # fmt: skip


@pytest.mark.parametrize(
    ("otherwise", "why"),
    [
        (PAGE, "web page"),
        (Reply(308, b"", {"location": "https://elsewhere.test/v1"}), "redirects (308) to https://elsewhere.test/v1"),
        (NOT_FOUND, "has nothing at /v1/models (404); has nothing at /models (404)"),
        (Reply(200, {"hello": "world"}), "not with a list of models"),
    ],
)
def test_nothing_we_speak(otherwise: Reply, why: str) -> None:
    """A web server, a redirect, another API: what answered is said."""
    with Emulated(otherwise=otherwise) as far:
        found = look(far)
    assert found.verdict.kind == "wrong_url"
    assert why in found.verdict.detail
    assert not found.kind


def test_nobody_is_there() -> None:
    """A closed port is tried once."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        found = discover(f"http://127.0.0.1:{taken.getsockname()[1]}", KEY, schema.Upstream(), timeout=5)
    assert found.verdict.kind == "wrong_url"
    assert "nothing listens at 127.0.0.1" in found.verdict.detail


@pytest.mark.parametrize("url", ["gpu:8000", "ftp://gpu/v1", "https://", "https://user:pw@gpu/v1"])
def test_what_is_no_url(url: str) -> None:
    """It is refused before anything is sent, without being repeated."""
    with pytest.raises(ConfigError, match="--base-url") as caught:
        discover(url, KEY, schema.Upstream())
    assert "pw" not in str(caught.value)

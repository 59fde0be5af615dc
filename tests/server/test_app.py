"""The data port beside the hot path: lists, health, and refusals an SDK understands."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.data_port import BEARER, DEMO, Running, serving

ANTHROPIC = BEARER | {"anthropic-version": "2023-06-01"}


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[Running]:
    async with serving(tmp_path) as running:
        yield running


async def test_health(port: Running) -> None:
    """Both need no key, and say nothing else."""
    for path in ("/healthz", "/readyz"):
        answer = await port.ask("GET", path, headers={})
        assert (answer.status, answer.json()) == (200, {"status": "ok" if path == "/healthz" else "ready"})
    assert (await port.ask("HEAD", "/healthz", headers={})).status == 200


async def test_not_ready_while_draining(port: Running) -> None:
    """A load balancer sends nothing new; what is alive is still alive."""
    port.server.gateway.draining = True
    assert (await port.ask("GET", "/readyz")).status == 503
    assert (await port.ask("GET", "/healthz")).status == 200


async def test_not_ready_without_a_provider(tmp_path: Path) -> None:
    """It starts all the same, and says why."""
    async with serving(tmp_path, DEMO.replace("[providers.demo]", "")) as port:
        answer = await port.ask("GET", "/readyz")
        assert (answer.status, answer.json()) == (503, {"status": "no provider is configured"})
        assert any("no provider is configured: add one to" in line for line in port.said)
        assert (await port.ask("GET", "/v1/models")).json() == {"object": "list", "data": []}


@pytest.mark.parametrize("prefix", ["/v1", "", "/v1/v1", "/openai/v1", "/anthropic/v1"])
async def test_models_at_every_prefix(port: Running, prefix: str) -> None:
    """Base URLs are written in every way; both dialects have their shape."""
    listed = (await port.ask("GET", prefix + "/models")).json()
    assert (listed["object"], [one["id"] for one in listed["data"]]) == ("list", ["demo"])
    assert (await port.ask("GET", prefix + "/models/demo")).json()["object"] == "model"
    assert (await port.ask("GET", prefix + "/models", headers=ANTHROPIC)).json()["has_more"] is False
    assert (await port.ask("GET", prefix + "/models/demo", headers=ANTHROPIC)).json()["type"] == "model"


async def test_a_model_with_slashes(port: Running) -> None:
    """`provider/model` is a name, also when a client escapes the slash."""
    for name in ("demo/any/thing", "demo%2Fany%2Fthing"):
        answer = await port.ask("GET", f"/v1/models/{name}")
        assert (answer.status, answer.json()["id"]) == (200, "demo/any/thing")


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/demo"])
async def test_models_are_for_those_with_a_key(port: Running, path: str) -> None:
    """401 in the caller's dialect."""
    answer = await port.ask("GET", path, headers={})
    assert (answer.status, answer.json()["error"]["code"]) == (401, "invalid_api_key")
    assert answer.headers["x-aigw-error"] == "policy_key_missing"
    answer = await port.ask("GET", path, headers={"anthropic-version": "2023-06-01", "x-api-key": "wrong"})
    assert (answer.status, answer.json()["error"]["type"]) == (401, "authentication_error")


async def test_an_unknown_model(port: Running) -> None:
    """404 with our id in header and body."""
    answer = await port.ask("GET", "/v1/models/gpt-99")
    assert (answer.status, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert answer.json()["error"]["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize("path", ["/", "/v2/chat", "/v1/assistants", "/metrics", "/v1/chat/completions/extra", "//", "/%00"])
async def test_a_path_nobody_serves(port: Running, path: str) -> None:
    """404 in JSON, that says where things are; metrics are not on this port."""
    for method in ("GET", "POST"):
        answer = await port.ask(method, path, b"{}" if method == "POST" else None)
        error = answer.json()["error"]
        assert (answer.status, error["aigw_code"], error["type"]) == (404, "caller_path_not_found", "invalid_request_error")
        assert "/v1/" in error["message"]
        assert answer.headers["x-request-id"] == error["request_id"]


async def test_a_refusal_does_not_repeat_what_may_be_a_secret(port: Running) -> None:
    """Keys come in queries; and a long path is cut."""
    answer = await port.ask("GET", "/v1/nothing?key=sk-secret")
    assert b"secret" not in answer.body
    answer = await port.ask("GET", "/" + "a" * 5000)
    assert len(answer.body) < 600


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/chat/completions", "/v1/messages", "/v1/models"])
async def test_a_method_nobody_serves(port: Running, method: str, path: str) -> None:
    """405 in the caller's dialect, with what is allowed."""
    if path == "/v1/models" and method == "GET":
        return
    answer = await port.ask(method, path)
    assert answer.status == 405
    error = answer.json()["error"]
    assert answer.headers["allow"] == ("GET, HEAD" if path == "/v1/models" else "POST")
    assert answer.headers["x-aigw-error"] == "caller_method_not_allowed"
    assert answer.json().get("type") == ("error" if path == "/v1/messages" else None)
    assert "POST" in error["message"] or "GET" in error["message"]
    assert len(await port.records(0)) == 0, "no exchange, no record"


async def test_no_answer_names_the_library(port: Running) -> None:
    """Not even in which language it is written."""
    for path in ("/healthz", "/v1/models", "/nothing"):
        answer = await port.ask("GET", path)
        assert "server" not in answer.headers
        assert answer.headers["x-request-id"].startswith("req_")

"""Providers that take each caller's own login: it goes on with all that came beside it, and stays this caller's."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from multidict import CIMultiDict

from aigw.config import schema
from aigw.errors import CallerError, ConfigError, PolicyError
from aigw.providers import compatible
from aigw.providers.callers_own import CallersOwn
from tests.walk import KEY, Walk, answers

CONFIG = f"""
[consumers.ci]
key = "{KEY}"

[providers.claude-code]

[providers.deepseek]
auth = "caller"

[providers.openai]
keys = ["sk-ours"]
models = ["gpt-x"]

[routes.deepseek-first]
targets = [{{provider = "deepseek", model = "deepseek-flash"}}]
fallback = [{{provider = "openai", model = "gpt-x"}}]
"""
LOGIN = "sk-ant-oat01-a-login-of-alices-own"
ASK = {"model": "claude-sonnet-5-5", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
MINE = {"Authorization": f"Bearer {LOGIN}", "x-aigw-key": KEY}
SAID = MINE | {
    "user-agent": "claude-cli/2.1",
    "x-app": "cli",
    "anthropic-beta": "oauth-2025-04-20,a-b",
    "anthropic-version": "2023-06-01",
    "cookie": "c=1",
    "x-forwarded-for": "10.0.0.1",
    "host": "gateway",
    "content-length": "7",
    "accept-encoding": "gzip",
    "x-aigw-lossy": "deny",
}
MESSAGE: dict[str, Any] = {
    "id": "m",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-5-5",
    "content": [{"type": "text", "text": f"hello {LOGIN}"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 3, "output_tokens": 2},
}


def sent(walk: Walk) -> list[str]:
    request = walk.transport.requests[-1]
    return (request.target.wire + request.extra).decode().lower().split("\r\n")


async def test_the_login_goes_on_as_it_came() -> None:
    """With what the caller's program says of itself; without our key, cookies, and the way it took. Nothing is added."""
    walk = Walk(CONFIG, answers(MESSAGE))
    near, record = await walk.ask(ASK, headers=CIMultiDict(SAID), operation="messages")
    assert near.status == 200
    lines = sent(walk)
    assert lines[0] == "post /v1/messages http/1.1"
    for line in (
        f"authorization: bearer {LOGIN}",
        "user-agent: claude-cli/2.1",
        "x-app: cli",
        "anthropic-beta: oauth-2025-04-20,a-b",
    ):
        assert lines.count(line) == 1
    told = "\n".join(lines)
    assert KEY not in told
    assert not any(word in told for word in ("cookie", "x-forwarded", "gateway", "x-aigw", "gzip", "aigw/"))
    assert sum(line.startswith(("host:", "content-length:", "accept-encoding:")) for line in lines) == 2  # ours
    assert (record.consumer, record.provider) == ("ci", "claude-code")
    assert LOGIN not in near.body.decode()
    assert LOGIN not in repr(record)


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {KEY}"},
        {"x-api-key": KEY},
        {"x-aigw-key": KEY},
        {"Authorization": f"Bearer {KEY}", "x-api-key": KEY},
    ],
)
async def test_who_brings_none_is_told_what_to_do(headers: dict[str, str]) -> None:
    """Our own key is no login, wherever it stands and whatever it looks like: it is never sent on."""
    walk = Walk(CONFIG, answers(MESSAGE))
    near, record = await walk.ask(ASK, headers=CIMultiDict(headers), operation="messages")
    assert (near.status, record.error) == (401, "policy_key_missing")
    assert b"x-aigw-key" in near.body
    assert walk.transport.requests == []


async def test_without_a_key_of_ours_nobody_is_let_in() -> None:
    walk = Walk(CONFIG, answers(MESSAGE))
    near, record = await walk.ask(ASK, headers=CIMultiDict({"Authorization": f"Bearer {LOGIN}"}), operation="messages")
    assert (near.status, record.error) == (401, "policy_key_invalid")
    assert LOGIN not in near.body.decode()
    assert walk.transport.requests == []


@pytest.mark.parametrize("status", [401, 403, 429])
async def test_what_is_wrong_with_it_is_its_owners_to_know(status: int) -> None:
    """Its program renews a login at a 401. The next caller is not made to wait, and nobody reads the login in the error."""
    body = {"type": "error", "error": {"type": "authentication_error", "message": f"bad {LOGIN}"}}
    walk = Walk(CONFIG, answers(body, status), answers(MESSAGE))
    near, record = await walk.ask(ASK, headers=CIMultiDict(MINE), operation="messages")
    assert near.status == status
    assert LOGIN not in near.body.decode() + repr(record)
    near, _ = await walk.ask(
        ASK, headers=CIMultiDict(MINE | {"Authorization": "Bearer sk-ant-oat01-bobs"}), operation="messages"
    )
    assert near.status == 200


async def test_nothing_is_translated_for_a_subscription() -> None:
    """What its provider is told is what its own program says."""
    walk = Walk(CONFIG, answers(MESSAGE))
    near, record = await walk.ask(ASK, headers=CIMultiDict(MINE))
    assert (near.status, record.error) == (400, "caller_unsupported")


async def test_any_provider_may_be_so() -> None:
    """And a fallback has the operator's key, not the caller's login."""
    broken = answers({"error": {"message": "down"}}, 500)
    good = answers({"id": "c", "model": "gpt-x", "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}}]})
    walk = Walk(CONFIG, broken, good)
    near, record = await walk.ask({"model": "deepseek-first", "messages": []}, headers=CIMultiDict(MINE))
    assert (near.status, record.provider) == (200, "openai")
    first, second = walk.transport.requests
    assert LOGIN.encode() in first.extra
    assert LOGIN.encode() not in second.extra + second.target.wire
    assert b"sk-ours" in second.target.wire


def made(**settings: Any) -> CallersOwn:
    provider = compatible.build("claude-code", schema.Provider(**settings), schema.Upstream(), [])
    assert isinstance(provider, CallersOwn)
    return provider


def test_keys_have_no_place_there() -> None:
    with pytest.raises(ConfigError, match="own login"):
        compatible.build("claude-code", schema.Provider(), schema.Upstream(), ["sk-x"])


def test_it_asks_nothing_by_itself() -> None:
    """There is no login to ask with."""
    assert not made().lists_models
    assert made().key_request(None) is None


@pytest.mark.parametrize("value", ["a\u00e9", "x" * 20_000])
def test_headers_that_cannot_be_sent_on(value: str) -> None:
    from aigw.protocols.operations import OPERATIONS

    provider = made()
    key = provider.login(CIMultiDict(MINE), b"")
    with pytest.raises(CallerError, match="printable"):
        provider.prepare(OPERATIONS["messages"], b"{}", key, {"authorization": f"Bearer {LOGIN}", "x-odd": value})


def test_an_imported_key_of_ours_is_known_by_its_hash() -> None:
    """A key that people brought along has not our prefix."""
    imported = "their-old-key"
    with pytest.raises(PolicyError):
        made().login({"authorization": f"Bearer {imported}"}, hashlib.sha256(imported.encode()).digest())

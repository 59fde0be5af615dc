"""Answers as providers give them become verdicts; nothing is sent here."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aigw.config import schema
from aigw.deployment import ProviderKey
from aigw.errors import UpstreamError
from aigw.exchange import UpstreamRequest
from aigw.providers import catalog, compatible, key_check
from aigw.providers.key_check import Answered, Outcome, Verdict

SECRET = "sk-0123456789abcdef"
MODELS = {"data": [{"id": "a"}, {"id": "b"}]}


def answered(status: int, body: Any = b"", *headers: tuple[bytes, bytes]) -> Answered:
    return Answered(status, list(headers), body if isinstance(body, bytes) else json.dumps(body).encode())


def run(
    name: str, *outcomes: Outcome, secret: str = SECRET, own: bool = False, **table: Any
) -> tuple[Verdict, list[UpstreamRequest]]:
    """The verdict after *outcomes*, all of which must be wanted, and the requests that were sent."""
    environ = {"CLOUDFLARE_ACCOUNT_ID": "acc"}
    provider = compatible.build(name, schema.Provider(**table), schema.Upstream(), [secret] if secret else [], environ=environ)
    check = key_check.check(provider, ProviderKey(name, secret), own_address=own)
    sent: list[UpstreamRequest] = []
    answers: list[Outcome | None] = [None, *outcomes]
    while True:
        try:
            sent.append(check.send(answers.pop(0)))  # type: ignore[arg-type] # None begins it
        except StopIteration as end:
            assert not answers
            return end.value, sent


def path(request: UpstreamRequest) -> str:
    return f"{request.target.method} {request.target.origin.host}{request.target.path}"


def test_a_key_that_is_known_is_good() -> None:
    """Where a source says that the list of models tells, one request is enough; it carries the key."""
    verdict, sent = run("openai", answered(200, MODELS))
    assert verdict == ("good", "2 models", ("a", "b"))
    assert [path(one) for one in sent] == ["GET api.openai.com/v1/models"]
    assert SECRET.encode() in sent[0].target.wire


def test_a_list_that_anybody_sees_proves_nothing() -> None:
    """Where nobody says so it is asked again without the key: the same list, and nothing is known."""
    verdict, sent = run("novita", answered(200, MODELS), answered(200, MODELS))
    assert verdict.kind == "unknown"
    assert verdict.models == ("a", "b")
    assert SECRET.encode() not in sent[1].target.wire
    verdict, _ = run("novita", answered(200, MODELS), answered(401))
    assert verdict.kind == "good"
    verdict, _ = run("novita", answered(200, MODELS), UpstreamError("provider_timeout", "did not answer"))
    assert verdict.kind == "good"


def test_a_check_of_its_own_comes_before_the_list() -> None:
    """OpenRouter's list is public, its /key is not; the models come after it, and may fail to come."""
    verdict, sent = run("openrouter", answered(200, {"data": {"limit_remaining": None}}), answered(200, MODELS))
    assert (verdict.kind, verdict.models) == ("good", ("a", "b"))
    assert [path(one) for one in sent] == ["GET openrouter.ai/api/v1/key", "GET openrouter.ai/api/v1/models"]
    verdict, _ = run("openrouter", answered(200, {"data": {}}), answered(500))
    assert (verdict.kind, verdict.models) == ("good", ())


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("deepseek", {"is_available": False, "balance_infos": [{"total_balance": "0.00"}]}),
        ("moonshot", {"code": 0, "data": {"available_balance": -1.5}}),
        ("openrouter", {"data": {"limit": 5, "limit_remaining": 0}}),
    ],
)
def test_an_empty_account_is_told_before_the_first_call(name: str, body: Any) -> None:
    """Where the check shows the balance, it is looked at."""
    assert run(name, answered(200, body))[0].kind == "no_credit"


@pytest.mark.parametrize(
    ("name", "answer", "kind"),
    [
        ("openai", answered(401, {"error": {"message": f"Incorrect: {SECRET}", "code": "invalid_api_key"}}), "wrong_key"),
        ("openai", answered(403, {"error": {"message": "Missing scopes: api.model.read"}}), "unknown"),
        ("openai", answered(429, {"error": {"code": "rate_limit_exceeded"}}), "limited"),
        ("openai", answered(429, {"error": {"code": "insufficient_quota"}}), "no_credit"),
        ("openai", answered(402, {}), "no_credit"),
        ("openai", answered(500), "unknown"),
        ("openai", answered(503), "unknown"),
        ("openai", answered(404), "unknown"),  # the catalog's own address: the key is not to blame, nor the operator
        ("databricks", answered(403, {}), "wrong_key"),
        ("gemini", answered(400, [{"error": {"details": [{"reason": "API_KEY_INVALID"}]}}]), "wrong_key"),
        ("cloudflare", answered(400, {"success": False, "errors": [{"code": 6003, "message": "Invalid"}]}), "wrong_key"),
        ("minimax", answered(200, {"base_resp": {"status_code": 1004, "status_msg": "login fail"}}), "wrong_key"),
        ("openai", UpstreamError("provider_unreachable", "could not be reached"), "unknown"),
    ],
)  # fmt: skip
def test_refusals_are_told_apart(name: str, answer: Outcome, kind: str) -> None:
    """Wrong key, no credit, limited, and what says nothing; the key is never in the explanation."""
    settings = {"host": "x.databricks.com"} if name == "databricks" else {}
    verdict, _ = run(name, answer, settings=settings)
    assert verdict.kind == kind
    assert SECRET not in verdict.detail
    assert verdict.detail
    assert not verdict.models


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (answered(404, {"detail": "Not Found"}), "nothing at /v1/models (404)"),
        (answered(405), "nothing at"),
        (answered(200, b"<!DOCTYPE html><title>Welcome\x1b</title>"), 'web page ("Welcome")'),
        (answered(502, b"<html></html>"), "web page"),
        (answered(301, b"", (b"location", b"https://x.test/v1/models")), "redirects (301) to https://x.test/v1/models"),
        (answered(200, {"hello": "world"}), "not with a list of models"),
        (answered(200, b""), "not with a list of models"),
        (UpstreamError("provider_unreachable", "could not be reached", detail="gpu:80: Connection refused"), "refused"),
        (UpstreamError("provider_unreachable", "has a host name that could not be resolved"), "resolved"),
        (UpstreamError("provider_unreachable", "could not agree on TLS", detail="gpu:80: WRONG_VERSION"), "is it http://?"),
        (UpstreamError("provider_bad_response", "did not answer in HTTP/1.1"), "is it https://?"),
    ],
)
def test_a_wrong_address_is_told_from_a_wrong_key(answer: Outcome, why: str) -> None:
    """What the operator wrote is doubted; the catalog's own address is not."""
    verdict, _ = run("gpu", answer, own=True, kind="vllm", base_url="http://gpu/v1")
    assert verdict.kind == "wrong_url"
    assert why in verdict.detail
    assert run("openai", answer)[0].kind == "unknown"


def test_trouble_on_the_way_says_nothing_about_the_address() -> None:
    """An untrusted certificate, a proxy that wants a login, a timeout."""
    for answer, table in [
        (UpstreamError("provider_unreachable", "has no certificate we can trust", detail="x: self-signed; see `ca_file`"), {}),
        (UpstreamError("provider_timeout", "did not begin to answer in time"), {}),
        (answered(407), {}),
        (UpstreamError("provider_unreachable", "could not be reached", detail="x by proxy p: the proxy answered 407"),
         {"proxy": "http://p:3128"}),
    ]:  # fmt: skip
        verdict, _ = run("gpu", answer, own=True, kind="openai-compatible", base_url="https://gpu.test/v1", **table)
        assert verdict.kind == "unknown"
    assert "wants a login" in verdict.detail


def test_a_relay_without_the_check_is_asked_for_its_models() -> None:
    """A base URL of one's own in front of a provider may serve less than the provider."""
    verdict, sent = run("deepseek", answered(404), answered(200, MODELS), answered(401), own=True, base_url="http://relay.test")
    assert verdict.kind == "good"
    assert [one.target.path for one in sent] == ["/user/balance", "/models", "/models"]


def test_a_server_of_ones_own_may_take_any_key() -> None:
    """Its list is open by nature; without a key it says whether it wants one."""
    assert run("ollama", answered(200, {"models": [{"name": "qwen3:8b"}]}), answered(200, MODELS))[0].kind == "good"
    assert run("vllm", answered(200, MODELS), secret="")[0].kind == "good"
    verdict, _ = run("vllm", answered(401), secret="")
    assert (verdict.kind, verdict.detail) == ("unknown", "wants a key")


def test_without_a_check_nothing_is_claimed() -> None:
    """A provider whose list nobody knows: no request is sent."""
    verdict, sent = run("perplexity")
    assert verdict.kind == "unknown"
    assert not sent


def ask(name: str, answer: Outcome, **table: Any) -> tuple[Verdict, UpstreamRequest]:
    provider = compatible.build(name, schema.Provider(**table), schema.Upstream(), [SECRET], environ={})
    check = key_check.ask_for_a_word(provider, ProviderKey(name, SECRET), "m-1")
    request = next(check)
    with pytest.raises(StopIteration) as end:
        check.send(answer)
    return end.value.value, request


def test_one_word_is_asked_for_in_the_providers_own_api() -> None:
    """Chat where it is served, messages elsewhere; few tokens; the usage is noticed."""
    chat = {"choices": [{"message": {"content": "hello"}}], "usage": {"prompt_tokens": 1}}
    verdict, request = ask("deepseek", answered(200, chat))
    assert verdict == ("good", "answered, and reported its usage", ())
    assert json.loads(request.body)["max_tokens"] == 16
    verdict, request = ask("anthropic", answered(200, {"content": [{"type": "text", "text": "hello"}]}))
    assert verdict == ("good", "answered, without usage", ())
    assert request.target.path == "/v1/messages"
    assert "max_completion_tokens" in json.loads(ask("openai", answered(200, chat))[1].body)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (answered(404, {"error": {"message": "no such model", "code": "model_not_found"}}), "unknown"),
        (answered(404, b"not here"), "wrong_url"),
        (answered(200, {"hello": 1}), "wrong_url"),
        (answered(402, {}), "no_credit"),
        (answered(401, {}), "wrong_key"),
    ],
)
def test_a_word_that_does_not_come(answer: Outcome, kind: str) -> None:
    """A model that is not there is no wrong address."""
    assert ask("deepseek", answer)[0].kind == kind


def test_every_row_that_is_served_can_be_asked() -> None:
    """No row's check is an address that cannot be built; the key goes nowhere but to the provider's own domain."""
    values = {"resource": "r", "region": "us-east-1", "host": "h.databricks.com", "account": "a"}
    for name in catalog.ids():
        row = catalog.row(name)
        if not row.served or row.category == "generic":
            continue
        settings = {
            one.name: values.get(one.name, one.default or "x") for one in row.settings if one.required and not one.header
        }
        if name == "watsonx":
            settings["project_id"] = "p"
        keys = [] if row.caller_only else [SECRET]
        provider = compatible.build(name, schema.Provider(settings=settings), schema.Upstream(), keys)
        for request in (provider.key_request(ProviderKey(name, SECRET)), provider.models_request(ProviderKey(name, SECRET))):
            if request is None or row.local:
                continue
            hosts = " ".join([row.base_url, row.models_url, row.openai_url, row.key_check, *settings.values()])
            assert ".".join(request.target.origin.host.split(".")[-2:]) in hosts
            assert request.target.origin.scheme == "https"

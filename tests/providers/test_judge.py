"""Judgement: each vendor's error means what facts say it means, and repeats nothing that is secret."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, strategies

from aigw.errors import UpstreamError
from aigw.exchange import Headers
from aigw.providers import judge
from aigw.providers.judge import (
    BAD_KEY,
    EXHAUSTED,
    FAILED,
    LIMITED,
    NO_ANSWER,
    NO_PERMISSION,
    NOT_OPEN,
    OVERLOADED,
    POLICY,
    REJECTED,
    TIMED_OUT,
    TOO_LONG,
    Verdict,
)
from aigw.providers.redact import BODY_LIMIT, Redactor

SECRET = "office-secret-0123456789"
REDACTOR = Redactor([SECRET])
NOW = 1_795_000_000.0


def judged(status: int, body: Any, headers: Headers | None = None) -> UpstreamError:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return judge.judge(status, headers or [], raw, REDACTOR, now=NOW)


def openai(type: str | None = None, code: Any = None, message: str = "No.", **more: Any) -> dict[str, Any]:  # noqa: A002
    return {"error": {"message": message, "type": type, "param": None, "code": code, **more}}


def anthropic(type: str, message: str = "No.", **more: Any) -> dict[str, Any]:  # noqa: A002
    return {"type": "error", "error": {"type": type, "message": message, **more}, "request_id": "req_1"}


def google(code: int, status: str, message: str = "No.", details: list[Any] | None = None) -> dict[str, Any]:
    return {"error": {"code": code, "status": status, "message": message, "details": details or []}}


def reason(word: str) -> list[dict[str, Any]]:
    return [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": word, "domain": "googleapis.com"}]


def because(error_code: str) -> dict[str, Any]:
    return {"details": {"error_code": error_code}}


# One line per signal: status, body, verdict, the status our caller gets.
CASES: list[tuple[str, int, Any, Verdict, int]] = [
    # bad key
    ("openai key", 401, openai("invalid_request_error", "invalid_api_key"), BAD_KEY, 502),
    ("anthropic key", 401, anthropic("authentication_error"), BAD_KEY, 502),
    ("google key", 400, google(400, "INVALID_ARGUMENT", details=reason("API_KEY_INVALID")), BAD_KEY, 502),
    ("google blocked", 403, google(403, "PERMISSION_DENIED", details=reason("API_KEY_SERVICE_BLOCKED")), BAD_KEY, 502),
    ("google leaked", 403, google(403, "PERMISSION_DENIED", "Your API key was reported as leaked."), BAD_KEY, 502),
    ("minimax key", 200, {"base_resp": {"status_code": 1004, "status_msg": "no"}}, BAD_KEY, 502),
    ("minimax key 2", 200, {"base_resp": {"status_code": 2049, "status_msg": "no"}}, BAD_KEY, 502),
    ("glm key", 401, openai(None, "1001"), BAD_KEY, 502),
    ("dashscope key", 401, {"code": "InvalidApiKey", "message": "no", "request_id": "x"}, BAD_KEY, 502),
    ("bare 401", 401, b"", BAD_KEY, 502),
    ("tencent native", 200, {"Response": {"Error": {"Code": "AuthFailure.SecretIdNotFound", "Message": "no"}}}, BAD_KEY, 502),
    # no permission
    ("anthropic permission", 403, anthropic("permission_error"), NO_PERMISSION, 502),
    ("dashscope denied", 403, openai("AccessDenied", "Model.AccessDenied"), NO_PERMISSION, 502),
    ("bare 403", 403, b"", NO_PERMISSION, 502),
    ("glm 1220", 403, openai(None, "1220"), NO_PERMISSION, 502),
    ("ark not open", 404, openai("NotFound", "ModelNotOpen"), NOT_OPEN, 404),
    # out of credit
    ("openai quota", 429, openai("insufficient_quota", "insufficient_quota"), EXHAUSTED, 503),
    ("openai balance", 429, openai("insufficient_quota", "credit_balance_exhausted"), EXHAUSTED, 503),
    ("openai project", 429, openai("insufficient_quota", "project_spend_limit_exceeded"), EXHAUSTED, 503),
    ("anthropic billing", 402, anthropic("billing_error"), EXHAUSTED, 503),
    ("anthropic spend", 429, anthropic("rate_limit_error", **because("enforced_spend_limit_reached")), EXHAUSTED, 503),
    ("anthropic credit", 400, anthropic("invalid_request_error", "Your credit balance is too low."), EXHAUSTED, 503),
    ("google prepaid", 402, google(402, "RESOURCE_EXHAUSTED"), EXHAUSTED, 503),
    ("moonshot quota", 429, openai("exceeded_current_quota_error"), EXHAUSTED, 503),
    ("glm 1113", 429, openai(None, "1113"), EXHAUSTED, 503),
    ("glm 1308", 429, openai(None, "1308"), EXHAUSTED, 503),
    ("deepseek balance", 402, openai("unknown_error", "invalid_request_error", "Insufficient Balance"), EXHAUSTED, 503),
    ("dashscope arrears", 400, openai("Arrearage", "Arrearage"), EXHAUSTED, 503),
    ("dashscope free tier", 403, openai("AllocationQuota.FreeTierOnly", "AllocationQuota.FreeTierOnly"), EXHAUSTED, 503),
    ("ark overdue", 403, openai("Forbidden", "AccountOverdueError"), EXHAUSTED, 503),
    ("longcat quota", 403, openai("permission_error", "insufficient_quota"), EXHAUSTED, 503),
    ("minimax balance", 200, {"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}, EXHAUSTED, 503),
    ("deepl quota", 456, b"", EXHAUSTED, 503),
    ("openrouter limit", 403, openai(None, 403, "Key limit exceeded (total limit)"), EXHAUSTED, 503),
    ("siliconflow balance", 403, {"code": 30001, "message": "your account balance is insufficient"}, EXHAUSTED, 503),
    # rate limits
    ("openai rate", 429, openai("tokens", "rate_limit_exceeded"), LIMITED, 429),
    ("anthropic rate", 429, anthropic("rate_limit_error"), LIMITED, 429),
    ("anthropic ramp", 429, anthropic("rate_limit_error", **because("ramp_limit_exceeded")), LIMITED, 429),
    ("google rate", 429, google(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota"), LIMITED, 429),
    ("glm 1302", 429, openai(None, "1302"), LIMITED, 429),
    ("dashscope throttle", 429, openai("Throttling.RateQuota", "Throttling.RateQuota"), LIMITED, 429),
    ("ark throttle", 429, openai("TooManyRequests", "RateLimitExceeded.EndpointRPMExceeded"), LIMITED, 429),
    ("baidu rate", 429, openai("rate", "rpm_rate_limit_exceeded"), LIMITED, 429),
    ("openrouter in flight", 402, openai(None, 402, metadata={"error_type": "in_flight_budget_exhausted"}), LIMITED, 429),
    ("minimax rate", 200, {"base_resp": {"status_code": 1002, "status_msg": "rate limit"}}, LIMITED, 429),
    ("spark rate", 200, {"code": 11202, "message": "QPS", "sid": "x"}, LIMITED, 429),
    ("bare 429", 429, b"slow down", LIMITED, 429),
    # overloaded
    ("anthropic 529", 529, anthropic("overloaded_error"), OVERLOADED, 529),
    ("anthropic in stream", 200, anthropic("overloaded_error"), OVERLOADED, 503),
    ("openai 503", 503, openai("server_error", "server_is_overloaded"), OVERLOADED, 503),
    ("google 503", 503, google(503, "UNAVAILABLE"), OVERLOADED, 503),
    ("glm 1305", 429, openai(None, "1305"), OVERLOADED, 429),
    ("moonshot engine", 429, openai("engine_overloaded_error"), OVERLOADED, 429),
    ("groq flex", 498, openai("capacity"), OVERLOADED, 498),
    # their failures
    ("openai 500", 500, openai("server_error"), FAILED, 500),
    ("anthropic 500", 500, anthropic("api_error"), FAILED, 500),
    ("page 502", 502, b"<html><head><title>502 Bad Gateway</title></head></html>", FAILED, 502),
    ("cloudflare 524", 524, b"<!doctype html><title>x | 524: A timeout occurred</title>", FAILED, 524),
    ("500 with a key word", 500, openai("authentication_error"), FAILED, 500),
    ("504", 504, anthropic("timeout_error"), TIMED_OUT, 504),
    ("408", 408, b"", TIMED_OUT, 408),
    ("bedrock 424", 424, {"message": "model error", "originalStatusCode": 503}, FAILED, 424),
    ("bedrock 424 of a bad request", 424, {"message": "bad", "originalStatusCode": 400}, REJECTED, 424),
    ("openrouter in stream", 200, openai(None, 502, "Provider disconnected"), FAILED, 502),
    ("unknown in stream", 200, openai("strange"), FAILED, 502),
    ("minimax internal", 200, {"base_resp": {"status_code": 1013, "status_msg": "oops"}}, FAILED, 502),
    ("response.failed", 200, {"type": "response.failed", "response": openai("server_error")}, FAILED, 502),
    # too long
    ("openai context", 400, openai("invalid_request_error", "context_length_exceeded"), TOO_LONG, 400),
    ("anthropic context", 400, anthropic("invalid_request_error", "prompt is too long: 210000 tokens > 200000"), TOO_LONG, 400),
    ("glm 1261", 400, openai(None, "1261"), TOO_LONG, 400),
    ("baidu context", 400, openai("invalid_request_error", "tokens_too_long"), TOO_LONG, 400),
    ("413", 413, anthropic("request_too_large"), TOO_LONG, 413),
    ("groq tpm", 413, openai("tokens", "rate_limit_exceeded"), TOO_LONG, 413),
    ("together old", 403, openai(None, None, "Input exceeds the maximum context length"), TOO_LONG, 400),
    # policy
    ("azure filter", 400, openai(None, "content_filter", innererror={"code": "ResponsibleAIPolicyViolation"}), POLICY, 400),
    ("dashscope inspection", 400, openai("data_inspection_failed", "DataInspectionFailed"), POLICY, 400),
    ("glm 1301", 400, openai(None, "1301"), POLICY, 400),
    ("stepfun", 451, openai("censored"), POLICY, 451),
    ("ark risk", 400, openai("BadRequest", "InputTextRiskDetection"), POLICY, 400),
    ("ark sensitive", 400, openai("BadRequest", "OutputImageSensitiveContentDetected"), POLICY, 400),
    ("minimax sensitive", 200, {"base_resp": {"status_code": 1026, "status_msg": "x"}}, POLICY, 400),
    ("openrouter moderation", 403, openai(None, 403, metadata={"reasons": ["violence"], "flagged_input": "..."}), POLICY, 400),
    # wrong
    ("openai 400", 400, openai("invalid_request_error", "unsupported_parameter"), REJECTED, 400),
    ("openai model", 404, openai("invalid_request_error", "model_not_found"), REJECTED, 404),
    ("anthropic model", 404, anthropic("not_found_error"), REJECTED, 404),
    ("fastapi", 422, {"detail": [{"loc": ["body", "x"], "msg": "extra fields not permitted"}]}, REJECTED, 422),
    ("ollama model", 404, {"error": "model 'x' not found, try pulling it first"}, REJECTED, 404),
    ("cohere", 400, {"id": "x", "message": "invalid request"}, REJECTED, 400),
    ("anthropic in stream 400", 200, anthropic("invalid_request_error"), REJECTED, 400),
    ("spark params", 200, {"code": 10163, "message": "params", "sid": "x"}, REJECTED, 400),
    ("409", 409, anthropic("conflict_error"), REJECTED, 409),
    # no answers
    ("301", 301, b"", NO_ANSWER, 502),
    ("307", 307, openai("invalid_api_key"), NO_ANSWER, 502),
    ("proxy login", 407, b"", NO_ANSWER, 502),
    ("html 200", 200, b"<html>hello</html>", NO_ANSWER, 502),
]  # fmt: skip


@pytest.mark.parametrize(
    ("status", "body", "verdict", "for_caller"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_verdicts(status: int, body: Any, verdict: Verdict, for_caller: int) -> None:
    """The vendor's signal, our class, and the status our caller sees."""
    error = judged(status, body)
    assert (error.code, error.fault, error.may_retry) == verdict[:3]
    assert error.status == for_caller
    assert error.upstream_status == status
    assert error.status not in {401, 402, 403}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (openai(message="words"), "words"),
        (anthropic("x", "words"), "words"),
        ([google(400, "INVALID_ARGUMENT", "words")], "words"),
        ({"message": "words"}, "words"),
        ({"error": "words"}, "words"),
        ({"detail": "words"}, "words"),
        ({"detail": [{"msg": "wor"}, {"msg": "ds"}]}, "wor; ds"),
        ({"base_resp": {"status_code": 2013, "status_msg": "words"}}, "words"),
        ({"Response": {"Error": {"Code": "X", "Message": "words"}}}, "words"),
        ({"success": False, "errors": [{"code": 7003, "message": "words"}]}, "words"),
        ({"error_code": 17, "error_msg": "words"}, "words"),
        ({"message": "words", "type": "t", "param": "p", "code": "c"}, "words"),
        (b"words\nmore", "words"),
        (b"<html><title>words</title>", "words"),
        ({"error": {"message": "a\x1b[31m\u202eb\r\nc"}}, "a [31m b c"),
    ],
)
def test_messages(body: Any, message: str) -> None:
    """The provider's words are found in every shape, as one printable line."""
    error = judged(400, body)
    assert error.message == f"answered 400: {message}"


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (400, {"code": "context_length_exceeded", "message": "x"}, "context"),
        (400, {"type": "invalid_request_error", "message": "prompt is too long: 210000 tokens > 200000 maximum"}, "context"),
        (400, {"status": "INVALID_ARGUMENT", "message": "The input token count (9) exceeds the maximum"}, "context"),
        (413, {"message": "Request too large"}, "context"),
        (400, {"code": "content_filter", "message": "x"}, "content-filter"),
        (400, {"code": "1301", "message": "x"}, "content-filter"),
        (400, {"type": "invalid_request_error", "message": "temperature must be a number"}, ""),
        (429, {"code": "rate_limit_exceeded", "message": "x"}, ""),
        (429, {"code": "ModelAccountTpmRateLimitExceeded", "message": "x"}, ""),
    ],
)
def test_what_another_model_may_do_better(status: int, error: Any, kind: str) -> None:
    """Too long, or filtered: said, so that a target that is marked for it may be asked; nothing else is."""
    error = judged(status, {"error": error})
    assert error.kind == kind


def test_amazon_puts_its_type_into_a_header() -> None:
    """Bedrock's body has only a message."""
    body = {"message": "The security token included in the request is invalid."}
    name = b"UnrecognizedClientException:http://internal.amazon.com/coral/com.amazon.coral.service/"
    assert judged(403, body, [(b"x-amzn-errortype", name)]).code == "provider_credentials_invalid"
    assert judged(403, body, [(b"x-amzn-errortype", name)]).fault == "key"
    assert judged(429, {"message": "x"}, [(b"X-Amzn-ErrorType", b"ThrottlingException")]).code == "provider_rate_limited"


def test_waits_are_read() -> None:
    """From headers and from Google's RetryInfo; a day's quota waits as long as anything."""
    assert judged(429, openai(), [(b"retry-after", b"7")]).retry_after == 7.0
    info = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34s"}]
    assert judged(429, google(429, "RESOURCE_EXHAUSTED", details=info)).retry_after == 34.0
    daily = [*info, {"violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel"}]}]
    assert judged(429, google(429, "RESOURCE_EXHAUSTED", details=daily)).retry_after == 3600.0
    assert judged(400, openai(), [(b"retry-after", b"7")]).retry_after is None


def test_credentials_are_the_operators_business() -> None:
    """The caller learns neither which key it was nor what the provider said of it; the record does."""
    error = judged(401, openai("invalid_request_error", "invalid_api_key", "Key of project Falcon is bad"))
    assert "Falcon" not in error.message
    assert "401" not in error.message
    assert error.body == b""
    assert error.detail == "401 invalid_api_key: Key of project Falcon is bad"


def test_the_providers_body_is_kept() -> None:
    """Type, code and unknown members stay for the caller."""
    body = openai("invalid_request_error", "unsupported_parameter", "no", extra={"a": [1]})
    assert json.loads(judged(400, body).body) == body
    assert judged(502, b"<html>secret internals</html>").body == b""


@pytest.mark.parametrize("status", [200, 301, 400, 401, 402, 403, 404, 413, 429, 500, 503, 529])
@pytest.mark.parametrize("shape", ["openai", "text", "html", "detail", "huge"])
def test_secrets_never_survive(status: int, shape: str) -> None:
    """A key that a provider repeats is in no field of the error."""
    echo = f"Incorrect key {SECRET} (header: Bearer {SECRET}), sk-other-0123456789abcdef"
    bodies: dict[str, bytes] = {
        "openai": json.dumps(openai(SECRET, SECRET, echo)).encode(),
        "text": echo.encode(),
        "html": f"<title>{echo}</title>{echo}".encode(),
        "detail": json.dumps({"detail": [{"msg": echo}]}).encode(),
        "huge": json.dumps(openai(message=echo * 4000)).encode(),
    }
    error = judge.judge(status, [(b"x-amzn-errortype", SECRET.encode())], bodies[shape], REDACTOR)
    everything = f"{error.message} {error.detail} {error.args} {error.body.decode()} {vars(error)}"
    assert SECRET not in everything
    assert SECRET[:12] not in everything
    assert "sk-other" not in everything
    assert len(error.body) <= BODY_LIMIT
    assert len(error.message) < 600
    assert len(error.detail) < 700


@pytest.mark.parametrize(
    "body",
    [
        {"id": "x", "choices": [{"message": {"content": 'He said "error" and "code"'}}], "error": None},
        {"code": 0, "message": "Success", "sid": "x", "choices": [{"message": {"content": "hi"}}]},
        {"choices": [{"message": {"content": "hi"}}], "base_resp": {"status_code": 0, "status_msg": "success"}},
        {"object": "response", "status": "failed", "error": {"code": "server_error", "message": "x"}, "output": []},
        {"object": "response", "status": "completed", "error": None, "output": [{"type": "message"}]},
        {"type": "message", "content": [{"type": "text", "text": "hi"}]},
        {"input_tokens": 7},
        {"object": "list", "data": [{"embedding": [0.1]}]},
        {"code": 20000, "message": "Ok", "data": {"x": 1}},
    ],
)
def test_answers_are_no_errors(body: Any) -> None:
    """What a provider answers in good order is left alone."""
    assert judge.error_in_body(json.dumps(body).encode(), REDACTOR) is None


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"error": {"message": "x", "type": "server_error"}}, "provider_error"),
        ({"error": "model crashed"}, "provider_error"),
        ({"error": {"code": 429, "message": "slow"}}, "provider_rate_limited"),
        ({"type": "error", "error": {"type": "overloaded_error", "message": "x"}}, "provider_overloaded"),
        ({"id": "", "choices": None, "base_resp": {"status_code": 1008, "status_msg": "x"}}, "provider_credentials_exhausted"),
        ({"choices": [{"message": {}}], "base_resp": {"status_code": 1027, "status_msg": "x"}}, "provider_rejected"),
        ({"code": 11202, "message": "x", "sid": "y"}, "provider_rate_limited"),
        ({"code": 20012, "message": "Model does not exist", "data": None}, "provider_error"),
        ({"success": False, "errors": [{"code": 3036, "message": "x"}], "result": None}, "provider_credentials_exhausted"),
        ({"Response": {"Error": {"Code": "RequestLimitExceeded", "Message": "x"}}}, "provider_rate_limited"),
        ([{"error": {"code": 503, "status": "UNAVAILABLE", "message": "x"}}], "provider_overloaded"),
        ({"code": "InvalidApiKey", "message": "x"}, "provider_credentials_invalid"),
    ],
)
def test_errors_that_hide_in_a_200(body: Any, code: str) -> None:
    """They are found, and judged like any other."""
    error = judge.error_in_body(json.dumps(body).encode(), REDACTOR)
    assert error is not None
    assert error.code == code
    assert error.upstream_status == 200
    assert error.status >= 400


def test_large_answers_are_not_searched_for_errors() -> None:
    """An answer of megabytes costs nothing here."""
    body = json.dumps({"error": {"message": "x" * judge.LARGEST_ERROR}}).encode()
    assert judge.error_in_body(body, REDACTOR) is None


MEMBERS = ["error", "errors", "Error", "Response", "response", "code", "message", "type", "status", "details", "detail"]
MEMBERS += [
    "base_resp",
    "metadata",
    "status_code",
    "violations",
    "quotaId",
    "retryDelay",
    "innererror",
    "sid",
    "reasons",
    "success",
]
ANYTHING = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers() | strategies.text(max_size=20),
    lambda inner: strategies.lists(inner, max_size=4)
    | strategies.dictionaries(
        strategies.sampled_from(MEMBERS),
        inner,
        max_size=5,
    ),
    max_leaves=20,
)  # fmt: skip


@given(
    strategies.integers(min_value=100, max_value=999),
    ANYTHING.map(lambda value: json.dumps(value).encode()) | strategies.binary(),
)
def test_anything_can_be_judged(status: int, body: bytes) -> None:
    """No body, however odd, breaks the judge."""
    error = judge.judge(status, [], body, REDACTOR)
    assert 400 <= error.status < 600
    assert error.message.isprintable()
    judge.error_in_body(body, REDACTOR)


def test_a_hostile_body_does_not_hold_the_loop() -> None:
    """Deep nesting and a megabyte of near-keys take milliseconds."""
    began = time.process_time()
    judged(500, b"[" * 500_000)
    judged(400, b'{"error":{"message":"' + b"Bearer " * 100_000 + b'"}}')
    judged(400, b'{"error":{"message":"' + b"api key " * 100_000 + b'"}}')
    judged(403, b'{"error":{"message":"' + b"api_key" * 100_000 + b'"}}')
    judged(400, b'{"error":{"message":"' + b"a" * 900_000 + b'"}}')
    assert time.process_time() - began < 1.0


def test_a_message_full_of_long_secrets() -> None:
    """Tokens of kilobytes, repeated: not even the last, cut one shows."""
    token = "t" + "0123456789" * 200
    error = judge.judge(400, [], json.dumps(openai(message=token * 100)).encode(), Redactor([token]))
    assert "0123" not in error.message + error.detail + error.body.decode()

"""One tree of errors: whose fault it was, the HTTP status, a stable code, and whether another target may be tried.

    GatewayError
      CallerError      caller_*    the request is wrong
      PolicyError      policy_*    the request is fine, but this consumer may not, or not now
      UpstreamError    provider_*  the provider failed, or answered something that is no answer
      InternalError    gateway_*   ours
    ConfigError                    the operator's: file, line, key, what was expected (never answered over HTTP)

`CODES` is the closed list of codes. Each dialect turns a code into its own `error.type` and `error.code`; ours travels
beside them in the header `x-aigw-error` and in `error.aigw_code`.
"""

from __future__ import annotations

from typing import NamedTuple


class Code(NamedTuple):
    """What is fixed about an error code: HTTP status, and the words SDKs of the OpenAI, Anthropic and Gemini family branch
    on (Gemini's are those of google.rpc.Code)."""

    status: int
    openai_type: str
    openai_code: str | None
    anthropic_type: str
    gemini_status: str


CODES: dict[str, Code] = {
    # the caller's request
    "caller_invalid_json": Code(400, "invalid_request_error", None, "invalid_request_error", "INVALID_ARGUMENT"),
    "caller_invalid_request": Code(400, "invalid_request_error", None, "invalid_request_error", "INVALID_ARGUMENT"),
    "caller_unsupported": Code(
        400, "invalid_request_error", "unsupported_parameter", "invalid_request_error", "INVALID_ARGUMENT"
    ),
    "caller_model_not_found": Code(404, "invalid_request_error", "model_not_found", "not_found_error", "NOT_FOUND"),
    "caller_object_not_found": Code(404, "invalid_request_error", None, "not_found_error", "NOT_FOUND"),
    "caller_path_not_found": Code(404, "invalid_request_error", None, "not_found_error", "NOT_FOUND"),
    "caller_method_not_allowed": Code(405, "invalid_request_error", None, "invalid_request_error", "UNIMPLEMENTED"),
    "caller_timeout": Code(408, "invalid_request_error", None, "invalid_request_error", "DEADLINE_EXCEEDED"),
    "caller_body_too_large": Code(413, "invalid_request_error", None, "request_too_large", "INVALID_ARGUMENT"),
    "caller_unsupported_media_type": Code(415, "invalid_request_error", None, "invalid_request_error", "INVALID_ARGUMENT"),
    "caller_expectation_failed": Code(417, "invalid_request_error", None, "invalid_request_error", "FAILED_PRECONDITION"),
    "caller_closed": Code(499, "invalid_request_error", None, "api_error", "CANCELLED"),
    # what this consumer may do
    "policy_key_missing": Code(401, "invalid_request_error", "invalid_api_key", "authentication_error", "UNAUTHENTICATED"),
    "policy_key_invalid": Code(401, "invalid_request_error", "invalid_api_key", "authentication_error", "UNAUTHENTICATED"),
    "policy_key_revoked": Code(401, "invalid_request_error", "invalid_api_key", "authentication_error", "UNAUTHENTICATED"),
    "policy_key_expired": Code(401, "invalid_request_error", "invalid_api_key", "authentication_error", "UNAUTHENTICATED"),
    "policy_forbidden": Code(403, "invalid_request_error", None, "permission_error", "PERMISSION_DENIED"),
    "policy_rate_limited": Code(429, "rate_limit_error", "rate_limit_exceeded", "rate_limit_error", "RESOURCE_EXHAUSTED"),
    "policy_concurrency_limited": Code(
        429, "rate_limit_error", "rate_limit_exceeded", "rate_limit_error", "RESOURCE_EXHAUSTED"
    ),
    "policy_budget_exhausted": Code(429, "insufficient_quota", "insufficient_quota", "rate_limit_error", "RESOURCE_EXHAUSTED"),
    "policy_request_too_large": Code(400, "invalid_request_error", None, "invalid_request_error", "INVALID_ARGUMENT"),
    "policy_price_unknown": Code(400, "invalid_request_error", None, "invalid_request_error", "FAILED_PRECONDITION"),
    "policy_plugin_refused": Code(403, "invalid_request_error", None, "permission_error", "PERMISSION_DENIED"),
    "policy_content_blocked": Code(400, "invalid_request_error", "content_filter", "invalid_request_error", "INVALID_ARGUMENT"),
    # the provider
    "provider_unreachable": Code(502, "server_error", None, "api_error", "UNAVAILABLE"),
    "provider_connection_lost": Code(502, "server_error", None, "api_error", "UNAVAILABLE"),
    "provider_bad_response": Code(502, "server_error", None, "api_error", "UNAVAILABLE"),
    "provider_error": Code(502, "server_error", None, "api_error", "UNAVAILABLE"),
    "provider_rejected": Code(400, "invalid_request_error", None, "invalid_request_error", "INVALID_ARGUMENT"),
    "provider_timeout": Code(504, "server_error", None, "timeout_error", "DEADLINE_EXCEEDED"),
    "provider_rate_limited": Code(429, "rate_limit_error", "rate_limit_exceeded", "rate_limit_error", "RESOURCE_EXHAUSTED"),
    "provider_overloaded": Code(503, "server_error", None, "overloaded_error", "UNAVAILABLE"),
    "provider_credentials_invalid": Code(502, "server_error", None, "api_error", "UNAVAILABLE"),
    "provider_credentials_exhausted": Code(503, "server_error", None, "api_error", "UNAVAILABLE"),
    "provider_unavailable": Code(503, "server_error", None, "overloaded_error", "UNAVAILABLE"),
    # us
    "gateway_internal": Code(500, "server_error", None, "api_error", "INTERNAL"),
    "gateway_plugin_failed": Code(500, "server_error", None, "api_error", "INTERNAL"),
    "gateway_overloaded": Code(503, "server_error", None, "overloaded_error", "UNAVAILABLE"),
    "gateway_draining": Code(503, "server_error", None, "overloaded_error", "UNAVAILABLE"),
    "gateway_no_provider": Code(503, "server_error", None, "api_error", "UNAVAILABLE"),
}


class GatewayError(Exception):
    """Something that ends an exchange with an answer of ours.

    `message` is for the caller: it never holds a secret, a path or an address of this machine. `status` is the HTTP
    status (the code's own unless the provider's is kept). `may_retry` says whether another target may be tried before
    the first byte; `retry_after` is in seconds.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        status: int | None = None,
        param: str | None = None,
        retry_after: float | None = None,
        may_retry: bool = False,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = CODES[code].status if status is None else status
        self.param = param
        self.retry_after = retry_after
        self.may_retry = may_retry


class CallerError(GatewayError):
    """The request is wrong; sending it again unchanged will not help."""


class PolicyError(GatewayError):
    """The request is fine, but this consumer may not do it, or not now."""


class UpstreamError(GatewayError):
    """A provider failed.

    `upstream_status` is what it answered (None: nothing at all). `body` is the provider's own error body, in its own
    dialect, kept so that the caller sees its words; it is cleaned of secrets before it leaves. `fault` says what the
    failure teaches us: about the "key" (rest it), the key's whole "account", the "deployment", or nothing (""). `sent`: the
    request's body had gone out, so the provider may have done (and billed) the work. `detail` is for the operator's record: it
    may name addresses, never secrets. `kind` says what another target may do better though this request is at fault: "context"
    (it is longer than the model takes), "content-filter" (the provider will not answer it); else "".
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        status: int | None = None,
        param: str | None = None,
        retry_after: float | None = None,
        may_retry: bool = False,
        upstream_status: int | None = None,
        body: bytes = b"",
        fault: str = "",
        sent: bool = True,
        detail: str = "",
        kind: str = "",
    ) -> None:
        super().__init__(code, message, status=status, param=param, retry_after=retry_after, may_retry=may_retry)
        self.upstream_status = upstream_status
        self.body = body
        self.fault = fault
        self.sent = sent
        self.detail = detail or message
        self.kind = kind


class InternalError(GatewayError):
    """Ours: a bug or a state we should not be in."""


class ConfigError(Exception):
    """The operator's input is wrong: says where (file, line, key) and what was expected."""

    def __init__(self, message: str, *, file: str = "", line: int | None = None, key: str = "") -> None:
        self.message, self.file, self.line, self.key = message, file, line, key
        where = f"{file}:{line}" if file and line else file
        super().__init__(": ".join(part for part in (where, key, message) if part))


class StoreError(Exception):
    """The store cannot be used: unreachable, read-only, full, or written by a newer version. The message says what to do."""

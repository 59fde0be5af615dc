"""What a provider's error means: whose fault it is, whether another try may help, when, and which of its words may be repeated.

Status decides before message text does; the codes and types that vendors write into their bodies decide before both, because
they use 400, 403 and 429 for anything. Messages are verb phrases: whoever shows them puts the provider's name in front.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from operator import itemgetter
from typing import Any, NamedTuple

import msgspec

from aigw.errors import CODES, UpstreamError
from aigw.exchange import Headers
from aigw.providers.redact import Redactor
from aigw.providers.retry_after import LONGEST, retry_after

LARGEST_READ = 1024 * 1024
"""Bytes of an error body that are decoded; a longer one is judged by its status."""

LARGEST_ERROR = 64 * 1024
"""Bytes of an answer with status 200 that may still be an error: errors are short, and answers are many."""

_MESSAGE = 500  # characters of a provider's own message that are repeated


class Verdict(NamedTuple):
    """What follows from an error. `code` is ours; `fault`, `may_retry` and `kind` as in UpstreamError; `says` is the caller's
    message where the provider's own words are not for the caller."""

    code: str
    fault: str = ""
    may_retry: bool = False
    says: str = ""
    kind: str = ""


BAD_KEY = Verdict(
    "provider_credentials_invalid", "key", True, "does not accept the gateway's key; the gateway's operator must replace it"
)
NO_PERMISSION = Verdict(
    "provider_credentials_invalid",
    "",
    True,
    "does not let the gateway's account do this; the gateway's operator must ask it to",
)
EXHAUSTED = Verdict(
    "provider_credentials_exhausted",
    "account",
    True,
    "has no credit left for the gateway; the gateway's operator must top it up",
)
LIMITED = Verdict("provider_rate_limited", "account", True)
OVERLOADED = Verdict("provider_overloaded", "deployment", True)
TIMED_OUT = Verdict("provider_timeout", "deployment", True)
FAILED = Verdict("provider_error", "deployment", True)
NO_ANSWER = Verdict("provider_bad_response", "deployment", True)
NOT_OPEN = Verdict("provider_rejected", "", True)  # this account may not have this model: another provider may
TOO_LONG = Verdict("provider_rejected", kind="context")
POLICY = Verdict("provider_rejected", kind="content-filter")
REJECTED = Verdict("provider_rejected")


# Vendors' words, in lower case, that decide by themselves; the first group that has one wins. Four-digit codes of different
# vendors mean different things, so they carry the family of their shape: glm (error.code), minimax (base_resp.status_code),
# spark (code beside sid), cloudflare (errors[].code).
_GROUPS: tuple[tuple[Verdict, str], ...] = (
    (LIMITED, "in_flight_budget_exhausted ramp_limit_exceeded"),  # each stands beside a word that means "no credit"
    (
        EXHAUSTED,
        """insufficient_quota credit_balance_exhausted organization_spend_limit_exceeded project_spend_limit_exceeded
        organization_usage_limit_exceeded billing_hard_limit_reached billing_not_active billing_error
        enforced_spend_limit_reached contract_spend_limit_reached exceeded_current_quota_error arrearage
        allocationquota.freetieronly accountoverdueerror insufficient_user_quota insufficient_balance payment_required
        weight_exceeds_budget resourceinsufficient glm:1113 glm:1304 glm:1308 glm:1309 glm:1310 minimax:1008 spark:11200
        spark:11201 cloudflare:3036""",
    ),
    (
        BAD_KEY,
        """invalid_api_key authentication_error api_key_invalid unrecognizedclientexception invalidsignatureexception
        incompletesignatureexception invalidclienttokenid expiredtokenexception invalidapikey authenticationerror
        invalid_authentication_error account_deactivated invalid_iam_token authfailure api_key_service_blocked
        api_key_http_referrer_blocked api_key_ip_address_blocked consumer_suspended minimax:1004 minimax:2049 glm:1000
        glm:1001 glm:1002 glm:1003 glm:1004""",
    ),
    (
        OVERLOADED,
        """overloaded_error engine_overloaded_error server_is_overloaded overloaded model_overloaded unavailable
        serviceunavailableexception serveroverloaded glm:1305 glm:1312 cloudflare:3040""",
    ),
    (
        LIMITED,
        """rate_limit_exceeded rate_limit_error rate_limit_reached_error slow_down resource_exhausted throttlingexception
        modelaccounttpmratelimitexceeded modelnotreadyexception throttling ratelimitexceeded requestlimitexceeded
        rpm_rate_limit_exceeded tpm_rate_limit_exceeded toomanyrequestsexception glm:1302 glm:1303 minimax:1002 spark:11202
        spark:11203""",
    ),
    (TIMED_OUT, "modeltimeoutexception timeout_error deadline_exceeded minimax:1001"),
    (
        POLICY,
        """content_filter content_policy_violation responsibleaipolicyviolation datainspectionfailed data_inspection_failed
        moderation_blocked glm:1301 minimax:1026 minimax:1027 spark:10013 spark:10014""",
    ),
    (
        TOO_LONG,
        """context_length_exceeded tokens_too_long characters_too_long request_too_large model_max_prompt_tokens_exceeded
        glm:1261 minimax:1039""",
    ),
    (NOT_OPEN, "modelnotopen model_not_open"),
    (NO_PERMISSION, "glm:1220 glm:1311 permission_error accessdeniedexception accessdenied permission_denied"),
    (
        FAILED,
        """internalserverexception modelstreamerrorexception server_error api_error internal minimax:1000 minimax:1013""",
    ),
    (
        REJECTED,
        """invalid_request_error validationexception invalid_argument failed_precondition invalidparameter model_not_found
        not_found_error not_found minimax:2013 spark:10163""",
    ),
)
_KNOWN: dict[str, tuple[int, Verdict]] = {
    word: (rank, verdict) for rank, (verdict, words) in reversed(list(enumerate(_GROUPS))) for word in words.split()
}

# What words cannot decide. A 5xx says more by its status than by "api_error"; a plain "invalid_request_error" says less than
# the status beside it (DeepSeek sends it with 402); "permission_denied" is what Google says of a leaked key as well.
_WEAK_WORDS = """server_error api_error internal invalid_request_error invalid_argument failed_precondition permission_error
    permission_denied accessdenied accessdeniedexception not_found not_found_error unavailable resource_exhausted
    model_not_found timeout_error"""
_WEAK = frozenset(_WEAK_WORDS.split())

_BY_STATUS: dict[int, Verdict] = {
    401: BAD_KEY,
    402: EXHAUSTED,
    407: NO_ANSWER,  # a proxy on our side of the provider wants a login
    408: TIMED_OUT,
    413: TOO_LONG,
    424: FAILED,
    425: FAILED,
    429: LIMITED,
    451: POLICY,
    456: EXHAUSTED,  # DeepL
    498: OVERLOADED,  # Groq: no flex capacity
    503: OVERLOADED,
    504: TIMED_OUT,
    529: OVERLOADED,
}

# Patterns are compiled (and kept) by `re` when the first error needs them: a start without errors does not pay.
_TOO_LONG = (
    r"prompt is too long|maximum context length|context (?:length|window|size)|input token count.{0,40}exceed|too many tokens"
    r"|exceeds? the (?:model's )?maximum number of tokens|上下文长度"
)
_NO_CREDIT = (
    r"insufficient (?:account )?(?:balance|credit|fund|quota)|(?:credit|account) balance|balance is (?:too low|insufficient)"
    r"|not enough (?:balance|credit)|out of credits?|credits? (?:have |has )?(?:expired|ended|exhausted|used up)|overdue"
    r"|arrears|usage limit|spend(?:ing)? limit|(?:key|budget) limit|limit exceeded|account (?:is )?suspended|余额不足|欠费"
)
_LOW_CREDIT = r"credit balance is too low"  # Anthropic's 400
_KEY_TROUBLE = (
    r"api[ _-]?key.{0,60}(?:invalid|not valid|leaked|expired|disabled|revoked|incorrect)"
    r"|(?:invalid|incorrect|expired|unknown).{0,20}api[ _-]?key"
)


class Problem:
    """What a body and its headers say, in whatever shape: words (codes and types), a message, and a wait."""

    __slots__ = ("daily", "delay", "flagged", "inner", "is_json", "message", "words")

    def __init__(self) -> None:
        self.words: list[str] = []
        self.message = ""
        self.delay = ""  # Google's RetryInfo: "34s"
        self.daily = False  # Google's QuotaFailure names a quota per day
        self.flagged = False  # OpenRouter's moderation
        self.inner: int | None = None  # a status inside the body (OpenRouter, Google, Bedrock)
        self.is_json = False


def judge(status: int, headers: Headers, body: bytes, redactor: Redactor, *, now: float | None = None) -> UpstreamError:
    """The meaning of an answer with *status* and *body* that is no success; with a 2xx status, *body* is the data of an error
    event in a stream. What it returns holds no secret that *redactor* knows. *now* is seconds since the epoch."""
    named = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers}
    problem = _read(body, named)
    verdict = _verdict(status, problem)
    return _error(verdict, status, problem, body, named, redactor, time.time() if now is None else now)


def error_in_body(body: bytes, redactor: Redactor, *, now: float | None = None) -> UpstreamError | None:
    """The error that an answer with status 200 really is; None when it is an answer. Cheap for those that are."""
    if len(body) > LARGEST_ERROR or not _suspicious(body):
        return None
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return None
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, dict) or not _is_error(value):
        return None
    return judge(200, [], body, redactor, now=now)


def _suspicious(body: bytes) -> bool:
    """Whether an error can hide here. In a string of the answer these quotes would be escaped."""
    return b'"error"' in body or b'"code"' in body or b'"base_resp"' in body or b'"success"' in body or b'"Error"' in body


def _is_error(value: dict[str, Any]) -> bool:
    if any(value.get(name) for name in ("choices", "data", "content", "output", "results", "embeddings")):
        return _failed_code(value.get("base_resp"), "status_code")
    if value.get("object") == "response":
        return False  # the Responses API tells a failed response by its own `status`: that is an answer
    error = value.get("error")
    if (isinstance(error, dict) and error) or (isinstance(error, str) and error):
        return True
    response = value.get("Response")
    return (
        value.get("type") == "error"
        or _failed_code(value.get("base_resp"), "status_code")
        or (value.get("success") is False and bool(value.get("errors")))
        or (isinstance(response, dict) and bool(response.get("Error")))
        or (("message" in value or "msg" in value) and _failed_code(value, "code"))
    )


def _failed_code(value: Any, name: str) -> bool:
    """Whether *name* is a code other than the vendors' words for success."""
    if not isinstance(value, dict):
        return False
    code = value.get(name)
    if isinstance(code, bool) or not isinstance(code, int | str):
        return False
    return code not in {0, 200, 20000, "", "0", "200", "20000", "OK", "ok", "Success", "success"}


def _read(body: bytes, headers: Mapping[str, str]) -> Problem:
    problem = Problem()
    amazon = headers.get("x-amzn-errortype", "")
    if amazon:
        _add_word(problem, amazon.partition(":")[0].rpartition("#")[2])
    if not body or len(body) > LARGEST_READ:
        return problem
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        problem.message = _plain(body)
        return problem
    problem.is_json = isinstance(value, dict | list)
    if isinstance(value, list) and value:
        value = value[0]  # Google wraps errors outside of streams
    if isinstance(value, dict):
        _read_object(problem, value)
    elif isinstance(value, str):
        problem.message = value
    return problem


def _read_object(problem: Problem, value: dict[str, Any]) -> None:
    for outer in ("response", "Response"):  # response.failed; Tencent's own API
        inner = value.get(outer)
        if isinstance(inner, dict):
            _read_object(problem, inner)
    for name in ("error", "Error"):
        error = value.get(name)
        if isinstance(error, dict):
            _read_fields(problem, error, "glm")
        elif isinstance(error, str):
            problem.message = problem.message or error
    base = value.get("base_resp")
    if isinstance(base, dict):
        _read_fields(problem, base, "minimax")
    errors = value.get("errors")
    if isinstance(errors, list):
        for error in errors[:5]:
            if isinstance(error, dict):
                _read_fields(problem, error, "cloudflare")
    _read_fields(problem, value, "spark" if "sid" in value else "")
    detail = value.get("detail")  # FastAPI's lists of complaints
    if isinstance(detail, list):
        complaints = [str(item["msg"]) for item in detail[:5] if isinstance(item, dict) and "msg" in item]
        problem.message = problem.message or "; ".join(complaints)
    elif isinstance(detail, dict):
        _read_fields(problem, detail, "")


def _read_fields(problem: Problem, fields: dict[str, Any], family: str) -> None:
    for name in ("code", "Code", "status_code", "type", "status", "error_code", "error_type", "reason"):
        value = fields.get(name)
        if isinstance(value, str):
            _add_word(problem, f"{family}:{value}" if family and value.isdecimal() and len(value) <= 5 else value)
        elif isinstance(value, int) and not isinstance(value, bool):
            if 400 <= value < 600:
                problem.inner = problem.inner or value
            elif family:
                _add_word(problem, f"{family}:{value}")
    original = fields.get("originalStatusCode")
    if isinstance(original, int):
        problem.inner = original
    for name in ("message", "Message", "msg", "error_msg", "status_msg", "detail", "error_message"):
        value = fields.get(name)
        if isinstance(value, str) and value:
            problem.message = problem.message or value
    inner = fields.get("innererror")
    if isinstance(inner, dict):
        _read_fields(problem, inner, "")
    metadata = fields.get("metadata")
    if isinstance(metadata, dict):
        problem.flagged = problem.flagged or "flagged_input" in metadata or bool(metadata.get("reasons"))
        _read_reasons(problem, metadata)
    details = fields.get("details")
    if isinstance(details, dict):
        _read_reasons(problem, details)
    elif isinstance(details, list):
        for item in details[:10]:
            if isinstance(item, dict):
                _read_reasons(problem, item)


def _read_reasons(problem: Problem, item: dict[str, Any]) -> None:
    """The finer reasons: Anthropic's error_code, Google's ErrorInfo, RetryInfo and QuotaFailure, OpenRouter's error_type."""
    for name in ("error_code", "reason", "error_type", "code"):
        if isinstance(item.get(name), str):
            _add_word(problem, item[name])
    if isinstance(item.get("retryDelay"), str):
        problem.delay = item["retryDelay"]
    violations = item.get("violations")
    if isinstance(violations, list):
        quotas = [str(entry.get("quotaId", "")).lower() for entry in violations if isinstance(entry, dict)]
        problem.daily = problem.daily or any("perday" in quota for quota in quotas)


def _add_word(problem: Problem, word: str) -> None:
    """A code, and the part before its first dot: Throttling.RateQuota is a throttling, AuthFailure.SecretIdNotFound no key."""
    word = word[:80].lower()
    problem.words.append(word)
    if "." in word:
        problem.words.append(word.partition(".")[0])


def _plain(body: bytes) -> str:
    """What a body that is no JSON says: its title when it is a page, else its first line."""
    text = body[:4096].decode("utf-8", "replace").strip()
    title = re.search(r"<title[^>]*>([^<]{1,200})", text, re.IGNORECASE)
    if title:
        return title[1].strip()
    return "" if text.startswith("<") else text.partition("\n")[0]


def _verdict(status: int, problem: Problem) -> Verdict:
    if 300 <= status < 400 or status < 200:
        return NO_ANSWER
    if status < 300:  # an error in a 200: what it says of itself is all there is
        if not problem.is_json:
            return NO_ANSWER
        return _of_words(problem.words, weak=problem.inner is None) or (
            _of_status(problem.inner, problem) if problem.inner else FAILED
        )
    # A server error is the provider's trouble, whatever word stands beside it; only its kind may be told by one.
    if status >= 500:
        known = _of_words(problem.words, weak=False)
        return known if known in (OVERLOADED, LIMITED) else _BY_STATUS.get(status, FAILED)
    if status == 413:
        return TOO_LONG  # Groq says "rate limit" of a request that is larger than the whole limit: waiting would not help
    return _of_words(problem.words, weak=False) or _of_status(status, problem)


def _of_words(words: Iterable[str], *, weak: bool) -> Verdict | None:
    known = [_KNOWN[word] for word in words if word in _KNOWN and (weak or word not in _WEAK)]
    if known:
        return min(known, key=itemgetter(0))[1]
    if any(word.endswith("riskdetection") or "sensitivecontent" in word for word in words):  # Ark's many names
        return POLICY
    return None


def _says(pattern: str, message: str) -> bool:
    return re.search(pattern, message[:4096], re.IGNORECASE) is not None


def _of_status(status: int, problem: Problem) -> Verdict:
    message = problem.message
    if status == 403:
        if problem.flagged:
            return POLICY
        if _says(_TOO_LONG, message):  # Together's older API
            return TOO_LONG
        if _says(_NO_CREDIT, message):
            return EXHAUSTED
        return BAD_KEY if _says(_KEY_TROUBLE, message) else NO_PERMISSION
    if status == 400 and _says(_LOW_CREDIT, message):
        return EXHAUSTED
    if status in (400, 422) and _says(_TOO_LONG, message):  # Anthropic, Google and vLLM have no code for it
        return TOO_LONG
    if status == 412 and _says(_NO_CREDIT, message):  # Fireworks: suspended
        return EXHAUSTED
    if status == 424 and problem.inner is not None and problem.inner < 500:  # Bedrock: what the model's server said
        return REJECTED
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    return FAILED if status >= 500 else REJECTED


def _error(
    verdict: Verdict, status: int, problem: Problem, body: bytes, headers: Mapping[str, str], redactor: Redactor, now: float
) -> UpstreamError:
    reason = _tidy(redactor, problem.message)
    word = _tidy(redactor, next(iter(problem.words), ""))[:80]
    detail = " ".join(part for part in (str(status), word) if part) + (f": {reason}" if reason else "")
    keeps = verdict.code not in ("provider_credentials_invalid", "provider_credentials_exhausted", "provider_bad_response")
    if verdict is NO_ANSWER:
        says = _not_an_answer(status)
    elif verdict.says:
        says = verdict.says
    elif status < 300:
        says = f"ended with an error: {reason}" if reason else "ended with an error that it does not explain"
    else:
        says = f"answered {status}: {reason}" if reason else f"answered {status}"
    return UpstreamError(
        verdict.code,
        says,
        status=_status_for_caller(verdict, status, problem),
        retry_after=_wait(verdict, problem, headers, now),
        may_retry=verdict.may_retry,
        upstream_status=status,
        body=redactor.clean(body) if keeps and problem.is_json else b"",
        fault=verdict.fault,
        kind=verdict.kind,
        detail=detail,
    )


def _status_for_caller(verdict: Verdict, status: int, problem: Problem) -> int:
    """The provider's own, except where it would make the caller's software believe that its own credentials are at fault."""
    own = CODES[verdict.code].status
    if verdict.says or verdict is NO_ANSWER:
        return own
    if 200 <= status < 300:
        status = problem.inner or own
    return status if 400 <= status < 600 and status not in {401, 402, 403, 407} else own


def _wait(verdict: Verdict, problem: Problem, headers: Mapping[str, str], now: float) -> float | None:
    if verdict not in (LIMITED, OVERLOADED, FAILED):
        return None
    if problem.daily:
        return LONGEST  # Google names seconds even when a day's quota is gone
    return retry_after(headers, now, problem.delay)


def _not_an_answer(status: int) -> str:
    if 300 <= status < 400:
        return f"answered with a redirect ({status}), which is never followed; its base_url should be checked"
    if status == 407:
        return "could not be reached: the proxy on the way wants a login"
    return "answered with something that is no answer"


def _tidy(redactor: Redactor, text: str) -> str:
    """One printable line of bounded length, without secrets. They are taken out first: a cut must not leave half of one.
    Control, formatting and bidirectional characters go: they could play tricks in a terminal or a log."""
    line = redactor.clean_text(text)[: 4 * _MESSAGE]
    line = " ".join("".join(character if character.isprintable() else " " for character in line).split())
    return line if len(line) <= _MESSAGE else line[: _MESSAGE - 3] + "..."

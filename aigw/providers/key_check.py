"""Whether a provider key is good: which requests to send, and how their answers read. No I/O: who drives it sends the requests.

A check is a generator. It yields requests, is sent what became of each (an `Answered`, or the `UpstreamError` that the
transport raised), and returns the `Verdict`. All its requests are free; only `ask_for_a_word` costs a few tokens.
"""

from __future__ import annotations

import re
import time
from collections.abc import Generator
from typing import Any, NamedTuple

import msgspec

from aigw.deployment import ProviderKey
from aigw.errors import UpstreamError
from aigw.exchange import Headers, UpstreamRequest
from aigw.protocols.operations import OPERATIONS
from aigw.providers import catalog, model_list
from aigw.providers.compatible import CompatibleProvider

GOOD, WRONG_KEY, NO_CREDIT, WRONG_URL, LIMITED, UNKNOWN = "good", "wrong_key", "no_credit", "wrong_url", "limited", "unknown"

NOTHING_THERE = (404, 405, 410, 501)
_DETAIL = 240  # characters of an explanation


class Verdict(NamedTuple):
    """What is known of a key now. `kind`:

    - "good": the provider knows it; "limited": it knows it, and lets it wait
    - "wrong_key": it does not; "no_credit": it does, and wants money first
    - "wrong_url": what answers at that address is no such provider, or nothing answers
    - "unknown": could not be checked, which says nothing against the key

    `detail` is one line in English, without secrets; it may hold the provider's own words. `models` are those it lists.
    """

    kind: str
    detail: str
    models: tuple[str, ...] = ()

    @property
    def usable(self) -> bool:
        """Whether the key is worth keeping as far as anybody can tell."""
        return self.kind in (GOOD, LIMITED, UNKNOWN)


class Answered(NamedTuple):
    """What a provider answered."""

    status: int
    headers: Headers
    body: bytes


Outcome = Answered | UpstreamError
Check = Generator[UpstreamRequest, Outcome, Verdict]


def check(provider: CompatibleProvider, key: ProviderKey, *, own_address: bool) -> Check:
    """Check *key* ("" as its secret: whether none is needed). *own_address*: the operator wrote the base URL, which may be
    wrong; the catalog's own is not doubted for one bad answer."""
    row = catalog.row(provider.kind)
    reader = Reader(provider, key, row, own_address)
    credential = provider.credential(key)
    exchanged = False
    if credential is not None and (request := credential.refresh(time.time())) is not None:
        outcome = yield request
        try:
            if isinstance(outcome, UpstreamError):
                return reader.read(outcome, request)
            credential.accept(*outcome, time.time())
        except UpstreamError as error:
            return reader.refused(error)
        exchanged = True
    request = provider.key_request(key)
    if request is not None:
        answer = yield request
        verdict = reader.read(answer, request)
        if verdict.kind == GOOD:
            return verdict._replace(models=(yield from _models(provider, key)))
        elsewhere = isinstance(answer, Answered) and (answer.status in NOTHING_THERE or verdict.kind == WRONG_URL)
        if not elsewhere:  # a relay may have no such page, and still list its models
            return verdict
    request = provider.models_request(key)
    if request is None:
        if exchanged:
            return Verdict(GOOD, "was exchanged for a token")
        return Verdict(UNKNOWN, f"{row.name} has no free way to check a key that is known here")
    answer = yield request
    verdict = reader.read(answer, request, listing=True)
    if verdict.kind != GOOD or not isinstance(answer, Answered):
        return verdict
    models = tuple(provider.read_models(answer.body))
    if row.local or not key.secret or (row.key_evidence == "source" and not own_address):
        return Verdict(GOOD, _counted(models), models)
    # Some show their list to anybody. Asked without the key, they tell.
    bare = provider.models_request(None)
    without = (yield bare) if bare is not None else None
    if isinstance(without, Answered) and without.status == 200 and _is_list(without.body):
        return Verdict(UNKNOWN, f"lists its {_counted(models)} to anybody, which says nothing about the key", models)
    return Verdict(GOOD, _counted(models), models)


def ask_for_a_word(provider: CompatibleProvider, key: ProviderKey, model: str) -> Check:
    """Send one real request to *model*: it costs a few tokens."""
    row = catalog.row(provider.kind)
    operation = OPERATIONS["chat"]
    if provider.dialect_for(operation) is None:
        operation = OPERATIONS["messages"]
    most = "max_completion_tokens" if "max-completion-tokens" in row.quirks else "max_tokens"
    body = {"model": model, most: 16, "messages": [{"role": "user", "content": "Answer with one word: hello"}]}
    request = provider.prepare(operation, msgspec.json.encode(body), key, {})
    answer = yield request
    verdict = Reader(provider, key, row, own_address=True).read(answer, request, model=model)
    if verdict.kind != GOOD or not isinstance(answer, Answered):
        return verdict
    value = decoded(answer.body)
    if not isinstance(value, dict) or not ("choices" in value or "content" in value):
        return Verdict(WRONG_URL, "answered with something that is no completion")
    usage = value.get("usage")
    return Verdict(GOOD, "answered" + (", and reported its usage" if isinstance(usage, dict) and usage else ", without usage"))


def _models(provider: CompatibleProvider, key: ProviderKey) -> Generator[UpstreamRequest, Outcome, tuple[str, ...]]:
    request = provider.models_request(key)
    if request is None:
        return ()
    answer = yield request
    if not isinstance(answer, Answered) or answer.status != 200:
        return ()
    try:
        return tuple(model_list.read(answer.body))
    except ValueError:
        return ()


class Reader:
    """Reads the answers of one check."""

    def __init__(self, provider: CompatibleProvider, key: ProviderKey, row: catalog.Row, own_address: bool) -> None:
        self._provider, self._key, self._row = provider, key, row
        self._elsewhere = WRONG_URL if own_address else UNKNOWN

    def read(self, outcome: Outcome, request: UpstreamRequest, *, listing: bool = False, model: str = "") -> Verdict:
        """*listing*: a list of models was asked for; *model*: a completion of it."""
        if isinstance(outcome, UpstreamError):
            return self._unreached(outcome, request)
        status, headers, body = outcome
        if is_page(headers, body) and status != 401:
            return Verdict(self._elsewhere, f"answers with a web page{_titled(body)}, not with an API ({status})")
        if status == 407:
            return Verdict(UNKNOWN, "the proxy on the way wants a login (407)")
        if 300 <= status < 400:
            to = next((value.decode("latin-1") for name, value in headers if name.lower() == b"location"), "")
            return Verdict(self._elsewhere, line(f"redirects ({status}) to {to or 'somewhere else'}; use that address"))
        if 200 <= status < 300:
            error = self._provider.error_in_body(body, self._key)
            if error is not None:
                return self._refused(error)
            if listing and not _is_list(body):
                return Verdict(self._elsewhere, "answers, but not with a list of models")
            return _balance(body) or Verdict(GOOD, "")
        error = self._provider.judge(status, headers, body, self._key)
        if status in NOTHING_THERE and not (model and body.lstrip()[:1] in (b"{", b"[")):
            path = request.target.path.partition("?")[0]
            return Verdict(self._elsewhere, f"has nothing at {path} ({status})")
        return self._refused(error)

    def refused(self, error: UpstreamError) -> Verdict:
        """What an error means that was judged already."""
        return self._refused(error)

    def _refused(self, error: UpstreamError) -> Verdict:
        detail = line(error.detail)
        if error.code == "provider_credentials_exhausted":
            return Verdict(NO_CREDIT, detail)
        if error.code == "provider_rate_limited":
            return Verdict(LIMITED, detail)
        rejected = error.upstream_status in (401, *self._row.key_rejected)
        if (error.code == "provider_credentials_invalid" and error.fault == "key") or rejected:
            return Verdict(WRONG_KEY if self._key.secret else UNKNOWN, detail if self._key.secret else "wants a key")
        return Verdict(UNKNOWN, detail)

    def _unreached(self, error: UpstreamError, request: UpstreamRequest) -> Verdict:
        origin = request.target.origin
        detail = line(f"{error.message} ({error.detail})" if error.detail != error.message else error.message)
        if "Connect call failed" in detail:  # asyncio's words for a refused connection
            detail = f"nothing listens at {origin.host}:{origin.port}"
        if origin.proxy:
            proxy = " (407: it wants a login)" if "answered 407" in error.detail else ""
            return Verdict(UNKNOWN, line(f"could not be reached by the proxy{proxy}: {error.detail}"))
        if error.code == "provider_bad_response":
            other = "http" if origin.scheme == "https" else "https"
            return Verdict(self._elsewhere, f"does not answer in HTTP; is it {other}://?")
        if error.code == "provider_connection_lost" and origin.scheme == "http":
            return Verdict(self._elsewhere, f"{detail}; is it https://?")
        if error.code == "provider_unreachable" and "certificate" not in error.message and "ca_file" not in error.message:
            if "TLS" in error.message:
                detail += "; is it http://?"
            return Verdict(self._elsewhere, detail)
        return Verdict(UNKNOWN, detail)


def is_page(headers: Headers, body: bytes) -> bool:
    """Whether an answer is a web page."""
    kind = next((value for name, value in headers if name.lower() == b"content-type"), b"").lower()
    start = body[:256].lstrip().lower()
    return kind.startswith(b"text/html") or start.startswith((b"<!doctype", b"<html"))


def _titled(body: bytes) -> str:
    title = re.search(r"<title[^>]*>([^<]{1,200})", body[:4096].decode("utf-8", "replace"), re.IGNORECASE)
    text = line(title[1])[:60] if title else ""
    return f' ("{text}")' if text else ""


def _balance(body: bytes) -> Verdict | None:
    """What an answer says of the account's money: DeepSeek's `is_available`, Moonshot's `available_balance`, OpenRouter's
    `limit_remaining`. None when it says nothing."""
    value = decoded(body)
    if not isinstance(value, dict):
        return None
    if value.get("is_available") is False:
        return Verdict(NO_CREDIT, "the account's balance is too low for calls")
    inner = value.get("data")
    if not isinstance(inner, dict):
        return None
    for name in ("available_balance", "limit_remaining"):
        left = inner.get(name)
        if isinstance(left, int | float) and not isinstance(left, bool) and left <= 0:
            return Verdict(NO_CREDIT, f"the account's balance is {left:g}")
    return None


def _is_list(body: bytes) -> bool:
    try:
        model_list.read(body)
    except ValueError:
        return False
    return True


def decoded(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return None


def _counted(models: tuple[str, ...]) -> str:
    return f"{len(models)} model{'s' * (len(models) != 1)}"


def line(text: str) -> str:
    """One printable line of bounded length."""
    short = " ".join("".join(one if one.isprintable() else " " for one in text).split())
    return short if len(short) <= _DETAIL else short[: _DETAIL - 3] + "..."


# ---- whose key it looks like

_LOOKS = (
    ("sk-ant-oat", "claude-code"),
    ("sk-ant-", "anthropic"),
    ("sk-or-v1-", "openrouter"),
    ("sk-proj-", "openai"),
    ("sk-svcacct-", "openai"),
    ("gsk_", "groq"),
    ("xai-", "xai"),
    ("AIza", "gemini"),
    ("pplx-", "perplexity"),
    ("nvapi-", "nvidia"),
    ("hf_", "huggingface"),
    ("r8_", "replicate"),
    ("csk-", "cerebras"),
    ("fw_", "fireworks"),
    ("tgp_v1_", "together"),
    ("github_pat_", "github"),
    ("ghp_", "github"),
    ("dapi", "databricks"),
    ("ABSK", "bedrock"),
)
"""Beginnings of keys that one vendor alone gives out, and its row. They are those that leak scanners and `redact.py` know; a
plain "sk-" is nobody's. Good enough to ask "are you sure?", not to refuse."""

OURS = "sk-aigw-"


def looks_like(key: str) -> str:
    """The row whose key *key* looks like: "aigw" for a consumer key of a gateway such as this one, "" when it does not show."""
    if key.startswith(OURS):
        return "aigw"
    return next((name for start, name in _LOOKS if key.startswith(start)), "")


def foreign(key: str, row: catalog.Row) -> str:
    """As `looks_like`, "" when it is a key for *row* too: the same vendor's, or a server that takes anybody's."""
    name = looks_like(key)
    if not name or row.category in {"generic", "local"} or name in {row.id, row.twin}:
        return ""
    vendor = {"claude-code": "anthropic", "github-copilot": "github"}
    return "" if vendor.get(name, name) == vendor.get(row.id, row.id) else name

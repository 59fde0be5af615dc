"""What is at an address: which APIs it speaks, with /v1 or without, its models, and how its streams report usage. No I/O: who
drives it sends the requests.

A search is a generator like a key's check (`key_check.py`). Its requests are free but for the last, one word from one model,
which is asked only where a model is known.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from aigw.config import schema
from aigw.deployment import ProviderKey
from aigw.errors import UpstreamError
from aigw.exchange import UpstreamRequest
from aigw.protocols.operations import OPERATIONS
from aigw.providers import key_check
from aigw.providers.addresses import checked_url
from aigw.providers.compatible import CompatibleProvider
from aigw.providers.key_check import Answered, Outcome, Verdict

COMPATIBLE = "openai-compatible"

_ENDPOINT = re.compile(r"/(?:chat/completions|completions|models|embeddings|responses|messages(?:/count_tokens)?)\Z")
_VERSION = re.compile(r"/v\d+[a-z0-9]*\Z")
_NO_CHAT = re.compile(r"embed|rerank|tts|whisper|image|moderation|dall-e|ocr|audio|bge-|clip", re.IGNORECASE)

Build = Callable[[schema.Provider], CompatibleProvider]


class Found(NamedTuple):
    """What is at an address. `verdict` is that of the key; "wrong_url" when there is nothing we speak, `detail` saying why.

    `kind`, `base_url` and `anthropic_base_url` are what the config would say. `usage`: "stream" (streams report it when asked),
    "unasked" (they do, and refuse to be asked), "none", or "" (not tried, or it did not answer). `notes` are lines for people.
    """

    verdict: Verdict
    kind: str = ""
    base_url: str = ""
    anthropic_base_url: str = ""
    usage: str = ""
    notes: tuple[str, ...] = ()

    @property
    def dialects(self) -> tuple[str, ...]:
        """In words: "OpenAI", "Anthropic"."""
        openai = ("OpenAI",) if self.base_url and self.kind == COMPATIBLE else ()
        return (*openai, "Anthropic") if self.anthropic_base_url or self.kind == "anthropic" else openai

    def table(self) -> dict[str, Any]:
        """The keys of `[providers.NAME]`, without those for provider keys."""
        found: dict[str, Any] = {"kind": self.kind}
        if self.base_url:
            found["base_url"] = self.base_url
        if self.anthropic_base_url:
            found["anthropic_base_url"] = self.anthropic_base_url
        if not self.verdict.models:
            found["list_models"] = False
        if self.usage == "unasked":
            found["stream_usage"] = False
        return found


Search = Generator[UpstreamRequest, Outcome, Found]


def no_chat(model: str) -> bool:
    """Whether a model's name says that it does not talk."""
    return _NO_CHAT.search(model) is not None


def search(base_url: str, key: ProviderKey, build: Build, *, model: str = "") -> Search:
    """Look around at *base_url*. *build* makes the provider of a table; *model* is asked for a word where none is listed.
    Raises ConfigError for what is no URL."""
    given = _ENDPOINT.sub("", checked_url(base_url, "--base-url"))
    candidates = _candidates(given)
    refusals: list[Verdict] = []
    chosen, verdict = "", Verdict(key_check.WRONG_URL, "")
    for url in candidates:
        seen: list[Outcome] = []
        verdict = yield from _watched(key_check.check(build(_openai(url)), key, own_address=True), seen)
        if isinstance(seen[-1], UpstreamError) and verdict.kind != key_check.GOOD:
            return Found(verdict)  # nobody there: another path would not help
        if verdict.kind != key_check.WRONG_URL:
            chosen = url
            break
        refusals.append(verdict)
    if not chosen:  # some list no models
        chosen = yield from _first_with_chat(candidates, key, build)
        verdict = Verdict(key_check.UNKNOWN, "lists no models, so the key could not be checked")
    if not chosen:
        chosen = (yield from _first_with_messages(candidates, key, build)) or ""
        if not chosen:
            return Found(_plainest(refusals))
    return (yield from _explored(chosen, verdict, key, build, model))


def _explored(url: str, verdict: Verdict, key: ProviderKey, build: Build, model: str) -> Search:
    root = _VERSION.sub("", url) if url.endswith("/v1") else url
    chat = yield from _serves(build(_openai(url)), "chat", key)
    messages = yield from _serves(build(schema.Provider(kind=COMPATIBLE, anthropic_base_url=root)), "messages", key)
    if verdict.kind == key_check.WRONG_KEY or (messages and not chat):  # Anthropic's own header may be what it wants
        other = yield from key_check.check(build(_anthropic(root)), key, own_address=True)
        if other.kind in (key_check.GOOD, key_check.LIMITED) or (other.kind == key_check.UNKNOWN and other.models):
            return Found(other, "anthropic", f"{root}/v1", notes=("it takes the key as x-api-key",))
    if messages and not chat:
        return Found(verdict, COMPATIBLE, "", root)
    found = Found(verdict, COMPATIBLE, url, root if messages else "")
    asked = model or next((name for name in verdict.models if not _NO_CHAT.search(name)), "")
    if not asked or not verdict.usable:
        return found
    usage, note = yield from _usage(build(_openai(url)), asked, key)
    return found._replace(usage=usage, notes=(note,) if note else ())


def _openai(url: str) -> schema.Provider:
    return schema.Provider(kind=COMPATIBLE, base_url=url)


def _anthropic(root: str) -> schema.Provider:
    return schema.Provider(kind="anthropic", base_url=f"{root}/v1")


def _candidates(given: str) -> tuple[str, ...]:
    """The base URLs that may be meant, likeliest first."""
    if urlsplit(given).path.endswith("/v1"):
        return given, given.removesuffix("/v1")
    return (given, f"{given}/v1") if _VERSION.search(given) else (f"{given}/v1", given)


def _first_with_chat(candidates: tuple[str, ...], key: ProviderKey, build: Build) -> Generator[UpstreamRequest, Outcome, str]:
    for url in candidates:
        if (yield from _serves(build(_openai(url)), "chat", key)):
            return url
    return ""


def _first_with_messages(
    candidates: tuple[str, ...], key: ProviderKey, build: Build
) -> Generator[UpstreamRequest, Outcome, str]:
    for root in dict.fromkeys(url.removesuffix("/v1") for url in candidates):
        if (yield from _serves(build(schema.Provider(kind=COMPATIBLE, anthropic_base_url=root)), "messages", key)):
            return f"{root}/v1"
    return ""


def _serves(provider: CompatibleProvider, operation: str, key: ProviderKey) -> Generator[UpstreamRequest, Outcome, bool]:
    """Whether the path of *operation* is there: an empty question is refused by who serves it, and not found by who does not.
    Costs nothing."""
    answer = yield provider.prepare(OPERATIONS[operation], b"{}", key, {})
    if not isinstance(answer, Answered) or key_check.is_page(answer.headers, answer.body):
        return False
    value = key_check.decoded(answer.body)
    if operation == "messages" and answer.status in (401, 403, 404):  # a guard before all paths says so of each
        return isinstance(value, dict) and value.get("type") == "error" and _type_of(value) != "not_found_error"
    refused = answer.status >= 400 or provider.error_in_body(answer.body, key) is not None
    return refused and answer.status not in key_check.NOTHING_THERE and isinstance(value, dict | list)


def _type_of(value: dict[str, Any]) -> Any:
    error = value.get("error")
    return error.get("type") if isinstance(error, dict) else None


def _usage(provider: CompatibleProvider, model: str, key: ProviderKey) -> Generator[UpstreamRequest, Outcome, tuple[str, str]]:
    """How a stream of *model* reports its usage, and a line when it says nothing."""
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": 16,
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [{"role": "user", "content": "Answer with one word: hello"}],
    }
    asked = yield provider.prepare(OPERATIONS["chat"], msgspec.json.encode(body), key, {})
    if isinstance(asked, Answered) and asked.status == 200:
        return ("stream", "") if _reports(asked.body) else ("none", f"streams of {model} report no usage: it will be estimated")
    if isinstance(asked, Answered) and asked.status in (400, 422):
        del body["stream_options"]
        bare = yield provider.prepare(OPERATIONS["chat"], msgspec.json.encode(body), key, {})
        if isinstance(bare, Answered) and bare.status == 200:
            return ("unasked", "") if _reports(bare.body) else ("none", "streams report no usage, and may not be asked for it")
    if isinstance(asked, UpstreamError):
        return "", key_check.line(f"{model} did not answer a first question: {asked.detail}")
    error = provider.judge(asked.status, asked.headers, asked.body, key)
    return "", key_check.line(f"{model} did not answer a first question: {error.detail}")


def _reports(stream: bytes) -> bool:
    """Whether one of the events has a usage that is more than null."""
    for row in stream.splitlines():
        if row.startswith(b"data:") and b'"usage"' in row:
            value = key_check.decoded(row[5:].strip())
            if isinstance(value, dict) and value.get("usage"):
                return True
    return False


def _plainest(refusals: list[Verdict]) -> Verdict:
    """Of several ways to be wrong the one that says most: a web page or a redirect before a plain 404."""
    said = next((one for one in refusals if "has nothing at" not in one.detail), None)
    if said is not None:
        return said
    return Verdict(key_check.WRONG_URL, "; ".join(dict.fromkeys(one.detail for one in refusals)))


def _watched(
    check: Generator[UpstreamRequest, Outcome, Verdict], seen: list[Outcome]
) -> Generator[UpstreamRequest, Outcome, Verdict]:
    """*check*, with what became of its requests put into *seen*."""
    try:
        request = next(check)
        while True:
            outcome = yield request
            seen.append(outcome)
            request = check.send(outcome)
    except StopIteration as end:
        verdict: Verdict = end.value
        return verdict

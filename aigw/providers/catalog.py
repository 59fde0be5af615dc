"""The catalog of known providers: one row each in `catalog.toml`, found by its id and parsed alone.

Reading all rows costs 9 ms, reading the two or three that are configured less than 1 ms; `aigw serve` starts with the latter.
"""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path

import msgspec

from aigw.errors import ConfigError
from aigw.protocols.operations import OPERATIONS

FILE = Path(__file__).with_name("catalog.toml")
_HEADING = re.compile(r"^\[([a-z0-9-]+)\]$", re.MULTILINE)

QUIRKS = {
    "anthropic-coding-plan-only": "its Anthropic API is for keys of its coding plan only",
    "anthropic-url-inferred": "the address of its Anthropic API was concluded from its siblings', not read",
    "echo-reasoning": "in thinking mode every assistant message sent back must carry its reasoning_content",
    "echo-thought-signature": "Gemini 3 and later want thought signatures back with function calls, or answer 400",
    "editor-headers": "wants the headers of an editor",
    "error-in-200": "reports some errors with status 200",
    "first-system-block": "wants Claude Code's own words as the first block of the system prompt",
    "key-per-model": "has a key of its own for each model",
    "max-completion-tokens": "reasoning models take max_completion_tokens, and refuse max_tokens",
    "model-is-deployment": "the model's name is that of your deployment",
    "oauth-token": "the key is an OAuth token, which ends",
    "own-rerank-shape": "its rerank API has a shape of its own",
    "public-models": "shows its list of models to anybody: the list says nothing about a key",
    "responses-only-pro-models": "models in -pro and -codex are served by the Responses API only",
    "strict-fields": "refuses fields that it does not know",
    "token-exchange": "takes an access token that is exchanged for your credentials, and ends within the hour",
    "usage-always": "reports usage in streams without being asked, and may refuse to be asked",
    "usage-in-choice": "reports the usage of streams inside the last choice",
    "usage-in-x-groq": "reports the usage of streams in a field of its own as well",
}
"""What a row's quirks mean, for people."""

# The catalog's word for a capability, where it differs from the name of our operation.
_OPERATIONS = {
    "audio_speech": ("speech",),
    "audio_transcriptions": ("transcriptions", "translations"),
    "images": ("images", "image_edits", "image_variations"),
}


class Setting(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Something an operator may or must say about a provider, besides URL and key, in its `settings` table.

    It goes to where the row uses it: into a `{name}` of a URL, into the header `header`, or into the query parameter `query`.
    Unset, it is taken from the environment variable `env`, then from `default`; `required` says that it may not be missing.
    """

    name: str
    required: bool = False
    default: str = ""
    env: str = ""
    header: str = ""
    query: str = ""


class Row(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What we know of one provider. URLs may hold `{names}` of settings; an unset field is empty.

    `base_url` has the form in which the operator replaces it. `openai_url` (empty: `base_url`, when `protocol` is "openai")
    and `anthropic_url` (without /v1) are the two surfaces we speak; a row with neither is known but not served. `residency`
    says where data stays as far as the vendor commits itself: "intl" is anywhere outside mainland China.
    """

    id: str
    name: str
    name_zh: str = ""
    category: str  # vendor, cloud, host, aggregator, subscription, app, local, generic
    status: str = "active"  # or uncertain: it may have closed
    residency: str = ""
    protocol: str  # its own: openai, anthropic, gemini, vertex, azure, bedrock, cohere, ollama, other, demo
    base_url: str = ""
    openai_url: str = ""
    openai_url_when: dict[str, str] = {}  # "setting=value": the URL for it
    anthropic_url: str = ""
    urls: dict[str, str] = {}  # by operation, where it is not the surface's usual path; of its own API, all of them
    urls_when: dict[str, dict[str, str]] = {}  # "setting=value", or "setting" for any: the URLs for it
    models_url: str = ""  # GET lists the models; a path is behind base_url
    key_check: str = ""  # GET tells a good key (200) from a bad one; unset: models_url does, as far as key_evidence goes
    key_evidence: str = ""  # that it does: "source" (read in one), "inferred", "convention", "" (nobody says so)
    key_rejected: tuple[int, ...] = ()  # what a bad key is answered with, besides 401
    caller_only: bool = False  # serves only callers who bring a login of their own, and passes it on with all they say
    auth: str = "bearer"  # "bearer", "none", or the header that takes the bare key
    auth_word: str = ""  # stands before the key in that header
    env: tuple[str, ...] = ()  # where people keep its key, best first
    settings: tuple[Setting, ...] = ()
    headers: dict[str, str] = {}  # sent with each request
    capabilities: tuple[str, ...] = ()
    stream_usage: bool = True  # takes stream_options.include_usage; False: refuses it, or reports usage anyway
    default_model: str = ""
    models: tuple[str, ...] = ()  # a few examples
    prefixes: tuple[str, ...] = ()  # lower-case beginnings of model names that are this provider's
    weak_prefixes: tuple[str, ...] = ()  # beginnings that others use as well
    namespaces: tuple[str, ...] = ()  # prefixes besides "id/" that are an address and no part of the model's name
    twin: str = ""  # the same vendor's row for the other side of the border; keys are not shared
    other_urls: dict[str, str] = {}  # for base_url: plans and regions
    quirks: tuple[str, ...] = ()  # one word each, for adapters
    docs_url: str = ""
    evidence: str = ""  # of the row: "high" (read in several current sources), "medium", "low" (one source, perhaps old)
    as_of: str = ""  # the month of its model names; "": older than July 2026
    sources: tuple[str, ...] = ()  # where all this was read

    @property
    def local(self) -> bool:
        """Runs on the operator's own machines: needs no key, and owns names of the form `name:tag`."""
        return self.category == "local"

    @property
    def needs_key(self) -> bool:
        return self.auth != "none" and self.category not in {"local", "generic"} and not self.caller_only

    @property
    def openai_surface(self) -> str:
        return self.openai_url or (self.base_url if self.protocol == "openai" else "")

    @property
    def served(self) -> bool:
        """Whether it can be called in a dialect we speak."""
        return bool(self.openai_surface or self.anthropic_url or self.own_operations) or self.category == "generic"

    @property
    def own_operations(self) -> tuple[str, ...]:
        """What is asked in shapes of its own API."""
        return tuple(name for name in self.urls if name in OPERATIONS and not OPERATIONS[name].door)

    @property
    def operations(self) -> frozenset[str]:
        """Our operations that it is known to serve, when both its surfaces are reachable."""
        return frozenset(name for capability in self.capabilities for name in _OPERATIONS.get(capability, (capability,)))


@cache
def _source() -> tuple[str, dict[str, tuple[int, int]]]:
    """The file's text and where each row's keys begin and end in it."""
    text = FILE.read_text(encoding="utf-8")
    headings = list(_HEADING.finditer(text))
    ends = [heading.start() for heading in headings[1:]] + [len(text)]
    return text, {heading[1]: (heading.end(), end) for heading, end in zip(headings, ends, strict=True)}


def ids() -> tuple[str, ...]:
    """Every row's id, in the file's order."""
    return tuple(_source()[1])


@cache
def row(id: str) -> Row:  # noqa: A002 - the field's word
    """The row *id*; an unknown one raises ConfigError with the nearest ids."""
    text, places = _source()
    if id not in places:
        raise ConfigError(f"unknown provider kind {_shown(id)}; {nearest(id)}")
    start, end = places[id]
    return msgspec.convert({"id": id, **tomllib.loads(text[start:end])}, Row)


def nearest(name: str) -> str:
    """What to write instead of an unknown kind: a clause for an error message."""
    import difflib  # only a mistake pays for it

    name = name[:64].lower()
    close = difflib.get_close_matches(name, ids(), n=3, cutoff=0.6)
    start = [known for known in ids() if len(name) > 2 and (known.startswith(name) or name.startswith(f"{known}-"))]
    found = list(dict.fromkeys(close + start))[:3]
    other = 'any OpenAI-shaped server is kind = "openai-compatible" with a base_url'
    return f"did you mean {' or '.join(map(repr, found))}? ({other})" if found else other


def _shown(name: str) -> str:
    return ascii(name if len(name) <= 64 else name[:61] + "...")

"""Every provider that is a URL, a key and a few flags: the OpenAI-shaped and the Anthropic-shaped surface of a catalog row."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

from aigw import __version__
from aigw.config import schema, secrets
from aigw.deployment import ProviderKey
from aigw.errors import CallerError, ConfigError, UpstreamError
from aigw.exchange import Headers, Origin, Target, UpstreamRequest
from aigw.protocols import realtime
from aigw.protocols.operations import OPERATIONS, RAW, Operation
from aigw.protocols.realtime import Handshake
from aigw.protocols.translation import TRANSLATORS
from aigw.protocols.translation.contract import Toward
from aigw.providers import catalog, judge, model_list, proxy
from aigw.providers.addresses import Addresses
from aigw.providers.base import Credential
from aigw.providers.catalog import Row
from aigw.providers.redact import Redactor

ANTHROPIC_VERSION = "2023-06-01"
"""Sent when neither the caller nor the operator names one; this and 2026-10-21 are both served (November 2026)."""

# Of a caller's headers, those that are words of the dialect. Everything else (credentials, cookies, forwarding, SDK telemetry)
# stays here. What caller and operator may say together is joined; of the others the caller's wins.
_OPENAI_WORDS = ("openai-beta", "idempotency-key")
_ANTHROPIC_WORDS = ("anthropic-beta", "idempotency-key", "anthropic-version")
_SAFETY = "openai-safety-identifier"  # who the end user is, as a digest; of realtime sessions, where no body says it
_LISTS = frozenset({"anthropic-beta", "openai-beta"})
_LONGEST_WORD = 2048
"""Characters of one such header; a Claude Code request's longest has about 200."""
_OWN_SHAPE = {
    "anthropic": ("messages",),
    "gemini": ("generate",),
    "cohere": ("cohere_chat", "cohere_embed"),
    "ollama": ("ollama_chat", "ollama_embed"),
}
"""By a row's protocol; where nothing is written, `TRANSLATORS`' order: OpenAI's chat first."""
_RESPONSES_ONLY = re.compile(r"(?:^|-)(?:pro|codex|deep-research)(?:-|$)|^computer-use-")
"""Models that OpenAI serves by Responses alone (`responses-only-pro-models`): gpt-5-pro, o1-pro-2025-03-19, gpt-5.1-codex-mini,
o3-deep-research ..."""
_TARGETS = 1024
"""Rendered heads that are remembered: callers decide how many models there are."""
GEMINI_AUTH = "x-goog-api-key"
"""Gemini's own API takes the bare key; its OpenAI layer takes it as OpenAI does."""
MODEL = "{model}"
"""Where a URL's path names the model, percent-encoded."""
MODEL_PATH = "{model/}"
"""The same for a model whose name is a path: "owner/name"."""
_PATH_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_EXTRAS = 512
"""Rendered header blocks that are remembered: callers decide how many kinds there are."""

# Framing and routing are ours: an operator's header may not change where a body ends or where a request goes.
_OURS = frozenset(
    """host content-length content-type transfer-encoding connection keep-alive upgrade te trailer expect accept-encoding
    proxy-authorization proxy-connection""".split()  # noqa: SIM905 - a list of thirteen quoted words reads worse
)
_RAW_WORDS = ("content-type", "accept", "openai-beta", "anthropic-beta", "anthropic-version", "idempotency-key")
"""Of a caller's headers, those that go on with what is passed through as it is."""
_VERSION = re.compile(r"v[0-9][a-z0-9]*")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[ -~]*")


class Endpoint(NamedTuple):
    """One URL that is asked: where the connection goes, and the path sent on it."""

    origin: Origin
    path: str


class Patience(NamedTuple):
    """Seconds to wait for a connection, the first byte of a stream, the next block, the whole answer, and for an answer that is
    no stream: all of it is thought out before its first byte."""

    connect: float = 10.0
    first_byte: float = 120.0
    idle: float = 300.0
    total: float = 3600.0
    plain: float = 600.0


class Given(NamedTuple):
    """What an adapter is made from: the row, the settings that have a value, the keys themselves. `environ` is what variables
    are looked up in; `place` is where the provider stands in the config."""

    place: str
    row: Row
    settings: Mapping[str, str]
    keys: Sequence[str]
    environ: Mapping[str, str]
    base_url: str | None
    anthropic_base_url: str | None

    @property
    def addresses(self) -> Addresses:
        return Addresses(
            self.row,
            self.settings,
            base_url=self.base_url,
            anthropic_base_url=self.anthropic_base_url,
            place=self.place,
        )

    def secret(self, reference: str) -> str:
        """What the environment points to. Raises ConfigError."""
        return secrets.resolve(reference, key=f"{self.place}.keys", environment=self.environ)


class Own(NamedTuple):
    """What only adapters use: the settings; `ambient`, a secret of the environment where no key is configured; and `way`, from
    a URL to an endpoint that is not the provider's main one."""

    settings: Mapping[str, str]
    ambient: str
    way: Callable[[str], Endpoint]


ADAPTERS = {
    "azure": "azure:Azure",
    "bedrock": "bedrock:Bedrock",
    "deepl": "deepl:DeepL",
    "gigachat": "gigachat:GigaChat",
    "replicate": "replicate:Replicate",
    "vertex": "vertex:Vertex",
    "watsonx": "watsonx:Watsonx",
}
"""Rows, by their id, that need more than a URL, a key and flags: subclasses of `CompatibleProvider`."""


class CompatibleProvider:
    """Implements `Provider`. Made by `build`, which asks an adapter's class methods what is different about it."""

    own_login = False

    def __init__(
        self,
        *,
        name: str,
        row: Row,
        account: str,
        residency: str,
        stream_usage: bool,
        endpoints: Mapping[str, Endpoint],
        models: Endpoint | None,
        key_check: Endpoint | None,
        headers: Mapping[str, str],
        words: Mapping[str, str],
        patience: Patience,
        redactor: Redactor,
        realtime: Endpoint | None = None,
        realtime_model: str = "model",
        own: Own | None = None,
        raw: Endpoint | None = None,
    ) -> None:
        """*endpoints* by operation; *models* is the one that lists models, *key_check* tells only whether a key is good.
        *headers* go with every request; *words* are the operator's values for headers that a caller may say as well.
        *realtime* is where websockets are opened; *realtime_model* is the query parameter for the model there."""
        self.name, self.kind, self.price_id = name, row.id, row.id
        self.account, self.residency, self.stream_usage = account, residency, stream_usage
        self.lists_models = models is not None
        self._row, self._endpoints, self._models, self._headers, self._words = row, endpoints, models, headers, words
        self._key_check = key_check
        self._settings: Mapping[str, str] = {} if own is None else own.settings
        self._realtime, self._realtime_model = realtime, realtime_model
        self._connect, self._first_byte, self._idle, self._total, self._plain = patience
        self._redactor = redactor
        self._dialects = {name: operation.dialect for name, operation in OPERATIONS.items() if name in endpoints}
        self._responses_only = "responses-only-pro-models" in row.quirks and "responses" in endpoints
        self._serving = {name: _serving(operation, endpoints, row) for name, operation in OPERATIONS.items()}
        self._raw = raw
        self._serving[RAW.name] = None if raw is None else RAW
        self._by_model = frozenset(
            name for name, endpoint in endpoints.items() if "{model" in endpoint.path or f"{name}:stream" in endpoints
        )
        if own is not None:
            self._ambient, self._way = own.ambient, own.way
        self._targets: dict[tuple[str, str, str], tuple[str, Target]] = {}
        self._extras: dict[tuple[str | None, ...], bytes] = {}

    @classmethod
    def fitted(cls, given: Given) -> Given:
        """*given* as the rest of the building shall see it."""
        return given

    @classmethod
    def urls(cls, given: Given) -> dict[str, str]:
        """The URL of each operation that is served; "NAME:stream" where streams have one of their own."""
        return given.addresses.operations()

    @classmethod
    def fault(cls, secret: str) -> str:
        """What is wrong with a key, without repeating it; "" when it can be used."""
        good = re.fullmatch(r"[!-~]+", secret) is not None
        return "" if good else "holds white space or a character that no header can carry"

    @classmethod
    def parts(cls, secret: str) -> tuple[str, ...]:
        """What of a key must not be shown either."""
        return ()

    @classmethod
    def ambient(cls, given: Given) -> str:
        """A secret of the environment, for when no key is configured; "" when there is none."""
        return ""

    def __repr__(self) -> str:
        return f"CompatibleProvider({self.name!r}, kind={self.kind!r})"

    def dialect_for(self, operation: Operation) -> str | None:
        return self._dialects.get(operation.name)

    def serving(self, operation: Operation, model: str) -> Operation | None:
        found = self._serving.get(operation.name)
        if self._responses_only and found is not None and found.family == "conversation" and _RESPONSES_ONLY.search(model):
            return OPERATIONS["responses"] if operation.name in TRANSLATORS else found
        return found

    def toward(self, via: Operation, model: str, *, stream: bool) -> Toward:
        row = self._row
        return Toward(
            model=model,
            kind=row.id,
            quirks=frozenset(row.quirks),
            stream=stream,
            stream_usage=self.stream_usage,
            dialect_version=self._words.get("anthropic-version", "") if via.dialect == "anthropic_messages" else "",
            settings=self._settings,
        )

    def credential(self, key: ProviderKey | None) -> Credential | None:
        return None

    def prepare(
        self,
        operation: Operation,
        body: bytes,
        key: ProviderKey | None,
        headers: Mapping[str, str],
        model: str = "",
        *,
        stream: bool = False,
    ) -> UpstreamRequest:
        label, secret = ("", "") if key is None else (key.label, key.secret)
        name = operation.name
        if name in self._by_model:
            name = f"{name}:stream" if stream and f"{name}:stream" in self._endpoints else name
            known = self._targets.get((name, label, model))
        else:
            model = ""
            known = self._targets.get((name, label, ""))
        if known is None or known[0] != secret:  # a label is no proof: the pool may have changed behind it
            if len(self._targets) >= _TARGETS:
                self._targets.clear()
            known = self._targets[name, label, model] = secret, self._target(name, secret, model)
        said = _said(operation.dialect, headers)
        extra = self._extras.get(said)
        if extra is None:
            extra = self._extra(operation.dialect, said)
        return UpstreamRequest(
            known[1],
            body,
            extra,
            connect_timeout=self._connect,
            first_byte_timeout=self._first_byte if stream else self._plain,
            idle_timeout=self._idle,
            timeout=self._total,
        )

    def handshake(
        self, model: str, key: ProviderKey | None, headers: Mapping[str, str], asked: Mapping[str, str]
    ) -> Handshake | None:
        """How a realtime session with *model* is asked for; None when there are none here. *headers* are the caller's, *asked*
        is its query. Raises CallerError for a header value that cannot be sent."""
        if self._realtime is None:
            return None
        extra = self._extra("openai_chat", _said("openai_chat", headers))
        sent = {**_credentials(self._row.auth, "" if key is None else key.secret), "user-agent": f"aigw/{__version__}"}
        sent |= self._headers
        sent |= dict(line.split(": ", 1) for line in extra.decode("ascii").split("\r\n") if line)
        safety = headers.get(_SAFETY)
        if safety is not None and len(safety) <= _LONGEST_WORD and _VALUE.fullmatch(safety):
            sent[_SAFETY] = safety
        path = self._realtime.path
        path += ("&" if "?" in path else "?") + realtime.query(model, asked, parameter=self._realtime_model)
        return Handshake(self._realtime.origin, path, sent, self._connect, self._first_byte)

    def reach(
        self,
        operation: Operation,
        object_id: str,
        query: str,
        body: bytes,
        key: ProviderKey | None,
        headers: Mapping[str, str],
        *,
        model: str = "",
        content_type: str = "application/json",
    ) -> UpstreamRequest:
        endpoint = self._endpoints.get(operation.name)
        if endpoint is None:
            raise CallerError("caller_unsupported", f"The provider {self.name!r} does not serve {operation.path}.")
        object_id, _, item = object_id.partition("/")
        path, _, own = endpoint.path.partition("?")
        path = path.replace("{id}", quote(object_id, safe="")).replace("{item}", quote(item, safe=""))
        path = path.replace(MODEL, quote(model, safe=""))
        path += "?" * bool(own or query) + "&".join(filter(None, (own, query)))
        more = {"content-type": content_type} if body or content_type != "application/json" else {}
        secret = "" if key is None else key.secret
        return UpstreamRequest(
            self._render(operation.method, Endpoint(endpoint.origin, path), secret, more),
            body,
            self._extra(operation.dialect, _said(operation.dialect, headers)),
            connect_timeout=self._connect,
            first_byte_timeout=self._first_byte if operation.method == "GET" else self._plain,
            idle_timeout=self._idle,
            timeout=self._total,
        )

    def raw(self, method: str, path: str, query: str, key: ProviderKey | None, headers: Mapping[str, str]) -> UpstreamRequest:
        if self._raw is None:
            raise CallerError("caller_unsupported", f"The provider {self.name!r} is not open to paths of its own.")
        root, _, own = self._raw.path.partition("?")
        root = root.rstrip("/")
        first = path.split("/", 2)[1]
        if _VERSION.fullmatch(first) and root.rpartition("/")[2] == first:
            path = path.removeprefix("/" + first)  # the address has it already
        full = f"{root}{path}" + "?" * bool(own or query) + "&".join(filter(None, (own, query)))
        said = {}
        for name in _RAW_WORDS:
            value = headers.get(name) or self._words.get(name, "")
            if len(value) > _LONGEST_WORD or not _VALUE.fullmatch(value):
                raise CallerError(
                    "caller_invalid_request",
                    f"The header {name!r} must be printable ASCII of at most {_LONGEST_WORD} characters.",
                )
            if value:
                said[name] = value
        if self._row.protocol == "anthropic":
            said.setdefault("anthropic-version", ANTHROPIC_VERSION)
        auth = GEMINI_AUTH if self._row.protocol == "gemini" and not path.startswith("/openai/") else ""
        return UpstreamRequest(
            self._render(method, Endpoint(self._raw.origin, full or "/"), "" if key is None else key.secret, said, auth),
            connect_timeout=self._connect,
            first_byte_timeout=self._plain,
            idle_timeout=self._idle,
            timeout=self._total,
        )

    def models_request(self, key: ProviderKey | None) -> UpstreamRequest | None:
        return self._get(self._models, key)

    def key_request(self, key: ProviderKey | None) -> UpstreamRequest | None:
        """The request whose answer tells a good key from a bad one; None where `models_request` must do."""
        return self._get(self._key_check, key)

    def _get(self, endpoint: Endpoint | None, key: ProviderKey | None) -> UpstreamRequest | None:
        if endpoint is None:
            return None
        more = {}
        if self._row.protocol == "anthropic":
            more["anthropic-version"] = self._words.get("anthropic-version", ANTHROPIC_VERSION)
        target = self._render("GET", endpoint, "" if key is None else key.secret, more)
        return UpstreamRequest(
            target,
            connect_timeout=self._connect,
            first_byte_timeout=self._first_byte,
            idle_timeout=self._idle,
            timeout=self._total,
        )

    def read_models(self, body: bytes) -> list[str]:
        try:
            return model_list.read(body)
        except ValueError as error:
            raise UpstreamError(
                "provider_bad_response", f"answered with no list of models: {error}", fault="deployment"
            ) from None

    def judge(self, status: int, headers: Headers, body: bytes, key: ProviderKey | None) -> UpstreamError:
        return judge.judge(status, headers, body, self._redactor_with(key))

    def error_in_body(self, body: bytes, key: ProviderKey | None = None) -> UpstreamError | None:
        return judge.error_in_body(body, self._redactor_with(key))

    def _target(self, name: str, secret: str, model: str) -> Target:
        endpoint = self._endpoints.get(name)
        if endpoint is None:
            path = OPERATIONS[name].path
            raise CallerError("caller_unsupported", f"The provider {self.name!r} does not serve {path}.")
        if model:
            if MODEL_PATH in endpoint.path and not _PATH_NAME.fullmatch(model):
                raise CallerError(
                    "caller_unsupported", f"A model of the provider {self.name!r} is named as OWNER/NAME.", param="model"
                )
            path = endpoint.path.replace(MODEL_PATH, model).replace(MODEL, quote(model, safe=""))
            endpoint = Endpoint(endpoint.origin, path)
        gemini = self._row.protocol == "gemini" and OPERATIONS[name.partition(":")[0]].dialect.startswith("gemini")
        auth = GEMINI_AUTH if gemini else self._row.auth
        return self._render("POST", endpoint, secret, {"content-type": "application/json"}, auth)

    def _render(self, method: str, endpoint: Endpoint, secret: str, more: Mapping[str, str], auth: str = "") -> Target:
        own = {"user-agent": f"aigw/{__version__}", "accept": "*/*", "accept-encoding": "identity"}
        headers = {**_credentials(auth or self._row.auth, secret, self._row.auth_word), **own, **more, **self._headers}
        return Target(method, endpoint.origin, endpoint.path, headers)

    def _extra(self, dialect: str, said: tuple[str | None, ...]) -> bytes:
        """The header lines of one caller's words, fit for the wire; remembered, unless they are of one request only."""
        words = _ANTHROPIC_WORDS if dialect == "anthropic_messages" else _OPENAI_WORDS
        lines = []
        for word, value in zip(words, said, strict=True):
            if value is not None and (len(value) > _LONGEST_WORD or not _VALUE.fullmatch(value)):
                raise CallerError(
                    "caller_invalid_request",
                    f"The header {word!r} must be printable ASCII of at most {_LONGEST_WORD} characters.",
                )
            own = self._words.get(word) or (ANTHROPIC_VERSION if word == "anthropic-version" else "")
            sent = value or own
            if value and own and word in _LISTS:
                sent = ",".join(dict.fromkeys(part.strip() for part in f"{own},{value}".split(",")))
            if sent:
                lines.append(f"{word}: {sent}\r\n")
        extra = "".join(lines).encode("ascii")
        if said[1] is None:  # no idempotency-key
            if len(self._extras) >= _EXTRAS:
                self._extras.clear()
            self._extras[said] = extra
        return extra

    @property
    def secrets(self) -> frozenset[str]:
        """All that this provider is told and nobody else may know."""
        return self._redactor.secrets

    def _redactor_with(self, key: ProviderKey | None) -> Redactor:
        """All keys are known from the start; should one come later, it must not slip through."""
        if key is None or self._redactor.knows(key.secret):
            return self._redactor
        return Redactor([*self._redactor.secrets, key.secret])


def build(
    name: str,
    table: schema.Provider,
    upstream: schema.Upstream,
    keys: Sequence[str],
    *,
    environ: Mapping[str, str] | None = None,
) -> CompatibleProvider:
    """The provider `[providers.NAME]`. *keys* are the secrets themselves. *environ* (never os.environ behind your back)
    gives settings their defaults, resolves `proxy = "env:..."`, and holds the usual proxy variables.

    Raises ConfigError for an unknown kind, a missing key or setting, a URL or a header that cannot be used.
    """
    environ = {} if environ is None else environ
    place = f"providers.{name}"
    row = _row(name, table, place)
    settings = _settings(row, table, place, environ)
    own_login = table.auth == "caller" or (table.auth is None and row.caller_only)
    made = _adapter(row, own_login=own_login)
    given = made.fitted(Given(place, row, settings, keys, environ, table.base_url, table.anthropic_base_url))
    row, settings, addresses = given.row, dict(given.settings), given.addresses
    urls = made.urls(given)
    if not urls:
        raise ConfigError(f"{row.name} speaks a protocol of its own, which this version does not serve yet", key=place)
    headers, words = _headers(row, table, settings, place)
    for index, secret in enumerate(keys):
        if fault := made.fault(secret):
            raise ConfigError(fault, key=f"{place}.keys[{index}]")
    ambient = "" if keys else made.ambient(given)
    if not own_login:
        _check_keys(row, table, [*keys, *filter(None, [ambient])], headers, place)
    elif keys:
        raise ConfigError("every caller brings its own login for this provider; leave `keys` out", key=f"{place}.keys")
    hidden = [part for secret in (*keys, ambient) if secret for part in (secret, *made.parts(secret))]
    endpoint = _way(table, upstream, _query(row, settings), environ, place)
    endpoints = {operation: endpoint(url) for operation, url in urls.items()}
    realtime_url, realtime_model = ("", "") if own_login else addresses.realtime()
    open_to_raw = table.raw and row.protocol != "demo" and (made is CompatibleProvider or row.id == "azure")
    raw_url = addresses.root() if open_to_raw else ""
    models_url = addresses.models() if table.list_models and not own_login else ""
    key_check_url = "" if own_login else addresses.key_check()
    residency = table.residency or _residency(row, next(iter(endpoints.values())).origin.host)
    return made(
        name=name,
        row=row,
        account=table.account or name,
        residency=residency,
        stream_usage=row.stream_usage if table.stream_usage is None else table.stream_usage,
        endpoints=endpoints,
        models=endpoint(models_url) if models_url else None,
        key_check=endpoint(key_check_url) if key_check_url else None,
        headers=headers,
        words=words,
        patience=_patience(table, upstream),
        redactor=Redactor([*hidden, *_other_secrets(headers, endpoints.values())]),
        realtime=endpoint(realtime_url) if realtime_url else None,
        realtime_model=realtime_model,
        raw=endpoint(raw_url) if raw_url else None,
        own=Own(settings, ambient, _way(table, upstream, "", environ, place)),
    )


def _adapter(row: Row, *, own_login: bool = False) -> type[CompatibleProvider]:
    known = "callers_own:CallersOwn" if own_login else ADAPTERS.get(row.id)
    if known is None:
        return CompatibleProvider
    module, _, name = known.partition(":")
    found: type[CompatibleProvider] = getattr(import_module(f"aigw.providers.{module}"), name)
    return found


def _serving(operation: Operation, endpoints: Mapping[str, Endpoint], row: Row) -> Operation | None:
    """Itself where there is such an endpoint, else the best of its family: the provider's own shape first, which says most."""
    if operation.name in endpoints:
        return operation
    if operation.name not in TRANSLATORS or row.caller_only:
        return None  # (of those callers nothing is changed)
    own = _OWN_SHAPE.get(row.protocol, ())
    for name in (*own, *TRANSLATORS):
        if name in endpoints and name in TRANSLATORS and OPERATIONS[name].family == operation.family:
            return OPERATIONS[name]
    return None


def _other_secrets(headers: Mapping[str, str], endpoints: Iterable[Endpoint]) -> Iterator[str]:
    """What a provider, or the proxy on the way to it, gets besides its keys and must not tell."""
    for name, value in headers.items():
        if secrets.TELLTALE.search(name):
            yield value
            yield value.rpartition(" ")[2]  # without "Bearer"
    for endpoint in endpoints:
        yield from secrets.in_url(endpoint.origin.proxy)
        yield from secrets.in_url(endpoint.path)


def _row(name: str, table: schema.Provider, place: str) -> Row:
    known = catalog.ids()
    kind = table.kind
    if kind is None:
        if name not in known and not table.base_url:
            raise ConfigError(f"no provider of this name is known; {catalog.nearest(name)}", key=place)
        kind = name if name in known else "openai-compatible"
    if kind not in known:
        raise ConfigError(f"unknown kind {kind[:64]!a}; {catalog.nearest(kind)}", key=f"{place}.kind")
    row = catalog.row(kind)
    if row.category == "generic" and row.served and not table.base_url and not table.anthropic_base_url:
        raise ConfigError('such a server needs a base_url, as in "http://127.0.0.1:8000/v1"', key=f"{place}.base_url")
    return row


def _settings(row: Row, table: schema.Provider, place: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Every setting of the row that has a value: the operator's, else the environment's, else the row's own."""
    names = [setting.name for setting in row.settings]
    for name in table.settings:
        if name not in names:
            accepted = f"it takes {', '.join(names)}" if names else "it takes none"
            raise ConfigError(f"{row.name} has no such setting; {accepted}", key=f"{place}.settings.{name}")
    found = {}
    for setting in row.settings:
        value = table.settings.get(setting.name) or environ.get(setting.env) or setting.default
        if not _VALUE.fullmatch(value) or (setting.query and not re.fullmatch(r"[\w.~-]*", value)):
            raise ConfigError("holds a character that cannot be sent", key=f"{place}.settings.{setting.name}")
        if value:
            found[setting.name] = value
    return found


def _headers(
    row: Row, table: schema.Provider, settings: Mapping[str, str], place: str
) -> tuple[dict[str, str], dict[str, str]]:
    """The headers that go with every request, and apart from them those that a caller may say as well."""
    every = dict(row.headers)
    for setting in row.settings:
        if setting.header and setting.name in settings:
            every[setting.header] = settings[setting.name]
    for name, value in table.headers.items():
        key = f"{place}.headers.{name}"
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise ConfigError("expected a name of letters, digits and dashes, and a value of printable ASCII", key=key)
        if name.lower() in _OURS:
            raise ConfigError("this header is the gateway's own", key=key)
        every[name.lower()] = value
    shared = {*_OPENAI_WORDS, *_ANTHROPIC_WORDS}
    words = {name: value for name, value in every.items() if name in shared}
    return {name: value for name, value in every.items() if name not in shared}, words


def _check_keys(row: Row, table: schema.Provider, keys: Sequence[str], headers: Mapping[str, str], place: str) -> None:
    # At an address of the operator's own nobody knows whether a key is wanted.
    has_credentials = keys or table.base_url or "authorization" in headers or row.auth in headers
    if row.needs_key and not has_credentials:
        hint = f': keys = ["env:{row.env[0]}"]' if row.env else ""
        raise ConfigError(f"{row.name} needs a key{hint}", key=f"{place}.keys")


def _query(row: Row, settings: Mapping[str, str]) -> str:
    pairs = [(setting.query, settings.get(setting.name)) for setting in row.settings if setting.query]
    return "&".join(f"{name}={value}" for name, value in pairs if value)


def _way(
    table: schema.Provider, upstream: schema.Upstream, query: str, environ: Mapping[str, str], place: str
) -> Callable[[str], Endpoint]:
    """A function from a URL to the endpoint that is reached by the operator's proxy and trust."""
    said, key = (upstream.proxy, "upstream.proxy") if table.proxy is None else (table.proxy, f"{place}.proxy")
    if said and said.startswith(("env:", "file:")):
        said = secrets.resolve(said, key=key, environment=environ)
    no_proxy = upstream.no_proxy if table.no_proxy is None else table.no_proxy
    ca_file = (upstream.ca_file if table.ca_file is None else table.ca_file) or ""

    def endpoint(url: str) -> Endpoint:
        parts = urlsplit(url)
        path = (parts.path or "/") + "?" * bool(parts.query or query) + "&".join(filter(None, (parts.query, query)))
        host = parts.hostname or ""
        if parts.scheme == "demo":
            return Endpoint(Origin("demo", host, 0), path)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        way = proxy.proxy_for(parts.scheme, host, port, proxy=said, no_proxy=no_proxy, environ=environ, key=key)
        return Endpoint(Origin(parts.scheme, host, port, way, ca_file if parts.scheme == "https" else ""), path)

    return endpoint


def _residency(row: Row, host: str) -> str:
    """The row's; of a server of one's own "local", when its address says so."""
    if row.category in {"local", "generic"} and row.protocol != "demo":
        return "local" if proxy.is_private(host) else ""
    return row.residency


def _patience(table: schema.Provider, upstream: schema.Upstream) -> Patience:
    """The provider's, else [upstream]'s, else ours."""
    names = ("connect_timeout", "first_byte_timeout", "stream_idle_timeout", "timeout")
    found = []
    for name in names:
        own, general = getattr(table, name), getattr(upstream, name)
        found.append(own if own is not None else general)
    said = {field: float(value) for field, value in zip(Patience._fields, found, strict=False) if value is not None}
    if "first_byte" in said:
        said["plain"] = said["first_byte"]
    return Patience(**said)


def _credentials(auth: str, secret: str, word: str = "") -> dict[str, str]:
    if not secret or auth == "none":
        return {}
    if auth == "bearer":
        return {"authorization": f"Bearer {secret}"}
    return {auth: f"{word} {secret}" if word else secret}


def _said(dialect: str, headers: Mapping[str, str]) -> tuple[str | None, ...]:
    """What the caller says in the words of the dialect, in their order. The length tells the dialects apart."""
    get = headers.get
    if dialect == "anthropic_messages":
        beta = get("anthropic-beta")
        if beta is not None:
            beta = _joined(headers, "anthropic-beta")
        return beta, get("idempotency-key"), get("anthropic-version")
    beta = get("openai-beta")
    if beta is not None:
        beta = _joined(headers, "openai-beta")
    return beta, get("idempotency-key")


def _joined(headers: Mapping[str, str], name: str) -> str:
    """A header that may come in several lines, as one."""
    lines: Any = getattr(headers, "getall", None)
    return headers[name] if lines is None else ",".join(lines(name))

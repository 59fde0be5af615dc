"""One request and all that became of it.

The nouns that travel through the walk: `Exchange` (the request and its state), `Attempt` (one try at one deployment),
`Usage` and `Cost` (what it took), `Record` (what is kept), `Sink` (where the answer goes), and the two halves of a call
to a provider (`UpstreamRequest`, and `Receiver` for what comes back).
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from math import inf
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote, urlsplit

import msgspec

if TYPE_CHECKING:
    from aigw.consumer import Caller
    from aigw.deployment import Route

Headers = list[tuple[bytes, bytes]]
"""Header pairs as they travel: names lower-case."""


class Usage(msgspec.Struct, kw_only=True, gc=False):
    """Tokens of one exchange, normalised: `input` is the whole prompt (cache reads and writes included), `output` the
    whole answer (reasoning included); the other counts are parts of those two. Integers, never negative.

    `estimated`: the provider reported none. `reported_cost` is the provider's own figure in nano-USD, when it gave one.
    """

    input: int = 0
    cached: int = 0  # part of input: read from the provider's cache
    cache_write_5m: int = 0  # part of input
    cache_write_1h: int = 0  # part of input
    output: int = 0
    reasoning: int = 0  # part of output
    audio_input: int = 0  # part of input
    audio_output: int = 0  # part of output
    image_input: int = 0  # part of input
    image_output: int = 0  # part of output
    estimated: bool = False
    service_tier: str = ""  # from the answer, never from the request
    reported_cost: int | None = None


class Cost(msgspec.Struct, frozen=True, gc=False):
    """What a usage costs. `nano` is in billionths of `currency`; `cache_saving` (same unit) is what cache reads saved
    against the full input price. `source` names the price's origin ("config", "genai-prices", "fallback"), `version` its
    edition."""

    nano: int
    currency: str = "USD"
    cache_saving: int = 0
    source: str = ""
    version: str = ""


class Attempt(msgspec.Struct, kw_only=True, gc=False):
    """One try at one deployment. Times are microseconds; `started` counts from the exchange's start."""

    provider: str
    model: str = ""
    key: str = ""  # the provider key's label ("openai#2"), never the key
    started: int = 0
    took: int = 0
    status: int | None = None  # what the provider answered; None: nothing
    error: str = ""  # our code, when it failed
    detail: str = ""  # the provider's reason, cleaned of secrets
    cost: int | None = None  # nano, of an abandoned attempt that was billed


class Record(msgspec.Struct, array_like=True, gc=False):
    """What is kept of an exchange: one row, whatever happened. New fields go at the end, with a default, so that a journal
    of an older version can be read.

    Times: `at` is seconds since the epoch (start of the exchange), durations are microseconds. Money is integer nano-units
    of `currency`; `cost` None means the price is unknown, which is not 0.
    """

    id: str  # our request id
    at: float
    took: int = 0  # start to last byte
    first_token: int | None = None  # start to the first content of a stream
    status: int = 0  # what the caller got
    outcome: str = "ok"  # ok, caller_error, policy_error, provider_error, gateway_error, client_closed
    error: str = ""  # our code
    operation: str = ""  # chat, messages, embeddings ...
    dialect: str = ""  # the caller's
    stream: bool = False
    consumer: str = ""  # name
    consumer_id: str = ""
    key_id: str = ""
    group: str = ""
    tags: str = ""  # JSON object
    requested_model: str = ""
    route: str = ""
    provider: str = ""
    model: str = ""  # asked of the provider
    answer_model: str = ""  # named in its answer
    residency: str = ""
    input: int = 0  # from here to reported_cost: the usage, in the order of its own fields
    cached: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    output: int = 0
    reasoning: int = 0
    audio_input: int = 0
    audio_output: int = 0
    image_input: int = 0
    image_output: int = 0
    estimated: bool = False
    service_tier: str = ""
    reported_cost: int | None = None
    cost: int | None = None
    currency: str = "USD"
    cache_saving: int = 0
    abandoned_cost: int = 0
    price_source: str = ""
    price_version: str = ""
    finish_reason: str = ""
    end_user: str = ""
    client_ip: str = ""
    client_agent: str = ""
    upstream_id: str = ""  # the provider's request id
    config_hash: str = ""
    bytes_in: int = 0
    bytes_out: int = 0
    attempts: str = "[]"  # JSON list of Attempt
    loss: str = ""  # what the provider's dialect could not say of the request, with commas between
    canary: str = ""  # the canary that it was counted for
    arm: str = ""  # old, new, or shadow: a copy of another exchange, whose answer nobody got
    charged: int = 0  # nano-USD that its consumer's money budgets were charged


class Origin(msgspec.Struct, frozen=True, gc=False):
    """Where a connection goes, and all that makes two connections interchangeable. `proxy` is "" or an http:// URL."""

    scheme: str  # http, https, or demo
    host: str
    port: int
    proxy: str = ""
    ca_file: str = ""

    def proxy_authorization(self) -> str:
        """The header line that the proxy URL's user and password make, with its CRLF, or ""."""
        parts = urlsplit(self.proxy)
        if parts.username is None:
            return ""
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        return f"proxy-authorization: Basic {base64.b64encode(pair.encode()).decode()}\r\n"

    def __repr__(self) -> str:  # never the proxy's password
        proxy = f" by {urlsplit(self.proxy).hostname}" if self.proxy else ""
        return f"Origin({self.scheme}://{self.host}:{self.port}{proxy})"


class Target:
    """The fixed part of a request to one endpoint with one provider key: rendered once, used for each request."""

    __slots__ = ("method", "origin", "path", "wire")

    def __init__(self, method: str, origin: Origin, path: str, headers: Mapping[str, str]) -> None:
        """`headers` are the provider's own (credentials, versions); raises ValueError for a control character in one."""
        default = {"http": 80, "https": 443}.get(origin.scheme)
        host = f"[{origin.host}]" if ":" in origin.host else origin.host
        authority = host if origin.port == default else f"{host}:{origin.port}"
        by_proxy = bool(origin.proxy) and origin.scheme == "http"
        full = f"http://{authority}{path}" if by_proxy else path
        lines = [f"{method} {full} HTTP/1.1", f"host: {authority}", *(f"{name}: {value}" for name, value in headers.items())]
        for line in lines:
            if not line.isascii() or any(character < " " or character == "\x7f" for character in line):
                where = "the address" if line is lines[0] else repr(line.partition(":")[0])  # a query may hold the key
                raise ValueError(f"a control or non-ASCII character in {where}")
        self.method, self.origin, self.path = method, origin, path
        proxied = origin.proxy_authorization() if by_proxy else ""
        self.wire = ("\r\n".join(lines) + "\r\n" + proxied).encode("ascii")

    def __repr__(self) -> str:  # never the headers or the query: they hold the key
        path = self.path.partition("?")[0]
        return f"Target({self.method} {self.origin.scheme}://{self.origin.host}:{self.origin.port}{path})"


class Upload(Protocol):
    """A request's body that is passed on while it arrives, not kept. `content_type` is the caller's; `size` is how much has
    come so far."""

    content_type: str
    size: int
    begun: bool  # part of it was given away: it cannot be sent a second time

    @property
    def fields(self) -> Mapping[str, str]:
        """Of a form: the fields that the walk must know, as far as they have come."""

    @property
    def sent_length(self) -> int | None:
        """Bytes that go out in all; None when nobody knows yet."""

    async def open(self) -> None:
        """Take in the beginning: all of a small body, and of a form what names its model. Raises CallerError."""

    def held(self) -> bytes:
        """What has been taken in."""

    def rename(self, model: str) -> None:
        """Have the form name *model* instead of what it names."""

    def whole(self) -> bytes | None:
        """All of it, where it is small; it can be sent again then."""

    async def read(self) -> bytes:
        """The next block; b"" at the end. Raises CallerError when its sender fails."""


class UpstreamRequest:
    """One request to a provider. `extra` are this caller's headers (already fit for the wire). Timeouts are seconds:
    until connected, until the first byte of the answer's head, between two blocks of its body, and for the whole call;
    `patience` lasts until the caller sees a byte: an answer that begins and then only drips is given up as well.

    `once`: it must not go out twice, whatever happens. Of a kept connection that breaks nobody can tell whether the provider
    had closed it before our request, or because of it; so such a request gets a connection of its own.

    `source`: the body, where it is read while it goes out; `body` is empty then."""

    __slots__ = (
        "body",
        "connect_timeout",
        "extra",
        "first_byte_timeout",
        "idle_timeout",
        "once",
        "patience",
        "source",
        "target",
        "timeout",
    )

    def __init__(
        self,
        target: Target,
        body: bytes = b"",
        extra: bytes = b"",
        *,
        connect_timeout: float = 10.0,
        first_byte_timeout: float = 300.0,
        idle_timeout: float = 300.0,
        timeout: float = 3600.0,
        patience: float = inf,
        once: bool = False,
        source: Upload | None = None,
    ) -> None:
        self.target, self.body, self.extra, self.source = target, body, extra, source
        self.connect_timeout, self.first_byte_timeout = connect_timeout, first_byte_timeout
        self.idle_timeout, self.timeout, self.patience, self.once = idle_timeout, timeout, patience, once


class Flow(Protocol):
    """The hold a receiver has on the connection that feeds it. `stop` says that it has seen enough: nothing more is fed, the
    connection is closed and `send` returns as if the answer had ended here. `complete` says that the answer is whole although
    its connection may still have framing to send: `send` returns, and the connection looks after itself."""

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def stop(self) -> None: ...

    def complete(self) -> None: ...


class Receiver(Protocol):
    """Who takes a provider's answer as it arrives. All three are called synchronously, in this order, from the connection;
    none may raise. `started` says that what came has begun to reach whoever waits for it."""

    @property
    def started(self) -> bool: ...

    def head(self, status: int, headers: Headers, flow: Flow) -> None: ...

    def feed(self, block: bytes) -> None: ...


class Sink(Protocol):
    """Where an answer goes. The only thing between the walk and HTTP: an implementation owns the framing.

    Order: `begin`, any number of `write`, then `end` (a whole answer) or `abort` (cut: the client must see that it is not
    whole). `answer` is all of it in one write. `write` returns True when the client is slower than we are; `on_resume` asks
    for one call when it has caught up. After the client is gone every call does nothing.
    """

    @property
    def started(self) -> bool: ...

    @property
    def status(self) -> int: ...

    def begin(self, status: int, headers: Headers, length: int | None = None) -> None: ...

    def write(self, block: bytes) -> bool: ...

    def end(self) -> None: ...

    def abort(self) -> None: ...

    def answer(self, status: int, headers: Headers, body: bytes) -> None: ...

    def on_resume(self, callback: Callable[[], None]) -> None: ...


class Exchange(Record, kw_only=True, gc=True):
    """One request on its walk: the record in the making, and what only the walk needs. Filled from top to bottom; read by
    whoever comes later."""

    headers: Mapping[str, str]  # the caller's; names in any case
    address: str = ""  # the caller's, also where records do not keep it
    started: float = 0.0  # monotonic seconds (perf_counter)
    patience: float = 0.0  # seconds the caller will wait; 0: not said
    deadline: float = 0.0  # monotonic seconds: no byte of an answer comes later
    body: bytes = b""
    caller: Caller | None = None
    model_at: int = -1  # where the body's only `"model"` stands; -1: it is not as simple as that
    max_tokens: int | None = None
    wants_usage: bool = False  # the caller wrote stream_options itself
    chosen: Route | None = None
    chain: list[Attempt] = []
    failure: BaseException | None = None  # what ended it, when that was no good answer
    usage: Usage | None = None
    first_token_at: float = 0.0  # monotonic seconds
    sample: bytes = b""  # the answer's beginning: what usage is estimated from when the provider reports none
    canonical: Any = None  # the request in our own words, where it had to be translated
    run: Any = None  # the plugins that have a say in it (`plugins.run.Run`)
    edited: bool = False  # `canonical` is what was made of the body, which may not go out as it came
    streaming: bool = False  # an event stream has begun to reach the caller
    mirrored: bool = False  # a shadow of it is wanted
    object_id: str = ""  # what the path names: something that a provider keeps
    item: str = ""  # something inside that, which the path names as well
    upload: Upload | None = None  # the body, where it is passed on while it arrives
    raw: tuple[str, str, str] | None = None  # provider, method and path below its address: passed through as it is
    query: str = ""  # behind the path, for the provider; without the caller's key
    hold: Any = None  # what it holds of its consumer's limits and budgets (`access.quota.Hold`)
    wire: Headers | None = None  # headers of ours for its answer: what is left of those
    owner: Any = None  # who keeps it, or what the request goes on from (`routing.stateful.Owner`)

    def __repr__(self) -> str:  # never the headers or the body
        return f"Exchange({self.id!r}, {self.operation!r})"

    def record(self) -> Record:
        """What is kept of it."""
        kept = msgspec.structs.astuple(self)
        if self.usage is None:
            return Record(*kept[:_FIELDS])
        return Record(*kept[:_FIRST_COUNT], *msgspec.structs.astuple(self.usage), *kept[_AFTER_COUNTS:_FIELDS])


_FIELDS = len(Record.__struct_fields__)
_FIRST_COUNT = Record.__struct_fields__.index(Usage.__struct_fields__[0])
_AFTER_COUNTS = _FIRST_COUNT + len(Usage.__struct_fields__)

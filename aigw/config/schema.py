"""What an operator may write in config.toml: every table and key, its type, default and meaning.

Unknown keys and wrong types are refused by the decoder; `load.py` says so with file, line and key. Durations are numbers of
seconds. Secrets are references (`env:NAME`, `file:PATH`) or literals and are resolved by `secrets.py`, not here.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec


class Table(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, frozen=True):
    """A TOML table: a key that is not written below is an error."""


class Server(Table, frozen=True, kw_only=True):
    """The data port: where models' APIs are served. `host`, `port`, `workers`, `drain_timeout`,
    `integrity`, `self_check` and `release_check` need a restart."""

    host: str = "127.0.0.1"  # any other host needs auth.required = true
    port: int = 8080  # 0: any free one, said at start
    workers: int | Literal["auto"] = 1  # processes that serve; "auto": one for each processor
    max_body: int = 64 * 1024 * 1024  # bytes of a request body; larger is a 413 before it is read
    max_upload: int = 1024 * 1024 * 1024  # bytes of a file on its way to a provider, which are passed on and not kept
    timeout: float = 3600.0  # seconds an exchange may wait for its first byte, all attempts together
    drain_timeout: float = 30.0  # seconds that a stop (SIGTERM) waits for exchanges to finish
    stall_timeout: float = 60.0  # seconds a caller may leave its answer unread before it is cut off
    head_timeout: float = 10.0  # seconds a request's head may take from its first byte, and a new connection to send one
    body_timeout: float = 30.0  # seconds without a byte of a body; also what any body may take in all
    body_rate: int = 500  # bytes a second that a longer body must come with on average
    keep_alive: float = 75.0  # seconds an idle connection stays open (nginx's default, too)
    keep_alive_requests: int = 10_000  # requests of one connection, after which it is closed
    max_connections: int = 3000  # callers' connections at once
    max_connections_per_address: int = 1000  # the same from one address; 0: no limit. Never counted: this machine, `trusted`
    lossy: Literal["allow", "deny"] = "allow"  # deny: a request that its provider's dialect cannot express whole gets a 400
    realtime_idle: float = 900.0  # seconds a realtime session may pass without an event from either side
    realtime_message: int = 16 * 1024 * 1024  # bytes of the largest event (OpenAI's own limit for audio is 15 MiB)
    trusted: tuple[str, ...] = ()  # addresses and networks of proxies in front, behind each of which are many callers
    integrity: Literal["warn", "refuse", "off"] = "warn"  # files that are not what was released: say so, or do not start
    self_check: float = 60.0  # seconds between two looks at its own children, sockets and idle work; 0: none
    release_check: Literal["off", "daily"] = "off"  # ask once a day whether this version was withdrawn, or a newer one is there


class Jwt(Table, frozen=True, kw_only=True):
    """Who may call with a token of a login service."""

    issuer: str  # the claim `iss` of its tokens
    audience: str  # what their claim `aud` has to name
    jwks: str  # its public keys: a file, or an https:// address
    consumer_claim: str = "sub"  # the claim that is the consumer's name
    group_claim: str = ""  # the claim that is its group; none: consumers by token have no group
    groups: tuple[str, ...] = ()  # groups that may come so; none: all of [groups]
    leeway: float = 60.0  # seconds that its clock may differ from ours


class Auth(Table, frozen=True, kw_only=True):
    """Who may call."""

    required: bool = True  # false only on a loopback host: anybody on this machine may then spend your money
    failures_per_minute: int = 60  # requests with a wrong key from one address, then 429; 0: no limit. A good key always passes
    jwt: Jwt | None = None  # tokens of your own login service, besides keys


class Admin(Table, frozen=True, kw_only=True):
    """The operator's plane: metrics (later the console and the admin API)."""

    host: str = "127.0.0.1"
    port: int | None = None  # default 8081, or the next free one; when written and taken: an error


class Timeouts(Table, frozen=True, kw_only=True):
    """Seconds. Unset: the wider table's, in the order route, provider, [upstream]."""

    connect_timeout: float | None = None
    first_byte_timeout: float | None = None
    stream_idle_timeout: float | None = None
    timeout: float | None = None


class Upstream(Timeouts, frozen=True, kw_only=True):
    """The way out to every provider."""

    proxy: str | None = None  # http://[user:password@]host:port, or env:HTTPS_PROXY. Unset: HTTPS_PROXY, HTTP_PROXY
    no_proxy: str | None = None  # hosts, .suffixes and networks reached directly. Unset: NO_PROXY
    ca_file: str | None = None  # PEM file trusted besides the system's authorities
    max_connections: int = 1000  # to one origin; more requests wait their turn


class ProviderKey(Table, frozen=True, kw_only=True):
    """A key of a provider's pool with more to say than where it is kept."""

    key: str  # env:NAME, file:PATH or literal
    label: str | None = None  # what records, commands and metrics call it; unset: as its place ("openai#2")
    weight: int = 1  # its share of the traffic
    rpm: int | None = None  # requests it may be used for in any minute; unset: as many as the provider lets through
    tpm: int | None = None  # tokens in any minute, prompts by estimate until they are counted
    models: tuple[str, ...] = ()  # names or globs that it may be used for; empty: all
    account: str | None = None  # keys of one account share its limits; unset: the provider table's


class Provider(Timeouts, frozen=True, kw_only=True):
    """Someone who serves models. The table's name is a row of the catalog unless `kind` says otherwise."""

    kind: str | None = None  # catalog row, "openai-compatible" for any server that speaks OpenAI
    base_url: str | None = None  # replaces the row's, in the same form (with /v1 where the row has it)
    anthropic_base_url: str | None = None  # where /v1/messages is served, without /v1
    keys: tuple[str | ProviderKey, ...] = ()  # a pool: env:NAME, file:PATH or literal, or a table
    account: str | None = None  # keys of one provider account share its limits
    residency: str | None = None  # cn, eu, us, local ...
    models: tuple[str, ...] = ()  # models this provider claims besides those it lists itself
    list_models: bool = True  # ask it which models it has
    headers: dict[str, str] = {}  # sent with each request
    settings: dict[str, str] = {}  # the row's extra settings by name: region, project, api_version ...
    proxy: str | None = None  # as in [upstream]; "" goes directly
    no_proxy: str | None = None
    ca_file: str | None = None
    auth: Literal["key", "caller"] | None = None  # caller: each one brings its own login; unset: as the row says, mostly key
    raw: bool = True  # whether callers may ask it for paths of its own, by /NAME/...
    stream_usage: bool | None = None  # ask for usage in streams (stream_options.include_usage); unset: as the row says

    @property
    def references(self) -> tuple[str, ...]:
        """Where each key is kept (or the key itself), in the order of `keys`."""
        return tuple(one if isinstance(one, str) else one.key for one in self.keys)

    def labels(self, name: str) -> tuple[str, ...]:
        """What each key is called; *name* is that of the table."""
        written = ("" if isinstance(one, str) else one.label or "" for one in self.keys)
        return tuple(label or f"{name}#{number}" for number, label in enumerate(written, 1))


class When(Table, frozen=True, kw_only=True):
    """What a request must be for a target to get it: all that is written here, at once."""

    consumer: str | None = None  # names or globs, separated by commas
    group: str | None = None  # the same, of the consumer's group
    tags: dict[str, str] = {}  # tags of the consumer; values may be globs
    tools: bool | None = None  # true: only with tools; false: only without
    images: bool | None = None
    audio: bool | None = None
    prompt_tokens: str | None = None  # ">8000", "<=8000" or "1000-8000", by estimate
    header: dict[str, str] = {}  # headers of the request; values may be globs
    time: str | None = None  # "22:00-06:00": from and until, every day
    tz: str | None = None  # such as "Asia/Shanghai". Unset: this machine's


class RouteTarget(Timeouts, frozen=True, kw_only=True):
    """One place of a route."""

    provider: str
    model: str | None = None  # unset: the requested name
    weight: int = 1
    when: When | None = None  # unset: every request
    purpose: Literal["context", "content-filter"] | None = msgspec.field(default=None, name="for")
    params: dict[str, Any] = {}  # top-level keys of the request's body, set for this place: max_tokens, temperature ...


class Hedge(Table, frozen=True, kw_only=True):
    """A second place is asked when the first one takes unusually long to begin; whoever begins first is heard."""

    after: str = "p95"  # of the place's own latest first bytes; or seconds: "2.5"
    extra: float = 0.05  # share of requests that may be asked twice


class SlowStart(Table, frozen=True, kw_only=True):
    """A stream that is slower than this in its first seconds counts as failed. Until then it is held back."""

    tokens_per_second: float = 3.0
    seconds: float = 3.0  # from its first byte


class Route(Timeouts, frozen=True, kw_only=True):
    """A name callers ask for: exact, a glob ("gpt-*") or "re:^...". The most specific one wins."""

    targets: tuple[RouteTarget, ...]
    fallback: tuple[RouteTarget, ...] = ()
    strategy: Literal["weighted", "least-busy", "lowest-latency", "cheapest", "prefix-affinity", "priority"] = "weighted"
    retries: int | None = None  # further attempts after the first; unset: [retry] attempts - 1
    response_model: Literal["upstream", "requested"] = "upstream"
    global_fallback: bool = True  # whether [fallback] stands behind its own fallbacks
    hedge: Hedge | None = None  # unset: never
    slow_start: SlowStart | None = None  # unset: no stream is held back


class Fallback(Table, frozen=True, kw_only=True):
    """Places behind every route's own fallbacks, and behind names that need no route."""

    targets: tuple[RouteTarget, ...] = ()


class Retry(Table, frozen=True, kw_only=True):
    """How often, how long and how much more is tried."""

    attempts: int = 6  # of one exchange, the first included; a route's `retries` wins
    time: float | None = None  # seconds after which no further attempt begins; unset: server.timeout
    pause: float = 0.25  # seconds before the only place is tried again, on average; doubled with each time
    longest_pause: float = 8.0
    budget: float = 0.15  # further attempts at places that fail, as a share of requests over ten seconds
    budget_floor: int = 100  # further attempts in ten seconds that are always allowed


class Circuit(Table, frozen=True, kw_only=True):
    """When a place is passed over for a while."""

    errors: float = 0.5  # share of the last answers that failed
    samples: int = 5  # answers that must be known
    window: float = 10.0  # seconds that are looked back
    slow: float | None = None  # seconds to the first byte beyond which an answer counts as failed here; unset: never
    pause: float = 1.0  # seconds until the first look whether it is back
    longest_pause: float = 4.0  # seconds between two looks, at most


class OnBudget(Table, frozen=True, kw_only=True):
    """Where requests go when a budget is nearly used."""

    at: float = 0.8  # share of a budget, 0 to 1
    use: str  # the route


class Limits(Table, frozen=True, kw_only=True):
    """How much somebody may use. 0 or unset: no limit."""

    rpm: int | None = None  # requests a minute
    tpm: int | None = None  # tokens a minute
    concurrency: int | None = None  # requests at once
    max_output: int | None = None  # tokens of one answer
    budgets: tuple[str, ...] = ()  # "5 usd/day", "1M tokens/month"; hour, day, week, month, total
    tz: str = ""  # time zone of their calendar; UTC where nobody says
    hard: bool | None = None  # hold the worst case, and end a stream at the cap
    unpriced: Literal["", "refuse", "allow"] = (
        ""  # a model without a price, under a budget in money; "refuse" where nobody says
    )
    on_budget: OnBudget | None = None  # a cheaper route for who has nearly used a budget
    priority: Literal["", "interactive", "batch"] = ""  # batch gives way first


class Defaults(Limits, frozen=True, kw_only=True):
    """What holds for every consumer that says nothing itself."""

    queue: float = 0.0  # seconds that a request waits for a place where `concurrency` is full; 0: it is refused at once


class Group(Limits, frozen=True, kw_only=True):
    """What all consumers of a group may do, and how much of it together."""

    models: tuple[str, ...] = ()  # allowed names: exact, globs, "@NAME" of [model_groups]; none: all
    deny: tuple[str, ...] = ()  # forbidden names, also of allowed ones
    providers: tuple[str, ...] = ()  # names of [providers]; none: all
    residency: tuple[str, ...] = ()  # where a provider may be: "eu", "local" ...; none: anywhere
    endpoints: tuple[str, ...] = ()  # "chat", "messages", "embeddings" ...; none: all
    max_price: float | None = None  # US dollars for a million output tokens, at most
    allow_ip: tuple[str, ...] = ()  # addresses and networks that may call; none: all


class Consumer(Group, frozen=True, kw_only=True):
    """A consumer written in the config (containers, GitOps), beside those in the store."""

    key: str  # env:NAME, file:PATH, "sha256:HEX" or literal
    group: str = ""
    tags: dict[str, str] = {}
    lead: bool = False  # may make consumers of its own group


class Price(Table, frozen=True, kw_only=True):
    """Per million tokens, for "provider/model" (a glob is allowed); beats the price data. Unset: as input, or output."""

    input: float
    output: float = 0.0
    cache_read: float | None = None
    cache_write_5m: float | None = None
    cache_write_1h: float | None = None
    reasoning: float | None = None
    audio_input: float | None = None
    audio_output: float | None = None
    image_input: float | None = None
    image_output: float | None = None
    request: float | None = None  # per request, in whole currency units
    currency: Literal["USD", "CNY", "EUR"] = "USD"


class Currencies(Table, frozen=True, kw_only=True):
    """US dollars for one of each: what costs count for in budgets. Fixed until somebody changes them."""

    CNY: float = 0.14
    EUR: float = 1.1


class Storage(Table, frozen=True, kw_only=True):
    """Where consumers, keys and records live. A change needs a restart."""

    url: str = "sqlite:"  # the file aigw.db in the data directory; or sqlite:/path/to/file.db
    counters: str = "memory"  # where rate windows and holds live; or redis://..., which all nodes share
    counters_lost: Literal["local", "open", "refuse"] = "local"  # while Redis is away: own shares, no limits, or answer 503
    config: Literal["file", "store"] = "file"  # "store": all but this node's own tables comes from there (aigw config apply)
    records: float = 30 * 86400.0  # seconds each record is kept
    rollups: float = 3 * 366 * 86400.0  # seconds the hourly sums are kept
    journal: int = 4 * 1024**3  # bytes of records that may wait on this machine's disk while the database is away
    journal_full: Literal["serve", "refuse"] = "serve"  # then: go on without records, or answer 503 until there is room
    client_ip: bool = True  # keep the caller's address in records
    client_agent: bool = True  # keep the caller's user agent in records


class Alert(Table, frozen=True, kw_only=True):
    """Who is told when something happens: a program, a chat group, a mailbox."""

    kind: Literal["webhook", "slack", "feishu", "dingtalk", "wecom", "email"] = "webhook"
    url: str  # env:NAME, file:PATH or literal: of chat robots it is a secret. For email "smtp://user@host:587" or "smtps://..."
    secret: str = ""  # env:NAME ...: what messages are signed with (webhook, feishu, dingtalk), or the mailbox's password
    to: tuple[str, ...] = ()  # addresses (email)
    sender: str = ""  # address (email); aigw@ the server where nothing is said
    events: tuple[Literal["budget", "keys", "canary", "errors", "storage", "integrity"], ...] = ()  # none: all of them
    error_rate: float = 0.25  # share of a provider's requests that fail within five minutes, from which "errors" is told


class Log(Table, frozen=True, kw_only=True):
    """What the log says. It never holds a key, a prompt or an answer."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    exchanges: Literal["none", "errors", "all"] = "errors"  # one line per exchange
    format: Literal["text", "json"] = "text"


class Config(Table, frozen=True, kw_only=True):
    """The whole file."""

    server: Server = Server()
    auth: Auth = Auth()
    admin: Admin = Admin()
    upstream: Upstream = Upstream()
    providers: dict[str, Provider] = {}
    routes: dict[str, Route] = {}
    fallback: Fallback = Fallback()
    retry: Retry = Retry()
    circuit: Circuit = Circuit()
    limits: Defaults = Defaults()
    groups: dict[str, Group] = {}
    consumers: dict[str, Consumer] = {}
    model_groups: dict[str, tuple[str, ...]] = {}
    prices: dict[str, Price] = {}
    currencies: Currencies = Currencies()
    storage: Storage = Storage()
    log: Log = Log()
    alerts: dict[str, Alert] = {}
    plugins: dict[str, Any] = {}  # a table for each; `watch` besides

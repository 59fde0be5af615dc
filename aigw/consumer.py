"""Who is calling, and what they may do."""

from __future__ import annotations

import msgspec

KEY_PREFIX = "sk-aigw-"
"""What every key of ours begins with: leak scanners find it, and nobody sends one on."""


NANO = 10**9
"""Money is counted in billionths of a US dollar, as an integer of 64 bits."""

WINDOWS = ("hour", "day", "week", "month", "total")
"""What a budget may last; all but the last begin anew with the calendar of the budget's time zone (a week on Monday)."""


ENDPOINTS = (
    "chat",
    "completions",
    "messages",
    "responses",
    "generate",
    "count",
    "embeddings",
    "rerank",
    "moderations",
    "images",
    "audio",
    "videos",
    "files",
    "batches",
    "fine_tuning",
    "vector_stores",
    "realtime",
    "raw",
)
"""What a consumer may be allowed to ask for: families of paths (`generate` is Gemini's, `raw` what is passed through)."""


class Budget(msgspec.Struct, frozen=True, gc=False):
    """So much in each window: nano-USD (`unit` "usd") or tokens (`unit` "tokens", input and output together)."""

    amount: int
    unit: str = "usd"
    window: str = "month"


class OnBudget(msgspec.Struct, frozen=True, gc=False):
    """Where requests go once the share `at` (0 to 1) of a budget is used: the route `use`."""

    at: float
    use: str


class Terms(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What a consumer, or everyone of a group, may do, and how much of it. None and () say nothing: then the group's terms
    hold, then the operator's `[limits]`. Lists are names or globs (`gpt-*`), `@NAME` is a model group of the config.

    A group's permissions and its consumers' both hold; so do their limits and budgets, the group's for all of them together.
    0 is no limit.
    """

    models: tuple[str, ...] = ()  # allowed names, as callers ask for them; none: all
    deny: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()
    residency: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()  # of ENDPOINTS
    max_price: float | None = None  # US dollars for a million output tokens, at most
    allow_ip: tuple[str, ...] = ()  # addresses and networks
    rpm: int | None = None  # requests a minute
    tpm: int | None = None  # tokens a minute
    concurrency: int | None = None  # requests at once
    max_output: int | None = None  # tokens of one answer
    budgets: tuple[Budget, ...] = ()
    tz: str = ""  # time zone of the budgets' calendar; UTC where nobody says
    hard: bool | None = None  # hold the worst case, and end a stream at the cap
    unpriced: str = ""  # "refuse" or "allow": a model without a price, under a money budget
    on_budget: OnBudget | None = None
    priority: str = ""  # "interactive" or "batch": what gives way first


class Consumer(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Who calls us: a person, a team, a service. Has one or more consumer keys."""

    id: str
    name: str
    group: str = ""
    tags: str = ""  # JSON object, as the operator wrote it; copied into each record
    terms: Terms = Terms()
    metadata: str = ""  # JSON object that is only kept
    lead: bool = False  # may make consumers of its own group, within the group's limits
    parent: str = ""  # id of the lead that made it
    disabled: bool = False


class ConsumerKey(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One credential of a consumer, as stored: never the key itself.

    `digest` is SHA-256 of the whole key (`scheme` "sha256"; other schemes are for keys imported from elsewhere). Times
    are seconds since the epoch. `hint` is what lists show: the key's public part.
    """

    id: str
    consumer_id: str
    digest: bytes
    scheme: str = "sha256"
    hint: str = ""
    created: float = 0.0
    expires: float | None = None
    revoked: float | None = None


class Caller(msgspec.Struct, frozen=True, gc=False):
    """A consumer as one request shows it: through which key."""

    consumer: Consumer
    key: ConsumerKey

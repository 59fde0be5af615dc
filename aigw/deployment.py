"""One place a model can be had (deployment), and a name with its places (route)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import msgspec


class Condition(Protocol):
    """Something a request must be; `text` says it in words ("prompt_tokens >8000")."""

    text: str
    check: Callable[[Any], bool]

    def holds(self, facts: Any) -> bool: ...


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """A provider and the model to ask it for. `model` None keeps the requested name. `weight` is its share of a route.

    `when` must hold, all of it, for a request to go there; `purpose` "context" or "content-filter": only what another place
    refused for that reason. `params` are top-level keys of the body that are set for this place. Timeouts are seconds; None
    takes the route's. `id` ("openai/gpt-5") names it where its health is kept.
    """

    provider: str  # the name under [providers] in the config
    model: str | None = None
    weight: int = 1
    when: tuple[Condition, ...] = ()
    purpose: str = ""
    params: tuple[tuple[str, Any], ...] = ()
    connect_timeout: float | None = None
    first_byte_timeout: float | None = None
    stream_idle_timeout: float | None = None
    timeout: float | None = None
    timed: bool = False  # derived: has timeouts of its own
    id: str = ""  # derived

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "id", f"{self.provider}/{self.model}" if self.model else self.provider)
        if (self.connect_timeout, self.first_byte_timeout, self.stream_idle_timeout, self.timeout) != (None,) * 4:
            msgspec.structs.force_setattr(self, "timed", True)


class Hedge(msgspec.Struct, frozen=True, kw_only=True):
    """When a second place is asked: after `after` seconds, or (None) after the learned 95th percentile; for at most `extra` of
    the requests."""

    after: float | None = None
    extra: float = 0.05


class SlowStart(msgspec.Struct, frozen=True, kw_only=True):
    """What a stream's first `seconds` must bring."""

    tokens_per_second: float
    seconds: float


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """A name that callers ask for, with the deployments that serve it.

    `strategy` puts the `targets` in order; `fallback` is tried in its own order when they fail. Timeouts are seconds; None
    takes the provider's, then `[upstream]`'s. `retries` is how many further attempts one exchange may make. `source` says how
    the name was found: "route", "provider/model", "pattern", "live", "catalog".
    """

    name: str
    targets: tuple[Deployment, ...]
    fallback: tuple[Deployment, ...] = ()
    strategy: str = "weighted"
    source: str = "route"
    retries: int | None = None
    response_model: str = "upstream"  # or "requested": what the answer's `model` says
    connect_timeout: float | None = None
    first_byte_timeout: float | None = None
    stream_idle_timeout: float | None = None
    timeout: float | None = None
    hedge: Hedge | None = None
    slow_start: SlowStart | None = None
    timed: bool = False  # derived: has timeouts of its own
    plain: bool = False  # derived: one place, for every request, so there is nothing to choose
    purposes: frozenset[str] = frozenset()  # derived: what its marked places are for
    places: tuple[Deployment, ...] = ()  # derived: targets, then fallbacks

    def __post_init__(self) -> None:
        set_ = msgspec.structs.force_setattr
        if (self.connect_timeout, self.first_byte_timeout, self.stream_idle_timeout, self.timeout) != (None,) * 4:
            set_(self, "timed", True)
        places = (*self.targets, *self.fallback)
        set_(self, "places", places)
        set_(self, "plain", len(places) == 1 and not places[0].when and not places[0].purpose)
        set_(self, "purposes", frozenset(place.purpose for place in places if place.purpose))


class ProviderKey(msgspec.Struct, frozen=True, gc=False):
    """One of our credentials at a provider. `label` names it in records, logs and commands ("openai#2"); keys with the same
    `account` share the provider's limits. `weight` is its share of the pool's traffic; `rpm` and `tpm` are the operator's own
    limits (0: none), `models` the names or globs it may be used for (none: all). Its repr never shows the secret."""

    label: str
    secret: str
    account: str = ""
    weight: int = 1
    rpm: int = 0
    tpm: int = 0
    models: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"ProviderKey({self.label!r})"


class Allowance(NamedTuple):
    """What a provider says that a key may still do: requests and tokens left, of how many, and seconds until they are all back.
    None: it did not say."""

    requests: float | None = None
    requests_limit: float | None = None
    requests_reset: float | None = None
    tokens: float | None = None
    tokens_limit: float | None = None
    tokens_reset: float | None = None

"""One place a model can be had (deployment), and a name with its places (route)."""

from __future__ import annotations

import msgspec


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """A provider and the model to ask it for. `model` None keeps the requested name. `weight` is its share of a route."""

    provider: str  # the name under [providers] in the config
    model: str | None = None
    weight: int = 1

    @property
    def id(self) -> str:
        return f"{self.provider}/{self.model}" if self.model else self.provider


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """A name that callers ask for, with the deployments that serve it.

    `targets` share the traffic by weight; `fallback` is tried in order when they fail. Timeouts are seconds; None takes
    the provider's, then `[upstream]`'s. `retries` is how many further attempts one exchange may make. `source` says how
    the name was found: "route", "provider/model", "pattern", "live", "catalog".
    """

    name: str
    targets: tuple[Deployment, ...]
    fallback: tuple[Deployment, ...] = ()
    source: str = "route"
    retries: int | None = None
    response_model: str = "upstream"  # or "requested": what the answer's `model` says
    connect_timeout: float | None = None
    first_byte_timeout: float | None = None
    stream_idle_timeout: float | None = None
    timeout: float | None = None
    timed: bool = False  # derived: has timeouts of its own

    def __post_init__(self) -> None:
        if (self.connect_timeout, self.first_byte_timeout, self.stream_idle_timeout, self.timeout) != (None,) * 4:
            msgspec.structs.force_setattr(self, "timed", True)


class ProviderKey(msgspec.Struct, frozen=True, gc=False):
    """One of our credentials at a provider. `label` names it in records, logs and commands ("openai#2"); keys with the same
    `account` share the provider's limits. Its repr never shows the secret."""

    label: str
    secret: str
    account: str = ""

    def __repr__(self) -> str:
        return f"ProviderKey({self.label!r})"

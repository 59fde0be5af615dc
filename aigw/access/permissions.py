"""What may this consumer ask for: models, endpoints, providers, where they are, what they cost, from which address.

A consumer's own terms and its group's both hold. What they say is put together once for each consumer (`Rule`) and kept until
the consumer changes; who is bound by nothing pays one look-up.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from msgspec.structs import replace

from aigw.config import patterns
from aigw.consumer import ENDPOINTS, Consumer, Terms
from aigw.deployment import Deployment, Route
from aigw.errors import PolicyError
from aigw.exchange import Exchange
from aigw.protocols.operations import Operation

MOST_RULES = 100_000
"""Consumers whose rules are kept ready."""

_BEGINNINGS = (
    ("count_", "count"),
    ("response_input_tokens", "count"),
    ("response", "responses"),
    ("generate", "generate"),
    ("embed", "embeddings"),
    ("image", "images"),
    ("file", "files"),
    ("upload", "files"),
    ("batch", "batches"),
    ("job", "fine_tuning"),
    ("vector_store", "vector_stores"),
    ("video", "videos"),
)
_NAMES = {"speech": "audio", "transcriptions": "audio", "translations": "audio"}

Priced = Callable[[str, str], float | None]
"""US dollars for a million output tokens of a model at a provider; None where nobody knows."""


@lru_cache(512)
def endpoint(operation: str) -> str:
    """Which of `consumer.ENDPOINTS` an operation belongs to."""
    if operation in ENDPOINTS:
        return operation
    if operation in _NAMES:
        return _NAMES[operation]
    return next((name for beginning, name in _BEGINNINGS if operation.startswith(beginning)), operation)


class Names:
    """Names of models that are allowed, or forbidden: exact, globs, groups."""

    def __init__(self, names: Sequence[str], groups: Mapping[str, Sequence[str]]) -> None:
        self.shown = tuple(names)
        every = [one for name in names for one in (groups.get(name[1:], ()) if name.startswith("@") else (name,))]
        self._exact = frozenset(name for name in every if not patterns.is_pattern(name))
        self._globs = [patterns.compiled(name) for name in every if patterns.is_pattern(name)]

    def have(self, model: str) -> bool:
        return model in self._exact or any(glob.search(model) for glob in self._globs)


class Rule:
    """What binds one consumer."""

    def __init__(
        self, consumer: Consumer, every: Sequence[Terms], groups: Mapping[str, Sequence[str]], most_output: int = 0
    ) -> None:
        self.consumer = consumer
        self._allowed = [Names(terms.models, groups) for terms in every if terms.models]
        self._denied = [Names(terms.deny, groups) for terms in every if terms.deny]
        self._providers = [frozenset(terms.providers) for terms in every if terms.providers]
        self._residency = [frozenset(terms.residency) for terms in every if terms.residency]
        self._endpoints = [frozenset(terms.endpoints) for terms in every if terms.endpoints]
        self._networks = [tuple(map(ipaddress.ip_network, terms.allow_ip)) for terms in every if terms.allow_ip]
        self._max_price = min([terms.max_price for terms in every if terms.max_price is not None], default=None)
        self.narrows = bool(self._providers or self._residency or self._max_price is not None)
        self.names = bool(self._allowed or self._denied)
        limits = [terms.max_output for terms in every]
        if limits[0] is None:
            limits[0] = most_output
        self.max_output = min([one for one in limits if one], default=0)
        self.binds = bool(self.narrows or self.names or self._endpoints or self._networks or self.max_output)

    def enter(self, exchange: Exchange) -> None:
        """Whether it may call so, from there. Raises PolicyError."""
        self.at(exchange.address)
        self.asks(exchange.operation)

    def asks(self, operation: str) -> None:
        """Whether it may ask for that at all. Raises PolicyError."""
        name = endpoint(operation)
        for allowed in self._endpoints:
            if name not in allowed:
                raise PolicyError(
                    "policy_forbidden", f"this API key may not be used for {name!r}; it may for {', '.join(sorted(allowed))}"
                )

    def at(self, address: str) -> None:
        """Whether it may call from *address*. Raises PolicyError."""
        if self._networks and not all(_within(address, networks) for networks in self._networks):
            raise PolicyError(
                "policy_forbidden",
                f"this API key may not be used from {address or 'here'}; the gateway's operator allows addresses with: "
                "aigw keys set NAME --allow-ip",
            )

    def allows(self, model: str) -> bool:
        """Whether *model* may be asked for by this name."""
        return all(names.have(model) for names in self._allowed) and not any(names.have(model) for names in self._denied)

    def route(
        self, exchange: Exchange, route: Route, operation: Operation, residency: Callable[[str], str], priced: Priced
    ) -> Route:
        """*route* without the places that are forbidden. Raises PolicyError when none is left, or the name is forbidden."""
        model = exchange.requested_model
        if self.names and not operation.placed and not exchange.object_id:
            if not model:
                raise PolicyError("policy_forbidden", "this API key is for certain models, and this request names none")
            if not self.allows(model):
                shown = [", ".join(names.shown[:20]) for names in self._allowed]
                may = f"; it may ask for {' and '.join(shown)}" if shown else ""
                raise PolicyError("policy_forbidden", f"this API key may not ask for the model {model[:100]!r}{may}")
        if not self.narrows:
            return route
        reasons: list[str] = []

        def left(places: tuple[Deployment, ...]) -> tuple[Deployment, ...]:
            return tuple(place for place in places if self._permits(place, model, residency, priced, reasons))

        targets, fallback = left(route.targets), left(route.fallback)
        if len(targets) == len(route.targets) and len(fallback) == len(route.fallback):
            return route
        if not targets and not fallback:
            raise PolicyError("policy_forbidden", f"this API key may not use what serves {model[:100]!r}: {reasons[0]}")
        return replace(route, targets=targets, fallback=fallback) if targets else replace(route, targets=fallback, fallback=())

    def _permits(
        self, place: Deployment, model: str, residency: Callable[[str], str], priced: Priced, reasons: list[str]
    ) -> bool:
        if not all(place.provider in allowed for allowed in self._providers):
            reasons.append("it may use only the providers " + ", ".join(sorted(frozenset.intersection(*self._providers))))
            return False
        if self._residency:
            where = residency(place.provider)
            if not all(where in allowed for allowed in self._residency):
                reasons.append("its requests must stay in " + ", ".join(sorted(frozenset.intersection(*self._residency))))
                return False
        if self._max_price is not None:
            cost = priced(place.provider, place.model or model)
            if cost is None or cost > self._max_price:
                known = "nobody knows its price" if cost is None else f"a million output tokens cost {cost:g} USD there"
                reasons.append(f"{known}, and it may spend at most {self._max_price:g}")
                return False
        return True


class Permissions:
    """The rules of one config."""

    def __init__(
        self,
        groups: Mapping[str, Terms],
        model_groups: Mapping[str, Sequence[str]],
        residency: Callable[[str], str],
        priced: Priced,
        most_output: int = 0,
    ) -> None:
        """*residency* says where a provider is; *most_output* holds for consumers that say nothing themselves."""
        self._most_output = most_output
        self._groups, self._model_groups, self._residency, self._priced = groups, model_groups, residency, priced
        self._rules: dict[str, Rule] = {}

    def rule(self, consumer: Consumer) -> Rule | None:
        """What binds *consumer*; None where nothing does."""
        rule = self._rules.get(consumer.id)
        if rule is None or rule.consumer is not consumer:
            if len(self._rules) >= MOST_RULES:
                self._rules.clear()
            group = self._groups.get(consumer.group)
            every = [consumer.terms] if group is None else [consumer.terms, group]
            rule = self._rules[consumer.id] = Rule(consumer, every, self._model_groups, self._most_output)
        return rule if rule.binds else None

    def route(self, rule: Rule, exchange: Exchange, route: Route, operation: Operation) -> Route:
        """See `Rule.route`."""
        return rule.route(exchange, route, operation, self._residency, self._priced)


def _within(address: str, networks: Sequence[Any]) -> bool:
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return any(ip in network for network in networks)

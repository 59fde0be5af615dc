"""What the configured providers offer: which names work through which of our operations. Nobody is asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from aigw.deployment import Deployment, Route
from aigw.errors import CallerError
from aigw.protocols.operations import OPERATIONS
from aigw.providers import catalog
from aigw.providers.base import Provider
from aigw.routing.table import Table

DEFAULT = "default"
"""The route that `aigw init` makes for those who name no model."""


class Place(NamedTuple):
    """Who would be asked first for a model, and as what."""

    provider: str
    kind: str
    stream_usage: bool


class Offers:
    """Made from the names of a config (cli/names.py)."""

    def __init__(self, providers: Mapping[str, Provider], table: Table) -> None:
        self._providers, self._table = providers, table

    def route(self, model: str) -> Route:
        """Where *model* goes. Raises CallerError (caller_model_not_found) with the nearest names."""
        return self._table.resolve(model)

    def knows(self, model: str) -> bool:
        """Whether anybody takes that name."""
        try:
            self.route(model)
        except CallerError:
            return False
        return True

    def serves(self, model: str, operation: str) -> bool:
        """Whether a place of *model* serves *operation* ("chat", "messages", "responses")."""
        return self.knows(model) and any(self._speaks(place, operation) for place in _places(self.route(model)))

    def answers(self, model: str, operation: str) -> bool:
        """Whether *operation* works with *model*: a place serves it, or something that it is translated into."""
        wanted = OPERATIONS[operation]
        return self.knows(model) and any(
            place.provider in self._providers
            and self._providers[place.provider].serving(wanted, place.model or model) is not None
            for place in _places(self.route(model))
        )

    def place(self, model: str, operation: str) -> Place | None:
        """Who is asked first for *model* by *operation*; None when nobody is."""
        if not self.knows(model):
            return None
        for place in _places(self.route(model)):
            if self._speaks(place, operation):
                provider = self._providers[place.provider]
                return Place(provider.name, provider.kind, provider.stream_usage)
        return None

    def names(self, operation: str) -> list[str]:
        """The names that are listed and served by *operation*, in the config's order."""
        return [named.id for named in self._table.names() if self.serves(named.id, operation)]

    def choice(self, operation: str) -> str:
        """A model for somebody who named none: the default route, else the usual one of the first provider that has one, else
        the first name that is listed; one that *operation* is translated for only when nothing serves it; "" when nothing
        answers it."""
        if self.serves(DEFAULT, operation):
            return DEFAULT
        usual = [catalog.row(provider.kind).default_model for provider in self._providers.values()]
        names = [name for name in (*usual, *(named.id for named in self._table.names())) if name]
        found = next((name for name in names if self.serves(name, operation)), "")
        return found or next((name for name in (DEFAULT, *names) if self.answers(name, operation)), "")

    def speakers(self, operation: str) -> list[str]:
        """The configured providers that serve *operation*."""
        return [name for name in self._providers if self._speaks(Deployment(provider=name), operation)]

    def _speaks(self, place: Deployment, operation: str) -> bool:
        provider = self._providers.get(place.provider)
        wanted = OPERATIONS[operation]
        return provider is not None and provider.dialect_for(wanted) == wanted.dialect


def would_serve(operation: str) -> list[str]:
    """The catalog's providers that serve *operation*, by id, vendors before those who resell them."""
    order = ("vendor", "cloud", "host", "aggregator", "local")
    rows = [catalog.row(one) for one in catalog.ids()]
    fit = [row for row in rows if _row_serves(row, operation) and row.category in order and row.protocol != "demo"]
    return [row.id for row in sorted(fit, key=lambda row: order.index(row.category))]


def _row_serves(row: catalog.Row, operation: str) -> bool:
    if OPERATIONS[operation].dialect == "anthropic_messages":
        return bool(row.anthropic_url)
    if OPERATIONS[operation].dialect.startswith("gemini"):
        return row.protocol == "gemini"
    return bool(row.openai_surface) and operation in row.operations


def _places(route: Route) -> Iterable[Deployment]:
    return (*route.targets, *route.fallback)

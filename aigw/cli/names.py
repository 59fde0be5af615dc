"""Which names work with a config, and where each goes: decided by the code that the server decides with.

Nobody is asked: models that a server heard of come from the data directory. Secrets that are not here (a variable that only the
server has, a file of its user) are no reason not to know.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import msgspec

from aigw.config import schema, secrets
from aigw.config.load import Loaded, load_with_notes
from aigw.errors import ConfigError
from aigw.exchange import Usage

if TYPE_CHECKING:
    from aigw.cli.locations import Locations
    from aigw.consumer import Caller
    from aigw.deployment import Deployment, ProviderKey, Route
    from aigw.metering.prices import PriceBook
    from aigw.providers.base import Provider
    from aigw.routing.table import Table

T = TypeVar("T", schema.Provider, schema.Upstream)

NOT_HERE = "not-here"
"""Stands for a key that cannot be looked up on this machine. It is never sent anywhere."""

REASONS = {
    "route": "a route of that name",
    "provider/model": "the provider's name stands in front",
    "pattern": "the most specific pattern route",
    "live": "the provider lists it",
    "catalog": "the beginning of the name",
}
"""Why a name goes where it goes (`Route.source`), in the order in which it is looked for."""


STEPS = {
    "route": "a route of that name",
    "provider/model": "a provider's name in front",
    "pattern": "pattern routes",
    "live": "providers that list it",
    "catalog": "the beginning of the name",
}
"""The same ways as questions."""


class Names(NamedTuple):
    """A config as a server would have it."""

    loaded: Loaded
    missing: list[ConfigError]  # references that do not resolve on this machine
    providers: Mapping[str, Provider]
    table: Table
    listed: Mapping[str, list[str]]  # provider -> the models it says it has: `models` of the config, then those heard of
    prices: PriceBook  # what they cost at these providers
    keys: Mapping[str, list[ProviderKey]]  # ours at each provider; `NOT_HERE` stands for those that are not on this machine
    consumers: list[Caller]  # those of the config

    def others(self, name: str, route: Route) -> list[str]:
        """The providers that list *name* too, and do not get it."""
        given = {target.provider for target in (*route.targets, *route.fallback)}
        return [provider for provider, models in self.listed.items() if name in models and provider not in given]


def read(where: Locations) -> Names:
    """The names of the config that *where* means. Raises ConfigError."""
    return understood(load_with_notes(where.config_path()), where.data_path())


def understood(loaded: Loaded, data_dir: Path, environment: Mapping[str, str] | None = None) -> Names:
    """The names of *loaded*. *environment* replaces the process's own. Raises ConfigErrors with all that is wrong besides
    missing secrets."""
    from aigw.gateway import Build, claimant, models_url
    from aigw.metering.price_list import newest
    from aigw.metering.prices import PriceBook
    from aigw.routing.live_models import LiveModels
    from aigw.routing.table import Table

    environment = os.environ if environment is None else environment
    config, missing = _without_missing(loaded.config, environment)
    built = Build(loaded._replace(config=config), environment)
    claimants = [claimant(config, provider) for provider in built.providers.values()]
    table = Table(config.routes, claimants, fallback=config.fallback.targets)
    remembered = LiveModels(data_dir / "models")  # what a server that ran here has heard from its providers
    listed = {}
    for name, provider in built.providers.items():
        live = remembered.load(name, models_url(provider))
        table.set_live(name, live)
        listed[name] = list(dict.fromkeys([*config.providers[name].models, *live]))
    kinds = {name: provider.price_id for name, provider in built.providers.items()}
    prices = PriceBook(config.prices, kinds, newest(data_dir))
    missing = [loaded.located(problem) for problem in missing]
    return Names(loaded, missing, built.providers, table, listed, prices, built.keys, built.consumers)


def per_million(book: PriceBook, provider: str, model: str, at: float) -> dict[str, float | str] | None:
    """What a million tokens of *model* cost at *provider* (name in the config) at the moment *at*: `input`, `output` and
    `cached` where they are known, the `currency`, and who says so (`source`). None when nothing is known. Where prices
    depend on the length of the prompt, those of a short one."""
    usages = {"input": Usage(input=1000), "output": Usage(output=1000), "cached": Usage(input=1000, cached=1000)}
    base = book.price(provider, (model,), Usage(), at)
    if base is None:
        return None
    found: dict[str, float | str] = {}
    for part, usage in usages.items():
        cost = book.price(provider, (model,), usage, at)
        if cost is not None:
            found[part] = (cost.nano - base.nano) / 1e6  # nano-units of a thousand -> units of a million
    return {**found, "currency": base.currency, "source": base.source} if found else None


def _without_missing(config: schema.Config, environment: Mapping[str, str]) -> tuple[schema.Config, list[ConfigError]]:
    """*config* with something else in place of the references that do not resolve, and a complaint for each of those."""
    missing: list[ConfigError] = []

    def is_missing(reference: str | None, key: str) -> bool:
        if reference is None or not _absent(reference, environment):
            return False
        try:
            secrets.resolve(reference, key=key, environment=environment)
        except ConfigError as error:
            missing.append(error)
            return True
        return False

    def without_proxy(table: T, place: str) -> T:
        return msgspec.structs.replace(table, proxy=None) if is_missing(table.proxy, f"{place}.proxy") else table

    providers = {}
    upstream = without_proxy(config.upstream, "upstream")
    for name, provider in config.providers.items():
        place = f"providers.{name}"
        absent = [is_missing(reference, f"{place}.keys[{index}]") for index, reference in enumerate(provider.references)]
        keys = tuple(_stand_in(key) if gone else key for gone, key in zip(absent, provider.keys, strict=True))
        providers[name] = without_proxy(msgspec.structs.replace(provider, keys=keys), place)
    consumers = {}
    for name, consumer in config.consumers.items():
        if is_missing(consumer.key, f"consumers.{name}.key"):
            digest = hashlib.sha256(name.encode()).hexdigest()
            consumers[name] = msgspec.structs.replace(consumer, key=f"sha256:{digest}")
        else:
            consumers[name] = consumer
    return msgspec.structs.replace(config, upstream=upstream, providers=providers, consumers=consumers), missing


def _stand_in(key: str | schema.ProviderKey) -> str | schema.ProviderKey:
    """*key* with all that is said of it, but for what is not here."""
    return NOT_HERE if isinstance(key, str) else msgspec.structs.replace(key, key=NOT_HERE)


def _absent(reference: str, environment: Mapping[str, str]) -> bool:
    """A variable that is not set or empty, a file that is not there or not ours to read. Anything else that is wrong with a
    reference (no name of a variable, a file that others may write) is wrong everywhere."""
    scheme, _, rest = reference.partition(":")
    if scheme == "env":
        return rest.isidentifier() and not environment.get(rest)
    if scheme == "file" and "\0" not in rest:
        path = Path(os.path.expanduser(rest))  # noqa: PTH111 - unlike Path's, leaves an unknown ~user as it is
        return path.is_absolute() and not os.access(path, os.R_OK)
    return False


def goes_to(targets: Sequence[Deployment | schema.RouteTarget], *, shares: bool = True) -> str:
    """Places in words: "openai/gpt-5 90%, deepseek 10%"."""
    names = [f"{target.provider}/{target.model}" if target.model else target.provider for target in targets]
    total = sum(target.weight for target in targets)
    if not shares or len(targets) == 1 or not total:
        return ", ".join(names)
    return ", ".join(f"{name} {100 * target.weight / total:.3g}%" for name, target in zip(names, targets, strict=True))

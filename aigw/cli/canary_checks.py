"""What must be true before a canary begins, and its figures as they are written on the command line."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import typer

from aigw.cli import output

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aigw.cli.names import Names
    from aigw.routing.canary import Place

_MONEY = re.compile(r"([$¥€]?)\s*([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*([A-Za-z]{3})?\Z")
_SIGNS = {"$": "USD", "¥": "CNY", "€": "EUR"}


class Beginning(NamedTuple):
    """Where a route's traffic goes now. `configured`: the config has a route of that name."""

    targets: Sequence[Place]
    configured: bool


def percents(text: str, option: str = "--steps") -> tuple[float, ...]:
    """Shares in percent, each larger than the one before: "1,5,25,50,100". Raises BadParameter."""
    try:
        found = tuple(percent(one, option) for one in text.split(","))
    except typer.BadParameter:
        found = ()
    if not found or any(after <= before for before, after in pairwise(found)):
        raise typer.BadParameter(
            f"{output.safe(text)!r}: expected percentages that grow, like 1,5,25,50,100", param_hint=option
        )
    return found


def percent(text: str, option: str) -> float:
    """A share, with or without %: above 0, at most 100. Raises BadParameter."""
    try:
        found = float(text.strip().removesuffix("%"))
    except ValueError:
        found = 0.0
    if not 0 < found <= 100:
        raise typer.BadParameter(f"{output.safe(text)!r}: expected a percentage above 0, at most 100", param_hint=option)
    return found


def amount(text: str, option: str = "--spend") -> tuple[int, str]:
    """Money in nano-units and its currency: 1usd, 0.5, $2, 10cny. Raises BadParameter."""
    match = _MONEY.match(text.strip())
    currency = (_SIGNS.get(match[1]) or (match[3] or "usd").upper()) if match else ""
    nano = round(float(match[2]) * 1e9) if match else 0
    if not nano or currency not in _SIGNS.values() or (match and match[1] and match[3]):
        raise typer.BadParameter(f"{output.safe(text)!r}: expected an amount like 1usd, 0.50usd or 10cny", param_hint=option)
    return nano, currency


def stickiness(text: str, option: str = "--sticky") -> str:
    """consumer, conversation or header:NAME. Raises BadParameter."""
    if text in ("consumer", "conversation") or re.fullmatch(r"header:[A-Za-z0-9!#$&'*+.^_`|~-]{1,64}", text):
        return text
    raise typer.BadParameter(f"{output.safe(text)!r}: expected consumer, conversation or header:NAME", param_hint=option)


def reasons(text: str, option: str = "--rollback-on") -> tuple[str, ...]:
    """Names of reasons, with commas between; errors and empty are always among them. Raises BadParameter."""
    from aigw.cli.suggest import unknown
    from aigw.routing.canary import REASONS

    named = [one.strip() for one in text.split(",")]
    for one in named:
        if one not in REASONS:
            raise typer.BadParameter(f"{unknown('reason', one, REASONS)} (there are {', '.join(REASONS)})", param_hint=option)
    return tuple(one for one in REASONS if one in (*named, "errors", "empty"))


def beginning(found: Names, route: str) -> Beginning:
    """Where *route* goes now. Raises typer.Exit for one that no canary can be made of, after saying why."""
    from aigw.cli.suggest import unknown
    from aigw.errors import CallerError

    routes = found.loaded.config.routes
    if route in routes:
        return Beginning(routes[route].targets, True)
    try:
        resolved = found.table.resolve(route)
    except CallerError:
        known = [*routes, *(one.id for one in found.table.names())]
        _refuse(f"{unknown('route or model', route, known)} ('aigw models' lists what works)")
    if resolved.name != route:
        _refuse(f"{route!r} is caught by the route {resolved.name!r}: start the canary on that one")
    return Beginning(resolved.targets, False)


def place(found: Names, text: str, *, sure: bool) -> tuple[str, str | None]:
    """The provider and the model of `provider[/model]`. One that the provider does not list passes only when *sure*. Raises
    BadParameter for a provider that there is not, typer.Exit for a model."""
    from aigw.cli.suggest import nearest, unknown

    provider, slash, model = text.partition("/")
    if provider not in found.providers:
        raise typer.BadParameter(unknown("provider", provider, found.providers), param_hint="--to")
    if slash and not model:
        raise typer.BadParameter(f"{output.safe(text)!r}: expected a model behind the slash", param_hint="--to")
    listed = found.listed[provider]
    if model and listed and model not in listed:
        near = nearest(model, listed)
        hint = f"did you mean {' or '.join(near)}?" if near else f"'aigw models --provider {provider}' shows them."
        problem = f"{provider} does not list a model {model!r}; {hint}"
        if not sure:
            _refuse(f"{problem} If you are sure: --yes")
        output.warn(problem)
    return provider, model or None


def same_vectors(route: str, begun: Beginning, model: str | None) -> None:
    """Refuse to send embeddings to another model: the vectors of two models in one index are worth nothing."""
    from aigw.config import embedding

    wanted = model or route
    names = [wanted, *(target.model or route for target in begun.targets)]
    if any(map(embedding.is_one, names)) and len(set(map(embedding.same, names))) > 1:
        _refuse("embeddings never change their model: vectors of two models in one index cannot be compared")


def not_there_yet(route: str, begun: Beginning, provider: str, model: str | None) -> None:
    """Refuse a canary to where everything goes anyway."""
    if [(one.provider, one.model) for one in begun.targets] == [(provider, model)]:
        _refuse(f"all of {route!r} goes there already")


def affordable(found: Names, route: str, provider: str, model: str | None, currency: str, at: float) -> None:
    """Refuse a shadow whose cost nobody could count."""
    from aigw.exchange import Usage

    name = model or route
    cost = found.prices.price(provider, (name,), Usage(input=1000, output=1000), at)
    if cost is None:
        _refuse(
            f'what {provider}/{name} costs is not known, so --spend could not hold; write it into [prices."{provider}/{name}"]'
        )
    if cost.currency != currency:
        _refuse(f"the price of {provider}/{name} is in {cost.currency}: give --spend in {cost.currency.lower()}")


def _refuse(why: str) -> NoReturn:
    output.fail(why)
    raise typer.Exit(1)

"""What a consumer may do, as options of a command: read, checked, and shown again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aigw.cli import output
from aigw.cli.complete import provider_names, route_names

if TYPE_CHECKING:
    from aigw.config.schema import Config
    from aigw.consumer import Terms

NONE = "none"
"""Takes a list away."""

Group = Annotated[str | None, typer.Option(metavar="GROUP", help="Its group ([groups] of the config); '' for none.")]
Tags = Annotated[
    list[str] | None,
    typer.Option("--tag", "--tags", metavar="KEY=VALUE", help="Copied into each record; may be repeated."),
]
Metadata = Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Only kept, and shown; may be repeated.")]
Lead = Annotated[bool | None, typer.Option("--lead/--no-lead", help="It may make consumers of its own group (POST /v1/keys).")]
Models = Annotated[
    str | None, typer.Option(metavar="NAMES", help="Models it may ask for: gpt-*,claude-*,@fast. 'none': any again.")
]
Deny = Annotated[str | None, typer.Option(metavar="NAMES", help="Models it may not, also of those.")]
Providers = Annotated[
    str | None, typer.Option(metavar="NAMES", help="Providers that may serve it.", autocompletion=provider_names)
]
Residency = Annotated[str | None, typer.Option(metavar="PLACES", help="Where they may be: eu,local.")]
Endpoints = Annotated[str | None, typer.Option(metavar="NAMES", help="What it may ask for: chat,messages,embeddings ...")]
MaxPrice = Annotated[
    float | None, typer.Option(min=0.0, metavar="USD", help="What a million output tokens may cost; 0: nothing that costs.")
]
AllowIp = Annotated[
    list[str] | None, typer.Option("--allow-ip", metavar="CIDR", help="Where it may call from; may be repeated.")
]
Rpm = Annotated[int | None, typer.Option(min=0, metavar="N", help="Requests a minute, instead of [limits]; 0: no limit.")]
Tpm = Annotated[int | None, typer.Option(min=0, metavar="N", help="Tokens a minute.")]
Concurrency = Annotated[int | None, typer.Option(min=0, metavar="N", help="Requests at once, instead of [limits].")]
MaxOutput = Annotated[int | None, typer.Option("--max-output", min=0, metavar="N", help="Tokens of one answer.")]
Budgets = Annotated[
    list[str] | None,
    typer.Option("--budget", metavar="5usd/day", help="Money by hour, day, week, month or total; may be repeated."),
]
Tokens = Annotated[list[str] | None, typer.Option("--tokens", metavar="1M/month", help="The same in tokens; may be repeated.")]
Tz = Annotated[str | None, typer.Option(metavar="ZONE", help="In whose calendar budgets begin anew: Asia/Shanghai.")]
Hard = Annotated[bool | None, typer.Option("--hard/--no-hard", help="End a stream where its budget ends.")]
Unpriced = Annotated[
    str | None, typer.Option(metavar="refuse|allow", help="Models whose price nobody knows, under a budget in money.")
]
OnBudget = Annotated[
    str | None,
    typer.Option(
        "--on-budget",
        metavar="AT=ROUTE",
        help="0.8=cheap: the route from that share of a budget on.",
        autocompletion=route_names,
    ),
]
Priority = Annotated[str | None, typer.Option(metavar="interactive|batch", help="batch gives way first.")]

_LISTS = ("models", "deny", "providers", "residency", "endpoints")


def wanted(said: dict[str, Any], config: Config) -> dict[str, Any]:
    """The fields of `Terms` that options *said* (by their names; None was not given), checked. Raises BadParameter."""
    found: dict[str, Any] = {}
    for name in _LISTS:
        if said.get(name) is not None:
            found[name] = _names(said[name])
    _known(found, config)
    for name in ("rpm", "tpm", "concurrency", "max_output", "hard"):
        if said.get(name) is not None:
            found[name] = said[name]
    if said.get("max_price") is not None:
        found["max_price"] = _checked("--max-price", said["max_price"], _price)
    if said.get("allow_ip") is not None:
        found["allow_ip"] = tuple(_checked("--allow-ip", one, _network) for text in said["allow_ip"] for one in _names(text))
    if said.get("budget") is not None or said.get("tokens") is not None:
        found["budgets"] = (said.get("budget"), said.get("tokens"))  # put together with what there is: `changed`
        _budgets(found["budgets"], ())
    if said.get("tz") is not None:
        found["tz"] = _checked("--tz", said["tz"], _zone)
    for name, words in (("unpriced", ("refuse", "allow")), ("priority", ("interactive", "batch"))):
        if said.get(name) is not None:
            if said[name] not in words:
                raise typer.BadParameter(f"expected {' or '.join(words)}", param_hint=f"--{name}")
            found[name] = said[name]
    if said.get("on_budget") is not None:
        found["on_budget"] = _on_budget(said["on_budget"])
    return found


def changed(terms: Terms, fields: dict[str, Any]) -> Terms:
    """*terms* with what `wanted` found: money budgets and token budgets are replaced each as a whole."""
    from msgspec.structs import replace

    if "budgets" in fields:
        fields = fields | {"budgets": _budgets(fields["budgets"], terms.budgets)}
    return replace(terms, **fields) if fields else terms


def pairs(texts: Sequence[str], option: str) -> dict[str, str]:
    """KEY=VALUE options. Raises BadParameter."""
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name.strip() or not equals:
            raise typer.BadParameter(f"{output.safe(text[:64])!r}: expected KEY=VALUE", param_hint=option)
        found[name.strip()] = value.strip()
    if len(json.dumps(found)) > 4096:  # tags are copied into each record
        raise typer.BadParameter("all together are longer than 4096 characters", param_hint=option)
    return found


def facts(terms: Terms) -> dict[str, Any]:
    """*terms* for programs: what is not said is left out."""
    import msgspec

    from aigw.config.terms import written

    found: dict[str, Any] = msgspec.to_builtins(terms)
    if terms.budgets:
        found["budgets"] = [written(one) for one in terms.budgets]
    return found


def shown(terms: Terms) -> dict[str, str]:
    """*terms* for people, by what they are called there."""
    from aigw.config.terms import written

    said: dict[str, str] = {}
    for name in (*_LISTS, "allow_ip"):
        value = getattr(terms, name)
        if value:
            said[name.replace("_", " ")] = ", ".join(value)
    if terms.max_price is not None:
        said["max price"] = f"{terms.max_price:g} USD for a million output tokens"
    for name in ("tpm", "max_output"):
        value = getattr(terms, name)
        if value is not None:
            said[name.replace("_", " ")] = str(value) if value else "no limit"
    if terms.budgets:
        said["budgets"] = ", ".join(map(written, terms.budgets)) + (f" ({terms.tz})" if terms.tz else "")
    if terms.hard is not None:
        said["hard"] = "yes" if terms.hard else "no"
    for name in ("unpriced", "priority"):
        if value := getattr(terms, name):
            said[name] = value
    if terms.on_budget is not None:
        said["on budget"] = f"{terms.on_budget.use} from {terms.on_budget.at:.0%} on"
    return said


def _names(text: str) -> tuple[str, ...]:
    if text.strip().lower() == NONE:
        return ()
    return tuple(dict.fromkeys(one for part in text.split(",") if (one := part.strip())))


def _known(found: dict[str, Any], config: Config) -> None:
    """What is no name of anything is a slip; what is not configured yet may come."""
    from aigw.cli.suggest import unknown
    from aigw.consumer import ENDPOINTS

    for name in found.get("endpoints", ()):
        if name not in ENDPOINTS:
            raise typer.BadParameter(unknown("endpoint", name, ENDPOINTS), param_hint="--endpoints")
    for option in ("models", "deny"):
        for name in found.get(option, ()):
            if name.startswith("@") and name[1:] not in config.model_groups:
                raise typer.BadParameter(unknown("model group", name[1:], config.model_groups), param_hint=f"--{option}")
            _checked(f"--{option}", name, _pattern)
    for name in found.get("providers", ()):
        if name not in config.providers:
            output.warn(f"no provider {output.safe(name)} is configured now")


def _checked(option: str, value: Any, check: Callable[[Any], Any]) -> Any:
    try:
        return check(value)
    except ValueError as error:
        raise typer.BadParameter(output.safe(str(error)), param_hint=option) from None


def _pattern(name: str) -> str:
    from aigw.config import patterns

    if len(name) > patterns.MAX_LENGTH or not name.isprintable():
        raise ValueError("this is no name of a model")
    if patterns.is_pattern(name):
        patterns.compiled(name)
    return name


def _network(text: str) -> str:
    from aigw.config.terms import network

    return network(text)


def _price(value: float) -> float:
    from aigw.config.terms import price

    return price(value)


def _zone(name: str) -> str:
    from aigw.config.bounds import zone

    zone(name)
    return name


def _budgets(said: tuple[Iterable[str] | None, Iterable[str] | None], before: Sequence[Any]) -> tuple[Any, ...]:
    from aigw.config.terms import budget

    found: dict[tuple[str, str], Any] = {}
    for unit, option, texts in (("usd", "--budget", said[0]), ("tokens", "--tokens", said[1])):
        if texts is None:
            found |= {(one.unit, one.window): one for one in before if one.unit == unit}
            continue
        for text in texts:
            for part in _names(text):
                one = _checked(option, part, partial(budget, unit=unit))
                if (one.unit, one.window) in found:
                    raise typer.BadParameter(f"two for a {one.window}: give the one that is meant", param_hint=option)
                found[one.unit, one.window] = one
    return tuple(found.values())


def _on_budget(text: str) -> Any:
    from aigw.consumer import OnBudget as Moved

    if text.strip().lower() == NONE:
        return None
    share, equals, route = text.partition("=")
    try:
        at = float(share)
    except ValueError:
        at = 0.0
    if not equals or not route.strip() or not 0 < at <= 1:
        raise typer.BadParameter("expected a share and a route, for example 0.8=cheap", param_hint="--on-budget")
    return Moved(at, route.strip())

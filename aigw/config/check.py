"""What a config must mean, beyond its shape: addresses, limits, names that exist, patterns that work.

Nothing outside the config is looked at: no variable, no file, no network.
"""

from __future__ import annotations

import difflib
import ipaddress
import math
import re
from collections.abc import Callable, Collection
from urllib.parse import urlsplit

import msgspec

from aigw.config import embedding, lines, patterns, secrets, terms
from aigw.config.bounds import bounds, hours, zone
from aigw.config.schema import (
    Alert,
    Circuit,
    Config,
    Group,
    Hedge,
    Jwt,
    Limits,
    Price,
    Provider,
    Retry,
    Route,
    RouteTarget,
    Timeouts,
    When,
)
from aigw.consumer import ENDPOINTS

Note = Callable[[lines.Path, str], None]
"""Takes a key and what is to be said about it."""

_PROVIDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")  # stands before the slash in provider/model, and in headers
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+\Z")  # RFC 9110, token
_OURS = frozenset(
    # the transport writes these itself; RFC 9110 section 7.6.1 for the hop-by-hop ones
    (
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "keep-alive",
        "te",
        "trailer",
        "upgrade",
        "expect",
        "accept-encoding",
    )
)
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._#@/-]{0,63}\Z")  # of a key; stands in records and metrics
_ADDRESS = re.compile(r"[^\s@,;<>\"]+@[^\s@,;<>\"]+\Z")
_DIGEST = re.compile(r"sha256:[0-9a-fA-F]{64}\Z")
_SERVER_SECONDS = ("stall_timeout", "head_timeout", "body_timeout", "keep_alive")
_ENDPOINTS = ("/chat/completions", "/completions", "/embeddings", "/responses", "/messages", "/models")


def check(config: Config, wrong: Note, doubtful: Note, *, known: Collection[str] | None = None) -> None:
    """Say to *wrong* what cannot work and to *doubtful* what probably is not meant. *known* are the providers a route may
    name, when they are more than `config.providers`."""
    _listeners(config, wrong, doubtful)
    _seconds(config, wrong)
    _out(("upstream",), config.upstream.proxy, config.upstream.ca_file, wrong)
    if config.upstream.max_connections < 1:
        wrong(("upstream", "max_connections"), "expected at least 1")
    _providers(config, wrong, doubtful)
    _routes(config, frozenset(config.providers if known is None else known), wrong, doubtful)
    places = frozenset(config.providers if known is None else known)
    for index, target in enumerate(config.fallback.targets):
        _target(("fallback", "targets", index), target, places, wrong)
        _fallback(("fallback", "targets", index), target, doubtful)
    _retry(config.retry, wrong)
    _circuit(config.circuit, wrong)
    _limits(config.limits, ("limits",), wrong)
    if not 0 <= config.limits.queue <= 3600:
        wrong(("limits", "queue"), f"expected 0 (no waiting) to 3600 seconds, got {config.limits.queue:g}")
    for currency in config.currencies.__struct_fields__:
        rate = getattr(config.currencies, currency)
        if not 0 < rate < 10**6:
            wrong(("currencies", currency), f"expected US dollars for one {currency}, more than 0, got {rate:g}")
    for name, group in config.groups.items():
        _permissions(config, group, ("groups", name), places, wrong, doubtful)
    for name, consumer in config.consumers.items():
        _permissions(config, consumer, ("consumers", name), places, wrong, doubtful)
        if consumer.lead and not consumer.group:
            wrong(("consumers", name, "lead"), "a lead needs a group, for which it makes consumers")
    _consumers(config, wrong)
    if config.auth.jwt is not None:
        _jwt(config.auth.jwt, config, wrong, doubtful)
    for name, price in config.prices.items():
        _price(name, price, wrong)
    _storage(config, wrong)
    for name, alert in config.alerts.items():
        _alert(("alerts", name), alert, wrong, doubtful)


def _jwt(table: Jwt, config: Config, wrong: Note, doubtful: Note) -> None:
    for name in ("issuer", "audience", "jwks", "consumer_claim"):
        if not getattr(table, name):
            wrong(("auth", "jwt", name), "is empty")
    parts = urlsplit(table.jwks)
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        wrong(("auth", "jwt", "jwks"), "expected https:// (http:// only for this machine): who can change it lets anybody in")
    if not 0 <= table.leeway <= 3600:
        wrong(("auth", "jwt", "leeway"), f"expected 0 to 3600 seconds, got {table.leeway:g}")
    if table.groups and not table.group_claim:
        doubtful(("auth", "jwt", "groups"), "is not used: there is no group_claim")
    for number, name in enumerate(table.groups):
        if name not in config.groups:
            doubtful(("auth", "jwt", "groups", number), f"there is no [groups.{name}]: the name alone limits nothing")


MOST_WORKERS = 64
"""Processes of one server; each needs some 60 MB."""


def is_loopback(host: str) -> bool:
    """True when only this machine can reach *host*."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _listeners(config: Config, wrong: Note, doubtful: Note) -> None:
    server, admin = config.server, config.admin
    for table, host in (("server", server.host), ("admin", admin.host)):
        if not host or not re.fullmatch(r"[A-Za-z0-9.:_\[\]%-]+", host):
            wrong((table, "host"), 'expected an address or a host name, such as "127.0.0.1" or "0.0.0.0"')
    for table, port in (("server", server.port), ("admin", admin.port)):
        if port is not None and not 0 <= port <= 65535:
            wrong((table, "port"), "expected 0 to 65535 (0: any free port)")
    if admin.port == server.port != 0 and admin.host == server.host:
        wrong(("admin", "port"), f"is the data port too ({server.port}); expected another one")
    if not config.auth.required and not is_loopback(server.host):
        wrong(
            ("auth", "required"),
            f"false is allowed on a loopback address only, and server.host is {lines.quoted(server.host)}: whoever reaches it "
            'could spend your money; expected required = true, or host = "127.0.0.1"',
        )
    if not is_loopback(admin.host):
        doubtful(("admin", "host"), "the metrics are readable for everybody who can reach this address")
    if isinstance(server.workers, int) and not 1 <= server.workers <= MOST_WORKERS:
        wrong(("server", "workers"), f'expected 1 to {MOST_WORKERS}, or "auto" (one for each processor)')
    if config.auth.failures_per_minute < 0:
        wrong(("auth", "failures_per_minute"), "expected 0 (no limit) or more")
    for name in ("max_body", "max_upload"):
        if getattr(server, name) < 1:
            wrong(("server", name), "expected a number of bytes above 0")
    for name in ("body_rate", "keep_alive_requests", "max_connections"):
        if getattr(server, name) < 1:
            wrong(("server", name), "expected at least 1")
    if server.max_connections_per_address < 0:
        wrong(("server", "max_connections_per_address"), "expected 0 (no limit) or more")
    for index, network in enumerate(server.trusted):
        try:
            ipaddress.ip_network(network)
        except ValueError:
            wrong(("server", "trusted", index), 'expected an address or a network, such as "10.0.0.5" or "10.0.0.0/8"')


def _seconds(config: Config, wrong: Note) -> None:
    above: list[tuple[lines.Path, float | None]] = [
        (("server", "timeout"), config.server.timeout),
        *((("server", name), getattr(config.server, name)) for name in _SERVER_SECONDS),
    ]
    tables: list[tuple[lines.Path, Timeouts]] = [(("upstream",), config.upstream)]
    tables += [(("providers", name), provider) for name, provider in config.providers.items()]
    tables += [(("routes", name), route) for name, route in config.routes.items()]
    for name, route in config.routes.items():
        tables += [(("routes", name, "targets", index), target) for index, target in enumerate(route.targets)]
        tables += [(("routes", name, "fallback", index), target) for index, target in enumerate(route.fallback)]
    tables += [(("fallback", "targets", index), target) for index, target in enumerate(config.fallback.targets)]
    for path, table in tables:
        above += [((*path, name), getattr(table, name)) for name in Timeouts.__struct_fields__]
    for path, value in above:
        if value is not None and not (math.isfinite(value) and value > 0):
            wrong(path, "expected a number of seconds above 0")
    for path, value in (
        (("server", "drain_timeout"), config.server.drain_timeout),
        (("storage", "records"), config.storage.records),
        (("storage", "rollups"), config.storage.rollups),
    ):
        if not (math.isfinite(value) and value >= 0):
            wrong(path, "expected a number of seconds, 0 or more")


def _providers(config: Config, wrong: Note, doubtful: Note) -> None:
    spelled: dict[str, str] = {}
    for name, provider in config.providers.items():
        path = ("providers", name)
        if not _PROVIDER.match(name):
            wrong(path, "expected a name of letters, digits, '.', '_' and '-', at most 64")
        other = spelled.setdefault(name.lower(), name)
        if other != name:
            wrong(
                path, f"differs from {lines.dotted(('providers', other))} in case only; expected names that can be told apart"
            )
        _provider(path, provider, wrong, doubtful)


def _provider(path: lines.Path, provider: Provider, wrong: Note, doubtful: Note) -> None:
    for field in ("base_url", "anthropic_base_url"):
        url = getattr(provider, field)
        if url is not None:
            complaint = _url(url)
            if complaint:
                wrong((*path, field), complaint)
            elif provider.keys and url.startswith("http://") and not _is_near(urlsplit(url).hostname or ""):
                doubtful((*path, field), "keys travel over http:// in clear text; https:// keeps them to yourself")
    if provider.kind == "openai-compatible" and provider.base_url is None and provider.anthropic_base_url is None:
        wrong(path, 'has no base_url; kind = "openai-compatible" needs one, such as "http://127.0.0.1:8000/v1"')
    seen: dict[str, int] = {}
    for index, reference in enumerate(provider.references):
        first = seen.setdefault(reference, index)
        if first != index:
            wrong((*path, "keys", index), f"is the same as keys[{first}]; expected each key once")
    _keys(path, provider, wrong)
    for index, model in enumerate(provider.models):
        if not model or not model.isprintable() or model != model.strip():
            wrong((*path, "models", index), "expected the name of a model")
    for name, value in provider.headers.items():
        if not _HEADER.match(name):
            wrong((*path, "headers", name), "expected the name of an HTTP header")
        elif name.lower() in _OURS:
            wrong((*path, "headers", name), "is written by the gateway itself and cannot be set")
        elif not value.isascii() or not value.isprintable():
            wrong((*path, "headers", name), "holds a control character or one outside ASCII, which no header can carry")
    _out(path, provider.proxy, provider.ca_file, wrong)


def _keys(path: lines.Path, provider: Provider, wrong: Note) -> None:
    """Keys that are tables: what they are called, and what they may be used for."""
    labels: dict[str, int] = {}
    for index, label in enumerate(provider.labels(str(path[-1]))):
        first = labels.setdefault(label, index)
        if first != index:
            wrong((*path, "keys", index), f"is called {label!r}, as keys[{first}] is; expected a label of its own")
    for index, key in enumerate(provider.keys):
        if isinstance(key, str):
            continue
        place = (*path, "keys", index)
        if not key.key:
            wrong((*place, "key"), "is empty; expected env:NAME, file:PATH or the secret itself")
        if key.label is not None:
            if not _LABEL.match(key.label) or key.label.isdigit():
                wrong((*place, "label"), "expected letters, digits and . _ - # @ /, at most 64, and not digits alone")
            elif secrets.is_literal(key.key) and key.key in key.label:
                wrong((*place, "label"), "holds the key itself; labels stand in records")
        if not 1 <= key.weight <= 1_000_000:
            wrong((*place, "weight"), "expected 1 to 1000000; a key without traffic is better left out")
        for name in ("rpm", "tpm"):
            limit = getattr(key, name)
            if limit is not None and limit < 1:
                wrong((*place, name), "expected at least 1, or no such key for no limit")
        for number, model in enumerate(key.models):
            complaint = "expected the name of a model, or a glob" if not model.strip() or not model.isprintable() else ""
            try:
                patterns.compiled(model)
            except ValueError as error:
                complaint = str(error)
            if complaint:
                wrong((*place, "models", number), complaint)


def _url(url: str) -> str:
    """What is wrong with a base URL; "" when nothing is. {placeholders} are allowed, a row's URL may have them."""
    if not url.isascii() or not url.isprintable() or " " in url:
        return "holds a space, a control character or one outside ASCII"
    try:
        split = urlsplit(url)
        port = split.port
    except ValueError:
        return "is not a URL: its host or port cannot be read"
    if split.scheme not in ("http", "https"):
        return 'expected a URL that begins with http:// or https://, such as "https://api.example.com/v1"'
    if not split.hostname or port == 0:
        return "names no host or port; expected a URL such as https://api.example.com/v1"
    if "@" in split.netloc:
        return "holds a user or password; credentials belong into keys (or headers)"
    if "?" in url or "#" in url:
        return "holds a query or a fragment; expected scheme, host and path only (more goes into settings)"
    for endpoint in _ENDPOINTS:
        if split.path.rstrip("/").endswith(endpoint):
            return f"names an endpoint; expected the URL before {endpoint}"
    return ""


def _is_near(host: str) -> bool:
    """True for this machine, a private network, or a name without a dot (a container, a neighbour)."""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return "." not in host or host.endswith((".local", ".internal", ".localhost", ".lan"))


def _out(path: lines.Path, proxy: str | None, ca_file: str | None, wrong: Note) -> None:
    if proxy and not proxy.startswith(("env:", "file:")):
        complaint = proxy_complaint(proxy)
        if complaint:
            wrong((*path, "proxy"), complaint)
    if ca_file is not None and (not ca_file or "\0" in ca_file):
        wrong((*path, "ca_file"), "expected the path of a PEM file")


def proxy_complaint(proxy: str) -> str:
    """What is wrong with a proxy's URL; "" when nothing is. For a reference (env:NAME), ask once it is resolved."""
    expected = "expected http://[user:password@]host:port"
    if not proxy.isascii() or not proxy.isprintable() or " " in proxy:
        return f"holds a space, a control character or one outside ASCII; {expected}"
    try:
        split = urlsplit(proxy)
        port = split.port
    except ValueError:
        return f"is not a URL: its host or port cannot be read; {expected}"
    if split.scheme != "http" or "://" not in proxy:
        known = split.scheme in ("https", "socks4", "socks4a", "socks5", "socks5h") and "://" in proxy
        return f"{split.scheme}:// proxies are not served yet; {expected}" if known else expected
    if not split.hostname or port == 0 or split.path not in ("", "/") or split.query or split.fragment:
        return expected
    return ""


def _routes(config: Config, known: Collection[str], wrong: Note, doubtful: Note) -> None:
    spelled: dict[str, str] = {}
    for name, route in config.routes.items():
        path = ("routes", name)
        if not name or name != name.strip() or not name.isprintable():
            wrong(path, "expected the name of a model, without spaces around it or control characters")
        elif len(name) > patterns.MAX_LENGTH:
            wrong(path, f"is longer than {patterns.MAX_LENGTH} characters")
        elif patterns.is_pattern(name):
            try:
                patterns.compiled(name)
            except ValueError as error:
                wrong(path, str(error))
        # a stutter in a glob means nothing; two exact names that differ in case are fine while they mean the same
        plain = name if name.startswith("re:") else re.sub(r"\*+", "*", name).lower()
        other = spelled.setdefault(plain, name)
        if other != name and (config.routes[other] != route or re.sub(r"\*+", "*", other) == re.sub(r"\*+", "*", name)):
            wrong(path, f"is a second spelling of {lines.dotted(('routes', other))}; expected one route for it")
        _route(path, route, known, wrong, doubtful)


def _route(path: lines.Path, route: Route, known: Collection[str], wrong: Note, doubtful: Note) -> None:
    usual = [target for target in route.targets if target.purpose is None]
    if not route.targets:
        wrong((*path, "targets"), 'is empty; expected at least one, such as {provider = "openai"}')
    elif not usual:
        wrong((*path, "targets"), "are all `for` something special, so no ordinary request has a place; expected one without")
    elif all(target.weight <= 0 for target in usual):
        wrong((*path, "targets"), "every weight is 0, so nothing would be served; expected at least one above 0")
    elif all(target.when is not None for target in (*usual, *route.fallback)):
        doubtful((*path, "targets"), "every target has conditions: a request that meets none of them is refused")
    if route.retries is not None and route.retries < 0:
        wrong((*path, "retries"), "expected 0 or more")
    if route.hedge is not None:
        _hedge((*path, "hedge"), route.hedge, wrong)
        if len(route.targets) + len(route.fallback) < 2:
            doubtful((*path, "hedge"), "has no effect: there is no second place to ask")
    if route.slow_start is not None:
        for field, value in (("tokens_per_second", route.slow_start.tokens_per_second), ("seconds", route.slow_start.seconds)):
            if not (math.isfinite(value) and value > 0):
                wrong((*path, "slow_start", field), "expected a number above 0")
        if len(route.targets) + len(route.fallback) < 2:
            doubtful((*path, "slow_start"), "only costs time: there is no other place to go to")
    for field, targets in (("targets", route.targets), ("fallback", route.fallback)):
        for index, target in enumerate(targets):
            _target((*path, field, index), target, known, wrong)
            if field == "fallback":
                _fallback((*path, field, index), target, doubtful)
    _embeddings(path, route, wrong, doubtful)
    _twice(path, route, doubtful)


def _fallback(path: lines.Path, target: RouteTarget, doubtful: Note) -> None:
    if target.weight != 1:
        doubtful((*path, "weight"), "has no effect: fallbacks are tried in order")


def _twice(path: lines.Path, route: Route, doubtful: Note) -> None:
    """A place that stands twice, word for word, is tried once."""
    seen: list[RouteTarget] = []
    for field, targets in (("targets", route.targets), ("fallback", route.fallback)):
        for index, target in enumerate(targets):
            place = msgspec.structs.replace(target, weight=1)
            if place in seen:
                doubtful((*path, field, index), "stands in this route already; it is tried once")
            seen.append(place)


def _embeddings(path: lines.Path, route: Route, wrong: Note, doubtful: Note) -> None:
    """Vectors of two models cannot be compared: an index that holds both is ruined, and nobody notices."""
    name = str(path[-1])
    pattern = patterns.is_pattern(name)
    places = (*route.targets, *route.fallback)
    models = {embedding.same(place.model or ("" if pattern else name)) for place in places}
    if len(models) < 2:
        return
    if any(map(embedding.is_one, (name, *(place.model or "" for place in places)))):
        wrong(
            (*path, "targets" if len(route.targets) > 1 else "fallback"),
            "would send embeddings to different models, whose vectors cannot be compared; expected the same model everywhere",
        )
    elif pattern and any(patterns.compiled(name).search(known) for known in embedding.KNOWN):
        doubtful(path, "catches embedding models too; for embeddings only the places with the first target's model are used")


def _hedge(path: lines.Path, hedge: Hedge, wrong: Note) -> None:
    if hedge.after != "p95":
        try:
            seconds = float(hedge.after)
        except ValueError:
            seconds = math.nan
        if not (math.isfinite(seconds) and seconds > 0):
            wrong((*path, "after"), 'expected "p95", or a number of seconds in quotes, such as "2.5"')
    if not 0 < hedge.extra <= 1:
        wrong((*path, "extra"), "expected a share above 0 and at most 1, such as 0.05")


def _retry(retry: Retry, wrong: Note) -> None:
    if retry.attempts < 1:
        wrong(("retry", "attempts"), "expected at least 1 (the first one counts)")
    if retry.budget_floor < 0:
        wrong(("retry", "budget_floor"), "expected 0 or more")
    for name in ("pause", "longest_pause", "budget"):
        value = getattr(retry, name)
        if not (math.isfinite(value) and value >= 0):
            wrong(("retry", name), "expected 0 or more")
    if retry.time is not None and not (math.isfinite(retry.time) and retry.time > 0):
        wrong(("retry", "time"), "expected a number of seconds above 0")


def _circuit(circuit: Circuit, wrong: Note) -> None:
    if not 0 < circuit.errors <= 1:
        wrong(("circuit", "errors"), "expected a share above 0 and at most 1, such as 0.5")
    if circuit.samples < 1:
        wrong(("circuit", "samples"), "expected at least 1")
    for name in ("window", "slow", "pause", "longest_pause"):
        value = getattr(circuit, name)
        if value is not None and not (math.isfinite(value) and value > 0):
            wrong(("circuit", name), "expected a number of seconds above 0")


def _when(path: lines.Path, when: When, wrong: Note) -> None:
    for name, read in (("prompt_tokens", bounds), ("time", hours), ("tz", zone)):
        value = getattr(when, name)
        if value is not None:
            try:
                read(value)
            except ValueError as error:
                wrong((*path, name), str(error))
    if when.tz is not None and when.time is None:
        wrong((*path, "tz"), "expected `time` beside it: it is that one's time zone")
    for name in ("consumer", "group"):
        value = getattr(when, name)
        if value is not None and not value.strip(" ,"):
            wrong((*path, name), "is empty; expected names or globs, separated by commas")
    for name, texts in (("tags", when.tags), ("header", when.header)):
        for key in texts:
            if not key or (name == "header" and not _HEADER.match(key)):
                wrong((*path, name, key), "expected the name of an HTTP header" if name == "header" else "expected a name")
    if not any(getattr(when, field) not in (None, {}) for field in When.__struct_fields__):
        wrong(path, "is empty; expected a condition, or no `when`")


def _target(path: lines.Path, target: RouteTarget, known: Collection[str], wrong: Note) -> None:
    if target.when is not None:
        _when((*path, "when"), target.when, wrong)
    for name, value in target.params.items():
        if name in ("model", "stream"):
            wrong((*path, "params", name), "cannot be set here")
        elif not _is_json(value):
            wrong((*path, "params", name), "expected something that JSON can say")
    if target.weight < 0:
        wrong((*path, "weight"), "expected 0 or more")
    if target.model is not None and (
        not target.model or not target.model.isprintable() or target.model != target.model.strip()
    ):
        wrong((*path, "model"), "expected the name of a model, or no model key to keep the requested name")
    if target.provider not in known:
        near = difflib.get_close_matches(target.provider.lower()[:64], sorted(known), 1, 0.6)
        if near:
            hint = f'did you mean "{near[0]}"?'
        elif known:
            hint = f"expected one of {', '.join(sorted(known)[:8])}"
        else:
            hint = f"add a table {lines.quoted('[providers.NAME]')[1:-1]}"
        wrong((*path, "provider"), f"no provider {lines.quoted(target.provider)} is configured; {hint}")


def _is_json(value: object) -> bool:
    if isinstance(value, dict):
        return all(map(_is_json, value.values()))
    if isinstance(value, list):
        return all(map(_is_json, value))
    return isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value))


def _limits(limits: Limits, path: lines.Path, wrong: Note) -> None:
    for name in ("rpm", "tpm", "concurrency", "max_output"):
        value = getattr(limits, name)
        if value is not None and not 0 <= value <= terms.MOST:
            wrong((*path, name), "expected 0 (no limit) or more")
    try:
        terms.budgets(limits.budgets)
    except ValueError as error:
        wrong((*path, "budgets"), str(error))
    if limits.tz:
        try:
            zone(limits.tz)
        except ValueError as error:
            wrong((*path, "tz"), str(error))
    if limits.on_budget is not None and not 0 < limits.on_budget.at <= 1:
        wrong((*path, "on_budget", "at"), "expected a share above 0 and up to 1")


def group(config: Config, table: Group) -> list[str]:
    """What is wrong with the terms of *table*, which comes from elsewhere than the config; each beginning with its key."""
    found: list[str] = []

    def wrong(path: lines.Path, message: str) -> None:
        found.append(f"{lines.dotted(path)}: {message}")

    _permissions(config, table, (), frozenset(config.providers), wrong, lambda path, message: None)
    return found


def _permissions(config: Config, group: Group, path: lines.Path, known: frozenset[str], wrong: Note, doubtful: Note) -> None:
    _limits(group, path, wrong)
    for field in ("models", "deny"):
        for index, name in enumerate(getattr(group, field)):
            if name.startswith("@") and name[1:] not in config.model_groups:
                wrong((*path, field, index), f"there is no [model_groups] {name[1:]}{_near(name[1:], config.model_groups)}")
    for index, name in enumerate(group.providers):
        if name not in known:
            doubtful((*path, "providers", index), f"no provider {lines.quoted(name)} is configured{_near(name, known)}")
    for index, name in enumerate(group.endpoints):
        if name not in ENDPOINTS:
            wrong((*path, "endpoints", index), f"expected one of {', '.join(ENDPOINTS)}{_near(name, ENDPOINTS)}")
    for index, text in enumerate(group.allow_ip):
        try:
            terms.network(text)
        except ValueError as error:
            wrong((*path, "allow_ip", index), str(error))
    if group.max_price is not None and not (math.isfinite(group.max_price) and group.max_price >= 0):
        wrong((*path, "max_price"), "expected an amount of US dollars, 0 or more")


def _near(name: str, names: Collection[str]) -> str:
    close = difflib.get_close_matches(name, list(names), 1)
    return f"; did you mean {lines.quoted(close[0])}?" if close else ""


def _consumers(config: Config, wrong: Note) -> None:
    keys: dict[str, str] = {}
    for name, consumer in config.consumers.items():
        path = ("consumers", name)
        if not name or not name.isprintable() or name != name.strip() or len(name) > 128:
            wrong(path, "expected a name without spaces around it or control characters, at most 128 characters")
        if not consumer.key:
            wrong((*path, "key"), 'is empty; expected env:NAME, file:PATH, "sha256:HEX" or a literal')
        elif consumer.key.startswith("sha256:") and not _DIGEST.match(consumer.key):
            wrong((*path, "key"), "expected 64 hex digits behind sha256:")
        else:
            other = keys.setdefault(consumer.key, name)
            if other != name:
                wrong((*path, "key"), f"is the key of {lines.dotted(('consumers', other))} too; expected a key of its own")


def _price(name: str, price: Price, wrong: Note) -> None:
    provider, slash, model = name.partition("/")
    if not slash or not provider or not model:
        wrong(("prices", name), 'expected "provider/model", such as [prices."openai/gpt-6"]')
    for field in msgspec.structs.fields(Price):
        value = getattr(price, field.name)
        if isinstance(value, float) and not (math.isfinite(value) and value >= 0):
            wrong(("prices", name, field.name), "expected an amount of money, 0 or more")


def _alert(path: lines.Path, alert: Alert, wrong: Note, doubtful: Note) -> None:
    schemes = ("smtp", "smtps") if alert.kind == "email" else ("https", "http")
    if not alert.url.startswith(("env:", "file:")):
        parts = urlsplit(alert.url)
        if parts.scheme not in schemes or not parts.hostname or not alert.url.isprintable():
            wrong((*path, "url"), f'expected {schemes[0]}://..., or "env:NAME" or "file:PATH" where it stands')
        elif parts.scheme == "http" and not is_loopback(parts.hostname):
            doubtful((*path, "url"), "http: whoever listens on the way can read the messages; better https")
    if alert.kind == "email" and not alert.to:
        wrong((*path, "to"), 'expected addresses, such as ["ops@example.com"]')
    for index, address in enumerate((*alert.to, *filter(None, (alert.sender,)))):
        if not _ADDRESS.match(address):
            wrong((*path, "to", index) if index < len(alert.to) else (*path, "sender"), "expected an address (name@host)")
    if not 0 < alert.error_rate <= 1:
        wrong((*path, "error_rate"), "expected a share above 0 and up to 1")
    if alert.secret and alert.kind in ("slack", "wecom"):
        doubtful((*path, "secret"), f"{alert.kind} signs nothing: its url is the secret")


def _storage(config: Config, wrong: Note) -> None:
    storage = config.storage
    scheme = storage.url.partition(":")[0]
    if (
        scheme not in ("sqlite", "postgresql", "postgres", "env", "file")
        or ":" not in storage.url
        or not storage.url.isprintable()
    ):
        wrong(
            ("storage", "url"),
            'expected "sqlite:" (the file aigw.db in the data directory), "sqlite:/path/to/file.db", or '
            '"postgresql://USER:PASSWORD@HOST/DATABASE" (or env:NAME, file:PATH)',
        )
    if storage.journal < 0:
        wrong(("storage", "journal"), "expected a number of bytes, 0 or more")
    if storage.counters != "memory" and not storage.counters.startswith(("redis://", "rediss://", "env:", "file:")):
        wrong(("storage", "counters"), 'expected "memory" or "redis://:PASSWORD@HOST:6379/0" (or env:NAME, file:PATH)')


def references(config: Config) -> list[tuple[lines.Path, str]]:
    """Every place of *config* where a secret or a reference to one stands, with what stands there."""
    found: list[tuple[lines.Path, str]] = []
    for name, provider in config.providers.items():
        found += [(("providers", name, "keys", index), reference) for index, reference in enumerate(provider.references)]
        if provider.proxy and provider.proxy.startswith(("env:", "file:")):
            found.append((("providers", name, "proxy"), provider.proxy))
    if config.upstream.proxy and config.upstream.proxy.startswith(("env:", "file:")):
        found.append((("upstream", "proxy"), config.upstream.proxy))
    for name, alert in config.alerts.items():
        found += [(("alerts", name, field), said) for field in ("url", "secret") if (said := getattr(alert, field))]
    found += [(("consumers", name, "key"), consumer.key) for name, consumer in config.consumers.items()]
    return found

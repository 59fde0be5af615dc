"""What a running server tells of itself on its control socket. No secret is in it, and no prompt.

Nothing is counted for it on the way of an exchange: who is under way is read off the waiting tasks themselves, and only when
somebody asks (about 2 us for each connection).
"""

from __future__ import annotations

import asyncio
import inspect
import os
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from aigw import __version__
from aigw.exchange import Exchange
from aigw.gateway import Gateway, Services
from aigw.server.front import Front
from aigw.server.inference import Inference

MOST_NAMES = 50
"""Models and consumers that are told apart; callers choose names."""

_CONNECTION = Front.start.__code__
_EXCHANGE = Inference.serve.__code__


class Life(NamedTuple):
    """What only the server's own life knows. `changed`: the config file is not the one that serves; `problem` says why not,
    when it cannot. Times are seconds since the epoch, addresses are those by which this machine reaches it, `bound` what was
    bound ("0.0.0.0:8080")."""

    started_at: float
    loaded_at: float
    path: str
    changed: bool
    problem: str
    addresses: dict[str, list[str]]
    bound: dict[str, list[str]]
    retired: Sequence[Gateway] = ()


def state(gateway: Gateway, services: Services, life: Life) -> dict[str, Any]:
    """The answer to GET /state."""
    now = time.time()
    exchanges = in_flight()
    scrub = services.scrubber.name  # their records are not made yet
    return {
        "pid": os.getpid(),
        "version": __version__,
        "now": now,
        "started_at": life.started_at,
        "ready": gateway.not_ready(),
        "store": {
            "away": services.directory.away,
            "since": services.directory.away_since if services.directory.away else None,
            "journal_bytes": services.journal.size,
            "journal_limit": services.journal.limit,
            "journal_full": services.journal.full,
        },
        "data_dir": str(services.data_dir.absolute()),
        "addresses": life.addresses,
        "bound": life.bound,
        "config": {
            "path": life.path,
            "hash": gateway.hash,
            "loaded_at": life.loaded_at,
            "changed": life.changed,
            "problem": life.problem,
        },
        "generations": [_generation(one, serves=one is gateway) for one in (gateway, *reversed(life.retired))],
        "in_flight": {
            "exchanges": services.active,
            "streams": sum(exchange.stream for exchange in exchanges),
            "by_model": _most(scrub(exchange.model or exchange.requested_model) for exchange in exchanges),
            "by_consumer": _most("" if exchange.caller is None else exchange.caller.consumer.name for exchange in exchanges),
        },
        "counters": _counters(services),
        "providers": _providers(gateway),
        "deployments": gateway.board.view(time.perf_counter()),
        "integrity": _integrity(services),
    }


def _generation(gateway: Gateway, *, serves: bool) -> dict[str, Any]:
    """A config with its plugins, and how many exchanges go by it."""
    return {
        "number": gateway.number,
        "config": gateway.hash,
        "since": gateway.built_at,
        "exchanges": gateway.active,
        "serves": serves,
    }


def _integrity(services: Services) -> dict[str, Any]:
    """What the process knows of itself, and whom it may be seen to speak with (for `aigw verify --runtime`)."""
    watch = services.self_watch
    return {
        "intact": watch.intact,
        "summary": watch.summary,
        "oddities": [list(one) for one in watch.oddities],
        "idle_cpu": watch.idle_cpu,
        "peers": list(services.http.peers),
        "hosts": sorted(services.outside),
    }


def in_flight() -> list[Exchange]:
    """Exchanges under way in this event loop: each is a local variable of the coroutine that serves it, which a connection's
    task waits for."""
    found = []
    for task in asyncio.all_tasks():
        waiting: object = task.get_coro()
        if not inspect.iscoroutine(waiting) or waiting.cr_code is not _CONNECTION:
            continue
        while inspect.iscoroutine(waiting) and waiting.cr_code is not _EXCHANGE:
            waiting = waiting.cr_await
        if inspect.iscoroutine(waiting):
            exchange = inspect.getcoroutinelocals(waiting).get("exchange")
            if isinstance(exchange, Exchange):
                found.append(exchange)
    return found


def _most(names: Any) -> dict[str, int]:
    return {name[:200]: number for name, number in Counter(names).most_common(MOST_NAMES)}


def _counters(services: Services) -> dict[str, int]:
    """What was counted since the start, from where it is counted anyway. Two readings make a rate."""
    requests = errors = tokens_in = tokens_out = 0
    for (_, _, _, outcome), row in list(services.metrics._rows.items()):  # noqa: SLF001 - a few hundred plain counters
        requests += row.requests
        errors += 0 if outcome in ("ok", "client_closed") else row.requests
        tokens_in += row.input
        tokens_out += row.output
    journal = services.journal
    return {
        "requests": requests,
        "errors": errors,
        "input_tokens": tokens_in,
        "output_tokens": tokens_out,
        "records_pending": journal.pending,
        "records_lost": journal.lost,
    }


def _providers(gateway: Gateway) -> list[dict[str, Any]]:
    now = time.perf_counter()  # the clock of the pools
    return [
        {
            "name": name,
            "keys": len(pool.keys),
            "pool": pool.view(now),
            "resting": [
                {"key": label, "seconds": round(seconds, 1), "reason": reason} for label, seconds, reason in pool.resting(now)
            ],
        }
        for name, pool in gateway.pools.items()
    ]


def together(states: list[dict[str, Any]], own: dict[str, Any]) -> dict[str, Any]:
    """What several workers told (at least one), as if they were one process; *own* is what their supervisor knows better."""
    first = states[0]
    store = {
        **first["store"],
        "away": next((one["store"]["away"] for one in states if one["store"]["away"]), first["store"]["away"]),
        "since": min((one["store"]["since"] for one in states if one["store"]["since"]), default=None),
        "journal_bytes": max(one["store"]["journal_bytes"] for one in states),
        "journal_full": any(one["store"]["journal_full"] for one in states),
    }
    flights = [one["in_flight"] for one in states]
    return {
        **first,
        "ready": next((one["ready"] for one in states if one["ready"]), ""),
        "store": store,
        "in_flight": {
            "exchanges": sum(one["exchanges"] for one in flights),
            "streams": sum(one["streams"] for one in flights),
            "by_model": _summed(one["by_model"] for one in flights),
            "by_consumer": _summed(one["by_consumer"] for one in flights),
        },
        "generations": _generations([one["generations"] for one in states]),
        "counters": _summed(one["counters"] for one in states),
        "providers": _pools([one["providers"] for one in states]),
        "deployments": _healths([one["deployments"] for one in states]),
        "integrity": _integrities([one["integrity"] for one in states]),
        **own,
    }


def _integrities(told: list[dict[str, Any]]) -> dict[str, Any]:
    """One of the workers looks at the files; each looks at itself."""
    looked = next((one for one in told if one["intact"] is not None), told[0])
    idle = [one["idle_cpu"] for one in told if one["idle_cpu"] is not None]
    return {
        **looked,
        "oddities": [oddity for one in told for oddity in one["oddities"]],
        "idle_cpu": max(idle, default=None),
        "peers": sorted({peer for one in told for peer in one["peers"]}),
    }


def _summed(tables: Iterable[dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for table in tables:
        total.update(table)
    return dict(total.most_common(MOST_NAMES))


def _generations(told: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The newest first; the same one in several workers is one. (A worker that was started again counts from 1.)"""
    found: dict[tuple[int, str], dict[str, Any]] = {}
    for generations in told:
        for one in generations:
            known = found.setdefault((one["number"], one["config"]), {**one, "exchanges": 0})
            known["exchanges"] += one["exchanges"]
            known["since"] = min(known["since"], one["since"])
            known["serves"] = known["serves"] or one["serves"]
    return sorted(found.values(), key=lambda one: (not one["serves"], -one["since"]))


_WORST = ("ready", "full", "probing", "resting")


def _pools(told: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Each key as the worker sees it that knows the worst of it; requests under way are those of all."""
    found: dict[str, dict[str, Any]] = {}
    for providers in told:
        for provider in providers:
            known = found.setdefault(provider["name"], {**provider, "pool": {}, "resting": {}})
            for key in provider["pool"]:
                before = known["pool"].get(key["key"])
                if before is None:
                    known["pool"][key["key"]] = dict(key)
                    continue
                worst = max(before, key, key=lambda one: (_WORST.index(one["state"]), one["seconds"]))
                added = {"in_flight": before["in_flight"] + key["in_flight"], "score": before["score"] + key["score"]}
                for left in ("rpm_left", "tpm_left"):
                    added[left] = None if key[left] is None or before[left] is None else before[left] + key[left]
                known["pool"][key["key"]] = {**worst, **added}
            for rest in provider["resting"]:
                known["resting"][rest["key"]] = max(
                    known["resting"].get(rest["key"], rest), rest, key=lambda one: one["seconds"]
                )
    return [{**one, "pool": list(one["pool"].values()), "resting": list(one["resting"].values())} for one in found.values()]


_CIRCUITS = ("closed", "half-open", "open")


def _healths(told: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for deployments in told:
        for one in deployments:
            before = found.setdefault(one["deployment"], one)
            if before is one:
                continue
            worst = max(before, one, key=lambda each: (_CIRCUITS.index(each["circuit"]), each["seconds"]))
            summed = {name: before[name] + one[name] for name in ("in_flight", "good", "failed")}
            pace = {name: max(before[name] or 0.0, one[name] or 0.0) or None for name in ("first_byte", "first_token")}
            found[one["deployment"]] = {**worst, **summed, **pace}
    return list(found.values())

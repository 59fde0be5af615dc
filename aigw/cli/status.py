"""`aigw status`: is it running, and is it well."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aigw.cli import control, figures, output, windows
from aigw.cli.locations import Locations, locations
from aigw.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from aigw.config.schema import Config
    from aigw.exchange import Record
    from aigw.storage.base import UsageRow

EXAMPLES = """\b
Examples:
  aigw status                       what runs here, since when, where, with what
  aigw status --json | jq .ready    for scripts
  aigw status > /dev/null && echo up
"""

app = typer.Typer(rich_markup_mode=None)


@app.command(epilog=EXAMPLES)
def status(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Whether the server runs, since when, at which addresses, with which config; its providers, and how today went.

    Exits with 0 when it runs and is ready, with 1 when not.
    """
    where = locations(context)
    state, hung = None, ""
    try:
        state = control.ask(where.data_path())
    except OSError as error:
        hung = error.strerror or "it does not answer"
    config, problem = _config(where)
    today, last, store_problem = _usage(where, config)
    ready = state is not None and not state.get("ready")
    if as_json:
        output.json(
            {
                "running": state is not None,
                "ready": ready,
                "reason": (state or {}).get("ready") or ("" if state is not None else hung or "not running"),
                **{name: value for name, value in (state or {}).items() if name != "ready"},
                "data_dir": str(where.data_path().absolute()),
                "config": (state or {}).get("config") or {"path": str(where.config_path().absolute()), "problem": problem},
                "today": _figures(today),
                "last_error": None if last is None else _error(last),
                "problem": store_problem,
            }
        )
    else:
        _show(where, state, hung, problem, store_problem)
        _show_use(today, last)
        if state is None and not hung:
            output.note("Start it: aigw serve")
    if not ready:
        raise typer.Exit(1)


def _show(where: Locations, state: dict[str, Any] | None, hung: str, problem: str, store_problem: str) -> None:
    if state is None:
        if hung:
            output.data(f"aigw hangs: {output.safe(hung)}")
        else:
            output.data(f"aigw is not running for {output.safe(str(where.data_path()))}")
        path = where.config_path()
        what = "is not there yet: 'aigw init' makes one" if not path.exists() else output.safe(problem) or "can be served"
        _line("config", what if problem else f"{output.safe(str(path))} {what}")
    else:
        started = float(state.get("started_at", 0))
        output.data(f"aigw {state.get('version')} is running since {_moment(started)} (process {state.get('pid')})")
        _line("ready", "yes" if not state.get("ready") else f"no: {output.safe(str(state['ready']))}")
        _line("addresses", "  ".join(map(str, state.get("addresses", {}).get("data", []))))
        for place in state.get("bound", {}).get("data", []):
            if str(place).startswith(("0.0.0.0:", "[::]:")):
                _line("", f"other machines reach it, too ({place})")
        for address in state.get("addresses", {}).get("admin", [])[:1]:
            _line("metrics", f"{address}/metrics")
        workers = state.get("workers", [])
        if workers:
            serving = sum(not one.get("ready") for one in workers)
            restarts = sum(int(one.get("restarts", 0)) for one in workers)
            _line("workers", f"{serving} of {len(workers)} serve" + (f"; {_some(restarts, 'restart')}" if restarts else ""))
        _show_config(where, state.get("config", {}))
        _show_providers(state.get("providers", []))
        flight = state.get("in_flight", {})
        _line(
            "in flight",
            f"{_some(int(flight.get('exchanges', 0)), 'request')}, {figures.count(flight.get('streams', 0))} streaming",
        )
        counters = state.get("counters", {})
        store = state.get("store", {})
        if store.get("away"):
            waiting = figures.count(counters.get("records_pending", 0))
            _line("database", f"away since {_moment(float(store.get('since') or 0))}; {waiting} records wait in the journal")
            _line("", output.safe(str(store["away"])))
        if store.get("journal_full"):
            _line("journal", "full: see 'aigw doctor'")
        if counters.get("records_lost"):
            _line("records", f"{figures.count(counters['records_lost'])} lost: no room on the disk or in memory")
    if store_problem and not (state or {}).get("store", {}).get("away"):
        _line("database", output.safe(store_problem))


def _show_config(where: Locations, config: dict[str, Any]) -> None:
    path = str(config.get("path", ""))
    _line("config", f"{output.safe(path)} (loaded {_moment(float(config.get('loaded_at', 0)))})")
    if config.get("problem"):
        _line("", "the file was changed and cannot be served; the one before serves on:")
        for line in str(config["problem"]).splitlines()[:5]:
            _line("", f"  {output.safe(line)}")
    elif config.get("changed"):
        _line("", "the file is newer than what serves; it is read within two seconds")
    if path and where.config_path().absolute() != Path(path):
        _line("", f"not the one this command would use: {output.safe(str(where.config_path().absolute()))}")


def _show_providers(providers: list[dict[str, Any]]) -> None:
    label = "providers"
    for provider in providers:
        resting = provider.get("resting", [])
        keys = int(provider.get("keys", 0))
        text = f"{output.safe(str(provider.get('name')))}: {_some(keys, 'key')}"
        if resting:
            each = (
                f"{one.get('key')} for {figures.duration(int(one.get('seconds', 0)) * 1_000_000)} ({one.get('reason')})"
                for one in resting
            )
            text += f", {len(resting)} resting: {output.safe(', '.join(each))}"
        _line(label, text)
        label = ""


def _show_use(today: UsageRow | None, last: Record | None) -> None:
    if today is not None:
        share = figures.share(today.errors, today.requests)
        errors = f", {_some(today.errors, 'error')} ({share})" if today.errors else ", no errors" if today.requests else ""
        cost = f", {figures.money(today.costs, today.unpriced)}" if today.costs or today.unpriced else ""
        _line("today", f"{_some(today.requests, 'request')}{errors}{cost}")
    if last is not None:
        found = _error(last)
        told = "  ".join(
            filter(None, (last.consumer, f"{found['model']} at {last.provider}" if last.provider else found["model"]))
        )
        _line("last error", f"{_moment(found['at'])} {output.safe(last.error)}")
        _line("", output.safe("  ".join(filter(None, (told, last.id)))))


def _some(number: int, what: str) -> str:
    return f"{figures.count(number)} {what}{'s' * (number != 1)}"


def _line(label: str, text: str) -> None:
    output.data(f"  {label:<11} {text}".rstrip())


def _config(where: Locations) -> tuple[Config, str]:
    """The config, else the defaults and what is wrong: a broken file is no reason not to look."""
    from aigw.config.schema import Config

    try:
        return where.load_config(), ""
    except ConfigError as error:
        return Config(), str(error).splitlines()[0]


def _usage(where: Locations, config: Config) -> tuple[UsageRow | None, Record | None, str]:
    """Today's sums, the last failure, and what kept us from them."""
    if not where.data_path().is_dir():  # to look is no reason to make a store
        return None, None, ""

    async def read() -> tuple[UsageRow, Record | None]:
        zone = windows.local_zone()
        now = datetime.now(windows.zone_named(zone))
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0).timestamp()
        async with where.store(config) as store:
            [row] = await store.usage("", midnight, time.time() + 1, zone)
            failed = await store.records(failed=True, limit=1)
        return row, failed[0] if failed else None

    try:
        today, last = asyncio.run(read())
    except StoreError as error:
        return None, None, str(error)
    return today, last, ""


def _figures(today: UsageRow | None) -> dict[str, Any] | None:
    if today is None:
        return None
    return {
        "requests": today.requests,
        "errors": today.errors,
        "input_tokens": today.input,
        "output_tokens": today.output,
        "costs": {currency: figures.exact(nano) for currency, nano in today.costs.items()},
        "unpriced_requests": today.unpriced,
    }


def _error(record: Record) -> dict[str, Any]:
    return {
        "at": record.at + record.took / 1e6,
        "id": record.id,
        "code": record.error,
        "consumer": record.consumer,
        "model": record.model or record.requested_model,
        "provider": record.provider,
        "status": record.status,
    }


def _moment(at: float) -> str:
    """14:03:22 today, else with its date."""
    moment, now = datetime.fromtimestamp(at).astimezone(), datetime.now().astimezone()
    return moment.strftime("%H:%M:%S" if moment.date() == now.date() else "%Y-%m-%d %H:%M")

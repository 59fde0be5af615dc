"""`aigw canary`: shift a share of a route's traffic to another place, and watch what comes of it."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from aigw.cli import canary_checks as checks, figures, output, windows
from aigw.cli.commands import Noun
from aigw.cli.complete import model_names, target_names
from aigw.cli.locations import Locations, locations
from aigw.cli.output import Column

if TYPE_CHECKING:
    from aigw.config.edit import ConfigFile
    from aigw.routing.canary import Canary, Counts, Tally

app = typer.Typer(
    cls=Noun,
    rich_markup_mode=None,
    help="Canaries: a growing share of a route goes to another model, and back by itself. Without a command: list.",
    epilog="""\b
Examples:
  aigw canary start chat --to gpu/qwen3-32b
  aigw canary status chat
""",
)

Route = Annotated[
    str, typer.Argument(metavar="ROUTE", help="A route of the config, or a model's name.", autocompletion=model_names)
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]


# ---- start


@app.command(
    epilog="""\b
Examples:
  aigw canary start chat --to gpu/qwen3-32b
  aigw canary start chat --to gpu/qwen3-32b --steps 5,50,100 --every 2h --sticky header:x-session
  aigw canary start chat --to gpu/qwen3-32b --shadow 5% --spend 1usd      mirror only: nobody gets its answers
"""
)
def start(
    context: typer.Context,
    route: Route,
    to: Annotated[str, typer.Option("--to", metavar="PROVIDER[/MODEL]", help="The new place.", autocompletion=target_names)],
    steps: Annotated[str, typer.Option(metavar="PERCENT,...", help="Shares of the traffic, in order.")] = "1,5,25,50,100",
    every: Annotated[str, typer.Option(metavar="SPAN", help="The least time that a step lasts.")] = "30m",
    sticky: Annotated[
        str, typer.Option(metavar="WHAT", help="What keeps to one side: consumer, conversation, header:NAME.")
    ] = "consumer",
    min_samples: Annotated[
        int, typer.Option("--min-samples", min=1, metavar="N", help="The least requests of the new side in each step.")
    ] = 200,
    rollback_on: Annotated[
        str,
        typer.Option(
            "--rollback-on",
            metavar="REASON,...",
            help="What rolls it back: errors and empty always; latency, cost, refusals, rejections only pause unless named.",
        ),
    ] = "errors,empty",
    margin: Annotated[
        float,
        typer.Option(
            min=0.1, max=100, metavar="POINTS", help="No step before failures are surely less than so many points more."
        ),
    ] = 5.0,
    shadow: Annotated[
        str | None, typer.Option(metavar="PERCENT", help="Mirror this share instead: answers are counted and thrown away.")
    ] = None,
    spend: Annotated[str, typer.Option(metavar="AMOUNT", help="The most that a shadow may cost.")] = "1usd",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Also to a model that the provider does not list.")] = False,
    dry_run: DryRun = False,
) -> None:
    """Begin to send a share of ROUTE to another place. It grows step by step while the new side is no worse, goes back by
    itself on errors and empty answers, and pauses on latency and cost."""
    from aigw.cli import names
    from aigw.routing.canary import Canary, places

    where = locations(context)
    found = names.read(where)
    begun = checks.beginning(found, route)
    provider, model = checks.place(found, to, sure=yes)
    checks.not_there_yet(route, begun, provider, model)
    checks.same_vectors(route, begun, model)
    now = time.time()
    wanted = Canary(
        id=secrets.token_hex(6),
        route=route,
        provider=provider,
        model=model,
        before=places(begun.targets),
        configured=begun.configured,
        steps=checks.percents(steps),
        every=_span(every),
        sticky=checks.stickiness(sticky),
        min_samples=min_samples,
        rollback_on=checks.reasons(rollback_on),
        margin=margin,
        started=now,
    )
    if shadow is not None:
        wanted.shadow = checks.percent(shadow, "--shadow")
        wanted.spend, wanted.currency = checks.amount(spend)
        checks.affordable(found, route, provider, model, wanted.currency, now)
    wanted.note(now, "started", _plan(wanted))
    if dry_run:
        output.note(f"would start: {_plan(wanted)}; nothing was changed")
        return
    consumers = asyncio.run(_start(where, wanted))
    output.note(f"Started: {_plan(wanted)}.")
    if not wanted.shadow and sticky == "consumer":
        if not consumers:
            output.note("There are no consumers: callers are told apart by the `user` of their requests, or their address.")
        elif consumers * wanted.share < 1:
            output.note(
                f"Consumers are sticky, and there are {consumers}: {wanted.share:.0%} of them may be nobody. "
                "With --sticky conversation each conversation of theirs counts for itself."
            )
    _say_who_serves(where)
    output.note(f"Follow it: aigw canary status {output.safe(route)}")


def _span(text: str) -> float:
    try:
        return windows.seconds(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--every") from None


def _plan(canary: Canary) -> str:
    from aigw.routing.canary import money, span

    if canary.shadow:
        cap = money(canary.spend, canary.currency)
        return f"mirror {canary.shadow:g} % of {canary.route} to {canary.place}, for {cap} at most"
    steps = ", ".join(f"{one:g}" for one in canary.steps)
    return (
        f"{canary.route} -> {canary.place}: {steps} %, each for {span(canary.every)} and {canary.min_samples} requests at "
        f"least, sticky by {canary.sticky.replace(':', ' ')}"
    )


async def _start(where: Locations, wanted: Canary) -> int:
    """Put it into the store; returns how many consumers there are."""
    from aigw.routing.canaries import edit_all

    taken: list[Canary] = []

    def add(canaries: list[Canary]) -> bool:
        taken[:] = [one for one in canaries if one.live and one.route == wanted.route]
        if not taken:
            canaries.append(wanted)
        return not taken

    config = where.load_config()
    async with where.store(config) as store:
        if not await edit_all(store, add):
            output.fail(
                f"{wanted.route} has a canary already, to {taken[0].place} ({taken[0].status}): "
                f"aigw canary abort {output.safe(wanted.route)} ends it"
            )
            raise typer.Exit(1)
        consumers, _, _ = await store.consumers()
    return len(consumers) + len(config.consumers)


def _say_who_serves(where: Locations) -> None:
    from aigw.cli import control

    try:
        state = control.ask(where.data_path())
    except OSError:
        return
    if state is None:
        output.note("No server runs here; it begins with 'aigw serve'.")


# ---- list, status


@app.command("list")
def list_canaries(
    context: typer.Context,
    everything: Annotated[bool, typer.Option("--all", help="Those that have ended, too.")] = False,
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="For spreadsheets.")] = False,
) -> None:
    """Canaries with their share, their requests and how both sides fare."""
    if as_json and as_csv:
        raise typer.BadParameter("--json and --csv exclude each other")
    found = [(one, counts) for one, counts in asyncio.run(_read(locations(context))) if one.live or everything]
    if as_json:
        output.json([_facts(one, counts) for one, counts in found])
        return
    rows = [
        [
            one.route,
            one.place,
            _share(one),
            one.status.replace("_", " "),
            figures.count(counts.new.requests),
            _percent(counts.new, "failed"),
            _percent(counts.old, "failed"),
            one.reason,
        ]
        for one, counts in found
    ]
    if as_csv:
        head = ["route", "to", "share", "state", "requests", "failed", "old_requests", "old_failed", "reason"]
        output.csv(
            head,
            [
                [one.route, one.place, 100 * one.share, one.status, *_failed(counts.new), *_failed(counts.old), one.reason]
                for one, counts in found
            ],
        )
    elif not found:
        output.note(f"No canary{'' if everything else ' is live'}. Start one: aigw canary start ROUTE --to PROVIDER/MODEL")
    else:
        output.table(
            [
                Column("route"),
                Column("to"),
                Column("share", right=True),
                Column("state"),
                Column("requests", right=True, rank=1),
                Column("failed", right=True, rank=2),
                Column("old failed", right=True, rank=3),
                Column("reason", rank=4),
            ],
            rows,
        )


@app.command(
    epilog="""\b
Examples:
  aigw canary status
  aigw canary status chat --json
"""
)
def status(
    context: typer.Context,
    route: Annotated[str | None, typer.Argument(metavar="ROUTE", autocompletion=model_names)] = None,
    as_json: AsJson = False,
) -> None:
    """How both sides fare, what the next step waits for, and what has happened. Of a route without a live canary, its last."""
    found = asyncio.run(_read(locations(context)))
    if route is None:
        found = [pair for pair in found if pair[0].live]
    else:
        of_route = [pair for pair in found if pair[0].route == route]
        found = [pair for pair in of_route if pair[0].live] or of_route[-1:]
        if not found:
            _nothing(route)
    if as_json:
        facts = [_facts(one, counts) for one, counts in found]
        output.json(facts if route is None else facts[0])
        return
    if not found:
        output.note("No canary is live. Start one: aigw canary start ROUTE --to PROVIDER/MODEL")
    for at, (one, counts) in enumerate(found):
        if at:
            output.data("")
        _show(one, counts)


def _show(canary: Canary, counts: Counts) -> None:
    from aigw.routing.canary import money, waits_for

    lines = {
        "route": canary.route,
        "to": canary.place,
        "state": f"{canary.status.replace('_', ' ')}{f': {canary.reason}' if canary.reason else ''}",
    }
    if canary.shadow:
        spent = money(counts.new.cost, canary.currency)
        lines["mirrors"] = f"{canary.shadow:g} %, {spent} of {money(canary.spend, canary.currency)} spent"
    else:
        lines["share"] = f"{_share(canary)}  (steps: {', '.join(f'{one:g}' for one in canary.steps)})"
    if canary.status == "running" and not canary.shadow:
        last = canary.step + 1 >= len(canary.steps)
        waits = waits_for(canary, counts, canary.held)
        lines["next step"] = "it was the last: promote or abort it" if last else f"after {', '.join(waits)}" if waits else "now"
    for label, text in lines.items():
        output.data(f"{label + ':':<11}{output.safe(text)}")
    output.data("")
    output.table([Column(""), Column("old", right=True), Column(canary.arm, right=True)], _compared(canary, counts))
    output.data("")
    for event in canary.history:
        when = datetime.fromtimestamp(event.at, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        output.data(f"{when}  {event.what.replace('_', ' '):<11} {output.safe(event.detail)}".rstrip())


def _compared(canary: Canary, counts: Counts) -> list[list[str]]:
    from aigw.routing.canary import RATES
    from aigw.storage.histogram import percentile

    sides = (counts.old, counts.new)
    rows = [["requests", *(figures.count(one.requests) for one in sides)]]
    rows += [[name, *(_percent(one, reason) for one in sides)] for reason, name in RATES.items()]
    for name, label in (("first_token", "first token p50"), ("whole", "whole answer p50")):
        rows.append([label, *(figures.duration(percentile(getattr(one, name), 0.5)) for one in sides)])
    rows.append(["tokens/s", *(figures.rate(_speed(one)) for one in sides)])
    rows.append(["cost/request", *(_mean_cost(one, canary.currency) for one in sides)])
    return rows


def _speed(tally: Tally) -> float | None:
    from aigw.routing.canary import speed

    return speed(tally) if tally.stream_took else None


def _mean_cost(tally: Tally, currency: str) -> str:
    from aigw.routing.canary import mean_cost, money

    return money(mean_cost(tally), currency) if tally.priced else "?" if tally.unpriced else "-"


def _failed(tally: Tally) -> tuple[int, int]:
    return tally.requests, tally.failed


def _percent(tally: Tally, name: str) -> str:
    return figures.share(getattr(tally, name), tally.requests)


def _share(canary: Canary) -> str:
    return f"{canary.shadow:g} % mirrored" if canary.shadow else f"{100 * canary.share:g} %"


def _facts(canary: Canary, counts: Counts) -> dict[str, Any]:
    from aigw.routing.canary import waits_for

    def side(tally: Tally) -> dict[str, Any]:
        from aigw.storage.histogram import percentile

        names = ("requests", "errors", "empty", "refusals", "rejections", "priced", "unpriced", "cost")
        return {name: getattr(tally, name) for name in names} | {
            "first_token_p50": percentile(tally.first_token, 0.5),
            "took_p50": percentile(tally.whole, 0.5),
            "tokens_per_second": _speed(tally),
        }

    running = canary.status == "running" and not canary.shadow and canary.step + 1 < len(canary.steps)
    return {
        "id": canary.id,
        "route": canary.route,
        "provider": canary.provider,
        "model": canary.model,
        "state": canary.status,
        "reason": canary.reason,
        "share": 100 * canary.share,
        "steps": list(canary.steps),
        "step": canary.step,
        "every": canary.every,
        "min_samples": canary.min_samples,
        "margin": canary.margin,
        "sticky": canary.sticky,
        "rollback_on": list(canary.rollback_on),
        "accepted": list(canary.accepted),
        "shadow": canary.shadow or None,
        "spend": canary.spend or None,
        "currency": canary.currency,
        "waits_for": waits_for(canary, counts, canary.held) if running else [],
        "old": side(counts.old),
        canary.arm: side(counts.new),
        "history": [{"at": event.at, "what": event.what, "detail": event.detail} for event in canary.history],
    }


async def _read(where: Locations) -> list[tuple[Canary, Counts]]:
    from aigw.routing.canaries import collected, read

    async with where.store(where.load_config()) as store:
        return [(one, await collected(store, one)) for one in await read(store)]


def _nothing(route: str) -> NoReturn:
    output.fail(f"{route!r} has no canary; 'aigw canary' lists what there is")
    raise typer.Exit(1)


# ---- pause, resume, promote, abort


@app.command(
    epilog="""\b
Examples:
  aigw canary pause chat
"""
)
def pause(context: typer.Context, route: Route, dry_run: DryRun = False) -> None:
    """Take no further step. The share stays as it is, and it is still rolled back when it fails."""

    def paused(canary: Canary) -> str:
        if canary.status != "running":
            return ""
        canary.status, canary.reason = "paused", "by the operator"
        canary.note(time.time(), "paused", "by the operator")
        return f"Paused at {_share(canary)}"

    _change(context, route, paused, "only a running one can be paused", dry_run=dry_run)


@app.command(
    epilog="""\b
Examples:
  aigw canary resume chat
"""
)
def resume(context: typer.Context, route: Route, dry_run: DryRun = False) -> None:
    """Go on after a pause. What it was paused for is accepted: it will not be paused for that again."""

    def resumed(canary: Canary) -> str:
        if canary.status != "paused":
            return ""
        cause = canary.cause
        if cause and cause not in canary.accepted:
            canary.accepted = (*canary.accepted, cause)
        canary.status = "running"
        canary.reason = canary.cause = ""
        canary.note(time.time(), "resumed", f"{cause} accepted" if cause else "by the operator")
        return f"Resumed at {_share(canary)}" + (f"; {cause} will not pause it again" if cause else "")

    _change(context, route, resumed, "only a paused one can be resumed", dry_run=dry_run)


@app.command(
    epilog="""\b
Examples:
  aigw canary abort chat
"""
)
def abort(context: typer.Context, route: Route, yes: Yes = False, dry_run: DryRun = False) -> None:
    """End it: all traffic goes where the config says, within a second."""
    if not yes and not dry_run and output.interactive() and not output.confirm(f"End the canary of {route}?"):
        output.note("Nothing was changed.")
        raise typer.Exit(1)

    def aborted(canary: Canary) -> str:
        canary.status, canary.reason = "aborted", "by the operator"
        canary.note(time.time(), "aborted", "by the operator")
        return "Aborted; all traffic goes where the config says"

    _change(context, route, aborted, "", dry_run=dry_run)


@app.command(
    epilog="""\b
Examples:
  aigw canary promote chat             all traffic now; prints what to write into the config
  aigw canary promote chat --write     writes it
"""
)
def promote(
    context: typer.Context,
    route: Route,
    write: Annotated[bool, typer.Option("--write", help="Make the new place the route's target in the config.")] = False,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Send all traffic to the new place, whatever the figures say. The config is the truth: write it there to make it last."""
    where = locations(context)
    canary = next((one for one, _ in asyncio.run(_read(where)) if one.route == route and one.live), None)
    if canary is None:
        _nothing(route)
    if canary.shadow:
        output.fail(f"{route} is only mirrored: abort it, and start a canary without --shadow")
        raise typer.Exit(1)
    file = _written(where, canary)
    if dry_run:
        output.note(f"would send all of {route} to {canary.place}; nothing was changed")
        if write:
            output.data("\n".join(output.safe(line) for line in file.diff().split("\n")))
        return
    if not yes and output.interactive() and not output.confirm(f"Send all of {route} to {canary.place}?"):
        output.note("Nothing was changed.")
        raise typer.Exit(1)
    if write:
        from aigw.cli import running

        file.save()
        output.note(f"Wrote it into {file.path}")
        if not running.tell(where):
            raise typer.Exit(1)

    def promoted(found: Canary) -> str:
        if write:
            found.status, found.reason = "done", "the config has it now"
            found.note(time.time(), "done", "promoted by the operator, written into the config")
            return f"Promoted: the config sends all of {found.route} to {found.place}"
        if found.status != "complete":
            if found.steps[-1] < 100:
                found.steps = (*found.steps, 100.0)
            found.step, found.status = len(found.steps) - 1, "complete"
            found.reason = "promoted by the operator; write it into the config"
            found.note(time.time(), "complete", "promoted by the operator")
        return f"Promoted: all of {found.route} goes to {found.place}, as long as this canary lives"

    _change(context, route, promoted, "", dry_run=False, ended_is_well=write)
    if not write:
        output.note(f"Make it last: in {file.path}, or by 'aigw canary promote {output.safe(route)} --write':")
        output.data(_line(canary))


def _line(canary: Canary) -> str:
    from aigw.config.edit import rendered, spelled

    target = {"provider": canary.provider, **({"model": canary.model} if canary.model else {})}
    return f"[routes.{spelled(canary.route)}]\ntargets = {rendered([target], 10)}"


def _written(where: Locations, canary: Canary) -> ConfigFile:
    """The config with the new place as the route's only target."""
    from aigw.config.edit import ConfigFile

    file = ConfigFile.read(where.config_path())
    old = file.get("routes", canary.route)
    target = {"provider": canary.provider, "model": canary.model}
    file.set((old if isinstance(old, dict) else {}) | {"targets": [target]}, "routes", canary.route)
    file.check()
    return file


def _change(
    context: typer.Context,
    route: str,
    change: Callable[[Canary], str],
    otherwise: str,
    *,
    dry_run: bool,
    ended_is_well: bool = False,
) -> None:
    """Have *change* edit the live canary of *route*; it says what it did, or "" when it cannot: then *otherwise* is why."""
    from aigw.routing.canaries import edit_all

    said: list[str] = []
    state: list[str] = []

    def edited(canaries: Sequence[Canary]) -> bool:
        said.clear()
        for one in canaries:
            if one.route == route and one.live:
                state[:] = [one.status]
                if done := change(one):
                    said.append(done)
        return bool(said) and not dry_run

    async def work() -> None:
        where = locations(context)
        async with where.store(where.load_config()) as store:
            await edit_all(store, edited)

    asyncio.run(work())
    if not state and not ended_is_well:
        _nothing(route)
    if not said and not ended_is_well:
        output.fail(f"the canary of {route} is {state[0].replace('_', ' ')}: {otherwise}")
        raise typer.Exit(1)
    if dry_run:
        output.note(f"would say: {said[0]}; nothing was changed")
        return
    output.note(f"{said[0] if said else 'It had ended already'}.")

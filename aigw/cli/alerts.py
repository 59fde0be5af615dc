"""`aigw alerts`: who is told when something happens, and whether that works."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from aigw.cli import output
from aigw.cli.commands import Noun
from aigw.cli.locations import locations
from aigw.cli.output import Column

if TYPE_CHECKING:
    from aigw.config.schema import Alert, Config

app = typer.Typer(
    cls=Noun,
    rich_markup_mode=None,
    help="Alerts: who is told when something happens ([alerts.NAME] of the config). Without a command: list.",
    epilog="""\b
Examples:
  aigw alerts
  aigw alerts test ops
""",
)


@app.command("list", epilog="\b\nExamples:\n  aigw alerts\n  aigw alerts --json\n")
def list_alerts(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="For spreadsheets.")] = False,
) -> None:
    """Every [alerts.NAME]: how it is told, and of what. Addresses are not shown: of chat robots they are secrets."""
    if as_json and as_csv:
        raise typer.BadParameter("--json and --csv exclude each other")
    alerts = locations(context).load_config().alerts
    rows = [(name, one.kind, ", ".join(one.events) or "all", ", ".join(one.to) or "-") for name, one in alerts.items()]
    names = ("name", "kind", "events", "to")
    if as_json:
        output.json([{"name": n, "kind": one.kind, "events": one.events, "to": one.to} for n, one in alerts.items()])
    elif as_csv:
        output.csv(names, rows)
    elif rows:
        output.table([Column(name) for name in names], [[output.safe(cell) for cell in row] for row in rows])
    else:
        output.note(
            'Nobody is told of anything. In the config:\n\n  [alerts.ops]\n  kind = "slack"\n  url = "env:SLACK_WEBHOOK"\n'
        )


@app.command("test", epilog="\b\nExamples:\n  aigw alerts test\n  aigw alerts test ops\n")
def send_test(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Only this one.")] = None,
) -> None:
    """Send a message that says it is a test, by each of them or by one. Exit code 1 when one did not arrive."""
    from aigw.cli.suggest import unknown

    config = locations(context).load_config()
    if name is not None and name not in config.alerts:
        raise typer.BadParameter(unknown("alert", name, config.alerts), param_hint="NAME")
    chosen = config.alerts if name is None else {name: config.alerts[name]}
    if not chosen:
        output.note("There is no [alerts.NAME] in the config.")
    problems = {one: _sent(config, one, table) for one, table in chosen.items()}
    for one, problem in problems.items():
        if problem:
            output.fail(f"{one}: {output.safe(problem)}")
        else:
            output.note(f"{one}: sent")
    if any(problems.values()):
        raise typer.Exit(1)


def _sent(config: Config, name: str, table: Alert) -> str:
    """Why the test message did not arrive; "" when it did."""
    import asyncio

    from aigw.gateway import channel, messenger
    from aigw.hooks import Event
    from aigw.telemetry.alerts import Alerts
    from aigw.upstream.http import HttpTransport

    async def alone(_: str) -> bool:
        return True

    async def send() -> str:
        http = HttpTransport(4)
        try:
            alerts = Alerts(messenger(config, http), alone)
            event = Event(
                kind="integrity", subject="test", text="This is a test: alerts of this gateway arrive.", at=time.time()
            )
            return await alerts.tell(channel(name, table), event, pauses=())
        finally:
            await http.close()

    with output.working(f"asking {name}"):
        return asyncio.run(send())

"""`aigw serve`: the server in the foreground."""

from __future__ import annotations

from typing import Annotated

import typer

from aigw.cli import output
from aigw.cli.locations import locations

app = typer.Typer(rich_markup_mode=None)

EXAMPLES = """\b
Examples:
  aigw serve                          at http://127.0.0.1:8080/v1, until Ctrl-C
  aigw serve --port 9000              at another port
  aigw serve --workers auto           with a process for each processor
  aigw serve --config ./aigw.toml     with another config
  kill -HUP PID                       reload the config; running answers are not disturbed
"""


@app.command(epilog=EXAMPLES)
def serve(
    context: typer.Context,
    host: Annotated[str | None, typer.Option(envvar="AIGW_HOST", help="Address to listen at.")] = None,
    port: Annotated[int | None, typer.Option(envvar="AIGW_PORT", min=0, max=65535, help="Port; 0 takes a free one.")] = None,
    workers: Annotated[
        str, typer.Option(envvar="AIGW_WORKERS", metavar="N|auto", help="Processes that serve; auto: one for each processor.")
    ] = "",
) -> None:
    """Serve models' APIs to OpenAI and Anthropic clients."""
    import gc

    from aigw.config.load import load_with_notes
    from aigw.server import lifecycle
    from aigw.server.processors import amount

    places = locations(context)
    loaded = load_with_notes(places.config_path())
    flags: dict[str, str | int] = {}
    if host is not None:
        flags["host"] = host
    if port is not None:
        flags["port"] = port
    if workers:
        flags["workers"] = _workers(workers)
    number = amount(flags.get("workers", loaded.config.server.workers))
    try:
        lifecycle.intact(loaded.config, places.data_path())
        gc.freeze()  # what was imported is there to stay: collections need not look at it
        if number > 1:
            from aigw.server import supervisor

            supervisor.supervise(loaded, places.data_path(), output.note, flags, number)
        else:
            lifecycle.serve(loaded, places.data_path(), output.note, flags)
    except (lifecycle.CannotListenError, lifecycle.NotIntactError) as error:
        output.fail(str(error))
        raise typer.Exit(1) from None


def _workers(text: str) -> str | int:
    from aigw.config.check import MOST_WORKERS

    if text == "auto":
        return text
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MOST_WORKERS:
        raise typer.BadParameter(f"expected 1 to {MOST_WORKERS}, or auto", param_hint="--workers")
    return int(text)

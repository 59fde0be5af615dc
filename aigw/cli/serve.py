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
  aigw serve --config ./aigw.toml     with another config
  kill -HUP PID                       reload the config; running answers are not disturbed
"""


@app.command(epilog=EXAMPLES)
def serve(
    context: typer.Context,
    host: Annotated[str | None, typer.Option(envvar="AIGW_HOST", help="Address to listen at.")] = None,
    port: Annotated[int | None, typer.Option(envvar="AIGW_PORT", min=0, max=65535, help="Port; 0 takes a free one.")] = None,
) -> None:
    """Serve models' APIs to OpenAI and Anthropic clients."""
    import gc

    from aigw.config.load import load_with_notes
    from aigw.server import lifecycle

    places = locations(context)
    loaded = load_with_notes(places.config_path())
    flags: dict[str, str | int] = {}
    if host is not None:
        flags["host"] = host
    if port is not None:
        flags["port"] = port
    try:
        gc.freeze()  # what was imported is there to stay: collections need not look at it
        lifecycle.serve(loaded, places.data_path(), output.note, flags)
    except lifecycle.CannotListenError as error:
        output.fail(str(error))
        raise typer.Exit(1) from None

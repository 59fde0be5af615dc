"""`aigw`: the commands, and the one border where what goes wrong becomes a message and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from aigw.cli import output
from aigw.cli.commands import Root, assemble
from aigw.cli.locations import Locations
from aigw.errors import ConfigError, GatewayError, StoreError

COMMANDS = {
    # each is the module aigw/cli/NAME.py with a typer app called `app`; in 80 columns a line each
    "init": "Set up: providers, keys, a default model, a first call.",
    "serve": "Serve models' APIs at http://127.0.0.1:8080/v1.",
    "service": "Run by systemd, from boot or login on: install, uninstall.",
    "chat": "Ask a model through the gateway, once or in a conversation.",
    "run": "Start a coding agent on it: claude, codex, opencode, qwen.",
    "connect": "What to enter in an application so that it uses the gateway.",
    "keys": "Consumer keys: who may call. Create, list, show, revoke.",
    "groups": "What all of a group may do, and how much together.",
    "providers": "Who serves models: list, add, test; their keys.",
    "models": "Which names work, where each goes and why, at what price.",
    "routes": "Names of your own: targets, shares, fallbacks.",
    "prices": "What models cost here, and who says so.",
    "canary": "Try another model on a share of a route; it rolls itself back.",
    "plugins": "What edits, answers, masks or refuses requests; your own.",
    "alerts": "Who is told when something happens; try it.",
    "data": "What is kept: back up, restore, prune, export, copy.",
    "config": "The config file: check, show, edit, go back.",
    "stats": "Who used what, how fast, at what cost.",
    "top": "What happens now: live figures, until q.",
    "logs": "What was asked and what became of it, a line each.",
    "explain": "Where a request would go and why; or what became of one.",
    "reload": "Take the config and the plugins as they are now.",
    "status": "Whether it runs, since when, where, and how it is.",
    "verify": "Whether what runs here is what was released.",
    "update": "A newer release in place of this one; and back.",
    "doctor": "What is wrong here, what it means, and the command that helps.",
}

EXAMPLES = """\b
Examples:
  aigw init                         set up, by questions
  aigw serve                        serve until Ctrl-C
  aigw keys create alice            a key for alice, printed once
  aigw stats --by consumer          who used what in the last 24 hours
  aigw COMMAND --help               what a command takes
"""

app = typer.Typer(cls=Root, rich_markup_mode=None, context_settings={"max_content_width": 100})


@app.callback(invoke_without_command=True, epilog=EXAMPLES)
def aigw(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", "-V", help="Show the version.")] = False,
) -> None:
    """aigw: one address in front of every model provider."""
    if version:
        from aigw import __version__

        output.data(f"aigw {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        output.data(context.get_help())


def main(arguments: Sequence[str]) -> int:
    """Run one command line. Returns the exit code: 0 done, 1 failed, 2 wrong usage or config, 130 interrupted."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr] # a narrow locale is no reason to fail
    if os.environ.get("_AIGW_COMPLETE"):  # a shell asks what may come next
        from aigw.cli import complete

        return complete.answer(lambda: assemble(app, COMMANDS).main([], prog_name="aigw", obj=Locations()))
    try:
        if arguments[:1] in (["--install-completion"], ["--show-completion"]) and len(arguments) <= 2:
            from aigw.cli import complete

            complete.set_up("".join(arguments[1:]), install=arguments[0] == "--install-completion")
            return 0
        assemble(app, COMMANDS).main(list(arguments), prog_name="aigw", obj=Locations())
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    except KeyboardInterrupt:
        return 130
    except ConfigError as error:
        output.fail(str(error))
        return 2
    except (StoreError, GatewayError) as error:
        output.fail(str(error))
        return 1
    except BrokenPipeError:
        raise
    except OSError as error:
        output.fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        return 1
    return 0

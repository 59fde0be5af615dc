"""`aigw run`: a coding agent, told by its own variables to use the gateway. The agent takes this process's place."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple, NoReturn

import typer

from aigw.cli import output
from aigw.cli.agents import AGENTS, Agent, Launch, Situation
from aigw.cli.locations import Locations, locations
from aigw.cli.suggest import unknown
from aigw.errors import CallerError

if TYPE_CHECKING:
    from aigw.cli.offers import Offers

EXAMPLES = """\b
Examples:
  aigw run claude                            Claude Code, with its usual models where they are served
  aigw run -m deepseek-chat claude -p "Hi"   with this model; behind the name stands what is the agent's
  aigw run codex exec "fix the tests"
  aigw run opencode --dry-run                what would be set, and nothing started
  eval "$(aigw run --print-env claude)"      the variables for this shell
"""

MASK = "sk-aigw-..."
"""Stands for the key where it is not shown."""

_PROXIES = frozenset({"http_proxy", "https_proxy", "all_proxy"})

app = typer.Typer(rich_markup_mode=None)


class Flags(NamedTuple):
    """What is ours of a command line."""

    model: str | None
    key: str | None
    dry_run: bool
    print_env: bool


@app.command(epilog=EXAMPLES, context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True})
def run(
    context: typer.Context,
    agent: Annotated[str, typer.Argument(metavar="|".join(AGENTS), help="The agent.")],
    arguments: Annotated[list[str] | None, typer.Argument(metavar="[ARGS]...", help="The agent's own arguments.")] = None,
    model: Annotated[str | None, typer.Option("-m", "--model", metavar="MODEL", help="What it should use.")] = None,
    key: Annotated[
        str | None, typer.Option(metavar="REFERENCE", help="A consumer key: env:NAME or file:PATH. Default: the operator's.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be set and started, and start nothing.")] = False,
    print_env: Annotated[bool, typer.Option("--print-env", help="Print the variables for a shell, with the key.")] = False,
) -> None:
    """Start a coding agent that uses the gateway.

    -m, --key, --dry-run and --print-env may also stand directly behind the agent's name; all that follows is the agent's.
    Its exit code is the agent's.
    """
    found = AGENTS.get(agent)
    if found is None:
        raise typer.BadParameter(f"{unknown('agent', agent, AGENTS)} ({', '.join(AGENTS)})", param_hint="AGENT")
    flags, rest = _ours(Flags(model, key, dry_run, print_env), arguments or [])
    launch = _launch(locations(context), found, flags)
    if flags.print_env:
        _print_env(found, launch)
    elif flags.dry_run:
        _show(found, launch, rest)
    else:
        _become(found, launch, rest)


def _ours(flags: Flags, words: Sequence[str]) -> tuple[Flags, list[str]]:
    """Take from the beginning of *words* what is ours. `--` ends it and is dropped."""
    at = 0
    while at < len(words):
        name, equals, value = words[at].partition("=")
        if name in ("-m", "--key"):
            if not equals and at + 1 == len(words):
                raise typer.BadParameter(f"{name} needs a value")
            value = value if equals else words[at + 1]
            flags = flags._replace(model=value) if name == "-m" else flags._replace(key=value)
            at += 1 if equals else 2
        elif words[at] == "--dry-run":
            flags, at = flags._replace(dry_run=True), at + 1
        elif words[at] == "--print-env":
            flags, at = flags._replace(print_env=True), at + 1
        else:
            break
    rest = list(words[at:])
    return flags, rest[1:] if rest[:1] == ["--"] else rest


def _launch(where: Locations, agent: Agent, flags: Flags) -> Launch:
    """What to set and start. Exits with 1 when that cannot work, and says what would."""
    from aigw.cli import names
    from aigw.cli.offers import Offers
    from aigw.cli.reach import CallFailed, find, here
    from aigw.config.secrets import is_literal

    if flags.key is not None and is_literal(flags.key):
        output.warn("a key on the command line is seen by everybody on this machine; use env:NAME or file:PATH")
    known = names.read(where)
    offers = Offers(known.providers, known.table)
    _check_served(agent, offers, flags.model)
    try:
        if flags.dry_run:
            situation = Situation(here(where, known.loaded.config), MASK, flags.model, offers)
        else:
            gateway = find(where, known.loaded.config, key=flags.key)
            gateway.models()  # a server must be there, and know the key, before the agent asks
            situation = Situation(gateway.url, gateway.key, flags.model, offers)
    except CallFailed as error:
        _refuse(str(error))
    launch = agent.launch(situation, agent.model(situation))
    obstacles = agent.obstacles(Path.home(), Path.cwd(), launch)
    if obstacles:
        _refuse("\n".join(obstacles))
    return launch._replace(variables={**launch.variables, **_past_proxies(agent, os.environ)})


def _check_served(agent: Agent, offers: Offers, model: str | None) -> None:
    """Somebody must serve the agent's API, and *model* by it. Exits with 1."""
    from aigw.cli.offers import would_serve

    apis = {"messages": "Anthropic's API (/v1/messages)", "responses": "OpenAI's Responses API", "chat": "OpenAI's chat API"}
    apis["generate"] = "Gemini's API (/v1beta/models)"
    wanted = " or ".join(apis[one] for one in agent.operations)
    if model is not None:
        try:
            offers.route(model)
        except CallerError as error:
            _refuse(f"{error}; choose one with -m")
        if any(offers.answers(model, one) for one in agent.operations):
            return
        problem = f"no provider of {output.safe(model)} serves"
    elif any(offers.choice(one) for one in agent.operations):
        return
    elif speakers := [name for one in agent.operations for name in offers.speakers(one)]:
        _refuse(f"which model? {', '.join(speakers)} would serve {agent.title}, but list none; name one: -m MODEL")
    else:
        problem = "no configured provider serves"
    fit = [name for one in agent.operations for name in offers.names(one)][:5]
    others = list(dict.fromkeys(name for one in agent.operations for name in would_serve(one)))[:8]
    instead = f"; these models would do: {', '.join(fit)}" if fit else f"; providers that do: {', '.join(others)} ..."
    _refuse(f"{agent.title} needs {wanted}, which {problem}{instead}")


def _past_proxies(agent: Agent, environment: Mapping[str, str]) -> dict[str, str | None]:
    """What brings the agent past a proxy that is set, to this machine: NO_PROXY, or no proxy at all where it minds none."""
    proxies = [name for name, value in environment.items() if value and name.lower() in _PROXIES]
    if not proxies:
        return {}
    if not agent.minds_no_proxy:
        output.warn(f"{agent.title} ignores NO_PROXY, so it is started without {', '.join(proxies)}")
        return dict.fromkeys(proxies)
    hosts = [host for host in (environment.get("NO_PROXY") or environment.get("no_proxy") or "").split(",") if host.strip()]
    hosts += [host for host in ("127.0.0.1", "localhost") if host not in hosts]
    return dict.fromkeys(("NO_PROXY", "no_proxy"), ",".join(hosts))


def _refuse(problem: str) -> NoReturn:
    output.fail(problem)
    raise typer.Exit(1)


def _program(agent: Agent) -> str:
    found = shutil.which(agent.program)
    if found is None:
        _refuse(f"{agent.title} is not here: there is no '{agent.program}' on your PATH. Install it: {agent.install}")
    return found


def _print_env(agent: Agent, launch: Launch) -> None:
    for name, value in launch.variables.items():
        if value is not None:
            output.data(f"export {name}={shlex.quote(value)}")
        elif name in os.environ:
            output.data(f"unset {name}")
    if launch.arguments:  # what has no variable
        output.data(f"alias {agent.program}={shlex.quote(shlex.join([agent.program, *launch.arguments]))}")


def _show(agent: Agent, launch: Launch, rest: Sequence[str]) -> None:
    for name, value in launch.variables.items():
        if value is not None:
            output.data(output.safe(f"{name}={value}"))
        elif name in os.environ:
            output.data(f"{name} is taken away")
    output.data(output.safe(shlex.join([agent.program, *launch.arguments, *rest])))
    if shutil.which(agent.program) is None:
        output.note(f"There is no '{agent.program}' on your PATH. Install it: {agent.install}")


def _become(agent: Agent, launch: Launch, rest: Sequence[str]) -> NoReturn:
    """Put the agent in this process's place: signals, terminal and exit code are its own from here on."""
    program = _program(agent)
    environment = {name: value for name, value in os.environ.items() if name not in launch.variables}
    environment |= {name: value for name, value in launch.variables.items() if value is not None}
    sys.stdout.flush()
    sys.stderr.flush()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and what is ignored stays so
    os.execve(program, [agent.program, *launch.arguments, *rest], environment)  # noqa: S606 - no shell, by intent

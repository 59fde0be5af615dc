"""`aigw init`: from nothing to the first call. Questions on a terminal, flags without; nothing is written before the end."""

from __future__ import annotations

import copy
import os
import shutil
from typing import TYPE_CHECKING, Annotated

import typer

from aigw.cli import output
from aigw.cli.language import say
from aigw.cli.locations import Locations, locations

if TYPE_CHECKING:
    from aigw.cli.wizard.flags import Checked, Flags
    from aigw.cli.wizard.plan import Plan
    from aigw.config.edit import ConfigFile

app = typer.Typer(rich_markup_mode=None)

EXAMPLES = """\b
Examples:
  aigw init                                       asks
  aigw init --yes --from-env                      every provider whose variable is set
  aigw init --yes --provider openai=env:OPENAI_API_KEY --provider deepseek=file:k.txt
  aigw init --yes --provider gpu --base-url gpu=http://10.0.0.7:8000/v1 --port 9000
  aigw init --yes --demo                          an offline provider, to look around
"""


@app.command(epilog=EXAMPLES)
def init(
    context: typer.Context,
    provider: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=KEY]", help="A provider and a key of it: env:NAME, file:PATH or - (stdin). May be repeated."
        ),
    ] = None,
    base_url: Annotated[
        list[str] | None, typer.Option("--base-url", metavar="NAME=URL", help="Where that provider is. May be repeated.")
    ] = None,
    setting: Annotated[
        list[str] | None, typer.Option(metavar="NAME.KEY=VALUE", help="What a provider needs besides. May be repeated.")
    ] = None,
    from_env: Annotated[bool, typer.Option("--from-env", help="Every known provider whose variable is set.")] = False,
    demo: Annotated[bool, typer.Option("--demo", help="An offline provider that needs no account.")] = False,
    default_model: Annotated[
        str | None, typer.Option(metavar="PROVIDER/MODEL", help='What the model name "default" means.')
    ] = None,
    fallback: Annotated[str | None, typer.Option(metavar="PROVIDER/MODEL", help="Asked when the default model fails.")] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port to serve at. Default: 8080, or the next free one.")
    ] = None,
    consumer: Annotated[
        str | None, typer.Option(metavar="NAME", help='Whom to make a key for. Default: "me", the first time; "": nobody.')
    ] = None,
    no_check: Annotated[bool, typer.Option("--no-check", help="Do not ask providers whether keys are good.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="No questions: the flags say it all.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be written, and write nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Set up providers, a default model, a port and a first key; run it again to change them.

    It asks on a terminal. Ctrl-C at any question leaves everything as it is. An existing config is edited: comments stay.
    """
    from aigw.cli.wizard import flags as given
    from aigw.cli.wizard.carry_out import unwritable
    from aigw.cli.wizard.plan import Plan
    from aigw.config.edit import ConfigFile

    flags = given.Flags(
        providers=tuple(provider or ()),
        base_urls=tuple(base_url or ()),
        settings=tuple(setting or ()),
        from_env=from_env,
        demo=demo,
        default_model=default_model,
        fallback=fallback,
        port=port,
        consumer=consumer,
        check=not no_check,
    )
    asks = not yes and not flags.any()
    if asks and not output.interactive():
        raise typer.BadParameter(
            "there is no terminal to ask on; say it with flags, such as:\n"
            "  aigw init --yes --from-env\n"
            "  aigw init --yes --provider openai=env:OPENAI_API_KEY"
        )
    if not asks and not flags.any():
        raise typer.BadParameter("--yes needs to know what: --provider NAME=KEY, --from-env or --demo (aigw init --help)")
    where = locations(context)
    plan = Plan(where.config_path())
    file = ConfigFile.read(plan.path)
    file.check()  # one with mistakes is not touched
    complaint = unwritable(plan.path)
    if complaint:
        output.fail(complaint)
        raise typer.Exit(1)
    checked: list[Checked] = []
    if asks:
        _ask(plan, file, where, check=flags.check, dry_run=dry_run)
    else:
        checked = _from_flags(plan, flags, file, where)
        if not yes and not dry_run and output.interactive():
            from aigw.cli.wizard.summary import show_plan

            show_plan(plan, file)
            if not output.confirm(say("Write this?", "写入以上设置？"), otherwise=True):
                output.note(say("Nothing was written.", "未写入任何内容。"))
                raise typer.Exit(1)
    _finish(plan, file, where, checked, dry_run=dry_run, as_json=as_json)


def _from_flags(plan: Plan, flags: Flags, file: ConfigFile, where: Locations) -> list[Checked]:
    from aigw.cli import operator
    from aigw.cli.keys import valid_name
    from aigw.cli.wizard import flags as given

    if flags.consumer:
        plan.consumer = valid_name(flags.consumer, "--consumer")
        if plan.consumer == operator.NAME:
            raise typer.BadParameter("that name stands for the commands of this machine", param_hint="--consumer")
    given.fill(plan, flags, file, os.environ)
    checked = given.check(plan, file) if flags.check else []
    if flags.from_env and not plan.providers and not checked:
        output.note("Every provider of the environment is configured already.")
    elif flags.from_env and not plan.providers and file.get("providers") is None:
        output.fail("none of the keys in the environment can be used; nothing was written")
        raise typer.Exit(1)
    given.choose(plan, flags, file, where.data_path())
    if flags.consumer is None and not _have_keys(where, file):
        plan.consumer = "me"
    return checked


def _ask(plan: Plan, file: ConfigFile, where: Locations, *, check: bool, dry_run: bool) -> None:
    """Fill *plan* by questions. Raises KeyboardInterrupt, typer.Exit when it was ended in another way."""
    from aigw.cli.wizard.prompts import prompts
    from aigw.cli.wizard.questions import Interview
    from aigw.cli.wizard.summary import show_plan

    nothing = say("Nothing was written.", "未写入任何内容。")
    asker = prompts()
    greeting = (
        say("Sets up aigw: providers, keys, a first model.", "设置 aigw：服务商、密钥、默认模型。"),
        say("Nothing is written before the end; Ctrl-C leaves all as it is.", "最后确认前不写入任何内容；按 Ctrl-C 随时退出。"),
    )
    for line in greeting:
        output.note("\n".join(output.wrapped(line, shutil.get_terminal_size().columns)))
    output.note("")
    try:
        interview = Interview(asker, plan, file, where, os.environ, check=check)
        interview.providers()
        interview.models()
        interview.port()
        interview.consumer(have=_have_keys(where, file))
        show_plan(plan, file)
        if not dry_run and not asker.confirm(say("Write this?", "写入以上设置？"), default=True):
            output.note(nothing)
            raise typer.Exit(1)
    except KeyboardInterrupt:
        output.note(f"\n{nothing}")
        raise
    except EOFError:
        output.note(f"\n{nothing}")
        raise typer.Exit(1) from None


def _have_keys(where: Locations, file: ConfigFile) -> bool:
    """Whether some consumer can call already."""
    from aigw.cli.wizard.carry_out import have_keys
    from aigw.config import load

    return bool(file.get("consumers")) or have_keys(where, load.parse(file.text(), str(file.path)))


def _finish(plan: Plan, file: ConfigFile, where: Locations, checked: list[Checked], *, dry_run: bool, as_json: bool) -> None:
    from aigw.cli.wizard import summary
    from aigw.cli.wizard.carry_out import carry_out
    from aigw.cli.wizard.plan import meaning, scratch

    names = meaning(plan, file, where.data_path())
    base_url = where.base_url(names.loaded.config)
    if dry_run:
        future = scratch(plan, file)
        if as_json:
            output.json(summary.as_json(plan, future, checked, None, [], base_url))
            return
        output.data(future.diff() if file.exists else future.text().rstrip("\n"))
        output.note(say("Nothing was written.", "未写入任何内容。"))
        return
    edited = copy.deepcopy(file)
    done = carry_out(plan, edited, where)
    calls = summary.first_calls(names, done, base_url)
    if as_json:
        output.json(summary.as_json(plan, edited, checked, done, calls, base_url))
    else:
        summary.show_done(plan, edited, done, calls, where)

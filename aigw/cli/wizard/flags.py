"""A plan from flags: `aigw init --yes`, for scripts, images and people who know what they want."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import typer

from aigw.cli import output
from aigw.cli.suggest import nearest, unknown
from aigw.cli.wizard import checks, models
from aigw.cli.wizard.checks import Answer, Job
from aigw.cli.wizard.plan import DEFAULT, PORT, Key, Plan, Provider, meaning, schema_of
from aigw.cli.wizard.ports import is_free, next_free
from aigw.config import secrets
from aigw.config.edit import ConfigFile
from aigw.errors import ConfigError
from aigw.providers import catalog
from aigw.providers.key_check import Verdict


class Flags(NamedTuple):
    """As they were given. `consumer` None: not given."""

    providers: Sequence[str] = ()  # NAME, NAME=REFERENCE
    base_urls: Sequence[str] = ()  # NAME=URL
    settings: Sequence[str] = ()  # NAME.KEY=VALUE
    from_env: bool = False
    demo: bool = False
    default_model: str | None = None
    fallback: str | None = None
    port: int | None = None
    consumer: str | None = None
    check: bool = True

    def any(self) -> bool:
        """Whether there is anything to do."""
        return bool(
            self.providers or self.base_urls or self.settings or self.from_env or self.demo or self.default_model
            or self.fallback or self.port is not None or self.consumer is not None
        )  # fmt: skip


class Checked(NamedTuple):
    """A key that was checked: whose, which (a reference, or "a new file"), and what came of it."""

    provider: str
    key: str
    verdict: Verdict


def fill(plan: Plan, flags: Flags, file: ConfigFile, environ: Mapping[str, str]) -> None:
    """Put what the flags say of providers into *plan*. Raises typer.BadParameter for what cannot be meant."""
    for text in flags.providers:
        name, equals, reference = text.partition("=")
        provider = _named(plan, name.strip(), flags, file)
        if equals:
            provider.keys.append(_key(name, reference.strip(), environ, must_resolve=flags.check))
    for text in flags.base_urls:
        name, url = _pair(text, "--base-url", "NAME=URL")
        _named(plan, name, flags, file).base_url = url
    for text in flags.settings:
        where, value = _pair(text, "--setting", "NAME.KEY=VALUE")
        name, _, setting = where.rpartition(".")
        if not name or not setting:
            raise typer.BadParameter(f"{output.safe(where)!r}: expected NAME.KEY=VALUE", param_hint="--setting")
        _named(plan, name, flags, file).settings[setting] = value
    if flags.demo:
        _named(plan, "demo", flags, file)
    if flags.from_env:
        _from_environment(plan, file, environ)
    for provider in plan.providers:
        _complain(provider, file)


def _pair(text: str, option: str, form: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name.strip() or not equals or not value.strip():
        raise typer.BadParameter(f"expected {form}", param_hint=option)
    return name.strip(), value.strip()


def _named(plan: Plan, name: str, flags: Flags, file: ConfigFile) -> Provider:
    """The provider *name* of the plan; put there when it is one that can be."""
    found = plan.named(name)
    if found is not None:
        return found
    standing = file.get("providers", name)
    if standing is None and name not in catalog.ids() and name not in (text.partition("=")[0] for text in flags.base_urls):
        if nearest(name, catalog.ids()):
            raise typer.BadParameter(unknown("provider", name, catalog.ids()), param_hint="--provider")
        message = f"no provider '{output.safe(name[:64])}'; one that is not known needs --base-url {output.safe(name[:64])}=URL"
        raise typer.BadParameter(message, param_hint="--provider")
    provider = Provider(name, old=standing is not None)
    if isinstance(standing, dict):
        provider.kind, provider.base_url = str(standing.get("kind") or ""), str(standing.get("base_url") or "")
    elif name not in catalog.ids():
        provider.kind = "openai-compatible"
    plan.providers.append(provider)
    return provider


def _key(name: str, reference: str, environ: Mapping[str, str], *, must_resolve: bool) -> Key:
    option = f"--provider {output.safe(name)}"
    if not reference:
        raise typer.BadParameter("the key is empty; expected env:NAME, file:PATH or - (standard input)", param_hint=option)
    if reference.startswith("file:"):
        path = Path(reference.removeprefix("file:")).expanduser().absolute()
        reference = f"file:{secrets.tilde(path)}"
    if reference.startswith(("env:", "file:")):
        try:
            secrets.resolve(reference, key="", environment=environ)
        except ConfigError as error:
            if must_resolve:
                raise typer.BadParameter(f"{error} (--no-check writes it all the same)", param_hint=option) from None
            output.warn(f"{name}: {error}; the server will need it")
        return Key(reference=reference)
    if reference == "-":
        reference = sys.stdin.read()
    else:
        output.warn(
            f"{name}: a key on the command line is seen by others and kept by the shell; better env:NAME, file:PATH or -"
        )
    try:
        return Key(secret=secrets.clean(reference))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def _from_environment(plan: Plan, file: ConfigFile, environ: Mapping[str, str]) -> None:
    """Every provider whose variable is set; of two that share a variable the one that stands first in the catalog."""
    taken = {key.reference for provider in plan.providers for key in provider.keys}
    for table in (file.get("providers") or {}).values():
        taken |= set(map(secrets.written, table.get("keys") or ())) if isinstance(table, dict) else set()
    found = 0
    for name in catalog.ids():
        row = catalog.row(name)
        variable = next((one for one in row.env if environ.get(one)), "")
        if not variable or not row.served:
            continue
        found += 1
        if f"env:{variable}" in taken or plan.named(name):
            continue
        missing = [one.name for one in row.settings if one.required and not one.default and not environ.get(one.env)]
        if missing:
            output.note(f"{name} is left out: it needs --setting {name}.{missing[0]}=VALUE as well as ${variable}")
            continue
        taken.add(f"env:{variable}")
        provider = Provider(name, old=file.get("providers", name) is not None)
        provider.keys.append(Key(reference=f"env:{variable}", found=True))
        plan.providers.append(provider)
    if not found and not plan.providers:
        raise typer.BadParameter("no variable of a known provider is set (such as OPENAI_API_KEY)", param_hint="--from-env")


def _complain(provider: Provider, file: ConfigFile) -> None:
    row, option = provider.row(), f"--provider {output.safe(provider.name)}"
    if not row.served:
        raise typer.BadParameter(f"{row.name} speaks a protocol of its own, which is not served yet", param_hint=option)
    known = [setting.name for setting in row.settings]
    for name in provider.settings:
        if name not in known:
            accepted = f"it takes {', '.join(known)}" if known else "it takes none"
            raise typer.BadParameter(f"{row.name} has no setting '{output.safe(name)}'; {accepted}", param_hint="--setting")
    if row.needs_key and not provider.keys and not file.get("providers", provider.name, "keys"):
        variable = f"env:{row.env[0]}" if row.env else "env:NAME"
        example = f"--provider {provider.name}={variable}"
        raise typer.BadParameter(f"{row.name} needs a key, as in {example}", param_hint=option)
    try:
        schema_of(provider, file)
    except ConfigError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def check(plan: Plan, file: ConfigFile) -> list[Checked]:
    """Check every new key. One that its provider does not know is an error where the operator named it; where it was found in
    the environment it is left out. Raises typer.Exit."""
    jobs = [Job(provider, key) for provider in plan.providers for key in provider.keys]
    jobs += [Job(provider, None) for provider in plan.providers if not provider.keys and not provider.row().needs_key]
    if not jobs:
        return []
    with output.working(f"asking {', '.join(dict.fromkeys(job.provider.name for job in jobs))}"):
        answers = checks.check_all(jobs, file)
    found = [_across(job, answer, plan, file) for job, answer in zip(jobs, answers, strict=True)]
    bad = [_judged(job, one.verdict, plan) for job, one in zip(jobs, found, strict=True)]
    if any(bad):
        output.note("Nothing was written. --no-check writes it without asking the providers.")
        raise typer.Exit(1)
    return found


def _across(job: Job, answer: Answer, plan: Plan, file: ConfigFile) -> Checked:
    """A key that its provider does not know, and the same vendor's row across the border does, is taken for that one's."""
    provider, key = job
    if answer.verdict.kind == "wrong_key" and key is not None and len(provider.keys) == 1:
        other = checks.across_the_border(provider, key, file)
        if other is not None and not plan.named(other[0]):
            output.note(f"{provider.name}: does not know this key, {other[0]} does; it is taken as {other[0]}")
            provider.name, answer = other
    answer.learn(provider)
    return Checked(provider.name, "" if key is None else key.reference or "a new file", answer.verdict)


def _judged(job: Job, verdict: Verdict, plan: Plan) -> bool:
    """Say what came of a check, and whether it forbids to go on."""
    provider, key = job
    if key is None:
        (output.note if verdict.kind == "good" else output.warn)(f"{provider.name}: {checks.answers(verdict)}")
        return False
    line = f"{provider.name}{f' ({key.reference})' if key.reference else ''}: {checks.told(verdict)}"
    if verdict.kind in ("good", "limited"):
        output.note(line)
    elif verdict.kind not in ("wrong_key", "wrong_url"):
        output.warn(line)
    elif not key.found:
        output.fail(line)
        return True
    else:
        output.warn(f"{line}; left out")
        provider.keys.remove(key)
        if not provider.keys and not provider.old:
            plan.providers.remove(provider)
    return False


def choose(plan: Plan, flags: Flags, file: ConfigFile, data_dir: Path) -> None:
    """The default model, the fallback, the port. Raises typer.BadParameter, typer.Exit, ConfigErrors."""
    names = meaning(plan, file, data_dir)
    for line in models.shadows(names, [provider.name for provider in plan.providers if not provider.old]):
        output.note(line)
    try:
        if flags.default_model:
            plan.default = models.understood(names, flags.default_model)
        elif file.get("routes", DEFAULT) is None:
            plan.default = next(iter(models.candidates(names)), None)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--default-model") from None
    if flags.fallback:
        if plan.default is None and file.get("routes", DEFAULT) is None:
            raise typer.BadParameter("there is no default model for it to stand in for", param_hint="--fallback")
        try:
            plan.fallback = models.understood(names, flags.fallback)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--fallback") from None
    _port(plan, flags, file)


def _port(plan: Plan, flags: Flags, file: ConfigFile) -> None:
    from aigw.cli.ports import holder

    host = str(file.get("server", "host") or "127.0.0.1")
    standing = file.get("server", "port")
    port = flags.port if flags.port is not None else standing if standing is not None else PORT
    if flags.port is None and (standing is not None or file.exists):
        return
    plan.port = port
    if port == standing or not port or is_free(port, host):
        return
    who = holder(port)
    if who is not None and who.ours and flags.port is not None:
        output.warn(f"port {port} is held by {who}")
        return
    free, said = next_free(port, host), f"port {port} is taken by {who or 'another program'}"
    if flags.port is not None:
        output.fail(f"{said}; {free} is free. Nothing was written.")
        raise typer.Exit(1)
    output.note(f"{said}; {free} is free, and is written")
    plan.port = free

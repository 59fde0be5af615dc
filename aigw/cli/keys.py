"""`aigw keys`: consumer keys, who may call. A consumer (person, team, service) has one or more keys."""

from __future__ import annotations

import asyncio
import difflib
import json
import sys
import time
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeVar

import typer

from aigw.cli import keys_import, keys_usage, operator, output, terms as options, windows
from aigw.cli.commands import Noun
from aigw.cli.complete import consumer_names
from aigw.cli.locations import Locations, locations
from aigw.cli.output import Column
from aigw.errors import StoreError

if TYPE_CHECKING:
    import msgspec

    from aigw.config.schema import Config
    from aigw.consumer import Consumer, ConsumerKey
    from aigw.storage.base import Store

S = TypeVar("S", bound="msgspec.Struct")

NAME_LENGTH = 64

app = typer.Typer(
    cls=Noun,
    rich_markup_mode=None,
    help="Consumer keys: who may call. Without a command: list. A running server follows within a second.",
)


app.command("import", epilog=keys_import.EXAMPLES)(keys_import.import_keys)
app.command("usage", epilog=keys_usage.EXAMPLES)(keys_usage.usage)


# ---- create


@app.command(
    epilog="""\b
Examples:
  aigw keys create alice
  aigw keys create ci --group build --tag team=core --expires 90d
  aigw keys create bot --models 'gpt-*,@fast' --budget 5usd/day --budget 50usd/month --rpm 60
  export OPENAI_API_KEY=$(aigw keys create laptop)
"""
)
def create(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="The consumer. One that exists gets a further key.", autocompletion=consumer_names),
    ],
    group: options.Group = None,
    tag: options.Tags = None,
    metadata: options.Metadata = None,
    lead: options.Lead = None,
    models: options.Models = None,
    deny: options.Deny = None,
    providers: options.Providers = None,
    residency: options.Residency = None,
    endpoints: options.Endpoints = None,
    max_price: options.MaxPrice = None,
    allow_ip: options.AllowIp = None,
    rpm: options.Rpm = None,
    tpm: options.Tpm = None,
    concurrency: options.Concurrency = None,
    max_output: options.MaxOutput = None,
    budget: options.Budgets = None,
    tokens: options.Tokens = None,
    tz: options.Tz = None,
    hard: options.Hard = None,
    unpriced: options.Unpriced = None,
    on_budget: options.OnBudget = None,
    priority: options.Priority = None,
    expires: Annotated[str | None, typer.Option(metavar="TIME", help="When this key ends: 30d, or 2026-12-31.")] = None,
    key_stdin: Annotated[
        bool, typer.Option("--key-stdin", help="Take the key from standard input: one that people have already.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Make a key and print it: once, it is kept nowhere. Standard output is the key alone."""
    said = {
        "models": models, "deny": deny, "providers": providers, "residency": residency, "endpoints": endpoints,
        "max_price": max_price, "allow_ip": allow_ip, "rpm": rpm, "tpm": tpm, "concurrency": concurrency,
        "max_output": max_output, "budget": budget, "tokens": tokens, "tz": tz, "hard": hard, "unpriced": unpriced,
        "on_budget": on_budget, "priority": priority,
    }  # fmt: skip
    name = unreserved(valid_name(name))
    now = time.time()
    ends = None if expires is None else _expiry(expires, now)
    where = locations(context)
    wanted = _wanted(where.load_config(), said, group, metadata, lead)
    given = _given_key() if key_stdin else None
    tags = options.pairs(tag or [], "--tag")
    asyncio.run(_create(where, name, wanted, tags, ends, now, given=given, dry_run=dry_run, as_json=as_json))


def _wanted(
    config: Config, said: dict[str, Any], group: str | None, metadata: Sequence[str] | None, lead: bool | None
) -> dict[str, Any]:
    """What is to become of a consumer: fields, with those of its terms under "terms"."""
    if group is not None:
        group = valid_name(group, "--group") if group else ""
    if group and config.groups and group not in config.groups:
        output.warn(f"there is no [groups.{output.safe(group)}] in the config: the name alone limits nothing")
    kept = None if metadata is None else json.dumps(options.pairs(metadata, "--metadata"), ensure_ascii=False)
    return {"group": group, "metadata": kept, "lead": lead, "terms": options.wanted(said, config)}


def _given_key() -> str:
    """The key that comes by standard input. Raises BadParameter for what could be guessed, or carried by no header."""
    text = sys.stdin.readline().strip()
    if not 20 <= len(text) <= 512 or not all("!" <= one <= "~" for one in text):
        raise typer.BadParameter(
            "expected a line with a key of 20 to 512 printable characters without spaces", param_hint="--key-stdin"
        )
    return text


def unreserved(name: str, option: str = "NAME") -> str:
    """*name*, which people may give to a consumer. Raises BadParameter for the operator's own."""
    if name == operator.NAME:
        raise typer.BadParameter(
            f"{name!r} is reserved: it stands for the commands of this machine (chat, run), which make their own key "
            f"and keep it in {operator.FILE_NAME} in the data directory",
            param_hint=option,
        )
    return name


async def _create(
    where: Locations,
    name: str,
    wanted: dict[str, Any],
    tags: dict[str, str],
    expires: float | None,
    now: float,
    *,
    given: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    config = where.load_config()
    if name in config.consumers:
        output.warn(f"[consumers.{name}] of the config has the same name; records will not tell the two apart")
    async with where.store(config) as store:
        if dry_run:
            old = await _consumer_named(store, name)
            output.note(f"would {'add a key to' if old else 'create'} {name}; nothing was changed")
            return
        made = await issue(store, name, now, wanted=wanted, tags=tags, expires=expires, given=given)
    old, new, stored = made.before, made.consumer, made.stored
    if given is not None and not as_json:
        output.note(f"The key that was given opens the gateway for {name} now; only its digest is kept.")
        return
    if as_json:
        output.json({"key": made.key, **_key_facts(new, stored, now), "consumer_created": old is None})
        return
    if old is None:
        output.note(f"Created {name} with its first key, {stored.id}.")
    else:
        output.note(f"{name} exists already: added a key, {stored.id}. Live keys now: {made.live}.")
        if changes := _differences(old, new):
            output.note(f"Changed {name}: {changes}.")
    output.note("The key is shown this once; aigw keeps only its digest.")
    output.data(made.key)
    # When standard output is captured, the key must not reach the screen or a log by way of standard error.
    shown = made.key if sys.stdout.isatty() else "(the key)"
    output.note(f"Use it:\n  export OPENAI_BASE_URL={where.base_url(config)}\n  export OPENAI_API_KEY={shown}")


class Issued(NamedTuple):
    """A new key. `before` is the consumer as it was (None: there was none), `live` how many keys of it open now."""

    key: str
    stored: ConsumerKey
    consumer: Consumer
    before: Consumer | None
    live: int


async def issue(
    store: Store,
    name: str,
    now: float,
    *,
    wanted: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
    expires: float | None = None,
    given: str | None = None,
) -> Issued:
    """A key of the consumer *name*, who is created, or changed to what is *wanted* (fields; None keeps): a new one, or the one
    that was *given*. Raises StoreError."""
    from aigw.access.consumer_keys import mint, new_id, taken
    from aigw.consumer import Consumer

    wanted, tags = wanted or {}, tags or {}
    old = await _consumer_named(store, name)
    new = _changed(old or Consumer(id=new_id(), name=name), wanted, tags)
    if new != old:
        try:
            await store.put_consumer(new)
        except StoreError:
            old = await _consumer_named(store, name)  # did somebody create it at the same moment?
            if old is None:
                raise
            new = _changed(old, wanted, tags)
            await store.put_consumer(new)
    key, stored = mint(new.id, now=now, expires=expires) if given is None else taken(given, new.id, now=now, expires=expires)
    await store.put_key(stored)
    live = sum(_state(one, new, now) == "live" for one in await store.keys_of(new.id))
    return Issued(key, stored, new, old, live)


def _changed(consumer: Consumer, wanted: Mapping[str, Any], tags: Mapping[str, str]) -> Consumer:
    changes = {field: value for field, value in wanted.items() if value is not None and field != "terms"}
    if terms := wanted.get("terms"):
        changes["terms"] = options.changed(consumer.terms, terms)
    if tags:
        changes["tags"] = json.dumps({**_tags_of(consumer), **tags}, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return _replace(consumer, **changes) if changes else consumer


def _replace(struct: S, **changes: Any) -> S:
    import msgspec

    return msgspec.structs.replace(struct, **changes)


def _differences(old: Consumer, new: Consumer) -> str:
    pairs = [(field, getattr(old, field), getattr(new, field)) for field in ("group", "tags", "metadata", "lead")]
    was, now = options.facts(old.terms), options.facts(new.terms)
    pairs += [(field, was.get(field), now.get(field)) for field in new.terms.__struct_fields__]
    return ", ".join(f"{field} {_or_dash(was)} -> {_or_dash(now)}" for field, was, now in pairs if was != now)


# ---- list, show


@app.command("list")
def list_keys(
    context: typer.Context,
    everything: Annotated[bool, typer.Option("--all", help="Revoked and expired keys too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="For spreadsheets.")] = False,
) -> None:
    """Keys by consumer, those of the config's [consumers] too. Never the keys themselves: those are kept nowhere."""
    if as_json and as_csv:
        raise typer.BadParameter("--json and --csv exclude each other")
    now = time.time()
    where = locations(context)
    config = where.load_config()
    consumers, keys = asyncio.run(_everyone(where, config))
    names = {consumer.id: consumer for consumer in consumers}
    facts = [_key_facts(names[key.consumer_id], key, now) for key in keys if key.consumer_id in names]
    facts += [_config_facts(name, table.group, table.tags) for name, table in config.consumers.items()]
    facts.sort(key=lambda fact: (fact["name"].casefold(), fact["state"] != "live", fact["created"] or ""))
    shown = facts if everything else [fact for fact in facts if fact["state"] in ("live", "disabled")]
    if as_json:
        output.json(shown)
    elif as_csv:
        columns = list(_config_facts("", "", {}))
        cells = [[json.dumps(fact[name]) if name == "tags" else fact[name] for name in columns] for fact in shown]
        output.csv(columns, cells)
    else:
        _show_table(shown)
        if any(fact["source"] == operator.NAME for fact in shown):
            output.note(f"{operator.NAME}: this machine's own key, for 'aigw chat' and 'aigw run' ({operator.FILE_NAME}).")
        if not facts:
            output.note("No keys yet. Make one: aigw keys create NAME")
        elif len(shown) < len(facts):
            output.note(f"Not shown: {len(facts) - len(shown)} revoked or expired (--all).")


@app.command()
def show(
    context: typer.Context,
    target: Annotated[
        str, typer.Argument(metavar="NAME|KEY_ID", help="A consumer, or one of its keys.", autocompletion=consumer_names)
    ],
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """One consumer: what it may do, and all its keys."""
    where = locations(context)
    now = time.time()
    consumer, keys, _ = asyncio.run(_found(where, where.load_config(), target))
    facts = {
        "name": consumer.name,
        "id": consumer.id,
        "group": consumer.group,
        "tags": _tags_of(consumer),
        "rpm": consumer.terms.rpm,
        "concurrency": consumer.terms.concurrency,
        "disabled": consumer.disabled,
        "lead": consumer.lead,
        "terms": options.facts(consumer.terms),
        "metadata": json.loads(consumer.metadata) if consumer.metadata else {},
    }
    of_keys = [_key_facts(consumer, key, now) for key in keys]
    if as_json:
        fields = ("key_id", "state", "created", "expires", "revoked")
        output.json({**facts, "keys": [{field: fact[field] for field in fields} for fact in of_keys]})
        return
    facts["tags"] = _tag_text(_tags_of(consumer))
    facts["rpm"] = "as [limits]" if consumer.terms.rpm is None else consumer.terms.rpm or "no limit"
    facts["concurrency"] = "as [limits]" if consumer.terms.concurrency is None else consumer.terms.concurrency or "no limit"
    facts["disabled"] = "yes" if consumer.disabled else "no"
    del facts["terms"]
    if facts.pop("lead"):
        facts["lead"] = "yes: it may make consumers of its group"
    facts |= options.shown(consumer.terms)
    metadata = facts.pop("metadata")
    if metadata:
        facts["metadata"] = _tag_text(metadata)
    for label, value in facts.items():
        output.data(f"{label + ':':<13}{output.safe(str(value)) or '-'}")
    if of_keys:
        output.data("")
        _show_table(of_keys)


def _show_table(facts: Sequence[dict[str, Any]]) -> None:
    if not facts:
        return
    columns = [
        Column("name"),
        Column("key id"),
        Column("state", rank=1),
        Column("group", rank=4),
        Column("tags", rank=5),
        Column("created (UTC)", rank=3),
        Column("expires (UTC)", rank=2),
    ]
    fields = ("name", "key_id", "state", "group", "tags", "created", "expires")
    output.table(columns, [[_cell(field, fact[field]) for field in fields] for fact in facts])


def _cell(field: str, value: Any) -> str:
    if field == "tags":
        return _tag_text(value)
    if field in ("created", "expires") and value:
        return str(value)[:16].replace("T", " ")
    return _or_dash(value)


# ---- revoke


@app.command(
    epilog="""\b
Examples:
  aigw keys revoke 4k0zq8d1xm       one key
  aigw keys revoke alice            the only live key of alice
  aigw keys revoke alice --all      all of them
"""
)
def revoke(
    context: typer.Context,
    target: Annotated[
        str,
        typer.Argument(metavar="NAME|KEY_ID", help="A key, or a consumer with one live key.", autocompletion=consumer_names),
    ],
    everything: Annotated[bool, typer.Option("--all", help="All keys of that consumer.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
) -> None:
    """End a key for good. A running server refuses it within a second; its records keep their name."""
    where = locations(context)
    config = where.load_config()
    now = time.time()
    consumer, keys, key = asyncio.run(_found(where, config, target))
    standing = [one for one in keys if one.revoked is None]
    chosen = _chosen(consumer, standing, key, now, everything=everything)
    if not chosen:
        return
    what = f"{', '.join(one.id for one in chosen)} of {consumer.name}"
    if dry_run:
        output.note(f"would revoke {what}; nothing was changed")
        return
    if not yes and output.interactive() and not output.confirm(f"Revoke {what}?"):
        output.note("Nothing was changed.")
        raise typer.Exit(1)
    asyncio.run(_revoke(where, config, chosen, now))
    output.note(f"Revoked {what}. A running server refuses {'it' if len(chosen) == 1 else 'them'} within a second.")
    left = [one for one in standing if one not in chosen and _state(one, consumer, now) == "live"]
    if not left and not everything:
        output.note(f"{consumer.name} has no live key left; 'aigw keys create {consumer.name}' makes a new one.")


def _chosen(
    consumer: Consumer, standing: list[ConsumerKey], key: ConsumerKey | None, now: float, *, everything: bool
) -> list[ConsumerKey]:
    if key is not None and not everything:
        if key.revoked is not None:
            output.note(f"{key.id} of {consumer.name} was revoked already, on {_when(key.revoked)}.")
            return []
        return [key]
    if everything:
        if not standing:
            output.note(f"{consumer.name} has no key to revoke.")
        return standing
    live = [one for one in standing if _state(one, consumer, now) != "expired"]
    if len(live) == 1:
        return live
    if not live:
        output.note(f"{consumer.name} has no live key.")
        return []
    output.fail(
        f"{consumer.name} has {len(live)} live keys: {', '.join(one.id for one in live)}; name one of them, or add --all"
    )
    raise typer.Exit(1)


async def _revoke(where: Locations, config: Config, keys: Sequence[ConsumerKey], now: float) -> None:
    async with where.store(config) as store:
        for key in keys:
            await store.revoke_key(key.id, now)


# ---- set, disable, enable, rotate


@app.command(
    "set",
    epilog="""\b
Examples:
  aigw keys set alice --budget 10usd/day --models 'gpt-*,@fast'
  aigw keys set alice --rpm 0 --deny none
  aigw keys set bot --on-budget 0.8=cheap --priority batch
""",
)
def set_consumer(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The consumer.", autocompletion=consumer_names)],
    group: options.Group = None,
    tag: options.Tags = None,
    metadata: options.Metadata = None,
    lead: options.Lead = None,
    models: options.Models = None,
    deny: options.Deny = None,
    providers: options.Providers = None,
    residency: options.Residency = None,
    endpoints: options.Endpoints = None,
    max_price: options.MaxPrice = None,
    allow_ip: options.AllowIp = None,
    rpm: options.Rpm = None,
    tpm: options.Tpm = None,
    concurrency: options.Concurrency = None,
    max_output: options.MaxOutput = None,
    budget: options.Budgets = None,
    tokens: options.Tokens = None,
    tz: options.Tz = None,
    hard: options.Hard = None,
    unpriced: options.Unpriced = None,
    on_budget: options.OnBudget = None,
    priority: options.Priority = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
) -> None:
    """Change what a consumer may do: what is not given stays, 'none' takes a list away, 0 a limit. All its keys follow."""
    said = {
        "models": models, "deny": deny, "providers": providers, "residency": residency, "endpoints": endpoints,
        "max_price": max_price, "allow_ip": allow_ip, "rpm": rpm, "tpm": tpm, "concurrency": concurrency,
        "max_output": max_output, "budget": budget, "tokens": tokens, "tz": tz, "hard": hard, "unpriced": unpriced,
        "on_budget": on_budget, "priority": priority,
    }  # fmt: skip
    where = locations(context)
    config = where.load_config()
    wanted = _wanted(config, said, group, metadata, lead)
    tags = options.pairs(tag or [], "--tag")
    old, _, _ = asyncio.run(_found(where, config, name))
    new = _changed(old, wanted, tags)
    _change(where, config, old, new, dry_run=dry_run)


@app.command(epilog="\b\nExamples:\n  aigw keys disable alice\n")
def disable(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The consumer.", autocompletion=consumer_names)],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
) -> None:
    """Refuse all keys of a consumer until 'keys enable'."""
    _switch(context, name, on=False, dry_run=dry_run)


@app.command(epilog="\b\nExamples:\n  aigw keys enable alice\n")
def enable(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The consumer.", autocompletion=consumer_names)],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
) -> None:
    """Let a consumer that was disabled call again."""
    _switch(context, name, on=True, dry_run=dry_run)


def _switch(context: typer.Context, name: str, *, on: bool, dry_run: bool) -> None:
    where = locations(context)
    config = where.load_config()
    old, _, _ = asyncio.run(_found(where, config, name))
    _change(where, config, old, _replace(old, disabled=not on), dry_run=dry_run)


def _change(where: Locations, config: Config, old: Consumer, new: Consumer, *, dry_run: bool) -> None:
    if new == old:
        output.note(f"{old.name} is so already.")
        return
    what = _differences(old, new)
    if old.disabled != new.disabled:
        what = "disabled" if new.disabled else "enabled"
    if dry_run:
        output.note(f"would change {old.name}: {what}; nothing was changed")
        return

    async def put() -> None:
        async with where.store(config) as store:
            await store.put_consumer(new)

    asyncio.run(put())
    output.note(f"Changed {old.name}: {what}. A running server follows within a second.")


@app.command(
    epilog="""\b
Examples:
  aigw keys rotate alice                    the old key ends in 24 hours
  aigw keys rotate alice --grace 0          at once
  aigw keys rotate 4k0zq8d1xm --grace 7d
"""
)
def rotate(
    context: typer.Context,
    target: Annotated[
        str,
        typer.Argument(metavar="NAME|KEY_ID", help="A key, or a consumer with one live key.", autocompletion=consumer_names),
    ],
    grace: Annotated[str, typer.Option(metavar="TIME", help="How long the old key works beside the new one.")] = "24h",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Make a new key in place of one, which goes on working for a while. Standard output is the new key alone."""
    where = locations(context)
    config = where.load_config()
    now = time.time()
    try:
        left = 0.0 if grace.strip() == "0" else windows.seconds(grace)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--grace") from None
    consumer, keys, key = asyncio.run(_found(where, config, target))
    chosen = _chosen(consumer, [one for one in keys if one.revoked is None], key, now, everything=False)
    if not chosen:
        raise typer.Exit(1)
    old = chosen[0]
    ends = now + left if old.expires is None else min(old.expires, now + left)
    if dry_run:
        output.note(f"would make a new key for {consumer.name}, and end {old.id} on {_when(ends)}; nothing was changed")
        return

    async def turn() -> tuple[str, ConsumerKey]:
        from aigw.access.consumer_keys import mint

        async with where.store(config) as store:
            fresh, stored = mint(consumer.id, now=now, expires=old.expires)
            await store.put_key(stored)  # first: whoever takes it over at once is let in
            if left:
                await store.put_key(_replace(old, expires=ends))
            else:
                await store.revoke_key(old.id, now)
            return fresh, stored

    fresh, stored = asyncio.run(turn())
    if as_json:
        output.json({"key": fresh, **_key_facts(consumer, stored, now), "replaces": old.id, "until": _iso(ends)})
        return
    output.note(f"Made {stored.id} for {consumer.name}; {old.id} " + (f"works until {_when(ends)}." if left else "is revoked."))
    output.note("The key is shown this once; aigw keeps only its digest.")
    output.data(fresh)


# ---- the store


async def _everyone(where: Locations, config: Config) -> tuple[list[Consumer], list[ConsumerKey]]:
    async with where.store(config) as store:
        consumers, keys, _ = await store.consumers()
    return consumers, keys


async def _consumer_named(store: Store, name: str) -> Consumer | None:
    found = await store.consumer(name)
    return found if found is not None and found.name == name else None  # not one whose id happens to be that


async def _found(where: Locations, config: Config, target: str) -> tuple[Consumer, list[ConsumerKey], ConsumerKey | None]:
    """The consumer meant by a name or a key id, its keys (oldest first), and the key when it was one. Exits with 1."""
    from aigw.access.consumer_keys import id_in

    wanted = unicodedata.normalize("NFC", target)
    async with where.store(config) as store:
        key = await store.key(id_in(wanted))
        consumer = await store.consumer(key.consumer_id) if key else await store.consumer(wanted)
        if consumer is not None:
            keys = await store.keys_of(consumer.id)
            return consumer, sorted(keys, key=lambda one: (one.created, one.id)), key
        everyone, keys, _ = await store.consumers()
    if wanted in config.consumers:
        output.fail(f"{wanted} is written in the config: its key is that of [consumers.{wanted}] in {where.config_path()}")
        raise typer.Exit(1)
    names = [one.name for one in everyone] + [one.id for one in keys]
    near = difflib.get_close_matches(wanted, names, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "'aigw keys list --all' shows all"
    output.fail(f"there is no consumer and no key id {target[:NAME_LENGTH]!r}; {hint}")
    raise typer.Exit(1)


# ---- what is shown and what is typed


def _key_facts(consumer: Consumer, key: ConsumerKey, now: float) -> dict[str, Any]:
    return {
        "name": consumer.name,
        "id": consumer.id,
        "key_id": key.id,
        "state": _state(key, consumer, now),
        "group": consumer.group,
        "tags": _tags_of(consumer),
        "created": _iso(key.created),
        "expires": _iso(key.expires),
        "revoked": _iso(key.revoked),
        "source": operator.NAME if consumer.name == operator.NAME else "store",
    }


def _config_facts(name: str, group: str, tags: dict[str, str]) -> dict[str, Any]:
    return {
        "name": name,
        "id": f"config:{name}",
        "key_id": f"config:{name}",
        "state": "live",
        "group": group,
        "tags": tags,
        "created": None,
        "expires": None,
        "revoked": None,
        "source": "config",
    }


def _state(key: ConsumerKey, consumer: Consumer, now: float) -> str:
    if key.revoked is not None:
        return "revoked"
    if key.expires is not None and key.expires <= now:
        return "expired"
    return "disabled" if consumer.disabled else "live"


def _tags_of(consumer: Consumer) -> dict[str, str]:
    return dict(json.loads(consumer.tags)) if consumer.tags else {}


def _tag_text(tags: dict[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in tags.items()) or "-"


def _or_dash(value: Any) -> str:
    return "-" if value is None or value == "" else str(value)


def _iso(moment: float | None) -> str | None:
    return None if moment is None else datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _when(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M UTC")


def valid_name(text: str, option: str = "NAME") -> str:
    """See `access.names.valid`. Raises BadParameter."""
    from aigw.access.names import valid

    try:
        return valid(text)
    except ValueError as error:
        raise typer.BadParameter(f"{output.safe(text[:NAME_LENGTH])!r} is no name; {error}", param_hint=option) from None


def _expiry(text: str, now: float) -> float:
    try:
        moment = windows.moment(text, now, windows.zone_named(windows.local_zone()), ahead=True)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--expires") from None
    if moment <= now:
        raise typer.BadParameter(f"{output.safe(text)!r} is in the past", param_hint="--expires")
    return moment

"""`aigw providers`: who serves models. The configured ones, the catalog of those we know; add, test and remove one."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from aigw.cli import figures, output, pool_view, provider_add, provider_keys
from aigw.cli.commands import Noun
from aigw.cli.language import is_chinese, say
from aigw.cli.locations import Locations, locations
from aigw.cli.output import Column
from aigw.cli.provider_keys import DryRun, configured, finish, known
from aigw.errors import ConfigError

if TYPE_CHECKING:
    from aigw.cli.names import Names
    from aigw.config import schema
    from aigw.config.edit import ConfigFile
    from aigw.providers.catalog import Row
    from aigw.providers.key_check import Verdict

AT_ONCE = 16
"""Keys that are checked at the same time."""

EVIDENCE = {
    "high": "read in several current sources",
    "medium": "read in one or two current sources",
    "low": "read in one source, perhaps an old one: try it before you rely on it",
    "": "ours",
}
KEY_EVIDENCE = {
    "source": "a source says that its answer tells a good key",
    "inferred": "concluded from its siblings; asked again without the key to be sure",
    "convention": "what such servers usually do; asked again without the key to be sure",
    "": "no source says how to; its list of models is tried, with the key and without",
}

app = typer.Typer(
    cls=Noun,
    rich_markup_mode=None,
    help="Providers: who serves models, with which keys of ours. Without a command: list.",
    epilog="""\b
Examples:
  aigw providers                          those of the config
  aigw providers --keys                   each key as it is now: busy, resting, what is left
  aigw providers list --all deep          the catalog, searched
  aigw providers add deepseek --key -     asks for the key, checks it, writes the config
  aigw providers test                     is every key good?
""",
)
app.add_typer(provider_keys.app, name="keys")
app.command("add", epilog=provider_add.EXAMPLES)(provider_add.add)


# ---- list


@app.command(
    "list",
    epilog="""\b
Examples:
  aigw providers
  aigw providers --keys                   each key, as it is now
  aigw providers list --all               everything the catalog knows
  aigw providers list --all 通义          by name, id, variable or model
  aigw providers list --json
""",
)
def list_providers(
    context: typer.Context,
    search: Annotated[
        str | None, typer.Argument(metavar="[SEARCH]", help="Only those with this in name, id or models.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="The whole catalog, configured or not.")] = False,
    keys: Annotated[bool, typer.Option("--keys", help="Each key: busy, resting and why, what is left of its limits.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="For spreadsheets.")] = False,
) -> None:
    """The providers of the config: kind, address, keys, models, and what each takes from another. --all: the catalog."""
    if as_json and as_csv:
        raise typer.BadParameter("--json and --csv exclude each other")
    where = locations(context)
    if keys and everything:
        raise typer.BadParameter("--keys and --all exclude each other")
    if keys:
        pool_view.show(where, search or "", as_json=as_json, as_csv=as_csv)
        return
    if everything:
        _list_catalog(where, search or "", as_json=as_json, as_csv=as_csv)
        return
    from aigw.cli import names

    found = names.read(where)
    facts = [_facts(found, name) for name in found.providers]
    if search:
        facts = [fact for fact in facts if search.casefold() in f"{fact['name']} {fact['kind']} {fact['base_url']}".casefold()]
    if as_json:
        output.json(facts)
    elif as_csv:
        columns = ["name", "kind", "base_url", "residency", "keys", "models", "shadows", "shadowed"]
        cells = [
            [*(fact[one] for one in columns[:4]), len(fact["keys"]), len(fact["models"])]
            + [" ".join(one["claim"] for one in fact[part]) for part in ("shadows", "shadowed")]
            for fact in facts
        ]
        output.csv(columns, cells)
    elif not facts:
        output.note(f"No provider {'matches' if found.providers else 'is configured yet'}.")
        output.note("'aigw providers list --all' shows those we know; 'aigw providers add NAME --key -' adds one.")
    else:
        output.table(
            [
                Column("provider"),
                Column("kind", rank=3),
                Column("base url", rank=4),
                Column("keys", right=True),
                Column("models", right=True, rank=1),
                Column("shadows", rank=2),
            ],
            [
                [
                    fact["name"],
                    fact["kind"],
                    fact["base_url"],
                    str(len(fact["keys"])),
                    str(len(fact["models"]) or "-"),
                    _brief(fact["shadows"], "provider"),
                ]
                for fact in facts
            ],
        )
        for problem in found.missing:
            output.warn(str(problem))


def _facts(found: Names, name: str) -> dict[str, Any]:
    """What is known of a configured provider, for programs."""
    provider, table = found.providers[name], found.loaded.config.providers[name]
    lost = list(found.table.shadowed())
    return {
        "name": name,
        "kind": provider.kind,
        "base_url": _address(table, provider.kind),
        "residency": provider.residency,
        "keys": provider_keys.facts(name, table),
        "models": found.listed[name],
        "shadows": [{"claim": one.claim, "kind": one.kind, "provider": one.loser} for one in lost if one.winner == name],
        "shadowed": [{"claim": one.claim, "kind": one.kind, "provider": one.winner} for one in lost if one.loser == name],
    }


def _address(table: schema.Provider, kind: str) -> str:
    from aigw.providers import catalog

    row = catalog.row(kind)
    url = table.base_url or table.anthropic_base_url or row.base_url or row.openai_surface or row.anthropic_url
    for setting in row.settings:
        value = table.settings.get(setting.name) or os.environ.get(setting.env) or setting.default
        url = url.replace(f"{{{setting.name}}}", value) if value else url
    return url


def _brief(claims: Sequence[dict[str, str]], whom: str) -> str:
    """ "gpt-, o1 and 3 more of work"."""
    if not claims:
        return ""
    shown = [one["claim"] for one in claims[:2]]
    more = f" and {len(claims) - 2} more" if len(claims) > 2 else ""
    return f"{', '.join(shown)}{more} of {', '.join(dict.fromkeys(one[whom] for one in claims))}"


def _list_catalog(where: Locations, search: str, *, as_json: bool, as_csv: bool) -> None:
    from aigw.providers import catalog

    try:
        here = {table.kind or name for name, table in where.load_config().providers.items()}
    except ConfigError:
        here = set()  # a config with mistakes is no reason not to look something up
    everyone = [catalog.row(one) for one in catalog.ids()]
    rows = [row for row in everyone if _matches(row, search)]
    rows = rows or [row for row in everyone if _matches(row, search, models=True)]
    facts: list[dict[str, Any]] = [
        {
            "id": row.id,
            "name": row.name,
            "name_zh": row.name_zh,
            "category": row.category,
            "residency": row.residency,
            "apis": _apis(row),
            "served": row.served,
            "configured": row.id in here,
            "variable": next((one for one in row.env if os.environ.get(one)), next(iter(row.env), "")),
            "variable_set": any(os.environ.get(one) for one in row.env),
            "evidence": row.evidence,
        }
        for row in rows
    ]
    if as_json:
        output.json(facts)
    elif as_csv:
        output.csv(list(facts[0]) if facts else [], [[_cell(value) for value in fact.values()] for fact in facts])
    elif not facts:
        from aigw.cli.suggest import nearest

        near = nearest(search, catalog.ids())
        hint = f"Did you mean {' or '.join(near)}? " if near else ""
        output.note(
            f"Nothing in the catalog has {output.safe(search)!r} in it. {hint}Any server that speaks OpenAI's API works:"
        )
        output.note("  aigw providers add NAME --base-url https://host/v1 --key -")
    else:
        output.table(
            [Column("id"), Column(say("name", "名称")), Column("APIs", rank=1), Column("key", rank=2), Column("state", rank=3)],
            [
                [
                    fact["id"],
                    ((is_chinese() and fact["name_zh"]) or fact["name"]) + _other_name(fact),
                    ", ".join(fact["apis"]) if fact["served"] else "not served yet",
                    f"{fact['variable']}{' (set)' if fact['variable_set'] else ''}",
                    "configured" if fact["configured"] else "",
                ]
                for fact in facts
            ],
        )
        output.note(f"{len(facts)} of {len(catalog.ids())}. Add one: aigw providers add ID --key -")


def _other_name(fact: dict[str, Any]) -> str:
    """The name in the other language, where there is one."""
    other = fact["name"] if is_chinese() else fact["name_zh"]
    return f" ({other})" if fact["name_zh"] and not fact["name_zh"].isascii() else ""


def _cell(value: Any) -> Any:
    return " ".join(value) if isinstance(value, list) else value


def _matches(row: Row, search: str, *, models: bool = False) -> bool:
    text = " ".join([row.id, row.name, row.name_zh, *row.env, *row.prefixes, *(row.models if models else ())])
    return all(word in text.casefold() for word in search.casefold().split())


def _apis(row: Row) -> list[str]:
    return ["OpenAI"] * bool(row.openai_surface or row.category == "generic") + ["Anthropic"] * bool(row.anthropic_url) or [
        "its own"
    ]


# ---- show


@app.command(
    epilog="""\b
Examples:
  aigw providers show deepseek
  aigw providers show zhipu --json
"""
)
def show(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the config, or of the catalog.", autocompletion=configured)],
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Everything about one provider: what the config says of it, what the catalog knows, and where that was read."""
    from aigw.cli import names
    from aigw.cli.suggest import unknown
    from aigw.providers import catalog

    try:
        found = names.read(locations(context))
    except ConfigError as error:
        if name not in catalog.ids():
            raise
        output.warn(str(error))  # a config with mistakes, or none yet, is no reason not to look something up
        here, own = None, []
    else:
        here, own = (_facts(found, name) if name in found.providers else None), list(found.providers)
    kind = here["kind"] if here else name
    if kind not in catalog.ids():
        output.fail(unknown("provider", name, [*own, *catalog.ids()]))
        output.note("'aigw providers list --all' shows the catalog.")
        raise typer.Exit(1)
    row = catalog.row(kind)
    facts = _row_facts(row)
    if as_json:
        output.json({"configured": here, "catalog": facts})
        return
    if here:
        _say_configured(here)
        output.data("")
    _say_row(row, facts)
    if not here:
        how = " --key -" if row.needs_key else ""
        output.note(f"Not in the config. Add it: aigw providers add {row.id}{how}" if row.served else "Not served yet.")


def _row_facts(row: Row) -> dict[str, Any]:
    import msgspec

    facts: dict[str, Any] = msgspec.to_builtins(row)
    return facts | {"apis": _apis(row), "served": row.served, "needs_key": row.needs_key}


def _say_configured(here: dict[str, Any]) -> None:
    keys = [f"{key['label']} {key['reference']}" + (f" ...{key['ends_in']}" if key["ends_in"] else "") for key in here["keys"]]
    lines = {
        "provider": here["name"],
        "kind": here["kind"],
        "base url": here["base_url"],
        "residency": here["residency"] or "-",
        "keys": "; ".join(keys) or "none",
        "models": provider_add.listed(here["models"], 8) or "not heard of yet",
        "shadows": "; ".join(f"{one['claim']} of {one['provider']}" for one in here["shadows"][:8]) or "nothing",
        "shadowed": "; ".join(f"{one['claim']} goes to {one['provider']}" for one in here["shadowed"][:8]) or "nothing",
    }
    _say_lines(lines)


def _say_row(row: Row, facts: dict[str, Any]) -> None:
    from aigw.providers import catalog

    settings = [
        one.name
        + (" (required)" if one.required else "")
        + (f" = {one.default}" if one.default else "")
        + (f", ${one.env}" if one.env else "")
        for one in row.settings
    ]
    lines = {
        "catalog row": row.id,
        "name": row.name + (f" ({row.name_zh})" if row.name_zh else ""),
        "what it is": f"{row.category}{'' if row.status == 'active' else f', {row.status}: it may have closed'}",
        "data stays in": {"intl": "anywhere outside mainland China", "cn": "mainland China"}.get(row.residency, row.residency),
        "APIs": ", ".join(facts["apis"]) if row.served else f"{row.protocol}, which this version does not serve yet",
        "OpenAI URL": row.openai_surface,
        "Anthropic URL": row.anthropic_url,
        "other URLs": "; ".join(f"{what}: {url}" for what, url in row.other_urls.items()),
        "key": "none is needed" if not row.needs_key else " or ".join(f"${one}" for one in row.env) or "wanted",
        "key check": _check_of(row),
        "settings": "; ".join(settings),
        "serves": ", ".join(row.capabilities),
        "models": ", ".join(row.models) + (f" (as of {row.as_of or 'long ago'})" if row.models else ""),
        "default model": row.default_model,
        "claims": ", ".join(row.prefixes),
        "twin": f"{row.twin} (the same vendor across the border; keys are not shared)" if row.twin else "",
        "good to know": "; ".join(catalog.QUIRKS[one] for one in row.quirks),
        "documentation": row.docs_url,
        "evidence": EVIDENCE[row.evidence],
        "sources": "; ".join(row.sources),
    }
    _say_lines({label: text for label, text in lines.items() if text})


def _check_of(row: Row) -> str:
    url = row.key_check or row.models_url
    if not url:
        return "no free one is known"
    return f"GET {row.base_url + url if url.startswith('/') else url}; {KEY_EVIDENCE[row.key_evidence]}"


def _say_lines(lines: dict[str, str]) -> None:
    import shutil
    import sys
    import textwrap

    room = max(shutil.get_terminal_size().columns - 1, 40) if output.drawn(sys.stdout) else 0
    for label, text in lines.items():
        line = f"{label + ':':<15} {output.safe(text)}"
        if room:  # on a terminal words stay whole; in a pipe each fact is one line
            line = textwrap.fill(line, room, subsequent_indent=" " * 16, break_long_words=False, break_on_hyphens=False)
        output.data(line)


# ---- test


class Checked(NamedTuple):
    """One key, and what came of it."""

    provider: str
    label: str
    verdict: Verdict
    seconds: float
    call: str = ""


@app.command(
    "test",
    epilog="""\b
Examples:
  aigw providers test                             every key of every provider; free
  aigw providers test deepseek
  aigw providers test deepseek --calls            models, chat, stream, embeddings, with timings: a few tokens
  aigw providers test deepseek --model deepseek-flash     one real request with each key: a few tokens
""",
)
def check_all(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="This provider only.", autocompletion=configured)] = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="MODEL", help="Ask it for one word: costs a few tokens.")
    ] = None,
    calls: Annotated[bool, typer.Option("--calls", help="Try each kind of call: a few tokens with each key.")] = False,
    timeout: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="For each key.")] = 15.0,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="For spreadsheets.")] = False,
) -> None:
    """Check every key live. Exit code 1 when one is wrong, has no credit, or its address is wrong."""
    if as_json and as_csv:
        raise typer.BadParameter("--json and --csv exclude each other")
    if model and name is None:
        raise typer.BadParameter("--model needs the NAME of a provider")
    from aigw.cli import probing

    where = locations(context)
    config = where.load_config() if name is None else known(where, name)[1]
    tables = {one: table for one, table in config.providers.items() if name in (None, one)}
    jobs = [job for one, table in tables.items() for job in _jobs(one, table)]
    if not jobs and not (as_json or as_csv):
        output.note("No provider is configured yet: aigw providers add NAME --key -")
        return
    text = say(f"checking {len(jobs)} key{'s' * (len(jobs) != 1)} ...", f"正在检查 {len(jobs)} 个密钥 ...")
    with output.working(text):
        done = probing.in_loop(_all_checked(jobs, tables, config.upstream, model or "", timeout, calls=calls))
    bad = [one for one in done if one.verdict.kind in ("wrong_key", "no_credit", "wrong_url")]
    if model or calls:
        fine = ("good", "limited")  # that a key cannot be checked for free is no matter when it is tried for real
        bad = [one for one in done if one.verdict.kind not in (*fine, *(["unknown"] if one.call == "key" else []))]
    rows = [
        {
            "provider": one.provider,
            "label": one.label,
            **({"call": one.call} if calls else {}),
            "verdict": one.verdict.kind,
            "detail": one.verdict.detail,
            "models": len(one.verdict.models),
            "seconds": round(one.seconds, 3),
        }
        for one in done
    ]
    if as_json:
        output.json(rows)
    elif as_csv:
        columns = ["provider", "label", *(["call"] if calls else []), "verdict", "detail", "models", "seconds"]
        output.csv(columns, [list(row.values()) for row in rows])
    else:
        output.table(
            [
                Column("key"),
                *([Column("call")] if calls else []),
                Column("verdict"),
                Column("time", right=True, rank=1),
                Column("detail", rank=2),
            ],
            [
                [
                    one.label,
                    *([one.call] if calls else []),
                    say(*provider_keys.WORDS[one.verdict.kind]),
                    figures.duration(round(one.seconds * 1e6)),
                    one.verdict.detail,
                ]
                for one in done
            ],
        )
        for one in bad:
            output.note(_next(one))
    if bad:
        raise typer.Exit(1)


def _next(bad: Checked) -> str:
    """What to do about it, with the whole explanation, which a narrow table may have cut."""
    what = {
        "wrong_key": f"aigw providers keys rotate {bad.provider} {bad.label} --key -",
        "no_credit": "top up the account, or use another key",
        "wrong_url": f"base_url of [providers.{bad.provider}] in the config: aigw config edit",
    }.get(bad.verdict.kind, "try again, or another model")
    return f"{bad.label}: {bad.verdict.detail}; {what}"


class Job(NamedTuple):
    """A key to check. `problem`: it cannot be looked up here."""

    provider: str
    label: str
    secret: str
    problem: str = ""

    def __repr__(self) -> str:
        return f"Job({self.label!r})"


def _jobs(name: str, table: schema.Provider) -> list[Job]:
    from aigw.config import secrets

    found = []
    for number, (label, reference) in enumerate(zip(table.labels(name), table.references, strict=True), 1):
        try:
            found.append(Job(name, label, secrets.resolve(reference, key=f"providers.{name}.keys[{number - 1}]")))
        except ConfigError as error:
            found.append(Job(name, label, "", error.message))
    return found or [Job(name, name, "")]


async def _all_checked(
    jobs: Sequence[Job],
    tables: dict[str, schema.Provider],
    upstream: schema.Upstream,
    model: str,
    within: float,
    *,
    calls: bool = False,
) -> list[Checked]:
    from aigw.cli import probing

    room = asyncio.Semaphore(AT_ONCE)

    async def one(job: Job) -> list[Checked]:
        if job.problem:
            return [Checked(job.provider, job.label, probing.Verdict("unknown", job.problem), 0.0)]
        async with room:
            if calls:
                table = tables[job.provider]
                tried = await probing.calls(job.provider, table, upstream, job.secret, model=model, within=within)
                return [Checked(job.provider, job.label, verdict, took, call) for call, verdict, took in tried]
            began = time.monotonic()
            verdict = await probing.checked(
                job.provider, tables[job.provider], upstream, job.secret, model=model, within=within
            )
            return [Checked(job.provider, job.label, verdict, time.monotonic() - began)]

    return [checked for found in await asyncio.gather(*map(one, jobs)) for checked in found]


# ---- remove


@app.command(
    epilog="""\b
Examples:
  aigw providers remove gpu
  aigw providers remove gpu --dry-run
"""
)
def remove(
    context: typer.Context,
    name: provider_keys.NameArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: DryRun = False,
) -> None:
    """Take a provider out of the config, and out of the routes that name it."""
    where = locations(context)
    file, config = known(where, name)
    table = config.providers[name]
    changed, gone = _without(file, name)
    for route in gone:
        output.warn(f"the route {output.safe(route)} has no other target: it goes too")
    for route in changed:
        output.note(f"the route {output.safe(route)} loses {output.safe(name)}")
    if not yes and not dry_run:
        if output.interactive():
            if not output.confirm(say(f"Remove {name}?", f"删除 {name}？")):
                output.note(say("Nothing was changed.", "未作任何更改。"))
                raise typer.Exit(1)
        elif changed or gone:
            output.fail("routes name it; nothing was changed (--yes changes them, --dry-run shows how)")
            raise typer.Exit(1)
    file.remove("providers", name)
    finish(where, file, f"Removed {output.safe(name)}", dry_run=dry_run)
    if not dry_run:
        provider_keys.forget(file, table.references)


def _without(file: ConfigFile, name: str) -> tuple[list[str], list[str]]:
    """Take *name* out of the file's routes: those that have others left, and those that had no other target."""
    changed, gone = [], []
    for route, table in (file.get("routes") or {}).items():
        lists = {part: table.get(part) or [] for part in ("targets", "fallback")}
        left = {part: [one for one in targets if one.get("provider") != name] for part, targets in lists.items()}
        if left == lists:
            continue
        if not left["targets"]:
            gone.append(route)
            file.remove("routes", route)
            continue
        changed.append(route)
        for part, targets in left.items():
            if targets != lists[part]:
                file.set(targets or None, "routes", route, part)
    return changed, gone

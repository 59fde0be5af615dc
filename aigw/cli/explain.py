"""`aigw explain`: what would become of a request, without sending it; or what became of one that is over."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from aigw.cli import control, figures, output, windows
from aigw.cli.complete import consumer_names, model_names, provider_names
from aigw.cli.locations import Locations, locations
from aigw.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from aigw.cli.decision import Question
    from aigw.cli.past import Line
    from aigw.exchange import Record

LABEL = 13
"""Columns of the labels at the left."""

LARGEST = 64 * 1024 * 1024
"""Bytes of a request that are read."""

HELLO = [{"role": "user", "content": "hello"}]

SAMPLES: dict[str, dict[str, Any]] = {
    "chat": {"messages": HELLO},
    "messages": {"messages": HELLO, "max_tokens": 1024},
    "responses": {"input": "hello"},
    "completions": {"prompt": "hello"},
    "embeddings": {"input": "hello"},
    "images": {"prompt": "hello"},
    "speech": {"input": "hello", "voice": "alloy"},
    "moderations": {"input": "hello"},
    "rerank": {"query": "hello", "documents": ["hello"]},
    "count_tokens": {"messages": HELLO},
    "generate": {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]},
}
"""What is asked where nobody says what."""

EXAMPLES = """\b
Examples:
  aigw explain -m gpt-5                 where it would go, and why
  aigw explain -m fast -f request.json --consumer alice
  aigw explain -m fast --down openai --at 23:30
  aigw explain -m fast --as messages --header x-tier=gold --json
  aigw explain req_7c2a4e1b9d3000000001 what became of one
"""

app = typer.Typer(rich_markup_mode=None)


@app.command(epilog=EXAMPLES)
def explain(
    context: typer.Context,
    request_id: Annotated[
        str | None, typer.Argument(metavar="[REQUEST_ID]", help="One that is over, or the beginning of its id.")
    ] = None,
    model: Annotated[
        str, typer.Option("-m", "--model", metavar="MODEL", help="The name that is asked for.", autocompletion=model_names)
    ] = "",
    file: Annotated[
        str | None, typer.Option("-f", "--file", metavar="FILE", help="The request's JSON body; - is standard input.")
    ] = None,
    consumer: Annotated[str, typer.Option(metavar="NAME", help="Who asks.", autocompletion=consumer_names)] = "",
    down: Annotated[
        list[str] | None,
        typer.Option(metavar="PROVIDER", help="As if it failed; may be repeated.", autocompletion=provider_names),
    ] = None,
    at: Annotated[
        str | None, typer.Option(metavar="TIME", help="As if it were then: 23:30, 2026-11-30T18:00, or 2h from now.")
    ] = None,
    header: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="A header of it; may be repeated.")] = None,
    operation: Annotated[
        str, typer.Option("--as", metavar="OPERATION", help="chat, messages, responses ...  [default: as the file looks]")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """What would become of a request, decided by the code that serves them; nothing is sent. Or what became of one.

    With a server running here its health, rests and canaries count; without one all places are taken to be well.
    """
    where = locations(context)
    if request_id is not None:
        if model or file or consumer or down or at or header or operation:
            raise typer.BadParameter("a request that is over stands alone; leave out the other options")
        _past(where, request_id, as_json=as_json)
        return
    if not model and file is None:
        raise typer.BadParameter("name a model (-m), a request (-f), or the id of one that is over")
    question = _question(model, file, consumer, down or (), at, header or (), operation)
    _future(where, question, as_json=as_json)


# what would be


def _question(
    model: str, file: str | None, consumer: str, down: Sequence[str], at: str | None, header: Sequence[str], named: str
) -> Question:
    from aigw.cli.decision import Question
    from aigw.cli.suggest import unknown
    from aigw.protocols import splice
    from aigw.protocols.operations import OPERATIONS

    doors = {name: one for name, one in OPERATIONS.items() if one.door and not one.below}
    if named and named not in doors:
        raise typer.BadParameter(unknown("operation", named, doors) + f"; there are {', '.join(doors)}", param_hint="--as")
    body = b"" if file is None else _body(file)
    operation = doors[named or ("chat" if file is None else _looks_like(body))]
    in_path = "{model}" in operation.path
    if file is None:
        sample = SAMPLES.get(operation.name, SAMPLES["generate"] if in_path else SAMPLES["chat"])
        body = json.dumps(sample if in_path else {"model": model, **sample}).encode()
    elif model and not in_path:
        try:
            body = splice.set_value(body, "model", model)
        except ValueError as error:
            raise typer.BadParameter(f"the model cannot be put into it: {error}", param_hint="--file") from None
    if in_path and not model:
        raise typer.BadParameter("requests of this API do not name their model; give -m", param_hint="--model")
    headers = {}
    for one in header:
        name, equals, value = one.partition("=")
        if not equals or not name.strip():
            raise typer.BadParameter(f"{output.safe(one)!r}: expected NAME=VALUE", param_hint="--header")
        headers[name.strip().lower()] = value
    return Question(operation, model if in_path else "", body, consumer, headers, tuple(down), _moment(at))


def _body(file: str) -> bytes:
    if file == "-":
        return sys.stdin.buffer.read(LARGEST)
    with Path(file).expanduser().open("rb") as opened:  # an OSError says which file and why
        return opened.read(LARGEST)


def _looks_like(body: bytes) -> str:
    """The operation whose request *body* seems to be."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return "chat"  # which says what is wrong with it
    if not isinstance(found, dict):
        return "chat"
    if "contents" in found:
        return "generate"
    if "messages" in found:
        tools = found.get("tools")
        theirs = isinstance(tools, list) and any(isinstance(one, dict) and "input_schema" in one for one in tools)
        return "messages" if "system" in found or theirs else "chat"
    if "documents" in found:
        return "rerank"
    if "prompt" in found:
        return "completions"
    if "voice" in found:
        return "speech"
    if "input" in found:
        return "embeddings" if "embed" in str(found.get("model", "")).lower() or "encoding_format" in found else "responses"
    return "chat"


def _moment(text: str | None) -> float | None:
    if text is None:
        return None
    now = time.time()
    hours = re.fullmatch(r"([01]?[0-9]|2[0-3]):([0-5][0-9])", text.strip())
    if hours is not None:
        local = datetime.fromtimestamp(now).astimezone()
        return local.replace(hour=int(hours[1]), minute=int(hours[2]), second=0, microsecond=0).timestamp()
    try:
        return windows.moment(text, now, windows.zone_named(windows.local_zone()), ahead=True)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--at") from None


def _future(where: Locations, question: Question, *, as_json: bool) -> None:
    from aigw.cli import decision, names

    found = names.read(where)
    state: Mapping[str, Any] | None = None
    problem = ""
    try:
        state = control.ask(where.data_path())
    except OSError as error:
        problem = f"the running server could not be asked: {error.strerror}; all places are taken to be well"
    facts = asyncio.run(decision.explain(where, found, question, state))
    if as_json:
        output.json(facts)
    else:
        _print([("request", _request(facts)), *_who(facts), *_way(facts)])
        _places(facts)
    if problem:
        output.warn(problem)
    elif state is None:
        output.note("No server runs here: places are taken to be well but for long rests of keys.")
    elif not facts["server"]["same_config"]:
        output.warn(f"the running server (process {facts['server']['pid']}) serves another config than this one")
    for absent in found.missing:
        output.aside(f"not here, taken as given: {absent}")
    refusal = facts["refusal"]
    if refusal is not None:
        output.fail(f"it would be answered {refusal['status']} {refusal['code']}: {refusal['message']}")
        raise typer.Exit(1)
    if facts["first"] is None:
        output.fail("it would fail: every place it may go to is down")
        raise typer.Exit(1)


def _request(facts: Mapping[str, Any]) -> str:
    tokens = f"about {figures.count(facts['prompt_tokens'])} tokens"
    most = f", at most {figures.count(facts['max_tokens'])} in the answer" if facts["max_tokens"] else ""
    return f"{facts['operation']} for {facts['model']}{', as a stream' if facts['stream'] else ''}; {tokens}{most}"


def _who(facts: Mapping[str, Any]) -> list[Line]:
    consumer = facts["consumer"]
    if consumer is None:
        return []
    group = f", group {consumer['group']}" if consumer["group"] else ""
    limits = [
        f"{figures.count(one['limit'])} {one['kind']}"
        + (f" for {one['group']}" if one.get("group") else "")
        + (f" ({figures.count(one['used'])} used)" if one["used"] is not None else "")
        for one in facts["limits"]
    ]
    said = [("consumer", f"{consumer['name']}{group}; {', '.join(limits) or 'no limits'}")]
    for one in facts["budgets"]:
        amount, used = (_amount(one[part], one["unit"]) for part in ("limit", "used"))
        said.append(("budget", f"{amount} a {one['window']} of the {one['whose']}{f' ({used} used)' if used else ''}"))
    if facts["max_output"]:
        said.append(("answer", f"of at most {figures.count(facts['max_output'])} tokens"))
    if facts["forbidden"]:
        said.append(("not allowed", ", ".join(facts["forbidden"])))
    return said


def _amount(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    return figures.money({"USD": round(value * 1e9)}) if unit == "usd" else f"{figures.count(int(value))} tokens"


def _way(facts: Mapping[str, Any]) -> list[Line]:
    said: list[Line] = []
    route = facts["route"]
    if route is not None:
        kept = f"; it goes on from what {route['kept_by']} keeps" if "kept_by" in route else ""
        said.append(("route", f"{route['name']}: {route['why']}{kept}"))
    if facts["strategy"]:
        said.append(("strategy", facts["strategy"]))
    canary = facts["canary"]
    if canary is not None:
        share = f"{canary['percent']:g} % {'mirrored' if canary['shadow'] else 'by ' + canary['sticky']}"
        arm = {"old": "stays with the old arm", "new": "belongs to the new arm"}.get(canary["arm"], "takes no part")
        said.append(("canary", f"to {canary['to']}, {share}, {canary['status']}; this request {arm}"))
    return said


def _places(facts: Mapping[str, Any]) -> None:
    """The attempts in their order, then the places that get none, with the reason."""
    attempts, candidates = facts["attempts"], facts["candidates"]
    if facts["first"] == "aigw":
        output.data("It would be answered here, by an estimate: no place counts tokens.")
    for number, one in enumerate(attempts, 1):
        if number == 1:
            output.data("")
            output.data("Asked, each if the ones before fail:")
        place = next((known for known in candidates if known["attempt"] == number), None)
        again = "" if place is not None else "once more"
        head = f"{number:>3}. {one['deployment']} with {one['key']}"
        gone = "taken to be down" if one["provider"] in facts["down"] else ""
        _paragraph(head, ", ".join(filter(None, (gone, again, *(_about(place, facts) if place is not None else ())))))
        if place is None:
            continue
        way = f"translated: {facts['dialect']} -> {one['dialect']}" if one["translated"] else "passed through as it is"
        if one["problem"]:
            way = f"fails before it is sent: {one['problem']}"
        _paragraph("", f"{one['request']}, {way}" if one["request"] else way)
        if one["losses"]:
            _paragraph("", f"loses: {', '.join(one['losses'])}")
        if one["prompt_cost"] is not None:
            told = {name: figures.money({one["currency"]: one[name] or 0}) for name in ("prompt_cost", "cost_per_1000_output")}
            _paragraph(
                "", f"costs about {told['prompt_cost']}, and {told['cost_per_1000_output']} per 1,000 tokens of the answer"
            )
    idle = [one for one in candidates if one["attempt"] is None]
    if idle:
        output.data("")
        output.data("Not asked:")
    for one in idle:
        _paragraph(f"  -  {one['deployment']}", one["not_tried"])


def _about(place: Mapping[str, Any], facts: Mapping[str, Any]) -> Iterable[str]:
    """What speaks for a place, and against it."""
    if place["role"] == "fallback":
        yield "fallback"
    if place["share"] is not None and place["share"] < 1:
        yield f"{100 * place['share']:.3g} % by lot"
    if place["last_because"]:
        reason = "" if place["provider"] in facts["down"] else place["reason"].removeprefix("provider_")
        yield f"comes late: {place['last_because']}{f' ({reason})' if reason else ''}"
    elif place["circuit"] != "closed":
        yield "may look whether it is back"
    if facts["strategy"] in ("least-busy", "lowest-latency"):
        yield f"{place['in_flight']} under way"
    if facts["strategy"] == "lowest-latency" and place["first_byte"]:
        yield f"begins after {figures.duration(int(place['first_byte'] * 1e6))}"
    out = [one for one in place["keys"] if one["state"] != "ready"]
    if out:
        told = ", ".join(
            f"{one['key']} {'rests ' + figures.duration(int(one['seconds'] * 1e6)) if one['seconds'] else one['state']}"
            for one in out[:3]
        )
        yield f"{told}{f' and {len(out) - 3} keys more' if len(out) > 3 else ''}"


# what was


def _past(where: Locations, text: str, *, as_json: bool) -> None:
    record, config_hash, near = asyncio.run(_find(where, text))
    if record is None:
        _unknown(text, near)
    from aigw.cli import names, past

    book = None
    try:
        found = names.read(where)
        book, config_hash = found.prices, found.loaded.hash
    except ConfigError as error:
        output.warn(f"the config cannot be read, so prices of now are not known: {error}")
    if as_json:
        output.json(past.told(record, book, config_hash))
    else:
        _print(past.lines(record, book, config_hash))


async def _find(where: Locations, text: str) -> tuple[Record | None, str, list[str]]:
    """The record of that id, or else the ids that may be meant. Raises StoreError for a beginning that several have."""
    from aigw.cli import past

    if not where.data_path().is_dir():  # to look is no reason to make a store
        return None, "", []
    try:
        config = where.load_config()
    except ConfigError:
        from aigw.config.schema import Config

        config = Config()  # the usual store: what has become of requests can be seen with a broken config, too
    async with where.store(config) as store:
        found = await past.find(store, text)
        exact = [one for one in found if one.id in (text, f"{text}-shadow")]
        if len(found) == 1 or (exact and exact[-1].id == text):
            return (found[0] if len(found) == 1 else exact[-1]), "", []
        if found:
            ids = ", ".join(one.id for one in found[:3])
            raise StoreError(f"several requests begin with {text[:40]!r}: {ids}{' ...' if len(found) > 3 else ''}")
        return None, "", await past.similar(store, text)


def _unknown(text: str, near: Sequence[str]) -> NoReturn:
    hint = f": did you mean {' or '.join(near)}?" if near else ""
    output.fail(f"no request {text[:80]!r} is kept here{hint}")
    if not text.startswith("req_"):
        output.note(f"To ask where a model goes: aigw explain -m {text[:80]}")
    output.note("The newest requests, with their ids: aigw logs")
    raise typer.Exit(1)


# on the screen


def _print(said: Iterable[Line]) -> None:
    room = _room() - LABEL
    for label, text in said:
        for at, line in enumerate(output.wrapped(output.safe(text), max(room, 20))):
            shown = f"{label}:" if label and not at else ""
            output.data(f"{shown:<{LABEL}}{line}".rstrip())


def _paragraph(head: str, text: str) -> None:
    """*text* behind *head*, its further lines below it; under it where the two do not fit beside each other."""
    head, text, room = output.safe(head), output.safe(text), _room()
    if head and text and output.width(head) + 2 + output.width(text) <= room:
        output.data(f"{head}  {text}")
        return
    if head:
        output.data(head)
    for line in output.wrapped(text, max(room - 5, 20)) if text else ():
        output.data(f"     {line}")


def _room() -> int:
    return shutil.get_terminal_size().columns if output.drawn(sys.stdout) else 100

"""One exchange that is over, from its record: attempts with their reasons, waits, first token, tokens times price, and the next
command to try."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from aigw.cli import figures
from aigw.cli.log_lines import attempts, facts
from aigw.cli.remedies import next_command
from aigw.exchange import Attempt, Record, Usage

if TYPE_CHECKING:
    from aigw.metering.prices import PriceBook
    from aigw.storage.base import Store

ARRIVES = 1.5
"""Seconds in which a record that was just made comes to the store."""

SUGGESTED = 2000
"""Newest records whose ids are compared with one that nobody has."""

Line = tuple[str, str]
"""A label ("" goes on with the one above) and what is said."""


async def find(store: Store, text: str) -> list[Record]:
    """The records whose id is *text*, or begins so; waits a moment for one that is on its way. At most four, newest first."""
    deadline = time.monotonic() + ARRIVES
    whole = len(text) >= 24  # of our ids
    while True:
        found = await store.records(ids=[text]) or await store.records(prefix=text, limit=4)
        if found or not whole or time.monotonic() > deadline:
            return found
        await asyncio.sleep(0.25)


async def similar(store: Store, text: str) -> list[str]:
    """Ids that *text* may mean: those that end so, else those that look like it, newest first."""
    from aigw.cli.suggest import nearest

    ids = [record.id for record in await store.records(limit=SUGGESTED)]
    return [one for one in ids if len(text) >= 2 and one.endswith(text)][:3] or nearest(text, ids)


def spent(record: Record, book: PriceBook | None) -> list[dict[str, Any]]:
    """What the cost is made of: tokens, price for a million, nano-units, in parts; [] when the price of then is not known any
    more."""
    if record.cost is None or book is None:
        return []
    names = (record.answer_model, record.model) if record.answer_model else (record.model,)
    counts = {field: getattr(record, field) for field in Usage.__struct_fields__}
    usage = Usage(**counts)

    def price(of: Usage) -> int | None:
        cost = book.price(record.provider, names, of, record.at)
        return None if cost is None or cost.currency != record.currency else cost.nano

    read = {"input": record.input, "cached": record.cached}
    replace = msgspec.structs.replace
    parts = (
        ("output", record.output, dict.fromkeys(("output", "reasoning", "audio_output", "image_output"), 0)),
        ("cached", record.cached, {"input": record.input - record.cached, "cached": 0}),
        (
            "input",
            record.input - record.cached,
            dict.fromkeys(("input", "cached", "cache_write_5m", "cache_write_1h", "audio_input", "image_input"), 0),
        ),
    )
    left, found = price(usage), []
    if left != record.cost:
        return []  # prices have changed
    for name, tokens, without in parts:
        if not tokens or (name == "cached" and read["cached"] > read["input"]):
            continue
        usage = replace(usage, **without)
        rest = price(usage)
        if rest is None or left is None:
            return []
        found.append({"part": name, "tokens": tokens, "cost": left - rest, "per_million": (left - rest) / tokens / 1000})
        left = rest
    if left:
        found.append({"part": "request", "tokens": 0, "cost": left, "per_million": 0.0})
    return found[::-1]


def told(record: Record, book: PriceBook | None, config_hash: str) -> dict[str, Any]:
    """All about *record* for programs."""
    chain = attempts(record)
    found = facts(record)
    for one, attempt in zip(found["attempts"], waits(chain), strict=True):
        one["waited"] = attempt
    found["parts"] = [{**one, "cost": figures.exact(one["cost"])} for one in spent(record, book)]
    found["config_is_current"] = bool(config_hash) and record.config_hash == config_hash
    found["next"] = next_command(record, chain[-1] if chain else None)
    return found


def waits(chain: Sequence[Attempt]) -> list[int]:
    """Microseconds before each attempt in which none was under way."""
    ends = [0, *(attempt.started + attempt.took for attempt in chain[:-1])]
    return [max(0, attempt.started - end) for attempt, end in zip(chain, ends, strict=True)]


def lines(record: Record, book: PriceBook | None, config_hash: str) -> list[Line]:
    """All about *record* for people; nothing in it is safe to show yet."""
    chain = attempts(record)
    moment = datetime.fromtimestamp(record.at).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    verdict = f"{record.status or 'no status'}, {record.error or 'well'}, after {figures.duration(record.took)}"
    who = record.consumer or "nobody known"
    who += f" (key {record.key_id})" if record.key_id else ""
    who += f", by {record.client_agent}" if record.client_agent else ""
    asked = f"{record.operation} ({record.dialect}{', stream' if record.stream else ''}) for {record.requested_model or '-'}"
    said: list[Line] = [("request", record.id), ("at", moment), ("answer", verdict), ("asked", asked), ("consumer", who)]
    if record.route or record.provider:
        went = f"{record.provider}/{record.model}" if record.provider else "nowhere"
        answered = f", which answered as {record.answer_model}" if record.answer_model not in ("", record.model) else ""
        said.append(("route", f"{record.route or '-'} -> {went}{answered}"))
    if record.canary:
        said.append(("canary", f"{record.canary}, arm {record.arm}"))
    said += _attempts(chain)
    if record.first_token is not None:
        since = record.first_token - chain[-1].started if chain else record.first_token
        more = f", {figures.duration(since)} after the last attempt began" if len(chain) > 1 else ""
        pace = (record.took - record.first_token) / 1e6
        speed = f"; then {figures.rate(record.output / pace)} tokens/s" if record.output and pace > 0.001 else ""
        said.append(("first token", f"{figures.duration(record.first_token)}{more}{speed}"))
    said += _money(record, book)
    if record.finish_reason:
        said.append(("ended with", record.finish_reason))
    if record.loss:
        said.append(("not said", f"{record.loss} (what the provider's API has no words for)"))
    if record.upstream_id:
        said.append(("their id", record.upstream_id))
    if record.config_hash:
        same = "the one of now" if record.config_hash == config_hash else "another than now"
        said.append(("config", f"{record.config_hash[:12]}, {same}"))
    command = next_command(record, chain[-1] if chain else None)
    if command:
        said.append(("next", command))
    elif record.error:
        said.append(("next", "change the request: the message of the answer says what is wrong with it"))
    return said


def _attempts(chain: Sequence[Attempt]) -> list[Line]:
    if not chain:
        return [("attempts", "none: nobody was asked")]
    found: list[Line] = []
    for number, (attempt, waited) in enumerate(zip(chain, waits(chain), strict=True), 1):
        place = f"{attempt.provider}/{attempt.model}" + (f" with {attempt.key}" if attempt.key else "")
        answer = str(attempt.status) if attempt.status else "no answer"
        pause = f", after a wait of {figures.duration(waited)}" if waited >= 10_000 and number > 1 else ""
        text = (
            f"{number}. +{figures.duration(attempt.started)}: {place}: {answer} after {figures.duration(attempt.took)}{pause}"
        )
        found.append(("" if found else "attempts", text))
        reason = ": ".join(part for part in (attempt.error, attempt.detail) if part)
        if reason:
            found.append(("", f"   {reason}"))
        if attempt.cost:
            found.append(("", f"   it may have cost {figures.exact(attempt.cost)} all the same"))
    return found


def _money(record: Record, book: PriceBook | None) -> list[Line]:
    if not (record.input or record.output):
        return []
    more = {
        "read from the cache": record.cached,
        "written to the cache": record.cache_write_5m + record.cache_write_1h,
    }
    inside = ", ".join(f"{figures.count(number)} {text}" for text, number in more.items() if number)
    tokens = f"{figures.count(record.input)} in{f' ({inside})' if inside else ''}, {figures.count(record.output)} out"
    tokens += f" ({figures.count(record.reasoning)} of reasoning)" if record.reasoning else ""
    said: list[Line] = [("tokens", tokens + (", estimated" if record.estimated else ""))]
    if record.cost is None:
        said.append(("cost", f'not known; set it in the config: [prices."{record.provider}/{record.model}"]'))
        return said
    total = figures.money({record.currency: record.cost})
    parts = [
        f"{figures.count(one['tokens'])} {one['part']} x {one['per_million']:.6g}/M" if one["tokens"] else "the request itself"
        for one in spent(record, book)
    ]
    source = f" ({record.price_source}{f' {record.price_version}' if record.price_version else ''})"
    said.append(("cost", f"{total} = {' + '.join(parts)}{source}" if parts else f"{total}{source}"))
    if record.cache_saving:
        said.append(("", f"the cache saved {figures.money({record.currency: record.cache_saving})}"))
    if record.abandoned_cost:
        said.append(("", f"attempts given up: {figures.money({record.currency: record.abandoned_cost})}"))
    return said

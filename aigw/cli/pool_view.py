"""`aigw providers --keys`: each provider key as the running server sees it, or, without one, what is known from the config and
of long rests."""

from __future__ import annotations

from typing import Any

from aigw.cli import control, figures, output, provider_keys
from aigw.cli.language import say
from aigw.cli.locations import Locations
from aigw.cli.output import Column

REASONS = {
    "provider_rate_limited": ("limited", "限流"),
    "provider_credentials_exhausted": ("no credit", "余额不足"),
    "provider_credentials_invalid": ("not accepted", "密钥无效"),
}
STATES = {
    "ready": ("ready", "可用"),
    "resting": ("rests", "休息中"),
    "probing": ("tried next", "待试用"),
    "full": ("own limit", "达到自设上限"),
    "": ("-", "-"),
}
COLUMNS = (
    "provider",
    "key",
    "reference",
    "ends_in",
    "account",
    "state",
    "reason",
    "seconds",
    "in_flight",
    "weight",
    "rpm_left",
    "tpm_left",
)


def show(where: Locations, search: str, *, as_json: bool, as_csv: bool) -> None:
    """The table, or what programs read. Keys themselves are never shown."""
    live, problem = _live(where)
    rows = [row for row in _rows(where, live) if search.casefold() in f"{row['provider']} {row['key']}".casefold()]
    if as_json:
        output.json(rows)
    elif as_csv:
        output.csv(list(COLUMNS), [[row[one] for one in COLUMNS] for row in rows])
    elif not rows:
        output.note("No provider keys. Add one: aigw providers keys add PROVIDER -")
    else:
        output.table(
            [
                Column(say("key", "密钥")),
                Column(say("state", "状态")),
                Column(say("active", "进行中"), right=True, rank=1),
                Column(say("left", "余量"), rank=2),
                Column(say("kept in", "保存于"), rank=4),
                Column(say("account", "账户"), rank=3),
            ],
            [
                [
                    provider_keys.shown(row["provider"], row["key"]),
                    _state(row),
                    _cell(row["in_flight"]),
                    _left(row),
                    row["reference"],
                    row["account"],
                ]
                for row in rows
            ],
        )
    if problem:
        output.note(problem)


def _live(where: Locations) -> tuple[dict[tuple[str, str], dict[str, Any]], str]:
    """What the running server says, by provider and label, and what to say when there is none."""
    try:
        state = control.ask(where.data_path())
    except OSError as error:
        return {}, f"the running server could not be asked: {error.strerror}"
    if state is None:
        return {}, say(
            "No server runs here: what a key does shows while one does.", "此处没有运行中的服务，状态在服务运行时才可见。"
        )
    return {
        (str(provider.get("name")), str(one.get("key"))): one
        for provider in state.get("providers", [])
        for one in provider.get("pool", [])
    }, ""


def _rows(where: Locations, live: dict[tuple[str, str], dict[str, Any]]) -> list[dict[str, Any]]:
    config = where.load_config()
    rows = []
    for name, table in config.providers.items():
        for fact in provider_keys.facts(name, table):
            now = live.get((name, fact["label"]), {})
            rows.append(
                {
                    "provider": name,
                    "key": fact["label"],
                    "reference": fact["reference"],
                    "ends_in": fact["ends_in"],
                    "account": fact["account"],
                    "problem": fact["problem"],
                    "state": now.get("state", ""),
                    "reason": now.get("reason", ""),
                    "seconds": now.get("seconds"),
                    "in_flight": now.get("in_flight"),
                    "weight": now.get("weight", fact.get("weight", 1)),
                    "rpm_left": now.get("rpm_left"),
                    "tpm_left": now.get("tpm_left"),
                    "limits": now.get("limits"),
                }
            )
    return rows


def _state(row: dict[str, Any]) -> str:
    if not row["state"]:
        return str(row["problem"] or "-")
    text = say(*STATES.get(row["state"], (row["state"], row["state"])))
    if row["state"] != "resting":
        return text
    reason = say(*REASONS.get(row["reason"], (row["reason"], row["reason"])))
    return f"{text} {figures.duration(row['seconds'])}, {reason}"


def _left(row: dict[str, Any]) -> str:
    """The provider's limits, and our own: "480/500 requests, 12k/200k tokens"."""
    parts = []
    limits = row["limits"] or {}
    for one in ("requests", "tokens"):
        if limits.get(one) is not None:
            most = limits.get(f"{one}_limit")
            parts.append(f"{_count(limits[one])}{f'/{_count(most)}' if most else ''} {one}")
    parts += [f"{_count(row[field])} {field[:3]}" for field in ("rpm_left", "tpm_left") if row[field] is not None]
    return ", ".join(parts) or "-"


def _count(number: float) -> str:
    return figures.tokens(int(number))


def _cell(value: Any) -> str:
    return "-" if value is None else str(value)

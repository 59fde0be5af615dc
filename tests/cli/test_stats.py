from __future__ import annotations

import asyncio
import csv
import io
import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from aigw.exchange import Record
from aigw.storage.open import open_store

if TYPE_CHECKING:
    from conftest import CommandLine

NOON = datetime(2026, 3, 10, 12, 0, tzinfo=UTC).timestamp()
WINDOW = ("--since", "2026-03-10", "--until", "2026-03-12")


def append(aigw: CommandLine, records: Sequence[Record]) -> None:
    async def write() -> None:
        store = open_store("sqlite:", aigw.data_dir)
        await store.append(records)
        await store.close()

    asyncio.run(write())


def record(number: int, **fields: object) -> Record:
    basic = {"id": f"r{number}", "at": NOON + number, "status": 200, "consumer": "alice"}
    return Record(**{**basic, **fields})


RECORDS = [
    *(
        record(
            number,
            requested_model="gpt-6",
            route="gpt-6",
            provider="openai",
            model="gpt-6",
            took=1_240_000,
            first_token=210_000,
            stream=True,
            key_id="k1",
            group="team",
            operation="chat",
            input=40_000,
            cached=30_000,
            output=500,
            cost=12_345_678,
        )
        for number in range(5)
    ),
    record(
        5,
        requested_model="qwen-max",
        provider="dashscope",
        model="qwen-max",
        took=800_000,
        input=10,
        output=5,
        cost=2_500_000,
        currency="CNY",
    ),
    record(6, consumer="bob", requested_model="mystery", provider="local", model="mystery", took=90_000_000, input=7, output=3),
    record(7, requested_model="gpt-7", status=404, outcome="caller_error", error="caller_model_not_found", took=400),
    record(
        8, at=NOON + 86400, requested_model="gpt-6", provider="openai", model="gpt-6", took=1_240_000, input=1, output=1, cost=1
    ),
]

BY_MODEL = """\
model     requests  errors  err %    in  cached    out                cost      p50      p95  first p50  first p95  tok/s  trend
gpt-6            6       0      0  200k    150k  2,501             $0.0617   1.19 s   1.19 s     211 ms     211 ms    485     #     .
(none)           1       1    100     0       0      0                   -  0.41 ms  0.41 ms          -          -      -     #
mystery          1       0      0     7       0      3                   ?   1m 31s   1m 31s          -          -      -     #
qwen-max         1       0      0    10       0      5             ¥0.0025   774 ms   774 ms          -          -      -     #
total            9       1     11  200k    150k  2,509  $0.0617 + ¥0.0025?   1.19 s   1m 31s     211 ms     211 ms    485     #     .
"""  # noqa: E501 - as wide as it is


def test_by_model(aigw: CommandLine) -> None:
    """Piped: aligned text, numbers for people, a total, and a word on what could not be priced."""
    append(aigw, RECORDS)
    done = aigw("stats", *WINDOW)
    assert done.returncode == 0
    assert done.stdout == BY_MODEL
    assert done.stderr == (
        '"?": 1 request used tokens without a known price; set one in the config: [prices."PROVIDER/MODEL"]\n'
    )
    assert aigw("stats", *WINDOW, "--by", "model").stdout == done.stdout


@pytest.mark.parametrize(
    ("by", "arguments", "groups"),
    [
        ("consumer", WINDOW, [("alice", 8), ("bob", 1)]),
        ("provider", WINDOW, [("openai", 6), ("", 1), ("dashscope", 1), ("local", 1)]),
        ("route", WINDOW, [("gpt-6", 6), ("gpt-7", 1), ("mystery", 1), ("qwen-max", 1)]),
        ("day", WINDOW, [("2026-03-10", 8), ("2026-03-11", 1)]),
        ("day", ("--month", "2026-03", "--tz", "Pacific/Auckland"), [("2026-03-11", 8), ("2026-03-12", 1)]),
        ("hour", WINDOW, [("2026-03-10T12:00+00:00", 8), ("2026-03-11T12:00+00:00", 1)]),
        ("model", ("--month", "2026-03"), [("gpt-6", 6), ("", 1), ("mystery", 1), ("qwen-max", 1)]),
        ("model", ("--since", "2026-03-11T00:00Z", "--until", "2026-03-12"), [("gpt-6", 1)]),
        ("error", WINDOW, [("", 8), ("caller_model_not_found", 1)]),
        ("group", WINDOW, [("team", 5), ("", 4)]),
        ("key", WINDOW, [("k1", 5), ("", 4)]),
        ("operation", WINDOW, [("chat", 5), ("", 4)]),
        ("consumer", (*WINDOW, "--model", "gpt-6"), [("alice", 6)]),
        ("model", (*WINDOW, "--consumer", "bob"), [("mystery", 1)]),
        ("model", (*WINDOW, "--consumer", "alice", "--provider", "openai"), [("gpt-6", 6)]),
        ("day", (*WINDOW, "--provider", "openai"), [("2026-03-10", 5), ("2026-03-11", 1)]),
    ],
)
def test_groups(aigw: CommandLine, by: str, arguments: Sequence[str], groups: list[tuple[str, int]]) -> None:
    """Every way to group, over windows in any time zone."""
    append(aigw, RECORDS)
    answer = json.loads(aigw("stats", "--by", by, *arguments, "--json").stdout)
    assert [(row[by], row["requests"]) for row in answer["rows"]] == groups
    assert answer["total"]["requests"] == sum(requests for _, requests in groups)


def test_by_two_things(aigw: CommandLine) -> None:
    """A column each, in the order they were named; spaces and capitals do no harm."""
    append(aigw, RECORDS)
    rows = json.loads(aigw("stats", *WINDOW, "--by", "Consumer, model", "--json").stdout)["rows"]
    assert [(row["consumer"], row["model"], row["requests"]) for row in rows] == [
        ("alice", "gpt-6", 6),
        ("alice", "", 1),
        ("alice", "qwen-max", 1),
        ("bob", "mystery", 1),
    ]
    table = aigw("stats", *WINDOW, "--by", "day,consumer").stdout.splitlines()
    assert [line.split()[:3] for line in table] == [
        ["day", "consumer", "requests"],
        ["2026-03-10", "alice", "7"],
        ["2026-03-10", "bob", "1"],
        ["2026-03-11", "alice", "1"],
        ["total", "9", "1"],
    ]
    assert [line.count("#") for line in table[1:4]] == [12, 2, 2]  # bars: days side by side
    sheet = aigw("stats", *WINDOW, "--by", "model,consumer", "--csv").stdout
    assert sheet.startswith("model,consumer,requests,errors,")
    assert "\ngpt-6,alice,6,0,0.0," in sheet


def test_errors_have_names(aigw: CommandLine) -> None:
    """By error: those without one are called so."""
    append(aigw, RECORDS)
    lines = aigw("stats", *WINDOW, "--by", "error").stdout.splitlines()
    assert lines[1].startswith("(no error)  ")
    assert lines[2].startswith("caller_model_not_found  ")


@pytest.mark.parametrize(
    ("order", "first"),
    [("requests", "gpt-6"), ("cost", "gpt-6"), ("tokens", "gpt-6"), ("errors", ""), ("p95", "mystery")],
)
def test_order_and_top(aigw: CommandLine, order: str, first: str) -> None:
    """Largest first; of many rows the first ones, and the total of all."""
    append(aigw, RECORDS)
    answer = json.loads(aigw("stats", *WINDOW, "--sort", order, "--top", "1", "--json").stdout)
    assert [row["model"] for row in answer["rows"]] == [first]
    assert answer["total"]["requests"] == 9
    done = aigw("stats", *WINDOW, "--sort", order, "--top", "1")
    assert len(done.stdout.splitlines()) == 3
    assert done.stderr.startswith("3 more rows without --top; the total is of all.\n")


def test_a_name_that_nobody_has(aigw: CommandLine) -> None:
    """A filter with a slip of the finger: what was probably meant, and no word of an empty gateway."""
    append(aigw, RECORDS)
    done = aigw("stats", *WINDOW, "--consumer", "alicce")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.splitlines()[1:] == ["In this window there is no consumer 'alicce': did you mean alice?"]
    done = aigw("stats", *WINDOW, "--consumer", "bob", "--model", "gpt-6")
    assert done.stderr.splitlines()[1:] == ["There are some without --consumer and --model together."]


def test_blocks(aigw: CommandLine) -> None:
    """Where the locale is UTF-8, trends are blocks; where it is not, ASCII."""
    append(aigw, RECORDS)
    only = (*WINDOW, "--model", "gpt-6")
    assert aigw("stats", *only).stdout.isascii()
    assert aigw("stats", *only, LANG="C.UTF-8").stdout.splitlines()[1].endswith("     █     ▂")
    days = aigw("stats", *only, "--by", "day", LANG="C.UTF-8").stdout.splitlines()
    assert [line.split()[-1] for line in days[1:3]] == ["█" * 12, "██▍"]


def test_json(aigw: CommandLine) -> None:
    """For programs: raw numbers, units in the names, money as exact decimal strings, null where nothing is known."""
    append(aigw, RECORDS)
    done = aigw("stats", *WINDOW, "--tz", "Asia/Shanghai", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    answer = json.loads(done.stdout)
    assert {name: answer[name] for name in ("since", "until", "tz", "by")} == {
        "since": "2026-03-10T00:00:00+08:00",
        "until": "2026-03-12T00:00:00+08:00",
        "tz": "Asia/Shanghai",
        "by": ["model"],
    }
    gpt = answer["rows"][0]
    assert gpt["latency_p50_ms"] == pytest.approx(1240, rel=0.05)
    assert gpt["first_token_p95_ms"] == pytest.approx(210, rel=0.05)
    assert gpt == {
        "model": "gpt-6",
        "requests": 6,
        "errors": 0,
        "error_share": 0.0,
        "input_tokens": 200_001,
        "cached_tokens": 150_000,
        "output_tokens": 2501,
        "cost_usd": "0.061728391",
        "cost_cny": None,
        "cost_eur": None,
        "unpriced_requests": 0,
        "latency_p50_ms": gpt["latency_p50_ms"],
        "latency_p95_ms": gpt["latency_p95_ms"],
        "first_token_p50_ms": gpt["first_token_p50_ms"],
        "first_token_p95_ms": gpt["first_token_p95_ms"],
        "tokens_per_second": 485.437,
        "trend": [0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 1],
    }
    mystery = next(row for row in answer["rows"] if row["model"] == "mystery")
    assert (mystery["cost_usd"], mystery["unpriced_requests"], mystery["first_token_p50_ms"]) == (None, 1, None)
    total = answer["total"]
    assert (total["requests"], total["errors"], total["cost_usd"], total["cost_cny"]) == (9, 1, "0.061728391", "0.0025")


def test_csv(aigw: CommandLine) -> None:
    """For spreadsheets: the numbers of --json, without the total."""
    append(aigw, RECORDS)
    rows = json.loads(aigw("stats", *WINDOW, "--json").stdout)["rows"]
    done = aigw("stats", *WINDOW, "--csv")
    assert (done.returncode, done.stderr) == (0, "")
    read = list(csv.DictReader(io.StringIO(done.stdout)))
    for row in rows:
        del row["trend"]  # a list is no cell
    assert read == [{name: "" if value is None else str(value) for name, value in row.items()} for row in rows]


def test_default_window(aigw: CommandLine) -> None:
    """Without flags: the last 24 hours, up to this moment."""
    now = time.time()
    append(aigw, [record(1, at=now - 5, model="new"), record(2, at=now - 26 * 3600, model="old")])
    assert [line.split()[0] for line in aigw("stats").stdout.splitlines()] == ["model", "new", "total"]
    assert [line.split()[0] for line in aigw("stats", "--since", "2d").stdout.splitlines()] == ["model", "new", "old", "total"]


def test_nothing_yet(aigw: CommandLine) -> None:
    """An empty store is no failure: how to send the first request, at the configured address; programs get empty lists."""
    aigw.config.write_text("[server]\nport = 9000\n")
    done = aigw("stats", "--since", "2026-03-10", "--until", "2026-03-11")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == (
        "No requests from 2026-03-10T00:00:00+00:00 to 2026-03-11T00:00:00+00:00.\n"
        "Send one while 'aigw serve' runs:\n"
        '  curl http://127.0.0.1:9000/v1/chat/completions -H "Authorization: Bearer $OPENAI_API_KEY" \\\n'
        "    -H 'Content-Type: application/json' \\\n"
        '    -d \'{"model": "MODEL", "messages": [{"role": "user", "content": "hello"}]}\'\n'
        "A key is made with 'aigw keys create NAME'; --since 30d looks further back.\n"
    )
    empty = json.loads(aigw("stats", "--json").stdout)
    assert (empty["rows"], empty["total"]["requests"], empty["total"]["cost_usd"]) == ([], 0, None)
    assert aigw("stats", "--csv").stdout.startswith("model,requests,errors,error_share,input_tokens,")


def test_hostile_names(aigw: CommandLine) -> None:
    """A model name comes from whoever calls: it clears no screen, breaks no line, runs in no spreadsheet, floods no table."""
    names = ["\x1b[2J\x1b]0;owned\x07", "a\nb", "=cmd|'/C calc'!A0", "m" * 199, "\u202egpt", "[red]gpt[/red]"]
    append(aigw, [record(number, model=name, took=5) for number, name in enumerate(names)])
    for arguments in ((), ("--json",), ("--csv",)):
        done = aigw("stats", *WINDOW, *arguments)
        assert done.returncode == 0
        assert not set(done.stdout) & {"\x1b", "\x07", "\u202e", "\r"}
    plain = aigw("stats", *WINDOW).stdout
    assert len(plain.splitlines()) == len(names) + 2
    assert max(map(len, plain.splitlines())) < 200
    assert "\n'=cmd|" in aigw("stats", *WINDOW, "--csv").stdout
    assert {row["model"] for row in json.loads(aigw("stats", *WINDOW, "--json").stdout)["rows"]} == set(names)
    drawn = aigw.terminal("stats", *WINDOW, NO_COLOR="1").read()
    assert "[red]gpt[/red]" in drawn
    assert "\x1b[2J" not in drawn


def test_terminal(aigw: CommandLine) -> None:
    """On a terminal: a drawn table with its total; too narrow a terminal loses columns one by one, but cuts no number."""
    append(aigw, RECORDS)
    drawn = aigw.terminal("stats", *WINDOW, columns=140).read()
    assert "\x1b[1m" in drawn
    assert "─" in drawn
    plain = aigw.terminal("stats", *WINDOW, columns=140, NO_COLOR="1", TERM="dumb").read()
    assert plain.replace("\r", "").startswith(BY_MODEL)
    narrow = aigw.terminal("stats", *WINDOW, columns=40, NO_COLOR="1").read()
    table = [line for line in narrow.splitlines() if "gpt-6" in line or "total" in line]
    assert len(table) == 2
    assert "…" not in "".join(table)
    assert all(len(line.rstrip()) <= 40 + len("\x1b[1m\x1b[0m") * 8 for line in table)
    assert "$0.0617 + ¥0.0025?" in table[1]
    assert "not shown for want of width: " in narrow


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--since", "yesterday"],
            "'yesterday' is no time; expected a span like 24h or 30d, or a date like 2026-11-30",
        ),
        (["--since", "1h", "--until", "2h"], "Error: Invalid value: the window is empty: --since is not before --until"),
        (["--month", "2026-13"], "Error: Invalid value: '2026-13' is no month; expected one like 2026-11"),
        (["--month", "2026-11", "--since", "1d"], "Error: Invalid value: --month stands alone; leave out --since and --until"),
        (
            ["--tz", "Mars/Olympus"],
            "'Mars/Olympus' is no time zone of this system; expected one like UTC",
        ),
        (["--json", "--csv"], "Error: Invalid value: --json and --csv exclude each other"),
        (["--by", "modl"], "nothing to group by is called 'modl': did you mean model?"),
        (["--by", "xyzzy"], "nothing to group by is called 'xyzzy': there are model, consumer, provider"),
        (["--by", "model,consumer,day"], "group by one thing or by two with a comma between them"),
        (["--by", "day,hour"], "group by one thing or by two with a comma between them"),
        (["--by", ","], "group by one thing or by two with a comma between them"),
        (["--top", "0"], "0 is not in the range"),
        (["--watch", "--json"], "--watch shows what happens now"),
        (["--watch", "--since", "30d"], "it looks back one hour at most"),
    ],
)
def test_wrong_usage(aigw: CommandLine, arguments: list[str], message: str) -> None:
    """A window that cannot be is wrong usage, with what was expected."""
    done = aigw("stats", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert not aigw.data_dir.exists()


def test_while_others_write(aigw: CommandLine) -> None:
    """Stats work while a server holds the store open and writes."""

    async def watch() -> str:
        store = open_store("sqlite:", aigw.data_dir)
        try:
            await store.append(RECORDS)
            done = await asyncio.to_thread(aigw, "stats", *WINDOW)
            await store.append([record(99, model="later")])
            return done.stdout
        finally:
            await store.close()

    assert asyncio.run(watch()) == BY_MODEL

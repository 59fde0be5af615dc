"""What the server says: one printable line for each thing, in text or JSON, and never a secret."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from aigw.config.schema import Log
from aigw.config.scrub import Scrubber
from aigw.exchange import Record
from aigw.telemetry import log as telemetry_log
from aigw.telemetry.log import ExchangeLog

NASTY = "a\nb\r\x1b[31mred\x07\x7f\x85\x9b\u2028end"


Said = Callable[[], str]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    """What went to stderr since it was last asked."""
    return lambda: capsys.readouterr().err


def record(**fields: Any) -> Record:
    return Record(id="req_1", at=0.0, took=1_234_567, **fields)


def test_a_line_of_text(said: Said) -> None:
    """Time, level, message."""
    telemetry_log.configure(Log())
    logging.getLogger("aigw.gateway").warning("the %s is down", "store")
    (line,) = said().splitlines()
    time, level, rest = line.split(maxsplit=2)
    assert len(time) == 8
    assert (level, rest) == ("warning", "the store is down")


def test_a_line_of_json(said: Said) -> None:
    """The same as an object, for machines."""
    telemetry_log.configure(Log(format="json"))
    logging.getLogger("aigw.gateway").warning("the %s is down", "store")
    told = json.loads(said())
    assert told.pop("at") > 1_700_000_000
    assert told == {"level": "warning", "logger": "aigw.gateway", "message": "the store is down"}


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("nasty", [NASTY, "\ud800", "a" * 100_000])
def test_a_line_is_one_printable_line(said: Said, form: Any, nasty: str) -> None:
    """Whoever chooses a name in it cannot forge another line or move the terminal's cursor; and it is never lost."""
    telemetry_log.configure(Log(format=form, exchanges="all"))
    logging.getLogger("aigw.x").error("name %s", nasty)
    ExchangeLog("all").recorded(record(requested_model=nasty))
    text = said()
    assert text.count("\n") == 2
    assert text.endswith("\n")
    for character in text:
        assert character == "\n" or character.isprintable(), hex(ord(character))
    if form == "json" and nasty == NASTY:
        first, second = map(json.loads, text.splitlines())
        assert (first["message"], second["model"]) == (f"name {NASTY}", NASTY)


def test_levels(said: Said) -> None:
    """[log] level keeps back what is below it."""
    telemetry_log.configure(Log(level="error"))
    logging.getLogger("aigw.x").warning("quiet")
    logging.getLogger("aigw.x").error("loud")
    assert said().split()[1:] == ["error", "loud"]


def test_a_reload_replaces_the_settings(said: Said) -> None:
    """One line each, however often it was configured."""
    for form in ("text", "json", "text", "json"):
        telemetry_log.configure(Log(format=form))  # type: ignore[arg-type] # mypy widens the loop's literals
    logging.getLogger("aigw.x").warning("once")
    assert json.loads(said())["message"] == "once"


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_traceback_is_never_printed(said: Said, form: Any) -> None:
    """It may hold a body or a key; also those that asyncio and aiohttp would print. The kind of error is said."""
    telemetry_log.configure(Log(format=form))
    for name in ("aigw.x", "asyncio", "aiohttp.server"):
        try:
            raise ValueError("sk-secret")
        except ValueError:
            logging.getLogger(name).exception("it broke")
    text = said()
    assert text.count("\n") == 3
    assert text.count("it broke") == 3
    assert text.count("ValueError at test_log.py:") == 3
    assert "secret" not in text
    assert "Traceback" not in text


def test_a_closed_stderr_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its reader has gone; the server goes on."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    telemetry_log.configure(Log())
    stream.close()
    logging.getLogger("aigw.x").error("to nobody")


@pytest.mark.parametrize(
    ("which", "outcomes"),
    [
        ("none", []),
        ("errors", ["provider_error", "gateway_error"]),
        ("all", ["ok", "caller_error", "policy_error", "provider_error", "gateway_error", "client_closed"]),
    ],
)
def test_which_exchanges_are_told(said: Said, which: str, outcomes: list[str]) -> None:
    """By default those that an operator can do something about."""
    telemetry_log.configure(Log(format="json"))
    listener = ExchangeLog(which)
    for outcome in ("ok", "caller_error", "policy_error", "provider_error", "gateway_error", "client_closed"):
        listener.recorded(record(outcome=outcome))
    assert [json.loads(line)["outcome"] for line in said().splitlines()] == outcomes


def test_an_exchange_in_json(said: Said) -> None:
    """Everything one looks for at night, under the record's own names."""
    telemetry_log.configure(Log(format="json"))
    ExchangeLog("all").recorded(
        record(
            status=502,
            outcome="provider_error",
            error="provider_timeout",
            operation="chat",
            consumer="ci",
            requested_model="fast",
            provider="openai",
            input=3,
            output=4,
            attempts='[{"provider":"openai"}]',
        )
    )
    told = json.loads(said())
    told.pop("at")
    assert told == {
        "level": "warning",
        "logger": "aigw.exchange",
        "message": "exchange",
        "request_id": "req_1",
        "status": 502,
        "outcome": "provider_error",
        "error": "provider_timeout",
        "operation": "chat",
        "consumer": "ci",
        "model": "fast",
        "provider": "openai",
        "took_ms": 1234,
        "input": 3,
        "output": 4,
        "attempts": '[{"provider":"openai"}]',
    }


def test_an_exchange_in_text(said: Said) -> None:
    """What is empty is left out."""
    telemetry_log.configure(Log())
    ExchangeLog("all").recorded(record(status=200, outcome="ok", operation="chat"))
    line = said()
    assert line.split(maxsplit=2)[2] == (
        "exchange request_id=req_1 status=200 outcome=ok operation=chat took_ms=1234 input=0 output=0\n"
    )


@pytest.mark.parametrize("form", ["text", "json"])
def test_every_line_is_scrubbed(said: Said, form: Any) -> None:
    """Whoever wrote it and wherever in it: ours, a library's, and of an exchange that failed also what goes with it."""
    secret = "the-key-0123456789"
    telemetry_log.configure(Log(format=form, exchanges="all"), Scrubber([secret]))
    logging.getLogger("aigw.x").warning("bad key %s", secret)
    logging.getLogger("asyncio").error("callback %r", secret.encode())
    assert logging.lastResort is logging.getLogger("aigw").handlers[0]  # for loggers that nobody knows
    ExchangeLog("all").recorded(record(outcome="provider_error", requested_model=secret, attempts=f'[{{"detail":"{secret}"}}]'))
    text = said()
    assert text.count("\n") == 3
    assert text.count("[redacted]") == 4
    assert "0123" not in text
    if form == "json":
        for line in text.splitlines():
            json.loads(line)


def test_what_nobody_caught(said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's own hooks print the error's words; ours say its kind and place."""
    telemetry_log.configure(Log())
    for name in ("threading.excepthook", "sys.unraisablehook"):
        monkeypatch.setattr(name, None)
    telemetry_log.take_tracebacks()

    def fail() -> None:
        raise ValueError("sk-secret")

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()

    class Fails:
        def __del__(self) -> None:
            raise ValueError("sk-secret")

    Fails()
    text = said()
    assert text.count("nobody caught ValueError at test_log.py:") == 2
    assert "secret" not in text

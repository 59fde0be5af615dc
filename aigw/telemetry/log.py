"""What the server says while it runs: lines of text or of JSON on stderr. Never a key, a prompt or an answer."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

import msgspec

from aigw.config.schema import Log
from aigw.exchange import Record

_exchanges = logging.getLogger("aigw.exchange")

OTHERS = ("asyncio", "aiohttp")
"""Loggers below us that speak of what we do. They would print tracebacks, which may hold a body or a key; so they speak through
our lines, warnings and errors only."""

_FEED = (0x2028, 0x2029)  # line and paragraph separators
_INVISIBLE = (
    0x7F,
    *range(0x80, 0xA0),
    0xAD,
    *range(0x200B, 0x2010),
    *_FEED,
    *range(0x202A, 0x202F),
    *range(0x2060, 0x2070),
    0xFEFF,
)
_CONTROL = {code: ascii(chr(code))[1:-1] for code in (*range(32), *_INVISIBLE, *range(0xD800, 0xE000))}
_CONTROL_JSON = {code: f"\\u{code:04x}" for code in _INVISIBLE}


def configure(settings: Log) -> None:
    """Send aigw's log lines to stderr as *settings* say. Called again after a reload."""
    root = logging.getLogger("aigw")
    root.setLevel(settings.level.upper())
    root.propagate = False
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if settings.format == "json" else _Text())
    root.handlers[:] = [handler]
    for name in OTHERS:
        other = logging.getLogger(name)
        other.setLevel(logging.WARNING)
        other.propagate = False
        other.handlers[:] = [handler]
    logging.raiseExceptions = False  # a closed or full stderr must not stop the server


class ExchangeLog:
    """A listener that writes one line for each exchange, or for each that failed."""

    def __init__(self, which: str) -> None:
        self._all = which == "all"
        self._none = which == "none"

    def recorded(self, record: Record) -> None:
        failed = record.outcome in ("provider_error", "gateway_error")
        if self._none or not (self._all or failed):
            return
        fields: dict[str, Any] = {
            "request_id": record.id,
            "status": record.status,
            "outcome": record.outcome,
            "error": record.error,
            "operation": record.operation,
            "consumer": record.consumer,
            "model": record.requested_model,
            "provider": record.provider,
            "took_ms": record.took // 1000,
            "input": record.input,
            "output": record.output,
            "attempts": record.attempts,
        }
        _exchanges.log(logging.WARNING if failed else logging.INFO, "exchange", extra={"fields": fields})


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%H:%M:%S", time.localtime(record.created))
        text = _message(record)
        fields = getattr(record, "fields", None)
        if fields:
            text += " " + " ".join(f"{name}={value}" for name, value in fields.items() if value not in ("", "[]"))
        return f"{when} {record.levelname.lower():7} {text}".translate(_CONTROL)


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {"at": round(record.created, 3), "level": record.levelname.lower(), "logger": record.name}
        line["message"] = _message(record)
        line.update(getattr(record, "fields", None) or {})
        try:
            text = msgspec.json.encode(line, enc_hook=str)
        except UnicodeEncodeError:  # a file name or a header that is not Unicode
            text = msgspec.json.encode({name: _unicode(value) for name, value in line.items()}, enc_hook=str)
        return text.decode().translate(_CONTROL_JSON)


def _message(record: logging.LogRecord) -> str:
    """What is said, with the kind and the place of the error that goes with it. Of others only the first line: the rest shows
    what they were working on."""
    text = record.getMessage()
    if not record.name.startswith("aigw"):
        text = text.partition("\n")[0]
    error = record.exc_info[1] if record.exc_info else None
    return text if error is None else f"{text}: {type(error).__name__} at {_place(error)}"


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "?" if trace is None else f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}"


def _unicode(value: Any) -> Any:
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value

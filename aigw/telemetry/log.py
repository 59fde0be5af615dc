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

_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), 127, *range(0x80, 0xA0))}


def configure(settings: Log) -> None:
    """Send aigw's log lines to stderr as *settings* say. Called again after a reload."""
    root = logging.getLogger("aigw")
    root.setLevel(settings.level.upper())
    root.propagate = False
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if settings.format == "json" else _Text())
    root.handlers[:] = [handler]
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
        text = record.getMessage()
        fields = getattr(record, "fields", None)
        if fields:
            text += " " + " ".join(f"{name}={value}" for name, value in fields.items() if value not in ("", "[]"))
        return f"{when} {record.levelname.lower():7} {text}".translate(_CONTROL)


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {"at": round(record.created, 3), "level": record.levelname.lower(), "logger": record.name}
        line["message"] = record.getMessage()
        line.update(getattr(record, "fields", None) or {})
        return msgspec.json.encode(line, enc_hook=str).decode()

"""What the server says while it runs: lines of text or of JSON on stderr. Never a key, a prompt or an answer: each line goes
through the process's scrubber, whoever wrote it."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from aigw.config.schema import Log
from aigw.config.scrub import Scrubber
from aigw.exchange import Record

if TYPE_CHECKING:
    from types import TracebackType

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


def configure(settings: Log, scrubber: Scrubber | None = None) -> None:
    """Send aigw's log lines to stderr as *settings* say, without what *scrubber* knows. Called again after a reload."""
    scrubber = scrubber or Scrubber()
    root = logging.getLogger("aigw")
    root.setLevel(settings.level.upper())
    root.propagate = False
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json(scrubber) if settings.format == "json" else _Text(scrubber))
    root.handlers[:] = [handler]
    for name in OTHERS:
        other = logging.getLogger(name)
        other.setLevel(logging.WARNING)
        other.propagate = False
        other.handlers[:] = [handler]
    logging.lastResort = handler  # whoever else speaks up
    logging.raiseExceptions = False  # a closed or full stderr must not stop the server


def take_tracebacks() -> None:
    """What nobody caught is said as the log says it. Python would print what the error says, which may quote a key."""
    threading.excepthook = lambda uncaught: _say_uncaught(uncaught.exc_type, uncaught.exc_value, uncaught.exc_traceback)
    sys.unraisablehook = lambda uncaught: _say_uncaught(uncaught.exc_type, uncaught.exc_value, uncaught.exc_traceback)


def _say_uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if kind is not SystemExit:
        where = "?" if error is None else _place(error.with_traceback(trace))
        logging.getLogger("aigw").error("nobody caught %s at %s; this is a bug of ours", kind.__name__, where)


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
    def __init__(self, scrubber: Scrubber) -> None:
        super().__init__()
        self._scrub = scrubber.text

    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%H:%M:%S", time.localtime(record.created))
        text = self._scrub(_message(record))
        fields = _fields(record, self._scrub)
        if fields:
            text += " " + " ".join(f"{name}={value}" for name, value in fields.items() if value not in ("", "[]"))
        return f"{when} {record.levelname.lower():7} {text}".translate(_CONTROL)


class _Json(logging.Formatter):
    def __init__(self, scrubber: Scrubber) -> None:
        super().__init__()
        self._scrub = scrubber.text

    def format(self, record: logging.LogRecord) -> str:
        line = {"at": round(record.created, 3), "level": record.levelname.lower(), "logger": record.name}
        line["message"] = self._scrub(_message(record))
        line.update(_fields(record, self._scrub))
        try:
            text = msgspec.json.encode(line, enc_hook=str)
        except UnicodeEncodeError:  # a file name or a header that is not Unicode
            text = msgspec.json.encode({name: _unicode(value) for name, value in line.items()}, enc_hook=str)
        return text.decode().translate(_CONTROL_JSON)


def _fields(record: logging.LogRecord, scrub: Callable[[str], str]) -> dict[str, Any]:
    """What goes with a line. It comes from a record, which was scrubbed when it was made; of what went wrong we make sure."""
    fields: dict[str, Any] = getattr(record, "fields", None) or {}
    if record.levelno < logging.WARNING:
        return fields
    return {name: scrub(value) if isinstance(value, str) else value for name, value in fields.items()}


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

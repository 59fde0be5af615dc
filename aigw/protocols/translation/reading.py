"""Reading a caller's JSON by hand: members taken out one by one, each of the type it must have, so that what is left over is
what nobody understood. Complaints name the path, never the value."""

from __future__ import annotations

import base64
import json
import math
import re
from typing import Any, NoReturn
from urllib.parse import unquote_to_bytes

import msgspec

from aigw.errors import CallerError
from aigw.protocols.dialect import complain

_decode = msgspec.json.Decoder().decode
_KINDS = {str: "a string", bool: "true or false", int: "a number", float: "a number", dict: "an object", list: "a list"}


def decode_object(body: bytes) -> dict[str, Any]:
    """The JSON object *body*. Halves of surrogate pairs, which JavaScript makes when it cuts strings, become question marks.
    Raises CallerError `caller_invalid_json`."""
    try:
        value = _decode(body)
    except RecursionError as error:
        raise complain(error) from None
    except (msgspec.DecodeError, UnicodeError) as error:
        value = _leniently(body, error)
    if not isinstance(value, dict):
        raise CallerError("caller_invalid_json", "The request body must be a JSON object.")
    return value


def _leniently(body: bytes, complaint: msgspec.DecodeError | UnicodeError) -> Any:
    try:
        value = json.loads(body, parse_constant=_no_number)
        return _decode(json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace"))
    except (ValueError, RecursionError):
        raise complain(complaint) from None


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON")


def invalid(path: str, wanted: str, got: Any) -> CallerError:
    """For a value of the wrong type or out of its range."""
    seen = "null" if got is None else _KINDS.get(type(got), "that")
    return CallerError("caller_invalid_request", f"`{path}` must be {wanted}, not {seen}.", param=path)


def unsupported(path: str, message: str) -> CallerError:
    """For what has no word here and may not be left out. *message* says what to do instead."""
    return CallerError("caller_unsupported", message, param=path)


class Members:
    """The members of one JSON object. What a method takes is gone from `rest`; null counts as absent."""

    __slots__ = ("path", "rest")

    def __init__(self, value: Any, path: str = "") -> None:
        """Raises CallerError when *value* is no object. *path* is where it stands, "" for the body itself."""
        if not isinstance(value, dict):
            raise invalid(path, "an object", value)
        self.rest: dict[str, Any] = dict(value)
        self.path = path

    def at(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def take(self, name: str) -> Any:
        """Whatever it is; None when absent."""
        return self.rest.pop(name, None)

    def text(self, name: str) -> str:
        """ "" when absent."""
        value = self.rest.pop(name, None)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise invalid(self.at(name), "a string", value)
        return value

    def needed(self, name: str) -> str:
        """A string that must be there."""
        if self.rest.get(name) is None:
            path = self.at(name)
            raise CallerError("caller_invalid_request", f"`{path}` is missing.", param=path)
        return self.text(name)

    def number(self, name: str) -> float | None:
        value = self.rest.pop(name, None)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise invalid(self.at(name), "a number", value)
        try:
            found = float(value)
        except OverflowError:
            found = math.inf
        if not math.isfinite(found):
            raise CallerError("caller_invalid_request", f"`{self.at(name)}` is out of range.", param=self.at(name))
        return found

    def whole(self, name: str) -> int | None:
        """100.0 is 100."""
        value = self.number(name)
        if value is None:
            return None
        if value != int(value) or abs(value) > 1e18:
            raise CallerError("caller_invalid_request", f"`{self.at(name)}` must be a whole number.", param=self.at(name))
        return int(value)

    def flag(self, name: str) -> bool | None:
        value = self.rest.pop(name, None)
        if value is not None and not isinstance(value, bool):
            raise invalid(self.at(name), "true or false", value)
        return value

    def table(self, name: str) -> dict[str, Any] | None:
        value = self.rest.pop(name, None)
        if value is not None and not isinstance(value, dict):
            raise invalid(self.at(name), "an object", value)
        return value

    def listed(self, name: str) -> list[Any]:
        """[] when absent."""
        value = self.rest.pop(name, None)
        if value is None:
            return []
        if not isinstance(value, list):
            raise invalid(self.at(name), "a list", value)
        return value

    def strings(self, name: str) -> list[str]:
        """A list of strings, or one string alone; [] when absent."""
        value = self.rest.pop(name, None)
        if value is None:
            return []
        found = [value] if isinstance(value, str) else value
        if not isinstance(found, list) or not all(isinstance(word, str) for word in found):
            raise invalid(self.at(name), "a string or a list of strings", value)
        return found

    def left(self) -> dict[str, Any]:
        """What nobody took, and says something."""
        return {name: value for name, value in self.rest.items() if value is not None}


_DATA_URI = re.compile(r"data:([^,]*),", re.IGNORECASE | re.ASCII)


def data_uri(url: str) -> tuple[str, str] | None:
    """Media type and base64 of a `data:` URI; None when *url* is none."""
    head = _DATA_URI.match(url)
    if head is None:
        return None
    kind, *options = (part.strip() for part in head[1].split(";"))
    rest = url[head.end() :]
    if options and options[-1].lower() == "base64":
        return kind.lower(), rest
    return kind.lower(), base64.b64encode(unquote_to_bytes(rest)).decode()

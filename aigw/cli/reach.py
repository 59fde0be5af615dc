"""The gateway as commands of this machine call it: where it listens, with which key, and what it answers.

The standard library alone: an HTTP library takes longer to import than most answers take to begin.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from aigw.cli.locations import Locations
    from aigw.config.schema import Config

CONNECT = 5.0
"""Seconds for a connection; a gateway on this machine takes less than one millisecond."""

LEARNS = 3.0
"""Seconds to wait for a running server to know a key that was made a moment ago; it looks twice a second."""

_NEXT = {
    "policy_key_": "give another key with --key env:NAME",
    "caller_model_not_found": "choose one with -m ('aigw models' lists them)",
    "gateway_no_provider": "add one: aigw init",
    "provider_credentials_": "which key it is: aigw providers test",
    "provider_unreachable": "what is in the way: aigw doctor",
}
"""What to do about an error code, by its beginning, where the message of the error does not say it."""


class CallFailed(Exception):  # noqa: N818 - not always an error of ours
    """A call that gave no answer. The message is one line: what happened, our code and request id, what to do next.

    `code` is ours (aigw/errors.py), "" when it was no answer of a gateway; `status` the HTTP status, 0 without one.
    """

    def __init__(self, message: str, *, code: str = "", status: int = 0, request_id: str = "") -> None:
        self.code, self.status, self.request_id = code, status, request_id
        known = ", ".join(part for part in (code or (f"HTTP {status}" if status else ""), request_id) if part)
        following = next((step for beginning, step in _NEXT.items() if code.startswith(beginning)), "")
        text = " ".join(message.split()) + (f" ({known})" if known else "")
        super().__init__(f"{text}; {following}" if following else text)


class Event(NamedTuple):
    """One server-sent event."""

    name: str
    data: str


class Answer:
    """An answer under way: its head is here, its body is read as it is wanted. Closed by whoever asked."""

    def __init__(self, response: http.client.HTTPResponse, connection: http.client.HTTPConnection) -> None:
        self._response, self._connection = response, connection
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}

    @property
    def streams(self) -> bool:
        return self.headers.get("content-type", "").startswith("text/event-stream")

    def read(self) -> bytes:
        try:
            return self._response.read()
        except (http.client.HTTPException, OSError) as error:
            raise CallFailed(
                f"the answer broke off: {_reason(error)}", request_id=self.headers.get("x-request-id", "")
            ) from None

    def events(self) -> Iterator[Event]:
        """The events of a stream as they come. Raises CallFailed when it breaks off."""
        name = ""
        data: list[str] = []
        while True:
            try:
                line = self._response.readline()
            except (http.client.HTTPException, OSError) as error:
                raise CallFailed(
                    f"the answer broke off: {_reason(error)}", request_id=self.headers.get("x-request-id", "")
                ) from None
            text = line.decode("utf-8", "replace").rstrip("\r\n")
            if not text:
                if data:
                    yield Event(name, "\n".join(data))
                if not line:
                    return
                name, data = "", []
            elif text.startswith("data:"):
                data.append(text[5:].removeprefix(" "))
            elif text.startswith("event:"):
                name = text[6:].strip()

    def close(self) -> None:
        """Hang up. A gateway stops the provider then."""
        self._response.close()
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Gateway:
    """A gateway at `url` (without /v1), called with a consumer key. Its repr does not show the key."""

    def __init__(self, url: str, key: str, *, fresh: bool = False) -> None:
        """*fresh*: the key was made a moment ago, and a running server may not know it yet."""
        self.url, self.key, self.fresh = url, key, fresh

    def __repr__(self) -> str:
        return f"Gateway({self.url!r})"

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Answer:
        """GET *path*, or POST *body* to it. Raises CallFailed for everything but a 2xx."""
        if self.fresh:
            self._wait_until_known()
        answer = self._once(path, body)
        if 200 <= answer.status < 300:
            return answer
        with answer:
            raise failure(answer.read(), answer.status, answer.headers)

    def _wait_until_known(self) -> None:
        """Ask for what leaves no record until the key is no longer refused, or LEARNS is over."""
        until = time.monotonic() + LEARNS
        self.fresh = False
        while time.monotonic() < until:
            with self._once("/v1/models", None) as answer:
                if answer.status != 401:
                    return
                answer.read()
            time.sleep(0.1)

    def models(self) -> list[str]:
        """The names that can be asked for, as the gateway lists them. Raises CallFailed."""
        with self.ask("/v1/models") as answer:
            try:
                return [str(one["id"]) for one in json.loads(answer.read())["data"]]
            except (ValueError, TypeError, KeyError):
                raise CallFailed(f"{self.url} answers, but not with a list of models: is a gateway there?") from None

    def _once(self, path: str, body: dict[str, Any] | None) -> Answer:
        address = urlsplit(self.url)
        kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
        connection = kind(address.hostname or "", address.port, timeout=CONNECT)
        headers = {"authorization": f"Bearer {self.key}", "user-agent": "aigw-cli"}
        content = None
        if body is not None:
            content = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
            headers["content-type"] = "application/json"
        try:
            connection.connect()
            connection.sock.settimeout(None)  # a model may think for minutes; Ctrl-C ends it
            connection.request("GET" if body is None else "POST", address.path.rstrip("/") + path, content, headers)
            return Answer(connection.getresponse(), connection)
        except ValueError:  # whose message has the header in it
            connection.close()
            raise CallFailed("the key holds a character that no header can carry") from None
        except (http.client.HTTPException, OSError) as error:
            connection.close()
            raise CallFailed(self._unreachable(error)) from None
        except BaseException:
            connection.close()
            raise

    def _unreachable(self, error: Exception) -> str:
        if isinstance(error, ConnectionRefusedError):
            return f"no server answers at {self.url}; start one in another terminal: aigw serve"
        return f"{self.url} cannot be asked: {_reason(error)}"


def find(where: Locations, config: Config, *, url: str | None = None, key: str | None = None) -> Gateway:
    """The gateway to call: at *url*, else that of this machine. With *key* (a reference: env:NAME, file:PATH or a literal),
    else with the operator's own.

    Raises ConfigError, StoreError, and CallFailed where nothing can be there.
    """
    from aigw.cli.operator import credential
    from aigw.config import secrets

    address = here(where, config) if url is None else base(url)
    if key is not None:
        return Gateway(address, secrets.resolve(key, key="--key"))
    own = credential(where, config)
    return Gateway(address, own.key, fresh=own.fresh)


def here(where: Locations, config: Config) -> str:
    """The address of this machine's gateway, without /v1: where the running server says, else where the config says. Raises
    CallFailed where neither tells."""
    from aigw.cli import control

    state = control.ask(where.data_path())
    told = state["addresses"]["data"] if state else []
    url: str = told[0] if told else where.base_url(config)
    if "PORT" in url:  # the config leaves it to the system
        raise CallFailed("no server runs here; start one in another terminal: aigw serve")
    return base(url)


def base(url: str) -> str:
    """*url* without /v1 and slashes at its end. Raises ConfigError when it is none."""
    from aigw.errors import ConfigError

    trimmed = url.strip().rstrip("/").removesuffix("/v1").rstrip("/")
    try:
        address = urlsplit(trimmed)
        good = address.scheme in ("http", "https") and bool(address.hostname) and address.port != 0
    except ValueError:
        good = False
    if not good or address.username is not None or address.query or address.fragment or not trimmed.isascii():
        raise ConfigError('expected an address such as "http://127.0.0.1:8080"', key="--url")
    return trimmed


def failure(body: bytes, status: int, headers: dict[str, str]) -> CallFailed:
    """What an error answer says, in OpenAI's shape or Anthropic's; else what little can be told."""
    try:
        found = json.loads(body)
        error = found["error"]
        message = str(error["message"])
    except (ValueError, TypeError, KeyError):
        server = "" if headers.get("x-aigw-error") else ": is a gateway there?"
        return CallFailed(f"the answer was HTTP {status}{server}", code=headers.get("x-aigw-error", ""), status=status)
    code = error.get("aigw_code") or headers.get("x-aigw-error") or ""
    request_id = error.get("request_id") or found.get("request_id") or headers.get("x-request-id") or ""
    return CallFailed(message, code=str(code), status=status, request_id=str(request_id))


def _reason(error: Exception) -> str:
    if isinstance(error, http.client.IncompleteRead):
        return "the server ended it too early"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__

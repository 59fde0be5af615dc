"""Who is told when something happens: events -> messages to people and programs.

An event is put into a bounded queue and told by one task, so nobody who has one to tell waits for it. Alike ones (same kind,
subject and step) are told once an hour, by one of all the processes that noticed. A place that does not take a message is
tried three times; then the message is dropped, counted and logged: late by an hour it would mislead.

What chat services want is said on their pages about custom robots: Feishu (Lark), DingTalk, WeCom, Slack (incoming webhooks).
All but Slack answer 200 to a message that they refused, and say so in the body.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime
from email.message import EmailMessage
from typing import NamedTuple, Protocol
from urllib.parse import quote_plus, urlsplit

import msgspec

from aigw.config.schema import Alert
from aigw.exchange import Record
from aigw.hooks import Event, EventKind

log = logging.getLogger("aigw.alerts")

AGAIN = 3600.0
"""Seconds until the same is told again."""

MOST = 1000
"""Events that wait; and those that are remembered as told. The oldest go first."""

PAUSES = (1.0, 5.0)
"""Seconds before the second and the third try."""

LONGEST = 2000
"""Characters of a message. DingTalk and WeCom cut at about 2,000 bytes and 2,048."""

ERRORS_WINDOW = 300.0
"""Seconds over which failing requests are counted."""

ERRORS_FROM = 20
"""Requests in that time; of fewer nobody can tell a rate."""


class Post(NamedTuple):
    """A message on its way to a web address."""

    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


class Mail(NamedTuple):
    """A message on its way to a mail server (`smtp://` or `smtps://`, with the name of its user in it)."""

    server: str
    password: str
    message: EmailMessage


class Ways(Protocol):
    """What carries messages (`upstream.messenger`); both raise OSError with a reason that a person can read."""

    async def post(self, url: str, headers: tuple[tuple[str, str], ...], body: bytes) -> bytes:
        """The body of a 2xx answer."""

    async def mail(self, server: str, password: str, message: EmailMessage) -> None: ...


class Channel:
    """One `[alerts.NAME]`, with its secrets resolved."""

    def __init__(self, name: str, table: Alert, url: str, secret: str) -> None:
        self.name, self.table, self.url, self._secret = name, table, url, secret

    def __repr__(self) -> str:  # never the URL: of chat robots it is the credential
        return f"Channel({self.name!r}, {self.table.kind!r})"

    @property
    def secrets(self) -> set[str]:
        """What nobody may read: what signs, and of a chat robot's address the path and the query, which are the credential."""
        parts = urlsplit(self.url)
        found = {self._secret} if self._secret else set()
        if self.table.kind != "email":
            found |= {one for one in (self.url, parts.path.lstrip("/"), parts.query) if len(one) >= 16}
        return found

    def wants(self, kind: EventKind) -> bool:
        return not self.table.events or kind in self.table.events

    def message(self, event: Event, now: float) -> Post | Mail:
        """*event* as this channel takes it. *now*: epoch seconds."""
        kind = self.table.kind
        text = f"[aigw] {event.kind}: {event.subject}\n{event.text}"[:LONGEST]
        if kind == "email":
            return self._mail(event, text)
        if kind == "slack":
            return self._json({"text": text})
        if kind == "feishu":
            return self._json({"msg_type": "text", "content": {"text": text}} | self._feishu_signature(int(now)))
        if kind == "dingtalk":
            return self._json({"msgtype": "text", "text": {"content": text}}, self._dingtalk_url(int(now * 1000)))
        if kind == "wecom":
            return self._json({"msgtype": "text", "text": {"content": text}})
        body = msgspec.json.encode(event)
        headers = [("content-type", "application/json"), ("x-aigw-event", event.kind)]
        if self._secret:  # as GitHub signs its own: the whole body, in hexadecimal
            digest = hmac.new(self._secret.encode(), body, hashlib.sha256).hexdigest()
            headers.append(("x-aigw-signature", f"sha256={digest}"))
        return Post(self.url, tuple(headers), body)

    def refusal(self, answer: bytes) -> str:
        """Why the service did not take a message although it answered 200; "" when it did."""
        if self.table.kind not in ("feishu", "dingtalk", "wecom"):
            return ""
        try:
            said = msgspec.json.decode(answer, type=dict)
        except (msgspec.DecodeError, RecursionError):
            return "it answered something that is no JSON"
        code = said.get("code", said.get("errcode", said.get("StatusCode", 0)))
        return "" if code in (0, "0") else f"it answered {code}: {str(said.get('msg', said.get('errmsg', '')))[:200]}"

    def _json(self, body: object, url: str = "") -> Post:
        return Post(url or self.url, (("content-type", "application/json; charset=utf-8"),), msgspec.json.encode(body))

    def _feishu_signature(self, seconds: int) -> dict[str, str]:
        if not self._secret:
            return {}
        key = f"{seconds}\n{self._secret}".encode()  # the text is the key; what is signed is empty
        return {"timestamp": str(seconds), "sign": base64.b64encode(hmac.new(key, b"", hashlib.sha256).digest()).decode()}

    def _dingtalk_url(self, milliseconds: int) -> str:
        if not self._secret:
            return self.url
        digest = hmac.new(self._secret.encode(), f"{milliseconds}\n{self._secret}".encode(), hashlib.sha256).digest()
        mark = "&" if "?" in self.url else "?"
        return f"{self.url}{mark}timestamp={milliseconds}&sign={quote_plus(base64.b64encode(digest))}"

    def _mail(self, event: Event, text: str) -> Mail:
        message = EmailMessage()
        subject = " ".join(f"[aigw] {event.kind}: {event.subject}".split())  # a line break would be another header
        message["Subject"] = "".join(character for character in subject if character.isprintable())[:200]
        message["From"] = self.table.sender or f"aigw@{urlsplit(self.url).hostname or 'localhost'}"
        message["To"] = ", ".join(self.table.to)
        message["Date"] = datetime.fromtimestamp(event.at, UTC)
        message.set_content(text + "\n\n" + "\n".join(f"{name}: {value}" for name, value in event.facts.items()) + "\n")
        return Mail(self.url, self._secret, message)


class Alerts:
    """The queue and the task that empties it. A `Watcher`.

    *first* says whether this process is the first, of all that share a store, to tell of something.
    """

    def __init__(self, ways: Ways, first: Callable[[str], Awaitable[bool]], clock: Callable[[], float] = time.time) -> None:
        self._ways, self._first, self._clock = ways, first, clock
        self._channels: Sequence[Channel] = ()
        self._told: OrderedDict[tuple[str, str, str], float] = OrderedDict()
        self._waiting: deque[Event] = deque(maxlen=MOST)
        self._some = asyncio.Event()
        self.sent = 0
        self.failed = 0

    def reconfigure(self, channels: Iterable[Channel]) -> None:
        self._channels = tuple(channels)

    @property
    def error_rate(self) -> float | None:
        """The smallest share of failing requests that somebody wants to hear of; None: nobody does."""
        rates = [one.table.error_rate for one in self._channels if one.wants("errors")]
        return min(rates) if rates else None

    def happened(self, event: Event) -> None:
        """Say it in the log, and to whom it may concern. Returns at once."""
        key = event.kind, event.subject, event.step
        before = self._told.get(key)
        now = self._clock()
        if before is not None and 0 <= now - before < AGAIN:
            return
        self._told[key] = now
        self._told.move_to_end(key)
        if len(self._told) > MOST:
            self._told.popitem(last=False)
        log.warning("%s: %s: %s", event.kind, event.subject, event.text)
        if any(channel.wants(event.kind) for channel in self._channels):
            self._waiting.append(event)
            self._some.set()

    async def run(self) -> None:
        """Tell what has happened, until cancelled."""
        while True:
            await self._some.wait()
            self._some.clear()
            while self._waiting:
                event = self._waiting.popleft()
                if await self._is_first(event):
                    wanted = [channel for channel in self._channels if channel.wants(event.kind)]
                    await asyncio.gather(*(self.tell(channel, event) for channel in wanted))

    async def _is_first(self, event: Event) -> bool:
        try:
            return await self._first(f"alert:{event.kind}:{event.subject}:{event.step}"[:300])
        except Exception:  # noqa: BLE001 - twice is better than not at all
            return True

    async def tell(self, channel: Channel, event: Event, pauses: Sequence[float] = PAUSES) -> str:
        """Send *event* by *channel*; why that did not work in the end, or ""."""
        problem = ""
        for pause in (0.0, *pauses):
            await asyncio.sleep(pause)
            problem = await self._try(channel, event)
            if not problem:
                self.sent += 1
                return ""
        self.failed += 1
        log.error("the alert %r was not delivered: %s", channel.name, problem)
        return problem

    async def _try(self, channel: Channel, event: Event) -> str:
        try:
            message = channel.message(event, self._clock())
            if isinstance(message, Mail):
                await self._ways.mail(*message)
                return ""
            return channel.refusal(await self._ways.post(*message))
        except (OSError, ValueError) as error:
            return str(error) or type(error).__name__
        except Exception as error:  # noqa: BLE001 - an alert must not end those that follow
            return type(error).__name__


class ErrorRate:
    """A listener that counts how many of each provider's requests fail, and tells when that are too many."""

    def __init__(self, alerts: Alerts) -> None:
        self._alerts = alerts
        self._begun = 0.0
        self._counts: dict[str, list[int]] = {}

    def recorded(self, record: Record) -> None:
        rate = self._alerts.error_rate
        if rate is None or not record.provider:
            return
        if not 0 <= record.at - self._begun < ERRORS_WINDOW:
            self._begun, self._counts = record.at, {}
        counts = self._counts.setdefault(record.provider, [0, 0])
        counts[0] += 1
        if record.outcome in ("provider_error", "gateway_error"):
            counts[1] += 1
            requests, errors = counts
            if requests >= ERRORS_FROM and errors >= rate * requests:
                text = f"{errors} of {requests} requests to this provider failed in five minutes, the last with {record.error}."
                facts: dict[str, str | int | float] = {"requests": requests, "errors": errors, "error": record.error}
                self._alerts.happened(Event(kind="errors", subject=record.provider, text=text, at=record.at, facts=facts))

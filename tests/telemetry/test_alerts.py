"""Events on their way to people: what each kind of place gets, who hears what, and what becomes of one that does not answer."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Sequence
from email.message import EmailMessage
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from aigw.config.schema import Alert
from aigw.exchange import Record
from aigw.hooks import Event
from aigw.telemetry.alerts import AGAIN, ERRORS_FROM, MOST, Alerts, Channel, ErrorRate, Mail, Post

NOW = 1_790_000_000.0
EVENT = Event(kind="keys", subject="openai", text="None of its 3 keys can be used.", at=NOW, facts={"seconds": 41})


class Hand:
    """Ways that remember what they carried, and fail as they are told."""

    def __init__(self, *answers: bytes | Exception) -> None:
        self.posts: list[Post] = []
        self.mails: list[Mail] = []
        self._answers = list(answers)

    async def post(self, url: str, headers: tuple[tuple[str, str], ...], body: bytes) -> bytes:
        self.posts.append(Post(url, headers, body))
        answer = self._answers.pop(0) if self._answers else b"ok"
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def mail(self, server: str, password: str, message: EmailMessage) -> None:
        self.mails.append(Mail(server, password, message))


async def always(_: str) -> bool:
    return True


def made(hand: Hand, *channels: Channel, first: Callable[[str], object] = always) -> Alerts:
    alerts = Alerts(hand, first, clock=lambda: NOW)  # type: ignore[arg-type]  # a test's own
    alerts.reconfigure(channels)
    return alerts


def one(
    kind: str = "webhook", url: str = "https://ops.example/hook?token=0123456789abcdef", secret: str = "", **more: object
) -> Channel:
    table = msgspec.convert({"kind": kind, "url": url, "secret": secret} | more, Alert)
    return Channel("ops", table, url, secret)


async def told(alerts: Alerts, *events: Event) -> None:
    """Have them told, and wait until nothing is under way."""
    task = asyncio.get_running_loop().create_task(alerts.run())
    for event in events:
        alerts.happened(event)
    for _ in range(20):
        await asyncio.sleep(0)
    task.cancel()


def body(message: Post | Mail) -> dict[str, object]:
    assert isinstance(message, Post)
    found = json.loads(message.body)
    assert isinstance(found, dict)
    return found


def test_a_webhook_gets_the_event_signed() -> None:
    """All of it, and a signature over exactly what is sent."""
    message = one(secret="s3cret").message(EVENT, NOW)
    assert isinstance(message, Post)
    assert msgspec.json.decode(message.body, type=Event) == EVENT
    digest = hmac.new(b"s3cret", message.body, hashlib.sha256).hexdigest()
    assert dict(message.headers)["x-aigw-signature"] == f"sha256={digest}"
    assert "x-aigw-signature" not in dict(one().message(EVENT, NOW)[1])


def test_chat_services_get_their_own_shapes() -> None:
    """As their pages on robots have it."""
    text = "[aigw] keys: openai\nNone of its 3 keys can be used."
    assert body(one("slack").message(EVENT, NOW)) == {"text": text}
    assert body(one("wecom").message(EVENT, NOW)) == {"msgtype": "text", "text": {"content": text}}
    assert body(one("feishu").message(EVENT, NOW)) == {"msg_type": "text", "content": {"text": text}}
    assert body(one("dingtalk").message(EVENT, NOW)) == {"msgtype": "text", "text": {"content": text}}


def test_feishu_signs_time_and_secret_over_nothing() -> None:
    """The pair is the key of the HMAC; the message of it is empty."""
    found = body(one("feishu", secret="robot").message(EVENT, NOW))
    expected = base64.b64encode(hmac.new(b"1790000000\nrobot", b"", hashlib.sha256).digest()).decode()
    assert (found["timestamp"], found["sign"]) == ("1790000000", expected)


def test_dingtalk_signs_in_the_address() -> None:
    """In milliseconds, and fit for a query."""
    message = one("dingtalk", secret="SEC0").message(EVENT, NOW)
    query = parse_qs(urlsplit(message[0]).query)  # type: ignore[arg-type]  # a Post's url
    expected = base64.b64encode(hmac.new(b"SEC0", b"1790000000000\nSEC0", hashlib.sha256).digest()).decode()
    assert query == {"token": ["0123456789abcdef"], "timestamp": ["1790000000000"], "sign": [expected]}


def test_mail_has_no_header_of_a_stranger() -> None:
    """A subject with a line break in it stays one line."""
    channel = one("email", "smtp://robot@mail.example", "pw", to=["ops@example.com", "b@example.com"])
    strange = msgspec.structs.replace(EVENT, subject="x\r\nBcc: thief@example.com")
    message = channel.message(strange, NOW)
    assert isinstance(message, Mail)
    assert message.message["To"] == "ops@example.com, b@example.com"
    assert message.message["From"] == "aigw@mail.example"
    assert message.message["Bcc"] is None
    assert message.message["Subject"] == "[aigw] keys: x Bcc: thief@example.com"
    assert "None of its 3 keys" in message.message.get_content()


def test_a_long_text_is_cut() -> None:
    """DingTalk and WeCom refuse what is too long."""
    long = msgspec.structs.replace(EVENT, text="x" * 10_000)
    assert len(str(body(one("slack").message(long, NOW))["text"])) == 2000


def test_nothing_secret_in_the_repr() -> None:
    channel = one("slack", "https://hooks.example/services/T0/B0/verysecretpart", "alsosecret")
    assert "secret" not in repr(channel)
    assert {"services/T0/B0/verysecretpart", "alsosecret"} <= channel.secrets


async def test_who_hears_what() -> None:
    """Those who asked for a kind; those who named none hear everything."""
    hand = Hand()
    budget, everything = one(url="https://a.example/", events=["budget"]), one(url="https://b.example/")
    await told(made(hand, budget, everything), EVENT)
    assert [post.url for post in hand.posts] == ["https://b.example/"]


async def test_the_same_is_told_once_an_hour() -> None:
    """A further step, another subject and the next hour are told again."""
    hand, now = Hand(), [NOW]
    alerts = Alerts(hand, always, clock=lambda: now[0])
    alerts.reconfigure([one()])
    await told(alerts, EVENT, EVENT, msgspec.structs.replace(EVENT, step="2"), msgspec.structs.replace(EVENT, subject="other"))
    assert len(hand.posts) == 3
    now[0] += AGAIN - 1
    await told(alerts, EVENT)
    assert len(hand.posts) == 3
    now[0] += 2
    await told(alerts, EVENT)
    assert len(hand.posts) == 4


async def test_another_process_was_first() -> None:
    """Then it is told by that one; a store that cannot be asked is no reason to be silent."""

    async def second(_: str) -> bool:
        return False

    async def broken(_: str) -> bool:
        raise OSError

    quiet, loud = Hand(), Hand()
    await told(made(quiet, one(), first=second), EVENT)
    await told(made(loud, one(), first=broken), EVENT)
    assert (len(quiet.posts), len(loud.posts)) == (0, 1)


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("feishu", b'{"code":19021,"msg":"sign match fail"}'),
        ("dingtalk", b'{"errcode":310000,"errmsg":"keywords not in content"}'),
        ("wecom", b'{"errcode":93000,"errmsg":"invalid webhook url"}'),
        ("wecom", b"<html>"),
    ],
)
async def test_a_refusal_inside_a_200(kind: str, answer: bytes) -> None:
    """Is none for the operator to guess at."""
    hand = Hand(answer)
    alerts = made(hand)
    problem = await alerts.tell(one(kind), EVENT, pauses=())
    assert problem
    assert (alerts.sent, alerts.failed) == (0, 1)


async def test_three_tries() -> None:
    """A place that comes back within them gets the message once."""
    hand = Hand(OSError("refused"), OSError("refused"), b"ok")
    alerts = made(hand)
    assert await alerts.tell(one(), EVENT, pauses=(0, 0)) == ""
    assert (len(hand.posts), alerts.sent, alerts.failed) == (3, 1, 0)
    away = made(Hand(*[OSError("connection refused")] * 3))
    assert await away.tell(one(), EVENT, pauses=(0, 0)) == "connection refused"
    assert (away.sent, away.failed) == (0, 1)


async def test_a_flood_is_bounded() -> None:
    """Of events that nobody has taken yet the newest are kept."""
    hand = Hand()
    alerts = made(hand, one())
    for number in range(3 * MOST):
        alerts.happened(msgspec.structs.replace(EVENT, subject=str(number)))
    task = asyncio.get_running_loop().create_task(alerts.run())
    while len(hand.posts) < MOST:
        await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.sleep(0)
    task.cancel()
    assert len(hand.posts) == MOST


def records(outcomes: Sequence[str], at: float = NOW) -> list[Record]:
    return [
        Record(id=str(n), at=at + n / 100, provider="openai", outcome=what, error="provider_overloaded")
        for n, what in enumerate(outcomes)
    ]


def test_too_many_failures_are_told_once() -> None:
    """From so many requests on, and from the share that was asked for; callers' own mistakes are none."""
    heard: list[Event] = []
    alerts = made(Hand(), one(error_rate=0.5))
    alerts.happened = heard.append  # type: ignore[method-assign]
    rate = ErrorRate(alerts)
    for record in records(["provider_error"] * (ERRORS_FROM - 1)):
        rate.recorded(record)
    assert heard == []
    for record in records(["ok"] * ERRORS_FROM + ["caller_error"] * 40 + ["provider_error"]):
        rate.recorded(record)
    assert heard == []
    for record in records(["provider_error"] * 100):
        rate.recorded(record)
    assert {(event.kind, event.subject) for event in heard} == {("errors", "openai")}
    heard.clear()
    for record in records(["provider_error"] * 5, NOW + 4000):  # long after: they are counted anew
        rate.recorded(record)
    assert heard == []

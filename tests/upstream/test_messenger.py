"""Messages of our own on real sockets: to a web address, and to a mail server."""

from __future__ import annotations

import asyncio
from email.message import EmailMessage

import pytest

from aigw.upstream.http import HttpTransport
from aigw.upstream.messenger import Messenger
from tests.loopback import Peer, Request, replies, serving


def direct(scheme: str, host: str, port: int) -> str:
    return ""


async def test_a_post_arrives() -> None:
    """Method, path with its query, headers and body; the answer comes back."""
    heard: list[Request] = []

    async def script(peer: Peer) -> None:
        heard.append(await peer.request())
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    http = HttpTransport(4)
    async with serving(script) as server:
        messenger = Messenger(http, direct)
        answer = await messenger.post(f"http://127.0.0.1:{server.port}/hook?x=1", (("x-aigw-event", "keys"),), b"{}")
    await http.close()
    assert answer == b"ok"
    assert heard[0].line == b"POST /hook?x=1 HTTP/1.1"
    assert heard[0].headers[b"x-aigw-event"] == b"keys"
    assert heard[0].body == b"{}"


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", "it answered 404"),
        (b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n", "it answered 302"),
    ],
)
async def test_what_is_no_success_is_said(answer: bytes, why: str) -> None:
    """A redirect is not followed."""
    http = HttpTransport(4)
    async with serving(replies(answer)) as server:
        with pytest.raises(OSError, match=why):
            await Messenger(http, direct).post(f"http://127.0.0.1:{server.port}/", (), b"")
    with pytest.raises(OSError, match=r"."):
        await Messenger(http, direct).post(f"http://127.0.0.1:{server.port}/", (), b"")
    await http.close()


async def mail_server(talk: list[str], offers: bytes) -> asyncio.Server:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hello\r\n")
        in_data = False
        while line := await reader.readline():
            text = line.decode().rstrip("\r\n")
            talk.append(text)
            if in_data:
                if text == ".":
                    in_data = False
                    writer.write(b"250 taken\r\n")
                continue
            verb = text.partition(" ")[0].upper()
            if verb == "EHLO":
                writer.write(offers)
            elif verb == "DATA":
                in_data = True
                writer.write(b"354 go on\r\n")
            else:
                writer.write(b"250 fine\r\n")
        writer.close()

    return await asyncio.start_server(speak, "127.0.0.1", 0)


def message() -> EmailMessage:
    made = EmailMessage()
    made["Subject"], made["From"], made["To"] = "s", "a@example.com", "b@example.com"
    made.set_content("hello\n")
    return made


async def test_mail_is_handed_over_and_no_password_in_clear() -> None:
    """Without one, in clear to a server of this machine; with one never, where the server offers no encryption."""
    talk: list[str] = []
    http = HttpTransport(4)
    server = await mail_server(talk, b"250-here\r\n250 8BITMIME\r\n")
    port = server.sockets[0].getsockname()[1]
    messenger = Messenger(http, direct)
    await messenger.mail(f"smtp://127.0.0.1:{port}", "", message())
    assert any(line.startswith("rcpt TO:<b@example.com>") for line in talk)
    assert "hello" in talk
    talk.clear()
    with pytest.raises(OSError, match="no encryption"):
        await messenger.mail(f"smtp://me@127.0.0.1:{port}", "geheim", message())
    assert not any("geheim" in line or line.upper().startswith("AUTH") for line in talk)
    server.close()
    await server.wait_closed()
    await http.close()

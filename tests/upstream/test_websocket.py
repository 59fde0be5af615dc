"""Websockets to providers: real sockets on loopback."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
import trustme
from aiohttp import web

from aigw.errors import UpstreamError
from aigw.exchange import Origin
from aigw.protocols.realtime import Handshake
from aigw.upstream.websocket import Frame, Refused, WebSocket, WebSocketTransport
from tests import loopback
from tests.realtime import Socket, provider


async def opened(
    transport: WebSocketTransport, port: int, *, most: int = 2**20, patience: float = 5.0, path: str = "/v1/realtime?model=m"
) -> WebSocket:
    return await transport.connect(Handshake(Origin("http", "127.0.0.1", port), path, {"api-key": "k"}), most, patience)


async def test_frames_and_goodbye() -> None:
    """Frames of each kind come as they were sent; a close comes with its code and reason."""

    async def script(socket: Socket) -> None:
        message = await socket.receive()
        await socket.send_str(message.data + "!")
        await socket.send_bytes(b"\0\xff")
        await socket.ping(b"?")
        await socket.close(code=4000, message=b"bye")

    transport = WebSocketTransport()
    async with provider(script) as far:
        socket = await opened(transport, far.port)
        assert (b"x-request-id", b"req_far") in socket.headers
        assert list(transport.peers) == ["127.0.0.1"]
        await socket.send("text", "气象".encode())
        assert [await socket.receive() for _ in range(4)] == [
            Frame("text", "气象!".encode()),
            Frame("binary", b"\0\xff"),
            Frame("ping", b"?"),
            Frame("close", b"bye", 4000),
        ]
        await socket.leave(1000)
        assert far.asked[0].headers["api-key"] == "k"
        assert far.asked[0].path_qs == "/v1/realtime?model=m"
        assert "sec-websocket-extensions" not in far.asked[0].headers
    await transport.close()


async def test_too_large() -> None:
    """A message beyond the limit breaks the session; it is never held in memory."""

    async def script(socket: Socket) -> None:
        await socket.send_bytes(bytes(70_000))
        await socket.receive()

    transport = WebSocketTransport()
    async with provider(script) as far:
        socket = await opened(transport, far.port, most=65_536)
        assert await socket.receive() == Frame("broken", b"", 1009)
        socket.abort()
    await transport.close()


async def test_gone() -> None:
    """A connection that ends without a close frame says so."""

    async def script(socket: Socket) -> None:
        socket._req.transport.abort()

    transport = WebSocketTransport()
    async with provider(script) as far:
        socket = await opened(transport, far.port)
        assert (await socket.receive()).kind == "gone"
        with pytest.raises(OSError):  # noqa: PT012 - the first write may find the system still willing
            for _ in range(20):
                await socket.send("text", b"x")
                await asyncio.sleep(0.01)
    await transport.close()


async def test_a_refusal_keeps_its_words() -> None:
    """Status, headers and body are there for the adapter to judge; a redirection is one."""
    answers = [
        web.json_response({"error": {"message": "no"}}, status=403),
        web.Response(status=307, headers={"location": "http://127.0.0.1:9/"}),
    ]
    transport = WebSocketTransport()
    async with provider(refuse=lambda _: answers.pop(0)) as far:
        with pytest.raises(Refused) as caught:
            await opened(transport, far.port)
        assert (caught.value.status, caught.value.body) == (403, b'{"error": {"message": "no"}}')
        with pytest.raises(Refused) as caught:
            await opened(transport, far.port)
        assert (caught.value.status, dict(caught.value.headers)[b"location"]) == (307, b"http://127.0.0.1:9/")
        assert len(far.asked) == 2
    await transport.close()


async def test_who_is_not_there(unused_tcp_port: int) -> None:
    transport = WebSocketTransport()
    with pytest.raises(UpstreamError) as caught:
        await opened(transport, unused_tcp_port)
    assert (caught.value.code, caught.value.sent, caught.value.may_retry) == ("provider_unreachable", False, True)
    await transport.close()


@pytest.mark.parametrize(
    "answer",
    [b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n", b""],
)
async def test_no_websocket_server(answer: bytes) -> None:
    """Nonsense, an accept without its proof, and a closed connection are bad answers."""

    async def script(peer: loopback.Peer) -> None:
        await peer.head()
        await peer.send(answer)

    transport = WebSocketTransport()
    async with loopback.serving(script) as far:
        with pytest.raises(UpstreamError) as caught:
            await opened(transport, far.port)
        assert (caught.value.code, caught.value.fault) == ("provider_bad_response", "deployment")
    await transport.close()


async def test_silence_ends() -> None:
    """A provider that says nothing is given up when the caller's patience ends."""

    async def script(peer: loopback.Peer) -> None:
        await peer.gone()

    transport = WebSocketTransport()
    async with loopback.serving(script) as far:
        with pytest.raises(UpstreamError) as caught:
            await opened(transport, far.port, patience=0.2)
        assert caught.value.code == "provider_timeout"
    await transport.close()


async def test_by_proxy() -> None:
    """https:// goes by CONNECT with the proxy's password; its refusal is told without it."""
    seen: list[loopback.Request] = []

    async def script(peer: loopback.Peer) -> None:
        seen.append(await peer.head())
        await peer.send(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")

    transport = WebSocketTransport()
    async with loopback.serving(script) as proxy:
        origin = Origin("https", "api.example.com", 443, f"http://user:sesame@127.0.0.1:{proxy.port}")
        with pytest.raises(UpstreamError) as caught:
            await transport.connect(Handshake(origin, "/v1/realtime", {}), 2**20, 5.0)
    assert seen[0].line == b"CONNECT api.example.com:443 HTTP/1.1"
    assert seen[0].headers[b"proxy-authorization"] == b"Basic dXNlcjpzZXNhbWU="
    assert (caught.value.code, "407" in caught.value.detail) == ("provider_unreachable", True)
    assert "sesame" not in caught.value.detail + str(caught.value)
    await transport.close()


async def test_a_ca_file_that_is_none(tmp_path: Path) -> None:
    """Told as HTTP tells it."""
    (tmp_path / "ca.pem").write_text("nothing")
    transport = WebSocketTransport()
    origin = Origin("https", "127.0.0.1", 9, "", str(tmp_path / "ca.pem"))
    with pytest.raises(UpstreamError) as caught:
        await transport.connect(Handshake(origin, "/v1/realtime", {}), 2**20, 5.0)
    assert "ca_file" in str(caught.value)
    await transport.close()


async def test_certificates(tmp_path: Path) -> None:
    """One of the authority in `ca_file` is trusted; another is not, and the place is not tried again."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    transport = WebSocketTransport()
    async with provider(tls=context) as far:
        here = Origin("https", "127.0.0.1", far.port)
        with pytest.raises(UpstreamError) as caught:
            await transport.connect(Handshake(here, "/v1/realtime", {}), 2**20, 5.0)
        assert (caught.value.code, caught.value.may_retry) == ("provider_unreachable", False)
        assert "certificate" in str(caught.value)
        trusting = Origin("https", "127.0.0.1", far.port, "", str(tmp_path / "ca.pem"))
        socket = await transport.connect(Handshake(trusting, "/v1/realtime", {}), 2**20, 5.0)
        assert (await socket.receive()).kind == "text"
        await socket.leave(1000)
    await transport.close()

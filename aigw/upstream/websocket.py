"""Websockets to providers, by the same proxies, authorities and timeouts as HTTP. The one module below the server that uses
aiohttp: a session lasts minutes, and what its client costs is paid once.

Compression is not offered: audio does not shrink, and a frame of ours never grows to a thousand times what was sent.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from typing import NamedTuple

import aiohttp
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse, ClientTimeout, ClientWSTimeout, WSMsgType
from aiohttp.http_websocket import WSMessageTextBytes
from yarl import URL

from aigw.errors import UpstreamError
from aigw.exchange import Headers, Origin
from aigw.protocols.realtime import Handshake
from aigw.upstream.http import tls_context, unreachable
from aigw.upstream.peers import Peers

HANDSHAKE = 30.0
"""Seconds a provider may take to answer a handshake, when no shorter time is configured: it thinks of nothing yet."""

REFUSAL = 64 * 1024
"""Bytes of a refusal's body that are read."""

REFUSAL_TIME = 5.0
"""Seconds for them."""

GOODBYE = 1.0
"""Seconds that the last frames and the provider's own close may take once we have said ours."""


class Refused(Exception):  # noqa: N818 - no error of ours: the provider's answer, for its adapter to judge
    """The handshake was answered with something else than a websocket."""

    def __init__(self, status: int, headers: Headers, body: bytes) -> None:
        super().__init__(f"status {status}")
        self.status, self.headers, self.body = status, headers, body


class Frame(NamedTuple):
    """What came. `kind` is "text", "binary", "ping", "pong", "close" (with `code` and the reason in `data`), "gone" (without a
    word), or "broken" (it was no websocket frame, or a message too large; `code` says which)."""

    kind: str
    data: bytes = b""
    code: int | None = None


_KINDS = {WSMsgType.TEXT: "text", WSMsgType.BINARY: "binary", WSMsgType.PING: "ping", WSMsgType.PONG: "pong"}
_TYPES = {kind: type_ for type_, kind in _KINDS.items()} | {"close": WSMsgType.CLOSE}


def frame_of(message: aiohttp.WSMessage | WSMessageTextBytes) -> Frame:
    """aiohttp's message (its text undecoded) in our words."""
    kind = _KINDS.get(message.type)
    if kind is not None:
        return Frame(kind, bytes(message.data))
    if message.type is WSMsgType.CLOSE:
        return Frame("close", (message.extra or "").encode("utf-8", "replace"), message.data)
    if message.type is WSMsgType.ERROR and isinstance(message.data, aiohttp.WebSocketError):
        return Frame("broken", b"", message.data.code)
    return Frame("gone")


class WebSocket:
    """An open websocket to a provider. `receive` and `send` are each for one task at a time; `send` waits while the provider
    does not read, and so does whoever feeds it."""

    def __init__(self, socket_: aiohttp.ClientWebSocketResponse[bool], headers: Headers) -> None:
        self._socket = socket_
        self.headers = headers  # of the handshake's answer

    async def receive(self) -> Frame:
        return frame_of(await self._socket.receive())

    async def send(self, kind: str, data: bytes) -> None:
        """Raises ConnectionError when the provider is gone."""
        await self._socket.send_frame(data, _TYPES[kind])

    async def say_goodbye(self, code: int, reason: bytes = b"") -> None:
        """Send our close; what still comes can be received."""
        await self.send("close", struct.pack("!H", code) + reason)

    def abort(self) -> None:
        """Close the connection now."""
        connection = self._socket._response.connection  # noqa: SLF001 - aiohttp's own way waits for the other side
        transport = connection.transport if connection is not None else None
        if transport is not None:
            transport.abort()
        self._socket._response.close()  # noqa: SLF001

    async def leave(self, code: int, reason: bytes = b"") -> None:
        """Our close if it can be sent at once, and the connection's end. Raises nothing."""
        try:
            async with asyncio.timeout(0.05):
                await self.say_goodbye(code, reason)
        except (OSError, TimeoutError, RuntimeError):
            pass
        finally:
            self.abort()


class WebSocketTransport:
    """Opens websockets. One for the whole server; costs nothing until the first."""

    def __init__(self, peers: Peers | None = None) -> None:
        """*peers* hears whom it connects to."""
        self.peers = peers if peers is not None else Peers()
        self._session: aiohttp.ClientSession | None = None
        self._contexts: dict[str, ssl.SSLContext] = {}

    async def connect(self, handshake: Handshake, max_message: int, patience: float) -> WebSocket:
        """An open websocket. *max_message* is the largest message (bytes) that may come; *patience* is how long (seconds) the
        caller waits. Raises UpstreamError as the HTTP transport does, and Refused."""
        origin = handshake.origin
        where = f"{origin.host}:{origin.port}"
        within = min(handshake.connect_timeout + min(handshake.first_byte_timeout, HANDSHAKE), max(patience, 0.05))
        try:
            async with asyncio.timeout(within):
                return await self._connect(handshake, max_message)
        except Refused:
            raise
        except TimeoutError:
            raise unreachable("did not open a session in time", f"{where}: {within:g} s", "provider_timeout") from None
        except aiohttp.ClientConnectorCertificateError as error:
            why = getattr(error.certificate_error, "verify_message", "") or "unknown reason"
            raise unreachable("has no certificate we can trust", f"{where}: {why}; see `ca_file`", retry=False) from None
        except (aiohttp.ClientConnectorSSLError, ssl.SSLError) as error:
            raise unreachable("could not agree on TLS", f"{where}: {getattr(error, 'reason', '') or 'failed'}") from None
        except (aiohttp.ClientConnectorDNSError, socket.gaierror):
            raise unreachable("has a host name that could not be resolved", origin.host) from None
        except aiohttp.ClientHttpProxyError as error:
            raise unreachable("could not be reached", f"{where}: the proxy answered {error.status}") from None
        except aiohttp.ClientConnectorError as error:
            raise unreachable("could not be reached", f"{where}: {error.os_error.strerror or 'connection failed'}") from None
        except (aiohttp.WSServerHandshakeError, aiohttp.ClientError, ValueError, OSError):
            raise UpstreamError(
                "provider_bad_response",
                "did not answer as a websocket server does",
                fault="deployment",
                may_retry=True,
                sent=False,
            ) from None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _connect(self, handshake: Handshake, max_message: int) -> WebSocket:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, force_close=True),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=ClientTimeout(total=None),
                middlewares=(_only_upgrades,),
                auto_decompress=False,
            )
        origin = handshake.origin
        socket_ = await self._session.ws_connect(
            _url(origin, handshake.path),
            headers=handshake.headers,
            proxy=URL(origin.proxy) if origin.proxy else None,
            ssl=self._context(origin.ca_file) if origin.scheme == "https" else True,
            timeout=ClientWSTimeout(ws_receive=None, ws_close=GOODBYE),
            autoclose=False,
            autoping=False,
            compress=0,
            max_msg_size=max_message,
            decode_text=False,
        )
        connection = socket_._response.connection  # noqa: SLF001 - as in `abort`
        self.peers.note(connection.transport if connection is not None else None)
        return WebSocket(socket_, _pairs(socket_._response))  # noqa: SLF001 - it keeps its headers nowhere else

    def _context(self, ca_file: str) -> ssl.SSLContext:
        context = self._contexts.get(ca_file)
        if context is None:
            context = self._contexts[ca_file] = tls_context(ca_file)
        return context


async def _only_upgrades(request: ClientRequest, send: ClientHandlerType) -> ClientResponse:
    """Anything else is the provider's answer to read: a redirection is not followed, a refusal's words are kept."""
    response = await send(request)
    if response.status == 101:
        return response
    body = b""
    try:
        async with asyncio.timeout(REFUSAL_TIME):
            while len(body) < REFUSAL and (block := await response.content.read(REFUSAL - len(body))):
                body += block
    except (TimeoutError, aiohttp.ClientError):
        pass  # judged by what is there
    finally:
        response.close()
    raise Refused(response.status, _pairs(response), body)


def _pairs(response: ClientResponse) -> Headers:
    return [(name.lower(), value) for name, value in response.raw_headers]


def _url(origin: Origin, path: str) -> URL:
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    return URL(f"{origin.scheme}://{host}:{origin.port}{path}", encoded=True)

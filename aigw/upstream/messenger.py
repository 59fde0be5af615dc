"""How messages of our own leave: to a web address over the same transport as requests to providers, or to a mail server."""

from __future__ import annotations

import asyncio
import smtplib
import ssl
from collections.abc import Callable, Mapping
from email.message import EmailMessage
from urllib.parse import unquote, urlsplit

from aigw.errors import UpstreamError
from aigw.exchange import Origin, Target, UpstreamRequest
from aigw.upstream.answer import WholeAnswer
from aigw.upstream.transport import Transport

PATIENCE = 10.0
"""Seconds for a message, all in all."""

FETCHED = 8 * 1024 * 1024
"""Bytes of an answer that a plugin may fetch."""

ANSWER = 64 * 1024
"""Bytes of an answer that are looked at."""


class Messenger:
    """Posts to web addresses and hands mail to servers. *proxy* gives the proxy's URL for (scheme, host, port), or ""."""

    def __init__(self, transport: Transport, proxy: Callable[[str, str, int], str], ca_file: str = "") -> None:
        self._transport, self._proxy, self._ca_file = transport, proxy, ca_file

    async def post(self, url: str, headers: tuple[tuple[str, str], ...], body: bytes) -> bytes:
        """The body of a 2xx answer. Raises OSError with the reason otherwise; redirects are not followed."""
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        host = parts.hostname or ""
        way = self._proxy(parts.scheme, host, port)
        origin = Origin(parts.scheme, host, port, way, self._ca_file if parts.scheme == "https" else "")
        path = (parts.path or "/") + ("?" + parts.query if parts.query else "")
        target = Target("POST", origin, path, dict(headers))
        request = UpstreamRequest(target, body, first_byte_timeout=PATIENCE, timeout=PATIENCE, connect_timeout=PATIENCE)
        answer = WholeAnswer(ANSWER)
        try:
            await self._transport.send(request, answer)
        except UpstreamError as error:
            raise OSError(error.detail or error.message) from None
        if not 200 <= answer.status < 300:
            raise OSError(f"it answered {answer.status}")
        return answer.body

    async def fetch(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, within: float
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of whatever is answered. Raises OSError with the reason where nothing is; redirects are not
        followed."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise OSError("its address is no http:// or https:// URL")
        port = parts.port or (443 if parts.scheme == "https" else 80)
        way = self._proxy(parts.scheme, parts.hostname, port)
        origin = Origin(parts.scheme, parts.hostname, port, way, self._ca_file if parts.scheme == "https" else "")
        try:
            target = Target(method, origin, (parts.path or "/") + ("?" + parts.query if parts.query else ""), dict(headers))
        except ValueError as error:
            raise OSError(str(error)) from None
        request = UpstreamRequest(target, body, first_byte_timeout=within, timeout=within, connect_timeout=within)
        answer = WholeAnswer(FETCHED)
        try:
            await self._transport.send(request, answer)
        except UpstreamError as error:
            raise OSError(error.detail or error.message) from None
        if answer.cut:
            raise OSError(f"it answered with more than {FETCHED // 1024 // 1024} MiB")
        named = {name.decode("latin-1"): value.decode("latin-1") for name, value in answer.headers}
        return answer.status, named, answer.body

    async def mail(self, server: str, password: str, message: EmailMessage) -> None:
        """Hand *message* to *server* ("smtp://user@host:587", "smtps://host"). Raises OSError with the reason."""
        await asyncio.to_thread(self._mail, server, password, message)

    def _mail(self, server: str, password: str, message: EmailMessage) -> None:
        parts = urlsplit(server)
        host, secure = parts.hostname or "", parts.scheme == "smtps"
        context = ssl.create_default_context(cafile=self._ca_file or None)
        opened: smtplib.SMTP | None = None
        try:
            if secure:
                opened = smtplib.SMTP_SSL(host, parts.port or 465, timeout=PATIENCE, context=context)
            else:
                opened = smtplib.SMTP(host, parts.port or 587, timeout=PATIENCE)
                opened.ehlo()
                if opened.has_extn("starttls"):
                    opened.starttls(context=context)
                elif password:
                    raise OSError("the mail server offers no encryption: the password is not sent in clear text")
            if password:
                opened.login(unquote(parts.username or ""), password)
            opened.send_message(message)
        except smtplib.SMTPResponseException as error:
            raise OSError(f"the mail server answered {error.smtp_code}") from None
        except smtplib.SMTPException as error:
            raise OSError(f"the mail server: {type(error).__name__}") from None
        finally:
            if opened is not None:
                opened.close()

"""How messages of our own leave: to a web address over the same transport as requests to providers, or to a mail server."""

from __future__ import annotations

import asyncio
import smtplib
import ssl
from collections.abc import Callable
from email.message import EmailMessage
from urllib.parse import unquote, urlsplit

from aigw.errors import UpstreamError
from aigw.exchange import Origin, Target, UpstreamRequest
from aigw.upstream.answer import WholeAnswer
from aigw.upstream.transport import Transport

PATIENCE = 10.0
"""Seconds for a message, all in all."""

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

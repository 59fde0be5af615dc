"""The way to a provider, walked step by step without a key: name, connection, proxy, TLS, an answer. Where it ends says whose
fault it is; the answer's Date says how far off this machine's clock is.

Plain sockets and the standard library: the gateway's own transport has one error for what must be told apart here.
"""

from __future__ import annotations

import base64
import re
import socket
import ssl
import time
from email.utils import parsedate_to_datetime
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from aigw import __version__
from aigw.exchange import Origin

_MOST = 64 * 1024  # bytes of an answer's head
_EXPIRED, _NOT_YET, _WRONG_NAME = {10}, {9}, {62, 64}  # X509_V_ERR_... of OpenSSL's x509_vfy.h

# DER: the common name and the organisation of a distinguished name, and the times behind which the issuer ends
_COMMON_NAME, _ORGANISATION = b"\x06\x03\x55\x04\x03", b"\x06\x03\x55\x04\x0a"
_TIME = re.compile(rb"\x17\x0d[0-9]{12}Z|\x18\x0f[0-9]{14}Z")


class Way(NamedTuple):
    """Where the walk ended: `code` is one of findings.CODES, "" at the provider itself. `detail` is the system's word for it.

    `ahead`: seconds by which the provider's clock is ahead of ours, None when it did not say; `issuer`: who signed the
    certificate that was refused.
    """

    code: str = ""
    detail: str = ""
    ahead: float | None = None
    issuer: str = ""


class _End(Exception):  # noqa: N818 - not an error of ours
    def __init__(self, way: Way) -> None:
        super().__init__(way.code)
        self.way = way


def walk(origin: Origin, timeout: float) -> Way:
    """Walk to *origin*, with its proxy and its authorities; *timeout* (seconds) is for each step. Blocks, raises nothing."""
    try:
        return Way(ahead=_asked(origin, timeout, _context(origin)))
    except _End as end:
        way = end.way
    except (OSError, ValueError) as error:
        way = Way("provider_silent", _reason(error))
    if way.code in ("certificate_unknown", "certificate_name", "certificate_date", "tls_failed"):
        return _explained(way, origin, timeout)
    return way


def _explained(way: Way, origin: Origin, timeout: float) -> Way:
    """*way*, with the issuer of the certificate that was refused and the other side's clock: looked at, not trusted."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    seen: list[bytes] = []
    try:
        ahead = _asked(origin, timeout, context, seen)
    except (_End, OSError, ValueError):
        ahead = None
    return way._replace(issuer=issuer_of(seen[0]) if seen else "", ahead=ahead)


def _context(origin: Origin) -> ssl.SSLContext | None:
    if origin.scheme != "https":
        return None
    context = ssl.create_default_context()
    if origin.ca_file:
        try:
            context.load_verify_locations(cafile=origin.ca_file)
        except OSError as error:  # ssl.SSLError is one
            raise _End(Way("ca_file_wrong", f"{origin.ca_file}: {error.strerror or 'holds no certificate'}")) from None
    return context


def _asked(origin: Origin, timeout: float, context: ssl.SSLContext | None, seen: list[bytes] | None = None) -> float | None:
    """Seconds that the provider's clock is ahead, by the Date of an answer. Raises _End where the way ends before that."""
    proxy = urlsplit(origin.proxy) if origin.proxy else None
    authority = f"[{origin.host}]:{origin.port}" if ":" in origin.host else f"{origin.host}:{origin.port}"
    if proxy is None:
        connection = _connected(origin.host, origin.port, timeout, "host_unknown", "provider_down")
    else:
        connection = _connected(proxy.hostname or "", proxy.port or 80, timeout, "proxy_unknown", "proxy_down")
    with connection:
        login = _login(origin)
        if proxy is not None and context is not None:
            connection.sendall(f"CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\n{login}\r\n".encode("ascii", "replace"))
            _check_proxy(*_head(connection, "proxy_down"), tunnel=True)
        whole = f"http://{authority}/" if proxy is not None and context is None else "/"
        ask = f"HEAD {whole} HTTP/1.1\r\nhost: {authority}\r\nuser-agent: aigw/{__version__}\r\nconnection: close\r\n"
        ask += login if proxy is not None and context is None else ""
        raw = ask.encode("ascii", "replace") + b"\r\n"
        if context is None:
            return _date_of(connection, raw, through_proxy=proxy is not None)
        try:
            secure = context.wrap_socket(connection, server_hostname=origin.host)
        except ssl.SSLCertVerificationError as error:
            raise _End(Way(_of_certificate(error.verify_code), error.verify_message or "not trusted")) from None
        except TimeoutError:
            raise _End(Way("provider_silent", "no TLS handshake in time")) from None
        except ssl.SSLError as error:
            raise _End(Way("tls_failed", str(error.reason or "handshake failed").replace("_", " ").lower())) from None
        except OSError as error:
            raise _End(Way("tls_failed", _reason(error))) from None
        with secure:
            if seen is not None and (certificate := secure.getpeercert(binary_form=True)):
                seen.append(certificate)
            return _date_of(secure, raw, through_proxy=False)


def _connected(host: str, port: int, timeout: float, unknown: str, down: str) -> socket.socket:
    try:
        return socket.create_connection((host, port), timeout)
    except (socket.gaierror, UnicodeError) as error:
        raise _End(Way(unknown, _reason(error))) from None
    except TimeoutError:
        silent = "provider_silent" if down == "provider_down" else down
        raise _End(Way(silent, f"no connection within {timeout:g} s")) from None
    except OSError as error:
        raise _End(Way(down, _reason(error))) from None


def _login(origin: Origin) -> str:
    parts = urlsplit(origin.proxy)
    if not origin.proxy or parts.username is None:
        return ""
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
    return f"proxy-authorization: Basic {base64.b64encode(pair).decode()}\r\n"


def _head(connection: socket.socket, silent: str) -> tuple[int, bytes]:
    """Status and head of an answer. *silent* is the code for none."""
    block = head = b""
    try:
        while b"\r\n\r\n" not in head and len(head) < _MOST and (block := connection.recv(4096)):
            head += block
    except TimeoutError:
        raise _End(Way(silent, "no answer in time")) from None
    except OSError as error:
        raise _End(Way(silent, _reason(error))) from None
    status = re.match(rb"HTTP/1\.[01] (\d{3})", head)
    if status is None:
        said = "an answer that is no HTTP" if head else "the connection was closed without an answer"
        raise _End(Way(silent, said))
    return int(status[1]), head


def _check_proxy(status: int, head: bytes, *, tunnel: bool) -> None:
    if status == 407:
        asks = re.search(rb"\r\nproxy-authenticate:[ \t]*([!-~]+)", head, re.IGNORECASE)
        raise _End(Way("proxy_login", f"407, {asks[1].decode('ascii', 'replace')}" if asks else "407"))
    if tunnel and status in (502, 503, 504):
        raise _End(Way("proxy_far_side", str(status)))
    if tunnel and status != 200:
        raise _End(Way("proxy_refuses", str(status)))


def _date_of(connection: socket.socket, ask: bytes, *, through_proxy: bool) -> float | None:
    try:
        connection.sendall(ask)
    except OSError as error:
        raise _End(Way("provider_silent", _reason(error))) from None
    status, head = _head(connection, "provider_silent")
    if through_proxy:
        _check_proxy(status, head, tunnel=False)
    found = re.search(rb"\r\ndate:[ \t]*([ -~]{10,64})\r\n", head, re.IGNORECASE)
    if found is None:
        return None
    try:
        return parsedate_to_datetime(found[1].decode("ascii").strip()).timestamp() - time.time()
    except (ValueError, OverflowError):
        return None


def _of_certificate(code: int) -> str:
    if code in _EXPIRED | _NOT_YET:
        return "certificate_date"
    return "certificate_name" if code in _WRONG_NAME else "certificate_unknown"


def issuer_of(certificate: bytes) -> str:
    """Who signed a certificate (DER): the common name or organisation of its issuer, "" when it has neither. The standard
    library reads only certificates that it trusts; in DER the issuer stands before the first time, the subject behind it."""
    times = _TIME.search(certificate)
    before = certificate[: times.start()] if times else b""
    for name in (_COMMON_NAME, _ORGANISATION):
        at = before.find(name)
        if at >= 0 and (value := before[at + len(name) :])[1:2]:
            return value[2 : 2 + value[1]].decode("utf-8", "replace")
    return ""


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__

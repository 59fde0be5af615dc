"""Which proxy leads to a host: the operator's words first, then the variables everybody knows (HTTPS_PROXY, NO_PROXY)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from aigw.errors import ConfigError


def proxy_for(
    scheme: str, host: str, port: int, *, proxy: str | None, no_proxy: str | None, environ: Mapping[str, str], key: str = ""
) -> str:
    """The proxy's URL for one origin, "" to go directly.

    *proxy* and *no_proxy* are what the config says, references resolved; None leaves it to *environ*, "" means none. A
    proxy from the environment is never used for this machine itself. *key* names the place in the config for complaints.
    """
    chosen = proxy
    if proxy is None:
        if _is_loopback(host):
            return ""
        chosen = _variable(environ, f"{scheme}_proxy") or _variable(environ, "all_proxy")
        key = f"{scheme.upper()}_PROXY in the environment"
    if not chosen:
        return ""
    exceptions = _variable(environ, "no_proxy") if no_proxy is None else no_proxy
    if goes_directly(host, port, exceptions):
        return ""
    return proxy_url(chosen, key=key)


def proxy_url(text: str, *, key: str = "") -> str:
    """*text* as `http://[user:password@]host:port`; raises ConfigError (which never shows it: it may hold a password)."""
    url = text.strip()
    if "://" not in url:
        url = f"http://{url}"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
        parts = urlsplit("")
    if parts.scheme not in {"", "http"}:
        raise ConfigError(f"proxies are reached by http://, not by {parts.scheme[:16]!r}", key=key)
    if not host or parts.path not in {"", "/"} or parts.query or parts.fragment or not re.fullmatch(r"[!-~]+", url):
        raise ConfigError("expected http://[user:password@]host:port", key=key)
    credentials, at, _ = parts.netloc.rpartition("@")
    shown = f"[{host}]" if ":" in host else host
    return f"http://{credentials}{at}{shown}:{port or 80}"


def goes_directly(host: str, port: int, no_proxy: str) -> bool:
    """Whether *no_proxy* excepts a host, as curl and Go read it: a list, split at commas or spaces, of

    - `*`: everything,
    - `example.com`, `.example.com`, `*.example.com`: that domain and all below it (any case, a final dot is nothing),
    - `10.1.2.3`, `fd00::1`, `[fd00::1]`: that address; `10.0.0.0/8`: that network. Names are not looked up for them,
    - any of the first three forms with `:port`: only on that port.
    """
    name = host.lower().strip("[]").rstrip(".")
    address = _address(name)
    for entry in re.split(r"[,\s]+", no_proxy.lower()):
        if not entry:
            continue
        if entry == "*":
            return True
        if "/" in entry:
            if address is not None and _in_network(address, entry):
                return True
            continue
        pattern, wanted = _split_port(entry)
        if wanted is not None and wanted != port:
            continue
        excepted = _address(pattern)
        if excepted is not None or address is not None:
            if excepted is not None and excepted == address:
                return True
            continue
        domain = pattern.removeprefix("*").lstrip(".").rstrip(".")
        if domain and (name == domain or name.endswith("." + domain)):
            return True
    return False


def is_private(host: str) -> bool:
    """Whether *host* is plainly on the operator's own network: a private address, or a name no public DNS has."""
    name = host.lower().strip("[]").rstrip(".")
    address = _address(name)
    if address is not None:
        return address.is_private or address.is_loopback
    return "." not in name or name.endswith((".local", ".internal", ".localhost", ".lan", ".home.arpa"))


def _is_loopback(host: str) -> bool:
    name = host.lower().strip("[]").rstrip(".")
    address = _address(name)
    return address.is_loopback if address is not None else name == "localhost" or name.endswith(".localhost")


def _variable(environ: Mapping[str, str], name: str) -> str:
    return environ.get(name) or environ.get(name.upper()) or ""  # lower case wins, as in curl


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped if mapped is not None else address


def _in_network(address: ipaddress.IPv4Address | ipaddress.IPv6Address, text: str) -> bool:
    try:
        return address in ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False


def _split_port(entry: str) -> tuple[str, int | None]:
    """`host:port`, `[v6]:port`, or a bare v6 address, whose colons are no port."""
    if entry.count(":") > 1 and not re.search(r"\]:\d+$", entry):
        return entry, None
    pattern, colon, port = entry.rpartition(":")
    return (pattern, int(port)) if colon and port.isdecimal() else (entry, None)

"""Who calls, behind proxies: the address that a trusted proxy says it was called from.

Proxies add the address of whoever called them at the end of `X-Forwarded-For` (or `Forwarded`, RFC 7239). From the end, what
trusted ones have written is believed; the first address that is not one of theirs is the caller, and whatever it claims to have
been told itself is not read.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_FOR = re.compile(r'(?:^|[;,\s])for\s*=\s*("[^"]*"|[^;,\s]+)', re.IGNORECASE)

MOST = 20
"""Addresses of a chain that are looked at."""


def caller(address: str, headers: Mapping[str, str], trusted: tuple[str, ...]) -> str:
    """The caller's address, on a connection from *address*. Only what a *trusted* one says is read."""
    networks = _networks(trusted)
    if not _in(address, networks):
        return address
    chain = _chain(headers)
    found = address
    for one in reversed(chain[-MOST:]):
        plain = _plain(one)
        if not plain:
            break  # "unknown", or nonsense: whoever is last known
        found = plain
        if not _in(plain, networks):
            break
    return found


def _chain(headers: Mapping[str, str]) -> list[str]:
    every = getattr(headers, "getall", None)

    def lines(name: str) -> Sequence[str]:
        if every is not None:
            found: list[str] = every(name, [])
            return found
        value = headers.get(name)
        return () if value is None else (value,)

    said = ",".join(lines("x-forwarded-for"))
    if said:
        return said.split(",")
    return [match.strip('"') for line in lines("forwarded") for match in _FOR.findall(line)]


def _plain(text: str) -> str:
    """An address without its port and brackets, "" for what is none."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        ip = ipaddress.ip_address(text)
    except ValueError:
        return ""
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return str(ip)


@lru_cache(64)
def _networks(trusted: tuple[str, ...]) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(one, strict=False) for one in trusted)


def _in(address: str, networks: Sequence[Network]) -> bool:
    plain = _plain(address.partition("%")[0])
    return bool(plain) and any(ipaddress.ip_address(plain) in network for network in networks)

"""Which hosts a request may name where no key protects it. A web page may be given any name that then leads to this machine
(DNS rebinding), but not one that only this machine, or its own network, gives away.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from aigw.errors import PolicyError

_LOCAL_SUFFIXES = (".localhost", ".internal", ".local")
"""Names that no public name server answers for (RFC 6761, RFC 6762, ICANN on .internal): containers know their host by them."""


def host_of(authority: str) -> str:
    """The host in a `Host` header: without port and brackets, in lower case."""
    if authority.startswith("["):
        return authority[1:].partition("]")[0].lower()
    return authority.partition(":")[0].lower()


def is_local(name: str) -> bool:
    """Whether *name* is this machine's own, by name or address."""
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def is_near(name: str) -> bool:
    """Whether no public name server can have made *name* up: an address, a name without a dot, one of a private zone."""
    if not name or "." not in name or name.endswith(_LOCAL_SUFFIXES):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def objection(headers: Mapping[str, str]) -> PolicyError | None:
    """Why a request without a key is not this machine's own; None when it may be."""
    if not is_near(host_of(headers.get("Host", ""))):
        return PolicyError(
            "policy_forbidden",
            "Without keys (auth.required = false) only this machine's own names are answered; use http://127.0.0.1.",
            status=421,
        )
    origin = headers.get("Origin")
    if origin is not None and not is_local(host_of(origin.partition("://")[2])):
        return PolicyError(
            "policy_forbidden",
            "Without keys (auth.required = false) no web page of another host may use this gateway.",
        )
    return None

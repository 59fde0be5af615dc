"""Who may come in at all, by address: before anybody looks at a key."""

from __future__ import annotations

import ipaddress
from functools import lru_cache

import msgspec

from aigw.errors import ConfigError
from aigw.hooks import Host, Plugin, View

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Settings(msgspec.Struct, forbid_unknown_fields=True):
    """Addresses and networks ("10.0.0.0/8"). `deny` beats `allow`; an empty `allow` lets in whoever is not denied."""

    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    message: str = "Requests from this address are not served."


class IpFilter(Plugin):
    """Refuses callers by their address (behind proxies: the one that a trusted proxy tells)."""

    name = "ip_filter"
    phase = "access"
    fail = "closed"
    Config = Settings
    config: Settings

    def __init__(self, config: Settings, host: Host) -> None:
        super().__init__(config, host)
        if not config.allow and not config.deny:
            raise ConfigError("expected networks in allow or deny", key=f"plugins.{host.name}")
        self._allow = _networks(config.allow, f"plugins.{host.name}.allow")
        self._deny = _networks(config.deny, f"plugins.{host.name}.deny")

    async def received(self, view: View) -> None:
        if not self._may(view.address):
            self.host.count("refused")
            view.refuse(self.config.message)

    def _may(self, address: str) -> bool:
        found = _address(address)
        if found is None:
            return not self._allow  # a socket without an address is this machine's own
        if any(found in network for network in self._deny):
            return False
        return not self._allow or any(found in network for network in self._allow)


@lru_cache(4096)
def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        return found.ipv4_mapped
    return found


def _networks(texts: tuple[str, ...], key: str) -> tuple[Network, ...]:
    found = []
    for number, text in enumerate(texts):
        try:
            found.append(ipaddress.ip_network(text, strict=False))
        except ValueError:
            raise ConfigError(
                f"{text[:60]!r} is no address or network; expected one like 10.0.0.0/8", key=f"{key}[{number}]"
            ) from None
    return tuple(found)

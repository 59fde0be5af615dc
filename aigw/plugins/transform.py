"""Parameters and headers, changed on the way: set, given a default, renamed, dropped."""

from __future__ import annotations

from typing import Any

import msgspec

from aigw.errors import ConfigError
from aigw.exchange import Headers
from aigw.hooks import Host, Plugin, View

OURS = frozenset({"content-length", "transfer-encoding", "connection", "content-encoding", "x-request-id", "date"})
"""Headers of an answer that belong to its framing, or to us."""

SPOKEN = frozenset({"model", "stream"})
"""Parameters by which a request finds its way: [routes] is where a model is changed."""


class Settings(msgspec.Struct, forbid_unknown_fields=True):
    """Of the request, in this order: `rename` (from -> to), `drop`, `default` (where nothing is said), `set`. Of the
    answer's headers: `drop_headers`, `set_headers`."""

    rename: dict[str, str] = {}
    drop: tuple[str, ...] = ()
    default: dict[str, Any] = {}
    set: dict[str, Any] = {}
    drop_headers: tuple[str, ...] = ()
    set_headers: dict[str, str] = {}


class Transform(Plugin):
    """Changes parameters of requests, as the caller's own API names them, and headers of answers."""

    name = "transform"
    phase = "prompt"
    reads = frozenset({"request"})
    Config = Settings
    config: Settings

    def __init__(self, config: Settings, host: Host) -> None:
        super().__init__(config, host)
        key = f"plugins.{host.name}"
        for part in ("rename", "drop", "default", "set"):
            for name in getattr(config, part):
                if name in SPOKEN:
                    raise ConfigError(f"{name!r} is the route's business ([routes])", key=f"{key}.{part}")
        for part in ("drop_headers", "set_headers"):
            for name in getattr(config, part):
                if name.lower() in OURS or not name.isascii() or not name.replace("-", "").replace("_", "").isalnum():
                    raise ConfigError(f"{name[:60]!r} is no header that may be changed", key=f"{key}.{part}")
        if any(not value.isprintable() or not value.isascii() for value in config.set_headers.values()):
            raise ConfigError("expected printable ASCII", key=f"{key}.set_headers")
        self._edits = bool(config.rename or config.drop or config.default or config.set)
        self._dropped = {name.lower().encode() for name in (*config.drop_headers, *config.set_headers)}
        self._set = [(name.lower().encode(), value.encode()) for name, value in config.set_headers.items()]

    async def body(self, view: View, body: bytes) -> bytes | None:
        if not self._edits:
            return None
        try:
            said = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        except (msgspec.MsgspecError, RecursionError):
            return None  # whoever reads it next says what is wrong
        before = dict(said)
        config, encode = self.config, msgspec.json.encode
        for old, new in config.rename.items():
            if old in said:
                said.setdefault(new, said.pop(old))
        for name in config.drop:
            said.pop(name, None)
        for name, value in config.default.items():
            if name not in said:
                said[name] = msgspec.Raw(encode(value))
        for name, value in config.set.items():
            said[name] = msgspec.Raw(encode(value))
        return None if said == before else encode(said)

    def head(self, view: View, headers: Headers) -> Headers | None:
        if not self._dropped:
            return None
        return [pair for pair in headers if pair[0] not in self._dropped] + self._set

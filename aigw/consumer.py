"""Who is calling, and what they may do."""

from __future__ import annotations

import msgspec

KEY_PREFIX = "sk-aigw-"
"""What every key of ours begins with: leak scanners find it, and nobody sends one on."""


class Consumer(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Who calls us: a person, a team, a service. Has one or more consumer keys.

    `rpm` (requests a minute) and `concurrency` (requests at once) override the operator's `[limits]`; None keeps them.
    """

    id: str
    name: str
    group: str = ""
    tags: str = ""  # JSON object, as the operator wrote it; copied into each record
    rpm: int | None = None
    concurrency: int | None = None
    disabled: bool = False


class ConsumerKey(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One credential of a consumer, as stored: never the key itself.

    `digest` is SHA-256 of the whole key (`scheme` "sha256"; other schemes are for keys imported from elsewhere). Times
    are seconds since the epoch. `hint` is what lists show: the key's public part.
    """

    id: str
    consumer_id: str
    digest: bytes
    scheme: str = "sha256"
    hint: str = ""
    created: float = 0.0
    expires: float | None = None
    revoked: float | None = None


class Caller(msgspec.Struct, frozen=True, gc=False):
    """A consumer as one request shows it: through which key."""

    consumer: Consumer
    key: ConsumerKey

"""What a consumer key looks like: made, told from a typo, and turned into the digest that is all we keep.

    sk-aigw-<id>-<secret><checksum>      sk-aigw-4k0zq8d1xm-h2V…(38 characters)

`id` (10 of 0-9a-z) is public: lists, records and revocations name the key by it. `secret` is 32 characters of base62 from
the system's random source: 190.5 bits, so a plain SHA-256 of the whole key is enough to store. `checksum` is the CRC-32 of
all before it in 6 characters of base62: it tells a mistyped key from an unknown one without asking any store, and leak
scanners can reject look-alikes.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import zlib

from aigw.consumer import KEY_PREFIX, ConsumerKey

PREFIX = KEY_PREFIX
BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
ID_LENGTH = 10  # 36**10: that two of 100,000 keys share one is a matter of 1 in 700,000
SECRET_LENGTH = 32  # log2(62) * 32 = 190.5 bits
CHECKSUM_LENGTH = 6  # 62**6 > 2**32

PATTERN = rf"sk-aigw-[0-9a-z]{{{ID_LENGTH}}}-[0-9A-Za-z]{{{SECRET_LENGTH + CHECKSUM_LENGTH}}}"
"""The regular expression for leak scanners: every key of ours, and nothing of another length."""

_SHAPE = re.compile(PATTERN)


def new_id() -> str:
    """A public identifier (of a key, of a consumer): 10 random characters of 0-9a-z."""
    return "".join(secrets.choice(BASE62[:10] + BASE62[36:]) for _ in range(ID_LENGTH))


def mint(consumer_id: str, *, now: float, expires: float | None = None) -> tuple[str, ConsumerKey]:
    """A new key of a consumer, and what is stored of it. The first is shown once and kept nowhere.

    `now` and `expires` are seconds since the epoch.
    """
    key_id = new_id()
    start = f"{PREFIX}{key_id}-" + "".join(secrets.choice(BASE62) for _ in range(SECRET_LENGTH))
    key = start + checksum(start)
    stored = ConsumerKey(
        id=key_id,
        consumer_id=consumer_id,
        digest=digest(key),
        hint=f"{PREFIX}{key_id}",
        created=now,
        expires=expires,
    )
    return key, stored


def taken(key: str, consumer_id: str, *, now: float, expires: float | None = None) -> tuple[str, ConsumerKey]:
    """A *key* that people have already, of whatever shape, and what is stored of it."""
    stored = ConsumerKey(
        id=id_in(key) if looks_valid(key) else new_id(),
        consumer_id=consumer_id,
        digest=digest(key),
        hint=f"{key[:4]}...",
        created=now,
        expires=expires,
    )
    return key, stored


def digest(key: str) -> bytes:
    """SHA-256 of the whole key: how a key is found, and all that is kept of it."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def checksum(start: str) -> str:
    """The last 6 characters that belong to the rest of a key."""
    value = zlib.crc32(start.encode("utf-8", "surrogateescape"))
    characters = []
    for _ in range(CHECKSUM_LENGTH):
        value, at = divmod(value, 62)
        characters.append(BASE62[at])
    return "".join(reversed(characters))


def looks_valid(key: str) -> bool:
    """Whether this can be a key of a gateway like ours: right shape, right checksum. Says nothing about it being known."""
    return _SHAPE.fullmatch(key) is not None and checksum(key[:-CHECKSUM_LENGTH]) == key[-CHECKSUM_LENGTH:]


def id_in(text: str) -> str:
    """The id in a key, in its hint (`sk-aigw-<id>`), or the text itself when it is neither."""
    return text.removeprefix(PREFIX).partition("-")[0] if text.startswith(PREFIX) else text

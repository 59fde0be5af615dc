"""RS256: the signature by which a service account proves itself to Google (a JWT), and a request to OCI.

Written with Python's integers, since neither the standard library nor any of our dependencies signs with RSA, and one such
library is larger than all of aigw. Used once an hour, for a message that is ours. Weakness, stated: big-integer arithmetic
takes a time that depends on the key. The message is blinded with a random factor, so that who could measure it, over the
network and once an hour, would measure something else each time.

(Facts: RFC 8017 for PKCS #1 v1.5, RFC 5958 and 8017 A.1.2 for the key's form, RFC 7515 for the JWT.)
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import secrets
from collections.abc import Mapping
from typing import Any, NamedTuple

_SHA256 = bytes.fromhex("3031300d060960864801650304020105000420")  # DigestInfo of SHA-256, before the hash
_RSA = bytes.fromhex("06092a864886f70d010101")  # the object identifier rsaEncryption
_INTEGER, _OCTETS, _SEQUENCE = 0x02, 0x04, 0x30
_SMALLEST = 2048  # bits


class RsaKey(NamedTuple):
    """A private key, by the names of RFC 8017."""

    n: int
    e: int
    d: int
    p: int
    q: int
    dp: int
    dq: int
    qinv: int

    def __repr__(self) -> str:
        return f"RsaKey({self.n.bit_length()} bits)"


def read_key(pem: str) -> RsaKey:
    """The key in *pem*: "PRIVATE KEY" (PKCS #8) or "RSA PRIVATE KEY" (PKCS #1), not encrypted. Raises ValueError without
    repeating any of it."""
    lines = [line.strip() for line in pem.strip().splitlines()]
    if len(lines) < 3 or not lines[0].startswith("-----BEGIN ") or not lines[-1].startswith("-----END "):
        raise ValueError("expected a private key in PEM form (-----BEGIN PRIVATE KEY-----)")
    kind = lines[0].removeprefix("-----BEGIN ").rstrip("-")
    if kind not in ("PRIVATE KEY", "RSA PRIVATE KEY"):
        raise ValueError("expected a private key that is neither encrypted nor of another kind")
    try:
        der = base64.b64decode("".join(lines[1:-1]), validate=True)
        fields = _sequence(der)
        if kind == "PRIVATE KEY":
            if _RSA not in fields[1][1]:
                raise ValueError("not RSA")
            fields = _sequence(_value(fields[2], _OCTETS))
        numbers = [int.from_bytes(_value(field, _INTEGER), "big") for field in fields[:9]]
        _, *parts = numbers
        key = RsaKey(*parts)
    except (binascii.Error, IndexError, TypeError, ValueError):
        raise ValueError("expected an RSA private key; this one cannot be read") from None
    if key.n.bit_length() < _SMALLEST or key.p * key.q != key.n:
        raise ValueError("expected an RSA private key of 2048 bits or more; this one is broken or too short")
    return key


def sign(key: RsaKey, message: bytes) -> bytes:
    """The signature of *message* (RSASSA-PKCS1-v1_5 with SHA-256)."""
    size = (key.n.bit_length() + 7) // 8
    digest = _SHA256 + hashlib.sha256(message).digest()
    padded = int.from_bytes(b"\x00\x01" + b"\xff" * (size - len(digest) - 3) + b"\x00" + digest, "big")
    factor = secrets.randbelow(key.n - 2) + 2
    blind = padded * pow(factor, key.e, key.n) % key.n
    first, second = pow(blind, key.dp, key.p), pow(blind, key.dq, key.q)
    blinded = second + (first - second) * key.qinv % key.p * key.q
    signature = blinded * pow(factor, -1, key.n) % key.n
    if pow(signature, key.e, key.n) != padded:  # a fault in one half would give the key away
        raise ValueError("the signature is wrong: the private key is broken")
    return signature.to_bytes(size, "big")


def jwt(key: RsaKey, claims: Mapping[str, Any], key_id: str = "") -> str:
    """A signed token that says *claims*."""
    header = {"alg": "RS256", "typ": "JWT"} | ({"kid": key_id} if key_id else {})
    said = b".".join(_part(json.dumps(part, separators=(",", ":")).encode()) for part in (header, dict(claims)))
    return (said + b"." + _part(sign(key, said))).decode()


def _part(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _sequence(der: bytes) -> list[tuple[int, bytes]]:
    """Kind and value of each member of the DER sequence *der*."""
    kind, value, rest = _read(der)
    if kind != _SEQUENCE or rest:
        raise ValueError("not a sequence")
    members = []
    while value:
        kind, member, value = _read(value)
        members.append((kind, member))
    return members


def _value(member: tuple[int, bytes], kind: int) -> bytes:
    if member[0] != kind:
        raise ValueError("something else")
    return member[1]


def _read(der: bytes) -> tuple[int, bytes, bytes]:
    """The first element's kind and value, and what follows it."""
    kind, size, at = der[0], der[1], 2
    if size & 0x80:
        count = size & 0x7F
        size = int.from_bytes(der[at : at + count], "big")
        at += count
    if at + size > len(der):
        raise ValueError("cut off")
    return kind, der[at : at + size], der[at + size :]

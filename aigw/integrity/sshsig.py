"""Signatures as `ssh-keygen -Y sign` makes them (OpenSSH's PROTOCOL.sshsig), with Ed25519 keys, and who may sign what.

So what we sign can be checked without us, by a program that every machine has:

    ssh-keygen -Y verify -f allowed_signers -I release@aigw -n aigw-release -s FILE.sig < FILE
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple

from aigw.integrity import ed25519

MAGIC = b"SSHSIG"
KIND = b"ssh-ed25519"

LARGEST = 16 * 1024
"""Bytes of a signature file; one of Ed25519 has about 300."""

_ARMOUR = re.compile(rb"\s*-----BEGIN SSH SIGNATURE-----\s(.*?)-----END SSH SIGNATURE-----\s*", re.DOTALL)
_HASHES = {b"sha256": hashlib.sha256, b"sha512": hashlib.sha512}
_OPTION = re.compile(r'([a-z-]+)(?:="([^"]*)")?(?:,|\s|\Z)')


class SignatureError(Exception):
    """A signature that proves nothing. The message says why."""


class Signer(NamedTuple):
    """Who may sign. `namespaces` are those it may sign for (none: all); times are seconds since the epoch."""

    name: str
    key: bytes
    namespaces: tuple[str, ...] = ()
    after: float = 0.0
    before: float = float("inf")

    @property
    def fingerprint(self) -> str:
        """As `ssh-keygen -l` shows it."""
        blob = _string(KIND) + _string(self.key)
        return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).rstrip(b"=").decode()


def read_signers(text: str) -> tuple[Signer, ...]:
    """The Ed25519 keys of an `allowed_signers` file (ssh-keygen(1)); others are passed over. Raises ValueError with the line
    for what cannot be read: a file that is only half understood must not be believed."""
    found = []
    for number, line in enumerate(map(str.strip, text.splitlines()), 1):
        if not line or line.startswith("#"):
            continue
        try:
            signer = _signer(line)
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
        if signer is not None:
            found.append(signer)
    return tuple(found)


def _signer(line: str) -> Signer | None:
    name, _, rest = line.partition(" ")
    options: dict[str, str] = {}
    while rest and not rest.startswith(("ssh-", "sk-ssh-", "ecdsa-", "sk-ecdsa-", "rsa-")):
        match = _OPTION.match(rest)
        if match is None:
            raise ValueError("expected: name [options] ssh-ed25519 KEY")
        options[match[1]] = match[2] or ""
        rest = rest[match.end() :].lstrip()
    if set(options) - {"namespaces", "valid-after", "valid-before"}:
        raise ValueError(f"the option {min(set(options) - {'namespaces', 'valid-after', 'valid-before'})!r} is not known")
    kind, _, rest = rest.partition(" ")
    if not kind:
        raise ValueError("expected: name [options] ssh-ed25519 KEY")
    if kind.encode() != KIND:
        return None
    key = _key(base64.b64decode(rest.split()[0] if rest.split() else "", validate=True))
    return Signer(
        name,
        key,
        tuple(part for part in options.get("namespaces", "").split(",") if part),
        _moment(options["valid-after"]) if "valid-after" in options else 0.0,
        _moment(options["valid-before"]) if "valid-before" in options else float("inf"),
    )


def _moment(text: str) -> float:
    """YYYYMMDD[HHMM[SS]], with Z for UTC; without it the machine's own zone, as OpenSSH has it."""
    digits = text.removesuffix("Z")
    form = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}.get(len(digits))
    if form is None or not digits.isdigit():
        raise ValueError(f"{text!r} is no time; expected YYYYMMDD or YYYYMMDDHHMM[SS], with Z for UTC")
    moment = datetime.strptime(digits, form)  # noqa: DTZ007 - the zone follows
    return (moment.replace(tzinfo=UTC) if text.endswith("Z") else moment.astimezone()).timestamp()


def verify(message: bytes, signature: bytes, signers: tuple[Signer, ...], namespace: str, now: float) -> Signer:
    """Who of *signers* signed *message* for *namespace*, and was allowed to at *now* (seconds since the epoch). Raises
    SignatureError."""
    key, made = _parts(message, signature, namespace.encode())
    known = [signer for signer in signers if signer.key == key]
    if not known:
        raise SignatureError("it was signed with a key that is not trusted here")
    if not ed25519.verified(key, *made):
        raise SignatureError("the signature does not belong to this content")
    for signer in known:
        if signer.namespaces and namespace not in signer.namespaces:
            continue
        if signer.after <= now < signer.before:
            return signer
    raise SignatureError("the key that signed it may not sign this, or not at this time")


def _parts(message: bytes, signature: bytes, namespace: bytes) -> tuple[bytes, tuple[bytes, bytes]]:
    """The public key that is said to have signed, the bytes it signed, and the signature."""
    if len(signature) > LARGEST:
        raise SignatureError("this is no signature: it is too large")
    armoured = _ARMOUR.fullmatch(signature)
    if armoured is None:
        raise SignatureError("this is no SSH signature")
    try:
        blob = base64.b64decode(b"".join(armoured[1].split()), validate=True)
        if blob[:6] != MAGIC or blob[6:10] != b"\0\0\0\1":
            raise ValueError
        public, said, reserved, hashed, inner = _strings(blob[10:], 5)
        key = _key(public)
        kind, signed = _strings(inner, 2)
        if kind != KIND or len(signed) != 64:
            raise ValueError
    except (ValueError, binascii.Error):
        raise SignatureError("this SSH signature cannot be read, or is not one of Ed25519") from None
    if said != namespace:
        raise SignatureError(f"it was made for another purpose ({said[:40].decode('ascii', 'replace')!r})")
    digest = _HASHES.get(hashed)
    if digest is None:
        raise SignatureError("it uses a hash that is not known here")
    inside = MAGIC + _string(namespace) + _string(reserved) + _string(hashed) + _string(digest(message).digest())
    return key, (inside, signed)


def _key(blob: bytes) -> bytes:
    kind, key = _strings(blob, 2)
    if kind != KIND or len(key) != 32:
        raise ValueError("no Ed25519 key")
    return key


def _strings(data: bytes, number: int) -> Iterator[bytes]:
    """So many strings with their lengths in front, and nothing behind them. Raises ValueError."""
    found, at = [], 0
    for _ in range(number):
        if len(data) < at + 4:
            raise ValueError("cut off")
        size = int.from_bytes(data[at : at + 4], "big")
        at += 4
        if len(data) < at + size:
            raise ValueError("cut off")
        found.append(data[at : at + size])
        at += size
    if at != len(data):
        raise ValueError("too long")
    return iter(found)


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data

"""JSON web tokens of somebody else's login as credentials: signed RS256 or ES256 by a key of a JWKS, and nothing else.

Checked by the standard library alone: RSA is one `pow`, ECDSA over P-256 is below (about 5 ms, once for each token: callers are
remembered until their token ends). Only public numbers go through this arithmetic, so its timing tells nothing. The algorithm
is the key's, never what the token says of itself: `none` and HS256 are refused, as is a token with `crit`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from aigw.consumer import Caller, Consumer, ConsumerKey
from aigw.errors import PolicyError

LEEWAY = 60.0
"""Seconds that the clock of who signs may differ from ours."""

LONGEST = 16_384
"""Bytes of a token; a header of the data port is no longer either."""

MOST_KEYS = 100
"""Keys of one JWKS; the large login services publish 2 to 10."""

REMEMBERED = 10_000
"""Tokens whose callers are remembered, about 1 KB each."""

_RSA_BITS = range(2048, 8193)  # RFC 7518 3.3 wants 2,048 at least; much longer ones only cost time
_RS256 = bytes.fromhex("3031300d060960864801650304020105000420")  # DigestInfo of SHA-256, RFC 8017 9.2

# The curve P-256: FIPS 186-5, SP 800-186 3.2.1.3.
_P = 0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF
_N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
_G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)

_Point = tuple[int, int, int]  # Jacobian: (x / z^2, y / z^3); z 0 is the point at infinity


class UnknownKeyError(PolicyError):
    """Signed with a key that the JWKS does not have (any more, or yet): worth reading it again."""


class SigningKey(NamedTuple):
    """A public key of a JWKS: `numbers` are (n, e) for RS256, (x, y) for ES256."""

    id: str
    alg: str
    numbers: tuple[int, int]


def looks_like(credential: str) -> bool:
    """Whether *credential* may be a token: three parts, the first a JSON object in base64."""
    return credential.startswith("eyJ") and credential.count(".") == 2


def read_keys(jwks: bytes) -> tuple[SigningKey, ...]:
    """The keys of a JWKS that can sign RS256 or ES256; others in it are passed over. Raises ValueError when there is none."""
    try:
        entries = msgspec.json.decode(jwks, type=dict[str, Any])["keys"]
        found = [key for entry in entries[:MOST_KEYS] if isinstance(entry, dict) and (key := _key(entry)) is not None]
    except (msgspec.DecodeError, KeyError, TypeError, RecursionError):
        raise ValueError('expected a JWKS: a JSON object with a list "keys"') from None
    if not found:
        raise ValueError("none of its keys can be used; expected RSA of 2,048 bits or more, or EC with P-256, for signatures")
    return tuple(found)


def _key(entry: Mapping[str, Any]) -> SigningKey | None:
    alg = {"RSA": "RS256", "EC": "ES256"}.get(str(entry.get("kty")))
    if alg is None or entry.get("use", "sig") != "sig" or entry.get("alg", alg) != alg:
        return None
    try:
        first, second = (int.from_bytes(_decoded(entry[name]), "big") for name in ("ne" if alg == "RS256" else "xy"))
    except (KeyError, ValueError, TypeError):
        return None
    if alg == "RS256":
        good = first.bit_length() in _RSA_BITS and first % 2 == 1 and 3 <= second < 2**32 and second % 2 == 1
    else:
        good = entry.get("crv") == "P-256" and _is_on_curve(first, second)
    return SigningKey(str(entry.get("kid", "")), alg, (first, second)) if good else None


class Tokens:
    """Who may call with a token: those whose tokens one issuer signed for us."""

    def __init__(
        self,
        keys: Sequence[SigningKey],
        *,
        issuer: str,
        audience: str,
        consumer_claim: str = "sub",
        group_claim: str = "",
        groups: Collection[str] = (),
        leeway: float = LEEWAY,
    ) -> None:
        """*consumer_claim* names the claim that is the consumer's name, *group_claim* that of its group (a text, or a list of
        which the first that is among *groups* counts). A group that is not among *groups* is none of ours and refused."""
        self.issuer, self.audience = issuer, audience
        self._consumer_claim, self._group_claim, self._groups = consumer_claim, group_claim, groups
        self._leeway = leeway
        self._keys = tuple(keys)
        self._callers: dict[bytes, Caller] = {}

    @property
    def known(self) -> bool:
        """Whether there is any key to check a signature with."""
        return bool(self._keys)

    @property
    def keys(self) -> tuple[SigningKey, ...]:
        return self._keys

    def replace(self, keys: Sequence[SigningKey]) -> None:
        """Believe *keys* from now on. Whoever came with a token of another is asked to prove it again."""
        if tuple(keys) != self._keys:
            self._keys = tuple(keys)
            self._callers.clear()

    def caller(self, token: str, now: float) -> Caller:
        """Who calls with *token* at *now* (seconds since the epoch). Raises PolicyError: `policy_key_invalid`,
        `policy_key_expired`, `policy_forbidden`; UnknownKeyError when the JWKS may be out of date."""
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        known = self._callers.get(digest)
        if known is None:
            known = self._caller(self._claims(token), digest)
            if len(self._callers) >= REMEMBERED:
                self._callers.clear()
            self._callers[digest] = known
        ends = known.key.expires
        if ends is not None and ends <= now:
            self._callers.pop(digest, None)
            day = datetime.fromtimestamp(ends - self._leeway, UTC).strftime("%Y-%m-%d %H:%M UTC")
            raise PolicyError("policy_key_expired", f"this token ended at {day}; sign in again")
        if known.key.created > now + self._leeway:
            raise PolicyError("policy_key_invalid", "this token is not valid yet; is a clock wrong?")
        return known

    def _claims(self, token: str) -> dict[str, Any]:
        if len(token) > LONGEST:
            raise _invalid("it is too long")
        if not token.isascii():
            raise _invalid("it is not ASCII")
        signed, _, written = token.rpartition(".")
        head, _, body = signed.partition(".")
        try:
            header = msgspec.json.decode(_decoded(head), type=dict[str, Any])
            signature = _decoded(written)
        except (ValueError, TypeError, RecursionError):  # msgspec's errors are ValueErrors
            raise _invalid("its first or last part cannot be read") from None
        alg, key_id = header.get("alg"), header.get("kid")
        if alg not in ("RS256", "ES256"):
            raise _invalid("expected RS256 or ES256 as its alg")
        if "crit" in header:
            raise _invalid("it has critical extensions, of which none is known here")
        keys = [key for key in self._keys if key.alg == alg and key_id in (None, key.id)]
        if not keys:
            raise UnknownKeyError("policy_key_invalid", "this token is not valid: none of the known keys has signed it")
        if not any(_verified(key, signed.encode("ascii"), signature) for key in keys):
            raise _invalid("its signature is wrong")
        try:
            return msgspec.json.decode(_decoded(body), type=dict[str, Any])
        except (ValueError, TypeError, RecursionError):
            raise _invalid("its claims cannot be read") from None

    def _caller(self, claims: Mapping[str, Any], digest: bytes) -> Caller:
        if claims.get("iss") != self.issuer:
            raise _invalid("it is from another issuer")
        audience = claims.get("aud")
        if self.audience not in (audience if isinstance(audience, list) else [audience]):
            raise _invalid("it is for another audience")
        ends, begins = _moment(claims, "exp"), _moment(claims, "nbf")
        if ends is None:
            raise _invalid("it has no end (exp)")
        name = claims.get(self._consumer_claim)
        if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= 128:
            raise _invalid(f"its claim {self._consumer_claim!r} is no name of at most 128 characters")
        consumer = Consumer(id=f"jwt:{name}", name=name, group=self._group(claims))
        key = ConsumerKey(
            id=f"jwt:{name}", consumer_id=consumer.id, digest=digest, created=begins or 0.0, expires=ends + self._leeway
        )
        return Caller(consumer, key)

    def _group(self, claims: Mapping[str, Any]) -> str:
        if not self._group_claim:
            return ""
        said = claims.get(self._group_claim)
        for name in said if isinstance(said, list) else [said]:
            if isinstance(name, str) and name in self._groups:
                return name
        raise PolicyError("policy_forbidden", f"this token's claim {self._group_claim!r} names no group that may call here")


def _invalid(why: str) -> PolicyError:
    return PolicyError("policy_key_invalid", f"this token is not valid: {why}")


def _moment(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 2**40:
        raise _invalid(f"its claim {name!r} is no moment")
    return float(value)


def _decoded(text: Any) -> bytes:
    """base64url without padding, RFC 7515 2; anything else in it raises ValueError."""
    if not isinstance(text, str) or not text.isascii() or any(one in text for one in "+/= \r\n"):
        raise ValueError("no base64url")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError("no base64url") from error


def _verified(key: SigningKey, signed: bytes, signature: bytes) -> bool:
    digest = hashlib.sha256(signed).digest()
    return (_verified_rsa if key.alg == "RS256" else _verified_p256)(key.numbers, digest, signature)


def _verified_rsa(numbers: tuple[int, int], digest: bytes, signature: bytes) -> bool:
    """RSASSA-PKCS1-v1_5, RFC 8017 8.2.2: the whole padded block is made and compared, so nothing of it is parsed."""
    n, e = numbers
    size = (n.bit_length() + 7) // 8
    value = int.from_bytes(signature, "big")
    if len(signature) != size or value >= n:
        return False
    expected = b"\x00\x01" + b"\xff" * (size - len(_RS256) - len(digest) - 3) + b"\x00" + _RS256 + digest
    return pow(value, e, n).to_bytes(size, "big") == expected


def _verified_p256(numbers: tuple[int, int], digest: bytes, signature: bytes) -> bool:
    """ECDSA, FIPS 186-5 6.4.2; the signature is r and s in 32 bytes each (RFC 7518 3.4)."""
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    if len(signature) != 64 or not (0 < r < _N and 0 < s < _N):
        return False
    inverse = pow(s, -1, _N)
    x, _, z = _sum_of(int.from_bytes(digest, "big") * inverse % _N, _G, r * inverse % _N, numbers)
    return z != 0 and x * pow(z, -2, _P) % _P % _N == r


def _is_on_curve(x: int, y: int) -> bool:
    return x < _P and y < _P and (y * y - (x * x - 3) * x - _B) % _P == 0


def _sum_of(u: int, first: tuple[int, int], v: int, second: tuple[int, int]) -> _Point:
    """u * first + v * second, both at once (Shamir's trick)."""
    one, other = (*first, 1), (*second, 1)
    by_bits: Mapping[tuple[int, int], _Point] = {(1, 0): one, (0, 1): other, (1, 1): _added(one, other)}
    total: _Point = (1, 1, 0)
    for bit in range(max(u.bit_length(), v.bit_length()) - 1, -1, -1):
        total = _doubled(total)
        step = by_bits.get((u >> bit & 1, v >> bit & 1))
        if step is not None:
            total = _added(total, step)
    return total


def _doubled(point: _Point) -> _Point:
    """dbl-2001-b of the Explicit-Formulas Database (a = -3)."""
    x, y, z = point
    delta, gamma = z * z % _P, y * y % _P
    beta, alpha = x * gamma % _P, 3 * (x - delta) * (x + delta) % _P
    wide = (alpha * alpha - 8 * beta) % _P
    return wide, (alpha * (4 * beta - wide) - 8 * gamma * gamma) % _P, ((y + z) ** 2 - gamma - delta) % _P


def _added(one: _Point, other: _Point) -> _Point:
    """add-2007-bl of the same, with the cases that it leaves out."""
    if not one[2]:
        return other
    if not other[2]:
        return one
    (x1, y1, z1), (x2, y2, z2) = one, other
    zz1, zz2 = z1 * z1 % _P, z2 * z2 % _P
    u1, u2 = x1 * zz2 % _P, x2 * zz1 % _P
    s1, s2 = y1 * z2 * zz2 % _P, y2 * z1 * zz1 % _P
    h, r = (u2 - u1) % _P, 2 * (s2 - s1) % _P
    if not h:
        return (1, 1, 0) if r else _doubled(one)
    i = 4 * h * h % _P
    j, v = h * i % _P, u1 * i % _P
    x3 = (r * r - j - 2 * v) % _P
    return x3, (r * (v - x3) - 2 * s1 * j) % _P, ((z1 + z2) ** 2 - zz1 - zz2) * h % _P

"""Ed25519 signatures, checked with the standard library alone (RFC 8032, section 5.1.7): about 3 ms each.

Only public numbers go through this arithmetic, so its timing tells nothing. It is strict where implementations differ: a point
must be written in the one canonical way, the scalar must be smaller than the group's order, and a public key of small order
(for which some signature fits any message) is none.
"""

from __future__ import annotations

import hashlib

_P = 2**255 - 19
_L = 2**252 + 27742317777372353535851937790883648493  # the order of the base point
_D = -121665 * pow(121666, -1, _P) % _P
_ROOT = pow(2, (_P - 1) // 4, _P)  # a square root of -1

_Point = tuple[int, int, int, int]  # extended: x = X / Z, y = Y / Z, x * y = T / Z

_ZERO: _Point = (0, 1, 1, 0)


def verified(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether *signature* (64 bytes) is the holder's of *public* (32 bytes) for *message*."""
    if len(public) != 32 or len(signature) != 64:
        return False
    key, first = _decoded(public), _decoded(signature[:32])
    scalar = int.from_bytes(signature[32:], "little")
    if key is None or first is None or scalar >= _L or _is_zero(_times(8, key)):
        return False
    challenge = int.from_bytes(hashlib.sha512(signature[:32] + public + message).digest(), "little") % _L
    x, y, z, t = key
    found = _added(_times(scalar, _BASE), _times(challenge, (_P - x, y, z, _P - t)))
    return _same(found, first)


def _decoded(data: bytes) -> _Point | None:
    """A point from its 32 bytes (5.1.3); None where there is none, or it is not written canonically."""
    number = int.from_bytes(data, "little")
    y, sign = number & (2**255 - 1), number >> 255
    if y >= _P:
        return None
    square = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if (x * x - square) % _P:
        x = x * _ROOT % _P
    if (x * x - square) % _P or (not x and sign):
        return None
    if x & 1 != sign:
        x = _P - x
    return x, y, 1, x * y % _P


def _added(one: _Point, other: _Point) -> _Point:
    """5.1.4; it holds for all pairs of points."""
    a = (one[1] - one[0]) * (other[1] - other[0]) % _P
    b = (one[1] + one[0]) * (other[1] + other[0]) % _P
    c = 2 * one[3] * other[3] * _D % _P
    d = 2 * one[2] * other[2] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _doubled(point: _Point) -> _Point:
    x, y, z, _ = point
    a, b = x * x % _P, y * y % _P
    h = a + b
    e, g = h - (x + y) * (x + y), a - b
    f = 2 * z * z + g
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _times(scalar: int, point: _Point) -> _Point:
    total = _ZERO
    for bit in range(scalar.bit_length() - 1, -1, -1):
        total = _doubled(total)
        if scalar >> bit & 1:
            total = _added(total, point)
    return total


def _same(one: _Point, other: _Point) -> bool:
    return (one[0] * other[2] - other[0] * one[2]) % _P == 0 and (one[1] * other[2] - other[1] * one[2]) % _P == 0


def _is_zero(point: _Point) -> bool:
    return _same(point, _ZERO)


def _base() -> _Point:
    point = _decoded((4 * pow(5, -1, _P) % _P).to_bytes(32, "little"))
    assert point is not None
    return point


_BASE = _base()

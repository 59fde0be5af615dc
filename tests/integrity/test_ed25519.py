"""Ed25519 against RFC 8032's vectors, against OpenSSL, and against signatures that only sloppy checks take."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from aigw.integrity import ed25519
from aigw.integrity.ed25519 import verified

# RFC 8032, section 7.1: public key, message, signature.
VECTORS = [
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
]
ORDER = 2**252 + 27742317777372353535851937790883648493


@pytest.mark.parametrize(("public", "message", "signature"), VECTORS)
def test_the_standards_own(public: str, message: str, signature: str) -> None:
    key, said, made = bytes.fromhex(public), bytes.fromhex(message), bytes.fromhex(signature)
    assert verified(key, said, made)
    assert not verified(key, said + b"x", made)
    for at in (0, 31, 32, 63):
        changed = bytearray(made)
        changed[at] ^= 1
        assert not verified(key, said, bytes(changed))
    other = bytearray(key)
    other[0] ^= 1
    assert not verified(bytes(other), said, made)


def test_a_scalar_has_one_form() -> None:
    """s and s + L give the same point: who takes both takes two signatures for one."""
    key, _, made = (bytes.fromhex(part) for part in VECTORS[1])
    larger = int.from_bytes(made[32:], "little") + ORDER
    assert larger < 2**256
    assert not verified(key, b"\x72", made[:32] + larger.to_bytes(32, "little"))


@pytest.mark.parametrize(
    "public",
    [
        (1).to_bytes(32, "little"),  # the neutral point
        (0).to_bytes(32, "little"),  # of order 4
        (2**255 - 20).to_bytes(32, "little"),  # of order 2
        (2**255 - 19).to_bytes(32, "little"),  # 0, not canonical
        (2**255 - 18).to_bytes(32, "little"),  # 1, not canonical
        ((1 << 255) | 1).to_bytes(32, "little"),  # x = 0 with a sign
        b"\xff" * 32,
        b"",
        b"\0" * 31,
    ],
)
def test_keys_that_are_none(public: bytes) -> None:
    """For a point of small order a signature of zeros fits many messages."""
    for message in (b"", b"a", b"b", b"c"):
        assert not verified(public, message, (1).to_bytes(32, "little") + b"\0" * 32)
        assert not verified(public, message, b"\0" * 64)
    assert not verified(bytes.fromhex(VECTORS[0][0]), b"", b"\0" * 63)


def test_what_openssl_signs(tmp_path: Path) -> None:
    key, public, text = tmp_path / "key.pem", tmp_path / "public.der", tmp_path / "text"
    run = ["openssl"]
    subprocess.run([*run, "genpkey", "-algorithm", "ed25519", "-out", str(key)], check=True, timeout=30)
    subprocess.run([*run, "pkey", "-in", str(key), "-pubout", "-outform", "DER", "-out", str(public)], check=True, timeout=30)
    for message in (b"x", b"hello" * 1000):
        text.write_bytes(message)
        made = subprocess.run(
            [*run, "pkeyutl", "-sign", "-inkey", str(key), "-rawin", "-in", str(text)],
            check=True,
            timeout=30,
            capture_output=True,
        ).stdout
        assert verified(public.read_bytes()[-32:], message, made)
        assert not verified(public.read_bytes()[-32:], message + b"!", made)


def test_arithmetic() -> None:
    """The group's order times the base point is nothing; adding and doubling agree."""
    base = ed25519._BASE
    assert ed25519._is_zero(ed25519._times(ORDER, base))
    assert ed25519._same(ed25519._added(base, base), ed25519._doubled(base))
    assert ed25519._same(ed25519._times(5, base), ed25519._added(ed25519._times(2, base), ed25519._times(3, base)))

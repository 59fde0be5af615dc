"""Signatures of stock ssh-keygen, and everything that is none."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest

from aigw.integrity.sshsig import LARGEST, SignatureError, Signer, read_signers, verify
from tests.signing import Key, signers

NOW = 1_795_000_000.0  # November 2026


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> list[Key]:
    folder = tmp_path_factory.mktemp("keys")
    return [Key(folder, "active"), Key(folder, "standby")]


def why(message: bytes, signature: bytes, known: tuple[Signer, ...], namespace: str = "aigw-release", now: float = NOW) -> str:
    with pytest.raises(SignatureError) as caught:
        verify(message, signature, known, namespace, now)
    return str(caught.value)


def test_stock_signatures(keys: list[Key]) -> None:
    """Of either key, for anything; the fingerprint is ssh-keygen's."""
    known = signers(*keys)
    for key, signer in zip(keys, known, strict=True):
        for message in (b"", b"sums\n", b"\0" * 100_000):
            assert verify(message, key.sign(message), known, "aigw-release", NOW) == signer
        said = subprocess.run(
            ["ssh-keygen", "-l", "-f", str(key.path)], capture_output=True, text=True, check=True, timeout=30
        ).stdout
        assert signer.fingerprint in said


def test_what_proves_nothing(keys: list[Key]) -> None:
    made = keys[0].sign(b"sums\n")
    known = signers(*keys)
    assert "does not belong to this content" in why(b"sums", made, known)
    assert "is not trusted here" in why(b"sums\n", made, signers(keys[1]))
    assert "is not trusted here" in why(b"sums\n", made, ())
    assert "for another purpose ('aigw-release')" in why(b"sums\n", made, known, "aigw-revocation")
    assert "no SSH signature" in why(b"sums\n", b"<html>not found</html>", known)
    assert "too large" in why(b"sums\n", b"x" * (LARGEST + 1), known)


def test_every_byte_counts(keys: list[Key]) -> None:
    """Cut or changed anywhere: refused, and never a crash."""
    message, known = b"sums\n", signers(keys[0])
    made = keys[0].sign(message)
    for at in range(0, len(made), 7):
        why(message, made[:at], known)
    blob = base64.b64decode(b"".join(made.splitlines()[1:-1]))
    for at in range(len(blob)):
        changed = bytearray(blob)
        changed[at] ^= 0x41
        text = base64.b64encode(bytes(changed))
        why(message, b"-----BEGIN SSH SIGNATURE-----\n" + text + b"\n-----END SSH SIGNATURE-----\n", known)


def test_when_and_for_what(keys: list[Key]) -> None:
    """Windows of validity and namespaces hold."""
    made = keys[0].sign(b"x")
    for options, good in (
        ('valid-after="20260101Z",valid-before="20270101Z"', True),
        ('valid-after="20270101Z"', False),
        ('valid-before="20260101000000Z"', False),
        ('namespaces="aigw-release,aigw-prices"', True),
        ('namespaces="aigw-prices"', False),
    ):
        known = signers(keys[0], options=options)
        if good:
            assert verify(b"x", made, known, "aigw-release", NOW).key == known[0].key
        else:
            assert "may not sign this, or not at this time" in why(b"x", made, known)


@pytest.mark.parametrize(
    "line",
    [
        "a",
        "a ssh-ed25519",
        "a ssh-ed25519 AAAA",
        "a cert-authority ssh-ed25519 AAAA",
        'a valid-after="soon" ssh-ed25519 AAAA',
        'a x="y',
    ],
)
def test_files_that_are_not_understood(line: str) -> None:
    with pytest.raises(ValueError, match="line 2"):
        read_signers(f"# ours\n{line}\n")


def test_other_kinds_of_keys_are_passed_over(tmp_path: Path, keys: list[Key]) -> None:
    other = Key(tmp_path, "ecdsa", "ecdsa")
    assert len(signers(other, keys[0])) == 1
    assert "not one of Ed25519" in why(b"x", other.sign(b"x"), signers(other, keys[0]))

"""RS256 as OpenSSL sees it: what we sign it verifies, the keys it writes we read."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path

import pytest

from aigw.providers import rs256


def openssl(*arguments: str | Path) -> bytes:
    return subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=60).stdout


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "key.pem"
    openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", path)
    return path


@pytest.mark.parametrize("traditional", [False, True], ids=["PKCS #8", "PKCS #1"])
def test_openssl_verifies_what_we_sign(pem: Path, tmp_path: Path, traditional: bool) -> None:
    text = openssl("rsa", "-in", pem, "-traditional").decode() if traditional else pem.read_text()
    key = rs256.read_key(text)
    message, signature, public = tmp_path / "m", tmp_path / "s", tmp_path / "p"
    public.write_bytes(openssl("rsa", "-in", pem, "-pubout"))
    message.write_bytes(b"to whom it may concern")
    signature.write_bytes(rs256.sign(key, message.read_bytes()))
    assert b"OK" in openssl("dgst", "-sha256", "-verify", public, "-signature", signature, message)


def test_the_same_message_has_one_signature(pem: Path) -> None:
    """The blinding cancels out."""
    key = rs256.read_key(pem.read_text())
    assert rs256.sign(key, b"m") == rs256.sign(key, b"m") != rs256.sign(key, b"n")


def test_a_token(pem: Path) -> None:
    """Header, claims and signature, in base64 without padding."""
    key = rs256.read_key(pem.read_text())
    header, claims, signature = rs256.jwt(key, {"iss": "me", "exp": 1}, "k1").split(".")

    def decoded(part: str) -> bytes:
        return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))

    assert json.loads(decoded(header)) == {"alg": "RS256", "typ": "JWT", "kid": "k1"}
    assert json.loads(decoded(claims)) == {"iss": "me", "exp": 1}
    assert decoded(signature) == rs256.sign(key, f"{header}.{claims}".encode())


def test_a_broken_key_signs_nothing(pem: Path) -> None:
    """One wrong half would give the other away to who sees the signature."""
    key = rs256.read_key(pem.read_text())
    with pytest.raises(ValueError, match="broken"):
        rs256.sign(key._replace(dp=key.dp ^ 2), b"m")


def test_what_is_no_key(pem: Path, tmp_path: Path) -> None:
    """Each gets a sentence, and nothing of the key is in it."""
    text = pem.read_text()
    lines = text.splitlines()
    short = tmp_path / "short.pem"
    openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024", "-out", short)
    other = tmp_path / "ec.pem"
    openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", other)
    encrypted = openssl("pkcs8", "-topk8", "-in", pem, "-passout", "pass:x").decode()
    public = openssl("rsa", "-in", pem, "-pubout").decode()
    cut = "\n".join([lines[0], *lines[1:5], lines[-1]])
    for wrong in (
        "",
        "nonsense",
        cut,
        short.read_text(),
        other.read_text(),
        encrypted,
        public,
        text.replace(lines[3], "!" * 64),
    ):
        with pytest.raises(ValueError, match="expected") as caught:
            rs256.read_key(wrong)
        assert lines[2][:20] not in str(caught.value)
    assert str(rs256.read_key(text).d) not in repr(rs256.read_key(text))

"""aigw/access/jwt.py, with keys and signatures that openssl made."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from aigw.access.jwt import Tokens, UnknownKeyError, looks_like, read_keys
from aigw.errors import PolicyError

NOW = 1_800_000_000.0
CLAIMS = {"iss": "https://login.example", "aud": "aigw", "sub": "alice", "exp": NOW + 600, "groups": ["staff", "search"]}


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def openssl(*words: str, given: bytes = b"") -> bytes:
    return subprocess.run(["openssl", *words], input=given, capture_output=True, check=True, timeout=60).stdout


class Signer:
    """A key pair, its entry in a JWKS, and tokens signed with it."""

    def __init__(self, folder: Path, alg: str, key_id: str, bits: int = 2048) -> None:
        self.alg, self.id, self._file = alg, key_id, folder / f"{key_id}.pem"
        if alg == "RS256":
            self._file.write_bytes(openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", f"rsa_keygen_bits:{bits}"))
            modulus = openssl("rsa", "-in", str(self._file), "-noout", "-modulus").decode().strip().partition("=")[2]
            numbers = {"kty": "RSA", "n": b64(bytes.fromhex(modulus)), "e": "AQAB"}
        else:
            self._file.write_bytes(openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"))
            point = openssl("pkey", "-in", str(self._file), "-pubout", "-outform", "DER")[-64:]
            numbers = {"kty": "EC", "crv": "P-256", "x": b64(point[:32]), "y": b64(point[32:])}
        self.entry: dict[str, Any] = {**numbers, "kid": key_id, "use": "sig", "alg": alg}

    def token(self, claims: dict[str, Any] | None = None, **header: Any) -> str:
        head = {"alg": self.alg, "kid": self.id, "typ": "JWT"} | header
        signed = f"{b64(json.dumps(head).encode())}.{b64(json.dumps(CLAIMS if claims is None else claims).encode())}"
        made = openssl("dgst", "-sha256", "-sign", str(self._file), given=signed.encode())
        if self.alg == "ES256":  # DER -> r and s
            at, numbers = 2, []
            for _ in range(2):
                size = made[at + 1]
                numbers.append(int.from_bytes(made[at + 2 : at + 2 + size], "big").to_bytes(32, "big"))
                at += 2 + size
            made = b"".join(numbers)
        return f"{signed}.{b64(made)}"


@pytest.fixture(scope="module")
def signers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Signer]:
    folder = tmp_path_factory.mktemp("keys")
    return {alg: Signer(folder, alg, f"key-{alg}") for alg in ("RS256", "ES256")}


def jwks(*signers: Signer) -> bytes:
    return json.dumps({"keys": [signer.entry for signer in signers]}).encode()


def tokens(*signers: Signer, **more: Any) -> Tokens:
    return Tokens(read_keys(jwks(*signers)), issuer="https://login.example", audience="aigw", **more)


def refusal(known: Tokens, token: str, now: float = NOW) -> str:
    with pytest.raises(PolicyError) as caught:
        known.caller(token, now)
    return f"{caught.value.code}: {caught.value.message}"


@pytest.mark.parametrize("alg", ["RS256", "ES256"])
def test_signed(signers: dict[str, Signer], alg: str) -> None:
    """A token that openssl signed is somebody, many times over; claims say who, and of which group."""
    known = tokens(*signers.values(), group_claim="groups", groups={"search"})
    for number in range(8):
        caller = known.caller(signers[alg].token({**CLAIMS, "sub": f"a{number}"}), NOW)
        assert (caller.consumer.name, caller.consumer.group) == (f"a{number}", "search")
        assert caller.key.expires == NOW + 660
    assert looks_like(signers[alg].token())


@pytest.mark.parametrize("alg", ["RS256", "ES256"])
def test_one_changed_bit(signers: dict[str, Signer], alg: str) -> None:
    """Any other claims, or any other signature, and it is nobody."""
    known, token = tokens(*signers.values()), signers[alg].token()
    head, _, signature = token.split(".")
    other = b64(json.dumps({**CLAIMS, "sub": "root"}).encode())
    assert "signature is wrong" in refusal(known, f"{head}.{other}.{signature}")
    raw = base64.urlsafe_b64decode(signature + "==")
    for at in (0, len(raw) // 2, len(raw) - 1):
        bad = raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]
        assert "signature is wrong" in refusal(known, token.rpartition(".")[0] + "." + b64(bad))
    for bad in (b"", raw[:-1], raw + b"\0", bytes(len(raw)), b"\xff" * len(raw)):
        assert "signature is wrong" in refusal(known, token.rpartition(".")[0] + "." + b64(bad))


@pytest.mark.parametrize("alg", ["none", "None", "HS256", "RS512", "", None, 5])
def test_algorithms(signers: dict[str, Signer], alg: Any) -> None:
    """`none`, and whatever else could be checked with what everybody knows, is refused."""
    known = tokens(*signers.values())
    assert "expected RS256 or ES256" in refusal(known, signers["RS256"].token(alg=alg))
    assert "expected RS256 or ES256" in refusal(known, signers["RS256"].token(alg=alg).rpartition(".")[0] + ".")


def test_key_and_algorithm(signers: dict[str, Signer]) -> None:
    """A key is good for its own algorithm only, and the token does not choose another."""
    with pytest.raises(UnknownKeyError):
        tokens(*signers.values()).caller(signers["RS256"].token(alg="ES256"), NOW)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"iss": "https://evil.example"}, "another issuer"),
        ({"aud": "other"}, "another audience"),
        ({"aud": ["other", "more"]}, "another audience"),
        ({"aud": None}, "another audience"),
        ({"exp": None}, "no end"),
        ({"exp": "tomorrow"}, "no moment"),
        ({"exp": True}, "no moment"),
        ({"exp": 10**300}, "no moment"),
        ({"nbf": NOW + 61}, "not valid yet"),
        ({"exp": NOW - 60}, "policy_key_expired"),
        ({"sub": "a\nb"}, "no name"),
        ({"sub": "a" * 129}, "no name"),
        ({"sub": ["a"]}, "no name"),
    ],
)
def test_claims(signers: dict[str, Signer], changes: dict[str, Any], said: str) -> None:
    """What a token must say."""
    assert said in refusal(tokens(*signers.values()), signers["ES256"].token(CLAIMS | changes))


def test_leeway(signers: dict[str, Signer]) -> None:
    """A minute between two clocks is forgiven, both ways; a remembered token ends like another."""
    known, token = tokens(*signers.values()), signers["ES256"].token({**CLAIMS, "aud": ["x", "aigw"], "nbf": NOW})
    for moment in (NOW - 60, NOW, NOW + 659):
        assert known.caller(token, moment).consumer.id == "jwt:alice"
    assert "policy_key_expired" in refusal(known, token, NOW + 660)
    assert "policy_key_expired" in refusal(known, token, NOW + 661)


def test_groups(signers: dict[str, Signer]) -> None:
    """Somebody of none of our groups is refused, where groups count."""
    known = tokens(*signers.values(), group_claim="groups", groups={"build"})
    assert "policy_forbidden" in refusal(known, signers["ES256"].token())
    assert "policy_forbidden" in refusal(known, signers["ES256"].token({**CLAIMS, "groups": {"build": 1}}))


def test_rotation(signers: dict[str, Signer], tmp_path: Path) -> None:
    """A token of a key that is not known says so; once it is, it is good, and those of a withdrawn key are not."""
    old, new = signers["ES256"], Signer(tmp_path, "ES256", "new")
    known, before, after = tokens(old), old.token(), new.token()
    known.caller(before, NOW)
    with pytest.raises(UnknownKeyError):
        known.caller(after, NOW)
    known.replace(read_keys(jwks(new)))
    assert known.caller(after, NOW).consumer.name == "alice"
    with pytest.raises(UnknownKeyError):
        known.caller(before, NOW)


@pytest.mark.parametrize(
    "token", ["eyJ..", "a.b.c", "", "..", "eyJhbGciOiJSUzI1NiJ9.e30.ü", "eyJ" + "x" * 20_000 + "..", "eyJ\ud800.a.b", "=.=.="]
)
def test_garbage(signers: dict[str, Signer], token: str) -> None:
    """Garbage is refused as what it is."""
    assert "policy_key_invalid" in refusal(tokens(*signers.values()), token)


def test_letters_in_the_claims(signers: dict[str, Signer]) -> None:
    """Claims that are not even ASCII are refused before they are looked at."""
    head, _, signature = signers["ES256"].token().split(".")
    assert "not ASCII" in refusal(tokens(*signers.values()), f"{head}.ü.{signature}")


def test_critical(signers: dict[str, Signer]) -> None:
    """What must be understood and is not, is refused."""
    assert "critical" in refusal(tokens(*signers.values()), signers["ES256"].token(crit=["b64"]))


def test_keys_that_are_none(signers: dict[str, Signer], tmp_path: Path) -> None:
    """Shared secrets, short keys, points beside the curve and keys for encryption are passed over."""
    good = signers["ES256"].entry
    bad = [
        {"kty": "oct", "k": "c2VjcmV0", "kid": "a"},
        Signer(tmp_path, "RS256", "short", 1024).entry,
        {**good, "y": good["x"]},
        {**good, "crv": "P-384"},
        {**good, "use": "enc"},
        {**good, "alg": "RS256"},
        {**good, "x": 5},
        {"kty": "RSA"},
        "text",
    ]
    assert [key.id for key in read_keys(json.dumps({"keys": [*bad, good]}).encode())] == ["key-ES256"]
    for text in (json.dumps({"keys": bad}).encode(), b"{}", b"[]", b"", b'{"keys": 5}', b'{"keys": {}}'):
        with pytest.raises(ValueError, match=r"expected|none of its keys"):
            read_keys(text)

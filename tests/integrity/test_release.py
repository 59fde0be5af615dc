"""Who has to have signed what, and what a release says of itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from aigw.integrity import release
from aigw.integrity.sshsig import SignatureError, read_signers
from tests.signing import Key, signers

NOW = 1_795_000_000.0  # November 2026
CONTENT = b"sums\n"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> list[Key]:
    folder = tmp_path_factory.mktemp("keys")
    return [Key(folder, name) for name in ("active", "standby", "second")]


def refused(signatures: list[bytes], known: Any, namespace: str = release.RELEASE) -> str:
    with pytest.raises(SignatureError) as caught:
        release.check(CONTENT, signatures, known, namespace, NOW)
    return str(caught.value)


def test_either_key_of_one_name(keys: list[Key]) -> None:
    """A key and its successor are one signer: rotation needs no new trust."""
    known = signers(keys[0], keys[1])
    assert release.names(known, release.RELEASE) == ["release@aigw"]
    for key, signer in zip(keys[:2], known, strict=True):
        assert release.check(CONTENT, [key.sign(CONTENT)], known, release.RELEASE, NOW) == [signer]
    assert refused([keys[2].sign(CONTENT)], known) == "it was signed with a key that is not trusted here"
    assert refused([], known) == "there is no signature"
    assert refused([], ()) == "nobody is trusted to sign this: no key of the project's is in this aigw"


def test_two_names_are_two_people(keys: list[Key]) -> None:
    """Each has to sign, in whichever order; for withdrawing one is enough, where the file says so."""
    known = read_signers(
        f'release@aigw namespaces="aigw-release,aigw-revocation" {keys[0].public}\n'
        f'release@aigw namespaces="aigw-release" {keys[1].public}\n'
        f'second@aigw namespaces="aigw-release" {keys[2].public}\n'
    )
    one, standby, two = (key.sign(CONTENT) for key in keys)
    assert release.signature_names("SHA256SUMS", 2) == ["SHA256SUMS.sig", "SHA256SUMS.sig.2"]
    for given in ([one, two], [two, one], [standby, two]):
        assert [signer.name for signer in release.check(CONTENT, given, known, release.RELEASE, NOW)] == [
            "release@aigw",
            "second@aigw",
        ]
    assert refused([one], known) == "it is signed by release@aigw, and has to be by second@aigw as well"
    assert refused([one, standby], known) == "it is signed by release@aigw, and has to be by second@aigw as well"
    assert refused([two], known) == "it is signed by second@aigw, and has to be by release@aigw as well"
    withdrawn = keys[0].sign(CONTENT, "aigw-revocation")
    assert release.check(CONTENT, [withdrawn], known, release.REVOCATION, NOW)[0].name == "release@aigw"
    assert "another purpose" in refused([one], known, release.REVOCATION)
    assert "may not sign this" in refused([keys[2].sign(CONTENT, "aigw-revocation")], known, release.REVOCATION)


SUM = "a" * 64


def test_sums() -> None:
    assert release.sums(f"{SUM}  aigw-1.0.0-linux-x86_64\n{SUM} *b.tar.gz\n".encode()) == {
        "aigw-1.0.0-linux-x86_64": SUM,
        "b.tar.gz": SUM,
    }


@pytest.mark.parametrize(
    "content",
    [
        b"<html>not found</html>\n",
        f"{SUM}  ../x\n".encode(),
        f"{SUM}  /x\n".encode(),
        f"{SUM[1:]}  x\n".encode(),
        f"{SUM}  x\n{'b' * 64}  x\n".encode(),
        b"\0" * (release.LARGEST + 1),
    ],
)
def test_no_sums(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"line \d|too large"):
        release.sums(content)


def newest(**changes: Any) -> bytes:
    said = {
        "format": 1,
        "version": "1.3.0",
        "date": "2026-11-01T00:00:00Z",
        "expires": "2026-12-01T00:00:00Z",
        "sha256": {"x": SUM},
    }
    return json.dumps({name: value for name, value in (said | changes).items() if value is not None}).encode()


def test_the_newest() -> None:
    found = release.latest(newest(min_version="1.0.0"), NOW)
    assert (found.version, found.min_version, found.sha256) == ("1.3.0", "1.0.0", {"x": SUM})


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (
            newest(expires="2026-11-02T00:00:00Z"),
            "until 2026-11-02 only: the mirror is out of date, or keeps newer versions back",
        ),
        (newest(date="2027-11-02T00:00:00Z"), "of the future"),
        (newest(version="1.3"), "no version"),
        (newest(version="1.3.0; rm -rf /"), "no version"),
        (newest(version=None), "it has no version"),
        (newest(date="yesterday"), "no time"),
        (newest(date=7), "no time"),
        (newest(sha256={"x": "abc"}), "no hashes"),
        (newest(sha256=[]), "no hashes"),
        (newest(format=2), "its format is 2"),
        (b"<html>", "no JSON"),
        (b"[]", "no JSON object"),
        (b"[" * 100_000, "no JSON"),
        (b" " * (release.LARGEST + 1), "too large"),
    ],
)
def test_no_newest(content: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        release.latest(content, NOW)


def test_withdrawn() -> None:
    """By version or by hash; an expired list still tells the truth about what it names."""
    said = {"format": 1, "date": "2020-01-01T00:00:00Z", "expires": "2020-02-01T00:00:00Z"}
    found = release.revoked(json.dumps(said | {"versions": {"1.0.0": "mines coins"}, "sha256": {SUM: "planted"}}).encode())
    assert found.reason("1.0.0") == "mines coins"
    assert found.reason("1.0.1", "b" * 64, SUM) == "planted"
    assert found.reason("1.0.1", "b" * 64) == ""
    with pytest.raises(ValueError, match="no versions"):
        release.revoked(json.dumps(said | {"versions": []}).encode())


def test_versions_in_their_order() -> None:
    order = ["0.9.10", "0.10.0a1", "0.10.0rc1", "0.10.0rc2", "0.10.0", "0.10.1", "1.0.0"]
    assert sorted(set(order), key=release.number) == order
    for wrong in ("", "1", "1.0", "v1.0.0", "1.0.0.0", "1.0.0-rc1", "1.0.0\n", "٣.0.0"):
        with pytest.raises(ValueError, match="no version"):
            release.number(wrong)


def test_the_keys_in_the_package() -> None:
    """They can be read, and until the project has keys there are none: nothing is believed by accident."""
    assert isinstance(release.signers(), tuple)
    with pytest.raises(OSError, match="nobody"):
        release.signers(Path("/nobody"))

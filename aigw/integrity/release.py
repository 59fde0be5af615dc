"""What a release says of itself, and who has to have signed it before it is believed.

    SHA256SUMS (.sig)      the hash of every file of a version
    latest.json (.sig)     which version is the newest, until when that is to be believed
    revoked.json (.sig)    versions and files that were withdrawn, and why

`allowed_signers` is the whole policy: **each name in it that may sign for a purpose has to have signed**. Several keys of one
name are one signer (a key in use and its successor, or several people of whom one is enough); a second name is a second person.
The first name's signature lies in `FILE.sig`, the second's in `FILE.sig.2` and so on, so that ssh-keygen can check them too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from aigw.integrity import sshsig
from aigw.integrity.sshsig import SignatureError, Signer

RELEASE, REVOCATION = "aigw-release", "aigw-revocation"
"""Namespaces: what a signature is for. One of them opens no door of the other."""

SUMS, LATEST, REVOKED = "SHA256SUMS", "latest.json", "revoked.json"

LARGEST = 1 << 20
"""Bytes of any of the three."""

MOST_SIGNATURES = 4

_LINE = re.compile(r"([0-9a-f]{64}) [ *]([A-Za-z0-9][A-Za-z0-9._+-]{0,200})")
_VERSION = re.compile(r"([0-9]{1,6})\.([0-9]{1,6})\.([0-9]{1,6})(?:(a|b|rc)([0-9]{1,6}))?")


class Latest(NamedTuple):
    """The newest version; `date` and `expires` are seconds since the epoch, `sha256` is by file name. An aigw older than
    `min_version` cannot go to it in one step."""

    version: str
    date: float
    expires: float
    min_version: str
    sha256: dict[str, str]


class Revoked(NamedTuple):
    """Versions and files (by SHA-256) that were withdrawn, each with the reason."""

    date: float
    expires: float
    versions: dict[str, str]
    sha256: dict[str, str]

    def reason(self, version: str, *hashes: str) -> str:
        """Why *version*, or a file with one of *hashes*, was withdrawn; "" when it was not."""
        return self.versions.get(version) or next((self.sha256[one] for one in hashes if one in self.sha256), "")


def signers(file: Path | None = None) -> tuple[Signer, ...]:
    """Whom this aigw believes, or whom *file* names. Raises ValueError, OSError."""
    path = Path(__file__).with_name("allowed_signers") if file is None else file
    return sshsig.read_signers(path.read_text("utf-8"))


def names(known: Sequence[Signer], namespace: str) -> list[str]:
    """Who has to sign for *namespace*, in the order of their signatures' files."""
    return list(dict.fromkeys(one.name for one in known if not one.namespaces or namespace in one.namespaces))


def signature_names(file: str, number: int) -> list[str]:
    """The files that hold *number* signatures of *file*."""
    return [f"{file}.sig", *(f"{file}.sig.{index}" for index in range(2, min(number, MOST_SIGNATURES) + 1))]


def check(content: bytes, signatures: Sequence[bytes], known: Sequence[Signer], namespace: str, now: float) -> list[Signer]:
    """Who signed *content*: one for each name that has to. Raises SignatureError with what is missing or wrong."""
    wanted = names(known, namespace)
    if not wanted:
        raise SignatureError("nobody is trusted to sign this: no key of the project's is in this aigw")
    found: dict[str, Signer] = {}
    reason = "there is no signature"
    for signature in signatures[:MOST_SIGNATURES]:
        try:
            signer = sshsig.verify(content, signature, tuple(known), namespace, now)
        except SignatureError as error:
            reason = str(error)
            continue
        found.setdefault(signer.name, signer)
    missing = [name for name in wanted if name not in found]
    if not found:
        raise SignatureError(reason)
    if missing:
        raise SignatureError(f"it is signed by {', '.join(found)}, and has to be by {' and '.join(missing)} as well")
    return [found[name] for name in wanted]


def sums(content: bytes) -> dict[str, str]:
    """File name -> SHA-256 of a SHA256SUMS. Raises ValueError for a line that is none."""
    if len(content) > LARGEST:
        raise ValueError("it is too large to be a list of hashes")
    found: dict[str, str] = {}
    for number, line in enumerate(content.decode("ascii", "replace").splitlines(), 1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"line {number} is no hash with a file's name")
        if found.setdefault(match[2], match[1]) != match[1]:
            raise ValueError(f"line {number} names {match[2]} a second time, with another hash")
    return found


def latest(content: bytes, now: float) -> Latest:
    """What latest.json says. Raises ValueError when it is none, is of the future, or is no longer to be believed: whoever
    keeps newer versions from us could show an old one for ever."""
    said = _json(content)
    found = Latest(
        _version(said["version"]),
        _moment(said["date"]),
        _moment(said["expires"]),
        _version(said.get("min_version", "0.0.0")),
        _hashes(said["sha256"]),
    )
    _fresh(LATEST, found.date, found.expires, now)
    return found


def revoked(content: bytes) -> Revoked:
    """What revoked.json says; an old one still tells the truth about what it names. Raises ValueError."""
    said = _json(content)
    versions, hashes = said.get("versions", {}), said.get("sha256", {})
    if not isinstance(versions, dict) or not isinstance(hashes, dict):
        raise ValueError("it lists no versions")  # noqa: TRY004 - bad content, as the rest
    return Revoked(
        _moment(said["date"]),
        _moment(said["expires"]),
        {str(one): str(reason)[:500] for one, reason in versions.items()},
        {str(one): str(reason)[:500] for one, reason in hashes.items()},
    )


def number(version: str) -> tuple[int, int, int, int, int]:
    """*version* as something that can be compared; 1.2.0rc1 comes before 1.2.0. Raises ValueError."""
    match = _VERSION.fullmatch(version)
    if match is None:
        raise ValueError(f"{version[:40]!r} is no version; expected 1.2.3")
    stage = {"a": 0, "b": 1, "rc": 2, None: 3}[match[4]]
    return int(match[1]), int(match[2]), int(match[3]), stage, int(match[5] or 0)


class _Said(dict[str, Any]):
    def __missing__(self, key: str) -> Any:
        raise ValueError(f"it has no {key}")


def _json(content: bytes) -> Mapping[str, Any]:
    if len(content) > LARGEST:
        raise ValueError("it is too large")
    try:
        said = json.loads(content)
    except (ValueError, RecursionError):
        raise ValueError("it is no JSON") from None
    if not isinstance(said, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004 - bad content, as the rest
    if said.get("format") != 1:
        raise ValueError(f"its format is {said.get('format')!r}; this aigw knows 1")
    return _Said(said)


def _version(value: Any) -> str:
    number(str(value))
    return str(value)


def _moment(value: Any) -> float:
    try:
        return datetime.strptime(value, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
    except (TypeError, ValueError):
        raise ValueError(f"{str(value)[:40]!r} is no time; expected 2026-01-31T00:00:00Z") from None


def _hashes(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(
        isinstance(one, str) and re.fullmatch("[0-9a-f]{64}", one) for one in value.values()
    ):
        raise ValueError("it lists no hashes")
    return {str(name): digest for name, digest in value.items()}


def _fresh(what: str, date: float, expires: float, now: float) -> None:
    if date > now + 86400:
        raise ValueError(f"{what} is of the future ({_day(date)}): is this machine's clock right?")
    if expires <= now:
        raise ValueError(
            f"{what} was to be believed until {_day(expires)} only: the mirror is out of date, or keeps newer versions back"
        )


def _day(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d")

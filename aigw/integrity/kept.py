"""What the installer and `aigw update` keep of releases, in the data directory:

releases/1.2.3/     SHA256SUMS and its signatures; aigw, the single file itself, for `aigw update --rollback`
releases/revoked.json, .sig ...    the newest list of withdrawn versions that was seen
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from aigw.integrity import release
from aigw.integrity.sshsig import SignatureError, Signer

PROGRAM = "aigw"


def folder(data_dir: Path) -> Path:
    """Where all of them lie."""
    return data_dir / "releases"


def signed(place: Path, name: str) -> tuple[bytes, list[bytes]] | None:
    """A file of *place* and the signatures beside it; None where there is no such file. Raises OSError."""
    try:
        content = _read(place / name)
    except FileNotFoundError:
        return None
    signatures = []
    for one in release.signature_names(name, release.MOST_SIGNATURES):
        with contextlib.suppress(FileNotFoundError):
            signatures.append(_read(place / one))
    return content, signatures


def versions(data_dir: Path) -> list[str]:
    """Versions whose single file is kept, the newest first."""
    found = []
    with contextlib.suppress(OSError):
        for one in folder(data_dir).iterdir():
            with contextlib.suppress(ValueError):
                release.number(one.name)
                if (one / PROGRAM).is_file():
                    found.append(one.name)
    return sorted(found, key=release.number, reverse=True)


def revoked(data_dir: Path, known: Iterable[Signer], now: float) -> release.Revoked | None:
    """The list of withdrawn versions that is kept here, once its signature was checked; None without one that is believed."""
    try:
        found = signed(folder(data_dir), release.REVOKED)
        if found is None:
            return None
        content, signatures = found
        release.check(content, signatures, tuple(known), release.REVOCATION, now)
        return release.revoked(content)
    except (OSError, SignatureError, ValueError):
        return None


def keep(place: Path, files: Mapping[str, bytes]) -> None:
    """Write *files* into *place*, each whole or not at all. Raises OSError."""
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name, content in files.items():
        fresh = place / f".{name}.{os.getpid()}"
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(place / name)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(release.LARGEST + 1)
    if len(content) > release.LARGEST:
        raise OSError(0, "it is too large", str(path))
    return content

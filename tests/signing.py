"""Keys and signatures of stock ssh-keygen, for tests of what believes them."""

from __future__ import annotations

import subprocess
from pathlib import Path

from aigw.integrity.sshsig import Signer, read_signers


class Key:
    """A throw-away key that ssh-keygen made."""

    def __init__(self, folder: Path, name: str, kind: str = "ed25519") -> None:
        self.path = folder / name
        subprocess.run(
            ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", name, "-f", str(self.path)],
            check=True,
            timeout=30,
            stdin=subprocess.DEVNULL,
        )
        self.public = self.path.with_suffix(".pub").read_text().strip()

    def sign(self, message: bytes, namespace: str = "aigw-release") -> bytes:
        return subprocess.run(
            ["ssh-keygen", "-Y", "sign", "-q", "-f", str(self.path), "-n", namespace],
            input=message,
            check=True,
            timeout=30,
            capture_output=True,
        ).stdout


def signers(*keys: Key, options: str = "") -> tuple[Signer, ...]:
    return read_signers("# ours\n\n" + "".join(f"release@aigw {options}{' ' if options else ''}{key.public}\n" for key in keys))

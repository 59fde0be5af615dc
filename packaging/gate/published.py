"""`python published.py --signers FILE [--base URL] VERSION ...`: whether what can be had today is still what was signed.

For every version that is given (or, without one, that latest.json names): SHA256SUMS and its signatures, then every file of it,
downloaded and hashed. Old versions are what gets poisoned. Exits with 1 and a line for each fault; what has one is to be
withdrawn.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from aigw.integrity import mirror, release, single_file  # noqa: E402 - the checkout is no installed package
from aigw.integrity.sshsig import Signer  # noqa: E402


def faults(base: str, version: str, known: tuple[Signer, ...]) -> Iterator[str]:
    """What is wrong with *version* at *base*."""
    try:
        sums, _, _ = mirror.sums(base, version, known, time.time())
    except mirror.MirrorError as error:
        yield str(error)
        return
    with tempfile.TemporaryDirectory() as work:
        for name, digest in sums.items():
            file = Path(work) / name
            try:
                mirror.download(base, f"{version}/{name}", file, digest)
                if name == mirror.program_name(version):
                    single_file.read(file)
            except (mirror.MirrorError, ValueError, OSError) as error:
                yield f"{version}: {error}"
            file.unlink(missing_ok=True)


def main(arguments: list[str]) -> int:
    """Print faults; 1 when there are any."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("versions", nargs="*")
    parser.add_argument("--base", default="")
    parser.add_argument("--signers", type=Path, required=True)
    said = parser.parse_args(arguments)
    known = release.signers(said.signers)
    found, looked = [], 0
    for base in mirror.bases(said.base):
        versions = list(said.versions)
        try:
            versions = versions or [mirror.channel(base, known, time.time()).latest.version]
        except mirror.MirrorError as error:
            found.append(str(error))
        for version in versions:
            looked += 1
            found += faults(base, version, known)
    for one in found:
        print(one, file=sys.stderr)
    if not found:
        print(f"published: {looked} versions, every file as it was signed")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

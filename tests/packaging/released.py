"""A place where releases lie: keys, signatures, versions, served over loopback or from a folder."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from tests.packaging.home import ROOT
from tests.signing import Key

SYSTEM = f"{sys.platform}-{platform.machine()}"


def stand_in(version: str) -> bytes:
    """A program that says its version, with an empty tree behind it as a single file has one; for the installer's own cases."""
    script = f"#!/bin/sh\n[ \"$1\" != --version ] || echo 'aigw {version}'\nexit 0\n".encode().ljust(200, b"#") + b"\n"
    name, manifest = b"manifest.json", b'{"files": {}}'
    entry = struct.pack("<IIQ", len(name), 0o644, len(manifest)) + name + manifest
    payload = zlib.compress(entry)
    return script + payload + struct.pack("<8sQQ32s", b"AIGWSFX2", len(payload), len(entry), hashlib.sha256(payload).digest())


class Place:
    """`BASE/channel` and `BASE/VERSION`, and who may sign."""

    def __init__(self, folder: Path, *, second: bool = False) -> None:
        self.folder = folder / "releases"
        self.folder.mkdir(parents=True)
        self.keys = [Key(folder, "first"), *([Key(folder, "other")] if second else [])]
        self.stranger = Key(folder, "stranger")
        self.signers = folder / "signers"
        names = ("release@aigw", "second@aigw")
        self.signers.write_text("".join(f"{name} {key.public}\n" for name, key in zip(names, self.keys, strict=False)))
        self.channel = self.folder / "channel"

    def tool(self, *arguments: Any) -> None:
        command = [sys.executable, str(ROOT / "packaging/channel.py"), *map(str, arguments)]
        subprocess.run(command, check=True, capture_output=True, timeout=30)

    def sign(self, *files: Path, keys: list[Key] | None = None) -> None:
        """As `packaging/sign` does, by each signer."""
        for number, key in enumerate(self.keys if keys is None else keys, 1):
            command = [str(ROOT / "packaging/sign"), "--key", str(key.path), "--number", str(number), *map(str, files)]
            subprocess.run(command, check=True, capture_output=True, timeout=30)

    def publish(self, version: str, dist: Path | None = None, *, days: int = 45) -> Path:
        """A version, which becomes the newest. *dist* is what a build made; without one it is a stand-in."""
        place = self.folder / version
        if dist is None:
            place.mkdir()
            program = place / f"aigw-{version}-{SYSTEM}"
            program.write_bytes(stand_in(version))
            (place / "SHA256SUMS").write_text(f"{hashlib.sha256(program.read_bytes()).hexdigest()}  {program.name}\n")
        else:
            shutil.copytree(dist, place)
        self.sign(place / "SHA256SUMS")
        self.tool("latest", place, self.channel, "--days", days)
        self.sign(self.channel / "latest.json")
        self.tool("installer", place, self.signers, self.channel)
        self.sign(self.channel / "install.sh")
        return place

    def revoke(self, what: str, reason: str) -> None:
        self.tool("revoke", self.channel, what, reason)
        self.sign(self.channel / "revoked.json")

    @property
    def installer(self) -> Path:
        return self.channel / "install.sh"


class Cut(bytes):
    """An answer that ends before it is whole."""


class Served:
    """A folder over HTTP on loopback. *spoil* may change the bytes of an answer: (path, bytes) -> bytes, or None for 404."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[str] = []
        self.spoil: Callable[[str, bytes], bytes | None] = lambda path, content: content
        owner = self

        class Handler(SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                owner.asked.append(self.path)
                file = Path(self.translate_path(self.path))
                content = owner.spoil(self.path, file.read_bytes()) if file.is_file() else None
                if content is None:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("content-length", str(len(content) + 100 * isinstance(content, Cut)))
                self.end_headers()
                self.wfile.write(content)
                self.close_connection = True

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        self.base = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


def piped(shell: list[str], installer: bytes, home: Path, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """`curl ... | SHELL -s -- OPTIONS`, in an empty home."""
    environment = {"HOME": str(home), "PATH": os.environ["PATH"], "TMPDIR": str(home.parent)} | variables
    home.mkdir(exist_ok=True)
    ran = subprocess.run(
        [*shell, "-s", "--", *options],
        input=installer,
        env=environment,
        cwd=home,
        capture_output=True,
        timeout=120,
        check=False,
    )
    return subprocess.CompletedProcess(ran.args, ran.returncode, ran.stdout.decode(), ran.stderr.decode())

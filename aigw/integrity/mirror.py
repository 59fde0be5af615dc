"""Where releases lie, and how they are fetched. Nothing that comes from there is believed for coming from there.

    BASE/channel/latest.json, revoked.json        with their signatures
    BASE/1.2.3/aigw-1.2.3-linux-x86_64 ...        with SHA256SUMS and its signatures

which is how a code host serves the files of releases named `channel` and `1.2.3`. A folder will do as well (`file:///...`).
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import platform
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import IO, NamedTuple
from urllib.parse import quote, urlsplit

from aigw.integrity import release
from aigw.integrity.sshsig import SignatureError, Signer

BASES = (
    "https://github.com/aigw/aigw/releases/download",
    "https://gitee.com/aigw/aigw/releases/download",  # quicker from China
)
"""Tried in this order, where nobody names another one (AIGW_DOWNLOAD_BASE, `aigw update --from`)."""

CHANNEL = "channel"

LARGEST = 300 * 1024 * 1024
"""Bytes of a single file; one has 26 MB."""

PATIENCE = 20.0
"""Seconds without a byte."""

_BLOCK = 1 << 18


class MirrorError(Exception):
    """A place that does not have what was asked for, or not as it should be. The message says which and why."""


class Channel(NamedTuple):
    """What a place says is the newest version, and the files as they were signed (name -> content)."""

    base: str
    latest: release.Latest
    revoked: release.Revoked | None
    files: dict[str, bytes]


def bases(named: str = "", environ: dict[str, str] | os._Environ[str] = os.environ) -> tuple[str, ...]:
    """Where to look: *named*, else $AIGW_DOWNLOAD_BASE (several, with blanks between them), else the project's own. Raises
    MirrorError for what is no place."""
    said = tuple((named or environ.get("AIGW_DOWNLOAD_BASE", "")).split()) or BASES
    return tuple(_base(one) for one in said)


def _base(text: str) -> str:
    if text.startswith(("/", "./", "../", "~")):
        return Path(text).expanduser().absolute().as_uri()
    parts = urlsplit(text)
    loopback = parts.hostname in ("127.0.0.1", "localhost", "::1")
    if parts.scheme == "https" or parts.scheme == "file" or (parts.scheme == "http" and loopback):
        return text.rstrip("/")
    raise MirrorError(f"{text}: expected https://..., file:///... or a folder")


def program_name(version: str) -> str:
    """The single file of *version* for this machine."""
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    return f"aigw-{version}-{sys.platform}-{machine}"


def channel(base: str, known: Sequence[Signer], now: float) -> Channel:
    """The newest version at *base*, once its signatures were checked. Raises MirrorError."""
    files = dict(_signed(base, f"{CHANNEL}/{release.LATEST}", known, release.RELEASE, now))
    try:
        latest = release.latest(files[release.LATEST], now)
    except ValueError as error:
        raise MirrorError(f"{base}/{CHANNEL}/{release.LATEST}: {error}") from None
    revoked = None
    try:
        listed = dict(_signed(base, f"{CHANNEL}/{release.REVOKED}", known, release.REVOCATION, now))
        revoked = release.revoked(listed[release.REVOKED])
        files |= listed
    except _MissingError:
        pass  # nothing was withdrawn yet
    except ValueError as error:
        raise MirrorError(f"{base}/{CHANNEL}/{release.REVOKED}: {error}") from None
    return Channel(base, latest, revoked, files)


class NowhereError(MirrorError):
    """None of several places has it; `problems` says why of each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = list(problems)


def quickest(places: Sequence[str], known: Sequence[Signer], now: float) -> Channel:
    """What the first of *places* to answer with good signatures says: all are asked at once, so a mirror nearby wins. Raises
    NowhereError."""
    answers: SimpleQueue[Channel | MirrorError] = SimpleQueue()

    def ask(base: str) -> None:
        try:
            answers.put(channel(base, known, now))
        except MirrorError as error:
            answers.put(error)
        except Exception as error:  # noqa: BLE001 - or nobody would hear of this place
            answers.put(MirrorError(f"{base}: {type(error).__name__}"))

    for base in places:
        Thread(target=ask, args=(base,), daemon=True).start()  # a slow one is not waited for, at the end neither
    problems = []
    for _ in places:
        answer = answers.get()
        if isinstance(answer, Channel):
            return answer
        problems.append(str(answer))
    raise NowhereError(problems)


def sums(base: str, version: str, known: Sequence[Signer], now: float) -> tuple[dict[str, str], dict[str, bytes], list[Signer]]:
    """The signed hashes of *version*: by file name; the files to keep; who signed. Raises MirrorError."""
    files = dict(_signed(base, f"{version}/{release.SUMS}", known, release.RELEASE, now))
    signatures = [content for name, content in files.items() if name != release.SUMS]
    try:
        signed = release.check(files[release.SUMS], signatures, known, release.RELEASE, now)
        return release.sums(files[release.SUMS]), files, signed
    except (SignatureError, ValueError) as error:
        raise MirrorError(f"{base}/{version}/{release.SUMS}: {error}") from None


def small(base: str, path: str, most: int) -> bytes:
    """A file of at most so many bytes. Raises MirrorError."""
    with _opened(f"{base}/{quote(path)}") as answer:
        content = answer.read(most + 1)
    if len(content) > most:
        raise MirrorError(f"{base}/{path} is larger than it can be: an error page?")
    return content


def download(base: str, path: str, to: Path, sha256: str, told: Callable[[int], object] = lambda part: None) -> None:
    """Write a file to *to*, which is new, and stays only when its hash is *sha256*. *told* hears of each part's bytes. Raises
    MirrorError, OSError."""
    digest, done = hashlib.sha256(), 0
    handle = os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "wb") as file, _opened(f"{base}/{quote(path)}") as answer:
            while block := _part(answer, f"{base}/{path}"):
                done += len(block)
                if done > LARGEST:
                    raise MirrorError(f"{base}/{path} is larger than any release")
                digest.update(block)
                file.write(block)
                told(len(block))
            if missing := getattr(answer, "length", None):  # of http.client: what was promised and did not come
                raise MirrorError(f"{base}/{path} broke off: {missing} bytes are missing")
            file.flush()
            os.fsync(file.fileno())
        if digest.hexdigest() != sha256:
            raise MirrorError(
                f"{base}/{path} is not what was signed: its SHA-256 is {digest.hexdigest()} ({done} bytes), not {sha256}"
            )
    except BaseException:
        to.unlink(missing_ok=True)
        raise


def _part(answer: IO[bytes], what: str) -> bytes:
    try:
        return answer.read(_BLOCK)
    except (OSError, http.client.HTTPException) as error:
        raise MirrorError(f"{what} broke off: {_why(error)}") from None


class _MissingError(MirrorError):
    """There is no such file."""


def _signed(base: str, path: str, known: Sequence[Signer], namespace: str, now: float) -> Iterator[tuple[str, bytes]]:
    """A file and its signatures, by name, once enough of them are good."""
    name = path.rpartition("/")[2]
    content = small(base, path, release.LARGEST)
    signatures = []
    yield name, content
    for one in release.signature_names(path, max(1, len(release.names(known, namespace)))):
        with contextlib.suppress(_MissingError):
            signatures.append(small(base, one, release.LARGEST))
            yield one.rpartition("/")[2], signatures[-1]
    try:
        release.check(content, signatures, known, namespace, now)
    except SignatureError as error:
        raise MirrorError(f"{base}/{path} is not believed: {error}") from None


@contextlib.contextmanager
def _opened(url: str) -> Iterator[IO[bytes]]:
    """Redirects are followed (code hosts keep files elsewhere), but not out of TLS."""
    opener = urllib.request.build_opener(_Careful(), urllib.request.HTTPSHandler(context=ssl.create_default_context()))
    request = urllib.request.Request(url, headers={"user-agent": "aigw"})  # noqa: S310 - `_base` has looked at it
    try:
        answer = opener.open(request, timeout=PATIENCE)
    except urllib.error.HTTPError as error:
        error.close()
        kind = _MissingError if error.code in (403, 404, 410) else MirrorError
        raise kind(f"{url}: it answered {error.code}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        kind = _MissingError if isinstance(reason, FileNotFoundError) or "No such file" in str(reason) else MirrorError
        raise kind(f"{url} cannot be had: {_why(reason)}") from None
    with answer:
        try:
            yield answer
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.filename:  # of our own disk
                raise
            raise MirrorError(f"{url} broke off: {_why(error)}") from None


class _Careful(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
        if req.full_url.startswith("https://") and not newurl.startswith("https://"):
            raise MirrorError(f"{req.full_url} leads out of TLS, to {newurl}: not followed")
        if not newurl.startswith(("https://", "http://")):
            raise MirrorError(f"{req.full_url} leads to {newurl}: not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _why(error: object) -> str:
    if isinstance(error, TimeoutError):
        return f"nothing came for {PATIENCE:g} s"
    return str(getattr(error, "strerror", "") or error or type(error).__name__)

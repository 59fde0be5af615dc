"""Fetching from places that may be away, cut off, too large, or lead elsewhere. See tests/cli/test_update.py, too."""

from __future__ import annotations

import hashlib
import http.server
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from aigw.integrity import mirror, release
from aigw.integrity.mirror import MirrorError
from tests.packaging.released import Place, Served


class Answers(http.server.BaseHTTPRequestHandler):
    """By path."""

    def do_GET(self) -> None:
        match self.path:
            case "/good":
                self.whole(b"good" * 1000)
            case "/redirect":
                self.redirect("/good")
            case "/out":
                self.redirect("file:///etc/hostname")
            case "/round":
                self.redirect("/round")
            case "/cut":
                self.whole(b"half", promised=100)
            case "/error":
                self.send_error(500)
            case _:
                self.send_error(404)

    def whole(self, body: bytes, promised: int = 0) -> None:
        self.send_response(200)
        self.send_header("content-length", str(promised or len(body)))
        self.end_headers()
        self.wfile.write(body)

    def redirect(self, to: str) -> None:
        self.send_response(302)
        self.send_header("location", to)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def base() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join(5)


def test_where_to_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIGW_DOWNLOAD_BASE", raising=False)
    assert mirror.bases() == mirror.BASES
    monkeypatch.setenv("AIGW_DOWNLOAD_BASE", "https://a.example/x/ file:///srv/aigw")
    assert mirror.bases() == ("https://a.example/x", "file:///srv/aigw")
    assert mirror.bases("/srv/aigw") == ("file:///srv/aigw",)
    for wrong in ("http://a.example", "ftp://a", "a", "https:"[:-1]):
        with pytest.raises(MirrorError, match="expected https"):
            mirror.bases(wrong)


def test_small(base: str) -> None:
    assert mirror.small(base, "good", 4000) == b"good" * 1000
    assert mirror.small(base, "redirect", 4000) == b"good" * 1000
    with pytest.raises(MirrorError, match="larger than it can be"):
        mirror.small(base, "good", 3999)


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("missing", "it answered 404"),
        ("error", "it answered 500"),
        ("out", "it answered 302"),
        ("round", "it answered 302"),
        ("cut", "broke off"),
    ],
)
def test_what_goes_wrong(base: str, tmp_path: Path, path: str, why: str) -> None:
    """Said with the address; of a download nothing stays."""
    with pytest.raises(MirrorError, match=why) as caught:
        mirror.download(base, path, tmp_path / "x", "0" * 64)
    assert base in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_download(base: str, tmp_path: Path) -> None:
    """Into a file that is new; with its hash, or not at all."""
    digest = hashlib.sha256(b"good" * 1000).hexdigest()
    told: list[int] = []
    mirror.download(base, "good", tmp_path / "x", digest, told.append)
    assert (tmp_path / "x").read_bytes() == b"good" * 1000
    assert sum(told) == 4000
    with pytest.raises(FileExistsError):
        mirror.download(base, "good", tmp_path / "x", digest)
    assert (tmp_path / "x").exists()
    with pytest.raises(MirrorError, match="is not what was signed"):
        mirror.download(base, "good", tmp_path / "y", "0" * 64)
    assert not (tmp_path / "y").exists()


def test_nobody_is_there() -> None:
    with pytest.raises(MirrorError, match="cannot be had"):
        mirror.small("http://127.0.0.1:9", "x", 10)
    with pytest.raises(MirrorError, match="cannot be had"):
        mirror.small("file:///no/such/place", "x", 10)


def test_the_name_of_the_program() -> None:
    assert mirror.program_name("1.2.3").startswith("aigw-1.2.3-")
    assert mirror.program_name("1.2.3").count("-") == 3


def test_the_quickest(tmp_path: Path) -> None:
    """Of several the first that answers with good signatures; one that lies is not it, however quick; when none does, each says
    why."""
    place = Place(tmp_path)
    place.publish("9.0.0")
    known = release.signers(place.signers)

    def slow(path: str, content: bytes) -> bytes:
        time.sleep(2)
        return content

    with Served(place.folder) as far, Served(place.folder) as near, Served(place.folder) as liar:
        far.spoil = slow
        liar.spoil = lambda path, content: content.replace(b"9.0.0", b"9.9.9")
        found = mirror.quickest([far.base, liar.base, near.base, "http://127.0.0.1:9"], known, time.time())
        assert (found.base, found.latest.version) == (near.base, "9.0.0")
        with pytest.raises(mirror.NowhereError) as caught:
            mirror.quickest([liar.base, "http://127.0.0.1:9"], known, time.time())
    assert len(caught.value.problems) == 2
    assert "does not belong to this content" in str(caught.value)

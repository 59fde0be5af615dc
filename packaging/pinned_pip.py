"""Fetch the pip wheel named in pip.lock and check it against its hash: `python3 pinned_pip.py FOLDER` prints its path.

For machines whose Python has no ensurepip. The wheel is looked for where the machine's own pip configuration points
(PIP_INDEX_URL, pip.conf), else at the index that uv.lock was made from. Where it comes from does not matter for trust: the
hash decides before anything of it runs. Needs curl, and only the standard library.
"""

from __future__ import annotations

import configparser
import hashlib
import os
import re
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urldefrag, urljoin, urlsplit

HERE = Path(__file__).resolve().parent


class Unavailable(Exception):  # noqa: N818 - it is what it is
    """No index has it; the message says where we looked."""


def pinned() -> tuple[str, str]:
    """The wheel's file name and its SHA-256."""
    found = re.search(r"^pip==(\S+) --hash=sha256:([0-9a-f]{64})$", (HERE / "pip.lock").read_text("utf-8"), re.MULTILINE)
    if not found:
        raise SystemExit("packaging/pip.lock names no pip")
    return f"pip-{found[1]}-py3-none-any.whl", found[2]


def configured(name: str) -> str:
    """A pip option: from the environment, else from pip's configuration files, the user's before the machine's; "" for none."""
    given = os.environ.get("PIP_" + name.replace("-", "_").upper(), "").strip()
    if given:
        return given
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path("~/.config").expanduser())
    mac = Path("~/Library/Application Support/pip/pip.conf").expanduser()
    files = [
        config / "pip/pip.conf",
        mac,
        Path("~/.pip/pip.conf").expanduser(),
        Path("/etc/pip.conf"),
        Path("/etc/xdg/pip/pip.conf"),
    ]
    if own := os.environ.get("PIP_CONFIG_FILE"):
        files = [] if own == os.devnull else [Path(own), *files]  # pip's way to say: no files at all
    for file in files:
        parser = configparser.RawConfigParser()
        try:
            parser.read(file, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError):
            continue
        for section in ("install", "global"):
            if parser.has_option(section, name):
                return parser.get(section, name).strip()
    return ""


def indexes() -> list[str]:
    """Addresses of package indexes, the preferred one first."""
    preferred = configured("index-url").split()
    if not preferred:
        lock = tomllib.loads((HERE.parent / "uv.lock").read_text("utf-8"))
        preferred = [url for package in lock["package"] if (url := package["source"].get("registry"))][:1]
    return [url.rstrip("/") for url in preferred + configured("extra-index-url").split()]


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value for name, value in attrs if tag == "a" and name == "href" and value]


def curl(url: str) -> bytes:
    """The body of *url*, within a minute; raises Unavailable."""
    # --config - : the address may hold a password, which no other user should read in the list of processes
    options = ["curl", "--silent", "--show-error", "--fail", "--location", "--max-time", "60", "--config", "-"]
    if certificates := configured("cert"):
        options += ["--cacert", certificates]
    try:
        answer = subprocess.run(options, input=f'url = "{url}"\n'.encode(), capture_output=True, check=False)
    except FileNotFoundError:
        raise SystemExit("curl is missing: install it, or Debian's python3-venv") from None
    if answer.returncode:
        raise Unavailable(f"{urlsplit(url).hostname or url}: {answer.stderr.decode(errors='replace').strip()}")
    return answer.stdout


def fetch(folder: Path) -> Path:
    """The checked wheel in *folder*. Raises Unavailable when no index has it, SystemExit when one serves something else."""
    name, sha256 = pinned()
    reasons = []
    for index in indexes():
        page = f"{index}/pip/"
        try:
            links = _Links()
            links.feed(curl(page + "index.html" if page.startswith("file:") else page).decode(errors="replace"))
            link = next((link for link in links.links if urlsplit(link).path.rpartition("/")[2] == name), None)
            if link is None:
                reasons.append(f"{urlsplit(index).hostname or index}: has no {name}")
                continue
            wheel = curl(urldefrag(urljoin(page, link)).url)
        except Unavailable as reason:
            reasons.append(str(reason))
            continue
        if hashlib.sha256(wheel).hexdigest() != sha256:
            raise SystemExit(
                f"{name} from {urlsplit(index).hostname or index} is not the one we know (SHA-256 differs): not used"
            )
        path = folder / name
        path.write_bytes(wheel)
        return path
    raise Unavailable("; ".join(reasons) or "no package index is configured")


if __name__ == "__main__":
    try:
        print(fetch(Path(sys.argv[1])))
    except Unavailable as error:
        raise SystemExit(f"could not fetch pip: {error}") from None

"""`python publish_pypi.py FILE ...`: upload wheel and sdist to PyPI as a trusted publisher, with the standard library alone.

The job that may publish runs this and nothing of anybody else's. Its right is a token of GitHub's that lives for minutes and is
exchanged for one of PyPI's (docs.pypi.org, "Trusted Publishers": mint-token); no long-lived secret exists. Asks
$ACTIONS_ID_TOKEN_REQUEST_URL; $PYPI names another index (https://test.pypi.org), $PYPI_UPLOAD its address for uploads.
"""

from __future__ import annotations

import base64
import email.parser
import hashlib
import json
import os
import re
import sys
import tarfile
import urllib.error
import urllib.request
import uuid
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

PYPI, UPLOAD = "https://pypi.org", "https://upload.pypi.org/legacy/"


def told(request: urllib.request.Request) -> dict[str, Any]:
    """The JSON that is answered. Raises SystemExit with what was said when it is no 200."""
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return dict(json.load(answer))
    except urllib.error.HTTPError as error:
        raise SystemExit(f"error: {request.full_url.partition('?')[0]} answered {error.code}: {error.read(500)!r}") from None


def token(pypi: str) -> str:
    """A token of PyPI's, for a few minutes."""
    audience = told(urllib.request.Request(f"{pypi}/_/oidc/audience"))["audience"]
    ask, bearer = os.environ["ACTIONS_ID_TOKEN_REQUEST_URL"], os.environ["ACTIONS_ID_TOKEN_REQUEST_TOKEN"]
    own = told(urllib.request.Request(f"{ask}&audience={audience}", headers={"authorization": f"bearer {bearer}"}))["value"]
    minted = urllib.request.Request(f"{pypi}/_/oidc/mint-token", json.dumps({"token": own}).encode())
    minted.add_header("content-type", "application/json")
    return str(told(minted)["token"])


def metadata(file: Path) -> Any:
    """METADATA of a wheel, PKG-INFO of an sdist."""
    if file.suffix == ".whl":
        with zipfile.ZipFile(file) as archive:
            name = next(one for one in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", one))
            return email.parser.Parser().parsestr(archive.read(name).decode())
    with tarfile.open(file) as archive:
        member = archive.extractfile(f"{file.name.removesuffix('.tar.gz')}/PKG-INFO")
        assert member is not None
        return email.parser.Parser().parsestr(member.read().decode())


def fields(file: Path) -> Iterable[tuple[str, str]]:
    """What PyPI is told of *file* (docs.pypi.org/api/upload)."""
    said = metadata(file)
    wheel = file.suffix == ".whl"
    yield ":action", "file_upload"
    yield "protocol_version", "1"
    yield "filetype", "bdist_wheel" if wheel else "sdist"
    yield "pyversion", file.name.split("-")[2] if wheel else "source"
    yield "sha256_digest", hashlib.sha256(file.read_bytes()).hexdigest()
    for key in ("Metadata-Version", "Name", "Version", "Summary", "License-Expression", "Requires-Python"):
        if said[key]:
            yield key.lower().replace("-", "_"), said[key]
    yield "description_content_type", "text/markdown"
    yield "description", said.get_payload()
    for key, name in (
        ("Classifier", "classifiers"),
        ("Requires-Dist", "requires_dist"),
        ("Provides-Extra", "provides_extra"),
        ("License-File", "license_file"),
        ("Project-URL", "project_urls"),
    ):
        for value in said.get_all(key, []):
            yield name, value


def upload(file: Path, address: str, secret: str) -> None:
    """Raises SystemExit when PyPI does not take it."""
    border = uuid.uuid4().hex
    parts = [f'--{border}\r\ncontent-disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields(file)]
    head = f'--{border}\r\ncontent-disposition: form-data; name="content"; filename="{file.name}"\r\n\r\n'
    body = "".join(parts).encode() + head.encode() + file.read_bytes() + f"\r\n--{border}--\r\n".encode()
    login = base64.b64encode(f"__token__:{secret}".encode()).decode()
    headers = {"content-type": f"multipart/form-data; boundary={border}", "authorization": f"Basic {login}"}
    try:
        with urllib.request.urlopen(urllib.request.Request(address, body, headers), timeout=300) as answer:
            print(f"{file.name}: {answer.status}")
    except urllib.error.HTTPError as error:
        raise SystemExit(f"error: {file.name}: the index answered {error.code}: {error.read(500)!r}") from None


def main(files: list[str]) -> None:
    """All of *files*."""
    if not files:
        raise SystemExit("usage: publish_pypi.py FILE ...")
    secret = token(os.environ.get("PYPI", PYPI))
    for file in files:
        upload(Path(file), os.environ.get("PYPI_UPLOAD", UPLOAD), secret)


if __name__ == "__main__":
    main(sys.argv[1:])

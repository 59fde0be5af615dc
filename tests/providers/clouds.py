"""Clouds, built from a table, for the tests of their adapters."""

from __future__ import annotations

import json
import subprocess
from functools import cache
from typing import Any

from aigw.config import schema
from aigw.config.secrets import packed
from aigw.exchange import UpstreamRequest
from aigw.providers import compatible
from aigw.providers.compatible import CompatibleProvider


def built(kind: str, *keys: str, environ: dict[str, str] | None = None, **table: Any) -> CompatibleProvider:
    return compatible.build(kind, schema.Provider(**table), schema.Upstream(), list(keys), environ=environ or {})


def url(request: UpstreamRequest) -> str:
    origin = request.target.origin
    port = "" if origin.port in (80, 443) else f":{origin.port}"
    return f"{origin.scheme}://{origin.host}{port}{request.target.path}"


def headers(request: UpstreamRequest) -> dict[str, str]:
    lines = (request.target.wire + request.extra).decode().split("\r\n")[1:]
    return dict(line.split(": ", 1) for line in lines if line)


@cache
def pem() -> str:
    command = ["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]
    return subprocess.run(command, check=True, capture_output=True, timeout=60).stdout.decode()


def service_account(token_uri: str = "https://oauth2.googleapis.com/token") -> str:
    """A service account's JSON, as the config layer hands it over."""
    account = {
        "type": "service_account",
        "project_id": "my-project",
        "private_key_id": "k1",
        "private_key": pem(),
        "client_email": "me@my-project.iam.gserviceaccount.com",
        "token_uri": token_uri,
    }
    return packed(json.dumps(account, indent=2))

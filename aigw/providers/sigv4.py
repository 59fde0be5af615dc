"""AWS's Signature Version 4: what proves a request to Bedrock, without the secret going along. A pure function of the request
and the time.

(Fact: "Signature Version 4 signing process" of the AWS General Reference, tried with its example and with botocore's answers.)
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import quote

_UNRESERVED = "-_.~"


class AwsCredentials(NamedTuple):
    """`token` is a session's, of temporary credentials; "" for others."""

    key_id: str
    secret: str
    token: str = ""

    def __repr__(self) -> str:  # never the secret
        return f"AwsCredentials({self.key_id[:4]}...)"


def credentials_of(text: str) -> AwsCredentials:
    """*text* is `KEY_ID:SECRET` or `KEY_ID:SECRET:TOKEN`; raises ValueError (without repeating it)."""
    key_id, _, rest = text.strip().partition(":")
    secret, _, token = rest.partition(":")
    if not key_id or not secret:
        raise ValueError("expected KEY_ID:SECRET or KEY_ID:SECRET:SESSION_TOKEN")
    return AwsCredentials(key_id, secret, token)


def sign(
    method: str,
    host: str,
    path: str,
    headers: Mapping[str, str],
    body: bytes,
    credentials: AwsCredentials,
    *,
    region: str,
    service: str,
    now: float,
) -> dict[str, str]:
    """The headers to send besides: date, signature, and the session's token. *path* is as on the wire, percent-encoded, with
    its query. *headers* are those to be signed as well as the host, names in lower case. *now* is seconds since the epoch."""
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    day = moment[:8]
    signed = {name: " ".join(value.split()) for name, value in headers.items()} | {"host": host, "x-amz-date": moment}
    if credentials.token:
        signed["x-amz-security-token"] = credentials.token
    names = ";".join(sorted(signed))
    bare, _, query = path.partition("?")
    canonical = "\n".join(
        (
            method,
            quote(bare, safe="/" + _UNRESERVED),  # encoded once more than on the wire, for all services but S3
            _query(query),
            *(f"{name}:{signed[name]}" for name in sorted(signed)),
            "",
            names,
            hashlib.sha256(body).hexdigest(),
        )
    )
    scope = f"{day}/{region}/{service}/aws4_request"
    to_sign = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = b"AWS4" + credentials.secret.encode()
    for step in (day, region, service, "aws4_request"):
        key = hmac.digest(key, step.encode(), "sha256")
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    proof = f"Credential={credentials.key_id}/{scope}, SignedHeaders={names}, Signature={signature}"
    added = {"x-amz-date": moment, "authorization": f"AWS4-HMAC-SHA256 {proof}"}
    if credentials.token:
        added["x-amz-security-token"] = credentials.token
    return added


def _query(query: str) -> str:
    """Its parameters in the order of their names, as they are encoded."""
    pairs = (part.partition("=") for part in query.split("&") if part)
    return "&".join(f"{name}={value}" for name, _, value in sorted(pairs))

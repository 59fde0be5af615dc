"""The scrubber: a secret planted in any text, in any of the forms it travels in, does not come out."""

from __future__ import annotations

import base64
import html
import json
import re
from urllib.parse import quote, quote_plus

from aigw.config.scrub import Scrubber
from aigw.providers.redact import Redactor
from tests.fuzz.inputs import dice, fuzzed

WORDS = [
    b"sk-",
    b"sk-ant-api03-",
    b"Bearer ",
    b"bearer",
    b"Basic ",
    b"eyJ",
    b".",
    b"*" * 3,
    b"***abcd",
    b"...",
    b"\xe2\x80\xa6",
]
WORDS += [
    b"[redacted]",
    b"AIza",
    b"ghp_",
    b"%2F",
    b"%",
    b"\\/",
    b"\\u002d",
    b"&#39;",
    b"&amp;",
    b'"',
    b"\n",
    b"a1B2c3D4",
    b"\xff",
]
WORDS += [b"dapi", b"0123456789abcdef" * 2, b"xai-", b"AKIA", b"=", b"_", b"-" * 30, b"x" * 64]

SECRETS = [
    "sk-proj-Zk3TqW8nB5vR1yLx0aQd",
    "sk-ant-api03-QmFzZTY0LWlzaC1rZXk-abcd_EFGH",
    'pw-with-"quotes"-&-<angles>/slash+plus%25',
    "0f1e2d3c4b5a69788796a5b4c3d2e1f0",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJlLXBhcnQ",
    "Qx7" + "rT9-" * 60,
]


def forms(secret: str) -> list[str]:
    raw = secret.encode()
    found = [secret, json.dumps(secret)[1:-1], secret.replace("/", "\\/"), quote(secret, safe=""), quote_plus(secret)]
    found += [html.escape(secret), raw.hex(), base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode()]
    found += [base64.b64encode(b"user:" + raw).decode(), base64.b64encode(b"u:" + raw + b":x").decode()]
    found.append(re.sub("%[0-9A-F]{2}", lambda match: match[0].lower(), quote(secret, safe="")))
    return found


@fuzzed("scrub", WORDS, 300)
def test_scrub(data: bytes) -> None:
    """Neither the redactor of a provider's words nor the scrubber of everything else lets one through."""
    chance = dice(data)
    secret = chance.choice(SECRETS)
    form = chance.choice(forms(secret))
    at = chance.randint(0, len(data))
    text = data[:at].decode("utf-8", "replace") + form + data[at:].decode("utf-8", "replace")
    scrubber, redactor = Scrubber(SECRETS), Redactor([secret])
    for clean in (scrubber.text(text), redactor.clean(text.encode()).decode("utf-8", "replace")):
        assert form not in clean
        for other in forms(secret):
            assert other not in clean
    limit = chance.randint(1, len(text) + 1)
    cut = redactor.clean(text.encode(), limit)
    assert len(cut) <= limit
    assert form.encode() not in cut
    assert form.encode()[:16] not in cut or len(form) < 16 or form.encode()[:16] in data
    assert "Zk3T" not in repr(scrubber) + repr(redactor)

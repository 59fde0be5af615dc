"""Takes secrets out of what a provider says: those we know, in every form they travel in, and what looks like one."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from urllib.parse import quote

BODY_LIMIT = 64 * 1024
"""Bytes of an error body that are kept."""

_MARK = b"[redacted]"
_SHORTEST = 4  # shorter "keys" are placeholders for servers that want none, and too common to replace
_SHORTEST_ENCODED = 8

# What keys look like: by the vendors' documented prefixes and by the masks they print ("sk-ab***wxyz", "****wxyz").
_KEY_LIKE = rb"""
    (?<![A-Za-z0-9]) (?: sk|rk|pk ) [-_] [A-Za-z0-9_*.-]{8,}
  | (?<![A-Za-z0-9]) (?: xai|nvapi|pplx|csk|fw|tgp_v1|gsk|r8|hf|ghp|gho|ghu|ghs|ghr|github_pat ) [-_] [A-Za-z0-9_*-]{16,}
  | AIza [0-9A-Za-z_*-]{20,}
  | (?: AKIA|ASIA|ABSK ) [0-9A-Za-z+/=]{16,}
  | dapi [0-9a-f]{32}
  | [0-9a-f]{32} \. [A-Za-z0-9]{16}
  | eyJ [A-Za-z0-9_-]{8,} \. [A-Za-z0-9_-]{8,} (?: \. [A-Za-z0-9_-]* )?
  | (?i: bearer|basic ) \s+ (?= [^\s"]* [0-9*=] ) [A-Za-z0-9._~+/=*-]{8,}
  | \*{3,} [A-Za-z0-9]{1,8}
"""


class Redactor:
    """Built once per provider. Its repr shows nothing."""

    __slots__ = ("_compiled", "_margin", "secrets")

    def __init__(self, secrets: Iterable[str]) -> None:
        self.secrets = frozenset(secret for secret in secrets if len(secret) >= _SHORTEST)
        self._compiled: re.Pattern[bytes] | None = None  # the first error pays for it, not the start
        self._margin = 4096

    def __repr__(self) -> str:
        return "Redactor()"

    def knows(self, secret: str) -> bool:
        """Whether *secret* would be found (or is too short to be one)."""
        return secret in self.secrets or len(secret) < _SHORTEST

    def clean(self, body: bytes, limit: int = BODY_LIMIT) -> bytes:
        """*body* without secrets, at most *limit* bytes of it. A secret that the limit cuts in two leaves no half behind."""
        pattern = self._compiled or self._compile()
        if len(body) <= limit:
            return pattern.sub(_MARK, body)
        window = pattern.sub(_MARK, body[: limit + self._margin])
        return window[: max(0, min(limit, len(window) - self._margin))]

    def _compile(self) -> re.Pattern[bytes]:
        forms = sorted({form for secret in self.secrets for form in _forms(secret)}, key=lambda form: (-len(form), form))
        # Known secrets come first in the alternation: a pattern must not stop in the middle of one.
        known = b"".join(re.escape(form) + b"|" for form in forms)
        self._margin = max([4096, *map(len, forms)])
        self._compiled = re.compile(known + _KEY_LIKE, re.VERBOSE)
        return self._compiled

    def clean_text(self, text: str) -> str:
        return self.clean(text.encode("utf-8", "replace")).decode("utf-8", "replace")


def _forms(secret: str) -> set[bytes]:
    """The secret as it may stand in a body: raw, in a URL, in JSON, in base64 (also inside a longer text, as in Basic
    credentials), in hex."""
    raw = secret.encode()
    forms = {raw, secret.replace("/", "\\/").encode()}
    if len(raw) < _SHORTEST_ENCODED:
        return forms
    encoded = quote(secret, safe="")
    forms |= {encoded.encode(), re.sub("%[0-9A-F]{2}", lambda match: match[0].lower(), encoded).encode()}
    forms |= {raw.hex().encode(), raw.hex().upper().encode()}
    for shift in range(3):
        # Base64 works in steps of three bytes: of each alignment only the digits that the secret alone decides are sought.
        digits = base64.b64encode(b"\0" * shift + raw).rstrip(b"=")
        whole = (shift + len(raw)) * 8 // 6
        part = digits[-(-shift * 8 // 6) : whole]
        forms |= {part, part.replace(b"+", b"-").replace(b"/", b"_")}
    return {form for form in forms if len(form) >= _SHORTEST}

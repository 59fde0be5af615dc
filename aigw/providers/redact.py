"""Takes secrets out of what a provider says: its own, in every form they travel in, and what looks like one (another account's
key, or the mask of one)."""

from __future__ import annotations

from collections.abc import Iterable

from aigw.config.scrub import Scrubber

BODY_LIMIT = 64 * 1024
"""Bytes of an error body that are kept."""

_SHORTEST = 4  # in a provider's own words, that few characters of its key are no accident

# What keys look like: by the vendors' documented prefixes and by the masks they print ("sk-ab***wxyz", "****wxyz"). Of an
# error's text a little too much may go; of a name it may not, so there `scrub.SURELY` is asked.
_KEY_LIKE = r"""
    (?<![A-Za-z0-9]) (?: sk|rk|pk ) [-_] [A-Za-z0-9_*.-]{8,}
  | (?<![A-Za-z0-9]) (?: xai|nvapi|pplx|csk|fw|tgp_v1|gsk|r8|hf|ghp|gho|ghu|ghs|ghr|github_pat ) [-_] [A-Za-z0-9_*-]{16,}
  | AIza [0-9A-Za-z_*-]{20,}
  | (?: AKIA|ASIA|ABSK ) [0-9A-Za-z+/=]{16,}
  | dapi [0-9a-f]{32}
  | [0-9a-f]{32} \. [A-Za-z0-9]{16}
  | (?<![A-Za-z0-9_-]) eyJ [A-Za-z0-9_-]{8,} \. [A-Za-z0-9_-]{8,} (?: \. [A-Za-z0-9_-]* )?
  | (?i: bearer|basic ) \s+ (?= [^\s"]* [0-9*=] ) [A-Za-z0-9._~+/=*-]{8,}
  | (?<!\*) \*{3,} [A-Za-z0-9]{1,8}
"""


class Redactor(Scrubber):
    """Built once per provider, with the secrets that this provider gets. Its repr shows nothing."""

    __slots__ = ("secrets",)

    def __init__(self, secrets: Iterable[str]) -> None:
        self.secrets = frozenset(secrets)
        super().__init__(self.secrets, like=_KEY_LIKE, shortest=_SHORTEST)

    def clean(self, body: bytes, limit: int = BODY_LIMIT) -> bytes:
        return super().clean(body, limit)

    def clean_text(self, text: str) -> str:
        return self.clean(text.encode("utf-8", "replace")).decode("utf-8", "replace")

"""Which of DeepL's two addresses a key belongs to."""

from __future__ import annotations

import pytest

from aigw.config import schema
from aigw.deployment import ProviderKey
from aigw.errors import ConfigError
from aigw.protocols.operations import OPERATIONS
from aigw.providers import compatible


def at(*keys: str, base_url: str | None = None) -> tuple[str, bytes]:
    provider = compatible.build("deepl", schema.Provider(keys=keys, base_url=base_url), schema.Upstream(), keys)
    target = provider.prepare(OPERATIONS["deepl"], b"{}", ProviderKey("k", keys[0]), {}, "DE").target
    return target.origin.host, target.wire


def test_the_key_says_where() -> None:
    """The free plan's keys end in :fx; the operator's own address beats that; the header has DeepL's word."""
    assert at("abc:fx")[0] == "api-free.deepl.com"
    host, wire = at("abc")
    assert host == "api.deepl.com"
    assert b"authorization: DeepL-Auth-Key abc\r\n" in wire
    assert at("abc:fx", base_url="http://127.0.0.1:9")[0] == "127.0.0.1"
    with pytest.raises(ConfigError, match="different addresses"):
        at("abc:fx", "def")

"""Addresses that may come in, and those that may not."""

from __future__ import annotations

from typing import Any

import pytest

from aigw.errors import ConfigError
from aigw.plugins.ip_filter import IpFilter
from tests.plugged import entry, manager
from tests.walk import CONFIG, GOOD, Walk

ASK = {"model": "fast", "messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize(
    ("table", "address", "status"),
    [
        ({"allow": ["10.0.0.0/8"]}, "10.1.2.3", 200),
        ({"allow": ["10.0.0.0/8"]}, "11.1.2.3", 403),
        ({"allow": ["10.0.0.0/8"]}, "::ffff:10.1.2.3", 200),
        ({"allow": ["2001:db8::/32"]}, "2001:db8::1%eth0", 200),
        ({"allow": ["10.0.0.0/8"], "deny": ["10.1.0.0/16"]}, "10.1.2.3", 403),
        ({"deny": ["10.1.2.3"]}, "10.1.2.3", 403),
        ({"deny": ["10.1.2.3"]}, "10.1.2.4", 200),
        ({"allow": ["10.0.0.0/8"]}, "nonsense", 403),
        ({"deny": ["10.0.0.0/8"]}, "", 200),
    ],
)
async def test_addresses(table: dict[str, Any], address: str, status: int) -> None:
    """Before any key is looked at."""
    near, record = await Walk(CONFIG, GOOD, plugins=manager(entry(IpFilter, table))).ask(ASK, address=address)
    assert near.status == status
    assert record.error == ("" if status == 200 else "policy_plugin_refused")


@pytest.mark.parametrize("table", [{}, {"allow": ["10.0.0.0/99"]}, {"deny": ["example.org"]}])
def test_what_is_no_filter(table: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        entry(IpFilter, table)

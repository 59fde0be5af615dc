"""The operator's plane: for this machine, never for a web page."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.data_port import DEMO, HELLO, Running, serving


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[Running]:
    async with serving(tmp_path) as running:
        yield running


async def test_metrics(port: Running) -> None:
    """They parse, and count what was served."""
    assert (await port.ask("POST", "/v1/chat/completions", HELLO)).status == 200
    answer = await port.operator("/metrics")
    assert (answer.status, answer.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    families = {family.name: family for family in text_string_to_metric_families(answer.body.decode())}
    (sample,) = families["aigw_requests"].samples
    assert sample.value == 1
    assert sample.labels == {"operation": "chat", "provider": "demo", "model": "demo", "outcome": "ok"}
    assert "server" not in answer.headers


async def test_health(port: Running) -> None:
    """For a probe that should not touch the data port."""
    assert (await port.operator("/healthz")).json() == {"status": "ok"}
    assert (await port.operator("/v1/models")).status == 404


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "LOCALHOST:8081", "[::1]:8081", "[::1]", "127.0.0.1:1", "127.9.9.9"]
)
async def test_names_of_this_machine(port: Running, host: str) -> None:
    """With and without a port."""
    assert (await port.operator("/metrics", {"host": host})).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8081", "", "10.0.0.1", "localhost.evil.example", "[::2]", "[", "::"]
)
async def test_a_rebound_name_is_refused(port: Running, host: str) -> None:
    """A web page that points its own name at 127.0.0.1 learns nothing."""
    for path in ("/metrics", "/healthz", "/nothing"):
        answer = await port.operator(path, {"host": host})
        assert answer.status == (421 if host else 400) or (not host and answer.status == 421)
        assert b"# HELP" not in answer.body


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:8081"])
async def test_no_page_may_use_it(port: Running, origin: str) -> None:
    """A browser says where its request comes from; there is no page of ours yet."""
    assert (await port.operator("/metrics", {"origin": origin})).status == 403


async def test_an_address_for_everybody(tmp_path: Path) -> None:
    """Bound to all addresses, every name of the machine is its own."""
    config = DEMO.replace("[admin]", '[admin]\nhost = "0.0.0.0"')
    async with serving(tmp_path, config) as port:
        assert (await port.operator("/metrics", {"host": "gateway.internal:8081"})).status == 200
        assert any("can reach this address" in line for line in port.said)

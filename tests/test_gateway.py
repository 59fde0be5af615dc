"""The builder: from a config to a running gateway, what it hands on to the next one, and what it asks of providers."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from aigw import gateway
from aigw.access.consumer_keys import mint
from aigw.config.load import ConfigErrors, Loaded, load_with_notes
from aigw.config.schema import Config, Storage
from aigw.consumer import Consumer
from aigw.errors import CallerError, ConfigError, GatewayError, InternalError, PolicyError, StoreError, UpstreamError
from aigw.exchange import Record
from aigw.gateway import Gateway, Services, claimant, models_url
from aigw.providers import catalog, compatible
from tests.loopback import Peer, Script, ok, replies, serving


def loaded(folder: Path, config: str) -> Loaded:
    path = folder / "config.toml"
    path.write_text(config)
    path.chmod(0o600)
    return load_with_notes(path)


@pytest.fixture
async def services(tmp_path: Path) -> AsyncIterator[Services]:
    services = Services(Config(), tmp_path / "data")
    yield services
    await services.close()


def resolved(running: Gateway, name: str) -> tuple[str, str]:
    route = running.table.resolve(name)
    return route.targets[0].provider, route.source


# --- building -----------------------------------------------------------------------------------------------------------


async def test_everything_that_is_wrong_is_said_at_once(
    services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With file, line and key, in one go; what depends on a mistake is not complained about besides."""
    monkeypatch.setenv("AIGW_TEST_DIGEST", "sha256:abc")
    config = """[providers.opnai]

[providers.openai]
keys = ["env:AIGW_UNSET_1", "env:AIGW_UNSET_2"]

[providers.deepseek]
keys = ["sk-fine"]
settings = {regoin = "cn"}

[consumers.ci]
key = "env:AIGW_TEST_DIGEST"

[consumers.other]
key = "env:AIGW_UNSET_3"
"""
    with pytest.raises(ConfigErrors) as caught:
        Gateway(loaded(tmp_path, config), services)
    assert [(problem.line, problem.key) for problem in caught.value.problems] == [
        (1, "providers.opnai"),
        (4, "providers.openai.keys[0]"),
        (4, "providers.openai.keys[1]"),
        (8, "providers.deepseek.settings.regoin"),
        (11, "consumers.ci.key"),
        (14, "consumers.other.key"),
    ]
    assert {problem.file for problem in caught.value.problems} == {str(tmp_path / "config.toml")}


async def test_a_provider_of_one_usable_key_and_one_missing(services: Services, tmp_path: Path) -> None:
    """A pool with a hole is a mistake, not a smaller pool."""
    with pytest.raises(ConfigErrors, match=r"providers\.openai\.keys\[1\]"):
        Gateway(loaded(tmp_path, '[providers.openai]\nkeys = ["sk-a", "env:AIGW_UNSET"]\n'), services)


async def test_a_price_that_cannot_be(services: Services, tmp_path: Path) -> None:
    """Found before it serves, with file and line."""
    with pytest.raises(ConfigError) as caught:
        Gateway(loaded(tmp_path, '[providers.demo]\n[prices."openai"]\ninput = 1\n'), services)
    assert (caught.value.line, caught.value.file) == (2, str(tmp_path / "config.toml"))


async def test_secrets_come_from_where_they_are(services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables and files, read when it is built; labels name the keys, reprs and logs never show them."""
    monkeypatch.setenv("AIGW_TEST_KEY", "sk-from-env")
    (tmp_path / "key").write_text("sk-from-file\n")
    config = f'[providers.openai]\nkeys = ["env:AIGW_TEST_KEY", "file:{tmp_path}/key", "sk-literal"]\naccount = "team"\n'
    running = Gateway(loaded(tmp_path, config), services)
    pool = running.pools["openai"]
    assert [(key.label, key.secret, key.account) for key in pool.keys] == [
        ("openai#1", "sk-from-env", "team"),
        ("openai#2", "sk-from-file", "team"),
        ("openai#3", "sk-literal", "team"),
    ]
    assert "sk-" not in repr(pool.keys)
    assert "sk-" not in repr(running.providers)


async def test_a_server_of_ones_own_needs_no_key(services: Services, tmp_path: Path) -> None:
    """It gets a nameless one, so that the walk is the same."""
    config = '[providers.local]\nkind = "vllm"\nbase_url = "http://127.0.0.1:8000/v1"\n'
    running = Gateway(loaded(tmp_path, config), services)
    assert [(key.label, key.secret) for key in running.pools["local"].keys] == [("local", "")]


async def test_the_proxy_may_be_a_reference(services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may hold a password; it shows in no repr."""
    monkeypatch.setenv("AIGW_TEST_PROXY", "http://user:hidden@proxy.corp:3128")
    config = '[upstream]\nproxy = "env:AIGW_TEST_PROXY"\n[providers.openai]\nkeys = ["sk-a"]\n'
    running = Gateway(loaded(tmp_path, config), services)
    request = running.providers["openai"].models_request(running.pools["openai"].keys[0])
    assert request is not None
    assert request.target.origin.proxy == "http://user:hidden@proxy.corp:3128"
    assert "hidden" not in repr(request.target.origin)


# --- from one to the next -----------------------------------------------------------------------------------------------


async def test_a_new_gateway_inherits_rests_and_connections(services: Services, tmp_path: Path) -> None:
    """A key that rests goes on resting; the consumers of the store stay known, those of the config are the new one's."""
    first = Gateway(loaded(tmp_path, '[providers.openai]\nkeys = ["sk-a", "sk-b"]\n[consumers.x]\nkey = "key-x"\n'), services)
    consumer = Consumer(id="c1", name="stored")
    secret, key = mint("c1", now=time.time())
    services.directory.load([consumer], [key], 1)
    limited = UpstreamError("provider_rate_limited", "is busy", fault="account", retry_after=60.0, upstream_status=429)
    first.pools["openai"].failed(first.pools["openai"].keys[1], limited, 100.0)

    second = Gateway(
        loaded(tmp_path, '[providers.openai]\nkeys = ["sk-b", "sk-c"]\n[consumers.y]\nkey = "key-y"\n'), services, first
    )
    assert second.pools["openai"].resting(100.0) == [("openai#1", 60.0, "provider_rate_limited")]
    assert second.hash != first.hash
    authenticate = services.directory.authenticate
    assert authenticate({"x-api-key": secret}).consumer is consumer
    assert authenticate({"x-api-key": "key-y"}).consumer.name == "y"
    with pytest.raises(PolicyError):
        authenticate({"x-api-key": "key-x"})


async def test_one_that_cannot_be_built_takes_nothing_over(services: Services, tmp_path: Path) -> None:
    """Neither consumers nor limits of connections: the old one serves as before."""
    first = Gateway(loaded(tmp_path, '[providers.demo]\n[consumers.x]\nkey = "key-x"\n'), services)
    before = services.http.max_connections
    wrong = '[upstream]\nmax_connections = 5\n[providers.openai]\nkeys = ["env:AIGW_UNSET"]\n[consumers.y]\nkey = "key-y"\n'
    with pytest.raises(ConfigErrors):
        Gateway(loaded(tmp_path, wrong), services, first)
    assert services.http.max_connections == before
    assert services.directory.authenticate({"x-api-key": "key-x"}).consumer.name == "x"


async def test_drained_waits_for_what_began(services: Services, tmp_path: Path) -> None:
    """All of it, whoever waits; at once when there is nothing; and only for its own."""
    running = Gateway(loaded(tmp_path, "[providers.demo]\n"), services)
    async with asyncio.timeout(1):
        await Gateway(loaded(tmp_path, "[providers.demo]\n"), services).drained()
    running.began()
    running.began()
    assert (running.active, services.active) == (2, 2)
    assert running.not_ready() == ""
    waiting = [asyncio.ensure_future(running.drained()) for _ in range(2)]
    await asyncio.sleep(0)
    assert running.not_ready() == "draining"
    running.ended()
    await asyncio.sleep(0.01)
    assert not any(one.done() for one in waiting)
    running.ended()
    async with asyncio.timeout(1):
        await asyncio.gather(*waiting)
    assert (running.active, services.active) == (0, 0)


async def test_not_ready_without_a_provider(services: Services, tmp_path: Path) -> None:
    """It runs, and says so."""
    assert Gateway(loaded(tmp_path, ""), services).not_ready() == "no provider is configured"


def test_a_twin_across_the_border_claims_the_same_names(tmp_path: Path) -> None:
    """Whoever configures the international one means its models."""
    twins = [(name, row.twin) for name in catalog.ids() if (row := catalog.row(name)).twin and row.needs_key]
    assert twins
    for name, twin in twins[:3]:
        config = loaded(tmp_path, f'[providers.{name}]\nkeys = ["sk-a"]\nmodels = ["extra"]\n').config
        try:
            provider = compatible.build(name, config.providers[name], config.upstream, ["sk-a"], environ={})
        except ConfigError:
            continue  # needs settings of its own
        claims = claimant(config, provider)
        assert set(claims.prefixes) >= set(catalog.row(name).prefixes) | set(catalog.row(twin).prefixes)
        assert claims.models == ("extra",)


# --- models that providers list -----------------------------------------------------------------------------------------


def local(port: int) -> str:
    return f'[providers.local]\nkind = "openai-compatible"\nbase_url = "http://127.0.0.1:{port}/v1"\nkeys = ["sk-local"]\n'


def listing(*names: str) -> bytes:
    body = json.dumps({"object": "list", "data": [{"id": name, "object": "model"} for name in names]}).encode()
    return ok(body, b"content-type: application/json")


async def until_asked(accepted: asyncio.Event) -> None:
    async with asyncio.timeout(3):
        await accepted.wait()
    await asyncio.sleep(0.05)


async def test_models_are_asked_and_remembered(services: Services, tmp_path: Path) -> None:
    """With the provider's key, at its address; the next start knows them before it has asked."""
    asked = asyncio.Event()

    async def play(peer: Peer) -> None:
        request = await peer.request()
        assert request.line == b"GET /v1/models HTTP/1.1"
        assert request.headers[b"authorization"] == b"Bearer sk-local"
        await peer.send(listing("llama-9", "qwen-9"))
        asked.set()
        await peer.gone()

    async with serving(play) as server:
        running = Gateway(loaded(tmp_path, local(server.port)), services)
        with pytest.raises(CallerError):
            running.table.resolve("llama-9")
        running.start()
        await until_asked(asked)
        assert resolved(running, "llama-9") == ("local", "live")
        await running.close()
        again = Gateway(loaded(tmp_path, local(server.port)), services)
        assert resolved(again, "qwen-9") == ("local", "live")
        assert server.accepted == 1
        elsewhere = Gateway(loaded(tmp_path, local(server.port + 1)), services)
        with pytest.raises(CallerError):
            elsewhere.table.resolve("qwen-9")


async def closes(peer: Peer) -> None:
    await peer.request()
    peer.close()


REFUSED: dict[str, Script] = {
    "401": replies(b'HTTP/1.1 401 Unauthorized\r\ncontent-length: 24\r\n\r\n{"error":{"message":"k"}}'[:-1]),
    "404": replies(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"),
    "html": replies(ok(b"<html>sk-local</html>", b"content-type: text/html")),
    "no list": replies(ok(b'{"hello":1}')),
    "rubbish": replies(ok(b"\xff\xfe{")),
    "closed": closes,
    "too large": replies(ok(b" " * (gateway.MODELS_MOST + 1))),
}


@pytest.mark.parametrize("script", REFUSED.values(), ids=REFUSED)
async def test_a_provider_that_does_not_list_keeps_its_names(
    services: Services, tmp_path: Path, script: Script, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever it answers instead: the list of before holds, it is asked again later, and nobody is disturbed."""
    caplog.set_level("INFO", "aigw.gateway")
    async with serving(script) as server:
        before = Gateway(loaded(tmp_path, local(server.port)), services)
        services.live_models.save("local", models_url(before.providers["local"]), ["llama-8"], 1.0)
        running = Gateway(loaded(tmp_path, local(server.port)), services)
        running.start()
        async with asyncio.timeout(5):
            while "did not list its models" not in caplog.text:
                await asyncio.sleep(0.005)
        assert resolved(running, "llama-8") == ("local", "live")
        await running.close()
    assert "sk-local" not in caplog.text
    assert [record.levelname for record in caplog.records if record.name == "aigw.gateway"] == ["INFO"]


async def test_one_silent_provider_holds_up_no_other(services: Services, tmp_path: Path) -> None:
    """And an end of the gateway waits for none of them."""
    silent = asyncio.Event()

    async def says_nothing(peer: Peer) -> None:
        await peer.request()
        silent.set()
        await peer.gone()

    async with serving(says_nothing) as server:
        running = Gateway(loaded(tmp_path, local(server.port) + "[providers.demo]\n"), services)
        running.start()
        await until_asked(silent)
        async with asyncio.timeout(1):
            await running.close()


async def test_the_demo_lists_its_model(services: Services, tmp_path: Path) -> None:
    """Without a network: the transport is chosen by scheme."""
    running = Gateway(loaded(tmp_path, '[providers.demo]\n[providers.other]\nkind = "demo"\n'), services)
    running.start()
    async with asyncio.timeout(3):
        while not services.live_models.load("other", models_url(running.providers["other"])):
            await asyncio.sleep(0.005)
    assert resolved(running, "demo")[0] == "demo"
    await running.close()


async def test_operators_may_forbid_to_ask(services: Services, tmp_path: Path) -> None:
    """`list_models = false`: no connection is made, names are those that are written."""
    async with serving(replies()) as server:
        config = local(server.port) + 'list_models = false\nmodels = ["mine"]\n'
        running = Gateway(loaded(tmp_path, config), services)
        running.start()
        await asyncio.sleep(0.05)
        assert server.accepted == 0
        assert models_url(running.providers["local"]) == ""
        assert resolved(running, "mine")[0] == "local"
        await running.close()


def test_a_models_url_holds_no_secret(tmp_path: Path) -> None:
    """It is written to the disk."""
    config = loaded(tmp_path, '[providers.openai]\nkeys = ["sk-a"]\n').config
    provider = compatible.build("openai", config.providers["openai"], config.upstream, ["sk-a"], environ={})
    assert models_url(provider) == "Target(GET https://api.openai.com:443/v1/models)"


# --- what outlives a reload ---------------------------------------------------------------------------------------------


def sql(database: Path, *statements: str) -> None:
    connection = sqlite3.connect(database)
    with connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


async def test_a_store_that_is_down_at_the_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The server starts; no valid key is called invalid meanwhile; when the store answers again its consumers are known
    within a second."""
    services = Services(Config(), tmp_path)
    secret, key = mint("c1", now=time.time())
    await services.store.put_consumer(Consumer(id="c1", name="stored"))
    await services.store.put_key(key)
    database = tmp_path / "aigw.db"
    sql(database, "ALTER TABLE consumer RENAME TO away", 'ALTER TABLE "change" RENAME TO away_too')
    try:
        with pytest.raises(StoreError):
            await services.store.consumers()
        await services.start()
        assert "the consumers could not be read yet" in caplog.text
        with pytest.raises(GatewayError) as caught:
            services.directory.authenticate({"x-api-key": secret})
        assert isinstance(caught.value, InternalError)
        assert caught.value.status == 503
        sql(database, "ALTER TABLE away RENAME TO consumer", 'ALTER TABLE away_too RENAME TO "change"')
        async with asyncio.timeout(2):
            while services.directory.seq is None:
                await asyncio.sleep(0.01)
        assert services.directory.authenticate({"x-api-key": secret}).consumer.name == "stored"
    finally:
        await services.close()


async def test_services_that_cannot_be(tmp_path: Path) -> None:
    """An unknown storage is the operator's mistake; a directory that is a file is the store's."""
    with pytest.raises(ConfigError, match=r"storage\.url"):
        Services(Config(storage=Storage(url="mysql://x")), tmp_path)
    with pytest.raises(ConfigError, match=r"storage\.counters"):
        Services(Config(storage=Storage(counters="memcached://x")), tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError):
        Services(Config(), tmp_path / "file")


async def test_closing_ends_every_task(tmp_path: Path) -> None:
    """And brings the last records to the store."""
    before = asyncio.all_tasks()
    services = Services(Config(), tmp_path)
    await services.start()
    services.journal.write(Record(id="r1", at=1.0))
    await services.close()
    assert asyncio.all_tasks() == before
    again = Services(Config(), tmp_path)
    assert [record.id for record in await again.store.records()] == ["r1"]
    await again.close()


async def test_every_secret_is_known_to_the_scrubber(
    services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it is for and wherever it stands; after a reload the old ones as well. What is no secret (a proxy's address, a
    header's ordinary value, a digest) stays readable."""
    monkeypatch.setenv("PLANTED", "planted-in-env-1")
    monkeypatch.setenv("ALL_PROXY", "http://me:planted-env-proxy@proxy.test:1")
    config = """
[upstream]
proxy = "http://me:planted-proxy@corp.proxy.test:3128"
[providers.openai]
keys = ["planted-literal-1", "env:PLANTED"]
headers = {"x-access-token" = "planted-header-1", "x-team" = "ordinary-value-1"}
[consumers.x]
key = "planted-consumer-1"
[consumers.y]
key = "sha256:DIGEST"
""".replace("DIGEST", "ab" * 32)
    first = Gateway(loaded(tmp_path, config), services)
    planted = ["planted-literal-1", "planted-in-env-1", "planted-proxy", "planted-env-proxy", "planted-header-1"]
    planted.append("planted-consumer-1")
    assert services.scrubber.text(" ".join(planted)) == " ".join(["[redacted]"] * len(planted))
    plain = "corp.proxy.test:3128 ordinary-value-1 openai " + "ab" * 32
    assert services.scrubber.text(plain) == plain
    Gateway(loaded(tmp_path, '[providers.openai]\nkeys = ["planted-anew-0"]\n'), services, first)
    assert services.scrubber.text("planted-anew-0 planted-literal-1") == "[redacted] [redacted]"


# --- keys that are out ----------------------------------------------------------------------------------------------------


async def test_a_key_that_was_called_invalid_is_looked_at(
    services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the free check and without any traffic: out for longer while the provider still refuses it, back at once when it
    does not. Nothing is asked that costs."""
    monkeypatch.setattr(gateway, "CHECK_LOOK", 0.01)
    monkeypatch.setattr(gateway, "CHECK_EVERY", 0.05)
    refused = ok(b'{"error":{"code":"invalid_api_key"}}').replace(b"200 OK", b"401 X")
    fine = ok(b'{"object":"list","data":[{"id":"m-1","object":"model"}]}')
    lines: list[bytes] = []
    good: list[bool] = []

    async def script(peer: Peer) -> None:
        while True:
            request = await peer.request()
            lines.append(request.line)
            has_key = b"sk-mine-000001" in request.headers.get(b"authorization", b"")
            await peer.send(fine if good and has_key else refused)

    async with serving(script) as far:
        config = f'[providers.far]\nkind = "openai-compatible"\nbase_url = "http://127.0.0.1:{far.port}/v1"\n'
        config += 'keys = ["sk-mine-000001"]\n'
        running = Gateway(loaded(tmp_path, config), services)
        pool = running.pools["far"]
        pool.failed(pool.keys[0], UpstreamError("provider_credentials_invalid", "no", fault="key"), time.perf_counter())
        running.start()
        async with asyncio.timeout(10):
            while len(lines) < 2:
                await asyncio.sleep(0.01)
            assert pool.resting(time.perf_counter())
            good.append(True)
            while pool.resting(time.perf_counter()):
                await asyncio.sleep(0.01)
        await running.close()
    assert all(line.startswith(b"GET ") for line in lines)

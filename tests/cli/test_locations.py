from __future__ import annotations

from pathlib import Path

import pytest

from aigw.cli.locations import Locations
from aigw.config.schema import Config, Server
from aigw.consumer import Consumer


@pytest.mark.parametrize(
    ("server", "address"),
    [
        (Server(), "http://127.0.0.1:8080/v1"),
        (Server(host="0.0.0.0", port=9000), "http://127.0.0.1:9000/v1"),
        (Server(host="::"), "http://127.0.0.1:8080/v1"),
        (Server(host="::1"), "http://[::1]:8080/v1"),
        (Server(host="gateway.internal", port=80), "http://gateway.internal:80/v1"),
        (Server(port=0), "http://127.0.0.1:PORT/v1"),
    ],
)
def test_base_url(server: Server, address: str) -> None:
    """What a client on this machine is told, whatever the server binds to."""
    assert Locations().base_url(Config(server=server)) == address


async def test_flags_lead_to_config_and_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The flags beat the environment; the store is made where they say, and closed afterwards."""
    monkeypatch.setenv("AIGW_CONFIG", "/nowhere/config.toml")
    monkeypatch.setenv("AIGW_DATA_DIR", "/nowhere")
    places = Locations()
    places.config, places.data_dir = str(tmp_path / "config.toml"), str(tmp_path / "data")
    (tmp_path / "config.toml").write_text("[server]\nport = 1234\n")
    config = places.load_config()
    assert config.server.port == 1234
    async with places.store(config) as store:
        await store.put_consumer(Consumer(id="a", name="alice"))
    async with places.store(config) as store:
        assert (await store.consumer("alice")) == Consumer(id="a", name="alice")
    assert (places.data_path() / "aigw.db").is_file()

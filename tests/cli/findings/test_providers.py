"""What the doctor says about providers: asked for real, on loopback."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from aigw.cli.findings import providers
from aigw.cli.findings.finding import Finding
from aigw.config.load import parse
from tests.cli.findings import network


def look(text: str, environ: Mapping[str, str] | None = None) -> list[Finding]:
    config = parse(text)
    told: list[tuple[int, int]] = []
    places = providers.places(config, environ or {})
    found = list(providers.findings(providers.ask(places, config.upstream, lambda done, of: told.append((done, of)))))
    assert told[-1] == (len(places), len(places))
    return found


def at(port: int, name: str = "work", keys: str = '"sk-good"', more: str = "") -> str:
    return f'[providers.{name}]\nbase_url = "http://127.0.0.1:{port}/v1"\nkeys = [{keys}]\n{more}'


def test_good_news() -> None:
    """Good keys and the models they open, the clock, the demo."""
    with network.provider() as server:
        found = look(at(server.server_port, keys='"sk-good", "sk-good-too"') + "[providers.demo]\n")
    assert [one.code for one in found] == ["provider_ok", "provider_ok", "clock_ok"]
    assert found[0].what.english == "work: 2 keys are good, 2 models"


@pytest.mark.parametrize(
    ("key", "code", "level"),
    [
        ("sk-bad", "key_wrong", "problem"),
        ("sk-poor", "key_no_credit", "problem"),
        ("sk-busy", "key_limited", "warning"),
    ],
)
def test_keys(key: str, code: str, level: str, tmp_path: Path) -> None:
    """Each kind of bad key, by its label and where it is kept, never itself."""
    file = tmp_path / "key"
    file.write_text(key)
    file.chmod(0o600)
    with network.provider() as server:
        found = look(at(server.server_port, keys=f'"sk-good", "file:{file}"'))
    bad = next(one for one in found if one.code == code)
    assert bad.level == level
    assert f"work#2 (file:{file})" in bad.what.english
    assert key not in str(found)
    assert "sk-good" not in str(found)
    assert bad.next.startswith("aigw providers ")


def test_a_wrong_address() -> None:
    """A server that has no such API there."""
    with network.provider() as server:
        found = look(at(server.server_port).replace("/v1", "/elsewhere/v1"))
    assert (found[0].code, found[0].level) == ("url_wrong", "problem")
    assert found[0].next == "aigw providers show work"


def test_the_same_reason_is_said_once() -> None:
    """Providers that one proxy keeps from us share one finding; another host has its own."""
    with network.proxy(answer=407) as proxy:
        through = f'proxy = "http://127.0.0.1:{proxy.server_port}"\n'
        found = look(at(1, "one", more=through) + at(2, "two", more=through) + at(network.closed(), "three"))
    assert [one.code for one in found] == ["proxy_login", "provider_down"]
    assert found[0].what.english.startswith("one, two: the proxy 127.0.0.1:")


def test_a_login_is_never_shown() -> None:
    """The proxy's user and password are not in what is said."""
    with network.proxy(login="Basic xxx") as proxy:
        found = look(at(1, more=f'proxy = "http://me:geheim@127.0.0.1:{proxy.server_port}"\n'))
    assert found[0].code == "proxy_login"
    assert "refuses the login" in found[0].what.english
    assert "geheim" not in str(found)


def test_the_proxy_of_the_environment_is_for_others() -> None:
    """HTTP_PROXY is not used for this machine itself, as the gateway does not."""
    with network.provider() as server:
        found = look(at(server.server_port), {"HTTP_PROXY": f"http://127.0.0.1:{network.closed()}"})
    assert found[0].code == "provider_ok"


@pytest.mark.parametrize(("ahead", "says"), [(3600, "60 min slow"), (-9 * 86400, "9 d fast")])
def test_the_clock(ahead: float, says: str) -> None:
    """How far off, and in which direction."""
    with network.provider(ahead=ahead) as server:
        clock = look(at(server.server_port))[-1]
    assert (clock.code, clock.level) == ("clock_wrong", "problem")
    assert says in clock.what.english


def test_a_clock_that_is_a_little_off() -> None:
    """Four minutes are nothing."""
    with network.provider(ahead=240) as server:
        assert look(at(server.server_port))[-1].code == "clock_ok"


def test_what_the_config_has_said_already() -> None:
    """A provider whose keys cannot be resolved is not asked."""
    assert providers.places(parse('[providers.openai]\nkeys = ["env:NOPE"]\n'), {}) == []
    (place,) = providers.places(parse('[providers.openai]\nkeys = ["env:NOPE", "env:YES"]\n'), {"YES": "sk-1"})
    assert [key.label for key in place.keys] == ["openai#2"]


def test_offline() -> None:
    """Nobody is asked."""
    places = providers.places(parse(at(1) + "[providers.demo]\n"), os.environ)
    assert [one.what.english for one in providers.unchecked(places)] == ["work, demo: not asked (--offline)"]

"""Proxies: which one leads to a host, and which hosts are reached directly."""

from __future__ import annotations

import pytest

from aigw.errors import ConfigError
from aigw.providers.proxy import goes_directly, is_private, proxy_for, proxy_url


@pytest.mark.parametrize(
    ("host", "port", "no_proxy", "direct"),
    [
        ("api.openai.com", 443, "", False),
        ("api.openai.com", 443, "*", True),
        ("api.openai.com", 443, "openai.com", True),
        ("api.openai.com", 443, ".openai.com", True),
        ("openai.com", 443, ".openai.com", True),
        ("api.openai.com", 443, "*.openai.com", True),
        ("notopenai.com", 443, "openai.com", False),
        ("api.openai.com.evil.example", 443, "openai.com", False),
        ("API.OpenAI.com.", 443, "openai.COM.", True),
        ("api.openai.com", 443, "example.com, openai.com", True),
        ("api.openai.com", 443, "example.com openai.com", True),
        ("api.openai.com", 443, "openai.com:443", True),
        ("api.openai.com", 8443, "openai.com:443", False),
        ("10.1.2.3", 80, "10.0.0.0/8", True),
        ("11.1.2.3", 80, "10.0.0.0/8", False),
        ("10.1.2.3", 80, "10.1.2.3", True),
        ("10.1.2.3", 80, "1.2.3", False),
        ("10.1.2.3", 80, "10.1.2.3:80", True),
        ("10.1.2.3", 81, "10.1.2.3:80", False),
        ("fd00::1", 80, "fd00::/8", True),
        ("fd00::1", 80, "fd00:0::1", True),
        ("fd00::1", 80, "[fd00::1]", True),
        ("fd00::1", 80, "[fd00::1]:80", True),
        ("fd00::1", 80, "[fd00::1]:81", False),
        ("::ffff:10.1.2.3", 80, "10.0.0.0/8", True),
        ("api.internal", 80, "127.0.0.1,.internal", True),
        ("api.openai.com", 443, "10.0.0.0/8", False),
        ("api.openai.com", 443, "999.0.0.0/99,///,:,::,.,*.", False),
    ],
)
def test_exceptions(host: str, port: int, no_proxy: str, direct: bool) -> None:
    """NO_PROXY means what curl and Go take it to mean."""
    assert goes_directly(host, port, no_proxy) is direct


def test_the_config_speaks_before_the_environment() -> None:
    """Provider, then environment; "" is a decision, None is none."""
    environ = {"HTTPS_PROXY": "http://corp:3128", "NO_PROXY": "intern.example"}

    def way(host: str = "api.openai.com", proxy: str | None = None, no_proxy: str | None = None) -> str:
        return proxy_for("https", host, 443, proxy=proxy, no_proxy=no_proxy, environ=environ)

    assert way() == "http://corp:3128"
    assert way(proxy="http://own:8080") == "http://own:8080"
    assert way(proxy="") == ""
    assert way("a.intern.example") == ""
    assert way("a.intern.example", no_proxy="") == "http://corp:3128"
    assert way(proxy="http://own:8080", no_proxy="openai.com") == ""
    assert way(proxy="http://own:8080", no_proxy="example.com") == "http://own:8080"


def test_variables() -> None:
    """Lower case wins, http and https are apart, ALL_PROXY is the last resort."""

    def way(scheme: str, environ: dict[str, str]) -> str:
        return proxy_for(scheme, "host.example", 80, proxy=None, no_proxy=None, environ=environ)

    assert way("https", {"https_proxy": "a:1", "HTTPS_PROXY": "b:2"}) == "http://a:1"
    assert way("http", {"HTTPS_PROXY": "b:2"}) == ""
    assert way("http", {"HTTP_PROXY": "b:2"}) == "http://b:2"
    assert way("http", {"ALL_PROXY": "c:3"}) == "http://c:3"
    assert way("https", {}) == ""


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9", "::1", "LOCALHOST.", "a.localhost"])
def test_this_machine_needs_no_proxy(host: str) -> None:
    """HTTPS_PROXY is for the world; a proxy that the config names is obeyed all the same."""
    assert proxy_for("http", host, 80, proxy=None, no_proxy=None, environ={"http_proxy": "p:1"}) == ""
    assert proxy_for("http", host, 80, proxy="p:1", no_proxy=None, environ={}) == "http://p:1"


def test_url_forms() -> None:
    """One form leaves, whatever came in."""
    assert proxy_url("proxy.corp:3128") == "http://proxy.corp:3128"
    assert proxy_url("http://proxy.corp/") == "http://proxy.corp:80"
    assert proxy_url("HTTP://u:p%40ss@Proxy.Corp:1") == "http://u:p%40ss@proxy.corp:1"
    assert proxy_url("http://[fd00::1]:3128") == "http://[fd00::1]:3128"


@pytest.mark.parametrize(
    "url",
    [
        "socks5://hunter2@p:1",
        "https://hunter2@p:1",
        "http://:1",
        "http://hunter2@p:99999",
        "http://hunter2@p:1/x",
        "http://hunter2@p:1\r\nx: y",
    ],
)
def test_bad_urls_are_refused_without_being_shown(url: str) -> None:
    """A proxy's URL may hold a password."""
    with pytest.raises(ConfigError) as caught:
        proxy_url(url, key="upstream.proxy")
    assert "hunter2" not in str(caught.value)
    assert "upstream.proxy" in str(caught.value)


def test_private_hosts() -> None:
    """What is plainly at home."""
    assert all(
        map(is_private, ["localhost", "127.0.0.1", "10.0.0.5", "192.168.1.2", "gpu-box", "vllm.internal", "fd00::1", "x.local"])
    )
    assert not any(map(is_private, ["api.openai.com", "8.8.8.8", "ollama.com"]))

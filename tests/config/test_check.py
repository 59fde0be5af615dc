"""What a config must mean, beyond its shape."""

from __future__ import annotations

import pytest

from aigw.config import check
from aigw.config.load import ConfigErrors, _parse, parse


def problems(text: str) -> list[str]:
    """Complaints as "key: message", without file and line."""
    try:
        parse(text, "f")
    except ConfigErrors as errors:
        found = errors.problems
    else:
        return []
    assert all(problem.line for problem in found)
    return [f"{problem.key}: {problem.message}" for problem in found]


def warnings(text: str) -> list[str]:
    return [f"{warning.key}: {warning.message}" for warning in _parse(text, "f")[1]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[server]\nport = 65536", "server.port: expected 0 to 65535"),
        ("[server]\nport = -1", "server.port: expected 0 to 65535"),
        ("[admin]\nport = 99999", "admin.port: expected 0 to 65535"),
        ("[admin]\nport = 8080", "admin.port: is the data port too (8080)"),
        ('[server]\nhost = ""', "server.host: expected an address"),
        ('[admin]\nhost = "a b"', "admin.host: expected an address"),
        ("[server]\nworkers = 65", 'server.workers: expected 1 to 64, or "auto"'),
        ("[server]\nworkers = 0", "server.workers: expected 1 to 64"),
        ('[server]\nworkers = "many"', 'server.workers: expected a whole number or "auto", got a string'),
        ("[server]\nmax_body = 0", "server.max_body: expected a number of bytes above 0"),
        ("[server]\ntimeout = nan", "server.timeout: expected a number of seconds above 0"),
        ("[server]\nstall_timeout = inf", "server.stall_timeout: expected a number of seconds above 0"),
        ("[server]\ndrain_timeout = -1", "server.drain_timeout: expected a number of seconds, 0 or more"),
        ("[upstream]\nconnect_timeout = 0", "upstream.connect_timeout: expected a number of seconds above 0"),
        ("[providers.a]\nstream_idle_timeout = -2", "providers.a.stream_idle_timeout: expected a number of seconds above 0"),
        ("[upstream]\nmax_connections = 0", "upstream.max_connections: expected at least 1"),
        ("[upstream]\nca_file = ''", "upstream.ca_file: expected the path of a PEM file"),
        ("[providers.'a/b']", 'providers."a/b": expected a name of letters'),
        ("[providers.'']", 'providers."": expected a name of letters'),
        ("[providers.OpenAI]\n[providers.openai]", "providers.openai: differs from providers.OpenAI in case only"),
        ("[providers.a]\nkind = 'openai-compatible'", "providers.a: has no base_url"),
        ("[providers.a]\nkeys = ['env:A', {key = 'env:A'}]", "providers.a.keys[1]: is the same as keys[0]"),
        ("[providers.a]\nkeys = ['env:A', {key = 'env:B', label = 'a#1'}]", "providers.a.keys[1]: is called 'a#1', as keys[0]"),
        ("[providers.a]\nkeys = [{key = 'env:B', label = '2'}]", "providers.a.keys[0].label: expected letters"),
        ("[providers.a]\nkeys = [{key = 'sk-1', label = 'x-sk-1'}]", "providers.a.keys[0].label: holds the key itself"),
        ("[providers.a]\nkeys = [{key = 'env:B', weight = 0}]", "providers.a.keys[0].weight: expected 1"),
        ("[providers.a]\nkeys = [{key = 'env:B', rpm = 0}]", "providers.a.keys[0].rpm: expected at least 1"),
        ("[providers.a]\nkeys = [{key = 'env:B', models = ['re:(']}]", "providers.a.keys[0].models[0]: not a regular"),
        ("[providers.a]\nkeys = [{key = ''}]", "providers.a.keys[0].key: is empty"),
        ("[providers.a]\nkeys = ['env:A', 'env:A']", "providers.a.keys[1]: is the same as keys[0]"),
        ("[providers.a]\nmodels = ['']", "providers.a.models[0]: expected the name of a model"),
        ("[providers.a]\nheaders = {'a b' = ''}", 'providers.a.headers."a b": expected the name of an HTTP header'),
        (
            "[providers.a]\nheaders = {Content-Length = '1'}",
            "providers.a.headers.Content-Length: is written by the gateway itself",
        ),
        ('[providers.a]\nheaders = {x = "a\\r\\nb"}', "providers.a.headers.x: holds a control character"),
        ("[routes.a]\ntargets = []", "routes.a.targets: is empty"),
        ("[routes.a]\ntargets = [{provider = 'p', weight = 0}]\n[providers.p]", "routes.a.targets: every weight is 0"),
        ("[routes.a]\nretries = -1\ntargets = [{provider = 'p'}]\n[providers.p]", "routes.a.retries: expected 0 or more"),
        ("[routes.a]\ntargets = [{provider = 'p', model = ''}]\n[providers.p]", "routes.a.targets[0].model: expected the name"),
        (
            "[routes.a]\ntargets = [{provider = 'p'}]",
            'routes.a.targets[0].provider: no provider "p" is configured; add a table',
        ),
        ("[routes.' a']\ntargets = [{provider = 'p'}]\n[providers.p]", 'routes." a": expected the name of a model, without'),
        ("[limits]\nrpm = -1", "limits.rpm: expected 0 (no limit) or more"),
        ("[consumers.a]\nkey = 'x'\nconcurrency = -1", "consumers.a.concurrency: expected 0 (no limit) or more"),
        ("[consumers.a]\nkey = ''", "consumers.a.key: is empty"),
        ("[consumers.a]\nkey = 'sha256:abc'", "consumers.a.key: expected 64 hex digits"),
        ("[consumers.a]\nkey = 'env:K'\n[consumers.b]\nkey = 'env:K'", "consumers.b.key: is the key of consumers.a too"),
        ("[consumers.' ']\nkey = 'x'", 'consumers." ": expected a name'),
        ("[prices.qwen]\ninput = 1", 'prices.qwen: expected "provider/model"'),
        ("[prices.'a/b']\ninput = -1", 'prices."a/b".input: expected an amount of money, 0 or more'),
        ("[prices.'a/b']\ninput = nan", 'prices."a/b".input: expected an amount of money, 0 or more'),
        ("[storage]\njournal = -1", "storage.journal: expected a number of bytes, 0 or more"),
        ("[storage]\nurl = 'mysql://h/db'", 'storage.url: expected "sqlite:"'),
        ("[storage]\nurl = 'sqlite'", 'storage.url: expected "sqlite:"'),
        ("[storage]\ncounters = 'memcached://h'", 'storage.counters: expected "memory" or "redis://'),
        ("[storage]\ncounters = 'disk'", 'storage.counters: expected "memory"'),
        ("[storage]\nrecords = -1", "storage.records: expected a number of seconds, 0 or more"),
    ],
)
def test_one_mistake(text: str, expected: str) -> None:
    """Each is one complaint, at its key, with what was expected."""
    found = problems(text)
    assert len(found) == 1
    assert found[0].startswith(expected)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "[::1]", "localhost", "LOCALHOST"])
def test_keyless_on_loopback(host: str) -> None:
    """Without keys only this machine may call."""
    assert problems(f'[server]\nhost = "{host}"\n[auth]\nrequired = false') == []


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "192.168.1.2", "example.com", "localhost.example.com", "127.0.0.1.example.com"]
)
def test_keyless_anywhere_else_is_refused(host: str) -> None:
    """The complaint says why and what to do; with keys the same host is fine."""
    (complaint,) = problems(f'[server]\nhost = "{host}"\n[auth]\nrequired = false')
    assert complaint.startswith("auth.required: false is allowed on a loopback address only")
    assert 'expected required = true, or host = "127.0.0.1"' in complaint
    assert problems(f'[server]\nhost = "{host}"') == []


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https://user:pw@api.example.com/v1", "holds a user or password"),
        ("ftp://api.example.com", "expected a URL that begins with http:// or https://"),
        ("api.example.com/v1", "expected a URL that begins with http:// or https://"),
        ("https://", "names no host or port"),
        ("https:///v1", "names no host or port"),
        ("https://h:99999/v1", "is not a URL"),
        ("https://[::1/v1", "is not a URL"),
        ("https://h/v1?api-version=1", "holds a query or a fragment"),
        ("https://h/v1#x", "holds a query or a fragment"),
        ("https://h/v1\\r\\nx: y", "holds a space, a control character"),
        ("https://h/v 1", "holds a space, a control character"),
        ("https://h/v1/chat/completions", "names an endpoint; expected the URL before /chat/completions"),
        ("", "expected a URL that begins with http:// or https://"),
    ],
)
def test_base_urls_that_cannot_be_used(url: str, reason: str) -> None:
    """Both base URLs of a provider are held to the same."""
    for field in ("base_url", "anthropic_base_url"):
        (complaint,) = problems(f'[providers.a]\n{field} = "{url}"')
        assert complaint.startswith(f"providers.a.{field}: {reason}")


@pytest.mark.parametrize(
    "url",
    [
        "https://api.example.com/v1",
        "http://127.0.0.1:8000/v1/",
        "https://[::1]:8443",
        "https://{resource}.example.com/openai/v1",
    ],
)
def test_base_urls_that_can(url: str) -> None:
    """Ports, IPv6, placeholders of a row's settings."""
    assert problems(f'[providers.a]\nbase_url = "{url}"') == []


def test_proxies() -> None:
    """http:// with or without a user, a reference, or "" to go directly; what is not served yet is said so."""
    for fine in ("http://proxy:3128", "http://u:p@10.0.0.1:3128/", "http://proxy", "env:HTTPS_PROXY", "file:~/proxy", ""):
        assert problems(f'[upstream]\nproxy = "{fine}"\n[providers.a]\nproxy = "{fine}"') == []
    for wrong, reason in (
        ("socks5://h:1080", "socks5:// proxies are not served yet"),
        ("https://h:1", "https:// proxies are not served yet"),
        ("proxy:3128", "expected http://"),
        ("http://h:1/path", "expected http://"),
        ("http://:3128", "expected http://"),
        ("http://h:1 ", "holds a space"),
        ("http://h:x", "is not a URL"),
    ):
        found = problems(f'[upstream]\nproxy = "{wrong}"\n[providers.a]\nproxy = "{wrong}"')
        assert [complaint.partition(": ")[0] for complaint in found] == ["upstream.proxy", "providers.a.proxy"]
        assert all(reason in complaint for complaint in found)
        assert check.proxy_complaint(wrong) in found[0]


def test_two_spellings_of_one_route() -> None:
    """A stutter in a glob is the same glob; names that differ in case are fine while they mean the same."""
    head = "[providers.p]\n[providers.q]\n"
    route = '[routes."{}"]\ntargets = [{{provider = "{}"}}]\n'.format
    assert problems(head + route("gpt-*", "p") + route("gpt-**", "p")) == [
        'routes."gpt-**": is a second spelling of routes."gpt-*"; expected one route for it'
    ]
    assert problems(head + route("GPT-6", "p") + route("gpt-6", "q")) == [
        "routes.gpt-6: is a second spelling of routes.GPT-6; expected one route for it"
    ]
    assert problems(head + route("GPT-6", "p") + route("gpt-6", "p") + route("re:A", "p") + route("re:a", "q")) == []


def test_a_target_that_is_not_configured_gets_the_nearest() -> None:
    """Targets and fallbacks, by name."""
    head = "[providers.openai]\n[providers.deepseek]\n"
    assert problems(head + '[routes.a]\ntargets = [{provider = "OpenAI"}]\nfallback = [{provider = "zzz"}]') == [
        'routes.a.targets[0].provider: no provider "OpenAI" is configured; did you mean "openai"?',
        'routes.a.fallback[0].provider: no provider "zzz" is configured; expected one of deepseek, openai',
    ]


def test_what_is_only_doubtful() -> None:
    """Warnings, not errors: metrics for everybody, keys in clear text, a weight without effect."""
    assert warnings('[admin]\nhost = "0.0.0.0"') == [
        "admin.host: the metrics are readable for everybody who can reach this address"
    ]
    assert warnings('[providers.a]\nkeys = ["k"]\nbase_url = "http://api.example.com/v1"') == [
        "providers.a.base_url: keys travel over http:// in clear text; https:// keeps them to yourself"
    ]
    assert warnings(
        '[routes.a]\ntargets = [{provider = "p"}]\nfallback = [{provider = "p", model = "m", weight = 2}]\n[providers.p]'
    ) == ["routes.a.fallback[0].weight: has no effect: fallbacks are tried in order"]
    for near in ("127.0.0.1:1", "10.1.2.3", "vllm:8000", "gpu.internal", "[::1]"):
        assert warnings(f'[providers.a]\nkeys = ["k"]\nbase_url = "http://{near}/v1"') == []
    assert warnings("") == []


def test_every_place_of_a_secret_is_known() -> None:
    """`references` lists keys, proxies by reference and consumers' keys, each with its path."""
    config = parse(
        '[providers.a]\nkeys = ["env:A", "lit"]\nproxy = "env:P"\n'
        '[upstream]\nproxy = "http://h:1"\n[consumers.c]\nkey = "file:/c"'
    )
    assert check.references(config) == [
        (("providers", "a", "keys", 0), "env:A"),
        (("providers", "a", "keys", 1), "lit"),
        (("providers", "a", "proxy"), "env:P"),
        (("consumers", "c", "key"), "file:/c"),
    ]

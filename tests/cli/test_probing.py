"""Keys are checked over real connections, with the config's proxy and authorities."""

from __future__ import annotations

import socket
import ssl
import time

import pytest
import trustme

from aigw.cli import probing
from aigw.config import schema
from tests.cli.emulated import BAD_KEY, BUSY, KEY, MODELS, NO_MONEY, PAGE, Answer, Emulated, Reply, guarded
from tests.loopback import ok, replies, serving

NONE = schema.Upstream()


@pytest.mark.parametrize(
    ("answer", "key", "kind"),
    [
        (guarded(MODELS), KEY, "good"),
        (guarded(MODELS), "sk-other", "wrong_key"),
        (MODELS, KEY, "unknown"),
        (NO_MONEY, KEY, "no_credit"),
        (BUSY, KEY, "limited"),
        (PAGE, KEY, "wrong_url"),
        (Reply(302, b"", {"location": "https://x.test/"}), KEY, "wrong_url"),
        (Reply(404, {"detail": "Not Found"}), KEY, "wrong_url"),
        (Reply(500, {"error": {"message": "oops"}}), KEY, "unknown"),
    ],
)
def test_every_verdict(answer: Answer, key: str, kind: str) -> None:
    """A server of one's own, asked for its models."""
    with Emulated({"GET /v1/models": answer}) as far:
        table = schema.Provider(kind="openai-compatible", base_url=far.url)
        verdict = probing.check_key("gpu", table, NONE, key, timeout=5)
    assert verdict.kind == kind
    assert verdict.models == (("small-1", "large-1") if answer is MODELS or kind == "good" else ())
    assert key not in verdict.detail


def test_a_row_of_the_catalog_behind_another_address() -> None:
    """The row's own way of checking moves with its base URL."""
    answers = {"GET /user/balance": guarded(Reply(200, {"is_available": True})), "GET /models": guarded(MODELS)}
    with Emulated(answers) as far:
        verdict = probing.check_key("deepseek", schema.Provider(base_url=far.root), NONE, KEY, timeout=5)
        assert [asked.path for asked in far.asked] == ["/user/balance", "/models"]
    assert verdict == ("good", "", ("small-1", "large-1"))


def test_nothing_listens_there() -> None:
    """A closed port and a name that does not exist are wrong addresses; the message names them."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        table = schema.Provider(kind="vllm", base_url=f"http://127.0.0.1:{port}/v1")
        verdict = probing.check_key("gpu", table, NONE, KEY, timeout=5)
    assert verdict.kind == "wrong_url"
    assert str(port) in verdict.detail
    verdict = probing.check_key("gpu", schema.Provider(kind="vllm", base_url="http://no.such.invalid/v1"), NONE, KEY, timeout=5)
    assert verdict.kind == "wrong_url"


def test_plain_http_where_tls_was_expected() -> None:
    """https:// to a server that speaks none is told as such."""
    with Emulated({"GET /v1/models": MODELS}) as far:
        table = schema.Provider(kind="vllm", base_url=f"https://127.0.0.1:{far.port}/v1")
        verdict = probing.check_key("gpu", table, NONE, KEY, timeout=5)
    assert verdict.kind == "wrong_url"
    assert "http://" in verdict.detail


async def test_the_authorities_of_the_config_are_trusted(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Without `ca_file` the certificate is doubted, which says nothing about key or address; with it all is well."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    file = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    models = b'{"data": [{"id": "a"}]}'
    refused = b"HTTP/1.1 401 X\r\ncontent-length: 2\r\n\r\n{}"
    async with serving(replies(ok(models), refused), tls=context) as server:
        table = schema.Provider(kind="vllm", base_url=f"https://localhost:{server.port}/v1")
        doubted = await probing.checked("gpu", table, NONE, KEY, within=5)
        trusted = await probing.checked("gpu", table, schema.Upstream(ca_file=str(file)), KEY, within=5)
    assert (doubted.kind, trusted.kind) == ("unknown", "good")
    assert "ca_file" in doubted.detail


def test_the_proxy_of_the_config_is_used() -> None:
    """Plain HTTP goes to the proxy with its whole URL; one that wants a login is not taken for the provider."""
    with Emulated(otherwise=guarded(MODELS)) as proxy:
        table = schema.Provider(kind="vllm", base_url="http://far.test/v1")
        upstream = schema.Upstream(proxy=proxy.root)
        assert probing.check_key("gpu", table, upstream, KEY, timeout=5).kind == "good"
        assert proxy.asked[0].path == "http://far.test/v1/models"
        proxy.otherwise = Reply(407, b"")
        verdict = probing.check_key("gpu", table, upstream, KEY, timeout=5)
        assert (verdict.kind, "login" in verdict.detail) == ("unknown", True)
        verdict = probing.check_key("gpu", schema.Provider(base_url="https://far.test/v1"), upstream, KEY, timeout=5)
        assert (verdict.kind, "proxy" in verdict.detail) == ("unknown", True)


def test_the_time_is_kept() -> None:
    """A server that accepts and is silent costs the timeout, and is no proof against the key."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        table = schema.Provider(kind="vllm", base_url=f"http://127.0.0.1:{silent.getsockname()[1]}/v1")
        verdict = probing.check_key("gpu", table, NONE, KEY, timeout=0.5)
    assert verdict.kind == "unknown"
    assert time.monotonic() - began < 2


def test_what_is_wrong_with_the_table_is_said() -> None:
    """No exception: a missing setting, an unknown kind, a protocol that is not served."""
    for name, table, why in [
        ("azure", schema.Provider(), "resource"),
        ("x", schema.Provider(kind="nonsense"), "unknown kind"),
    ]:
        verdict = probing.check_key(name, table, NONE, KEY)
        assert verdict.kind == "unknown"
        assert why in verdict.detail


def test_the_demo_needs_no_network() -> None:
    """It is always good."""
    assert probing.check_key("demo", schema.Provider(), NONE, "").kind == "good"


async def test_a_model_is_asked_for_a_word() -> None:
    """One real request, and its usage."""
    chat = Reply(200, {"choices": [{"message": {"content": "hello"}}], "usage": {"prompt_tokens": 5}})
    with Emulated({"POST /v1/chat/completions": guarded(chat)}) as far:
        table = schema.Provider(kind="vllm", base_url=far.url)
        verdict = await probing.checked("gpu", table, NONE, KEY, model="m-1", within=5)
        assert far.asked[0].json["model"] == "m-1"
        assert verdict.kind == "good"
        assert (await probing.checked("gpu", table, NONE, "sk-no", model="m-1", within=5)).kind == "wrong_key"
    assert BAD_KEY.status == 401

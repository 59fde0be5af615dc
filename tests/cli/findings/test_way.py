"""The way to a provider, and every place where it can end."""

from __future__ import annotations

import base64
import datetime as dt
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from aigw.cli.findings.way import issuer_of, walk
from aigw.exchange import Origin
from tests.cli.findings import network

WAIT = 0.5


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA(organization_name="Mallory Inspection Ltd")


@pytest.fixture(scope="module")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("tls") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


def context(authority: trustme.CA, name: str = "127.0.0.1", *, expired: bool = False) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if expired:
        yesterday = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
        authority.issue_cert(name, not_before=yesterday - dt.timedelta(days=9), not_after=yesterday).configure_cert(made)
    else:
        authority.issue_cert(name).configure_cert(made)
    return made


@pytest.fixture
def secure(authority: trustme.CA) -> Iterator[int]:
    with network.provider(tls=context(authority)) as server:
        yield server.server_port


@pytest.mark.parametrize("ahead", [0.0, 4000.0, -86400.0])
def test_an_open_way(ahead: float) -> None:
    """It ends at the provider, with its clock, to the second; no key and no path of an API was sent."""
    with network.provider(ahead=ahead) as server:
        way = walk(Origin("http", "127.0.0.1", server.server_port), WAIT)
        assert server.seen == ["HEAD /"]
    assert way.code == ""
    assert way.ahead == pytest.approx(ahead, abs=2)


def test_tls(secure: int, ca_file: str) -> None:
    """With the authority in `ca_file` the certificate is good."""
    way = walk(Origin("https", "127.0.0.1", secure, ca_file=ca_file), WAIT)
    assert (way.code, way.ahead) == ("", pytest.approx(0, abs=2))


def test_nobody_listens() -> None:
    """A closed port: the provider is down."""
    way = walk(Origin("http", "127.0.0.1", network.closed()), WAIT)
    assert (way.code, way.detail) == ("provider_down", "Connection refused")


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_nobody_answers(scheme: str) -> None:
    """A connection, and then silence: not for longer than it was told to wait."""
    with network.deaf() as port:
        assert walk(Origin(scheme, "127.0.0.1", port), 0.2).code == "provider_silent"


def test_no_such_name() -> None:
    """A name that cannot exist (RFC 6761)."""
    assert walk(Origin("https", "api.invalid", 443), WAIT).code == "host_unknown"


def test_an_unknown_authority(secure: int) -> None:
    """A proxy that opens TLS, or a server of one's own: the certificate is not trusted, and who signed it is named."""
    way = walk(Origin("https", "127.0.0.1", secure), WAIT)
    assert way.code == "certificate_unknown"
    assert way.issuer == "Mallory Inspection Ltd"
    assert way.ahead == pytest.approx(0, abs=2)


def test_the_name_of_another(authority: trustme.CA, ca_file: str) -> None:
    """A trusted certificate for another host."""
    with network.provider(tls=context(authority, "example.org")) as server:
        assert walk(Origin("https", "127.0.0.1", server.server_port, ca_file=ca_file), WAIT).code == "certificate_name"


def test_out_of_date(authority: trustme.CA, ca_file: str) -> None:
    """An expired certificate: the provider's clock is read all the same, for it may be ours that is wrong."""
    with network.provider(tls=context(authority, expired=True), ahead=-86400) as server:
        way = walk(Origin("https", "127.0.0.1", server.server_port, ca_file=ca_file), WAIT)
    assert (way.code, way.ahead) == ("certificate_date", pytest.approx(-86400, abs=2))


def test_no_tls_there() -> None:
    """An http server behind an https:// address."""
    with network.provider() as server:
        assert walk(Origin("https", "127.0.0.1", server.server_port), WAIT).code == "tls_failed"


def test_a_ca_file_that_is_none(secure: int, tmp_path: Path) -> None:
    """Missing, or no certificate in it: its name is said."""
    wrong = tmp_path / "wrong.pem"
    for _ in range(2):
        way = walk(Origin("https", "127.0.0.1", secure, ca_file=str(wrong)), WAIT)
        assert (way.code, str(wrong) in way.detail) == ("ca_file_wrong", True)
        wrong.write_text("no certificate")


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_wants_a_login(scheme: str, secure: int, ca_file: str) -> None:
    """407 without the login and with a wrong one; through with the right one."""
    right = "Basic " + base64.b64encode(b"me:my pass").decode()
    with network.provider() as plain, network.proxy(login=right) as proxy:
        port = secure if scheme == "https" else plain.server_port
        for user in ("", "me:wrong@"):
            way = walk(Origin(scheme, "127.0.0.1", port, f"http://{user}127.0.0.1:{proxy.server_port}", ca_file), WAIT)
            assert (way.code, way.detail) == ("proxy_login", "407, Basic")
        way = walk(Origin(scheme, "127.0.0.1", port, f"http://me:my%20pass@127.0.0.1:{proxy.server_port}", ca_file), WAIT)
        assert way.code == ""


@pytest.mark.parametrize(("status", "code"), [(403, "proxy_refuses"), (502, "proxy_far_side"), (504, "proxy_far_side")])
def test_a_proxy_that_does_not_go_there(status: int, code: str) -> None:
    """It forbids the host, or cannot reach it."""
    with network.proxy(answer=status) as proxy:
        way = walk(Origin("https", "api.invalid", 443, f"http://127.0.0.1:{proxy.server_port}"), WAIT)
        assert (way.code, way.detail) == (code, str(status))
        assert proxy.seen == ["CONNECT api.invalid:443"]


def test_a_proxy_that_opens_tls(secure: int) -> None:
    """The name is right, the proxy leads to an inspector instead, whose authority nobody knows."""
    with network.proxy(to=("127.0.0.1", secure)) as proxy:
        way = walk(Origin("https", "api.invalid", 443, f"http://127.0.0.1:{proxy.server_port}"), WAIT)
    assert (way.code, bool(way.issuer)) == ("certificate_unknown", True)


def test_a_proxy_that_is_not_there() -> None:
    """Down, silent, or no such name: the proxy is at fault, not the provider."""
    assert walk(Origin("https", "api.invalid", 443, f"http://127.0.0.1:{network.closed()}"), WAIT).code == "proxy_down"
    assert walk(Origin("https", "api.invalid", 443, "http://proxy.invalid:3128"), WAIT).code == "proxy_unknown"
    with network.deaf() as port:
        assert walk(Origin("https", "api.invalid", 443, f"http://127.0.0.1:{port}"), 0.2).code == "proxy_down"


def test_the_issuer_of_nonsense() -> None:
    """Whatever the bytes are, there is an answer."""
    assert issuer_of(b"") == ""
    assert issuer_of(b"\x06\x03\x55\x04\x03\x0c\xff\x17\x0d000000000000Z") == ""

"""Row providers: an operator's table becomes requests with the right wire, and mistakes are explained at the start."""

from __future__ import annotations

import time

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from aigw import __version__
from aigw.config import schema
from aigw.deployment import ProviderKey
from aigw.errors import CallerError, ConfigError, UpstreamError
from aigw.exchange import UpstreamRequest
from aigw.protocols.operations import OPERATIONS
from aigw.providers.compatible import CompatibleProvider, build

SECRET = "sk-upstream-0123456789"
KEY = ProviderKey("p#1", SECRET)
CHAT, MESSAGES, RESPONSES = OPERATIONS["chat"], OPERATIONS["messages"], OPERATIONS["responses"]
NONE: dict[str, str] = {}


def made(
    name: str,
    *,
    keys: tuple[str, ...] = (SECRET,),
    environ: dict[str, str] | None = None,
    upstream: schema.Upstream | None = None,
    **table: object,
) -> CompatibleProvider:
    return build(name, schema.Provider(**table), upstream or schema.Upstream(), keys, environ=environ)  # type: ignore[arg-type]


def head(request: UpstreamRequest) -> dict[str, str]:
    """The request's headers as the other side would read them."""
    lines = (request.target.wire + request.extra).decode("ascii").split("\r\n")
    assert lines[-1] == ""
    pairs = [line.partition(": ")[::2] for line in lines[1:-1]]
    assert len(dict(pairs)) == len(pairs), "a header twice"
    return dict(pairs)


def test_a_chat_request() -> None:
    """Line by line what goes out."""
    request = made("openai").prepare(CHAT, b"{}", KEY, NONE)
    assert request.body == b"{}"
    assert request.target.wire.decode() == (
        "POST /v1/chat/completions HTTP/1.1\r\n"
        "host: api.openai.com\r\n"
        f"authorization: Bearer {SECRET}\r\n"
        f"user-agent: aigw/{__version__}\r\n"
        "accept: */*\r\n"
        "accept-encoding: identity\r\n"
        "content-type: application/json\r\n"
    )
    assert request.extra == b""
    assert (request.connect_timeout, request.first_byte_timeout, request.idle_timeout, request.timeout) == (
        10.0,
        600.0,
        300.0,
        3600.0,
    )


@pytest.mark.parametrize(
    ("name", "table", "operation", "header", "value"),
    [
        ("anthropic", {}, MESSAGES, "x-api-key", SECRET),
        ("anthropic", {}, MESSAGES, "anthropic-version", "2023-06-01"),
        ("azure", {"settings": {"resource": "r"}}, CHAT, "api-key", SECRET),
        ("azure", {"settings": {"resource": "r"}}, MESSAGES, "api-key", SECRET),
        ("gemini", {}, CHAT, "authorization", f"Bearer {SECRET}"),
        ("deepseek", {}, MESSAGES, "authorization", f"Bearer {SECRET}"),
        ("openai", {"settings": {"organization": "org-1"}}, CHAT, "openai-organization", "org-1"),
        ("openai", {"headers": {"X-Team": "blue"}}, CHAT, "x-team", "blue"),
        ("openai", {"headers": {"Authorization": "Custom 1"}}, CHAT, "authorization", "Custom 1"),
    ],
)
def test_credentials_and_headers(name: str, table: dict[str, object], operation: object, header: str, value: str) -> None:
    """The row's way to show a key, the operator's own headers."""
    assert head(made(name, **table).prepare(operation, b"", KEY, NONE))[header] == value  # type: ignore[arg-type]


def test_a_keyless_server() -> None:
    """A local server is built and asked without a key, and with one when it wants it."""
    provider = made("ollama", keys=())
    for key in (None, ProviderKey("ollama", "")):
        assert "authorization" not in head(provider.prepare(CHAT, b"", key, NONE))
    assert head(provider.prepare(CHAT, b"", KEY, NONE))["authorization"] == f"Bearer {SECRET}"


def test_of_the_callers_headers_only_the_dialects_own_go_on() -> None:
    """Credentials, cookies, forwarding headers and SDK telemetry stay here."""
    caller = CIMultiDictProxy(
        CIMultiDict(
            {
                "Host": "gateway",
                "Authorization": "Bearer sk-aigw-consumer",
                "X-Api-Key": "sk-aigw-consumer",
                "Cookie": "a=b",
                "X-Forwarded-For": "1.2.3.4",
                "User-Agent": "OpenAI/Python",
                "X-Stainless-Lang": "python",
                "OpenAI-Organization": "org-caller",
                "OpenAI-Beta": "assistants=v2",
                "Idempotency-Key": "abc",
                "Anthropic-Version": "2026-10-21",
                "Transfer-Encoding": "chunked",
            }
        )
    )
    plain = head(made("openai").prepare(CHAT, b"", KEY, NONE))
    assert head(made("openai").prepare(CHAT, b"", KEY, caller)) == plain | {
        "openai-beta": "assistants=v2",
        "idempotency-key": "abc",
    }
    assert head(made("openai").prepare(RESPONSES, b"", KEY, caller)) == plain | {
        "openai-beta": "assistants=v2",
        "idempotency-key": "abc",
    }
    said = head(made("deepseek").prepare(MESSAGES, b"", KEY, caller))
    assert said["anthropic-version"] == "2026-10-21"
    assert said["idempotency-key"] == "abc"
    assert "sk-aigw" not in str(said)
    assert "openai-beta" not in said


def test_betas_of_operator_and_caller_are_joined() -> None:
    """Neither silences the other, nothing is said twice, and several lines count as one list."""
    provider = made("anthropic", settings={"anthropic_beta": "a-1,b-2", "anthropic_version": "2026-10-21"})
    said = head(provider.prepare(MESSAGES, b"", KEY, NONE))
    assert (said["anthropic-beta"], said["anthropic-version"]) == ("a-1,b-2", "2026-10-21")
    caller = CIMultiDict([("anthropic-beta", "b-2, c-3"), ("anthropic-version", "2023-06-01")])
    for _ in range(2):
        said = head(provider.prepare(MESSAGES, b"", KEY, caller))
        assert (said["anthropic-beta"], said["anthropic-version"]) == ("a-1,b-2,c-3", "2023-06-01")
    caller.add("anthropic-beta", "d-4")
    assert head(provider.prepare(MESSAGES, b"", KEY, caller))["anthropic-beta"] == "a-1,b-2,c-3,d-4"


@pytest.mark.parametrize("value", ["a\r\nx-evil: 1", "a\nb", "a\x00b", "é", "a\x7f", "\ud800", "x" * 3000])
@pytest.mark.parametrize("header", ["anthropic-beta", "anthropic-version", "idempotency-key"])
def test_no_header_can_be_smuggled(header: str, value: str) -> None:
    """A value that is no header value is the caller's mistake."""
    with pytest.raises(CallerError, match=header):
        made("anthropic").prepare(MESSAGES, b"", KEY, {header: value})


def test_callers_cannot_fill_the_memory() -> None:
    """Rendered headers are remembered up to a bound, and per-request ones never."""
    provider = made("anthropic")
    for number in range(2000):
        provider.prepare(MESSAGES, b"", KEY, {"anthropic-beta": f"beta-{number}"})
        provider.prepare(MESSAGES, b"", KEY, {"idempotency-key": f"key-{number}"})
    assert len(provider._extras) <= 512
    assert len(provider._targets) == 1


def test_each_key_is_sent_for_itself() -> None:
    """Targets are remembered, and never for another secret."""
    provider = made("openai", keys=("sk-one-00000000", "sk-two-00000000"))
    one, two = ProviderKey("openai#1", "sk-one-00000000"), ProviderKey("openai#2", "sk-two-00000000")
    assert provider.prepare(CHAT, b"", one, NONE).target is provider.prepare(CHAT, b"", one, NONE).target
    assert head(provider.prepare(CHAT, b"", two, NONE))["authorization"] == "Bearer sk-two-00000000"
    renamed = ProviderKey("openai#1", "sk-two-00000000")
    assert head(provider.prepare(CHAT, b"", renamed, NONE))["authorization"] == "Bearer sk-two-00000000"


def test_what_is_served() -> None:
    """Each surface where the row has it; never a guess between dialects."""
    assert made("openai").dialect_for(CHAT) == "openai_chat"
    assert made("openai").dialect_for(RESPONSES) == "openai_responses"
    assert made("openai").dialect_for(MESSAGES) is None
    assert made("anthropic").dialect_for(CHAT) is None
    assert made("anthropic").dialect_for(MESSAGES) == "anthropic_messages"
    assert made("deepseek").dialect_for(MESSAGES) == "anthropic_messages"
    assert made("deepseek").dialect_for(RESPONSES) is None
    assert made("demo", keys=()).dialect_for(MESSAGES) == "anthropic_messages"
    plain = [one for one in OPERATIONS.values() if one.door and "{" not in one.path]
    plain = [one for one in plain if not (one.below or one.form or one.placed)]
    assert all(made("demo", keys=()).dialect_for(operation) == operation.dialect for operation in plain)
    with pytest.raises(CallerError, match="does not serve /messages"):
        made("openai").prepare(MESSAGES, b"", KEY, NONE)


def test_the_demo_never_leaves_the_process() -> None:
    """Its origin is no address."""
    request = made("demo", keys=(), environ={"ALL_PROXY": "http://p:1"}).prepare(MESSAGES, b"", None, NONE)
    assert (request.target.origin.scheme, request.target.origin.host, request.target.origin.proxy) == ("demo", "demo", "")
    assert request.target.path == "/messages"


def test_timeouts_go_from_narrow_to_wide() -> None:
    """The provider's, else [upstream]'s, else ours; each for itself."""
    upstream = schema.Upstream(connect_timeout=3, timeout=60)
    request = made("openai", upstream=upstream, connect_timeout=1, stream_idle_timeout=5).prepare(CHAT, b"", KEY, NONE)
    assert (request.connect_timeout, request.first_byte_timeout, request.idle_timeout, request.timeout) == (
        1.0,
        600.0,
        5.0,
        60.0,
    )


def test_the_way_out() -> None:
    """Proxy and trust: the provider's, else [upstream]'s, else the environment's."""

    def origin(**more: object) -> tuple[str, str]:
        target = made("openai", **more).prepare(CHAT, b"", KEY, NONE).target  # type: ignore[arg-type]
        return target.origin.proxy, target.origin.ca_file

    environ = {"HTTPS_PROXY": "http://env:1", "CORP": "http://u:p@corp:3"}
    wide = schema.Upstream(proxy="http://up:2", ca_file="/up.pem", no_proxy=".internal")
    assert origin() == ("", "")
    assert origin(environ=environ) == ("http://env:1", "")
    assert origin(environ=environ, upstream=wide) == ("http://up:2", "/up.pem")
    assert origin(environ=environ, upstream=wide, proxy="", ca_file="/own.pem") == ("", "/own.pem")
    assert origin(environ=environ, proxy="env:CORP") == ("http://u:p@corp:3", "")
    assert origin(upstream=wide, no_proxy="openai.com") == ("", "/up.pem")
    with pytest.raises(ConfigError, match=r"providers\.openai\.proxy"):
        origin(proxy="env:MISSING")
    with pytest.raises(ConfigError, match=r"upstream\.proxy") as caught:
        origin(upstream=schema.Upstream(proxy="socks5://u:hunter2@p:1"))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "table", "keys", "complaint"),
    [
        ("opnai", {}, (SECRET,), r"^providers\.opnai: .*did you mean 'openai'"),
        ("x", {"kind": "depseek"}, (SECRET,), r"^providers\.x\.kind: .*did you mean 'deepseek'"),
        ("x", {"kind": "openai-compatible"}, (), r"^providers\.x\.base_url"),
        ("openai", {}, (), r'^providers\.openai\.keys: OpenAI needs a key: keys = \["env:OPENAI_API_KEY"\]'),
        ("openai", {"settings": {"orgnization": "x"}}, (SECRET,), r"settings\.orgnization: .*it takes organization, project"),
        ("openai", {"settings": {"project": "a\r\nb"}}, (SECRET,), r"settings\.project"),
        ("openai", {"headers": {"x": "a\r\nb"}}, (SECRET,), r"headers\.x"),
        ("openai", {"headers": {"a b": "c"}}, (SECRET,), r"headers\.a b"),
        ("openai", {"headers": {"Content-Length": "1"}}, (SECRET,), r"the gateway's own"),
        ("openai", {"headers": {"host": "x"}}, (SECRET,), r"the gateway's own"),
        ("openai", {}, (SECRET, "hunter2\nx"), r"keys\[1\]"),
        ("openai", {}, ("",), r"keys\[0\]"),
        ("openai", {"base_url": "ftp://x"}, (SECRET,), r"base_url"),
        ("azure", {}, (SECRET,), r"settings\.resource"),
        (
            "watsonx",
            {"settings": {"region": "us-south"}},
            (SECRET,),
            r"^providers\.watsonx\.settings\.project_id: .*needs a project or a space",
        ),
    ],
)
def test_mistakes(name: str, table: dict[str, object], keys: tuple[str, ...], complaint: str) -> None:
    """Each says where, what and what to do, and never shows a secret."""
    with pytest.raises(ConfigError, match=complaint) as caught:
        made(name, keys=keys, **table)  # type: ignore[arg-type]
    assert SECRET not in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_kinds() -> None:
    """The name is the row, unless `kind` says otherwise; a base_url alone is enough for a server nobody knows."""
    assert made("work", kind="openai").kind == "openai"
    assert made("my-server", keys=(), base_url="http://10.0.0.5:8000/v1").kind == "openai-compatible"
    assert made("openai", keys=(), base_url="http://127.0.0.1:1/v1").kind == "openai"
    assert (
        made("azure", environ={"AZURE_RESOURCE_NAME": "r"}).prepare(CHAT, b"", KEY, NONE).target.origin.host
        == "r.openai.azure.com"
    )
    versioned = made("azure", settings={"resource": "r", "api_version": "preview"}).prepare(CHAT, b"", KEY, NONE)
    assert versioned.target.path == "/openai/v1/chat/completions?api-version=preview"


def test_facts_for_the_walk() -> None:
    """Account, residency and stream usage: the operator's word, else the row's."""
    assert (made("deepseek").residency, made("openai").residency, made("mistral").residency) == ("cn", "intl", "eu")
    assert made("openai", residency="eu").residency == "eu"
    assert made("x", keys=(), base_url="http://10.0.0.5/v1").residency == "local"
    assert made("x", keys=(), base_url="https://models.example/v1").residency == ""
    assert made("ollama", base_url="https://ollama.com/v1").residency == ""
    assert (made("openai").account, made("openai", account="team").account) == ("openai", "team")
    assert (made("openai").stream_usage, made("mistral").stream_usage) == (True, False)
    assert (made("openai", stream_usage=False).stream_usage, made("mistral", stream_usage=True).stream_usage) == (False, True)
    assert made("work", kind="deepseek").price_id == "deepseek"


def test_models() -> None:
    """Asked where the row says, unless the operator says not to."""
    provider = made("anthropic")
    request = provider.models_request(KEY)
    assert request is not None
    assert request.target.method == "GET"
    assert request.target.path == "/v1/models?limit=1000"
    said = head(request)
    assert (said["x-api-key"], said["anthropic-version"]) == (SECRET, "2023-06-01")
    assert "content-type" not in said
    quiet = made("openai", list_models=False)
    assert not quiet.lists_models
    assert quiet.models_request(KEY) is None
    assert made("bedrock").models_request(KEY) is None
    assert provider.read_models(b'{"data":[{"id":"claude"}]}') == ["claude"]
    with pytest.raises(UpstreamError) as caught:
        provider.read_models(b"<html>")
    assert caught.value.code == "provider_bad_response"


def test_errors_are_cleaned_of_every_key_of_the_pool() -> None:
    """Also without a key at hand, of a key that came later, and of a secret in the operator's headers."""
    provider = made("openai", keys=("office-one-0000", "office-two-0000"), headers={"x-auth": "office-three-0"})
    body = b'{"error":{"message":"office-one-0000 office-two-0000 office-three-0 office-four-000"}}'
    for error in (
        provider.judge(400, [], body, ProviderKey("a", "office-four-000")),
        provider.error_in_body(body, ProviderKey("a", "office-four-000")),
    ):
        assert error is not None
        assert b"office" not in error.body
        assert "office" not in error.message + error.detail
    assert b"office-four-000" in provider.judge(400, [], body, None).body


def test_nothing_shows_a_secret() -> None:
    """Whatever lands in a log or a traceback."""
    provider = made("openai", headers={"x-auth": "office-secret-0"})
    request = provider.prepare(CHAT, b"", KEY, NONE)
    shown = repr(provider) + repr(request.target) + repr(request) + repr(provider._endpoints) + repr(provider._redactor)
    assert SECRET not in shown
    assert "office" not in shown


def test_the_usual_request_is_cheap() -> None:
    """About a microsecond of CPU; twenty are allowed here, for slow machines."""
    provider = made("openai")
    headers = CIMultiDictProxy(CIMultiDict({"Host": "x", "Authorization": "y", "Content-Type": "application/json"}))
    provider.prepare(CHAT, b"", KEY, headers)
    began = time.process_time()
    for _ in range(10_000):
        provider.prepare(CHAT, b"", KEY, headers)
    assert (time.process_time() - began) / 10_000 < 20e-6


def test_a_realtime_handshake() -> None:
    """The provider's own credentials, the words of the dialect, and the model where the provider wants it; nothing else."""
    provider = build("openai", schema.Provider(headers={"x-team": "a"}), schema.Upstream(), ["sk-1"])
    said = {"authorization": "Bearer theirs", "openai-beta": "realtime=v1", "openai-safety-identifier": "u1", "cookie": "c"}
    shake = provider.handshake("gpt-realtime-2.1", ProviderKey("openai#1", "sk-1"), said, {"key": "theirs"})
    assert shake is not None
    assert shake.path == "/v1/realtime?model=gpt-realtime-2.1"
    assert shake.headers.pop("user-agent").startswith("aigw/")
    assert shake.headers == {
        "authorization": "Bearer sk-1",
        "x-team": "a",
        "openai-beta": "realtime=v1",
        "openai-safety-identifier": "u1",
    }
    table = schema.Provider(kind="azure", settings={"resource": "r", "api_version": "2025-04-01-preview"})
    shake = build("azure", table, schema.Upstream(), ["k"]).handshake("gpt 4o", ProviderKey("a#1", "k"), {}, {})
    assert shake is not None
    assert shake.path == "/openai/realtime?api-version=2025-04-01-preview&deployment=gpt+4o"
    assert shake.headers["api-key"] == "k"
    deepseek = build("deepseek", schema.Provider(), schema.Upstream(), ["k"])
    assert deepseek.handshake("m", None, {}, {}) is None


def test_a_model_in_the_path() -> None:
    """Percent-encoded, so that no name leads elsewhere; the key in the header of the API that is asked."""
    gemini = made("gemini")
    generate = OPERATIONS["generate"]
    request = gemini.prepare(generate, b"{}", KEY, NONE, "../evil?x=1#y\r\nz")
    assert request.target.path == "/v1beta/models/..%2Fevil%3Fx%3D1%23y%0D%0Az:generateContent"
    assert f"x-goog-api-key: {KEY.secret}".encode() in request.target.wire
    assert b"authorization" not in request.target.wire
    stream = gemini.prepare(generate, b"{}", KEY, NONE, "m", stream=True)
    assert stream.target.path == "/v1beta/models/m:streamGenerateContent?alt=sse"
    assert gemini.prepare(generate, b"{}", KEY, NONE, "m", stream=True).target is stream.target
    chat = gemini.prepare(CHAT, b"{}", KEY, NONE, "m", stream=True)
    assert (chat.target.path, b"authorization: Bearer" in chat.target.wire) == ("/v1beta/openai/chat/completions", True)


def test_who_is_asked_by_which_of_geminis_two_apis() -> None:
    """OpenAI's callers by the one that speaks their dialect, all others by Gemini's own."""
    gemini = made("gemini")
    wanted = {
        "chat": "chat",
        "messages": "generate",
        "responses": "generate",
        "generate": "generate",
        "embeddings": "embeddings",
    }
    assert {name: getattr(gemini.serving(OPERATIONS[name], "m"), "name", None) for name in wanted} == wanted

"""Bedrock: which API serves which model, and requests that AWS would let in."""

from __future__ import annotations

import re
from typing import Any

import pytest

from aigw.deployment import ProviderKey
from aigw.errors import ConfigError
from aigw.protocols.operations import OPERATIONS
from aigw.providers import sigv4
from aigw.providers.bedrock import Bedrock
from tests.providers.clouds import built, headers, url

PAIR = "AKIDEXAMPLE:wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
CLAUDE = "global.anthropic.claude-opus-5-5"
CONVERSE = OPERATIONS["converse"]


def bedrock(*keys: str, **table: Any) -> Bedrock:
    provider = built("bedrock", *keys, **table)
    assert isinstance(provider, Bedrock)
    provider.clock = lambda: 1440938160.0
    return provider


@pytest.mark.parametrize(
    ("operation", "model", "via"),
    [
        ("chat", CLAUDE, "converse"),
        ("messages", CLAUDE, "converse"),
        ("responses", "us.amazon.nova-2-lite-v1:0", "converse"),
        ("chat", "openai.gpt-oss-120b-1:0", "chat"),
        ("messages", "openai.gpt-oss-120b-1:0", "chat"),
        ("messages", "anthropic.claude-opus-4-7", "messages"),
        ("messages", "anthropic.claude-3-haiku-20240307-v1:0", "converse"),
        ("generate", CLAUDE, "converse"),
        ("embeddings", "amazon.titan-embed-text-v2:0", "invoke_embeddings"),
    ],
)
def test_who_serves_what(operation: str, model: str, via: str) -> None:
    found = bedrock("key").serving(OPERATIONS[operation], model)
    assert found is OPERATIONS[via]


def test_the_openai_layer_for_all_where_it_is_asked_for() -> None:
    provider = bedrock("key", settings={"api": "mantle", "region": "eu-west-1"})
    assert provider.serving(OPERATIONS["chat"], CLAUDE) is OPERATIONS["chat"]
    request = provider.prepare(OPERATIONS["chat"], b"{}", ProviderKey("k", "key"), {}, CLAUDE)
    assert url(request) == "https://bedrock-mantle.eu-west-1.api.aws/openai/v1/chat/completions"


def test_names_and_arns_are_encoded_in_the_path() -> None:
    provider, key = bedrock("key"), ProviderKey("k", "key")
    request = provider.prepare(CONVERSE, b"{}", key, {}, "us.amazon.nova-2-lite-v1:0")
    assert url(request) == "https://bedrock-runtime.us-east-1.amazonaws.com/model/us.amazon.nova-2-lite-v1%3A0/converse"
    arn = "arn:aws:bedrock:eu-west-1:1:application-inference-profile/x"
    request = provider.prepare(CONVERSE, b"{}", key, {}, arn, stream=True)
    wanted = "/model/arn%3Aaws%3Abedrock%3Aeu-west-1%3A1%3Aapplication-inference-profile%2Fx/converse-stream"
    assert request.target.path == wanted
    assert headers(request)["authorization"] == "Bearer key"


def test_signed_with_a_pair_and_a_session() -> None:
    """What is signed is what is sent: the signature is that of the request on the wire."""
    provider = bedrock(f"{PAIR}:session/token==")
    key = ProviderKey("k", f"{PAIR}:session/token==")
    request = provider.prepare(CONVERSE, b'{"messages":[]}', key, {}, "amazon.nova-pro-v1:0", stream=True)
    sent = headers(request)
    again = sigv4.sign(
        "POST",
        sent["host"],
        request.target.path,
        {"content-type": sent["content-type"]},
        request.body,
        sigv4.credentials_of(key.secret),
        region="us-east-1",
        service="bedrock",
        now=1440938160.0,
    )
    assert {name: sent[name] for name in again} == again
    assert sent["x-amz-security-token"] == "session/token=="
    assert (request.target.wire + request.extra).lower().count(b"authorization: ") == 1
    assert "wJalrXUtnFEMI" not in repr(request.target) + str(sent) + repr(provider)


def test_mantle_is_a_service_of_its_own() -> None:
    provider, key = bedrock(PAIR), ProviderKey("k", PAIR)
    request = provider.prepare(OPERATIONS["messages"], b"{}", key, {}, "anthropic.claude-opus-4-7")
    assert url(request) == "https://bedrock-mantle.us-east-1.api.aws/anthropic/v1/messages"
    assert "/us-east-1/bedrock-mantle/aws4_request" in headers(request)["authorization"]


def test_the_key_check_is_signed_too() -> None:
    request = bedrock(PAIR).key_request(ProviderKey("k", PAIR))
    assert request is not None
    assert request.target.method == "GET"
    assert "SignedHeaders=host;x-amz-date" in headers(request)["authorization"]


def test_the_environments_credentials_where_no_key_is_configured() -> None:
    environ = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "the-secret-of-aws", "AWS_REGION": "eu-central-1"}
    provider = bedrock(environ=environ)
    request = provider.prepare(CONVERSE, b"{}", ProviderKey("bedrock", ""), {}, "m")
    assert re.search(r"Credential=AKID/\d{8}/eu-central-1/bedrock/", headers(request)["authorization"])
    assert "the-secret-of-aws" in provider.secrets


def test_a_pair_is_hidden_part_by_part() -> None:
    provider = bedrock(PAIR)
    error = provider.judge(
        403, [(b"x-amzn-errortype", b"UnrecognizedClientException")], f'{{"message":"{PAIR[12:]}"}}'.encode(), None
    )
    assert (error.code, error.fault) == ("provider_credentials_invalid", "key")
    assert PAIR[12:] not in error.message + error.detail + error.body.decode()


def test_half_a_pair_is_refused() -> None:
    with pytest.raises(ConfigError, match="KEY_ID:SECRET") as caught:
        bedrock("AKIDONLY:")
    assert "AKIDONLY" not in caught.value.message

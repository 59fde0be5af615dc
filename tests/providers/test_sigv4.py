"""Signature Version 4, against AWS's own example."""

from __future__ import annotations

import calendar

import pytest

from aigw.providers.sigv4 import AwsCredentials, credentials_of, sign

EXAMPLE = AwsCredentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
MOMENT = calendar.timegm((2015, 8, 30, 12, 36, 0))


def test_the_example_of_the_reference() -> None:
    """ListUsers of IAM, as the AWS General Reference walks through it."""
    added = sign(
        "GET",
        "iam.amazonaws.com",
        "/?Action=ListUsers&Version=2010-05-08",
        {"content-type": "application/x-www-form-urlencoded; charset=utf-8"},
        b"",
        EXAMPLE,
        region="us-east-1",
        service="iam",
        now=MOMENT,
    )
    assert added == {
        "x-amz-date": "20150830T123600Z",
        "authorization": "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, "
        "SignedHeaders=content-type;host;x-amz-date, "
        "Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7",
    }


def test_a_get_without_anything() -> None:
    """`get-vanilla` of the signature's test suite."""
    added = sign("GET", "example.amazonaws.com", "/", {}, b"", EXAMPLE, region="us-east-1", service="service", now=MOMENT)
    assert added["authorization"].endswith("5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31")


def signature(path: str = "/model/a/converse", body: bytes = b"{}", credentials: AwsCredentials = EXAMPLE) -> str:
    added = sign("POST", "h", path, {}, body, credentials, region="eu-west-1", service="bedrock", now=MOMENT)
    return added["authorization"].rpartition("=")[2]


def test_everything_is_signed() -> None:
    """Another path, body, secret or session makes another signature; the order of a query's parameters does not."""
    temporary = EXAMPLE._replace(token="session")
    others = [
        signature(path="/model/b/converse"),
        signature(path="/model/a%3A0/converse"),
        signature(path="/model/a:0/converse"),
        signature(body=b"{ }"),
        signature(credentials=EXAMPLE._replace(secret="another")),
        signature(credentials=temporary),
    ]
    assert len({signature(), *others}) == 1 + len(others)
    assert signature(path="/m?b=2&a=1") == signature(path="/m?a=1&b=2")


def test_a_sessions_token_goes_along() -> None:
    added = sign("POST", "h", "/", {}, b"", EXAMPLE._replace(token="T"), region="r", service="s", now=MOMENT)
    assert added["x-amz-security-token"] == "T"
    assert "host;x-amz-date;x-amz-security-token" in added["authorization"]


def test_credentials() -> None:
    assert credentials_of(" AKID:sec/ret+ \n") == AwsCredentials("AKID", "sec/ret+")
    assert credentials_of("ASIA:secret:to:ken==") == AwsCredentials("ASIA", "secret", "to:ken==")
    for wrong in ("", "AKID", ":secret", "AKID:"):
        with pytest.raises(ValueError, match="KEY_ID:SECRET") as caught:
            credentials_of(wrong)
        assert "AKID" not in str(caught.value) or not wrong
    assert EXAMPLE.secret not in repr(EXAMPLE)

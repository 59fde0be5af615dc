"""What a consumer may ask for: its own terms and its group's, both."""

from __future__ import annotations

import pytest

from aigw.access.permissions import Permissions, Rule, endpoint
from aigw.consumer import ENDPOINTS, Consumer, Terms
from aigw.deployment import Deployment, Route
from aigw.errors import PolicyError
from aigw.exchange import Exchange
from aigw.protocols.operations import OPERATIONS

WHERE = {"openai": "us", "mistral": "eu", "local": "local"}
PRICE = {"openai": 10.0, "mistral": 2.0, "local": None}
GROUPS = {"eng": Terms(models=("gpt-*", "mistral-*"), endpoints=("chat", "embeddings")), "eu": Terms(residency=("eu", "local"))}


NOTHING = Terms()


def rule(terms: Terms = NOTHING, group: str = "", most_output: int = 0) -> Rule | None:
    made = Permissions(GROUPS, {"fast": ("gpt-mini", "mistral-*")}, WHERE.__getitem__, lambda name, _: PRICE[name], most_output)
    return made.rule(Consumer(id="c", name="c", group=group, terms=terms))


def ask(model: str = "gpt-5", operation: str = "chat", address: str = "10.1.2.3") -> Exchange:
    return Exchange("req", 0.0, operation=operation, headers={}, requested_model=model, address=address)


def routed(bound: Rule, exchange: Exchange, *providers: str, fallback: tuple[str, ...] = ()) -> list[str]:
    route = Route(
        name="r",
        targets=tuple(Deployment(provider=one) for one in providers),
        fallback=tuple(Deployment(provider=one) for one in fallback),
    )
    left = bound.route(exchange, route, OPERATIONS[exchange.operation], WHERE.__getitem__, lambda name, _: PRICE[name])
    return [place.provider for place in left.places]


def refused(bound: Rule, exchange: Exchange, *providers: str) -> str:
    def walk() -> None:
        bound.enter(exchange)
        routed(bound, exchange, *providers)

    with pytest.raises(PolicyError) as caught:
        walk()
    assert (caught.value.code, caught.value.status) == ("policy_forbidden", 403)
    return caught.value.message


def test_nothing_binds_who_says_nothing() -> None:
    assert rule() is None
    assert rule(group="unknown-group") is None
    assert rule(Terms(rpm=5)) is None


def test_models() -> None:
    """Allowed names are exact, globs or groups; a forbidden one is forbidden although a glob allows it."""
    bound = rule(Terms(models=("claude-*", "@fast"), deny=("claude-opus*",)))
    assert bound is not None
    assert [bound.allows(name) for name in ("claude-sonnet", "gpt-mini", "mistral-large")] == [True] * 3
    assert [bound.allows(name) for name in ("claude-opus-5", "gpt-5", "xclaude-1")] == [False] * 3
    assert "claude-*, @fast" in refused(bound, ask("gpt-5"), "openai")
    assert routed(bound, ask("claude-sonnet"), "openai") == ["openai"]
    assert "names none" in refused(bound, ask("", "chat"), "openai")


def test_group_and_consumer_both_hold() -> None:
    """A consumer's own list does not widen its group's."""
    bound = rule(Terms(models=("gpt-mini", "claude-*")), group="eng")
    assert bound is not None
    assert [bound.allows(name) for name in ("gpt-mini", "gpt-5", "claude-1")] == [True, False, False]
    assert "embeddings" in refused(bound, ask("gpt-mini", "messages"), "openai")


def test_places() -> None:
    """What is forbidden is skipped; when nothing is left, the reason is said."""
    bound = rule(Terms(providers=("openai", "mistral")), group="eu")
    assert bound is not None
    assert routed(bound, ask(), "openai", "mistral", "local") == ["mistral"]
    assert routed(bound, ask(), "openai", fallback=("mistral",)) == ["mistral"]
    assert "must stay in eu, local" in refused(bound, ask(), "openai")
    only = rule(Terms(providers=("openai",)))
    assert only is not None
    assert "only the providers openai" in refused(only, ask(), "mistral")


def test_price() -> None:
    """What nobody knows the price of is too dear."""
    bound = rule(Terms(max_price=5))
    assert bound is not None
    assert routed(bound, ask(), "openai", "mistral", "local") == ["mistral"]
    assert "10 USD" in refused(bound, ask(), "openai")
    assert "nobody knows" in refused(bound, ask(), "local")


def test_addresses() -> None:
    """Networks of both kinds, and addresses that are none."""
    bound = rule(Terms(allow_ip=("10.0.0.0/8", "2001:db8::/32")))
    assert bound is not None
    for good in ("10.9.9.9", "2001:db8::5", "::ffff:10.1.1.1", "2001:db8::1%eth0"):
        bound.enter(ask(address=good))
    for bad in ("11.0.0.1", "2001:db9::1", "", "nonsense"):
        assert "may not be used from" in refused(bound, ask(address=bad), "openai")


def test_output() -> None:
    """The smallest limit; a consumer's 0 lifts the operator's."""
    assert rule(most_output=100).max_output == 100  # type: ignore[union-attr]  # it binds
    assert rule(Terms(max_output=50), most_output=100).max_output == 50  # type: ignore[union-attr]
    assert rule(Terms(max_output=0), most_output=100) is None


def test_a_changed_consumer_has_a_new_rule() -> None:
    """At once, although the old one is kept ready."""
    made = Permissions({}, {}, WHERE.__getitem__, lambda name, _: None)
    before, after = (
        Consumer(id="c", name="c", terms=Terms(models=("a",))),
        Consumer(id="c", name="c", terms=Terms(models=("b",))),
    )
    assert made.rule(before).allows("a")  # type: ignore[union-attr]
    assert made.rule(before) is made.rule(before)
    assert not made.rule(after).allows("a")  # type: ignore[union-attr]
    assert made.rule(Consumer(id="c", name="c")) is None


def test_every_operation_has_an_endpoint() -> None:
    """That callers may ask for; what only providers speak is none of theirs."""
    only_upstream = {
        "cohere_chat", "cohere_embed", "converse", "coze", "deepl", "dify", "invoke_embeddings", "ollama_chat", "ollama_embed",
        "predict_embeddings", "replicate", "triton", "voyage_rerank",
    }  # fmt: skip
    assert {endpoint(name) for name in OPERATIONS if name not in only_upstream} <= set(ENDPOINTS)
    assert endpoint("image_edits") == "images"
    assert endpoint("embed_gemini") == "embeddings"
    assert endpoint("response_input_tokens") == "count"
    assert endpoint("speech") == "audio"

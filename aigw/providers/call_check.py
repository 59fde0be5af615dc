"""What a provider can do, tried: the smallest call of each kind that it serves. No I/O: who drives a check sends its requests.

Each costs a token or a few, unlike `key_check.check`, which is free. A check is a generator like those there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from aigw.canonical import Losses
from aigw.deployment import ProviderKey
from aigw.errors import CallerError
from aigw.protocols.operations import OPERATIONS, Operation
from aigw.protocols.translation import shape, translator
from aigw.protocols.translation.contract import Settled
from aigw.providers import catalog, key_check
from aigw.providers.compatible import CompatibleProvider
from aigw.providers.key_check import GOOD, UNKNOWN, WRONG_URL, Answered, Check, Reader, Verdict

_SAY = [{"role": "user", "content": "Answer with one word: hello"}]


class Call(NamedTuple):
    """One kind of call. `name` is for people; `model` is asked; `stream`: the answer shall come in pieces."""

    name: str
    operation: str
    model: str
    body: dict[str, object]
    stream: bool = False


def calls(provider: CompatibleProvider, model: str, embedder: str = "") -> Iterator[Call]:
    """What can be tried of *provider*: a word from *model*, whole and streamed; vectors of *embedder* ("": none is known)."""
    if model and provider.serving(OPERATIONS["chat"], model) is not None:
        body: dict[str, object] = {"model": model, "messages": _SAY}
        if catalog.row(provider.kind).protocol != "other":
            most = "max_completion_tokens" if "max-completion-tokens" in catalog.row(provider.kind).quirks else "max_tokens"
            body[most] = 16
        yield Call("chat", "chat", model, body)
        via = provider.serving(OPERATIONS["chat"], model)
        if via is not None and via.streams:
            yield Call("stream", "chat", model, {**body, "stream": True}, stream=True)
    if embedder and provider.serving(OPERATIONS["embeddings"], embedder) is not None:
        yield Call("embeddings", "embeddings", embedder, {"model": embedder, "input": ["hello"]})
    if embedder and "rerank" in embedder and provider.serving(OPERATIONS["rerank"], embedder) is not None:
        yield Call("rerank", "rerank", embedder, {"model": embedder, "query": "a", "documents": ["a", "b"]})


def embedder(models: tuple[str, ...]) -> str:
    """The first of *models* whose name says that it makes vectors; "" when none does."""
    return next((one for one in models if "embed" in one.lower() or one.lower().startswith(("bge-", "voyage-"))), "")


def attempt(provider: CompatibleProvider, key: ProviderKey, call: Call) -> Check:
    """Make *call*, in the provider's own shape where it has another than ours."""
    front, model = OPERATIONS[call.operation], call.model
    via = provider.serving(front, model)
    if via is None:
        return Verdict(UNKNOWN, f"does not serve {front.path}")
    try:
        body = _written(provider, front, via, call)
        request = provider.prepare(via, body, key, {}, model, stream=call.stream)
    except CallerError as refused:
        return Verdict(UNKNOWN, key_check.line(refused.message))
    answer = yield request
    verdict = Reader(provider, key, catalog.row(provider.kind), own_address=True).read(answer, request, model=model)
    if verdict.kind != GOOD or not isinstance(answer, Answered):
        return verdict
    return _read(provider, via, call, answer)


def _written(provider: CompatibleProvider, front: Operation, via: Operation, call: Call) -> bytes:
    body = msgspec.json.encode(call.body)
    if via is front:
        return body
    asked = translator(front.name).parse_request(body, call.model, stream=call.stream)
    return shape(via.name).render_request(asked, provider.toward(via, call.model, stream=call.stream), Losses())


def _read(provider: CompatibleProvider, via: Operation, call: Call, answer: Answered) -> Verdict:
    back = shape(via.name)
    settings = provider.toward(via, call.model, stream=call.stream).settings
    if settings and isinstance(back, Settled):
        back = back.settled(settings)
    kind = next((value for name, value in answer.headers if name.lower() == b"content-type"), b"").lower()
    if back.streams and kind.startswith(back.content_type):
        parser = back.parser()
        parser.feed(answer.body)
        parser.end()
        if parser.failed:
            error = provider.judge(200, [], parser.failed, None)
            return Verdict(UNKNOWN, key_check.line(f"ended its stream with an error: {error.detail}"))
        if not parser.begun and not parser.told.finish_reason:
            return Verdict(WRONG_URL, "sent a stream that says nothing")
        told = parser.told
    else:
        if call.stream:
            return Verdict(UNKNOWN, "answered, but not with a stream")
        try:
            _, told = back.parse_answer(answer.body)
        except (ValueError, RecursionError):
            return Verdict(WRONG_URL, "answered with something that is no answer of its API")
    used = told.usage
    counted = "" if used is None else f"; {used.input} + {used.output} tokens"
    return Verdict(GOOD, f"{call.model}{counted or ', without usage'}")

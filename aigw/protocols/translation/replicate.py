"""Replicate's predictions, for providers only: the input of a language model in, its output out.

A prediction is asked for with `Prefer: wait`, and looked at again while it runs (`providers/compatible.py`). What an input may
hold differs from model to model: `prompt` and `system_prompt` are common to the language models, whose other words are in
`_WORDS`. Facts: replicate.com/docs/reference/http as of 2026.
"""

from __future__ import annotations

from typing import Any, NoReturn

import msgspec

from aigw.canonical import Answer, Choice, Losses, Request, Text
from aigw.exchange import Usage
from aigw.protocols.dialect import Told, decode_leniently
from aigw.protocols.translation.contract import Toward
from aigw.protocols.translation.plain import lose_all_but, refuse_tools, transcript, words
from aigw.protocols.translation.spent import spent_of

_WHO = "This model at Replicate"
_WORDS = ("temperature", "top_p", "top_k", "seed", "presence_penalty", "frequency_penalty", "verbosity")
SAID = frozenset({*_WORDS, "max_tokens", "stop", "reasoning"})

_encode = msgspec.json.encode


class Replicate:
    """Implements `Shape`."""

    name = "replicate"
    dialect = "replicate"
    content_type = b"application/json"
    streams = False

    def render_request(self, request: Request, toward: Toward, losses: Losses) -> bytes:
        refuse_tools(request, losses, _WHO)
        system = [message for message in request.messages if message.role in ("system", "developer")]
        rest = [message for message in request.messages if message.role not in ("system", "developer")]
        talk = Request(dialect=request.dialect, model=request.model, messages=rest)
        said: dict[str, Any] = {"prompt": transcript(talk, losses, _WHO)}
        if system:
            said["system_prompt"] = "\n".join(words(message, losses, _WHO) for message in system)
        for name in _WORDS:
            value = getattr(request, name)
            if value not in (None, ""):
                said[name] = value
        is_openai = toward.model.startswith("openai/")
        if request.max_tokens is not None:
            said["max_completion_tokens" if is_openai else "max_tokens"] = request.max_tokens
        if request.stop:
            said["stop_sequences"] = ",".join(request.stop)  # one string, by commas
            if any("," in one for one in request.stop):
                losses.add("stop")
        if request.reasoning is not None and request.reasoning.effort and is_openai:
            said["reasoning_effort"] = request.reasoning.effort
        elif request.reasoning is not None:
            losses.add("reasoning")
        extra = request.extras.get("input")
        if isinstance(extra, dict):
            said |= extra
        lose_all_but(request, losses, SAID, taken=("input",))
        return _encode({"input": said})

    def parse_answer(self, body: bytes) -> tuple[Answer, Told]:
        said = decode_leniently(body)
        output = said.get("output")
        if said.get("status") != "succeeded":
            raise ValueError("no prediction that succeeded")
        if isinstance(output, list) and all(isinstance(one, str) for one in output):
            text = "".join(output)
        elif isinstance(output, str):
            text = output
        else:
            text = "" if output is None else _encode(output).decode()
        usage = usage_of(said.get("metrics"))
        model = said.get("model")
        answer = Answer(
            id=str(said.get("id") or ""), model=model if isinstance(model, str) else "", choices=[Choice([Text(text)])]
        )
        if usage is not None:
            answer.spent = spent_of(usage)
        return answer, Told(usage, answer.model, "stop")

    def parser(self) -> NoReturn:
        raise NotImplementedError("predictions are waited for")


def usage_of(metrics: Any) -> Usage | None:
    """Of the language models; others are paid by time."""
    if not isinstance(metrics, dict):
        return None
    counts = [metrics.get(name) for name in ("input_token_count", "output_token_count")]
    if not all(isinstance(one, int) and not isinstance(one, bool) and one >= 0 for one in counts):
        return None
    return Usage(input=counts[0] or 0, output=counts[1] or 0)

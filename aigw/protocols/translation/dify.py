"""Dify's applications (chat, agent, completion, workflow), for providers only: one question in, one answer out.

The key says which application; the setting `bot_type` what kind it is. Facts: docs.dify.ai's API reference as of 2026. A
conversation is kept by Dify: a caller goes on with it by sending `conversation_id`, which may be the `id` of the last answer
(conversation and message, with a colon between); else the whole conversation is told as one text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from aigw.canonical import Answer, Choice, Event, Losses, Request, SpentSoFar, Text, TextDelta, ThinkingDelta
from aigw.exchange import Usage
from aigw.protocols.dialect import Told, decode_leniently
from aigw.protocols.translation.contract import Toward
from aigw.protocols.translation.plain import EventParser, last_words, lose_all_but, refuse_tools, transcript
from aigw.protocols.translation.spent import spent_of

DIALECT = "dify"
SAID = frozenset({"user"})
_WHO = "A Dify application"
_NOBODY = "aigw"
"""Dify wants to know its end user: who is said where the caller says nobody."""
_OWN_EXTRAS = ("conversation_id", "inputs")
_SUCCEEDED = frozenset({"succeeded", "partial-succeeded"})

_encode = msgspec.json.encode


class Dify:
    """Implements `Shape`, and `Settled`: `bot_type` and `output_variable` say how answers read."""

    name = "dify"
    dialect = DIALECT
    content_type = b"text/event-stream"
    streams = True

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        settings = settings or {}
        self._kind = settings.get("bot_type", "Chat").lower()
        self._output = settings.get("output_variable", "")

    def settled(self, settings: Mapping[str, str]) -> Dify:
        return Dify(settings)

    def render_request(self, request: Request, toward: Toward, losses: Losses) -> bytes:
        settings = toward.settings
        kind = settings.get("bot_type", "Chat").lower()
        refuse_tools(request, losses, _WHO)
        extras = dict(request.extras)
        conversation = extras.pop("conversation_id", None)
        inputs = extras.pop("inputs", None)
        inputs = dict(inputs) if isinstance(inputs, dict) else {}
        goes_on = isinstance(conversation, str) and bool(conversation) and kind in ("chat", "agent")
        text = last_words(request, losses, _WHO) if goes_on else transcript(request, losses, _WHO)
        # an agent application answers by streams alone
        mode = "streaming" if toward.stream or kind == "agent" else "blocking"
        body: dict[str, Any] = {"inputs": inputs, "response_mode": mode, "user": request.user or _NOBODY}
        if kind in ("chat", "agent"):
            body["query"] = text
            if goes_on:
                body["conversation_id"] = str(conversation).partition(":")[0]
        else:
            inputs.setdefault(settings.get("input_variable") or "query", text)
            if conversation:
                losses.add("conversation_id")
        lose_all_but(request, losses, SAID, taken=_OWN_EXTRAS)
        return _encode(body)

    def parse_answer(self, body: bytes) -> tuple[Answer, Told]:
        said = decode_leniently(body)
        data = said.get("data")
        if isinstance(data, dict) and ("outputs" in data or "status" in data):
            if data.get("status") not in _SUCCEEDED:
                raise ValueError("the workflow failed")
            text, usage = written(data.get("outputs"), self._output), _total(data)
            identity = str(said.get("workflow_run_id") or data.get("id") or "")
        elif isinstance(said.get("answer"), str):
            text, usage, identity = said["answer"], usage_of(said.get("metadata")), _identity(said)
        else:
            raise ValueError("no answer")
        created = said.get("created_at")
        answer = Answer(id=identity, choices=[Choice([Text(text)])], created=created if isinstance(created, int) else 0)
        if usage is not None:
            answer.spent = spent_of(usage)
        return answer, Told(usage, "", "stop")

    def parser(self) -> DifyParser:
        return DifyParser(self._kind == "workflow", self._output)


class _Event(msgspec.Struct, gc=False):
    event: str = ""
    answer: str | None = None
    thought: str | None = None
    conversation_id: str | None = None
    message_id: str | None = None
    workflow_run_id: str | None = None
    created_at: Any = None
    metadata: Any = None
    data: Any = None
    status: Any = None
    code: Any = None
    message: Any = None


_event = msgspec.json.Decoder(_Event).decode


class DifyParser(EventParser):
    """Implements `StreamParser`. *is_workflow*: the end is the workflow's, not a message's; *output*: the variable that is the
    answer, "" for any."""

    def __init__(self, is_workflow: bool, output: str) -> None:
        super().__init__()
        self._is_workflow, self._output = is_workflow, output

    def look(self, data: bytes, events: list[Event]) -> None:
        try:
            event = _event(data)
        except (ValueError, RecursionError):
            return
        kind = event.event
        if kind == "error" or (not kind and event.code is not None):
            self.failed = _encode({"code": str(event.code or "error"), "message": event.message, "status": event.status})
            return
        if kind in ("", "ping"):
            return
        identity = ":".join(one for one in (event.conversation_id, event.message_id) if one) or event.workflow_run_id or ""
        self.starts(events, id=identity, created=event.created_at if isinstance(event.created_at, int) else 0)
        if kind in ("message", "agent_message"):
            self.says(event.answer or "", events)
        elif kind == "agent_thought" and event.thought:
            # repeats what agent_message said when there was no tool: only what comes before the answer is a thought
            if not self.begun:
                events.append(ThinkingDelta(event.thought, origin=DIALECT))
        elif kind == "text_chunk" and isinstance(event.data, dict):
            self.says(str(event.data.get("text") or ""), events)
        elif kind == "workflow_finished" and isinstance(event.data, dict):
            self._workflow(event.data, events)
        elif kind == "message_end":
            self._spent(usage_of(event.metadata), events)
            self._last(events)

    def _workflow(self, data: dict[str, Any], events: list[Event]) -> None:
        if data.get("status") not in _SUCCEEDED:
            why = data.get("error") or f"the workflow {data.get('status') or 'failed'}"
            self.failed = _encode({"code": "workflow_failed", "message": str(why)})
            return
        if not self._is_workflow:
            return  # a chat's: its message ends later
        if not self.begun:
            text = written(data.get("outputs"), self._output)
            self.begun = True
            events.append(TextDelta(text))
        self._spent(_total(data), events)
        self._last(events)

    def _spent(self, usage: Usage | None, events: list[Event]) -> None:
        self.told.usage = usage
        if usage is not None:
            events.append(SpentSoFar(spent_of(usage)))

    def _last(self, events: list[Event]) -> None:
        self.finish("stop", events)
        self.done = True


def usage_of(metadata: Any) -> Usage | None:
    """`metadata.usage` of a message."""
    usage = metadata.get("usage") if isinstance(metadata, dict) else None
    if not isinstance(usage, dict):
        return None
    read, wrote = (_count(usage.get(name)) for name in ("prompt_tokens", "completion_tokens"))
    return None if read is None and wrote is None else Usage(input=read or 0, output=wrote or 0)


def written(outputs: Any, variable: str) -> str:
    """A workflow's answer: the output *variable*, else one with a usual name, else the only one, else all of them as JSON."""
    if not isinstance(outputs, dict):
        return "" if outputs is None else str(outputs)
    found = next((outputs[name] for name in (variable, "text", "answer", "output", "result") if name in outputs), outputs)
    if found is outputs and len(outputs) == 1:
        found = next(iter(outputs.values()))
    return found if isinstance(found, str) else _encode(found).decode()


def _identity(said: dict[str, Any]) -> str:
    return ":".join(str(said[name]) for name in ("conversation_id", "message_id") if said.get(name)) or str(
        said.get("id") or ""
    )


def _total(data: dict[str, Any]) -> Usage | None:
    """A workflow says its tokens in one number: most of them are read, and that is how it is counted."""
    total = _count(data.get("total_tokens"))
    return None if not total else Usage(input=total)


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None

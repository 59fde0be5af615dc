"""Gemini's whole answers, read and written."""

from __future__ import annotations

from typing import Any

import msgspec

from aigw.canonical import (
    Answer,
    Choice,
    Citation,
    Finish,
    Foreign,
    Media,
    Part,
    Refusal,
    Spent,
    Text,
    Thinking,
    ToolCall,
    seal,
)
from aigw.protocols.dialect import Said, Told, decode_answer, says
from aigw.protocols.gemini import Gemini as Facts, GeminiUsage, usage_of
from aigw.protocols.translation.contract import Reply
from aigw.protocols.translation.gemini.request import DIALECT, HIDDEN, kind_of
from aigw.protocols.translation.spent import spent_of

_encode = msgspec.json.encode


class Blob(msgspec.Struct, gc=False, rename="camel"):
    mime_type: str = ""
    data: str = ""
    file_uri: str = ""


class Call(msgspec.Struct, gc=False):
    name: str = ""
    args: Any = None
    id: str | None = None


class GeminiPart(msgspec.Struct, gc=False, rename="camel"):
    """One part of an answer, as it stands in whole answers and in streams."""

    text: str | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    function_call: Call | None = None
    inline_data: Blob | None = None
    file_data: Blob | None = None
    executable_code: Any = None
    code_execution_result: Any = None


class Content(msgspec.Struct, gc=False):
    parts: list[GeminiPart] | None = None


class Candidate(msgspec.Struct, gc=False, rename="camel"):
    content: Content | None = None
    finish_reason: str | None = None
    index: int | None = None
    grounding_metadata: Any = None
    citation_metadata: Any = None
    logprobs_result: Any = None


class Feedback(msgspec.Struct, gc=False, rename="camel"):
    block_reason: str | None = None


class Chunk(msgspec.Struct, gc=False, rename="camel"):
    """A whole answer, or one event of a stream."""

    candidates: list[Candidate] | None = None
    prompt_feedback: Feedback | None = None
    usage_metadata: GeminiUsage | None = None
    model_version: str | None = None
    response_id: str | None = None
    error: Said = msgspec.UNSET


decode = msgspec.json.Decoder(Chunk).decode

_FILTERED = frozenset(
    """SAFETY RECITATION BLOCKLIST PROHIBITED_CONTENT SPII LANGUAGE IMAGE_SAFETY IMAGE_PROHIBITED_CONTENT IMAGE_RECITATION
    IMAGE_OTHER NO_IMAGE MODEL_ARMOR OTHER""".split()  # noqa: SIM905 - reads better
)


def finish_of(reason: str, *, called: bool) -> Finish:
    """In our words. Gemini says STOP also where a call is what it stopped for."""
    if reason == "MAX_TOKENS":
        return "length"
    if reason in _FILTERED:
        return "content_filter"
    return "tool_calls" if called else "stop"


REASONS: dict[str, str] = {"stop": "STOP", "length": "MAX_TOKENS", "tool_calls": "STOP", "content_filter": "SAFETY"}


def read(body: bytes) -> tuple[Answer, Told]:
    """See `Translator.parse_answer`."""
    chunk = decode_answer(decode, body)
    if chunk is None or says(chunk.error) or (not chunk.candidates and chunk.prompt_feedback is None):
        raise ValueError("an answer without candidates")
    told = Facts().read_answer(body)
    answer = Answer(choices=[], id=chunk.response_id or "", model=chunk.model_version or "")
    for number, candidate in enumerate(chunk.candidates or ()):
        given = candidate.content.parts if candidate.content is not None else None
        parts = [part for one in given or () if (part := part_of(one)) is not None]
        _cite(parts, candidate)
        called = any(isinstance(part, ToolCall) for part in parts)
        choice = Choice(parts, finish_of(candidate.finish_reason or "", called=called), candidate.index or number)
        choice.logprobs = logprobs_of(candidate.logprobs_result)
        answer.choices.append(choice)
    if not answer.choices:
        answer.choices.append(Choice([], "content_filter"))
    if chunk.usage_metadata is not None:
        usage = usage_of(chunk.usage_metadata)
        answer.spent, answer.service_tier = spent_of(usage), usage.service_tier
    if told.finish_reason in ("", "STOP") and answer.choices[0].finish == "tool_calls":
        told.finish_reason = "tool_calls"
    return answer, told


def part_of(part: GeminiPart) -> Part | None:
    """One part in canonical words; None for one that says nothing."""
    signature = part.thought_signature or ""
    origin = DIALECT if signature else ""
    if part.function_call is not None:
        call = part.function_call
        args = _encode(call.args).decode() if isinstance(call.args, dict) else "{}"
        return ToolCall(call.id or "", call.name, args, signature=signature, origin=origin)
    if part.text is not None and (part.text or signature):
        if part.thought:
            return Thinking(part.text, signature, origin=DIALECT)
        return Text(part.text, signature=signature, origin=origin)
    blob = part.inline_data or part.file_data
    if blob is not None:
        media = Media(kind_of(blob.mime_type), blob.data, type=blob.mime_type)
        media.url = blob.file_uri
        return media
    if part.executable_code is not None:
        return Foreign(DIALECT, "executableCode", {"executableCode": part.executable_code})
    if part.code_execution_result is not None:
        return Foreign(DIALECT, "codeExecutionResult", {"codeExecutionResult": part.code_execution_result})
    return Text("", signature=signature, origin=origin) if signature else None


# --- citations ---


def citations_of(candidate: Candidate) -> list[Citation]:
    """Where the answer got something from; `start` and `end` count bytes of UTF-8 here, as Google does."""
    found: list[Citation] = []
    grounding = candidate.grounding_metadata
    if isinstance(grounding, dict):
        chunks = [_source(one) for one in _list(grounding.get("groundingChunks"))]
        for support in _list(grounding.get("groundingSupports")):
            segment = support.get("segment") if isinstance(support, dict) else None
            segment = segment if isinstance(segment, dict) else {}
            for index in _list(support.get("groundingChunkIndices") if isinstance(support, dict) else None):
                if isinstance(index, int) and 0 <= index < len(chunks):
                    url, title = chunks[index]
                    start, end = segment.get("startIndex", 0), segment.get("endIndex")
                    found.append(Citation(url, title, str(segment.get("text") or ""), _count(start), _count(end)))
        if not found:
            found = [Citation(url, title) for url, title in chunks if url]
    cited = candidate.citation_metadata
    if isinstance(cited, dict):
        for one in _list(cited.get("citationSources") or cited.get("citations")):
            if isinstance(one, dict) and isinstance(one.get("uri"), str):
                start, end = _count(one.get("startIndex", 0)), _count(one.get("endIndex"))
                found.append(Citation(one["uri"], str(one.get("title") or ""), start=start, end=end))
    return found


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _source(chunk: Any) -> tuple[str, str]:
    for kind in ("web", "retrievedContext", "maps"):
        source = chunk.get(kind) if isinstance(chunk, dict) else None
        if isinstance(source, dict):
            return str(source.get("uri") or ""), str(source.get("title") or "")
    return "", ""


def _cite(parts: list[Part], candidate: Candidate) -> None:
    """Put citations to the text they are of. Texts follow each other; offsets count from the first's beginning."""
    if candidate.grounding_metadata is None and candidate.citation_metadata is None:
        return
    texts = [part for part in parts if isinstance(part, Text)]
    whole = "".join(text.text for text in texts).encode("utf-8", "replace")
    for citation in citations_of(candidate):
        start, end = citation.start, citation.end
        at = 0 if start is None else len(whole[:start].decode("utf-8", "ignore"))
        length = 0 if end is None else len(whole[:end].decode("utf-8", "ignore")) - at
        for text in texts:
            if at < len(text.text) or text is texts[-1]:
                if end is not None:
                    citation.start, citation.end = at, at + length
                else:
                    citation.start = None
                text.citations = [*text.citations, citation]
                break
            at -= len(text.text)


def grounding(citations: list[tuple[Citation, int]], text: str) -> dict[str, Any]:
    """`groundingMetadata` for citations, each with where its part's text begins in *text*."""
    chunks: dict[tuple[str, str], int] = {}
    supports = []
    for citation, offset in citations:
        number = chunks.setdefault((citation.url, citation.title), len(chunks))
        if citation.start is not None and citation.end is not None:
            start, end = offset + citation.start, offset + citation.end
            segment = {"startIndex": _bytes(text[:start]), "endIndex": _bytes(text[:end]), "text": text[start:end]}
            supports.append({"segment": segment, "groundingChunkIndices": [number]})
    found: dict[str, Any] = {"groundingChunks": [{"web": {"uri": url, "title": title}} for url, title in chunks]}
    return {**found, "groundingSupports": supports} if supports else found


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "replace"))


# --- log probabilities, in OpenAI's shape here ---


def logprobs_of(result: Any) -> Any:
    """OpenAI's object of Gemini's `logprobsResult`; None when there is none."""
    if not isinstance(result, dict) or not isinstance(result.get("chosenCandidates"), list):
        return None
    tops = _list(result.get("topCandidates"))
    content = []
    for number, chosen in enumerate(result["chosenCandidates"]):
        if not isinstance(chosen, dict):
            continue
        top = tops[number].get("candidates") if number < len(tops) and isinstance(tops[number], dict) else None
        others = [_token(one) for one in _list(top) if isinstance(one, dict)]
        content.append({**_token(chosen), "top_logprobs": others})
    return {"content": content, "refusal": None}


def _token(said: dict[str, Any]) -> dict[str, Any]:
    token = str(said.get("token", ""))
    return {"token": token, "logprob": said.get("logProbability", 0.0), "bytes": list(token.encode("utf-8", "replace"))}


def logprobs_result(logprobs: Any) -> dict[str, Any] | None:
    """Gemini's object of OpenAI's."""
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not isinstance(content, list):
        return None
    chosen, tops = [], []
    for one in content:
        if isinstance(one, dict):
            chosen.append({"token": one.get("token"), "logProbability": one.get("logprob")})
            others = [
                {"token": top.get("token"), "logProbability": top.get("logprob")} for top in _list(one.get("top_logprobs"))
            ]
            tops.append({"candidates": others})
    return {"chosenCandidates": chosen, "topCandidates": tops}


# --- write ---


def write(answer: Answer, reply: Reply) -> bytes:
    """See `Translator.render_answer`."""
    said: dict[str, Any] = {"candidates": [_candidate(choice) for choice in answer.choices]}
    said["usageMetadata"] = usage_object(answer.spent or Spent(), answer.service_tier)
    said["modelVersion"] = reply.model or answer.model or reply.request.model
    said["responseId"] = answer.id or reply.id
    return _encode(said)


def usage_object(spent: Spent, tier: str = "") -> dict[str, Any]:
    """Gemini counts the cache inside the prompt, and thoughts beside the answer."""
    said: dict[str, Any] = {
        "promptTokenCount": spent.input,
        "candidatesTokenCount": max(spent.output - spent.reasoning, 0),
        "totalTokenCount": spent.input + max(spent.output, spent.reasoning),
    }
    if spent.cached:
        said["cachedContentTokenCount"] = spent.cached
    if spent.reasoning:
        said["thoughtsTokenCount"] = spent.reasoning
    if tier:
        said["serviceTier"] = tier
    return said


def _candidate(choice: Choice) -> dict[str, Any]:
    parts: list[dict[str, Any]] = []
    cited: list[tuple[Citation, int]] = []
    text = ""
    for part in choice.parts:
        if isinstance(part, Text):
            cited += [(citation, len(text)) for citation in part.citations]
            text += part.text
        written = written_part(part)
        if written is not None:
            parts.append(written)
    said: dict[str, Any] = {
        "content": {"parts": parts, "role": "model"},
        "finishReason": REASONS[choice.finish],
        "index": choice.index,
    }
    if cited:
        said["groundingMetadata"] = grounding(cited, text)
    if choice.logprobs is not None and (found := logprobs_result(choice.logprobs)) is not None:
        said["logprobsResult"] = found
    return said


def written_part(part: Part) -> dict[str, Any] | None:
    """As Gemini's own; None for what is no part of an answer."""
    if isinstance(part, Text):
        return _signed({"text": part.text}, part.signature, part.origin)
    if isinstance(part, Thinking):
        if part.hidden:
            return {"text": "", "thought": True, "thoughtSignature": seal(part.hidden, part.origin + HIDDEN, DIALECT)}
        return _signed({"text": part.text, "thought": True}, part.signature, part.origin)
    if isinstance(part, ToolCall):
        call: dict[str, Any] = {"name": part.name, "args": arguments(part)}
        if part.id:
            call["id"] = part.id
        return _signed({"functionCall": call}, part.signature, part.origin)
    if isinstance(part, Refusal):
        return {"text": part.text}
    if isinstance(part, Media):
        if part.data:
            return {"inlineData": {"mimeType": part.type or "application/octet-stream", "data": part.data}}
        return {"fileData": {"mimeType": part.type, "fileUri": part.url or part.file}} if part.url or part.file else None
    if isinstance(part, Foreign) and part.dialect == DIALECT and isinstance(part.value, dict):
        return part.value
    return None


def arguments(call: ToolCall) -> dict[str, Any]:
    """A call's arguments as the object that Gemini's callers get."""
    if call.custom:
        return {"input": call.arguments}
    try:
        value = msgspec.json.decode(call.arguments or "{}")
    except (ValueError, RecursionError):
        return {"input": call.arguments}  # the answer was cut off inside its call
    return value if isinstance(value, dict) else {"input": value}


def _signed(part: dict[str, Any], signature: str, origin: str) -> dict[str, Any]:
    if signature:
        part["thoughtSignature"] = seal(signature, origin, DIALECT)
    return part

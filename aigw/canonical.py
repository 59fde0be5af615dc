"""Our own words for a conversation: what a request asks and an answer says, whichever dialect wrote it.

The hub of translation: each dialect is read into these words and written from them (`protocols/translation/`). An exchange
whose two sides speak the same dialect never comes here: its bytes go through untouched.

    Request   messages (roles and parts), tools, parameters, and in `extras` what has no word here
    Answer    choices of parts, a finish reason, usage
    Event     the same in pieces, as a stream brings it

**Nothing is dropped in silence.** A reader keeps what it has no word for (`Request.extras`, `Foreign` parts and tools); a
writer that cannot say something says so to a `Losses`, which the caller is told of, or refuses with CallerError where leaving
it out would change what is asked.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

Role = Literal["system", "developer", "user", "assistant"]
"""Who speaks. Results of tools are parts of a user's message."""

Finish = Literal["stop", "length", "tool_calls", "content_filter"]
"""Why an answer ended. A refusal of the model's own is "content_filter"."""


class Cache(msgspec.Struct, frozen=True, gc=False):
    """A mark: the prompt up to here is worth keeping. `ttl` as the dialect says it ("5m", "1h"), "" for its default."""

    ttl: str = ""


class Citation(msgspec.Struct, gc=False):
    """Where a text got something from. `start` and `end` count characters of the text, None where nobody said."""

    url: str = ""
    title: str = ""
    quoted: str = ""
    start: int | None = None
    end: int | None = None


# --- parts of messages and answers ---


class Text(msgspec.Struct, gc=False):
    """`signature`: Gemini signs texts, too (see `Thinking`)."""

    text: str
    cache: Cache | None = None
    citations: list[Citation] = []
    signature: str = ""
    origin: str = ""


class Media(msgspec.Struct, gc=False):
    """An image, a document, a recording, a film. Exactly one of `data` (base64), `url`, `file` (an id at the provider) and
    `text` (a plain-text document) is set. `type` is a media type ("image/png"), "" where nobody said."""

    kind: Literal["image", "document", "audio", "video"]
    data: str = ""
    url: str = ""
    file: str = ""
    text: str = ""
    type: str = ""
    name: str = ""  # a document's title or file name
    detail: str = ""  # OpenAI's word for an image's resolution
    context: str = ""  # Anthropic's note on a document
    cites: bool = False  # the answer shall cite this document
    cache: Cache | None = None


class Thinking(msgspec.Struct, gc=False):
    """What a model thought. `signature` proves it to the provider that wrote it, whose dialect is `origin`; nobody else takes
    it. `hidden`: an encrypted thought without words (redacted thinking, encrypted reasoning)."""

    text: str = ""
    signature: str = ""
    hidden: str = ""
    origin: str = ""
    id: str = ""


class ToolCall(msgspec.Struct, gc=False):
    """`arguments` is JSON text as the model wrote it, or free text when `custom`. `signature`: as in `Thinking`."""

    id: str
    name: str
    arguments: str = "{}"
    custom: bool = False
    signature: str = ""
    origin: str = ""
    cache: Cache | None = None


class ToolResult(msgspec.Struct, gc=False):
    """What the caller's tool answered to the call `id`. `name` is the tool's, "" where the dialect does not say it."""

    id: str
    parts: list[Text | Media | Foreign]
    name: str = ""
    is_error: bool = False
    custom: bool = False
    cache: Cache | None = None


class Refusal(msgspec.Struct, gc=False):
    """The model's own words for not answering."""

    text: str


class Foreign(msgspec.Struct, gc=False):
    """Something only its own dialect has a word for (a provider's own server tool at work, say): its type and value as they
    came. A writer of another dialect names it to `Losses`, or refuses it."""

    dialect: str
    type: str
    value: Any


Part = Text | Media | Thinking | ToolCall | ToolResult | Refusal | Foreign


class Message(msgspec.Struct, gc=False):
    """`name` tells speakers of one role apart (OpenAI only)."""

    role: Role
    parts: list[Part]
    name: str = ""


# --- what is asked ---


class Tool(msgspec.Struct, gc=False):
    """A function that the caller offers, its parameters as JSON Schema (None: it takes none). `custom`: it takes free text.
    `server`: the provider's own tool (web search ...), which only `dialect` knows: `value` is its whole definition, and a
    writer of another dialect leaves it out and says so."""

    name: str
    description: str = ""
    schema: dict[str, Any] | None = None
    strict: bool | None = None
    cache: Cache | None = None
    custom: bool = False
    server: bool = False
    dialect: str = ""
    value: Any = None


class ToolChoice(msgspec.Struct, gc=False):
    """`names`: for "tool" the one that must be called, for "allowed" those that may (`must`: one of them has to be)."""

    mode: Literal["auto", "required", "none", "tool", "allowed"]
    names: tuple[str, ...] = ()
    must: bool = False


class Reasoning(msgspec.Struct, gc=False):
    """How much to think. `effort` is OpenAI's word (none, minimal, low, medium, high, xhigh, max), `budget` tokens; `on` None:
    nothing was said about whether at all. `shown`: whether and how the thoughts shall be told ("auto", "summarized",
    "detailed", "concise", "omitted", "" = not said)."""

    on: bool | None = None
    effort: str = ""
    budget: int | None = None
    adaptive: bool = False
    shown: str = ""


class Format(msgspec.Struct, gc=False):
    """The answer shall be JSON; with `schema`, such JSON."""

    schema: dict[str, Any] | None = None
    name: str = ""
    description: str = ""
    strict: bool | None = None


class Request(msgspec.Struct, kw_only=True, gc=False):
    """One request for (the next turn of) a conversation. None and "" mean: not said."""

    dialect: str  # in which it was written
    model: str
    messages: list[Message]  # system's and developer's too, where they stood
    stream: bool = False
    tools: list[Tool] = []
    tool_choice: ToolChoice | None = None
    parallel: bool | None = None  # more than one call in a turn
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: list[str] = []
    n: int | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    logit_bias: dict[str, Any] | None = None
    reasoning: Reasoning | None = None
    format: Format | None = None
    verbosity: str = ""
    modalities: list[str] = []
    audio: dict[str, Any] | None = None  # OpenAI's words: voice, format
    user: str = ""
    metadata: dict[str, Any] | None = None
    service_tier: str = ""
    store: bool | None = None
    cache: Cache | None = None  # Anthropic's mark for the whole prompt
    cache_key: str = ""  # OpenAI's prompt_cache_key
    include_usage: bool = False  # the caller of a stream wants its usage (OpenAI's stream_options)
    extras: dict[str, Any] = {}  # what has no word here: path in the caller's own spelling -> value


# --- what is answered ---


class Choice(msgspec.Struct, gc=False):
    """One answer. `stop` is the stop sequence that ended it; `logprobs` in OpenAI's shape."""

    parts: list[Part]
    finish: Finish = "stop"
    index: int = 0
    stop: str | None = None
    logprobs: Any = None


class Spent(msgspec.Struct, gc=False):
    """Tokens as answers tell them, in the words of `exchange.Usage`: `input` holds cache reads and writes, `output` the
    reasoning."""

    input: int = 0
    cached: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    output: int = 0
    reasoning: int = 0
    audio_input: int = 0
    audio_output: int = 0


class Answer(msgspec.Struct, kw_only=True, gc=False):
    """A whole answer. `created` is seconds since the epoch, 0 where nobody said. `extras` as in `Request`."""

    id: str = ""
    model: str = ""
    choices: list[Choice]
    spent: Spent | None = None
    created: int = 0
    service_tier: str = ""
    extras: dict[str, Any] = {}


# --- the same in pieces ---
#
# Of one choice: Started, then parts one after another - a call's pieces may come between another call's, told apart by
# `call` - then Finished. `choice` is 0 unless the caller asked for several answers.


class Started(msgspec.Struct, gc=False):
    """The answer has an id and a model's name. `spent`: what the prompt took, where the dialect says it first."""

    id: str = ""
    model: str = ""
    created: int = 0
    spent: Spent | None = None
    service_tier: str = ""


class TextDelta(msgspec.Struct, gc=False):
    text: str
    choice: int = 0
    logprobs: Any = None
    signature: str = ""
    origin: str = ""


class ThinkingDelta(msgspec.Struct, gc=False):
    """A piece of a thought; `signature` comes with or after its last words and ends it; `hidden` is whole."""

    text: str = ""
    signature: str = ""
    hidden: str = ""
    origin: str = ""
    id: str = ""
    choice: int = 0


class RefusalDelta(msgspec.Struct, gc=False):
    text: str
    choice: int = 0


class CitationDelta(msgspec.Struct, gc=False):
    citation: Citation
    choice: int = 0


class CallStarted(msgspec.Struct, gc=False):
    """The `call`th tool call of its choice, counted from 0."""

    call: int
    id: str
    name: str
    custom: bool = False
    signature: str = ""
    origin: str = ""
    choice: int = 0


class CallDelta(msgspec.Struct, gc=False):
    """A piece of the `call`th call's arguments (JSON text)."""

    call: int
    arguments: str
    choice: int = 0


class MediaPart(msgspec.Struct, gc=False):
    """A whole image or recording in the answer."""

    media: Media
    choice: int = 0


class ForeignPart(msgspec.Struct, gc=False):
    foreign: Foreign
    choice: int = 0


class Finished(msgspec.Struct, gc=False):
    finish: Finish
    stop: str | None = None
    choice: int = 0


class SpentSoFar(msgspec.Struct, gc=False):
    """Usage; the last one counts."""

    spent: Spent
    service_tier: str = ""


Event = (
    Started
    | TextDelta
    | ThinkingDelta
    | RefusalDelta
    | CitationDelta
    | CallStarted
    | CallDelta
    | MediaPart
    | ForeignPart
    | Finished
    | SpentSoFar
)


class Losses:
    """What of a request its target cannot say, in the caller's own spelling, each once, in the order found."""

    __slots__ = ("_found", "_spelling")

    def __init__(self, spelling: Mapping[str, str] | None = None) -> None:
        """*spelling*: how the caller's dialect writes the fields of `Request` ("seed" -> "generationConfig.seed"); a field that
        is not in it is written as it is here."""
        self._spelling = spelling or {}
        self._found: dict[str, None] = {}

    def add(self, field: str) -> None:
        """*field* is a field of `Request`, a key of its `extras`, or a path ("messages.content.cache_control")."""
        self._found[self._spelling.get(field, field)] = None

    def __bool__(self) -> bool:
        return bool(self._found)

    def __iter__(self) -> Any:
        return iter(self._found)

    def header(self, limit: int = 1000) -> str:
        """For `x-aigw-loss`: names with commas between them, as many as fit *limit* characters, then "..."."""
        names: list[str] = []
        size = 0
        for name in self._found:
            clean = "".join(letter if " " < letter < "\x7f" and letter != "," else "?" for letter in name)[:200]
            size += len(clean) + 1
            if size > limit:
                return ",".join([*names, "..."])
            names.append(clean)
        return ",".join(names)


_SEAL = b"aigw\0"


def seal(signature: str, origin: str, dialect: str) -> str:
    """A signature of *origin*'s provider on its way to a caller of *dialect*: as it is when both are the same, else marked, so
    that it is known again when the caller sends it back, and shown to nobody but its maker. Base64, as all of them are."""
    if not signature or origin == dialect:
        return signature
    return base64.b64encode(_SEAL + origin.encode() + b"\0" + signature.encode()).decode()


def unseal(signature: str, dialect: str) -> tuple[str, str]:
    """Origin and signature of what a caller of *dialect* sends back."""
    if signature.startswith("YWlnd"):  # base64 of "aigw"
        try:
            marked = base64.b64decode(signature, validate=True)
        except (binascii.Error, ValueError):
            return dialect, signature
        if marked.startswith(_SEAL):
            origin, _, rest = marked[len(_SEAL) :].partition(b"\0")
            return origin.decode("ascii", "replace"), rest.decode("utf-8", "replace")
    return dialect, signature

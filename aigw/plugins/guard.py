"""Content safety: what may be asked, and what may be answered.

By lists (words, phrases, regular expressions), which cost next to nothing, and by whoever else can tell (`judges.py`). Streams
are let through as soon as they are clean: of lists only what may be the beginning of something forbidden is held back, of
judges a window at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, Self

import msgspec

from aigw.canonical import (
    Answer,
    CallDelta,
    CallStarted,
    Choice,
    Event,
    Finished,
    Media,
    Message,
    Part,
    RefusalDelta,
    Request,
    Started,
    Text,
    TextDelta,
    Thinking,
    ThinkingDelta,
    ToolCall,
    ToolResult,
)
from aigw.errors import ConfigError
from aigw.hooks import EndStream, Host, Plugin, Reply, View
from aigw.plugins import judges
from aigw.plugins.patterns import OVERLAP, Pattern
from aigw.plugins.wordlist import WordList

LARGEST_FILE = 64 * 1024 * 1024
"""Bytes of a file of words."""

CONTEXT = 200
"""Characters before a piece that judges are shown with it, and that lists look back on."""

BOUNDARY = 8
"""Characters before a piece that say whether a word goes on in it."""

BODY_TEXTS = ("input", "prompt", "query", "documents", "texts", "requests", "content", "contents", "instructions")
"""Members of requests other than conversations that hold texts."""


class Settings(msgspec.Struct, forbid_unknown_fields=True):
    """`words`, `words_file` (one on each line, beside the config) and `patterns` are lists; `moderation`, `webhook`, `aliyun`
    and `judge` are asked. `looks_at`: "last" is what came after the model's last answer. `action`: "block" refuses, "mask"
    writes *** in the place of what lists found, "log" only counts. `reply`: a blocked request is answered with `message` in
    place of an error. `window`: characters of a stream that judges see at a time, and that wait for patterns."""

    words: tuple[str, ...] = ()
    words_file: str = ""
    patterns: tuple[str, ...] = ()
    moderation: judges.Moderation | None = None
    webhook: judges.Webhook | None = None
    aliyun: judges.Aliyun | None = None
    judge: judges.Model | None = None
    on: tuple[Literal["request", "answer"], ...] = ("request", "answer")
    looks_at: Literal["last", "all"] = "last"
    action: Literal["block", "mask", "log"] = "block"
    message: str = "This cannot be answered here: it holds what the operator of this gateway does not allow."
    reply: bool = False
    window: int = 400


class Guard(Plugin):
    """Refuses, masks or counts what is forbidden."""

    name = "guard"
    phase = "guard"
    reads = frozenset({"request", "answer", "stream"})
    fail = "closed"
    covers = frozenset({"conversation", "embeddings", "rerank", "images", "speech"})
    timeout = 10.0
    Config = Settings
    config: Settings

    def __new__(cls, config: Settings, host: Host) -> Self:
        """Who asks nobody needs no task on streams; who looks at requests only leaves answers alone."""
        kind: type = cls
        if cls is Guard and "answer" not in config.on:
            kind = RequestGuard
        elif cls is Guard and _asks(config):
            kind = AskingGuard
        made: Self = object.__new__(kind)
        return made

    def __init__(self, config: Settings, host: Host) -> None:
        super().__init__(config, host)
        key = f"plugins.{host.name}"
        if not config.on:
            raise ConfigError('expected "request", "answer", or both', key=f"{key}.on")
        if not 1 <= config.window <= 100_000:
            raise ConfigError("expected 1 to 100000 characters", key=f"{key}.window")
        self.lists = Lists(self._words(key), self._patterns(key), min(config.window, OVERLAP))
        self.judges = [judges.made(one, host) for one in _asks(config)]
        if not self.lists and not self.judges:
            raise ConfigError(
                "has nothing to go by: expected words, words_file, patterns, moderation, webhook, aliyun or judge", key=key
            )

    def _words(self, key: str) -> WordList:
        words = list(self.config.words)
        if self.config.words_file:
            path = self.host.config_folder / self.config.words_file
            try:
                with path.open("rb") as file:
                    content = file.read(LARGEST_FILE + 1)
                if len(content) > LARGEST_FILE:
                    raise ConfigError("the file is larger than 64 MiB", key=f"{key}.words_file")
                words += content.decode("utf-8-sig").splitlines()
            except OSError as error:
                raise ConfigError(f"{path} cannot be read: {error.strerror}", key=f"{key}.words_file") from None
            except UnicodeDecodeError:
                raise ConfigError(f"{path} is not in UTF-8", key=f"{key}.words_file") from None
        try:
            return WordList(words)
        except ValueError as error:
            raise ConfigError(str(error), key=f"{key}.words") from None

    def _patterns(self, key: str) -> list[Pattern]:
        found = []
        for number, said in enumerate(self.config.patterns):
            try:
                found.append(Pattern(said))
            except ValueError as error:
                raise ConfigError(str(error), key=f"{key}.patterns[{number}]") from None
        return found

    # requests

    async def request(self, view: View) -> Request | bytes | Reply | None:
        if "request" not in self.config.on:
            return None
        if not view.conversation:
            return await self._body(view)
        request = view.request
        changed = False
        texts = list(_texts(request.messages if self.config.looks_at == "all" else _last(request.messages)))
        for holder, field in texts:
            made = self._checked(view, getattr(holder, field))
            if made is not None:
                setattr(holder, field, made)
                changed = True
            elif view.state == "blocked":
                return self._refused(view)
        if self.judges:
            text = "\n".join(getattr(holder, field) for holder, field in texts)
            if not await self.clean(view, "request", text, list(_images(_last(request.messages)))):
                return self._refused(view)
        return request if changed else None

    async def _body(self, view: View) -> bytes | None:
        """Of what is no conversation: its texts, wherever they stand."""
        try:
            said = msgspec.json.decode(view.body)
        except (msgspec.MsgspecError, RecursionError):
            return None  # whoever reads it next says what is wrong
        if not isinstance(said, dict):
            return None
        texts: list[str] = []
        changed = False
        for name in BODY_TEXTS:
            if name in said:
                made = self._inside(view, said[name], texts)
                changed = changed or made is not said[name]
                said[name] = made
        if view.state == "blocked" or (self.judges and not await self.clean(view, "request", "\n".join(texts), [])):
            view.refuse(self.config.message, code="policy_content_blocked")
        return msgspec.json.encode(said) if changed else None

    def _inside(self, view: View, value: Any, texts: list[str]) -> Any:
        if isinstance(value, str):
            texts.append(value)
            made = self._checked(view, value)
            return value if made is None else made
        if isinstance(value, list):
            found = [self._inside(view, one, texts) for one in value]
            return value if all(a is b for a, b in zip(found, value, strict=True)) else found
        if isinstance(value, dict):
            inside = {key: self._inside(view, one, texts) for key, one in value.items()}
            return value if all(inside[key] is value[key] for key in value) else inside
        return value

    def _checked(self, view: View, text: str) -> str | None:
        """*text* with what is forbidden masked, or None where nothing is; blocks by the view's state."""
        places = self.lists.places(text)
        if not places:
            return None
        if self.count(view, "request", "list") and self.config.action == "mask":
            return masked(text, places)
        if self.config.action == "block":
            view.state = "blocked"
        return None

    def _refused(self, view: View) -> Reply:
        """What a blocked request gets. Raises PolicyError, unless the config wants an answer."""
        if not self.config.reply:
            view.refuse(self.config.message, code="policy_content_blocked")
        return Reply(Answer(model=view.model, choices=[self.ending()]))

    # answers

    async def answer(self, view: View, answer: Answer) -> Answer | None:
        choices = []
        for choice in answer.choices:
            found, texts = False, []
            for part in choice.parts:
                for holder, field in _of_part(part):
                    text = getattr(holder, field)
                    texts.append(text)
                    places = self.lists.places(text)
                    if places and self.count(view, "answer", "list"):
                        found = True
                        if self.config.action == "mask" and isinstance(holder, Text):
                            holder.text = masked(text, places)
            blocked = found and self.config.action == "block"
            if not blocked and self.judges and texts:
                blocked = not await self.clean(view, "answer", "\n".join(texts), [])
            choices.append(self.ending(choice.index) if blocked else choice)
        answer.choices = choices
        return answer

    def event(self, view: View, event: Event) -> Sequence[Event] | None:
        if view.heard is None:
            view.heard = Heard(self, view)
        heard: Heard = view.heard
        return heard.event(event)

    # both

    async def clean(self, view: View, where: judges.Where, text: str, images: list[str]) -> bool:
        """Whether the judges let it pass, or their word does not count (`action = "log"`)."""
        if not text.strip() and not images:
            return True
        for judge in self.judges:
            verdict = await judge.judge(view, where, text, images)
            if verdict.refused:
                self.count(view, where, verdict.reason or "judge")
                return self.config.action == "log"
        return True

    def count(self, view: View, where: judges.Where, reason: str) -> bool:
        """Note that something was found; whether anything follows from it."""
        self.host.count(f"{where}_found")
        self.host.log.info("request %s: the %s holds what is not allowed (%s)", view.id, where, reason)
        return self.config.action != "log"

    def ending(self, choice: int = 0) -> Choice:
        return Choice([Text(self.config.message)], "content_filter", choice)


class RequestGuard(Guard):
    """Of requests only: answers pass untouched."""

    reads = frozenset({"request"})
    answer = Plugin.answer
    event = Plugin.event


class AskingGuard(Guard):
    """Of streams that wait for judges."""

    event = Plugin.event

    async def events(self, view: View, events: Sequence[Event]) -> Sequence[Event]:
        if view.heard is None:
            view.heard = Heard(self, view)
        heard: Heard = view.heard
        found: list[Event] = []
        for event in events:
            try:
                made = heard.event(event)
            except EndStream as end:
                raise EndStream([*found, *end.events]) from None
            for one in (event,) if made is None else made:
                found += await self._judged(view, heard, one, found)
        return found

    async def _judged(self, view: View, heard: Heard, event: Event, before: list[Event]) -> list[Event]:
        """What goes on after *event*, once the window it belongs to is full and clean."""
        waiting = heard.waiting
        text = getattr(event, "arguments", None) if isinstance(event, CallDelta) else getattr(event, "text", None)
        if text is None and not waiting:
            return [event]
        waiting.append(event)
        heard.letters += text or ""
        if isinstance(event, Started) or (text is not None and len(heard.letters) < self.config.window):
            return []
        piece, heard.letters, heard.waiting = heard.letters, "", []
        if not await self.clean(view, "answer", heard.shown + piece, []):
            raise EndStream([*before, *heard.end()])
        heard.shown = (heard.shown + piece)[-CONTEXT:]
        return waiting


class Lists:
    """Words and patterns as one."""

    def __init__(self, words: WordList, patterns: Sequence[Pattern], window: int) -> None:
        self._words, self._patterns, self._window = words, patterns, window if patterns else 0
        self.looks_back = CONTEXT if patterns else BOUNDARY

    def __bool__(self) -> bool:
        return bool(self._words) or bool(self._patterns)

    def places(self, text: str, begin: int = 0) -> list[tuple[int, int]]:
        """From and to of what is forbidden in *text*, in order; what ended before *begin* is let be."""
        found = self._words.places(text, begin) if self._words else []
        for pattern in self._patterns:
            found += [(start, end) for start, end in pattern.places(text) if end > begin]
        return sorted(found) if self._patterns else found

    def harmless(self, text: str) -> bool:
        """Whether a quick look says that *text* can go, whatever follows."""
        return not self._window and self._words.harmless(text)

    def held(self, text: str, begin: int) -> int:
        """Characters at its end, but not before *begin*, of which nobody knows yet."""
        words = self._words.held(text, begin) if self._words else 0
        return max(words, min(len(text) - begin, self._window))


MOST_HELD = 20_000
"""Characters that a stream may hold back for what never comes."""


class Pending:
    """A text that comes in pieces: `seen` was let go, `text` was not."""

    __slots__ = ("seen", "text")

    def __init__(self) -> None:
        self.seen = self.text = ""


class Heard:
    """One streamed answer: its texts, each by its kind, choice and call."""

    def __init__(self, guard: Guard, view: View) -> None:
        self._guard, self._view = guard, view
        self._pending: dict[tuple[str, int, int], Pending] = {}
        self._only: Pending | None = None  # the only text so far, as most answers have it
        self._choices: set[int] = set()
        self.waiting: list[Event] = []  # for judges
        self.letters = ""  # the texts of those
        self.shown = ""  # what judges saw last

    def event(self, event: Event) -> Sequence[Event] | None:
        """What goes on in the place of *event*. Raises EndStream."""
        only = self._only
        if only is not None and type(event) is TextDelta and event.choice == 0 and not only.text:
            whole = only.seen + event.text
            if self._guard.lists.harmless(whole):
                only.seen = whole[-BOUNDARY:]
                return None
        choice = getattr(event, "choice", None)
        if choice is not None:
            self._choices.add(choice)
        if isinstance(event, (TextDelta, RefusalDelta, ThinkingDelta)):
            kind = type(event).__name__
            return [*self._others(choice or 0, kind), *self._piece(event, (kind, event.choice, 0), event.text)]
        if isinstance(event, CallDelta):
            return self._piece(event, ("CallDelta", event.choice, event.call), event.arguments)
        if choice is None or not self._pending:
            return None
        if isinstance(event, Finished):
            return [*self._others(choice, ""), event]
        if isinstance(event, CallStarted):
            return [*self._others(choice, "CallDelta"), event]
        return [*self._others(choice, ""), event]

    def _piece(self, event: Any, place: tuple[str, int, int], text: str) -> list[Event]:
        pending = self._pending.get(place)
        if pending is None:
            pending = self._pending[place] = Pending()
            self._only = pending if place == ("TextDelta", 0, 0) and len(self._pending) == 1 else None
        pending.text += text
        lists = self._guard.lists
        whole = pending.seen + pending.text
        held = lists.held(whole, len(pending.seen)) if lists else 0
        if held > MOST_HELD:
            held = 0
        go = self._let(pending, place, len(pending.text) - held)
        if isinstance(event, ThinkingDelta) and (event.signature or event.hidden):
            go += self._let(pending, place, len(pending.text))  # it ends here
        if isinstance(event, CallDelta):
            event.arguments = go
        else:
            event.text = go
        more = getattr(event, "logprobs", None) or getattr(event, "signature", "") or getattr(event, "hidden", "")
        return [event] if go or more else []

    def _let(self, pending: Pending, place: tuple[str, int, int], number: int) -> str:
        """The first *number* characters that wait, once they are clean."""
        if not number:
            return ""
        guard, seen = self._guard, len(pending.seen)
        text = pending.seen + pending.text
        end = seen + number
        places = [place for place in guard.lists.places(text, seen) if place[0] < end] if guard.lists else []
        go = pending.text[:number]
        if places and guard.count(self._view, "answer", "list"):
            if guard.config.action == "block":
                raise EndStream(self.end())
            if place[0] == "TextDelta":
                end = max(end, *(to for _, to in places))  # what overlaps with the end goes as a whole
                number, go = end - seen, text[seen:end]
                inside = [(max(start, seen) - seen, min(to, end) - seen) for start, to in places]
                go = masked(go, inside)
        pending.seen = (pending.seen + pending.text[:number])[-guard.lists.looks_back :]
        pending.text = pending.text[number:]
        return go

    def _others(self, choice: int, but: str) -> list[Event]:
        """What waits in other texts of a choice, which do not go on."""
        found: list[Event] = []
        for place, pending in self._pending.items():
            if not pending.text or place[1] != choice or place[0] == but:
                continue
            go = self._let(pending, place, len(pending.text))
            if place[0] == "TextDelta":
                found.append(TextDelta(go, choice))
            elif place[0] == "RefusalDelta":
                found.append(RefusalDelta(go, choice))
            elif place[0] == "ThinkingDelta":
                found.append(ThinkingDelta(go, choice=choice))
            else:
                found.append(CallDelta(place[2], go, choice))
        return found

    def end(self) -> list[Event]:
        """What a stream ends with here."""
        found: list[Event] = []
        for choice in sorted(self._choices or {0}):
            if self._guard.config.message:
                found.append(TextDelta(self._guard.config.message, choice))
            found.append(Finished("content_filter", None, choice))
        return found


def masked(text: str, places: Sequence[tuple[int, int]]) -> str:
    """*text* with *** in those places."""
    pieces: list[str] = []
    last = 0
    for start, end in places:
        if end <= last:
            continue
        if start >= last:
            pieces += (text[last:start], "***")
        last = end
    return "".join((*pieces, text[last:]))


def _asks(config: Settings) -> list[Any]:
    return [one for one in (config.moderation, config.aliyun, config.webhook, config.judge) if one is not None]


def _last(messages: Sequence[Message]) -> Sequence[Message]:
    """What came after the model's last answer."""
    for number in range(len(messages) - 1, -1, -1):
        if messages[number].role == "assistant" and number < len(messages) - 1:
            return messages[number + 1 :]
    return messages


def _texts(messages: Sequence[Message]) -> Iterator[tuple[Any, str]]:
    """Who holds each text, and in which field."""
    for message in messages:
        for part in message.parts:
            yield from _of_part(part)


def _of_part(part: Part) -> Iterator[tuple[Any, str]]:
    if isinstance(part, (Text, Thinking)) or (isinstance(part, Media) and part.text):
        yield part, "text"
    elif isinstance(part, ToolCall):
        yield part, "arguments"
    elif isinstance(part, ToolResult):
        for inner in part.parts:
            yield from _of_part(inner)


def _images(messages: Sequence[Message]) -> Iterator[str]:
    for message in messages:
        for part in message.parts:
            inner = part.parts if isinstance(part, ToolResult) else (part,)
            for one in inner:
                if isinstance(one, Media) and one.kind == "image" and (one.url or one.data):
                    yield one.url or f"data:{one.type or 'image/png'};base64,{one.data}"

"""Answers given again without asking anybody: to the same question (exact), or, where the config names a model that can tell,
to one that means the same (semantic).

A question is everything that an answer may depend on, in our own words for it, so that it is the same from every dialect,
streamed or not. Who asks counts as well, unless the config lets consumers share. Equal questions that come while the first of
them is on its way wait for its answer. What is kept is bytes: nobody can change it any more.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from array import array
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from operator import mul
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import msgspec
from msgspec.structs import replace

from aigw import canonical
from aigw.canonical import Answer, Choice, Message, Request, Spent, Text
from aigw.errors import ConfigError, GatewayError, StoreError
from aigw.exchange import Record
from aigw.hooks import Host, Plugin, Reply, View
from aigw.plugins.keeping import Packed, packed, unpacked

CANDIDATES = 8
"""Vectors whose similarity is worked out exactly, of those whose signs differ least from the question's."""

PATIENCE = 2.0
"""Seconds for the store: a slow one must not be worse than no cache."""

WRITING = 200
"""Answers on their way into the store; what comes beyond is kept in memory only."""

OVERHEAD = 400
"""Bytes that an answer takes besides its own."""


class Semantic(msgspec.Struct, forbid_unknown_fields=True):
    """Questions that mean the same. `model` makes vectors of texts (one that this gateway serves), `threshold` is the cosine
    from which on two are taken for the same, `most` how many are remembered. Only the last message, a user's, made of text,
    may differ: never the system's words, what was said before, tools, or parameters."""

    model: str
    threshold: float = 0.95
    most: int = 2000


class Settings(msgspec.Struct, forbid_unknown_fields=True):
    """`ttl` in seconds. `always`: answers to requests with a temperature other than 0, or none, as well (asking again then
    gives the same). `share`: who else gets an answer that one consumer asked for. `memory` in MiB, for each worker. `largest`
    answer in KiB. `kept`: "store" keeps answers in the database as well, where they outlive the process and serve all nodes."""

    ttl: float = 3600.0
    always: bool = False
    share: Literal["consumer", "group", "all"] = "consumer"
    memory: int = 64
    largest: int = 1024
    kept: Literal["memory", "store"] = "memory"
    semantic: Semantic | None = None


class Kept(msgspec.Struct, array_like=True):
    """An answer as it is kept. `cost` in nano-units of `currency`: what it took."""

    answer: bytes
    at: float  # epoch seconds
    conversation: bool
    cost: int = 0
    currency: str = "USD"
    provider: str = ""
    model: str = ""


class Asked(NamedTuple):
    """What this plugin keeps of an exchange that goes on to a provider. `key` "": it is not to be kept."""

    key: str
    kind: str = ""  # of question, for the semantic cache
    vector: array[float] | None = None
    leads: Flight | None = None


class Flight:
    """A question on its way: others wait for `landed`, which says whether there is an answer now."""

    __slots__ = ("began", "landed")

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.landed: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def lands(self, kept: bool) -> None:
        if not self.landed.done():
            self.landed.set_result(kept)


class Cache(Plugin):
    """Gives answers again that were given before."""

    name = "cache"
    phase = "cache"
    reads = frozenset({"request", "answer"})
    covers = frozenset({"conversation", "embeddings", "rerank"})
    timeout = 600.0  # those who wait for another's answer wait for as long as it takes
    Config = Settings
    config: Settings

    def __init__(self, config: Settings, host: Host) -> None:
        super().__init__(config, host)
        key = f"plugins.{host.name}"
        for name in ("ttl", "memory", "largest"):
            if not getattr(config, name) > 0:
                raise ConfigError("expected a number above 0", key=f"{key}.{name}")
        if config.semantic is not None:
            if not 0 < config.semantic.threshold <= 1:
                raise ConfigError("expected a number above 0, at most 1", key=f"{key}.semantic.threshold")
            if not config.semantic.most > 0:
                raise ConfigError("expected a number above 0", key=f"{key}.semantic.most")
        self._shelf: Shelf[Kept] = Shelf(config.memory * 1024 * 1024)
        self._written_out: Shelf[WrittenOut] = Shelf(config.memory * 1024 * 1024 // 4)
        self._flights: dict[str, Flight] = {}
        self._likes: OrderedDict[str, Likes] = OrderedDict()
        self._writing: set[asyncio.Task[None]] = set()

    def inherit(self, previous: Plugin) -> None:
        if isinstance(previous, Cache):
            self._shelf, self._likes, self._flights = previous._shelf, previous._likes, previous._flights  # noqa: SLF001
            self._shelf.most = self.config.memory * 1024 * 1024
            self._written_out = previous._written_out  # noqa: SLF001
            if (self.config.semantic and self.config.semantic.model) != (
                previous.config.semantic and previous.config.semantic.model
            ):
                self._likes = OrderedDict()  # vectors of another model say nothing

    async def shutdown(self) -> None:
        if self._writing:
            await asyncio.wait(self._writing, timeout=PATIENCE)

    # a request

    async def request(self, view: View) -> Reply | None:
        reads, writes, oldest = _wishes(view.headers)
        raw = self._key(view, view.body, stream=view.stream) if view.conversation and view.untouched and view.alone else ""
        if reads and raw:
            reply = self._as_before(raw, oldest)
            if reply is not None:
                return reply
        found = self._question(view) if reads or writes else None
        if found is None:
            view.header("x-aigw-cache", "skip")
            self.host.count("skipped")
            view.done()
            return None
        key, question = found
        if reads:
            for waited in range(3):
                kept = await self._known(key, oldest)
                if kept is not None:
                    return self._again(view, kept, key, raw)
                flight = self._flights.get(key)
                if flight is None or not writes or waited == 2:
                    break
                if await self._landed(flight):
                    self.host.count("joined")
                # else whoever asked got no answer: one of those who waited asks next, and the others wait once more
        kind, vector = "", None
        if self.config.semantic is not None and question is not None:
            kind, vector, reply = await self._alike(view, question, oldest if reads else -1, raw)
            if reply is not None:
                return reply
        leads = None
        if writes and key not in self._flights:
            leads = self._flights[key] = Flight()
        self.host.count("missed")
        view.header("x-aigw-cache", "miss")
        view.state = Asked(key if writes else "", kind, vector, leads)
        return None

    async def _landed(self, flight: Flight) -> bool:
        """Whether the answer that another waits for has come. A flight that nobody ended is given up in time."""
        left = flight.began + self.timeout - time.monotonic()
        try:
            return left > 0 and await asyncio.wait_for(asyncio.shield(flight.landed), left)
        except TimeoutError:
            return False

    def _question(self, view: View) -> tuple[str, Request | None] | None:
        """The key of what is asked for, and the conversation; None where its answer shall not be kept."""
        if view.conversation:
            request = view.request
            if not self._keeps(view, request):
                return None
            said = _encode(_bare(request))
            return None if said is None else (self._key(view, said), request)
        said = _sorted(view.body)
        return None if said is None else (self._key(view, said), None)

    def _keeps(self, view: View, request: Request) -> bool:
        if request.temperature != 0 and not self.config.always:
            return False
        if any(tool.server for tool in request.tools):
            return False  # what a search finds changes
        # an answer that the provider keeps has an id that a later request names: each needs its own
        return view.operation != "responses" or request.store is False

    def _key(self, view: View, question: bytes, *, stream: bool | None = None) -> str:
        """*stream* tells apart requests as they came; a question is the same either way."""
        share = self.config.share
        whose = "" if share == "all" else f"g:{view.group}" if share == "group" and view.group else f"c:{view.consumer_id}"
        what = "conversation" if view.conversation and stream is None else f"{view.operation} {stream or ''}"
        return hashlib.sha256(
            "\0".join((whose, what, view.route, view.model, "")).encode("utf-8", "replace") + question
        ).hexdigest()

    async def _known(self, key: str, oldest: float) -> Kept | None:
        kept = self._shelf.get(key)
        if kept is None and self.config.kept == "store":
            kept = await self._stored(key)
            if kept is not None:
                self._shelf.put(key, kept, len(kept.answer))
        return kept if kept is not None and time.time() - kept.at < min(self.config.ttl, oldest) else None

    async def _stored(self, key: str) -> Kept | None:
        try:
            async with asyncio.timeout(PATIENCE):
                found = await self.host.kv.get(key)
        except (StoreError, TimeoutError):
            self.host.count("store_failed")
            return None
        if found is None:
            return None
        try:
            return _read_kept(found)
        except msgspec.MsgspecError:
            self.host.count("corrupt")
            return None

    def _as_before(self, raw: str, oldest: float) -> Reply | None:
        """The answer to a request that came like this before, byte for byte."""
        found = self._written_out.get(raw)
        kept = None if found is None else self._shelf.get(found.key)
        if found is None or kept is None or kept.at != found.at or time.time() - kept.at >= min(self.config.ttl, oldest):
            return None
        self.host.count("hit")
        return _reply(kept, found.body)

    def _again(self, view: View, kept: Kept, key: str, raw: str, similarity: float | None = None) -> Reply | None:
        """The answer once more; None where it cannot be read. *raw*: the key of the request as it came, "" where others see the
        answer."""
        answer: Answer | bytes
        try:
            answer = read(kept.answer) if kept.conversation else kept.answer
        except (msgspec.MsgspecError, KeyError, TypeError, ValueError):
            self.host.count("corrupt")
            return None
        if raw and isinstance(answer, Answer):
            answer = view.write(answer)
            self._written_out.put(raw, WrittenOut(key, kept.at, answer), len(answer))
        self.host.count("hit" if similarity is None else "alike")
        return _reply(kept, answer, similarity)

    # questions that mean the same

    async def _alike(
        self, view: View, request: Request, oldest: float, raw: str
    ) -> tuple[str, array[float] | None, Reply | None]:
        """The kind of question this is, where it stands among its like, and an answer to one of them."""
        semantic = self.config.semantic
        text = _last_words(request)
        if semantic is None or not text:
            return "", None, None
        others = [*request.messages[:-1], Message("user", [])]
        said = _encode(_bare(request, others))
        if said is None:
            return "", None, None
        kind = self._key(view, said)
        try:
            vector = _unit((await self.host.embed(semantic.model, [text]))[0])
        except GatewayError as error:
            self.host.count("embedding_failed")
            self.host.log.warning("no vector for a question: %s", error.code)
            return "", None, None
        likes = self._likes.get(kind)
        if likes is None or vector is None:
            return kind, vector, None
        for key, similarity in likes.nearest(vector, semantic.threshold):
            kept = await self._known(key, oldest)
            if kept is not None:
                reply = self._again(view, kept, key, raw, similarity)
                if reply is not None:
                    return kind, vector, reply
        return kind, vector, None

    # an answer

    async def answer(self, view: View, answer: Answer) -> None:
        if view.state is not None:
            view.heard = self._written(answer)  # now: others may change it after us

    def complete(self, view: View, answer: Answer | bytes) -> None:
        if view.state is None or view.heard is not None:
            return
        if isinstance(answer, bytes):
            view.heard = answer if len(answer) <= self.config.largest * 1024 else b""
        else:
            view.heard = self._written(answer)

    def _written(self, answer: Answer) -> bytes:
        """Bytes of what is worth keeping; none of what is not."""
        if not answer.choices or any(choice.finish == "content_filter" or not choice.parts for choice in answer.choices):
            return b""
        said = write(answer)
        return said if said is not None and len(said) <= self.config.largest * 1024 else b""

    def recorded(self, view: View, record: Record) -> None:
        asked: Asked | None = view.state
        if asked is None:
            return
        answer: bytes | None = view.heard
        good = bool(asked.key and answer and record.status == HTTPStatus.OK and not record.error)
        if good and answer:
            kept = Kept(
                answer, time.time(), view.conversation, record.cost or 0, record.currency, record.provider, record.model
            )
            self._shelf.put(asked.key, kept, len(kept.answer))
            if asked.vector is not None and self.config.semantic is not None:
                self._remember(asked)
            if self.config.kept == "store":
                self._store(asked.key, kept)
        if asked.leads is not None:
            if self._flights.get(asked.key) is asked.leads:
                del self._flights[asked.key]
            asked.leads.lands(good)

    def _remember(self, asked: Asked) -> None:
        assert asked.vector is not None
        assert self.config.semantic is not None
        likes = self._likes.get(asked.kind)
        if likes is None:
            likes = self._likes[asked.kind] = Likes()
        self._likes.move_to_end(asked.kind)
        likes.add(asked.key, asked.vector, self.config.semantic.most)
        while sum(map(len, self._likes.values())) > self.config.semantic.most and len(self._likes) > 1:
            self._likes.popitem(last=False)

    def _store(self, key: str, kept: Kept) -> None:
        if len(self._writing) < WRITING:
            task = asyncio.get_running_loop().create_task(self._put(key, msgspec.msgpack.encode(kept)))
            self._writing.add(task)
            task.add_done_callback(self._writing.discard)

    async def _put(self, key: str, value: bytes) -> None:
        try:
            await self.host.kv.put(key, value, self.config.ttl)
        except StoreError:
            self.host.count("store_failed")


class WrittenOut(NamedTuple):
    """The answer `key`, kept at `at`, as one way of asking for it wants it."""

    key: str
    at: float
    body: bytes


T = TypeVar("T")


class Shelf(Generic[T]):
    """What takes memory, at most `most` bytes of it; what nobody asked for longest goes first."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.size = 0
        self._kept: OrderedDict[str, tuple[T, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: str) -> T | None:
        found = self._kept.get(key)
        if found is None:
            return None
        self._kept.move_to_end(key)
        return found[0]

    def put(self, key: str, value: T, size: int) -> None:
        before = self._kept.pop(key, None)
        if before is not None:
            self.size -= before[1]
        self._kept[key] = (value, size + OVERHEAD)
        self.size += size + OVERHEAD
        while self.size > self.most:
            self.size -= self._kept.popitem(last=False)[1][1]


def _reply(kept: Kept, answer: Answer | bytes, similarity: float | None = None) -> Reply:
    age = str(max(0, int(time.time() - kept.at)))
    headers: tuple[tuple[str, str], ...] = (("x-aigw-cache", "hit"), ("age", age))
    if similarity is not None:
        headers = (*headers, ("x-aigw-similarity", f"{similarity:.3f}"))
    return Reply(answer, headers, kept.cost, kept.currency, kept.provider, kept.model)


class Likes:
    """Questions of one kind: their keys, vectors, and the signs of those. Comparing signs costs 0.1 us where a cosine costs 60,
    and vectors that point the same way have nearly all of them in common."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, tuple[int, array[float]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def add(self, key: str, vector: array[float], most: int) -> None:
        self._known[key] = (_signs(vector), vector)
        self._known.move_to_end(key)
        while len(self._known) > most:
            self._known.popitem(last=False)

    def nearest(self, vector: array[float], threshold: float) -> list[tuple[str, float]]:
        """Keys and cosines of those at least as similar as *threshold*, the most similar first."""
        signs = _signs(vector)
        near = sorted(((known ^ signs).bit_count(), key) for key, (known, _) in self._known.items())[:CANDIDATES]
        found = []
        for _, key in near:
            other = self._known[key][1]
            if len(other) == len(vector):
                cosine = sum(map(mul, vector, other))
                if cosine >= threshold:
                    found.append((key, min(1.0, cosine)))
        return sorted(found, key=lambda one: -one[1])


# --- what is asked ---


def _wishes(headers: Mapping[str, str]) -> tuple[bool, bool, float]:
    """Whether the caller takes an answer from here, whether its own may be kept, and how old one may be (seconds)."""
    own = headers.get("x-aigw-cache", "").strip().lower()
    reads, writes, oldest = own not in ("skip", "refresh"), own != "skip", float("inf")
    for directive in headers.get("cache-control", "").lower().split(","):
        name, _, value = directive.strip().partition("=")
        if name == "no-cache":
            reads = False
        elif name == "no-store":
            writes = False
        elif name == "max-age" and value.strip('"').isdigit():
            oldest = float(value.strip('"')[:12])
    return reads, writes, oldest


def _bare(request: Request, messages: list[Message] | None = None) -> Request:
    """*request* without what changes no answer: how it is to be sent, who it is for, what the provider should remember."""
    return replace(
        request,
        dialect="",
        messages=request.messages if messages is None else messages,
        stream=False,
        include_usage=False,
        user="",
        metadata=None,
        service_tier="",
        store=None,
        cache=None,
        cache_key="",
    )


_order = msgspec.json.Encoder(order="sorted").encode


def _encode(value: Any) -> bytes | None:
    try:
        return _order(value)
    except (TypeError, ValueError, RecursionError, OverflowError, UnicodeError):
        return None


def _sorted(body: bytes) -> bytes | None:
    """A JSON object without who it is for, its members in order; None for what is none."""
    try:
        said = msgspec.json.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return None
    if not isinstance(said, dict):
        return None
    said.pop("user", None)
    return _encode(said)


def _last_words(request: Request) -> str:
    """The text of the last message, when that is a user's and nothing but text."""
    last = request.messages[-1] if request.messages else None
    if last is None or last.role != "user" or not last.parts:
        return ""
    texts = [part.text for part in last.parts if isinstance(part, Text)]
    return "\n".join(texts).strip() if len(texts) == len(last.parts) else ""


def _unit(vector: Sequence[float]) -> array[float] | None:
    """*vector* with length 1; None for one that has none."""
    length = sum(map(mul, vector, vector)) ** 0.5
    return array("f", [one / length for one in vector]) if 0 < length < float("inf") else None


def _signs(vector: array[float]) -> int:
    return int("".join(["1" if one > 0 else "0" for one in vector]) or "0", 2)


# --- what is kept ---

_NEWEST = "1"
"""Of the form in which answers are kept; another one is not read."""


class _Choice(msgspec.Struct, array_like=True, gc=False):
    parts: Packed
    finish: canonical.Finish
    index: int
    stop: str | None
    logprobs: Any


class _Answer(msgspec.Struct, array_like=True, gc=False):
    form: str
    id: str
    model: str
    created: int
    service_tier: str
    spent: Spent | None
    extras: dict[str, Any]
    choices: list[_Choice]


_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(_Answer).decode
_read_kept = msgspec.msgpack.Decoder(Kept).decode


def write(answer: Answer) -> bytes | None:
    """*answer* as bytes; None for one that cannot be kept."""
    try:
        choices = [_Choice(packed(one.parts), one.finish, one.index, one.stop, one.logprobs) for one in answer.choices]
        return _pack(
            _Answer(_NEWEST, answer.id, answer.model, answer.created, answer.service_tier, answer.spent, answer.extras, choices)
        )
    except (TypeError, ValueError, OverflowError, RecursionError):
        return None


def read(said: bytes) -> Answer:
    """What `write` wrote. Raises MsgspecError, KeyError, ValueError."""
    found = _unpack(said)
    if found.form != _NEWEST:
        raise ValueError("another form")
    return Answer(
        id=found.id,
        model=found.model,
        choices=[Choice(unpacked(one.parts), one.finish, one.index, one.stop, one.logprobs) for one in found.choices],
        spent=found.spent,
        created=found.created,
        service_tier=found.service_tier,
        extras=found.extras,
    )

"""Objects that providers keep for us, and who made them: a response, later a file, a batch, a job. Whoever asks for one again
is led to the provider, and the account, that has it - also after a restart - and nobody finds another consumer's.

How an endpoint becomes one of these: give its `Operation` an `object` ("response"), and `{id}` in its path when it asks for
one that is there. The server puts the id into `Exchange.object_id`, `Stateful.route` leads there, and what a provider makes
by an operation with an `object` and without an id is noted by `Stateful.note` when its answer has gone by. Objects are known by
the ids that providers gave them.

An owner is kept in memory and in the store, under `stateful:CONSUMER:OBJECT`. It is written behind the answer, by one task that
is there while there is something to write; what a killed process had not written yet (some milliseconds) is asked of nobody.
"""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Protocol

import msgspec

from aigw.deployment import Deployment, ProviderKey, Route
from aigw.errors import CallerError, InternalError

log = logging.getLogger("aigw.stateful")

KEPT = 30 * 24 * 3600.0
"""Seconds that an owner is remembered: as long as OpenAI keeps responses."""

MOST = 20_000
"""Owners in memory. They take about 400 bytes each."""

WAITING = 10_000
"""Owners that wait for a store which does not answer; of more the oldest are given up."""

MOST_NAMED = 1000
"""Files that one request may name (OpenAI takes 500 at once)."""

AGAIN = 1.0
"""Seconds until a store that failed is tried again."""

_ID = re.compile(rb'"id": ?"([A-Za-z0-9_.:-]{1,256})"')
_MAY_REFER = (b'"previous_response_id"', b'"conversation"')


class Values(Protocol):
    """The part of a store that is needed here."""

    async def get(self, key: str) -> bytes | None: ...

    async def put(self, key: str, value: bytes, ttl: float | None = None) -> None: ...

    async def delete(self, key: str) -> None: ...


class Owner(msgspec.Struct, array_like=True, frozen=True):
    """Who has an object: the provider by its name in the config, our key there by its label and account, the model it was made
    by. `owed`: what it took is not known yet (an answer made in the background, a batch). `lasting`: it is there until it is
    deleted, so its owner is remembered as long; else for `KEPT`."""

    provider: str
    key: str = ""
    account: str = ""
    model: str = ""
    owed: bool = False
    lasting: bool = False


class _File(msgspec.Struct):
    id: str = ""


class _Made(msgspec.Struct):
    """What answers tell of objects: their own ids, and those of the files that were made along."""

    id: str = ""
    output_file_id: str | None = None
    error_file_id: str | None = None
    file: _File | None = None
    result_files: list[str] | None = None


class _Part(msgspec.Struct):
    file_id: str | None = None


class _Uses(msgspec.Struct):
    """What requests name that must have been made before."""

    input_file_id: str | None = None
    training_file: str | None = None
    validation_file: str | None = None
    file_id: str | None = None
    file_ids: list[str] | None = None
    files: list[_Part] | None = None


class _Refers(msgspec.Struct):
    previous_response_id: str | None = None
    conversation: str | dict[str, object] | None = None


_owner = msgspec.json.Decoder(Owner).decode
_refers = msgspec.json.Decoder(_Refers).decode
_made = msgspec.json.Decoder(_Made).decode
_uses = msgspec.json.Decoder(_Uses).decode


class Stateful:
    """Who made what. One for a server's life."""

    def __init__(self, store: Values | None = None) -> None:
        """Without a *store* all is forgotten with the process."""
        self._store = store
        self._known: dict[str, Owner | None] = {}  # None: deleted
        self._waiting: dict[str, Owner | None] = {}
        self._writer: asyncio.Task[None] | None = None

    # asked

    async def owner(self, consumer_id: str, object_id: str) -> Owner | None:
        """None when *consumer_id* has no such object. Raises InternalError when nobody can tell just now."""
        key = _key(consumer_id, object_id)
        if key in self._known:
            return self._known[key]
        if self._store is None:
            return None
        try:
            found = await self._store.get(key)
        except Exception as error:  # noqa: BLE001 - a store of whatever kind that is out of reach
            log.warning("the store does not say who has an object: %s", type(error).__name__)
            raise InternalError(
                "gateway_overloaded", "Who keeps this object cannot be looked up just now. Try again.", retry_after=2
            ) from None
        if found is None:
            return None
        try:
            owner = _owner(found)
        except msgspec.DecodeError:
            return None
        self._remember(key, owner)
        return owner

    async def route(self, consumer_id: str, object_id: str) -> tuple[Route, Owner]:
        """The way to the one place that has *object_id*. Raises CallerError 404 when this consumer has none of that id."""
        owner = await self.owner(consumer_id, object_id)
        if owner is None:
            raise CallerError(
                "caller_object_not_found",
                "No object of this id is known for your key. Only what was made with a key of the same consumer is found, for "
                "30 days, and only where the provider keeps it.",
            )
        place = Deployment(provider=owner.provider)
        return Route(name=owner.model or owner.provider, targets=(place,), source="object"), owner

    async def continued(self, consumer_id: str, body: bytes, *, keyless: bool = False) -> Owner | None:
        """Who has what the request *body* goes on from (`previous_response_id`, `conversation`); None when it begins afresh.
        Raises CallerError (400, as OpenAI does) when this consumer has no such thing. *keyless*: there is one caller only,
        whose own they all are, wherever it made them."""
        if not any(name in body for name in _MAY_REFER):
            return None
        try:
            refers = _refers(body)
        except (msgspec.DecodeError, RecursionError, UnicodeError):
            return None  # the provider says what is wrong with it
        talk = refers.conversation.get("id") if isinstance(refers.conversation, dict) else refers.conversation
        for name, object_id in (("previous_response_id", refers.previous_response_id), ("conversation", talk)):
            if not object_id or not isinstance(object_id, str):
                continue
            owner = await self.owner(consumer_id, object_id)
            if owner is not None:
                return owner
            if not keyless:
                raise CallerError(
                    "caller_object_not_found",
                    f"`{name}` names nothing that your key made here in the last 30 days, at a provider that keeps it. Send "
                    "the whole conversation in `input`.",
                    status=400,
                    param=name,
                )
        return None

    async def used(self, consumer_id: str, body: bytes, *, keyless: bool = False) -> Owner | None:
        """Who has the files that the request *body* names; None when it names none. Raises CallerError 400 when one of them is
        not this consumer's. *keyless*: as in `continued`."""
        try:
            uses = _uses(body)
        except (msgspec.DecodeError, RecursionError, UnicodeError):
            return None  # the provider says what is wrong with it
        named = [(name, getattr(uses, name)) for name in ("input_file_id", "training_file", "validation_file", "file_id")]
        named += [("file_ids", one) for one in uses.file_ids or ()]
        named += [("files", one.file_id) for one in uses.files or ()]
        first: Owner | None = None
        for name, object_id in named[:MOST_NAMED]:
            if not object_id:
                continue
            owner = await self.owner(consumer_id, object_id)
            if owner is None and not keyless:
                raise CallerError(
                    "caller_object_not_found",
                    f"`{name}` names no file that was uploaded here with a key of the same consumer.",
                    status=400,
                    param=name,
                )
            first = first or owner
        if len(named) > MOST_NAMED and not keyless:
            raise CallerError("caller_invalid_request", f"More than {MOST_NAMED} files are named at once.")
        return first

    # told

    def note(self, consumer_id: str, owner: Owner, answer: bytes) -> None:
        """*answer* (its beginning is enough) tells of an object that *owner* made. Only enqueues."""
        found = _ID.search(answer)
        if found is not None:
            self.made(consumer_id, found[1].decode(), owner)

    def made(self, consumer_id: str, object_id: str, owner: Owner) -> None:
        """Only enqueues."""
        self._set(_key(consumer_id, object_id), owner)

    def gone(self, consumer_id: str, object_id: str) -> None:
        """It was deleted. Only enqueues."""
        self._set(_key(consumer_id, object_id), None)

    def _set(self, key: str, owner: Owner | None) -> None:
        self._remember(key, owner)
        if self._store is None:
            return
        self._waiting.pop(key, None)
        self._waiting[key] = owner
        if len(self._waiting) > WAITING:
            del self._waiting[next(iter(self._waiting))]
        if self._writer is None:
            self._writer = asyncio.get_running_loop().create_task(self._write(self._store), name="stateful")

    def _remember(self, key: str, owner: Owner | None) -> None:
        if len(self._known) >= MOST:
            del self._known[next(iter(self._known))]
        self._known[key] = owner

    async def _write(self, store: Values) -> None:
        failed = False
        try:
            while self._waiting:
                key = next(iter(self._waiting))
                owner = self._waiting[key]
                try:
                    if owner is None:
                        await store.delete(key)
                    else:
                        await store.put(key, msgspec.json.encode(owner), None if owner.lasting else KEPT)
                except Exception as error:  # noqa: BLE001 - a store of whatever kind that is out of reach: tried again
                    if not failed:
                        log.warning("who made an object cannot be stored yet: %s", type(error).__name__)
                    failed = True
                    await asyncio.sleep(AGAIN)
                    continue
                failed = False
                if self._waiting.get(key) is owner:
                    del self._waiting[key]
        finally:
            self._writer = None

    async def close(self, patience: float = 2.0) -> None:
        """Write what waits, for *patience* seconds."""
        writer = self._writer
        if writer is not None:
            _, late = await asyncio.wait({writer}, timeout=patience)
            for task in late:
                task.cancel()
            await asyncio.gather(writer, return_exceptions=True)


def _key(consumer_id: str, object_id: str) -> str:
    return f"stateful:{consumer_id}:{object_id}"


def told_of(answer: bytes) -> list[str]:
    """The ids of all objects that *answer* tells of: what was made, and the files that came with it."""
    try:
        made = _made(answer)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return []
    files = [made.output_file_id, made.error_file_id, made.file.id if made.file else "", *(made.result_files or ())]
    return [one for one in dict.fromkeys([made.id, *files]) if one and len(one) <= 256]


def narrowed(route: Route, owner: Owner) -> Route:
    """*route*, for a model, with those places only that are at *owner*. Raises CallerError when there is none."""
    places = tuple(place for place in (*route.targets, *route.fallback) if place.provider == owner.provider)
    if not places:
        raise CallerError(
            "caller_unsupported",
            f"What this request goes on from is kept by the provider {owner.provider!r}, which does not serve this model here. "
            "Ask for a model of that provider, or send the whole conversation in `input`.",
        )
    return msgspec.structs.replace(route, targets=places[:1], fallback=places[1:])


def others(keys: tuple[ProviderKey, ...], owner: Owner) -> list[str]:
    """The labels of *keys* that cannot see what *owner* has: all but the one it was made with, and those of its account. When
    neither is there any more every key is worth a try."""
    fit = {key.label for key in keys if key.label == owner.key or (owner.account and key.account == owner.account)}
    return [key.label for key in keys if key.label not in fit] if fit else []

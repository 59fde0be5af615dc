"""Sub-letting: `/v1/keys`, where a lead makes keys for others of its own group, lists them and ends them.

A lead is a consumer that its operator made one (`aigw keys create NAME --group GROUP --lead`). Those whom it makes are
consumers of the same group, so the group's terms hold for all of them together whatever the lead wrote; none is a lead.
"""

from __future__ import annotations

import json
import logging
import re
import time
from datetime import UTC, datetime
from typing import Any

import msgspec
from aiohttp import web
from msgspec.structs import replace

from aigw.access.authenticate import Directory
from aigw.access.consumer_keys import mint, new_id
from aigw.access.names import valid
from aigw.config import check, terms
from aigw.config.schema import Config, Group
from aigw.consumer import Caller, Consumer, ConsumerKey
from aigw.errors import CallerError, ConfigError, InternalError, PolicyError, StoreError
from aigw.storage.base import Store

log = logging.getLogger("aigw.access")

MOST = 1000
"""Live keys that one lead may have made."""

LARGEST = 64 * 1024
"""Bytes of a request."""

_SPAN = re.compile(r"([0-9]{1,6})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_TERMS = frozenset(field.name for field in msgspec.structs.fields(Group))


class Keys:
    """What leads may do, in one gateway."""

    def __init__(self, store: Store, directory: Directory, config: Config) -> None:
        self._store, self._directory, self._config = store, directory, config

    async def create(self, caller: Caller, body: bytes) -> dict[str, Any]:
        """A consumer and its key, which is in the answer this once. Raises CallerError, PolicyError, InternalError."""
        lead = _lead(caller)
        said = _object(body)
        name = _name(lead, said.pop("name", None))
        expires = _moment(said.pop("expires", None))
        tags = _tags(said.pop("tags", None))
        allowed = self._terms(said)
        mine = self._children(lead)
        now = time.time()
        if sum(_is_live(key, now) for _, keys in mine for key in keys) >= MOST:
            raise PolicyError("policy_forbidden", f"this API key has made {MOST} keys that are live; end some first")
        before, keys = next((pair for pair in mine if pair[0].name == name), (None, []))
        if any(_is_live(key, now) for key in keys):
            raise CallerError("caller_invalid_request", f"{name!r} has a key already; DELETE it first.", param="name")
        child = Consumer(
            id=before.id if before is not None else new_id(),
            name=name,
            group=lead.group,
            tags=tags,
            terms=allowed,
            parent=lead.id,
        )
        key, stored = mint(child.id, now=now, expires=expires)
        try:
            await self._store.put_consumer(child)
            await self._store.put_key(stored)
        except StoreError as error:
            raise _away(error) from None
        self._live({child.id: child}, {stored.id: stored})
        log.info("%s made the key %s for %s", lead.name, stored.id, name)
        return {"object": "key", "key": key, **_shown(child, stored)}

    def listed(self, caller: Caller) -> dict[str, Any]:
        """All that it made and that are live. Raises PolicyError."""
        now = time.time()
        mine = self._children(_lead(caller))
        data = [_shown(child, key) for child, keys in mine for key in keys if _is_live(key, now)]
        return {"object": "list", "data": sorted(data, key=lambda one: (one["name"], one["created"]))}

    async def end(self, caller: Caller, which: str) -> dict[str, Any]:
        """Revoke a key that it made, by its id or by its consumer's name or id. Raises CallerError, PolicyError,
        InternalError."""
        lead, now = _lead(caller), time.time()
        for child, keys in self._children(lead):
            chosen = [key for key in keys if _is_live(key, now) and which in (key.id, child.id, child.name)]
            if not chosen:
                continue
            try:
                for key in chosen:
                    await self._store.revoke_key(key.id, now)
            except StoreError as error:
                raise _away(error) from None
            self._live({}, {key.id: replace(key, revoked=now) for key in chosen})
            log.info("%s ended %s of %s", lead.name, ", ".join(key.id for key in chosen), child.name)
            return {"object": "key", "id": chosen[0].id, "name": child.name, "deleted": True}
        raise CallerError("caller_object_not_found", "This API key has made no live key of that id or name.")

    def _terms(self, said: dict[str, Any]) -> Any:
        for field in said:
            if field not in _TERMS:
                raise CallerError("caller_invalid_request", f"`{field[:64]}` is no term of a key.", param=field[:64])
        try:
            table = msgspec.convert(said, Group)
        except msgspec.ValidationError as error:
            raise CallerError("caller_invalid_request", f"The terms cannot be read: {error}.") from None
        wrong = check.group(self._config, table)
        if wrong:
            raise CallerError("caller_invalid_request", f"{wrong[0]}.", param=wrong[0].partition(":")[0])
        try:
            return terms.terms(table)
        except (ConfigError, ValueError) as error:
            raise CallerError("caller_invalid_request", f"{error}.") from None

    def _children(self, lead: Consumer) -> list[tuple[Consumer, list[ConsumerKey]]]:
        consumers, keys = self._directory.stored()
        mine = {one.id: one for one in consumers if one.parent == lead.id}
        found: dict[str, list[ConsumerKey]] = {child: [] for child in mine}
        for key in keys:
            if key.consumer_id in found:
                found[key.consumer_id].append(key)
        return [(mine[child], of_child) for child, of_child in found.items()]

    def _live(self, consumers: dict[str, Consumer | None], keys: dict[str, ConsumerKey | None]) -> None:
        """In this process at once; others hear of it by the store."""
        if self._directory.seq is not None:
            self._directory.apply(consumers, keys, self._directory.seq)


def _lead(caller: Caller) -> Consumer:
    consumer = caller.consumer
    if not consumer.lead or not consumer.group or consumer.parent:
        raise PolicyError(
            "policy_forbidden",
            "this API key may not make others; the gateway's operator allows it with: aigw keys set NAME --group GROUP --lead",
        )
    return consumer


def _object(body: bytes) -> dict[str, Any]:
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        raise CallerError("caller_invalid_json", "The body is not JSON.") from None
    if not isinstance(said, dict):
        raise CallerError("caller_invalid_request", "The body must be an object: name, and terms of the key.")
    return said


def _name(lead: Consumer, said: Any) -> str:
    try:
        if not isinstance(said, str):
            raise ValueError("expected a text")  # noqa: TRY004 - the same answer
        return valid(f"{lead.name}/{valid(said)}")
    except ValueError as error:
        raise CallerError("caller_invalid_request", f"`name`: {error}.", param="name") from None


def _tags(said: Any) -> str:
    if said is None:
        return ""
    if not isinstance(said, dict) or not all(isinstance(value, str) for value in said.values()):
        raise CallerError("caller_invalid_request", "`tags` must be an object of texts.", param="tags")
    text = json.dumps(said, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    if len(text) > 4096:  # they are copied into each record
        raise CallerError("caller_invalid_request", "`tags` is longer than 4096 characters.", param="tags")
    return text


def _moment(said: Any) -> float | None:
    """When a key ends: seconds since the epoch, ISO 8601 (UTC unless it names a zone), or a span ("30d")."""
    if said is None:
        return None
    now, found = time.time(), 0.0
    if isinstance(said, (int, float)) and not isinstance(said, bool):
        found = float(said)
    elif isinstance(said, str) and (span := _SPAN.fullmatch(said.strip())):
        found = now + int(span[1]) * _SECONDS[span[2]]
    elif isinstance(said, str):
        try:
            moment = datetime.fromisoformat(said.strip())
            found = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            found = 0.0
    if not now < found < 2**40:
        raise CallerError("caller_invalid_request", '`expires` must be in the future: "30d", "2027-01-31".', param="expires")
    return found


def _is_live(key: ConsumerKey, now: float) -> bool:
    return key.revoked is None and (key.expires is None or key.expires > now)


def _shown(child: Consumer, key: ConsumerKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": child.name,
        "group": child.group,
        "created": int(key.created),
        "expires": None if key.expires is None else int(key.expires),
        "tags": json.loads(child.tags) if child.tags else {},
        "terms": _written(child),
    }


def _written(child: Consumer) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(child.terms)
    if child.terms.budgets:
        found["budgets"] = [terms.written(one) for one in child.terms.budgets]
    return found


def _away(error: StoreError) -> InternalError | CallerError:
    if "already called" in str(error):
        return CallerError("caller_invalid_request", "Another consumer has this name; choose another.", param="name")
    log.warning("a key could not be stored: %s", error)
    return InternalError("gateway_overloaded", "The gateway cannot store keys just now; try again later.", retry_after=5)


async def body_of(request: web.Request) -> bytes:
    """Raises CallerError for one that is too large."""
    body = await request.content.read(LARGEST + 1)
    while not request.content.at_eof() and len(body) <= LARGEST:
        body += await request.content.read(LARGEST + 1 - len(body))
    if len(body) > LARGEST:
        raise CallerError("caller_body_too_large", f"The request's body is larger than {LARGEST // 1024} KiB.")
    return body

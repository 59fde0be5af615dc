"""Who is calling: the credential of a request -> a Caller, from memory.

The store is asked twice a second, never by a request: a store that is down refuses nobody, and a new or revoked key is live
within a second. A credential is found as a whole, by its digest (one SHA-256, one dictionary lookup), so the time it takes
tells nothing about how close a wrong one is. What a refusal says follows from what the caller sent; only who holds the whole
key hears that it was revoked.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime

import msgspec

from aigw.access import jwt
from aigw.access.consumer_keys import PREFIX, digest, id_in, looks_valid
from aigw.access.jwt import Tokens, UnknownKeyError
from aigw.access.throttle import Throttle, ThrottledError
from aigw.config import schema, terms
from aigw.consumer import Caller, Consumer, ConsumerKey
from aigw.errors import ConfigError, InternalError, PolicyError, StoreError
from aigw.storage.base import Change, Store

_log = logging.getLogger("aigw.access")

CREDENTIAL_HEADERS = ("x-aigw-key", "Authorization", "x-api-key", "x-goog-api-key")
"""Where a credential may be, in the order they are tried. The first that is valid wins: Claude Code and others send two when
both of their variables are set, and an old one beside a good one is no reason to refuse."""

ANONYMOUS = Caller(
    Consumer(id="anonymous", name="anonymous"),
    ConsumerKey(id="", consumer_id="anonymous", digest=b""),
)
"""Who calls without a credential where none is required. `[limits]` hold for all of them together."""

REFUSAL = 640
"""Bytes of every 401's body, filled up with spaces: its size does not tell one reason from another. The longest has 480."""

_HOW = "send a key of this gateway as 'Authorization: Bearer sk-aigw-...'; its operator makes one with 'aigw keys create NAME'"
_NEW = "the gateway's operator makes a new one with 'aigw keys create NAME'"


def configured(name: str, table: schema.Consumer, secret: str) -> Caller:
    """The caller that `[consumers.NAME]` describes. `secret` is its resolved `key`: the key itself, or "sha256:HEX".

    Raises ConfigError when it is empty or no SHA-256.
    """
    where = f"consumers.{name}.key"
    if secret.startswith("sha256:"):
        try:
            found = bytes.fromhex(secret.removeprefix("sha256:").strip())
        except ValueError:
            found = b""
        if len(found) != 32:
            raise ConfigError('expected sha256: and 64 hexadecimal digits (printf %s "$KEY" | sha256sum)', key=where)
        key_id = f"config:{name}"
    elif not secret:
        raise ConfigError("the key is empty", key=where)
    else:
        found = digest(secret)
        key_id = id_in(secret) if looks_valid(secret) else f"config:{name}"
    consumer = Consumer(
        id=f"config:{name}",
        name=name,
        group=table.group,
        tags=msgspec.json.encode(table.tags).decode() if table.tags else "",
        terms=terms.terms(table),
        lead=table.lead,
    )
    return Caller(consumer, ConsumerKey(id=key_id, consumer_id=consumer.id, digest=found))


class Directory:
    """Everyone who may call, in memory: the config's consumers and the store's.

    `required` False lets requests without a credential through as ANONYMOUS (see `authenticate`). `seq` is the number of
    the newest change of the store that is in here; None until the store was read for the first time.
    """

    def __init__(
        self,
        *,
        required: bool = True,
        configured: Iterable[Caller] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.seq: int | None = None
        self.away = ""  # why the store cannot be asked at present; "" when it can
        self.away_since = 0.0  # epoch seconds
        self.throttle = Throttle()
        self.tokens: Tokens | None = None  # of a login service, besides keys
        self.look_again: Callable[[], bool] = lambda: False
        """Called for a token whose key nobody knows: whether its issuer's keys are being read anew."""
        self._clock = clock
        self._consumers: dict[str, Consumer] = {}
        self._keys: dict[str, ConsumerKey] = {}
        self._keys_of: dict[str, tuple[str, ...]] = {}
        self._stored: dict[bytes, Caller] = {}
        self._callers: dict[bytes, Caller] = {}  # what authenticate reads: _stored, and the config's over it
        self.reconfigure(required=required, configured=configured)

    def __len__(self) -> int:
        """How many credentials are known, dead ones too."""
        return len(self._callers)

    def reconfigure(self, *, required: bool, configured: Iterable[Caller]) -> None:
        """Take another config's consumers; the store's stay. One of the config wins over a stored one with the same key."""
        self.required = required
        self._configured = {caller.key.digest: caller for caller in configured}
        self._put_together()

    def _put_together(self) -> None:
        """With nobody in the config one table will do: of a hundred thousand consumers another takes ten megabytes."""
        self._callers = self._stored | self._configured if self._configured else self._stored

    def load(self, consumers: Iterable[Consumer], keys: Iterable[ConsumerKey], seq: int) -> None:
        """Replace all that came from the store by what it holds at change number *seq*."""
        self._consumers = {consumer.id: consumer for consumer in consumers}
        self._keys, self._keys_of, self._stored = {}, {}, {}
        for key in keys:
            self._file(key)
        self._put_together()
        self.seq = seq

    def apply(self, consumers: Mapping[str, Consumer | None], keys: Mapping[str, ConsumerKey | None], seq: int) -> None:
        """Replace what changed up to change number *seq*, by id; None is one that is gone."""
        touched = set(keys)
        for consumer_id, consumer in consumers.items():
            touched.update(self._keys_of.get(consumer_id, ()))
            if consumer is None:
                self._consumers.pop(consumer_id, None)
            else:
                self._consumers[consumer_id] = consumer
        for key_id in touched:
            old = self._keys.pop(key_id, None)
            if old is not None:
                self._keys_of[old.consumer_id] = tuple(one for one in self._keys_of[old.consumer_id] if one != key_id)
                self._stored.pop(old.digest, None)
                if old.digest not in self._configured:
                    self._callers.pop(old.digest, None)
            new = keys.get(key_id, old)  # None where it says that the key is gone
            if new is not None:
                self._file(new)
                if new.digest in self._stored and new.digest not in self._configured:
                    self._callers[new.digest] = self._stored[new.digest]
        self.seq = seq

    def _file(self, key: ConsumerKey) -> None:
        self._keys[key.id] = key
        known = self._keys_of.get(key.consumer_id, ())
        if key.id not in known:
            self._keys_of[key.consumer_id] = (*known, key.id)
        consumer = self._consumers.get(key.consumer_id)
        # A key whose consumer is not here (yet) opens nothing; one of another scheme is no SHA-256 of what callers send.
        if consumer is not None and key.scheme == "sha256":
            self._stored[key.digest] = Caller(consumer, key)

    @property
    def awaited(self) -> bool:
        """Whether nobody from the store is known, because it could not be read yet."""
        return bool(self.away) and self.required and self.seq is None and not self._keys and not self._configured

    def stored(self) -> tuple[list[Consumer], list[ConsumerKey]]:
        """All that came from the store."""
        return list(self._consumers.values()), list(self._keys.values())

    def remember(self, consumers: Iterable[Consumer], keys: Iterable[ConsumerKey]) -> None:
        """What was known before a restart, for as long as the store does not answer: it is read anew as soon as it does, and
        a key that is not among these is not called wrong until then."""
        self.load(consumers, keys, 0)
        self.seq = None

    def authenticate(self, headers: Mapping[str, str], address: str = "") -> Caller:
        """The caller that a request's headers (case-insensitive names) show, or PolicyError: `policy_key_missing`,
        `policy_key_invalid`, `policy_key_revoked`, `policy_key_expired`, `policy_forbidden` (a disabled consumer);
        ThrottledError when too many of these went to *address* lately.

        Where no credential is required, one that has not even our prefix counts as none (SDKs insist on sending
        something), but a wrong key of ours is still refused: whoever sends it means to be somebody.
        """
        value = headers.get("Authorization")
        if value is not None and value[:7].lower() == "bearer ":  # the usual way, first
            caller = self._callers.get(digest(value[7:].strip()))
            if caller is not None and self._problem(caller) is None:
                return caller
        return self._search(headers, address)

    def _search(self, headers: Mapping[str, str], address: str) -> Caller:
        """All credentials of a request in order; the first valid one, else the complaint about the most telling one."""
        complaint: PolicyError | None = None
        unknown = ""
        for credential in _credentials(headers):
            caller = self._callers.get(digest(credential))
            if caller is None and self.tokens is not None and jwt.looks_like(credential):
                try:
                    return self._by_token(self.tokens, credential)
                except PolicyError as refused:
                    complaint = complaint or refused
                    continue
            if caller is None:
                if self.required or credential.startswith(PREFIX):
                    unknown = unknown or credential
                continue
            problem = self._problem(caller)
            if problem is None:
                return caller
            complaint = complaint or problem  # of two bad ones, the one we know more about
        if complaint is None and unknown and self.seq is None:
            # Not one valid key is answered 401 because our store is down.
            raise InternalError(
                "gateway_internal", "the gateway has not read its consumer keys yet; try again", status=503, retry_after=1
            )
        if complaint is None and not unknown and not self.required:
            return ANONYMOUS
        wait = self.throttle.failed(address)
        if wait:
            raise ThrottledError(wait)
        if complaint is not None:
            raise complaint
        if unknown:
            raise _unknown(unknown)
        if headers.get("Authorization"):
            raise PolicyError("policy_key_missing", f"the Authorization header is not of the form 'Bearer KEY'; {_HOW}")
        raise PolicyError("policy_key_missing", f"no API key; {_HOW}")

    def _by_token(self, tokens: Tokens, credential: str) -> Caller:
        """Raises PolicyError; InternalError while nobody can tell, because the issuer's keys are not here (yet)."""
        try:
            return tokens.caller(credential, self._clock())
        except UnknownKeyError:
            if self.look_again() or not tokens.known:
                raise InternalError(
                    "gateway_internal",
                    "the gateway has not read the keys that sign these tokens; try again",
                    status=503,
                    retry_after=1,
                ) from None
            raise

    def objection(self, caller: Caller) -> PolicyError | None:
        """Why *caller*, who was let in before, would not be now; None when it would. For what lasts longer than a request."""
        if caller is ANONYMOUS:
            return _withdrawn() if self.required else None
        if caller.key.id.startswith("jwt:"):
            return _withdrawn() if self.tokens is None else self._problem(caller)
        known = self._callers.get(caller.key.digest)
        return _withdrawn() if known is None else self._problem(known)

    def _problem(self, caller: Caller) -> PolicyError | None:
        key, consumer = caller.key, caller.consumer
        if key.revoked is not None:
            return PolicyError("policy_key_revoked", f"this API key ({key.id}) was revoked on {_day(key.revoked)}; {_NEW}")
        if key.expires is not None and key.expires <= self._clock():
            return PolicyError("policy_key_expired", f"this API key ({key.id}) expired on {_day(key.expires)}; {_NEW}")
        if consumer.disabled:
            return PolicyError("policy_forbidden", "the consumer of this API key is disabled; ask the gateway's operator")
        return None


def _credentials(headers: Mapping[str, str]) -> list[str]:
    found = []
    for name in CREDENTIAL_HEADERS:
        value = headers.get(name)
        if value is None:
            continue
        if name == "Authorization":
            scheme, _, value = value.strip().partition(" ")
            if scheme.lower() != "bearer":
                continue
        value = value.strip()
        if value and value not in found:
            found.append(value)
    return found


def _unknown(credential: str) -> PolicyError:
    if not credential.startswith(PREFIX):
        message = f"this API key is not known to this gateway (its own keys begin with {PREFIX}); {_HOW}"
    elif not looks_valid(credential):
        message = "this API key looks mistyped or cut off (its checksum is wrong); copy it again from where it was kept"
    else:
        message = f"this API key is well-formed but not known to this gateway; {_NEW}"
    return PolicyError("policy_key_invalid", message)


def _withdrawn() -> PolicyError:
    return PolicyError("policy_key_revoked", f"this API key is no longer known to this gateway; {_NEW}")


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


async def load(store: Store, directory: Directory) -> None:
    """Read everyone from the store. Raises StoreError."""
    consumers, keys, seq = await store.consumers()
    directory.load(consumers, keys, seq)


async def refresh(store: Store, directory: Directory) -> bool:
    """Bring the directory to the store's newest change; False when there was none. Raises StoreError."""
    newest = await store.last_change()
    if newest == directory.seq:
        return False
    if directory.seq is None or newest < directory.seq:  # the first time; or another database took this one's place
        await load(store, directory)
        return True
    changes = await store.changes(directory.seq)
    if len(changes) > 200 or any(
        change.kind == "restore" for change in changes
    ):  # an import: one read of everything is cheaper than one of each
        await load(store, directory)
    else:
        await _apply(store, directory, changes, newest)
    return True


async def _apply(store: Store, directory: Directory, changes: list[Change], newest: int) -> None:
    # Rows are read after the changes were, so they are at least as new; what is newer still comes again next time.
    consumers = {change.id: await store.consumer(change.id) for change in changes if change.kind == "consumer"}
    keys = {change.id: await store.key(change.id) for change in changes if change.kind == "key"}
    directory.apply(consumers, keys, max([newest, *(change.seq for change in changes)]))


async def follow(store: Store, directory: Directory, interval: float = 0.5) -> None:
    """Keep the directory like the store until cancelled: asked every *interval* seconds, so an edit is live within a
    second. A store that is out of reach is said once (and once that it is back); meanwhile memory serves."""
    down = False
    while True:
        try:
            await refresh(store, directory)
            directory.away = ""
            if down:
                down = False
                _log.info("consumer keys: the store answers again; %d known", len(directory))
        except StoreError as error:
            directory.away_since = directory.away_since if directory.away else time.time()
            directory.away = str(error)
            if not down:
                down = True
                _log.warning("consumer keys: %s; serving the %d known ones, edits wait", error, len(directory))
        except Exception as error:  # noqa: BLE001 - a border: with this loop dead, revoked keys would live on unseen
            if not down:
                down = True
                _log.error(
                    "consumer keys: reading edits failed (%s); serving the %d known ones", type(error).__name__, len(directory)
                )
        await _next(store, interval)


async def _next(store: Store, interval: float) -> None:
    """Until the store may have something new."""
    try:
        await store.changed(interval)
    except Exception as error:  # noqa: BLE001 - as above
        _log.debug("consumer keys: not told of edits: %s", type(error).__name__)
        await asyncio.sleep(interval)

"""The contract of a provider adapter: who serves a model, at which URL, with what credentials. An adapter does no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from aigw.deployment import ProviderKey
from aigw.errors import UpstreamError
from aigw.exchange import Headers, UpstreamRequest
from aigw.protocols.operations import Operation
from aigw.protocols.realtime import Handshake
from aigw.protocols.translation.contract import Toward


class Credential(Protocol):
    """A key that is exchanged for a token which ends. No I/O: whoever holds it sends what `refresh` asks for, once at a time,
    and hands the answer to `accept`; the provider's `prepare` uses the token."""

    def refresh(self, now: float) -> UpstreamRequest | None:
        """The request for a new token; None while the one there is good. *now* is seconds since the epoch."""

    def accept(self, status: int, headers: Headers, body: bytes, now: float) -> None:
        """Raises UpstreamError when the answer holds no token."""


@runtime_checkable
class Keeper(Protocol):
    """A provider that keeps what it makes, and can be asked for it by its id."""

    def reach(
        self,
        operation: Operation,
        object_id: str,
        query: str,
        body: bytes,
        key: ProviderKey | None,
        headers: Mapping[str, str],
        *,
        model: str = "",
        content_type: str = "application/json",
    ) -> UpstreamRequest:
        """The request for *operation*, whose path names *object_id* ("ID/ITEM" where there is an item in it), or *model*.
        *content_type* is that of the body, which may be put in later. *query* is what the caller wrote behind the path, fit for
        the wire. Raises as `Provider.prepare` does."""


@runtime_checkable
class RawProvider(Protocol):
    """A provider that may be asked for any path below its own address."""

    def raw(self, method: str, path: str, query: str, key: ProviderKey | None, headers: Mapping[str, str]) -> UpstreamRequest:
        """The request for *path* (which begins with a slash and has been looked at), with our key in place of the caller's. Its
        body may be put in later. Raises as `Provider.prepare` does."""


class Lender(Protocol):
    """A provider with `own_login`."""

    def login(self, headers: Mapping[str, str], ours: bytes) -> ProviderKey:
        """The caller's login, as a key of this one request. *ours* is the SHA-256 of its key for this gateway. Raises
        PolicyError when it brings none."""


@runtime_checkable
class Stepper(Protocol):
    """A provider whose answers may have to be asked for again (operations that `polls`)."""

    def next_step(self, operation: Operation, status: int, body: bytes, key: ProviderKey | None) -> UpstreamRequest | None:
        """The request that asks for the rest of an answer which is not ready; None when it is, or has failed. It goes nowhere
        but to the operator's own address, whatever *body* says."""


class Provider(Protocol):
    """One `[providers.NAME]` of the config, ready to be called. Immutable once built; used from one event loop."""

    @property
    def name(self) -> str:
        """The name in the config, in records and in `x-aigw-provider`."""

    @property
    def kind(self) -> str:
        """The id of its catalog row."""

    @property
    def account(self) -> str:
        """What its keys share their limits under, unless a key says otherwise."""

    @property
    def residency(self) -> str:
        """Where the data goes: "cn", "eu", "us", "intl", "local" ... or "" when nobody said."""

    @property
    def price_id(self) -> str:
        """The id under which the price data knows it."""

    @property
    def own_login(self) -> bool:
        """Whether each caller brings its own login for it; then it has `login(headers, ours)`, which gives the key."""

    @property
    def stream_usage(self) -> bool:
        """Whether a stream may be asked for its usage (`stream_options.include_usage`)."""

    @property
    def lists_models(self) -> bool:
        """Whether `models_request` has an answer."""

    def dialect_for(self, operation: Operation) -> str | None:
        """The dialect in which it serves *operation*, None when it does not."""

    def serving(self, operation: Operation, model: str) -> Operation | None:
        """By which operation it serves what *operation* asks of *model*: that one itself, or another of its family, into which
        the request has to be translated; None when it does not serve it."""

    def toward(self, via: Operation, model: str, *, stream: bool) -> Toward:
        """What a translator must know to write a request for it."""

    def prepare(
        self,
        operation: Operation,
        body: bytes,
        key: ProviderKey | None,
        headers: Mapping[str, str],
        model: str = "",
        *,
        stream: bool = False,
    ) -> UpstreamRequest:
        """The request that asks for *operation*. *body* is in the operation's dialect already and is not looked at; *headers*
        are the caller's (any case-blind mapping, or one with lower-case names), of which only the dialect's own go on.
        *model* and *stream* are said in the URL by some. Raises CallerError for a header value that cannot be sent and for
        an operation that is not served."""

    def credential(self, key: ProviderKey | None) -> Credential | None:
        """What has to be exchanged before *key* is good for a request (a service account for a token); None for most."""

    def models_request(self, key: ProviderKey | None) -> UpstreamRequest | None:
        """The request that lists its models; None when it has no such list, or the operator does not want it asked."""

    def read_models(self, body: bytes) -> list[str]:
        """The model names in the answer to `models_request`; raises UpstreamError when it is no such list."""

    def judge(self, status: int, headers: Headers, body: bytes, key: ProviderKey | None) -> UpstreamError:
        """What an answer other than a 2xx means: whose fault, what to do next. What it returns holds no secret of ours."""

    def error_in_body(self, body: bytes, key: ProviderKey | None = None) -> UpstreamError | None:
        """The error that an answer with status 200 really is; None when it is a proper answer."""


@runtime_checkable
class RealtimeProvider(Protocol):
    """A provider that may have realtime sessions (websockets)."""

    def handshake(
        self, model: str, key: ProviderKey | None, headers: Mapping[str, str], asked: Mapping[str, str]
    ) -> Handshake | None:
        """How a session with *model* is asked for; None when there are none here. *headers* are the caller's, *asked* is its
        query. Raises CallerError for a header value that cannot be sent."""

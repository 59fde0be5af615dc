"""The only way out: what carries a request to a provider and its answer back."""

from __future__ import annotations

from typing import Protocol

from aigw.exchange import Receiver, UpstreamRequest


class Transport(Protocol):
    """Sends one request and pushes its answer into a receiver as it arrives.

    `send` returns when the whole answer was received. It raises `UpstreamError` (provider_unreachable, provider_timeout,
    provider_connection_lost, provider_bad_response), already classified; after `head` was called that means a broken answer.
    Cancelling it closes the connection at once. A pooled connection that was closed before any byte of the answer arrived is
    replaced by a fresh one and is no attempt.
    """

    async def send(self, request: UpstreamRequest, receiver: Receiver) -> None: ...

    async def close(self) -> None: ...

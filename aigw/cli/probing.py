"""The few calls that commands make to providers: is this key good, what is at this address. With the proxy and the authorities
that the config names, over the gateway's own way out."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Coroutine, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from aigw.config import schema
from aigw.deployment import ProviderKey
from aigw.errors import ConfigError, UpstreamError
from aigw.exchange import UpstreamRequest
from aigw.providers import call_check, catalog, compatible, discovery, key_check
from aigw.providers.base import Credential
from aigw.providers.compatible import CompatibleProvider
from aigw.providers.discovery import Found
from aigw.providers.key_check import Answered, Outcome, Verdict
from aigw.upstream.answer import WholeAnswer
from aigw.upstream.http import HttpTransport

__all__ = ["Found", "Verdict", "calls", "check_key", "checked", "discover", "in_loop"]

MOST = 8 * 1024 * 1024
"""Bytes of an answer; the longest public list of models is under 1 MB."""

T = TypeVar("T")


def check_key(name: str, table: schema.Provider, upstream: schema.Upstream, key: str, *, timeout: float = 10.0) -> Verdict:
    """Whether *key* (the secret itself; "": none) is good at the provider `[providers.NAME]`. Blocks for *timeout* seconds at
    most. What is wrong with *table* itself is "unknown", with the reason; nothing is raised for it."""
    return in_loop(checked(name, table, upstream, key, within=timeout))


async def checked(
    name: str, table: schema.Provider, upstream: schema.Upstream, key: str, *, model: str = "", within: float = 10.0
) -> Verdict:
    """`check_key` for who has an event loop; with *model* it is asked for a word instead, which costs a few tokens."""
    try:
        provider = compatible.build(name, table, upstream, [key] if key else [], environ=os.environ)
    except ConfigError as error:
        return Verdict(key_check.UNKNOWN, str(error))
    mine = ProviderKey(name, key)
    if provider.kind == "demo":
        return Verdict(key_check.GOOD, "answers offline, and needs no key")
    own_address = bool(table.base_url or table.anthropic_base_url or table.settings)
    if model:
        return await drive(key_check.ask_for_a_word(provider, mine, model), within)
    return await drive(key_check.check(provider, mine, own_address=own_address), within)


async def calls(
    name: str, table: schema.Provider, upstream: schema.Upstream, key: str, *, model: str = "", within: float = 30.0
) -> list[tuple[str, Verdict, float]]:
    """The list of models, then the smallest call of each kind that `[providers.NAME]` serves: its name, what came of it, and
    the seconds it took. *model* is asked, else the row's default, else one that it lists. They cost a few tokens."""
    try:
        provider = compatible.build(name, table, upstream, [key] if key else [], environ=os.environ)
    except ConfigError as error:
        return [("config", Verdict(key_check.UNKNOWN, str(error)), 0.0)]
    mine = ProviderKey(name, key)
    if provider.kind == "demo":
        return [("config", Verdict(key_check.GOOD, "answers offline, and needs no key"), 0.0)]
    clock = asyncio.get_running_loop().time
    own_address = bool(table.base_url or table.anthropic_base_url or table.settings)
    began = clock()
    first = await drive(key_check.check(provider, mine, own_address=own_address), within)
    found = [("models" if first.models else "key", first, clock() - began)]
    if not first.usable:
        return found  # the same would come of everything else
    row = catalog.row(provider.kind)
    listed = (*table.models, *first.models)
    default = row.default_model if row.default_model in listed or not listed else ""
    asked = model or default or next((one for one in listed if not discovery.no_chat(one)), "")
    vectors = call_check.embedder(listed or row.models)
    try:
        credential = provider.credential(mine)
        if credential is not None:
            found.append(("token", *await _token(credential, within)))
    except UpstreamError as error:
        return [*found, ("token", Verdict(key_check.WRONG_KEY, key_check.line(error.message)), 0.0)]
    for call in call_check.calls(provider, asked, vectors):
        began = clock()
        verdict = await drive(call_check.attempt(provider, mine, call), within)
        found.append((call.name, verdict, clock() - began))
    return found


async def _token(credential: Credential, within: float) -> tuple[Verdict, float]:
    """The exchange of a key for a token, where it needs one."""
    began = time.monotonic()
    request = credential.refresh(time.time())
    if request is not None:
        transport = HttpTransport()
        try:
            outcome = await _ask(transport, request, within)
        finally:
            await transport.close()
        if isinstance(outcome, UpstreamError):
            raise outcome
        credential.accept(outcome.status, outcome.headers, outcome.body, time.time())
    return Verdict(key_check.GOOD, "exchanged"), time.monotonic() - began


def discover(base_url: str, key: str, upstream: schema.Upstream, *, model: str = "", timeout: float = 20.0) -> Found:
    """What is at *base_url*: its APIs, models, how it reports usage. *key* is the secret itself, "" for none; *model* is asked
    for a word (a few tokens), else one that it lists. Blocks for *timeout* seconds at most. Raises ConfigError for what is no
    URL."""

    def build(table: schema.Provider) -> CompatibleProvider:
        return compatible.build("new", table, upstream, [key] if key else [], environ=os.environ)

    return in_loop(drive(discovery.search(base_url, ProviderKey("new", key), build, model=model), timeout))


async def drive(check: Generator[UpstreamRequest, Outcome, T], within: float) -> T:
    """Send what *check* wants sent, one after the other, in *within* seconds all together."""
    loop = asyncio.get_running_loop()
    until = loop.time() + within
    transport = HttpTransport()
    try:
        request = next(check)
        while True:
            request = check.send(await _ask(transport, request, until - loop.time()))
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        await transport.close()


async def _ask(transport: HttpTransport, request: UpstreamRequest, seconds: float) -> Outcome:
    if seconds <= 0:
        return UpstreamError("provider_timeout", "did not answer in time")
    request.connect_timeout = min(request.connect_timeout, seconds)
    request.first_byte_timeout = request.idle_timeout = request.timeout = seconds
    answer = WholeAnswer(MOST)
    try:
        await transport.send(request, answer)
    except UpstreamError as error:
        return error
    return Answered(answer.status, answer.headers, answer.body)


class _Resolver(ThreadPoolExecutor):
    """Where names are looked up. A name server that does not answer must not hold up the end of the command."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        super().shutdown(wait=False, cancel_futures=True)


def in_loop(work: Coroutine[Any, Any, T]) -> T:
    """Run *work* in an event loop of its own. Ctrl-C ends it."""
    with asyncio.Runner() as runner:
        runner.get_loop().set_default_executor(_Resolver(8))
        return runner.run(work)
